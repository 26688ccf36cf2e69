"""An ASGI application around another one, which does to requests and answers what a fault plan says."""

from __future__ import annotations

import gzip
from collections import OrderedDict
from typing import Any

import attrs
import orjson
import trio

from ...runtime import monotonic
from .forwarding import length, read_body, respond
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
    ServerFaultPlan,
    StaleRead,
    Status,
)

_REMEMBERED_ANSWERS_MAX = 256
_DRIP_PIECE_BYTES = 16


class ConnectionCut(ConnectionError):
    """Raised out of the application to make the server close the connection without (the rest of) an answer."""


@attrs.define
class _Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class FaultyApp:
    """Stands in front of an ASGI application and injects the faults of a plan.

    `plan` may be exchanged at any time; `firing.fired` tells how often each rule has hit. With no rules it only passes on.
    """

    def __init__(self, app: Any, plan: ServerFaultPlan) -> None:
        self._app = app
        self._remembered: OrderedDict[str, _Answer] = OrderedDict()
        self._started_s: float | None = None
        self.use(plan)

    def use(self, plan: ServerFaultPlan) -> None:
        """Go on with another plan, counting from zero. An empty one heals the server."""
        self.firing = Firing(plan)
        self._started_s = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._started_s is None:
            self._started_s = monotonic()
        body = await read_body(receive)
        effects = self.firing.effects(
            scope["method"], scope["path"], _plain(scope, body), monotonic() - self._started_s
        )
        await self._before(effects)
        refusal = next((effect for effect in effects if isinstance(effect, Status)), None)
        if refusal is not None:
            await _refuse(send, refusal)
            return
        answer = await self._answer(scope, body, effects)
        await self._after(send, answer, effects)

    async def _before(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Delay):
                await trio.sleep(effect.seconds)
        if any(isinstance(effect, Refuse) for effect in effects):
            raise ConnectionCut

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
        if any(isinstance(effect, LoseResponse) for effect in effects):
            raise ConnectionCut
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
