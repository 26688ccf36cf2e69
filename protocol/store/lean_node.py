"""A node class for the official client that does little: HTTP/1.1 over Trio sockets, one request at a time per connection.

A bulk-heavy sync spends a good part of its processor time inside the HTTP client. This one keeps connections alive in a small
pool, sends head and body as they are and reads answers with `http1`. It knows no proxies, redirects or cookies; the
official client's own node (`Target(transport="httpx")`) knows more and costs more.

Invariants: a connection is either idle in the pool or owned by exactly one request; it goes back to the pool only after a whole
answer that allows it; every other way out of a request, cancellation included, closes it.
"""

from __future__ import annotations

import gzip
import math
import re
import select
import ssl
import time
from typing import Any, ClassVar

import trio
from elastic_transport import (
    ApiResponseMeta,
    BaseAsyncNode,
    ConnectionError,  # noqa: A004 - the official client's name for it
    ConnectionTimeout,
    HttpHeaders,
    NodeConfig,
    TlsError,
)
from elastic_transport._node import NodeApiResponse
from elastic_transport.client_utils import DEFAULT, DefaultType, client_meta_version

from .http1 import AnswerReader, MalformedAnswer, TruncatedAnswer

RECEIVE_BYTES = 64 * 1024
JOINED_BYTES_MAX = 64 * 1024
"""Bodies up to this size travel in the same system call as the head."""
EARLY_ANSWER_WAIT_S = 2.0
"""A server that stops reading a request (413) gets so long to say why."""

_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_UNSAFE_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class _Connection:
    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], socket_fd: int) -> None:
        self.stream = stream
        self._poll = select.poll()
        self._poll.register(socket_fd, select.POLLIN)

    def is_silent(self) -> bool:
        """Whether an idle connection is still of use: one that has something to say was closed, or is out of step."""
        return not self._poll.poll(0)

    async def exchange(self, head: bytes, body: bytes, method: str) -> AnswerReader:
        answer = AnswerReader(method)
        broken: trio.BrokenResourceError | None = None
        try:
            if len(body) <= JOINED_BYTES_MAX:
                await self.stream.send_all(head + body)
            else:
                await self.stream.send_all(head)
                await self.stream.send_all(body)
        except trio.BrokenResourceError as exc:
            if exc.__cause__ is not None and isinstance(exc.__cause__, ssl.SSLError):
                raise
            broken = exc
        if broken is None:
            await self._receive(answer)
            return answer
        # The server closed before it had read everything; it may have told us why first.
        with trio.move_on_after(EARLY_ANSWER_WAIT_S):
            try:
                await self._receive(answer)
            except (trio.BrokenResourceError, TruncatedAnswer):
                raise broken from None
        if not answer.complete:
            raise broken
        answer.keep_alive = False
        return answer

    async def _receive(self, answer: AnswerReader) -> None:
        while not answer.complete:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            if data:
                answer.feed(bytes(data))
            else:
                answer.end()

    async def close(self) -> None:
        await trio.aclose_forcefully(self.stream)


class LeanNode(BaseAsyncNode):
    """Speaks to one server for `AsyncElasticsearch`, on Trio only.

    `perform_request` may be called by any number of tasks; at most `connections_per_node` are on the wire, the others wait
    their turn within their own time-out. Cancelled, it closes the connection it used.
    """

    _CLIENT_META_HTTP_CLIENT: ClassVar[tuple[str, str]] = ("tr", client_meta_version(trio.__version__))

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        if config.scheme == "https" and config.ssl_context is None:
            raise ValueError("LeanNode wants a ready-made ssl_context")
        self._ssl_context = config.ssl_context
        self._idle: list[_Connection] = []
        self._slots = trio.Semaphore(config.connections_per_node, max_value=config.connections_per_node)
        default_port = 443 if config.scheme == "https" else 80
        host = f"[{config.host}]" if ":" in config.host else config.host
        self._authority = host if config.port == default_port else f"{host}:{config.port}"

    async def perform_request(  # type: ignore[override]
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> NodeApiResponse:
        """Send one request and return the whole answer.

        Raises `ConnectionTimeout` when that took longer than `request_timeout` seconds in all, `TlsError`, and
        `ConnectionError` for everything else that kept an answer from coming.
        """
        sent_headers = self._headers.copy()
        if headers:
            sent_headers.update(headers)
        sent_body = body or b""
        if sent_body and self._http_compress:
            sent_body = gzip.compress(sent_body, compresslevel=1, mtime=0)
            sent_headers["content-encoding"] = "gzip"
        head = self._head(method, target, sent_headers, len(sent_body), has_body=body is not None)
        timeout_s = self.config.request_timeout if isinstance(request_timeout, DefaultType) else request_timeout
        started = time.perf_counter()
        try:
            with trio.fail_after(math.inf if timeout_s is None else timeout_s):
                async with self._slots:
                    answer = await self._exchange(head, sent_body, method)
            answer_body = answer.body()
        except trio.TooSlowError as exc:
            raise ConnectionTimeout(f"no answer in {timeout_s} s", errors=(exc,)) from exc
        except ssl.SSLError as exc:
            raise TlsError(str(exc), errors=(exc,)) from exc
        except MalformedAnswer as exc:
            raise ConnectionError(str(exc), errors=(exc,)) from exc
        except (OSError, TruncatedAnswer, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            cause = exc.__cause__
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
                raise TlsError(str(cause), errors=(cause,)) from exc
            shown = cause if isinstance(cause, Exception) else exc
            raise ConnectionError(str(shown), errors=(shown,)) from exc
        meta = ApiResponseMeta(
            answer.status,
            answer.http_version,
            HttpHeaders(answer.headers),
            time.perf_counter() - started,
            self.config,
        )
        return NodeApiResponse(meta, answer_body)

    async def close(self) -> None:  # type: ignore[override]
        """Close the idle connections. Requests on the wire close their own."""
        while self._idle:
            await self._idle.pop().close()

    def _head(self, method: str, target: str, headers: HttpHeaders, size_bytes: int, *, has_body: bool) -> bytes:
        if _UNSAFE.search(target) or _UNSAFE.search(method):
            raise ValueError("a request target may not contain blanks or control characters")
        lines = [f"{method} {self._path_prefix}{target} HTTP/1.1", f"host: {self._authority}"]
        for name, value in headers.items():
            if _UNSAFE.search(name) or _UNSAFE_VALUE.search(value):
                raise ValueError(f"the header {name!r} contains a line break or control character")
            if name.lower() not in ("host", "content-length", "transfer-encoding"):
                lines.append(f"{name}: {value}")
        if has_body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"content-length: {size_bytes}")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1")

    async def _exchange(self, head: bytes, body: bytes, method: str) -> AnswerReader:
        connection = await self._idle_connection() or await self._connect()
        reusable = False
        try:
            answer = await connection.exchange(head, body, method)
            reusable = answer.keep_alive
        finally:
            if reusable:
                self._idle.append(connection)
            else:
                await connection.close()
        return answer

    async def _idle_connection(self) -> _Connection | None:
        while self._idle:
            # Last in, first out: few connections stay warm and the others age, so that the server may close them.
            connection = self._idle.pop()
            if connection.is_silent():
                return connection
            await connection.close()
        return None

    async def _connect(self) -> _Connection:
        tcp = await trio.open_tcp_stream(self.config.host, self.config.port)
        stream: Any = tcp
        try:
            if self._ssl_context is not None:
                stream = trio.SSLStream(tcp, self._ssl_context, server_hostname=self.config.host, https_compatible=True)
                await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        return _Connection(stream, tcp.socket.fileno())
