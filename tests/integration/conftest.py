"""One suite, several servers: what Callboard needs of Elasticsearch must hold for the real one and for the built-in node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from callboard.actors.sync.ledger import ledger_index
from callboard.node import open_node
from callboard.protocol.indices import acl_index
from callboard.protocol.store import NotFound, Store, Target, open_store
from callboard.runtime import new_id


@attrs.frozen
class Server:
    """A server under test."""

    name: str
    target: Target


@pytest.fixture(params=["node", pytest.param("elasticsearch", marks=pytest.mark.integration)])
def server_kind(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """Which server, and where if it runs already."""
    if request.param == "elasticsearch":
        return request.param, request.getfixturevalue("elasticsearch_url")
    return request.param, None


@pytest.fixture
def server_url(server_kind: tuple[str, str | None], tmp_path: Path) -> Iterator[str]:
    """The address of a server that runs as a process: the node's is its own, and ends with the test."""
    _, url = server_kind
    if url is not None:
        yield url
        return
    command = [sys.executable, "-m", "callboard", "node", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as node:
        try:
            assert node.stdout is not None
            yield next(word for word in node.stdout.readline().split() if word.startswith("http://"))
        finally:
            node.kill()


@pytest.fixture
async def server(server_kind: tuple[str, str | None]) -> AsyncIterator[Server]:
    """A server to speak to: each test that asks for it runs once per kind."""
    name, url = server_kind
    if url is not None:
        yield Server(name, Target(url))
        return
    async with open_node() as opened:
        yield Server(name, Target(opened.url))


@pytest.fixture
async def store(server: Server) -> AsyncIterator[Store]:
    """An open store whose two protocol indices exist."""
    async with open_store(server.target) as opened:
        await opened.ensure_indices()
        yield opened


@pytest.fixture
async def index(store: Store) -> AsyncIterator[str]:
    """The name of an index that does not exist yet and will not afterwards."""
    name = f"store-{new_id()[:12]}"
    yield name
    with suppress(NotFound):
        await store.client.indices.delete(index=name)


@pytest.fixture
async def people(index: str, store: Store) -> AsyncIterator[str]:
    """The name of the index of identity documents beside the content index; it and the ledgers of both are removed afterwards."""
    yield acl_index(index)
    for name in (acl_index(index), ledger_index(index), ledger_index(acl_index(index))):
        with suppress(NotFound):
            await store.client.indices.delete(index=name)


@pytest.fixture
async def connector_id(store: Store) -> AsyncIterator[str]:
    """The id of a connector nobody else has; it and its jobs are removed afterwards."""
    name = f"store-{new_id()[:12]}"
    yield name
    await store.jobs.delete_of(name)
    with suppress(NotFound):
        await store.connectors.delete(name, hard=True)
