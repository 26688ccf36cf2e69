"""The operations server's ASGI application: metrics, health, JSON and server-sent events. The page adds its routes to it."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import attrs
import orjson
import structlog
import trio

from ...runtime import System
from ..service_state import ServiceState
from .metrics import Metrics
from .view import connector_view, job_view, overview, tree_view, unready

log = structlog.get_logger(__name__)

EVENTS_EVERY_S = 1.0
WATCHERS_MAX = 32
OPEN_PATHS = frozenset({"/health", "/ready"})
"""Probes carry no token, and tell nothing but whether all is well."""


@attrs.frozen
class Request:
    """One request, without its body."""

    method: str
    path: str
    headers: dict[str, str]
    query: str = ""
    receive: Any = None


@attrs.frozen
class Response:
    """What is answered at once."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def answer(data: Any, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(orjson.dumps(data), status)


Handler = Callable[[Request], Awaitable[Response]]


class OperationsApp:
    """Add handlers with `routes[METHOD, PREFIX]`; the longest prefix that fits answers."""

    def __init__(self, state: ServiceState, system: System, metrics: Metrics, token: str | None = None) -> None:
        self.state, self.system, self.metrics, self._token = state, system, metrics, token
        self.routes: dict[tuple[str, str], Handler] = {}
        self._watchers = 0

    def may_enter(self, request: Request) -> bool:
        """Whether the request presents the token, compared in constant time; anybody may if none is set."""
        if not self._token or request.path in OPEN_PATHS:
            return True
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope.get("query_string", b"").decode("latin-1")
        request = Request(scope["method"], unquote(scope["path"]), headers, query, receive)
        if request.path == "/events" and self.may_enter(request):
            await self._events(receive, send)
            return
        try:
            response = await self.respond(request)
        except Exception as exc:  # noqa: BLE001 - one request ends here; whoever asked and the log are told
            log.error("operations.defect", path=request.path, why=f"{type(exc).__name__}: {exc}")
            response = answer({"error": "This could not be answered; the log of the service says why."}, 500)
        await _send(send, response)

    async def respond(self, request: Request) -> Response:
        """Find the answer."""
        if not self.may_enter(request):
            return answer({"error": "Present the token: `Authorization: Bearer TOKEN`."}, 401)
        wanted = [one for one in self.routes if one[0] == request.method and request.path.startswith(one[1])]
        if wanted:
            return await self.routes[max(wanted, key=lambda one: len(one[1]))](request)
        if request.method != "GET":
            return answer({"error": "Only GET is understood here."}, 405)
        return self._get(request.path)

    def _get(self, path: str) -> Response:
        state = self.state
        match path.strip("/").split("/"):
            case ["metrics"]:
                text = self.metrics.exposition(state, self.system.tree())
                return Response(text.encode(), media_type="text/plain; version=0.0.4; charset=utf-8")
            case ["health"]:
                return answer({"status": "ok"})
            case ["ready"]:
                reasons = unready(state)
                return answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
            case ["tree"]:
                return answer(tree_view(self.system.tree()))
            case ["api", "overview"]:
                return answer(overview(state))
            case ["api", "connectors", one] if one in state.connectors:
                return answer(connector_view(state, one))
            case ["api", "jobs", one] if one in state.running:
                return answer(job_view(state, one))
        return answer({"error": f"There is nothing at {path}."}, 404)

    async def _events(self, receive: Any, send: Any) -> None:
        """Send the overview whenever it has changed, until the reader leaves or the service stops."""
        if self._watchers >= WATCHERS_MAX:
            await _send(send, answer({"error": "Too many watch already."}, 503))
            return
        self._watchers += 1
        try:
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                while not self.state.stopping.is_set():
                    data = b"event: overview\ndata: " + orjson.dumps(overview(self.state)) + b"\n\n"
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    with trio.move_on_after(EVENTS_EVERY_S):
                        await self.state.stopping.wait()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                nursery.cancel_scope.cancel()
        finally:
            self._watchers -= 1


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        asked = (await receive())["type"]
        await send({"type": f"{asked}.complete"})
        if asked == "lifespan.shutdown":
            return


async def _until_gone(receive: Any, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send(send: Any, response: Response) -> None:
    headers = [
        ("content-type", response.media_type), ("content-length", str(len(response.body))),
        ("cache-control", "no-store"), ("x-content-type-options", "nosniff"), *response.headers,
    ]  # fmt: skip
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": response.status, "headers": raw})
    await send({"type": "http.response.body", "body": response.body})
