"""A reverse proxy as an ASGI application, so that faults can stand in front of a server nobody here wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"proxy-connection",
        b"host",
        b"content-length",
    }
)


class ForwardingApp:
    """Sends every request to another server and gives its answer back, body and all."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str, *, timeout_s: float = 300, verify: bool = True) -> AsyncIterator[ForwardingApp]:
        """Forward to the server at `url` while the context is open."""
        async with httpx.AsyncClient(base_url=url, timeout=timeout_s, verify=verify) as client:
            yield cls(client)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        target = httpx.URL(path=scope["path"], query=scope["query_string"] or None)
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _HOP_BY_HOP]
        request = self._client.build_request(scope["method"], target, headers=headers, content=body)
        try:
            # The raw bytes go on as they came, compressed or not, so that the headers stay true.
            answer = await self._client.send(request, stream=True)
            try:
                content = b"".join([chunk async for chunk in answer.aiter_raw()])
            finally:
                await answer.aclose()
        except httpx.TransportError as error:
            await respond(
                send, 502, f'{{"error": "the server behind cannot be reached: {type(error).__name__}"}}'.encode()
            )
            return
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": [*kept, length(content)]})
        await send({"type": "http.response.body", "body": content})


async def read_body(receive: Any) -> bytes:
    """Read the whole body of an ASGI request."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(parts)


def length(content: bytes) -> tuple[bytes, bytes]:
    """Return the header that gives the body's length."""
    return (b"content-length", str(len(content)).encode())


async def respond(send: Any, status: int, content: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Send a whole JSON answer, with the header by which clients know an Elasticsearch."""
    start = [
        (b"content-type", b"application/json"),
        (b"x-elastic-product", b"Elasticsearch"),
        length(content),
        *(headers or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})
