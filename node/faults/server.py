"""An ASGI application around another one, which does to requests and answers what a fault plan says."""

from __future__ import annotations

import gzip
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol

import attrs
import orjson
import trio

from ...runtime import monotonic
from .forwarding import BODY_BYTES_MAX, BodyTooLarge, length, read_body, respond
from .plan import (
    Corrupt,
    CutBody,
    Delay,
    Drip,
    Effect,
    FailItems,
    Firing,
    LoseResponse,
    Refuse,
    Restart,
    ServerFaultPlan,
    StaleRead,
    Status,
)

_REMEMBERED_ANSWERS_MAX = 256
_DRIP_PIECE_BYTES = 16
RESTART_S = 30.0


class ConnectionCut(ConnectionError):
    """Raised out of the application to make the server close the connection without (the rest of) an answer."""


class ConnectionRefused(ConnectionCut, ConnectionRefusedError):
    """The connection was closed before the request was looked at."""


class Front(Protocol):
    """What holds the connections to a server, and can do to them what an application cannot."""

    def cut(self, port: int) -> None:
        """Close the connection that comes to the server from this local port."""

    def restart(self, down_s: float) -> None:
        """Close all connections, and refuse new ones for a while."""


@attrs.define
class _Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class FaultyApp:
    """Stands in front of an ASGI application and injects the faults of a plan.

    The plan may be exchanged at any time with `use`; `firing.fired` tells how often each rule has hit. With no rules it only
    passes on. `front` is what holds the connections, if the application is served; without it, a cut connection is a
    `ConnectionCut` that comes out of the call. `on_restart` makes the server lose what a restart loses.
    """

    def __init__(
        self,
        app: Any,
        plan: ServerFaultPlan,
        *,
        front: Front | None = None,
        on_restart: Callable[[str], Awaitable[None]] | None = None,
        content_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self._app = app
        self.front = front
        self._on_restart = on_restart if on_restart is not None else getattr(app, "lose", None)
        self._content_bytes_max = content_bytes_max
        self._restarts = 0
        self._up_again_s: float | None = None
        self._remembered: OrderedDict[str, _Answer] = OrderedDict()
        self._started_s: float | None = None
        self.use(plan)

    def use(self, plan: ServerFaultPlan) -> None:
        """Go on with another plan, counting from zero. An empty one heals the server."""
        self.plan = plan
        self.firing = Firing(plan)
        self._started_s = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._started_s is None:
            self._started_s = monotonic()
        if self._is_down():
            self._refuse(scope)
        try:
            body = await read_body(receive, self._content_bytes_max)
        except BodyTooLarge:
            await _refuse(send, Status(status=413, reason="entity content is too long"))
            return
        effects = self.firing.effects(
            scope["method"], scope["path"], _plain(scope, body), monotonic() - self._started_s
        )
        await self._before(scope, effects)
        refusal = next((effect for effect in effects if isinstance(effect, Status)), None)
        if refusal is not None:
            await _refuse(send, refusal)
            return
        life = self._restarts
        try:
            answer = await self._answer(scope, body, effects)
        except Exception:
            if life != self._restarts:
                self._cut(scope)
            raise
        if life != self._restarts or any(isinstance(effect, LoseResponse) for effect in effects):
            self._cut(scope)
        await self._after(send, answer, effects)

    def _is_down(self) -> bool:
        if self._up_again_s is not None and monotonic() >= self._up_again_s:
            self._up_again_s = None
        return self._up_again_s is not None

    def _cut(self, scope: Any) -> NoReturn:
        self._at_front(scope)
        raise ConnectionCut("the connection was cut by a fault rule")

    def _refuse(self, scope: Any) -> NoReturn:
        self._at_front(scope)
        raise ConnectionRefused("the connection was refused by a fault rule")

    def _at_front(self, scope: Any) -> None:
        if self.front is not None and scope.get("client"):
            self.front.cut(scope["client"][1])

    async def _restart(self, effect: Restart) -> None:
        self._restarts += 1
        began_s = monotonic()
        # Nobody may meet a server that has forgotten a half of what it forgets.
        self._up_again_s = math.inf
        if self.front is not None:
            self.front.restart(effect.down_s)
        if self._on_restart is not None and effect.loses != "nothing":
            # Whoever asked may be cancelled now, for its connection is gone.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RESTART_S):
                await self._on_restart(effect.loses)
        self._up_again_s = began_s + effect.down_s

    async def _before(self, scope: Any, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Delay):
                await trio.sleep(effect.seconds)
        if any(isinstance(effect, Refuse) for effect in effects) or self._is_down():
            self._refuse(scope)
        restart = next((effect for effect in effects if isinstance(effect, Restart)), None)
        if restart is not None:
            await self._restart(restart)
            self._cut(scope)

    async def _answer(self, scope: Any, body: bytes, effects: list[Effect]) -> _Answer:
        key = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
        if (
            scope["method"] == "GET"
            and any(isinstance(effect, StaleRead) for effect in effects)
            and key in self._remembered
        ):
            return self._remembered[key]
        items = [effect for effect in effects if isinstance(effect, FailItems)]
        if items and scope["path"].endswith("/_bulk"):
            answer = await self._bulk_without(scope, body, items)
        else:
            answer = await self._pass_on(scope, body)
        if scope["method"] == "GET":
            self._remembered[key] = answer
            self._remembered.move_to_end(key)
            while len(self._remembered) > _REMEMBERED_ANSWERS_MAX:
                self._remembered.popitem(last=False)
        return answer

    async def _after(self, send: Any, answer: _Answer, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Corrupt):
                answer = _corrupted(answer, effect.bytes_replaced)
        cut = next((effect for effect in effects if isinstance(effect, CutBody)), None)
        drip = next((effect for effect in effects if isinstance(effect, Drip)), None)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if cut is not None:
            await send({"type": "http.response.body", "body": answer.body[: cut.after_bytes], "more_body": True})
            raise ConnectionCut
        if drip is not None:
            for at in range(0, len(answer.body), _DRIP_PIECE_BYTES):
                piece = answer.body[at : at + _DRIP_PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await trio.sleep(len(piece) / drip.bytes_per_second)
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.body", "body": answer.body})

    async def _pass_on(self, scope: Any, body: bytes) -> _Answer:
        answer = _Answer(500, [], b"")
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return pending.pop() if pending else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = list(message.get("headers", []))
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")

        await self._app(scope, receive, send)
        return answer

    async def _bulk_without(self, scope: Any, body: bytes, effects: list[FailItems]) -> _Answer:
        """Pass a bulk request on without some operations, and weave their failures into the answer, in order."""
        operations = _operations(_plain(scope, body))
        failures = {
            number: effect
            for number, operation in enumerate(operations)
            if (effect := self._failing(operation, effects))
        }
        kept = b"".join(operation.lines for number, operation in enumerate(operations) if number not in failures)
        if kept:
            headers = [
                (name, value)
                for name, value in scope["headers"]
                if name not in (b"content-encoding", b"content-length", b"accept-encoding")
            ]
            answer = await self._pass_on({**scope, "headers": [*headers, length(kept)]}, kept)
            if answer.status != 200:
                return answer
        else:
            headers = [(b"content-type", b"application/json"), (b"x-elastic-product", b"Elasticsearch")]
            answer = _Answer(200, headers, b'{"took":0,"errors":false,"items":[]}')
        said = orjson.loads(answer.body)
        done = iter(said.get("items", []))
        said["items"] = [
            _failed_item(operation, failures[number]) if number in failures else next(done, None)
            for number, operation in enumerate(operations)
        ]
        said["errors"] = True if failures else said.get("errors", False)
        content = orjson.dumps(said)
        answer.headers = [
            pair for pair in answer.headers if pair[0].lower() not in (b"content-length", b"content-encoding")
        ] + [length(content)]
        answer.body = content
        return answer

    def _failing(self, operation: _Operation, effects: list[FailItems]) -> FailItems | None:
        for effect in effects:
            if (not effect.ids or operation.id in effect.ids) and self.firing.random.random() < effect.share:
                return effect
        return None


@attrs.frozen
class _Operation:
    kind: str
    index: str
    id: str | None
    lines: bytes


def _operations(body: bytes) -> list[_Operation]:
    found: list[_Operation] = []
    lines = iter(body.splitlines(keepends=True))
    for line in lines:
        if not line.strip():
            continue
        ((kind, target),) = orjson.loads(line).items()
        text = line if kind == "delete" else line + next(lines, b"")
        found.append(_Operation(kind, target.get("_index", ""), target.get("_id"), text))
    return found


def _failed_item(operation: _Operation, effect: FailItems) -> dict[str, Any]:
    error = {
        "type": "es_rejected_execution_exception" if effect.status == 429 else "injected_exception",
        "reason": effect.reason,
    }
    return {operation.kind: {"_index": operation.index, "_id": operation.id, "status": effect.status, "error": error}}


def _plain(scope: Any, body: bytes) -> bytes:
    compressed = any(name == b"content-encoding" and value == b"gzip" for name, value in scope["headers"])
    return gzip.decompress(body) if compressed and body else body


def _corrupted(answer: _Answer, count: int) -> _Answer:
    middle = max(0, (len(answer.body) - count) // 2)
    body = answer.body[:middle] + b"\x00" * min(count, len(answer.body)) + answer.body[middle + count :]
    return attrs.evolve(answer, body=body[: len(answer.body)])


async def _refuse(send: Any, effect: Status) -> None:
    kind = {429: "es_rejected_execution_exception", 401: "security_exception", 403: "security_exception"}.get(
        effect.status, "injected_exception"
    )
    content = orjson.dumps({"error": {"type": kind, "reason": effect.reason}, "status": effect.status})
    headers = [] if effect.retry_after_s is None else [(b"retry-after", f"{effect.retry_after_s:g}".encode())]
    await respond(send, effect.status, content, headers)
