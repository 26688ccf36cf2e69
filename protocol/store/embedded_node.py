"""A node class for the official client that calls an ASGI application inside this process: no sockets, no threads."""

from __future__ import annotations

import builtins
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar
from urllib.parse import unquote

import trio
from elastic_transport import (
    ApiResponseMeta,
    BaseAsyncNode,
    ConnectionError,  # noqa: A004 - the official client's name for it
    ConnectionTimeout,
    HttpHeaders,
    HttpxAsyncHttpNode,
    NodeConfig,
)
from elastic_transport._node import NodeApiResponse
from elastic_transport.client_utils import DEFAULT, DefaultType

from .http1 import MalformedAnswer, unpacked
from .target import EMBEDDED_EXTRA

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def embedded_node_class(embedded: Any) -> type[BaseAsyncNode]:
    """The node class for `Target(embedded=...)`: an `httpx.AsyncBaseTransport` is used as one, anything else is ASGI.

    httpx's own transport for ASGI is taken apart: under Trio it leaves an unfinished generator behind with every request.
    """
    is_transport = hasattr(embedded, "handle_async_request") and not hasattr(embedded, "app")
    return EmbeddedTransportNode if is_transport else EmbeddedNode


class EmbeddedTransportNode(HttpxAsyncHttpNode):
    """Sends requests through an httpx transport that somebody else made, and owns."""

    def __init__(self, config: NodeConfig) -> None:
        import httpx

        super().__init__(config)
        self.client = httpx.AsyncClient(
            transport=config._extras[EMBEDDED_EXTRA], base_url=self.base_url, timeout=config.request_timeout
        )


class EmbeddedNode(BaseAsyncNode):
    """Calls the application in the caller's task. Cancelled, the application is cancelled at the same point."""

    _CLIENT_META_HTTP_CLIENT: ClassVar[tuple[str, str]] = ("in", "1")

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        embedded = config._extras[EMBEDDED_EXTRA]
        self._app: Application = getattr(embedded, "app", embedded)

    async def perform_request(  # type: ignore[override]
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> NodeApiResponse:
        """Call the application. Raises `ConnectionTimeout`, and `ConnectionError` if it ended without an answer."""
        sent_headers = self._headers.copy()
        if headers:
            sent_headers.update(headers)
        timeout_s = self.config.request_timeout if isinstance(request_timeout, DefaultType) else request_timeout
        exchange = _Exchange(body or b"")
        started = time.perf_counter()
        scope = _scope(method, target, sent_headers, len(body or b""))
        try:
            with trio.move_on_after(math.inf if timeout_s is None else timeout_s) as limit:
                await self._app(scope, exchange.receive, exchange.send)
        except builtins.ConnectionError as exc:
            # How an application without sockets says that it cut the connection; anything else it raises is a bug.
            raise ConnectionError(str(exc) or "the embedded node cut the connection", errors=(exc,)) from exc
        if limit.cancelled_caught and not exchange.ended:
            raise ConnectionTimeout(f"no answer in {timeout_s} s")
        if exchange.status is None or not exchange.ended:
            raise ConnectionError("the embedded node ended without an answer")
        meta = ApiResponseMeta(
            exchange.status, "1.1", HttpHeaders(exchange.headers), time.perf_counter() - started, self.config
        )
        try:
            answer_body = unpacked(b"".join(exchange.parts), meta.headers.get("content-encoding"))
        except MalformedAnswer as exc:
            raise ConnectionError(str(exc), errors=(exc,)) from exc
        return NodeApiResponse(meta, answer_body)

    async def close(self) -> None:  # type: ignore[override]
        """The application belongs to whoever started it."""


class _Exchange:
    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.ended = False

    async def receive(self) -> Message:
        if self._body is None:
            if not self.ended:
                # A client that waits for its answer does not hang up; the request's time-out bounds this.
                await trio.sleep_forever()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            self.parts.append(bytes(message.get("body", b"")))
            self.ended = not message.get("more_body", False)


def _scope(method: str, target: str, headers: HttpHeaders, size_bytes: int) -> dict[str, Any]:
    path, _, query = target.partition("?")
    wire = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    wire += [(b"host", b"embedded.callboard"), (b"content-length", str(size_bytes).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "root_path": "",
        "query_string": query.encode("ascii"),
        "headers": wire,
        "client": ("127.0.0.1", 0),
        "server": ("embedded.callboard", 80),
    }
