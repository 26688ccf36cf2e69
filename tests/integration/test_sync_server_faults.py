"""Syncs against an Elasticsearch of their own that is restarted, too small or in contradiction with what comes."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio

from callboard.actors.sync import SyncSettings, list_dead_letters, sync
from callboard.protocol.store import NotFound, Store, Target, open_store
from callboard.sources.source import Document, Features, Partition, Source

pytestmark = pytest.mark.integration

BODY_SIZE_MAX = 256 * 1024
"""The server's `http.max_content_length`."""
SETTINGS = SyncSettings(bulk_documents_max=100)


@attrs.frozen
class OwnServer:
    """An Elasticsearch that nobody else uses."""

    script: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        self._run("start", "--timeout", "120", "--heap", "256m", *options)

    def stop(self, *options: str) -> None:
        self._run("stop", *options)

    def _run(self, command: str, *options: str) -> None:
        done = subprocess.run(
            [str(self.script), command, "--port", str(self.port), *options],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def own_server(server_missing: Callable[[str, str], NoReturn], *options: str) -> Iterator[OwnServer]:
    checkout = Path(__file__).parents[2]
    default = checkout.parent / "shared" / "elasticsearch" / "run-elasticsearch"
    script = Path(os.environ.get("CALLBOARD_RUN_ELASTICSEARCH", default))
    if not script.exists():
        server_missing(
            "a script that starts an Elasticsearch", "CALLBOARD_RUN_ELASTICSEARCH=path/to/run-elasticsearch make unit"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = OwnServer(script, port)
    try:
        server.start("--fresh", *options)
        yield server
    finally:
        server.stop("--wipe")


@pytest.fixture(scope="module")
def server(server_missing: Callable[[str, str], NoReturn]) -> Iterator[OwnServer]:
    # So little room for documents in flight that several large requests at once are refused with 429.
    options = (f"http.max_content_length={BODY_SIZE_MAX}b", f"indexing_pressure.memory.limit={BODY_SIZE_MAX}b")
    with own_server(server_missing, *(part for one in options for part in ("--set", one))) as opened:
        yield opened


@pytest.fixture
async def store(server: OwnServer) -> AsyncGenerator[Store, None]:
    async with open_store(Target(server.url)) as opened:
        yield opened


class Listed(Source[None]):
    """Documents that a test wrote down, in pages, with a pause after each."""

    service_type = "listed"
    name = "Listed"
    features = Features()

    def __init__(self, documents: list[dict[str, Any]], *, page: int = 100, pause_s: float = 0.0) -> None:
        super().__init__(None)
        self.listed, self.page, self.pause_s = documents, page, pause_s
        self.pages_read = trio.Event()

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> AsyncGenerator[list[Document], None]:
        for at in range(0, len(self.listed), self.page):
            yield [
                Document(f"row-{n}", dict(fields), "2026-01-01T00:00:00Z")
                for n, fields in enumerate(self.listed[at : at + self.page], at)
            ]
            if at >= 3 * self.page:
                self.pages_read.set()
            await trio.sleep(self.pause_s)


async def ids_in(store: Store, index: str) -> list[str]:
    return sorted([one async for page in store.content.existing(index) for one in page.ids])


async def forget(store: Store, index: str) -> None:
    with suppress(NotFound):
        await store.client.indices.delete(index=index)


async def test_documents_whose_fields_contradict_the_mapping_become_letters_and_the_others_go_in(store: Store) -> None:
    index = "conflicts"
    documents: list[dict[str, Any]] = [{"number": n} for n in range(60)]
    documents[17] = {"number": "not a number"}
    documents[41] = {"number": {"nested": True}}
    await store.content.ensure_index(index, mappings={"properties": {"number": {"type": "long"}}})
    report = await sync(Listed(documents), store, index=index, settings=SETTINGS)
    assert (report.status, report.indexed, report.failed) == ("completed", 58, 2)
    assert "row-17" not in await ids_in(store, index)
    letters = {one["document_id"]: one["why"] async for one in list_dead_letters(store, index=index)}
    assert set(letters) == {"row-17", "row-41"}
    assert "number" in letters["row-17"]
    await forget(store, index)


async def test_requests_that_are_too_large_for_the_server_are_split(store: Store) -> None:
    index = "large"
    documents = [{"text": "thunder " * 1000} for _ in range(200)]
    report = await sync(Listed(documents), store, index=index, settings=SETTINGS)
    assert (report.status, report.indexed, report.failed) == ("completed", 200, 0), report.error
    # Two requests as they were cut here; none of the pieces that were taken can be larger than the limit.
    assert report.counters.requests > 6
    assert len(await ids_in(store, index)) == 200
    await forget(store, index)


async def test_refusals_for_want_of_room_lose_nothing(store: Store) -> None:
    index = "pressed"
    documents = [{"text": "thunder " * 160, "number": n} for n in range(2000)]
    settings = attrs.evolve(SETTINGS, bulk_concurrency_max=8)
    report = await sync(Listed(documents), store, index=index, settings=settings)
    assert (report.status, report.indexed, report.failed) == ("completed", 2000, 0), report.error
    assert len(await ids_in(store, index)) == 2000
    # Two requests at once are more than fits; 20 would have been enough.
    assert report.counters.requests > 20
    await forget(store, index)


async def test_a_sync_waits_out_a_restart_of_the_server(server: OwnServer, store: Store) -> None:
    index = "restarted"
    source = Listed([{"number": n} for n in range(3000)], pause_s=0.02)
    reports = []

    async def run() -> None:
        reports.append(await sync(source, store, index=index, settings=SETTINGS))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await source.pages_read.wait()
        await trio.to_thread.run_sync(server.stop)
        await trio.to_thread.run_sync(server.start)
    assert (reports[0].status, reports[0].indexed, reports[0].failed) == ("completed", 3000, 0), reports[0].error
    assert len(await ids_in(store, index)) == 3000
    await forget(store, index)
