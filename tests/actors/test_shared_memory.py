"""All jobs of a service hold their bytes in one budget: together never more than it, and none is held up by another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio

from callboard.actors.configuration import read_mapping
from callboard.actors.service import open_service
from callboard.node import open_node
from callboard.protocol import JobStatus
from callboard.protocol.configuration import setting
from callboard.protocol.store import Store, Target, open_store
from callboard.sources.source import ContentRef, Document, Listing, Partition, Source

MIB = 2**20
FILES = 12
FILE_SIZE_BYTES = 600_000


@attrs.frozen
class Nothing:
    """What the source can be told, for itself."""

    hangs: str = setting("Hangs", default="no")


class Posters(Source[Nothing]):
    """Lists large files. Those of a connector that hangs come after the test lets go of them."""

    service_type = "posters"
    name = "Posters"
    Config = Nothing
    let_go: ClassVar[trio.Event]
    hanging: ClassVar[int]

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        for number in range(FILES):
            content = ContentRef(f"poster-{number}.txt", size_bytes=FILE_SIZE_BYTES, version="1")
            yield Document(f"poster-{number}", {"number": number}, content=content)

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        if self.config.hangs == "yes":
            type(self).hanging += 1
            await self.let_go.wait()

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(FILE_SIZE_BYTES // 10_000):
                yield b"storm and thunder, " * 526 + b"thunder"
                await trio.lowlevel.checkpoint()

        yield chunks()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    Posters.let_go, Posters.hanging = trio.Event(), 0
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as opened:
        await opened.ensure_indices()
        yield opened


async def requested(store: Store, name: str, hangs: str = "no") -> str:
    await store.connectors.create(name, index_name=f"posters-{name}", service_type="posters")
    await store.client.update(
        index=".elastic-connectors",
        id=name,
        doc={"status": "configured", "configuration": {"hangs": {"value": hangs}}, "pipeline": None},
        refresh=True,
    )
    return (await store.jobs.create(await store.connectors.get(name))).id


async def status_of(store: Store, job_id: str) -> JobStatus:
    return (await store.jobs.get(job_id)).status


async def has_ended(store: Store, job_id: str) -> bool:
    return (await status_of(store, job_id)).is_terminal


async def _so(fact: bool) -> bool:
    return fact


async def until(look: Callable[..., Awaitable[bool]]) -> None:
    for _ in range(600):
        if await look():
            return
        await trio.sleep(0.1)
    raise AssertionError("it did not come to that in time")


async def test_jobs_share_one_budget_and_one_that_hangs_does_not_hold_up_the_others(store: Store) -> None:
    settings = read_mapping(
        {
            "connectors": [{"connector_id": name} for name in ("slow", "one", "two")],
            "service.max_concurrent_content_syncs": 3,
            "service.idling": 0.2,
            "callboard.sync.memory_mib": 8,
            "callboard.text_extraction.engine": "plain",
        },
        {},
    ).settings
    with trio.fail_after(60):
        slow = await requested(store, "slow", hangs="yes")
        async with open_service(settings, embedded=store.target.embedded, sources={"posters": Posters}) as service:
            memory = service._state.memory
            assert memory.size_bytes == 8 * MIB
            await until(lambda: _so(memory.waiting > 0))
            # It has all it can get: more than its equal share, and whoever comes now still has a reserve.
            assert memory.held_bytes > 8 * MIB / 4
            assert Posters.hanging
            others = [await requested(store, name) for name in ("one", "two")]
            for job_id in others:
                await until(lambda job_id=job_id: has_ended(store, job_id))
            assert [await status_of(store, job_id) for job_id in others] == [JobStatus.COMPLETED] * 2
            assert await status_of(store, slow) is JobStatus.IN_PROGRESS
            Posters.let_go.set()
            await until(lambda: has_ended(store, slow))
            assert await status_of(store, slow) is JobStatus.COMPLETED
            assert (memory.held_bytes, memory.waiting, memory.unreserved_bytes) == (0, 0, 4 * MIB)
            assert 4 * MIB < memory.peak_bytes <= 8 * MIB
        for name in ("slow", "one", "two"):
            assert await store.content.count(f"posters-{name}", refresh=True) == FILES
