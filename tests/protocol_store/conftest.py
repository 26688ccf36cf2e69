"""A server that says what a test has written for it: an ASGI application with a script, spoken to without sockets."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import attrs
import pytest
import trio
from elastic_transport import TransportError

from callboard.protocol.store import RetryPolicy, Target

PRODUCT = {"x-elastic-product": "Elasticsearch"}
HELLO = {"cluster_name": "scripted", "version": {"number": "9.5.3", "build_flavor": "default"}}


@attrs.frozen
class Answer:
    """What the scripted server answers. A `TransportError` as the body is raised instead of answering."""

    status: int = 200
    body: Any = attrs.field(factory=dict)
    headers: dict[str, str] = attrs.field(factory=lambda: dict(PRODUCT))
    delay_s: float = 0.0


@attrs.frozen
class Asked:
    """A request as the scripted server saw it, and when by Trio's clock."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    at_s: float


@attrs.define
class ScriptedServer:
    """Answers with the script's entries one by one, its last entry for ever."""

    script: list[Answer] = attrs.field(factory=list)
    asked: list[Asked] = attrs.field(factory=list)

    def target(self, **options: Any) -> Target:
        return Target(embedded=self, **{"retries": RetryPolicy(patience_s=60, first_s=1, cap_s=8), **options})

    def answers(self, *script: Answer) -> None:
        self.script[:] = script

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        message = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append(
            Asked(
                scope["method"],
                scope["path"],
                scope["query_string"].decode(),
                headers,
                message["body"],
                trio.current_time(),
            )
        )
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await trio.sleep(answer.delay_s)
        if isinstance(answer.body, TransportError):
            raise answer.body
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        wire = {"content-type": "application/json", **answer.headers}
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(name.encode(), value.encode()) for name, value in wire.items()],
            }
        )
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()
