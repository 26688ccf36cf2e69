"""Every kind of event in the situation that its definition describes: told by a running service, and kept in the journal's index.

The table at the end has one row for each situation; a test checks that no kind is missing from it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import httpx
import pytest
import trio
import trio.testing

from callboard.actors.configuration import read_mapping
from callboard.actors.connector import Seen
from callboard.actors.journal import KINDS, Entry, read_journal, story
from callboard.actors.operations.pressing import Buttons
from callboard.actors.scheduler import TooManyProblems
from callboard.actors.service import Service, open_service
from callboard.actors.sync.dead_letters import replay_dead_letters
from callboard.actors.sync.state import confirm_deletions
from callboard.actors.worker_name import own_name
from callboard.node import open_node
from callboard.protocol import JobStatus, JobType, Pipeline, Rule, Schedule, Scheduling, SyncJob, ValidationState
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.documents import Connector
from callboard.protocol.pausing import pause_connector, resume_connector
from callboard.protocol.store import NotFound, Store, StoreError, Target, open_store
from callboard.runtime import FaultPlan, faults, now, simulated_seams
from callboard.sources.errors import Transient
from callboard.sources.http import HttpSettings, open_http
from callboard.sources.source import Checkpoint, ContentRef, Document, Features, Listing, Partition, Source

HOURLY = "0 0 * * * ?"


# The source


@attrs.frozen
class PlotConfig:
    scene: str = setting("Scene", default="plain")


class Plot(Source[PlotConfig]):
    """What happens is written in its one setting, and in what a test changes while it runs."""

    service_type = "plot"
    name = "Plot"
    Config = PlotConfig
    features = Features(resumable=True, document_level_security=True)
    shareable = True
    partition_concurrency = 2
    count: ClassVar[int] = 5
    is_down: ClassVar[bool] = False
    is_readable: ClassVar[bool] = True

    async def ping(self) -> None:
        if type(self).is_down:
            raise Transient("The plot is lost.")

    async def partitions(self, rules: Any = None) -> AsyncIterator[Partition]:
        yield Partition("house")
        if self.config.scene == "nameless":
            raise Transient("Nobody knows what comes next.")
        if self.config.scene == "many parts":
            for number in range(250):
                yield Partition(f"seat-{number}")
        if self.config.scene == "shared":
            for number in range(12):
                yield Partition(f"row-{number}")

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        match self.config.scene:
            case "torn":
                yield Document("before", {"number": 0})
                raise Transient("The page is torn.")
            case "throttled":
                async for found in self._over_http():
                    yield found
                return
            case "files":
                reference = ContentRef("letter.txt", size_bytes=20, version="1")
                yield Document("letter", {"number": 1}, content=reference)
                return
            case "clashing":
                yield Document("number", {"number": 1})
                yield Document("text", {"number": "not at all"})
                return
        for number in range(checkpoint or 0, type(self).count):
            if self.config.scene in ("slow", "shared"):
                await trio.sleep(2)
            yield Document(f"{partition.key}-{number}", {"number": number})
            yield Checkpoint(number + 1)

    async def _over_http(self) -> Listing:
        answers = [(429, {"retry-after": "40"}), (502, {}), (200, {})]

        def answer(request: httpx.Request) -> httpx.Response:
            status, headers = answers.pop(0)
            return httpx.Response(status, headers=headers, json={"pages": ["one"]})

        settings = HttpSettings(base_url="https://wiki.example", name="Confluence")
        async with open_http(settings, transport=httpx.MockTransport(answer)) as client:
            for page in (await client.json("GET", "/rest/content"))["pages"]:
                yield Document(page, {"number": 1})

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        if not type(self).is_readable:
            raise Transient("The line was cut.")

        async def chunks() -> AsyncIterator[bytes]:
            yield b"Dear reader, good night."

        yield chunks()


# The stage


@attrs.define
class Fault:
    """Answers requests that fit in the node's place, so many times."""

    method: str
    part: str
    status: int
    times: int = 1
    body: bytes = b'{"error":{"type":"unavailable","reason":"not now"}}'

    def fits(self, scope: Any) -> bool:
        return self.times > 0 and scope["method"] == self.method and self.part in scope["path"]


@attrs.define
class Stage:
    """A node with faults, and a service over it whose events are collected."""

    node: Any
    store: Store = attrs.field(init=False)
    faults: list[Fault] = attrs.field(factory=list)
    told: list[Entry] = attrs.field(factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        fault = next((one for one in self.faults if scope["type"] == "http" and one.fits(scope)), None)
        if fault is None:
            await self.node(scope, receive, send)
            return
        fault.times -= 1
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), (b"x-elastic-product", b"Elasticsearch")]
        await send({"type": "http.response.start", "status": fault.status, "headers": headers})
        await send({"type": "http.response.body", "body": fault.body})

    def fail(self, method: str, part: str, status: int, times: int = 1, **more: Any) -> Fault:
        self.faults.append(Fault(method, part, status, times, **more))
        return self.faults[-1]

    async def make(self, name: str = "one", scene: str = "plain", interval: str | None = None) -> Connector:
        await self.store.connectors.create(name, index_name=f"plot-{name}", name=name, service_type="plot")
        full = Schedule(enabled=interval is not None, interval=interval or HOURLY)

        def decide(present: Connector) -> Connector:
            configured = transitions.configured(present, {"scene": {"value": scene}})
            return attrs.evolve(configured, scheduling=Scheduling(full=full), pipeline=Pipeline())

        return await self.store.connectors.update(name, decide)

    async def job(self, name: str = "one", kind: JobType = JobType.FULL) -> SyncJob:
        return await self.store.jobs.create(await self.store.connectors.get(name), kind)

    @asynccontextmanager
    async def service(self, plan: FaultPlan | None = None, *, way: Any = None, **more: Any) -> AsyncIterator[Service]:
        content = {
            "connectors": [{"connector_id": name} for name in ("one", "two")],
            "service.idling": 2,
            "callboard.text_extraction.engine": "plain",
            "callboard.sync.elasticsearch_patience": 30,
        }
        settings = read_mapping({**content, **more}, {}).settings
        async with open_service(settings, embedded=way or self, sources={"plot": Plot}, faults=plan) as service:
            service._state.teller.listeners.append(self.told.append)
            yield service

    async def run(self, job: SyncJob, seconds: float = 60, **more: Any) -> SyncJob:
        """Let a service run until the job is over, or for so long."""
        async with self.service(**more):
            with trio.move_on_after(seconds):
                while not (await self.store.jobs.get(job.id)).status.is_terminal:  # noqa: ASYNC110
                    await trio.sleep(0.5)
        return await self.store.jobs.get(job.id)

    async def journal(self) -> list[Entry]:
        await self.store.content.refresh(".callboard-journal")
        return [entry for _, entry in await read_journal(self.store, limit=5_000)]


@attrs.define
class Silence:
    """A way to the stage on which nothing comes through while it is closed."""

    stage: Stage
    is_open: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.is_open.wait()
        await self.stage(scope, receive, send)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    Plot.count, Plot.is_down, Plot.is_readable = 5, False, True
    with simulated_seams(7):
        async with open_node(port=None) as node:
            made = Stage(node.app)
            async with open_store(Target(embedded=made)) as store:
                made.store = store
                await store.ensure_indices()
                yield made


def buttons_of(service: Service) -> Buttons:
    return Buttons(service._state, service._system)


# The situations


async def a_plain_sync(stage: Stage) -> None:
    await stage.make()
    ended = await stage.run(await stage.job())
    assert ended.status is JobStatus.COMPLETED


async def a_file_is_read(stage: Stage) -> None:
    await stage.make(scene="files")
    await stage.run(await stage.job())
    assert [entry.happening.outcome for entry in stage.told if entry.kind == "content_read"] == ["ok"]  # type: ignore[attr-defined]


async def a_schedule_fires(stage: Stage) -> None:
    await stage.make(interval=HOURLY)
    async with stage.service():
        await trio.sleep(3700)


async def a_source_is_down_when_its_schedule_is_due(stage: Stage) -> None:
    await stage.make(interval=HOURLY)
    Plot.is_down = True
    async with stage.service():
        await trio.sleep(3700)


async def no_service_runs_for_some_hours(stage: Stage) -> None:
    await stage.make(interval=HOURLY)
    async with stage.service():
        await trio.sleep(3700)
    await trio.sleep(5 * 3600)
    async with stage.service():
        await trio.sleep(60)
    found = [entry for entry in await stage.journal() if entry.kind == "fires_missed"]
    assert [entry.happening.count for entry in found] == [5]  # type: ignore[attr-defined]
    assert "5 times" in found[0].happening.sentence()
    assert "one sync makes up for it" in found[0].happening.sentence()
    # The story of the job that makes up for it says so, too.
    late = [entry for entry in await stage.journal() if entry.kind == "schedule_fired"][-1]
    assert "late" in late.happening.sentence()


async def all_slots_are_taken(stage: Stage) -> None:
    Plot.count = 60
    await stage.make("one", "slow")
    await stage.make("two", "slow")
    await stage.job("one")
    await stage.job("two")
    async with stage.service():
        await trio.sleep(90)


async def the_licence_does_not_allow_it(stage: Stage) -> None:
    basic = b'{"license":{"type":"basic","status":"active","uid":"x","mode":"basic"}}'
    stage.fail("GET", "/_license", 200, times=1000, body=basic)
    await stage.make()
    async with stage.service():
        await trio.sleep(10)
        await stage.store.connectors.update(
            "one",
            lambda one: transitions.with_features(one, {"document_level_security": {"enabled": True}}),
        )
        await stage.job(kind=JobType.ACCESS_CONTROL)
        await trio.sleep(30)


async def a_claim_fails(stage: Stage) -> None:
    await stage.make()
    job = await stage.job()
    stage.fail("POST", f"/_update/{job.id}", 500, times=20)
    await stage.run(job, 20)


async def a_listing_breaks(stage: Stage) -> None:
    await stage.make(scene="torn")
    assert (await stage.run(await stage.job())).status is JobStatus.ERROR


async def the_source_cannot_name_its_parts(stage: Stage) -> None:
    await stage.make(scene="nameless")
    assert (await stage.run(await stage.job())).status is JobStatus.ERROR


async def the_service_stops_amid_a_sync_and_another_goes_on(stage: Stage) -> None:
    Plot.count = 30
    await stage.make(scene="slow")
    job = await stage.job()
    await stage.run(job, 30)
    assert (await stage.store.jobs.get(job.id)).status is JobStatus.SUSPENDED
    assert (await stage.run(job, 120)).status is JobStatus.COMPLETED


async def somebody_cancels(stage: Stage) -> None:
    Plot.count = 30
    await stage.make(scene="slow")
    job = await stage.job()
    async with stage.service():
        await trio.sleep(20)
        await stage.store.jobs.request_cancel(job.id)
        await trio.sleep(10)
    assert (await stage.store.jobs.get(job.id)).status is JobStatus.CANCELED


async def the_document_of_a_running_job_vanishes(stage: Stage) -> None:
    Plot.count = 30
    await stage.make(scene="slow")
    job = await stage.job()
    async with stage.service():
        await trio.sleep(20)
        await stage.store.client.delete(index=".elastic-connectors-sync-jobs", id=job.id, refresh=True)
        await trio.sleep(10)


async def a_worker_has_died(stage: Stage) -> None:
    await stage.make()
    job = await stage.job()
    await stage.store.connectors.sync_starts("one", JobType.FULL)
    await stage.store.jobs.claim(job.id, str(attrs.evolve(own_name(), pid=2**22 + 1)))
    assert (await stage.run(job, 120)).status is JobStatus.COMPLETED


async def elasticsearch_is_too_busy(stage: Stage) -> None:
    await stage.make()
    stage.fail("POST", "/plot-one/_bulk", 429)
    assert (await stage.run(await stage.job())).status is JobStatus.COMPLETED
    lines = story(entry for entry in await stage.journal() if entry.kind == "throttled")
    assert "Elasticsearch answered 429" in lines[0]


async def elasticsearch_is_away_for_a_moment(stage: Stage) -> None:
    await stage.make()
    stage.fail("POST", "/plot-one/_bulk", 503)
    assert (await stage.run(await stage.job())).status is JobStatus.COMPLETED


async def a_request_is_too_large(stage: Stage) -> None:
    await stage.make()
    stage.fail("POST", "/plot-one/_bulk", 413)
    assert (await stage.run(await stage.job())).status is JobStatus.COMPLETED


async def a_source_makes_us_wait(stage: Stage) -> None:
    await stage.make(scene="throttled")
    job = await stage.job()
    began_s = trio.current_time()
    assert (await stage.run(job, 200)).status is JobStatus.COMPLETED
    assert trio.current_time() - began_s >= 40
    lines = story(entry for entry in await stage.journal() if entry.job_id == job.id)
    assert any(line.endswith("Confluence answered 429; waited 40 s as told.") for line in lines), lines
    assert any("A request to the source failed (Confluence answered GET /rest/content with 502" in one for one in lines)


async def a_document_is_refused(stage: Stage) -> None:
    await stage.make(scene="clashing")
    await stage.store.client.indices.create(index="plot-one", mappings={"properties": {"number": {"type": "integer"}}})
    await stage.run(await stage.job())


async def a_download_fails_and_is_asked_for_again(stage: Stage) -> None:
    Plot.is_readable = False
    await stage.make(scene="files")
    await stage.run(await stage.job())
    assert any(entry.happening.what == "download" for entry in stage.told if entry.kind == "retried")  # type: ignore[attr-defined]
    Plot.is_readable = True
    assert await replay_dead_letters(stage.store, index="plot-one") == 1
    await stage.run(await stage.job())


async def a_few_documents_go(stage: Stage) -> None:
    await stage.make()
    await stage.run(await stage.job())
    Plot.count = 4
    await stage.run(await stage.job())


async def most_documents_go_and_somebody_confirms(stage: Stage) -> None:
    Plot.count = 100
    await stage.make()
    await stage.run(await stage.job())
    Plot.count = 4
    job = await stage.job()
    await stage.run(job)
    assert (await confirm_deletions(stage.store, job.id)).deleted == 96


async def a_connector_is_deleted(stage: Stage) -> None:
    await stage.make()
    async with stage.service():
        await trio.sleep(10)
        await stage.store.connectors.delete("one")
        await trio.sleep(10)


async def a_connector_is_paused_and_resumed(stage: Stage) -> None:
    await stage.make()
    async with stage.service():
        await stage.store.connectors.update("one", lambda one: pause_connector(one, now(), "a test"))
        await trio.sleep(10)
        await stage.store.connectors.update("one", resume_connector)
        await trio.sleep(10)


async def somebody_edits_a_draft(stage: Stage) -> None:
    await stage.make()

    def edit(one: Connector) -> Connector:
        rules = one.rules
        rule = Rule(id="r", field="number", rule=">", value="3", policy="exclude", order=0)
        validation = attrs.evolve(rules.draft.validation, state=ValidationState.EDITED)
        draft = attrs.evolve(rules.draft, rules=(rule, *rules.draft.rules), validation=validation)
        return one.with_rules(attrs.evolve(rules, draft=draft))

    async with stage.service():
        await trio.sleep(10)
        await stage.store.connectors.update("one", edit)
        await trio.sleep(10)


async def somebody_presses_a_button(stage: Stage) -> None:
    await stage.make()
    async with stage.service() as service:
        await trio.sleep(10)
        await buttons_of(service).press(["connectors", "one", "start"], {"type": "full"})
        await trio.sleep(10)


async def an_actor_cannot_do_its_work(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with stage.service(**{"callboard.operations.enabled": True, "callboard.operations.port": port}):
            await trio.sleep(30)


async def elasticsearch_is_away_for_good(stage: Stage) -> None:
    await stage.make()
    with pytest.raises(TooManyProblems):  # noqa: PT012 - the service ends the block
        async with stage.service(**{"service.max_errors": 2}):
            stage.fail("POST", "/.elastic-connectors", 500, times=10_000)
            await trio.sleep(3600)


async def a_message_comes_too_late(stage: Stage) -> None:
    connector = await stage.make()
    async with stage.service() as service:
        await trio.sleep(10)
        keeper = service._system.root.child("connectors").child("one").child("keeper")
        await stage.store.connectors.delete("one")
        await trio.sleep(10)
        keeper.tell_nowait(Seen(connector))


async def the_journal_itself_cannot_be_written(stage: Stage) -> None:
    await stage.make()
    fault = stage.fail("POST", "/.callboard-journal/_bulk", 500, times=10_000)
    async with stage.service() as service:
        service._state.journal.queued_max = 3
        await stage.job()
        await trio.sleep(30)
        fault.times = 0
        await trio.sleep(120)


async def a_job_has_very_many_parts(stage: Stage) -> None:
    Plot.count = 1
    await stage.make(scene="many parts")
    assert (await stage.run(await stage.job())).status is JobStatus.COMPLETED


async def faults_are_rehearsed(stage: Stage) -> None:
    await stage.make()
    crash = faults.Rule(effect=faults.Crash(), match=faults.Match(actor="*/keeper", point="start"), times=1)
    async with stage.service(FaultPlan([crash])):
        await trio.sleep(10)


async def a_helper_falls_silent_and_comes_back(stage: Stage) -> None:
    Plot.count = 30
    await stage.make(scene="shared")
    job = await stage.job()
    way = Silence(stage)
    way.is_open.set()
    sharing = {"callboard.sync.share_jobs": True}
    async with stage.service(**sharing):
        await trio.sleep(10)
        async with stage.service(way=way, **sharing):
            await trio.sleep(40)
            way.is_open = trio.Event()
            await trio.sleep(180)
            way.is_open.set()
            with trio.fail_after(3600):
                while not (await stage.store.jobs.get(job.id)).status.is_terminal:  # noqa: ASYNC110
                    await trio.sleep(1)
            await trio.sleep(10)
    assert (await stage.store.jobs.get(job.id)).status is JobStatus.COMPLETED
    assert await stage.store.content.count("plot-one", refresh=True) == 13 * 30


Situation = Callable[[Stage], Awaitable[None]]

SITUATIONS: Sequence[tuple[Situation, tuple[str, ...]]] = (
    (a_plain_sync, (
        "service_started", "service_stopped", "connector_found", "connector_connected", "schema_kept_up", "job_claimed",
        "partition_opened", "partition_closed", "page_compared", "bulk_answered", "batches_settled", "job_completed",
    )),
    (a_file_is_read, ("content_read",)),
    (a_schedule_fires, ("schedule_fired",)),
    (a_source_is_down_when_its_schedule_is_due, ("connector_failed", "schedule_missed")),
    (no_service_runs_for_some_hours, ("fires_missed",)),
    (all_slots_are_taken, ("job_waits",)),
    (the_licence_does_not_allow_it, ("licence_refused",)),
    (a_claim_fails, ("job_not_started",)),
    (a_listing_breaks, ("partition_broken", "job_failed")),
    (the_source_cannot_name_its_parts, ("source_not_listed", "job_failed")),
    (the_service_stops_amid_a_sync_and_another_goes_on, ("job_suspended", "job_resumed")),
    (somebody_cancels, ("job_cancelled",)),
    (the_document_of_a_running_job_vanishes, ("job_lost",)),
    (a_worker_has_died, ("job_taken_over",)),
    (elasticsearch_is_too_busy, ("throttled",)),
    (elasticsearch_is_away_for_a_moment, ("retried",)),
    (a_request_is_too_large, ("bulk_split",)),
    (a_source_makes_us_wait, ("throttled", "retried")),
    (a_document_is_refused, ("dead_letter",)),
    (a_download_fails_and_is_asked_for_again, ("dead_letter", "dead_letters_replayed")),
    (a_few_documents_go, ("deletions_begun",)),
    (most_documents_go_and_somebody_confirms, ("deletions_held_back", "deletions_confirmed")),
    (a_connector_is_deleted, ("connector_gone",)),
    (a_connector_is_paused_and_resumed, ("connector_paused", "connector_resumed")),
    (somebody_edits_a_draft, ("draft_validated",)),
    (somebody_presses_a_button, ("person_acted",)),
    (an_actor_cannot_do_its_work, ("actor_crashed", "actor_restarted")),
    (elasticsearch_is_away_for_good, ("supervisor_gave_up",)),
    (a_message_comes_too_late, ("message_undelivered",)),
    (the_journal_itself_cannot_be_written, ("entries_dropped",)),
    (a_job_has_very_many_parts, ("entries_folded",)),
    (faults_are_rehearsed, ("fault_injected",)),
    (a_helper_falls_silent_and_comes_back, (
        "help_begun", "help_ended", "lease_taken", "lease_expired", "lease_lost",
    )),
)  # fmt: skip


@pytest.mark.parametrize(("situation", "kinds"), SITUATIONS, ids=[situation.__name__ for situation, _ in SITUATIONS])
async def test_it_is_told(
    autojump_clock: trio.testing.MockClock, stage: Stage, situation: Situation, kinds: tuple[str, ...]
) -> None:
    with simulated_seams(7):
        await situation(stage)
        kept = {entry.kind for entry in await stage.journal()}
    heard = {entry.kind for entry in stage.told}
    for kind in kinds:
        assert kind in (kept if KINDS[kind].is_kept else heard), sorted(kept)
        assert KINDS[kind].is_kept or kind not in kept


async def test_a_blocked_loop_is_told() -> None:
    """In real time: a thread looks whether the loop still turns."""
    async with open_node(port=None) as node:
        stage = Stage(node.app)
        async with open_store(Target(embedded=stage)) as store:
            stage.store = store
            await store.ensure_indices()
            async with stage.service() as service, service.watched():
                await trio.sleep(0.3)
                time.sleep(1.0)  # noqa: ASYNC251 - blocking is what is told of
                await trio.sleep(0.3)
            found = [entry for entry in await stage.journal() if entry.kind == "loop_stalled"]
    assert "test_a_blocked_loop_is_told" in found[0].happening.stack  # type: ignore[attr-defined]


def test_no_kind_is_forgotten() -> None:
    proved = {kind for _, kinds in SITUATIONS for kind in kinds} | {"loop_stalled"}
    assert proved == set(KINDS)


async def test_without_a_journal_nothing_is_written(autojump_clock: trio.testing.MockClock, stage: Stage) -> None:
    with simulated_seams(7):
        await stage.make()
        await stage.run(await stage.job(), **{"callboard.journal.enabled": False})
        with pytest.raises((NotFound, StoreError)):
            await stage.store.content.refresh(".callboard-journal")
