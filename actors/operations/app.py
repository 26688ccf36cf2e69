"""The operations server's ASGI application: metrics, health, JSON, server-sent events, and the page."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

import orjson
import structlog
import trio

from ...runtime import System
from ..service_state import ServiceState
from .access import Access
from .http import Request, Response, answer
from .metrics import Metrics
from .page import BEAT, Page, Piece
from .readiness import Readiness
from .throughput import Throughput
from .view import connector_view, job_view, overview, tree_view

log = structlog.get_logger(__name__)

EVENTS_EVERY_S = 1.0
ALIVE_EVERY_S = 5.0
"""The page's script takes eight silent seconds for a cut line."""
WATCHERS_MAX = 32
OPEN_PATHS = frozenset({"/health", "/ready"})
"""Probes carry no token, and tell nothing but whether all is well."""


class OperationsApp:
    """Answers whoever presents the token, or comes from this machine if there is none, under a name that is known."""

    def __init__(
        self,
        state: ServiceState,
        system: System,
        metrics: Metrics,
        token: str | None = None,
        *,
        names: Collection[str] = (),
        speeds: Throughput | None = None,
    ) -> None:
        self.state, self.system, self.metrics = state, system, metrics
        self._access = Access(token, names)
        self._page = Page(state, system, self._access, Throughput() if speeds is None else speeds)
        self._readiness = Readiness(state)
        self._watchers = 0

    def may_enter(self, request: Request) -> bool:
        """Whether the request presents the token or a session; anybody may if no token is set."""
        if not self._access.needs_token or request.path in OPEN_PATHS:
            return True
        if self._access.is_bearer(request.headers.get("authorization", "")):
            return True
        session = self._page.session(request)
        return session is not None and session.is_member

    def is_misdirected(self, request: Request) -> bool:
        """Whether the request was sent to a name that is not ours, as a page elsewhere makes a browser do."""
        if request.path in OPEN_PATHS or self._access.is_bearer(request.headers.get("authorization", "")):
            return False
        return not self._access.knows_host(request.headers.get("host", ""))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        request = _request(scope, receive)
        may_watch = self.may_enter(request) and not self.is_misdirected(request) and request.method == "GET"
        if request.path == "/events" and may_watch:
            await self._events(receive, send, self._overview_events())
            return
        session = self._page.session(request)
        if request.path == "/stream" and may_watch and session is not None:
            await self._events(receive, send, self._page.follower(request, session))
            return
        try:
            response = await self.respond(request)
        except Exception as exc:
            log.error("operations.defect", path=request.path, why=f"{type(exc).__name__}: {exc}", exc_info=exc)
            response = answer({"error": "This could not be answered; the log of the service says why."}, 500)
        await _send(send, response)

    async def respond(self, request: Request) -> Response:
        """Find the answer."""
        if self.is_misdirected(request):
            why = "This service is not known under this name. Use its address, or add the name to callboard.operations.names."
            return self._page.turned_away(why) if _is_reader(request) else answer({"error": why}, 421)
        page = await self._page.respond(request)
        if page is not None:
            return page
        if not self.may_enter(request):
            return answer({"error": "Present the token: `Authorization: Bearer TOKEN`."}, 401)
        if request.method != "GET":
            return answer({"error": "Only GET is understood here."}, 405)
        if request.path == "/ready":
            reasons = await self._readiness.reasons()
            return answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
        found = self._get(request.path)
        return self._page.nothing_here(request) if found.status == 404 and _is_reader(request) else found

    def _get(self, path: str) -> Response:
        state = self.state
        match path.strip("/").split("/"):
            case ["metrics"]:
                text = self.metrics.exposition(state, self.system.tree())
                return Response(text.encode(), media_type="text/plain; version=0.0.4; charset=utf-8")
            case ["health"]:
                rehearsal = {"rehearsal": state.rehearsal} if state.rehearsal else {}
                return answer({"status": "ok", **rehearsal})
            case ["tree"]:
                return answer(tree_view(self.system.tree()))
            case ["api", "overview"]:
                return answer(overview(state))
            case ["api", "connectors", one] if one in state.connectors:
                return answer(connector_view(state, one))
            case ["api", "jobs", one] if one in state.running:
                return answer(job_view(state, one))
        return answer({"error": f"There is nothing at {path}."}, 404)

    def _overview_events(self) -> Piece:
        """What gives one watcher the overview whenever anything in it but the time is new."""
        sent: dict[str, Any] = {}

        async def piece(is_silent: bool) -> bytes | None:
            seen = overview(self.state)
            facts = {name: value for name, value in seen.items() if name != "at"}
            if facts == sent:
                return BEAT if is_silent else None
            sent.clear()
            sent.update(facts)
            return b"event: overview\ndata: " + orjson.dumps(seen) + b"\n\n"

        return piece

    async def _events(self, receive: Any, send: Any, piece: Piece) -> None:
        """Send what is new, look by look, and a sign of life in between, until the reader leaves or the service stops."""
        if self._watchers >= WATCHERS_MAX:
            await _send(send, answer({"error": "Too many watch already."}, 503))
            return
        self._watchers += 1
        try:
            headers = [
                (b"content-type", b"text/event-stream"),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                # A proxy that gathers answers before it hands them on would make nothing live.
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                sent_s = -math.inf
                while not self.state.stopping.is_set():
                    body = await piece(trio.current_time() - sent_s >= ALIVE_EVERY_S)
                    if body is not None:
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                        sent_s = trio.current_time()
                    with trio.move_on_after(EVENTS_EVERY_S):
                        await self.state.stopping.wait()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                nursery.cancel_scope.cancel()
        finally:
            self._watchers -= 1


def _is_reader(request: Request) -> bool:
    """Whether a person's browser asks."""
    return "text/html" in request.headers.get("accept", "")


def _request(scope: Any, receive: Any) -> Request:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    sent = scope.get("raw_path") or quote(scope["path"]).encode()
    return Request(
        method=scope["method"],
        path=scope["path"],
        headers=headers,
        query=scope.get("query_string", b"").decode("latin-1"),
        receive=receive,
        path_as_sent=sent.partition(b"?")[0].decode("latin-1"),
        is_https=scope.get("scheme") == "https" or headers.get("x-forwarded-proto") == "https",
    )


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
        ("x-content-type-options", "nosniff"), *response.headers,
    ]  # fmt: skip
    if not any(name == "cache-control" for name, _ in headers):
        headers.append(("cache-control", "no-store"))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": response.status, "headers": raw})
    await send({"type": "http.response.body", "body": response.body})
