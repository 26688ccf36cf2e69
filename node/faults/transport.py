"""Faults between an httpx client and whatever it speaks to, without a port.

httpx.AsyncClient(transport=FaultyTransport(httpx.AsyncHTTPTransport(), plan))
"""

from __future__ import annotations

import math
from typing import Any

import httpx
import trio

from .forwarding import read_body
from .plan import ServerFaultPlan
from .server import ConnectionCut, ConnectionRefused, FaultyApp


class FaultyTransport(httpx.AsyncBaseTransport):
    """Does to requests and answers what a plan says, and closes the transport inside when it is closed. On Trio only.

    A cut connection is a `ReadError`, a refused one a `ConnectError`. The read time-out of a request counts for all that the
    rules do to it. `app.use(plan)` exchanges the plan.
    """

    def __init__(self, inside: httpx.AsyncBaseTransport, plan: ServerFaultPlan) -> None:
        self._inside = inside
        self.app = FaultyApp(self._pass_on, plan)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the whole answer."""
        exchange = _Exchange(await request.aread())
        timeout_s = request.extensions.get("timeout", {}).get("read")
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": None,
            "request": request,
        }
        try:
            with trio.fail_after(math.inf if timeout_s is None else timeout_s):
                await self.app(scope, exchange.receive, exchange.send)
        except trio.TooSlowError:
            raise httpx.ReadTimeout("no answer in time", request=request) from None
        except ConnectionRefused as refused:
            raise httpx.ConnectError(str(refused), request=request) from None
        except ConnectionCut as cut:
            raise httpx.ReadError(str(cut) or "the connection was cut", request=request) from None
        return httpx.Response(
            exchange.status, headers=exchange.headers, stream=httpx.ByteStream(exchange.body), request=request
        )

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._inside.aclose()

    async def _pass_on(self, scope: Any, receive: Any, send: Any) -> None:
        asked: httpx.Request = scope["request"]
        content = await read_body(receive)
        framing = {b"content-length", b"transfer-encoding"}
        request = httpx.Request(
            asked.method,
            asked.url,
            headers=[pair for pair in scope["headers"] if pair[0] not in framing],
            content=content,
            extensions=asked.extensions,
        )
        answer = await self._inside.handle_async_request(request)
        # Not through the answer's own methods: it may have been read already.
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        try:
            body = b"".join([part async for part in answer.stream])
        finally:
            await answer.aclose()
        headers = [(name.lower(), value) for name, value in answer.headers.raw]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Exchange:
    def __init__(self, body: bytes) -> None:
        self._pending = [{"type": "http.request", "body": body, "more_body": False}]
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def receive(self) -> Any:
        return self._pending.pop() if self._pending else {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message.get("body", b"")
