"""The node in front of tests, the real Elasticsearch beside it, and raw requests without sockets."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import attrs
import orjson
import pytest
from elasticsearch import AsyncElasticsearch

from callboard.node import Node, open_node


@attrs.frozen
class Answer:
    """What a raw request was answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)

    @property
    def kind(self) -> str:
        """The type of the error."""
        return str(self.json["error"]["type"])

    @property
    def reason(self) -> str:
        return str(self.json["error"]["reason"])


class Raw:
    """Sends requests straight into the application, with nothing in between that could tidy them."""

    def __init__(self, app: Any, headers: dict[str, str] | None = None) -> None:
        self.app = app
        self.headers = headers or {}

    async def __call__(
        self, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        path, _, query = target.partition("?")
        sent = {**({"content-type": "application/json"} if content else {}), **self.headers, **(headers or {})}
        messages = [{"type": "http.request", "body": content, "more_body": False}]
        got: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            got.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
        }
        await self.app(scope, receive, send)
        start = got[0]
        return Answer(
            start["status"],
            {name.decode(): value.decode("latin-1") for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in got[1:]),
        )


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node(port=None) as opened:
        yield opened


@pytest.fixture
def raw(node: Node) -> Raw:
    return Raw(node.app)


@pytest.fixture
def make_raw() -> type[Raw]:
    """For tests that open nodes of their own."""
    return Raw


@attrs.frozen
class Both:
    """One of the two servers, with names that nobody else uses and that are cleaned up."""

    kind: str
    es: AsyncElasticsearch
    prefix: str

    def name(self, suffix: str = "a") -> str:
        return f"{self.prefix}-{suffix}"


@pytest.fixture(params=["node", pytest.param("elasticsearch", marks=pytest.mark.integration)])
def server_kind(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    if request.param == "elasticsearch":
        return "elasticsearch", request.getfixturevalue("elasticsearch_url")
    return "node", None


@pytest.fixture
async def both(server_kind: tuple[str, str | None]) -> AsyncIterator[Both]:
    """Runs a test against the node and against the real thing, with the official client over HTTP."""
    kind, url = server_kind
    prefix = f"nodetest{uuid.uuid4().hex[:10]}"
    if url is None:
        async with open_node(port=0) as opened:
            assert opened.url is not None
            es = AsyncElasticsearch(opened.url, node_class="httpxasync")
            try:
                yield Both(kind, es, prefix)
            finally:
                await es.close()
        return
    es = AsyncElasticsearch(url, node_class="httpxasync", request_timeout=60)
    try:
        yield Both(kind, es, prefix)
    finally:
        quiet = es.options(ignore_status=404)
        found = await es.indices.get(index=f"{prefix}*", expand_wildcards="all")
        for index in found.body:
            await quiet.indices.delete(index=index)
        await quiet.indices.delete_index_template(name=f"{prefix}*")
        await quiet.cluster.delete_component_template(name=f"{prefix}*")
        await quiet.indices.delete_template(name=f"{prefix}*")
        await quiet.ingest.delete_pipeline(id=f"{prefix}*")
        await es.close()
