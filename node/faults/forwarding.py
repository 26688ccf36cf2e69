"""A reverse proxy as an ASGI application, so that faults can stand in front of a server nobody here wrote."""

from __future__ import annotations

import gzip
import re
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import httpx
import orjson

BODY_BYTES_MAX: Final = 100 * 1024 * 1024
"""As large as Elasticsearch takes a request, if nobody tells it otherwise."""
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
_CONTEXTS_MAX: Final = 1_000
_CONTEXT_LOOKED_AT_BYTES: Final = 16 * 1024
_CONTEXT = re.compile(rb'"(id|pit_id|_scroll_id)"\s*:\s*"([^"]+)"')

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


class BodyTooLarge(Exception):
    """A request is larger than anybody wants to hold in memory."""


@attrs.frozen
class _OpenContext:
    """A point in time or scroll that somebody has opened at the server behind."""

    is_scroll: bool
    headers: list[tuple[bytes, bytes]] = attrs.field(repr=False)


class ForwardingApp:
    """Sends every request to another server and gives its answer back, body and all.

    It remembers the last thousand points in time and scrolls that were opened, so that a restart can be played that loses them.
    """

    def __init__(
        self, client: httpx.AsyncClient, *, passes_cuts: bool = False, extensions: dict[str, Any] | None = None
    ) -> None:
        self._client, self._passes_cuts, self._extensions = client, passes_cuts, extensions
        self._contexts: OrderedDict[str, _OpenContext] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def to(
        cls,
        url: str,
        *,
        timeout_s: float = 300,
        verify: ssl.SSLContext | bool = True,
        by_way_of: tuple[str, int] | None = None,
        passes_cuts: bool = False,
    ) -> AsyncIterator[ForwardingApp]:
        """Forward to the server at `url` while the context is open.

        `by_way_of`: a host and port to connect to on the way, such as those of a `FaultProxy`. What the server is called does not
        change by that. `passes_cuts`: a connection that breaks is raised as a `ConnectionError`, instead of an answer 502.
        """
        there, headers, extensions = httpx.URL(url), {}, {}
        if by_way_of is not None:
            headers = {"host": there.netloc.decode()}
            extensions = {"sni_hostname": there.host}
            there = there.copy_with(host=by_way_of[0], port=by_way_of[1])
        async with httpx.AsyncClient(base_url=there, timeout=timeout_s, verify=verify, headers=headers) as client:
            yield cls(client, passes_cuts=passes_cuts, extensions=extensions)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _HOP_BY_HOP]
        if not any(name.lower() == b"accept-encoding" for name, _ in headers):
            # Or the client here would ask for what whoever asks cannot read.
            headers.append((b"accept-encoding", b"identity"))
        request = self._client.build_request(
            scope["method"], _target(scope), headers=headers, content=body, extensions=self._extensions
        )
        try:
            # The raw bytes go on as they came, compressed or not, so that the headers stay true.
            answer = await self._client.send(request, stream=True)
            try:
                content = await _whole(answer)
            finally:
                await answer.aclose()
        except httpx.TransportError as error:
            if self._passes_cuts:
                kind = ConnectionRefusedError if isinstance(error, httpx.ConnectError) else ConnectionResetError
                raise kind(f"the connection to the server broke: {_why(error)}") from error
            await respond(
                send, 502, f'{{"error": "the server behind cannot be reached: {type(error).__name__}"}}'.encode()
            )
            return
        except BodyTooLarge:
            await respond(send, 502, b'{"error": "the answer of the server behind is too large to be passed on"}')
            return
        self._note_context(scope, headers, answer, content)
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": [*kept, length(content)]})
        await send({"type": "http.response.body", "body": content})

    async def lose(self, loses: str) -> None:
        """Close what the server forgets when it is started again: open points in time and scrolls.

        A real Elasticsearch loses nothing else that it has acknowledged. One that cannot be reached now loses them later by itself.
        """
        while self._contexts:
            identity, opened = self._contexts.popitem()
            path, body = (
                ("/_search/scroll", {"scroll_id": identity}) if opened.is_scroll else ("/_pit", {"id": identity})
            )
            request = self._client.build_request(
                "DELETE",
                httpx.URL(path),
                headers=[*opened.headers, (b"content-type", b"application/json")],
                content=orjson.dumps(body),
                extensions=self._extensions,
            )
            try:
                await self._client.send(request)
            except httpx.TransportError:
                return

    def _note_context(
        self, scope: Any, headers: list[tuple[bytes, bytes]], answer: httpx.Response, content: bytes
    ) -> None:
        path, opens_pit = scope["path"], scope["path"].endswith("/_pit")
        if answer.status_code != 200 or not (opens_pit or "_search" in path):
            return
        if answer.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        # Elasticsearch puts them before the hits.
        for name, identity in _CONTEXT.findall(content[:_CONTEXT_LOOKED_AT_BYTES]):
            if name == b"id" and not opens_pit:
                continue
            credentials = [pair for pair in headers if pair[0].lower() == b"authorization"]
            self._contexts[identity.decode()] = _OpenContext(name == b"_scroll_id", credentials)
            while len(self._contexts) > _CONTEXTS_MAX:
                self._contexts.popitem(last=False)


def _why(error: BaseException) -> str:
    """The first words that an error or one of its causes has: httpx says nothing of certificates itself."""
    one: BaseException | None = error
    while one is not None and not str(one):
        one = one.__cause__ or one.__context__
    return type(error).__name__ if one is None else str(one)


async def _live(receive: Any, send: Any) -> None:
    while True:
        told = (await receive())["type"]
        await send({"type": f"{told}.complete"})
        if told == "lifespan.shutdown":
            return


def _target(scope: Any) -> httpx.URL:
    # As it was sent: an escaped slash in an id is not a slash.
    path = scope.get("raw_path")
    if not path:
        return httpx.URL(path=scope["path"], query=scope["query_string"] or None)
    query = scope["query_string"]
    return httpx.URL("").copy_with(raw_path=path.partition(b"?")[0] + (b"?" + query if query else b""))


async def _whole(answer: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size_bytes = 0
    async for part in answer.aiter_raw():
        size_bytes += len(part)
        if size_bytes > ANSWER_BYTES_MAX:
            raise BodyTooLarge
        parts.append(part)
    return b"".join(parts)


async def read_body(receive: Any, size_bytes_max: int | None = None) -> bytes:
    """Read the whole body of an ASGI request. Raises `BodyTooLarge`."""
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes_max is not None and size_bytes > size_bytes_max:
            raise BodyTooLarge
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
