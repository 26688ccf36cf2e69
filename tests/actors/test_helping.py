"""Services that help each other: who helps when, and who leaves why. All in virtual time, against the node in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio

from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.journal.keeping import JOURNAL_INDEX
from callboard.actors.service import Service, open_service
from callboard.node import open_node
from callboard.protocol import JobStatus, JobType, Pipeline, SyncJob
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import simulated_seams
from callboard.sources.source import Checkpoint, Document, Features, Listing, Partition, Source

PAGE_S = 0.5
PAGES = 10


@attrs.frozen
class CastConfig:
    parts: int = setting("Parts", default=24)


class Cast(Source[CastConfig]):
    """Every part has ten pages of five documents, each of which takes half a second."""

    service_type, name, Config = "cast", "Cast", CastConfig
    features = Features(resumable=True)
    shareable = True
    partition_concurrency = 4
    listed: ClassVar[list[str]] = []

    async def ping(self) -> None:
        return None

    async def partitions(self, rules: Any = None) -> AsyncIterator[Partition]:  # type: ignore[override]
        for number in range(self.config.parts):
            yield Partition(f"part-{number}", {"number": number})

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        for page in range(checkpoint or 0, PAGES):
            await trio.sleep(PAGE_S)
            ids = [f"{partition.key}-{page}-{at}" for at in range(5)]
            self.listed.extend(ids)
            yield [Document(one, {"of": partition.key}) for one in ids]
            yield Checkpoint(page + 1)


@pytest.fixture(autouse=True)
def nothing_listed() -> None:
    Cast.listed.clear()


def configuration(**changes: Any) -> Settings:
    content = {
        "connectors": [{"connector_id": name} for name in ("one", "two")],
        "service.idling": 1,
        "callboard.text_extraction.engine": "plain",
        "callboard.sync.share_jobs": True,
        **changes,
    }
    return read_mapping(content, {}).settings


class Theatre:
    """A node, and services that come and go."""

    def __init__(self, app: Any, store: Store, nursery: trio.Nursery) -> None:
        self.app, self.store, self._nursery = app, store, nursery

    async def service(self, **changes: Any) -> tuple[Service, trio.Event]:
        """Open a service; set the event to close it."""
        close = trio.Event()
        return await self._nursery.start(self._serve, close, changes), close

    async def _serve(
        self, close: trio.Event, changes: dict[str, Any], task_status: Any = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with open_service(configuration(**changes), embedded=self.app, sources={"cast": Cast}) as service:
            task_status.started(service)
            await close.wait()
            await service.stop()

    async def connector(self, name: str, parts: int) -> None:
        await self.store.connectors.create(name, index_name=f"cast-{name}", name=name, service_type="cast")

        def decide(present: Any) -> Any:
            return attrs.evolve(transitions.configured(present, {"parts": {"value": parts}}), pipeline=Pipeline())

        await self.store.connectors.update(name, decide)

    async def job(self, name: str) -> SyncJob:
        return await self.store.jobs.create(await self.store.connectors.get(name), JobType.FULL)

    async def until(self, job: SyncJob, *statuses: JobStatus) -> SyncJob:
        with trio.fail_after(600):
            while True:
                found = await self.store.jobs.get(job.id)
                if found.status in statuses:
                    return found
                await trio.sleep(0.5)

    async def told(self, job: SyncJob) -> list[dict[str, Any]]:
        await trio.sleep(5)
        pages = self.store.content.existing(JOURNAL_INDEX, fields=("*",), query={"term": {"job_id": job.id}})
        return [source async for page in pages for source in page.sources or ()]


@pytest.fixture
async def theatre() -> AsyncIterator[Theatre]:
    with simulated_seams(3):
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(port=None))
            store = await stack.enter_async_context(open_store(Target(embedded=node.app)))
            await store.ensure_indices()
            nursery = await stack.enter_async_context(_nursery())
            yield Theatre(node.app, store, nursery)


@asynccontextmanager
async def _nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def helps(service: Service, job: SyncJob) -> None:
    with trio.fail_after(60):
        while True:
            if job.id in service._state.helping:
                return
            await trio.sleep(0.1)


async def test_two_services_end_a_job_in_nearly_half_the_time(theatre: Theatre, autojump_clock: Any) -> None:
    await theatre.connector("one", 24)
    took: list[float] = []
    for count in (1, 2):
        for _ in range(count - len(took)):
            await theatre.service()
        job = await theatre.job("one")
        began_s = trio.current_time()
        ended = await theatre.until(job, JobStatus.COMPLETED, JobStatus.ERROR)
        took.append(trio.current_time() - began_s)
        assert (ended.status, ended.error) == (JobStatus.COMPLETED, None)
    assert took[1] < 0.65 * took[0], took
    assert ended.total_document_count == 24 * PAGES * 5
    notes = ended.metadata["callboard"]["notes"]
    assert any("of 24 partitions were listed by other services" in note for note in notes)
    kinds = {entry["kind"] for entry in await theatre.told(job)}
    assert {"help_begun", "help_ended", "lease_taken", "job_completed"} <= kinds
    assert len(Cast.listed) == 2 * 24 * PAGES * 5


async def test_a_canceled_job_ends_at_its_helpers_within_a_second(theatre: Theatre, autojump_clock: Any) -> None:
    await theatre.connector("one", 24)
    services = [(await theatre.service())[0] for _ in range(2)]
    job = await theatre.job("one")
    await theatre.until(job, JobStatus.IN_PROGRESS)
    helper = next(one for one in services if job.id not in one._state.running)
    await helps(helper, job)
    await trio.sleep(5)
    await theatre.store.jobs.request_cancel(job.id)
    await trio.sleep(1.0)
    assert helper._state.helping == {}
    assert (await theatre.store.jobs.get(job.id)).status is JobStatus.CANCELED
    before = len(Cast.listed)
    await trio.sleep(10)
    assert len(Cast.listed) == before


async def test_an_own_job_gets_the_slot_back(theatre: Theatre, autojump_clock: Any) -> None:
    await theatre.connector("one", 24)
    await theatre.connector("two", 2)
    services = [(await theatre.service())[0] for _ in range(2)]
    job = await theatre.job("one")
    await theatre.until(job, JobStatus.IN_PROGRESS)
    helper = next(one for one in services if job.id not in one._state.running)
    await helps(helper, job)
    own = await theatre.job("two")
    began_s = trio.current_time()
    await theatre.until(own, JobStatus.IN_PROGRESS)
    assert trio.current_time() - began_s < 4
    assert own.id in helper.running()
    assert (await theatre.until(own, JobStatus.COMPLETED)).indexed_document_count == 2 * PAGES * 5
    ended = await theatre.until(job, JobStatus.COMPLETED)
    assert ended.indexed_document_count == 24 * PAGES * 5
    ends = [entry["facts"]["why"] for entry in await theatre.told(job) if entry["kind"] == "help_ended"]
    assert "an own job needs the slot" in ends


async def test_when_the_owner_stops_its_helper_becomes_the_owner(theatre: Theatre, autojump_clock: Any) -> None:
    await theatre.connector("one", 24)
    opened = [await theatre.service() for _ in range(2)]
    job = await theatre.job("one")
    await theatre.until(job, JobStatus.IN_PROGRESS)
    helper = next(one for one, _ in opened if job.id not in one._state.running)
    owner_closes = next(close for one, close in opened if one is not helper)
    await helps(helper, job)
    await trio.sleep(8)
    owner_closes.set()
    ended = await theatre.until(job, JobStatus.COMPLETED, JobStatus.ERROR)
    assert (ended.status, ended.error) == (JobStatus.COMPLETED, None)
    assert ended.indexed_document_count == ended.total_document_count == 24 * PAGES * 5
    # At most what was listed within some seconds before is listed again.
    assert len(Cast.listed) - 24 * PAGES * 5 <= 8 * 5 * 3 / PAGE_S


async def test_nobody_helps_where_jobs_are_not_shared(theatre: Theatre, autojump_clock: Any) -> None:
    await theatre.connector("one", 8)
    for shares in (True, False):
        await theatre.service(**{"callboard.sync.share_jobs": shares})
    job = await theatre.job("one")
    await theatre.until(job, JobStatus.COMPLETED)
    assert "help_begun" not in {entry["kind"] for entry in await theatre.told(job)}


async def test_help_that_fails_is_told_and_harms_no_job(
    theatre: Theatre, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await theatre.connector("one", 20)
    services = [(await theatre.service())[0] for _ in range(2)]
    job = await theatre.job("one")
    await theatre.until(job, JobStatus.IN_PROGRESS)

    async def unreachable(self: Cast) -> None:
        raise RuntimeError("this machine reaches no stage")

    monkeypatch.setattr(Cast, "ping", unreachable)
    ended = await theatre.until(job, JobStatus.COMPLETED, JobStatus.ERROR)
    assert (ended.status, ended.indexed_document_count) == (JobStatus.COMPLETED, 20 * PAGES * 5)
    helped = [entry for entry in await theatre.told(job) if entry["kind"] == "help_ended"]
    assert [entry["facts"]["why"] for entry in helped] == ["RuntimeError: this machine reaches no stage"]
    assert all(one._state.helping == {} for one in services)
