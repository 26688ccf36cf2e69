"""What the extraction service's client and Tika's have in common: sending a file, and reading a bounded answer."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import attrs
import httpx
import trio

from .results import ExtractionLimits
from .spool import Spool

ANSWER_BYTES_FOR_METADATA = 4 * 2**20


@attrs.frozen
class Answer:
    """Status and JSON object of an answer; the object is empty if there was none."""

    status: int
    members: Mapping[str, Any]
    retry_after_s: float | None = None


class AnswerTooLarge(Exception):
    """The answer is longer than any that the limits allow."""


async def put(
    client: httpx.AsyncClient,
    path: str,
    spool: Spool | None,
    limits: ExtractionLimits,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    chunk_size_bytes: int = 65536,
) -> Answer:
    """PUT a file, streamed in chunks, and read the answer. Raises httpx's errors and `AnswerTooLarge`.

    Cancelled: the connection is closed.
    """
    # Six bytes are the longest that JSON needs for a character of one's own text, with room for twice the limit.
    allowed_bytes = ANSWER_BYTES_FOR_METADATA + 12 * limits.characters_max
    async with aclosing(_rechunked(spool, chunk_size_bytes)) as body:
        return await _put(client, path, body if spool is not None else None, allowed_bytes, params, headers)


async def _put(
    client: httpx.AsyncClient,
    path: str,
    body: AsyncGenerator[bytes, None] | None,
    allowed_bytes: int,
    params: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
) -> Answer:
    request = client.build_request(
        "PUT",
        path,
        params=params,
        headers={
            "accept": "application/json",
            **({"content-type": "application/octet-stream"} if body is not None else {}),
            **(headers or {}),
        },
        content=body,
    )
    response = await client.send(request, stream=True)
    try:
        received = bytearray()
        with trio.CancelScope() as reading:
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > allowed_bytes:
                    # The loop goes on to its next wait and ends there: a generator inside httpx that was left in the middle
                    # would be finished by the garbage collector, at some other time.
                    reading.cancel()
                    received.clear()
        if reading.cancelled_caught:
            raise AnswerTooLarge
    finally:
        await response.aclose()
    return Answer(response.status_code, _object(bytes(received)), _seconds(response.headers.get("retry-after")))


async def _rechunked(spool: Spool | None, chunk_size_bytes: int) -> AsyncGenerator[bytes, None]:
    if spool is None:
        return
    waiting = bytearray()
    async with aclosing(spool.chunks()) as chunks:
        async for chunk in chunks:
            waiting += chunk
            while len(waiting) >= chunk_size_bytes:
                yield bytes(waiting[:chunk_size_bytes])
                del waiting[:chunk_size_bytes]
    if waiting:
        yield bytes(waiting)


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        members = json.loads(content)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _seconds(written: str | None) -> float | None:
    try:
        return max(0.0, float(written)) if written else None
    except ValueError:
        return None
