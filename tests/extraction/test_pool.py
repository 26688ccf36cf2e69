"""The engine of a service is a supervised child: seen in the tree, restarted when it fails, and never without an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing

from callboard.actors.extraction import ExtractionPool, ExtractionSettings, ExtractionUnavailable, Status
from callboard.actors.extraction.workers import WorkerPool
from callboard.actors.service import open_service
from callboard.node import open_node
from callboard.protocol.store import Target, open_store
from callboard.runtime import open_system

from .conftest import chunks_of

Settings = Callable[..., ExtractionSettings]


async def test_the_engine_stands_in_the_tree_and_files_wait_for_it(poison_settings: Settings) -> None:
    pool = ExtractionPool(poison_settings(seconds_max=5.0))
    found: list[Status] = []

    async def read() -> None:
        found.append((await pool.extract("a.pdf", chunks_of(b"%PDF-1.4 hello"))).status)

    async with open_system("test") as system, trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        await system.spawn(pool.spec())
        assert "extraction" in str(system.tree())
    assert found == [Status.TEXT]


async def test_a_mistake_of_the_engine_fails_its_files_and_a_new_engine_starts(
    poison_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ExtractionPool(poison_settings(seconds_max=20.0, workers=2))
    statuses: dict[str, Status] = {}
    right = WorkerPool.read

    async def wrong(self: WorkerPool, file: Any) -> Any:
        if file.name == "mistake.pdf":
            raise RuntimeError("a mistake of the engine")
        return await right(self, file)

    async def read(name: str, content: bytes) -> None:
        statuses[name] = (await pool.extract(name, chunks_of(content))).status

    monkeypatch.setattr(WorkerPool, "read", wrong)
    async with open_system("test") as system:
        await system.spawn(pool.spec())
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, "hanging.pdf", b"%PDF-1.4 HANG")
                await trio.sleep(0.3)
                await read("mistake.pdf", b"%PDF-1.4 hello")
            await read("next.pdf", b"%PDF-1.4 hello")
    assert statuses == {"mistake.pdf": Status.FAILED, "hanging.pdf": Status.FAILED, "next.pdf": Status.TEXT}
    assert pool.lives == 2


async def test_what_the_source_raises_is_not_the_engines_mistake(poison_settings: Settings) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"%PDF-1.4 begins"
        raise ConnectionError("the source is gone")

    pool = ExtractionPool(poison_settings(seconds_max=5.0))
    async with open_system("test") as system:
        await system.spawn(pool.spec())
        with pytest.raises(ConnectionError):
            await pool.extract("a.pdf", broken())
        assert (await pool.extract("b.pdf", chunks_of(b"%PDF-1.4 hello"))).status is Status.TEXT
    assert pool.lives == 1


async def test_an_engine_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(ExtractionUnavailable):
        ExtractionPool(ExtractionSettings(engine="service"))


async def test_a_running_service_shows_its_extraction_as_a_child() -> None:
    settings = {
        "connectors": [{"connector_id": "one"}],
        "service.idling": 0.3,
        "callboard.text_extraction.engine": "plain",
    }
    async with (
        open_node(port=None) as node,
        open_store(Target(embedded=node.app)) as store,
    ):
        await store.ensure_indices()
        async with open_service(settings, embedded=node.app) as service:
            [child] = [child for child in service.tree().children if child.name == "extraction"]
            assert child.kind == "_EngineOwner"
            assert child.state == "running"
