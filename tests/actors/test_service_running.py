"""The service against the node in this process: connectors, jobs, schedules, faults of one connector, several services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from callboard.actors import janitor
from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.job import run_job
from callboard.actors.service import Service, open_service
from callboard.node import open_node
from callboard.protocol import (
    Connector,
    ConnectorStatus,
    JobStatus,
    JobType,
    Pipeline,
    Schedule,
    Scheduling,
    SyncJob,
    TransitionRefused,
)
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.jobs import Counts
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import TreeNode
from callboard.sources.errors import Transient
from callboard.sources.source import Document, Features, Listing, Partition, Source


@attrs.frozen
class StageConfig:
    count: int = setting("Count", default=3)
    fault: str = setting("Fault", default="-")


class Stage(Source[StageConfig]):
    """Lists `count` documents, slowly if the fault says so."""

    service_type = "stage"
    name = "Stage"
    Config = StageConfig
    features = Features(document_level_security=True)
    pings = 0
    is_down = False

    def __init__(self, config: StageConfig, context: Any = None) -> None:
        if config.fault == "construction":
            raise RuntimeError("the stage collapsed")
        super().__init__(config, context)

    async def ping(self) -> None:
        type(self).pings += 1
        if self.config.fault == "ping":
            raise Transient("The stage does not answer.")
        if self.config.fault == "hangs":
            await trio.sleep_forever()
        if type(self).is_down:
            raise Transient("The stage is down.")

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        for number in range(self.config.count):
            if self.config.fault == "slow":
                await trio.sleep(0.2)
            yield Document(f"prop-{number}", {"number": number})


@pytest.fixture(autouse=True)
def stage() -> None:
    Stage.pings, Stage.is_down = 0, False


def configuration(**changes: Any) -> Settings:
    content = {
        "connectors": [{"connector_id": name} for name in ("one", "two", "three")],
        "service.idling": 0.3,
        "service.job_cleanup_interval": 1,
        "callboard.text_extraction.engine": "plain",
        **changes,
    }
    return read_mapping(content, {}).settings


@pytest.fixture
async def app() -> AsyncIterator[Any]:
    async with open_node(port=None) as node:
        yield node.app


@pytest.fixture
async def store(app: Any) -> AsyncIterator[Store]:
    async with open_store(Target(embedded=app)) as opened:
        await opened.ensure_indices()
        yield opened


async def make(store: Store, name: str, schedule: str | None = None, **values: Any) -> Connector:
    await store.connectors.create(name, index_name=f"stage-{name}", name=name, service_type="stage")
    scheduling = Scheduling(full=Schedule(enabled=True, interval=schedule)) if schedule else Scheduling()

    def decide(present: Connector) -> Connector:
        configured = transitions.configured(present, {key: {"value": value} for key, value in values.items()})
        return attrs.evolve(configured, scheduling=scheduling, pipeline=Pipeline())

    return await store.connectors.update(name, decide)


@asynccontextmanager
async def service_on(app: Any, **changes: Any) -> AsyncIterator[Service]:
    sources = {"stage": Stage}
    async with open_service(configuration(**changes), embedded=app, sources=sources) as service:
        yield service


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 10) -> Any:
    """Look until it is so."""
    with trio.fail_after(seconds):
        while True:
            found = await look()
            if found:
                return found
            await trio.sleep(0.05)


async def ended(store: Store, job: SyncJob, seconds: float = 10) -> SyncJob:
    async def look() -> SyncJob | None:
        found = await store.jobs.get(job.id)
        return found if found.status.is_terminal else None

    result: SyncJob = await until(look, seconds)
    return result


async def with_status(store: Store, name: str, status: ConnectorStatus) -> Connector:
    async def look() -> Connector | None:
        found = await store.connectors.get(name)
        return found if found.status is status else None

    result: Connector = await until(look)
    return result


async def test_a_connector_is_kept_up_connected_and_its_requested_job_runs(app: Any, store: Store) -> None:
    await make(store, "one")
    async with service_on(app) as service:
        connector = await with_status(store, "one", ConnectorStatus.CONNECTED)
        assert set(connector.configuration) >= {"count", "fault"}
        assert connector.features is not None
        assert connector.last_seen is not None
        job = await store.jobs.create(connector)
        done = await ended(store, job)
        assert (done.status, done.indexed_document_count, done.error) == (JobStatus.COMPLETED, 3, None)
        assert done.worker_hostname == service.worker
        assert (await store.connectors.get("one")).last_sync_status is JobStatus.COMPLETED


async def test_a_source_is_asked_only_when_there_is_a_reason(app: Any, store: Store) -> None:
    await make(store, "one")
    async with service_on(app):
        await with_status(store, "one", ConnectorStatus.CONNECTED)
        await trio.sleep(1.2)
        assert Stage.pings == 1


async def test_schedules_fire_once_with_three_services(app: Any, store: Store) -> None:
    await make(store, "one", "0/2 * * * * ?")
    async with service_on(app), service_on(app), service_on(app):
        await trio.sleep(5)
    jobs = [job async for job in store.jobs.list(connector_ids=["one"])]
    assert 2 <= len(jobs) <= 3
    assert {job.trigger_method.value for job in jobs} == {"scheduled"}


async def test_one_broken_connector_disturbs_nobody(app: Any, store: Store) -> None:
    names = ("construction", "ping", "hangs", "unknown", "import", "nonsense", "good")
    for name in names:
        await make(store, name, fault=name if name in ("construction", "ping", "hangs") else "-")
    await store.connectors.update("unknown", lambda present: attrs.evolve(present, service_type="stag"))
    await store.connectors.update("import", lambda present: attrs.evolve(present, service_type="broken"))
    await store.client.update(index=".elastic-connectors", id="nonsense", doc={"index_name": ["a", "b"]}, refresh=True)
    content = {"connectors": [{"connector_id": name} for name in names], "sources": {"broken": "no_such_module:Broken"}}
    async with service_on(app, **content) as service:
        good = await with_status(store, "good", ConnectorStatus.CONNECTED)
        assert (await ended(store, await store.jobs.create(good))).status is JobStatus.COMPLETED
        for name, words in (
            ("construction", "the stage collapsed"),
            ("ping", "does not answer"),
            ("unknown", "'stag'"),
            ("import", "no_such_module"),
        ):
            found = await with_status(store, name, ConnectorStatus.ERROR)
            assert words in (found.error or ""), found.error
        shown = (await store.client.get(index=".elastic-connectors", id="nonsense"))["_source"]
        assert shown["status"] == "error"
        assert "index_name" in shown["error"]
        assert "index_name" in (service.why_not_scheduled("nonsense") or "")


async def test_slots_are_kept_and_a_waiting_job_says_why(app: Any, store: Store) -> None:
    jobs = [await store.jobs.create(await make(store, name, fault="slow", count=8)) for name in ("one", "two")]
    async with service_on(app) as service:

        async def waits() -> str | None:
            return service.why_waiting(jobs[1].id)

        assert "slots for content syncs are taken" in await until(waits)
        assert service.running() == (jobs[0].id,)
        assert [(await ended(store, job)).status for job in jobs] == [JobStatus.COMPLETED] * 2
        assert service.why_waiting(jobs[1].id) is None


async def test_stopping_suspends_and_the_next_service_goes_on(app: Any, store: Store) -> None:
    job = await store.jobs.create(await make(store, "one", fault="slow", count=15))
    async with service_on(app) as service:

        async def runs() -> bool:
            return bool(service.running())

        await until(runs)
        began = trio.current_time()
        assert await service.stop()
        assert trio.current_time() - began < 2
    assert (await store.jobs.get(job.id)).status is JobStatus.SUSPENDED
    async with service_on(app):
        assert (await ended(store, job, 20)).status is JobStatus.COMPLETED


async def test_a_job_is_canceled_on_request(app: Any, store: Store) -> None:
    job = await store.jobs.create(await make(store, "one", fault="slow", count=500))
    async with service_on(app) as service:

        async def runs() -> bool:
            return (await store.jobs.get(job.id)).status is JobStatus.IN_PROGRESS

        await until(runs)
        await store.jobs.request_cancel(job.id)
        assert (await ended(store, job)).status is JobStatus.CANCELED

        async def is_idle() -> bool:
            return not service.running()

        await until(is_idle)


async def test_a_job_of_a_dead_process_is_taken_over_at_once(app: Any, store: Store) -> None:
    from callboard.actors.worker_name import own_name

    job = await store.jobs.create(await make(store, "one"))
    await store.connectors.sync_starts("one", JobType.FULL)
    await store.jobs.claim(job.id, str(attrs.evolve(own_name(), pid=2**22 + 1)))
    async with service_on(app):
        done = await ended(store, job, 5)
    assert done.status is JobStatus.COMPLETED


async def test_a_source_that_is_down_holds_its_schedule_back_and_then_fires_once(app: Any, store: Store) -> None:
    Stage.is_down = True
    await make(store, "one", "0/1 * * * * ?")
    async with service_on(app, **{"service.heartbeat": 1}) as service:
        await with_status(store, "one", ConnectorStatus.ERROR)
        before = len([job async for job in store.jobs.list(connector_ids=["one"])])

        async def held() -> bool:
            return "stage is down" in (service.why_not_scheduled("one") or "")

        await until(held)
        await trio.sleep(1.5)
        assert len([job async for job in store.jobs.list(connector_ids=["one"])]) <= before + 1
        Stage.is_down = False
        await with_status(store, "one", ConnectorStatus.CONNECTED)


async def test_an_orphaned_job_ends(app: Any, store: Store) -> None:
    connector = await make(store, "one")
    job = await store.jobs.create(connector)
    await store.jobs.claim(job.id, "elsewhere")
    await store.connectors.delete("one", hard=True)
    async with service_on(app):
        done = await ended(store, job)
    assert done.status is JobStatus.ERROR
    assert "JobOrphaned" in (done.error or "")


async def test_a_lost_job_of_a_deleted_connector_ends_and_one_that_is_worked_on_does_not(
    app: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "LEASE_S", 2.0)
    jobs = {}
    for name in ("one", "two"):
        jobs[name] = await store.jobs.claim(
            (await store.jobs.create(await make(store, name))).id, "elsewhere/1-1-00000000"
        )
        await store.connectors.delete(name)
    async with service_on(app), trio.open_nursery() as nursery:

        async def work() -> None:
            while True:
                await store.jobs.report(jobs["two"], Counts(), {})
                await trio.sleep(0.3)

        nursery.start_soon(work)
        done = await ended(store, jobs["one"], 20)
        alive = await store.jobs.get(jobs["two"].id)
        nursery.cancel_scope.cancel()
    assert done.status is JobStatus.ERROR
    assert "JobOrphaned" in (done.error or "")
    assert alive.status is JobStatus.IN_PROGRESS


async def test_a_job_that_is_over_leaves_the_connector_as_its_end_has_it(app: Any, store: Store) -> None:
    job = await store.jobs.create(await make(store, "one"))
    async with service_on(app):
        await ended(store, job)
    before = await store.connectors.get("one")
    with pytest.raises(TransitionRefused):
        await run_job(store, job.id)
    after = await store.connectors.get("one")
    assert before.last_sync_status is JobStatus.COMPLETED
    assert attrs.evolve(after, last_seen=before.last_seen) == before


async def test_a_job_waits_for_one_that_runs_although_the_connector_does_not_say_so(store: Store) -> None:
    connector = await make(store, "one")
    await store.jobs.claim((await store.jobs.create(connector)).id, "elsewhere")
    second = await store.jobs.create(connector)
    with pytest.raises(TransitionRefused, match="runs another job"):
        await run_job(store, second.id)
    assert (await store.jobs.get(second.id)).status is JobStatus.PENDING
    assert (await store.connectors.get("one")).last_sync_status is None


async def test_the_stages_of_a_running_job_are_in_the_tree(app: Any, store: Store) -> None:
    await make(store, "one", count=20, fault="slow")
    async with service_on(app) as service:
        job = await store.jobs.create(await store.connectors.get("one"))

        def nodes(node: TreeNode) -> Iterator[TreeNode]:
            yield node
            for child in node.children:
                yield from nodes(child)

        async def stages() -> dict[str, TreeNode] | None:
            found = {node.name: node for node in nodes(service.tree())}
            return found if "listing" in found and found["listing"].processed else None

        found = await until(stages)
        (working,) = (node for node in found.values() if node.kind == "JobTask")
        assert [node.name for node in working.children] == ["listing", "downloads", "sink"]
        assert [node.kind for node in found["listing"].children] == ["Partition"]
        assert found["sink"].unit == "document"
        await store.jobs.request_cancel(job.id)
        await ended(store, job)
        assert "listing" not in str(service.tree())
