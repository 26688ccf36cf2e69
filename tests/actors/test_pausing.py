"""A paused connector and a paused job: held at every service and over restarts, until somebody resumes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import attrs
import pytest
import trio
import trio.testing

from callboard.actors.configuration import read_mapping
from callboard.actors.journal import read_journal
from callboard.actors.operations.metrics import Metrics
from callboard.actors.operations.pressing import Buttons
from callboard.actors.operations.view import connector_view, overview
from callboard.actors.service import Service, open_service
from callboard.node import open_node
from callboard.protocol import JobStatus, Pipeline, Schedule, Scheduling, SyncJob, TransitionRefused
from callboard.protocol import connectors as transitions
from callboard.protocol import jobs as job_transitions
from callboard.protocol.configuration import setting
from callboard.protocol.documents import Connector, ConnectorId
from callboard.protocol.pausing import Pause, pause_connector, pause_job, pause_of, resume_connector, resume_job
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import now, simulated_seams
from callboard.sources.source import Checkpoint, Document, Features, Listing, Partition, Source

PAGE = "the operations page"
SOMEWHEN = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


@attrs.frozen
class ActsConfig:
    count: int = setting("Count", default=3)
    pace_s: int = setting("Pace", default=0)


class Acts(Source[ActsConfig]):
    service_type = "acts"
    name = "Acts"
    Config = ActsConfig
    features = Features(resumable=True)
    began_at: ClassVar[list[int]] = []

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        type(self).began_at.append(checkpoint or 0)
        for number in range(checkpoint or 0, self.config.count):
            await trio.sleep(self.config.pace_s)
            yield Document(f"act-{number}", {"number": number})
            yield Checkpoint(number + 1)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    Acts.began_at = []
    with simulated_seams(7):
        async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as opened:
            await opened.ensure_indices()
            yield opened


async def make(store: Store, name: str = "one", interval: str | None = None, **values: int) -> Connector:
    await store.connectors.create(name, index_name=f"acts-{name}", name=name, service_type="acts")
    full = Schedule(enabled=interval is not None, interval=interval or "0 0 0 * * ?")
    stored = {key: {"value": value} for key, value in values.items()}

    def decide(present: Connector) -> Connector:
        configured = transitions.configured(present, stored)
        return attrs.evolve(configured, scheduling=Scheduling(full=full), pipeline=Pipeline())

    return await store.connectors.update(name, decide)


def service_on(store: Store, *names: str, **more: Any) -> Any:
    content = {"connectors": [{"connector_id": name} for name in names], "callboard.text_extraction.engine": "plain"}
    settings = read_mapping({**content, "service.idling": 5, **more}, {}).settings
    return open_service(settings, embedded=store.target.embedded, sources={"acts": Acts})


async def pause(store: Store, name: str = "one", why: str = "") -> None:
    await store.connectors.update(name, lambda present: pause_connector(present, now(), "the command line", why))


async def status_of(store: Store, job: SyncJob) -> JobStatus:
    return (await store.jobs.get(job.id)).status


async def kinds_of(store: Store) -> list[str]:
    await store.content.refresh(".callboard-journal")
    return [entry.kind for _, entry in await read_journal(store)]


def buttons_of(service: Service) -> Buttons:
    return Buttons(service._state, service._system)


async def test_a_paused_connector_suspends_what_runs_waits_everywhere_and_goes_on_after_a_restart(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    with simulated_seams(7):
        job = await store.jobs.create(await make(store, pace_s=1, count=100))
        async with service_on(store, "one") as first, service_on(store, "one") as second:
            await trio.sleep(30)
            assert await status_of(store, job) is JobStatus.IN_PROGRESS
            await pause(store, why="the wiki is being moved")
            await trio.sleep(15)
            assert await status_of(store, job) is JobStatus.SUSPENDED
            for service in (first, second):
                assert "the wiki is being moved" in (service.why_waiting(job.id) or "")
                assert "paused since" in (service.why_not_scheduled("one") or "")
        async with service_on(store, "one") as third:
            await trio.sleep(600)
            assert await status_of(store, job) is JobStatus.SUSPENDED
            seen = connector_view(third._state, "one")
            assert (seen["health"], seen["next_sync"]) == ("paused", None)
            metrics = Metrics().exposition(third._state, third.tree())
            assert 'callboard_connectors{health="paused"} 1' in metrics
            assert 'callboard_connectors{health="ok"} 0' in metrics
            await store.connectors.update("one", resume_connector)
            await trio.sleep(120)
        assert await status_of(store, job) is JobStatus.COMPLETED
        assert Acts.began_at[0] == 0
        assert Acts.began_at[-1] > 10, "it went on from its checkpoint"
        kinds = await kinds_of(store)
    assert kinds.count("connector_paused") == 3, "each service tells it once"
    assert kinds.count("connector_resumed") == 1


@pytest.mark.parametrize(("choice", "made"), [("catch_up_once", 1), ("skip", 0)])
async def test_schedules_of_a_paused_connector_make_no_jobs_and_are_missed_fires_once_it_is_resumed(
    autojump_clock: trio.testing.MockClock, store: Store, choice: str, made: int
) -> None:
    async def jobs() -> int:
        return len([job async for job in store.jobs.list()])

    with simulated_seams(7):
        await make(store, interval="0 0 * * * ?")
        async with service_on(store, "one", **{"callboard.missed_schedules": choice}):
            await trio.sleep(3700)
            before = await jobs()
            assert before == 1
            await pause(store)
            await trio.sleep(5 * 3600)
            assert await jobs() == before
            await store.connectors.update("one", resume_connector)
            await trio.sleep(60)
            assert await jobs() == before + made
            await trio.sleep(3600)
            assert await jobs() == before + made + 1


async def test_a_paused_connector_holds_nobody_else_up(autojump_clock: trio.testing.MockClock, store: Store) -> None:
    with simulated_seams(7):
        held = await store.jobs.create(await make(store, "one"))
        other = await store.jobs.create(await make(store, "two"))
        await pause(store, "one")
        async with service_on(store, "one", "two"):
            await trio.sleep(30)
        assert [await status_of(store, job) for job in (held, other)] == [JobStatus.PENDING, JobStatus.COMPLETED]


async def test_a_paused_job_is_held_by_every_service_and_over_restarts(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    with simulated_seams(7):
        job = await store.jobs.create(await make(store, pace_s=1, count=60))
        async with service_on(store, "one") as service:
            await trio.sleep(20)
            await buttons_of(service).press(["jobs", job.id, "pause"], {})
            assert await status_of(store, job) is JobStatus.SUSPENDED
            assert not [held for held in service._state.held.values() if held.until_s == float("inf")]
            await trio.sleep(60)
            waiting = overview(service._state)["waiting"]
            assert [one["why"] for one in waiting if PAGE in one["why"]]
        async with service_on(store, "one") as service:
            await trio.sleep(60)
            assert await status_of(store, job) is JobStatus.SUSPENDED
            with pytest.raises(TransitionRefused, match="is paused since"):
                await store.jobs.claim(job.id, "elsewhere")
            await buttons_of(service).press(["jobs", job.id, "resume"], {})
            await trio.sleep(120)
        assert await status_of(store, job) is JobStatus.COMPLETED
        assert pause_of(await store.jobs.get(job.id)) is None


async def test_a_paused_job_can_be_canceled(autojump_clock: trio.testing.MockClock, store: Store) -> None:
    with simulated_seams(7):
        job = await store.jobs.create(await make(store))
        await store.jobs.documents.update(job.id, lambda present: pause_job(present, now(), PAGE))
        async with service_on(store, "one") as service:
            await trio.sleep(10)
            await buttons_of(service).press(["jobs", job.id, "cancel"], {})
            await trio.sleep(30)
        assert await status_of(store, job) is JobStatus.CANCELED


async def test_what_others_write_leaves_the_pause_and_the_pause_leaves_what_others_wrote(store: Store) -> None:
    await make(store)
    await store.client.update(index=".elastic-connectors", id="one", doc={"of_kibana": {"a": 1}}, refresh=True)
    await pause(store, why="moving")
    headers = {"accept": "application/json", "content-type": "application/json"}
    for path, body in (
        ("_name", {"name": "Renamed"}),
        ("_scheduling", {"scheduling": {"full": {"enabled": True, "interval": "0 0 1 * * ?"}}}),
        ("_check_in", None),
    ):
        await store.client.perform_request("PUT", f"/_connector/one/{path}", headers=headers, body=body)
    found = await store.connectors.get("one")
    assert (found.name, found.unknown["of_kibana"]) == ("Renamed", {"a": 1})
    assert (pause_of(found) or Pause(since=None, by="")).why == "moving"
    told = await store.client.perform_request("GET", "/_connector/one", headers=headers)
    assert told["id"] == "one"
    resumed = await store.connectors.update("one", resume_connector)
    assert (pause_of(resumed), resumed.unknown["of_kibana"]) == (None, {"a": 1})


def test_a_pause_says_who_and_since_when_and_nothing_is_paused_twice() -> None:
    connector = Connector(id="one")  # type: ignore[arg-type]
    held = pause_connector(connector, SOMEWHEN, "the command line", "moving")
    assert str(pause_of(held)) == "paused since 2026-03-01 09:30 UTC, by the command line: moving"
    with pytest.raises(TransitionRefused, match="already"):
        pause_connector(held, SOMEWHEN, PAGE)
    with pytest.raises(TransitionRefused, match="is paused since"):
        transitions.sync_starts(held, job_transitions.JobType.FULL)
    assert pause_of(resume_connector(held)) is None
    with pytest.raises(TransitionRefused, match="not paused"):
        resume_connector(connector)


@pytest.mark.parametrize("written", [True, "yes", {"since": "long ago"}, {"since": 1, "by": None}, ["x"]])
def test_a_pause_that_cannot_be_read_still_holds(written: Any) -> None:
    connector = Connector(id="one", callboard={"paused": written, "later": 1})  # type: ignore[arg-type]
    assert pause_of(connector) is not None
    assert resume_connector(connector).callboard == {"paused": None, "later": 1}


@pytest.mark.parametrize("written", [None, {}, {"paused": None}, "odd", 3, []])
def test_what_is_no_pause_holds_nothing(written: Any) -> None:
    assert pause_of(Connector(id="one", callboard=written)) is None  # type: ignore[arg-type]


def test_only_jobs_that_do_not_run_are_held() -> None:
    job = SyncJob(id="job", status=JobStatus.IN_PROGRESS)  # type: ignore[arg-type]
    with pytest.raises(TransitionRefused, match="cannot be held"):
        pause_job(job, SOMEWHEN, PAGE)
    waiting = attrs.evolve(job, status=JobStatus.PENDING, metadata={"callboard": {"takeovers": 2}})
    held = pause_job(waiting, SOMEWHEN, PAGE)
    assert held.metadata["callboard"]["takeovers"] == 2
    assert pause_of(resume_job(held)) is None


@pytest.mark.parametrize("written", [True, "yes", 1, [], {}, {"since": "never"}])
def test_what_cannot_be_read_as_a_pause_holds_all_the_same(written: Any) -> None:
    connector = Connector(id=ConnectorId("one"), callboard={"paused": written})
    assert pause_of(connector) is not None
    assert pause_of(resume_connector(connector)) is None


@pytest.mark.parametrize("own", [None, {}, {"paused": None}, {"paused": False}, {"other": 1}, "nonsense"])
def test_what_says_nothing_of_a_pause_is_none(own: Any) -> None:
    assert pause_of(Connector(id=ConnectorId("one"), callboard=own)) is None
