"""One seed of the whole service: several services on one node, mishaps, then peace, clean syncs, and the comparison."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, ClassVar
from unittest.mock import patch

import attrs
import structlog
import trio

from callboard.actors import connector as connector_actor
from callboard.actors import janitor, service
from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.configured import engine_settings
from callboard.actors.preflight import PreflightFailed
from callboard.actors.scheduler import TooManyProblems
from callboard.actors.service import Service, open_service
from callboard.actors.service_state import ServiceEvent
from callboard.actors.sync import confirm_deletions
from callboard.actors.worker_name import WorkerName
from callboard.node import open_node
from callboard.node.faults import FaultyApp, ServerFaultPlan
from callboard.protocol import JobType, Schedule, Scheduling, TransitionRefused
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.documents import Features, Flag
from callboard.protocol.store import Store, StoreError, Target, open_store
from callboard.runtime import Budget, Event, FaultPlan, TreeNode
from callboard.runtime import open_system as open_actor_system
from callboard.runtime import seams as runtime_seams
from callboard.runtime.faults import InjectedFault
from callboard.runtime.seams import Seams, own_clock
from callboard.sources.errors import Transient
from callboard.sources.scripted import FileScript, PartScript, Script, ScriptedSource
from callboard.sources.source import ContentRef, Document, Failure, Identity, SourceContext

from .memory import MemoryWatch
from .service_plan import ACTOR_FAULTS, ConnectorSetup, Mishap, Plan
from .service_recorder import TERMINAL, JobSeen, Server, ServiceCable, ServiceRecorder, on_behalf_of

GUARD_DOCUMENTS, GUARD_SHARE = 3, 0.2
STOPS_WITHIN_S = 25.0
"""So soon after a stop in order a service must have gone, whatever its last writes meet."""
KILLED_WITHIN_S = 40.0
"""A killed service has lost its network; so long its tasks may take to notice. Nobody waits for them."""
CANCELED_WITHIN_S = 6.0
"""So soon after the wish to cancel a job must have ended if its worker lives and the server answers."""
RESTS_WITHIN_S = 3000.0
FIRE_SLACK_S = 45.0
REQUESTED = {
    "job requested": JobType.FULL,
    "access job requested": JobType.ACCESS_CONTROL,
    "incremental job requested": JobType.INCREMENTAL,
}
PEOPLE = ("ann", "ben", "cyd", "dee")
GOES_ON_S = 130.0
"""Peace lasts at least so long before it is looked at: every schedule fires in it, and idle jobs are found."""


@attrs.frozen
class ShelfConfig:
    """Which of the world's corpora a connector reads."""

    shelf: str = setting(label="Shelf", default="")


@attrs.define(eq=False)
class Shelf:
    """The source of one connector, and what happens to it."""

    number: int
    id: str
    rng: random.Random
    faults: dict[str, float]
    setup: ConnectorSetup
    corpus: dict[str, list[Document]] = attrs.field(factory=dict)
    files: dict[str, bytes] = attrs.field(factory=dict)
    is_deleted: bool = False
    """Somebody has deleted its connector."""
    people: dict[str, list[str]] = attrs.field(factory=dict)
    down_until_s: float = 0.0
    defect: bool = False
    """The next check meets a mistake in the source's code."""
    every_minutes: int | None = None
    second: int = 0
    scheduled_since_s: float = 0.0
    versions: int = 0


@attrs.define(eq=False)
class Slot:
    """One place where a service runs, again and again."""

    number: int
    lives: int = 0
    scope: trio.CancelScope | None = None
    cable: ServiceCable | None = None
    running: Service | None = None
    clock: Seams | None = None
    offset_s: float = 0.0
    back_at_s: float = 0.0
    stop: trio.Event = attrs.field(factory=trio.Event)
    name: str = ""
    is_gone: trio.Event = attrs.field(factory=trio.Event)
    stopped_at_s: float | None = None
    parts: tuple[str, ...] = ()
    """The actors of the service itself, as it began."""
    system: Any = None
    """The system of its actors."""


this_process: ContextVar[WorkerName] = ContextVar("simulated process")
this_slot: ContextVar[Slot] = ContextVar("place of a simulated service")


@attrs.define(eq=False)
class ServiceWorld:
    """Everything of one run, and what it was seen to do."""

    plan: Plan
    rng: random.Random = attrs.field(init=False)
    shelves: dict[str, Shelf] = attrs.field(factory=dict)
    slots: list[Slot] = attrs.field(factory=list)
    since: dict[str, float] = attrs.field(factory=dict)
    """`index/id` -> since when the source has it without a break."""
    passes: dict[str, float] = attrs.field(factory=dict)
    runners: dict[str, set[str]] = attrs.field(factory=dict)
    processes: dict[int, int] = attrs.field(factory=dict)
    """The table of processes: id -> when it began."""
    disturbed_s: list[tuple[float, float]] = attrs.field(factory=list)
    """When the server or somebody's network was not what it should be."""
    journal: list[str] = attrs.field(factory=list)
    violations: list[str] = attrs.field(factory=list)
    seen: Counter[str] = attrs.field(factory=Counter)
    disasters: Counter[str] = attrs.field(factory=Counter)
    at_peace: bool = False
    peace_s: float = 0.0
    fired: dict[tuple[str, str], set[str]] = attrs.field(factory=dict)
    """(connector, fire time) -> the jobs that were made of it, as the services tell."""
    recorder: ServiceRecorder = attrs.field(init=False)
    faulty: FaultyApp = attrs.field(init=False)
    server: Server = attrs.field(init=False)
    calm: Store = attrs.field(init=False)
    memory: MemoryWatch = attrs.field(init=False)
    nursery: trio.Nursery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rng = random.Random(self.plan.seed)
        self.memory = MemoryWatch(self.complain, self._owner)

    # Bookkeeping

    def _owner(self) -> str | None:
        process = this_process.get(None)
        return on_behalf_of.get() or (None if process is None else str(process))

    def alive(self) -> list[Shelf]:
        """The shelves whose connectors exist."""
        return [shelf for shelf in self.shelves.values() if not shelf.is_deleted]

    def note(self, line: str) -> None:
        self.journal.append(f"{trio.current_time():9.3f} {line}")

    def note_request(self, line: str) -> None:
        self.journal.append(f"{trio.current_time():9.3f} . {line}")

    def complain(self, why: str) -> None:
        self.note(f"VIOLATION {why}")
        self.violations.append(why)

    def had_throughout(self, place: str, job_id: str) -> bool:
        since = self.since.get(place)
        return since is not None and since <= self.passes.get(job_id, 0.0)

    def is_disturbed(self, from_s: float, to_s: float) -> bool:
        return any(begin < to_s and end > from_s for begin, end in self.disturbed_s)

    def session(self, shelf: Shelf, job_id: str) -> Any:
        """Note who works on which job, for as long as the session lasts."""
        by = str(this_process.get())

        @asynccontextmanager
        async def watched() -> AsyncIterator[None]:
            on_behalf_of.set(job_id)
            at_work = self.runners.setdefault(job_id, set())
            at_work.add(by)
            self.passes.setdefault(job_id, trio.current_time())
            if len(at_work) > 1:
                self.complain(f"job {job_id[:6]} has {len(at_work)} runners: {sorted(at_work)}")
            try:
                yield
            finally:
                at_work.discard(by)

        return watched()

    # The sources

    def put(self, shelf: Shelf, part: str, document_id: str) -> None:
        shelf.versions += 1
        kept = [one for one in shelf.corpus[part] if one.id != document_id]
        access = None
        if shelf.setup.is_restricted:
            access = sorted(shelf.rng.sample(PEOPLE, shelf.rng.randint(0, 2)))
        fields = {"title": f"version {shelf.versions}", "size": shelf.rng.randint(0, 9)}
        stamp = f"2026-01-01T{shelf.versions // 3600:02}:{shelf.versions // 60 % 60:02}:{shelf.versions % 60:02}Z"
        content = None
        if shelf.setup.files and shelf.rng.random() < shelf.setup.files:
            name = f"{document_id}.txt"
            size = shelf.rng.randint(1, 9000)
            shelf.files[name] = (f"text {shelf.versions} " * (size // 6 + 1)).strip().encode()[:size].strip()
            told = len(shelf.files[name]) if shelf.rng.random() < 0.5 else None
            content = ContentRef(name, size_bytes=told, version=str(shelf.versions))
        shelf.corpus[part] = [*kept, Document(document_id, fields, timestamp=stamp, access=access, content=content)]
        self.since.setdefault(f"{index_of(shelf)}/{document_id}", trio.current_time())

    def remove(self, shelf: Shelf, part: str, document_id: str) -> None:
        shelf.corpus[part] = [one for one in shelf.corpus[part] if one.id != document_id]
        self.since.pop(f"{index_of(shelf)}/{document_id}", None)

    def change(self, shelf: Shelf, share: float) -> None:
        rng = shelf.rng
        for part in list(shelf.corpus):
            for one in list(shelf.corpus[part]):
                lot = rng.random()
                if lot < share / 3:
                    self.remove(shelf, part, one.id)
                elif lot < share:
                    self.put(shelf, part, one.id)
            for _ in range(rng.randint(0, 2)):
                self.put(shelf, part, f"{part}-{rng.randrange(1000):03}")
        if shelf.setup.is_restricted:
            for person in PEOPLE:
                if rng.random() < share:
                    shelf.people[person] = sorted(rng.sample(PEOPLE, rng.randint(1, 3)))
                elif rng.random() < share / 4:
                    shelf.people.pop(person, None)

    def page_begins(self, shelf: Shelf) -> None:
        chance = 0.0 if self.at_peace else shelf.faults.get("changes during the scan", 0.0)
        if shelf.rng.random() < chance:
            self.disasters["changes during the scan"] += 1
            self.seen["change during the scan"] += 1
            self.note(f"the corpus of {shelf.id} changes while it is listed")
            self.change(shelf, 0.15)

    def script(self, shelf: Shelf) -> Script:
        """What goes wrong at the source in one attempt."""
        rng, setup = shelf.rng, shelf.setup
        faults = {} if self.at_peace else shelf.faults
        parts = {}
        for part, documents in shelf.corpus.items():
            ids = [one.id for one in documents]
            delay_s = setup.page_delay_s * (rng.uniform(2, 6) if rng.random() < faults.get("slow source", 0) else 1)
            failures = []
            if ids and rng.random() < faults.get("item fails", 0):
                failures.append(Failure("item", "a document", "no right", document_id=rng.choice(ids)))
            parts[part] = PartScript(
                page_documents=setup.page_documents,
                page_delay_s=delay_s,
                fails_at_page=rng.randint(1, 3) if rng.random() < faults.get("listing breaks", 0) else None,
                repeated=set(ids[::3]) if rng.random() < faults.get("id named twice", 0) else (),
                failures=failures,
                empty_pages={1, rng.randint(2, 4)} if rng.random() < faults.get("empty pages", 0) else (),
                repeated_at_end=set(ids[:2]) if rng.random() < faults.get("named again at the end", 0) else (),
                padding_bytes=(
                    {rng.choice(ids): 20_000} if ids and rng.random() < faults.get("huge document", 0) else {}
                ),
            )
        files = {name: self._file_script(shelf, faults) for name in shelf.files}
        naming = rng.randint(0, len(parts)) if rng.random() < faults.get("naming breaks", 0) else None
        self.disasters["source"] += naming is not None
        self.disasters["source"] += sum(
            (one.fails_at_page is not None) + len(one.failures) + bool(one.repeated) + bool(one.repeated_at_end)
            + bool(one.padding_bytes) for one in parts.values()
        )  # fmt: skip
        self.seen["huge document"] += any(one.padding_bytes for one in parts.values())
        self.seen["empty page"] += any(one.empty_pages for one in parts.values())
        self.seen["named again at the end"] += any(one.repeated_at_end for one in parts.values())
        return Script(parts=parts, files=files, naming_fails_after=naming)

    def _file_script(self, shelf: Shelf, faults: dict[str, float]) -> FileScript:
        rng = shelf.rng
        times = None if rng.random() < faults.get("download broken for good", 0) else 1
        breaks = times is None or rng.random() < faults.get("download fails", 0)
        delay_s = rng.uniform(1, 8) if rng.random() < faults.get("slow download", 0) else 0.0
        return FileScript(
            delay_s=delay_s, chunk_delay_s=delay_s / 4, fails_after_bytes=rng.choice([0, 4000]) if breaks else None,
            fails_times=times,
        )  # fmt: skip

    def source_class(self) -> type[ScriptedSource]:
        """The class of all sources of this world."""
        world = self

        class ShelfSource(ScriptedSource):
            Config: ClassVar[type[Any]] = ShelfConfig

            def __init__(self, config: ShelfConfig, context: SourceContext | None = None) -> None:
                self._shelf = shelf = world.shelves[config.shelf]
                bound = {} if context is None else structlog.get_context(context.log)
                self._job = bound.get("job")
                super().__init__(
                    shelf.corpus,
                    world.script(shelf) if self._job else None,
                    files=shelf.files,
                    people=[Identity(f"{name}@example.org", {"name": name}, access) for name, access in shelf.people.items()],
                    on_page=lambda _part, _number: world.page_begins(shelf),
                    context=context,
                )  # fmt: skip

            async def ping(self) -> None:
                if trio.current_time() < self._shelf.down_until_s:
                    world.seen["source was down"] += 1
                    raise Transient("The shelf does not answer.")

            async def validate(self) -> None:
                if self._shelf.defect and not self._job:
                    self._shelf.defect = False
                    world.seen["defect of a source"] += 1
                    raise ZeroDivisionError("a mistake in the source")

            @asynccontextmanager
            async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
                async with super().fetch(content) as chunks:
                    yield self._counted(chunks)

            async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
                try:
                    async for chunk in chunks:
                        yield chunk
                except Transient:
                    world.seen["download broken"] += 1
                    world.disasters["download broken"] += 1
                    raise
                world.seen["file downloaded"] += 1

            async def documents(self, partition: Any, checkpoint: Any = None) -> Any:
                if checkpoint is not None:
                    world.seen["resume"] += 1
                async with aclosing(super().documents(partition, checkpoint)) as listing:
                    async for item in listing:
                        if trio.current_time() < self._shelf.down_until_s:
                            raise Transient("The shelf does not answer.")
                        yield item

            def session(self) -> Any:
                return world.session(self._shelf, self._job) if self._job else super().session()

        return ShelfSource

    # What goes wrong inside of the services

    @asynccontextmanager
    async def open_system(self, *args: Any, faults: FaultPlan | None = None, **options: Any) -> AsyncIterator[Any]:
        """As the service opens the system of its actors, with the faults of this life."""
        slot = this_slot.get()
        if faults is None and not self.at_peace:
            faults = self.plan.actor_faults(trio.current_time(), f"{slot.number} {slot.lives}")
        async with open_actor_system(*args, faults=faults, **options) as system:
            if faults is not None:
                # With faults a system has a clock of its own.
                slot.clock = runtime_seams._seams.get()
            with system.events.calling(self._actor_happens):
                slot.system = system
                yield system

    def _actor_happens(self, event: Event) -> None:
        if event.kind == "fault":
            kind = event.detail.rule.partition("/")[0]
            self.seen[kind] += 1
            self.disasters[kind] += 1
            self.note(f"FAULT {kind} at {event.path} {event.detail.what}")
        elif event.kind == "restarted":
            self.seen["actor restarted"] += 1

    # The course of events

    async def run(self) -> None:
        """Live through the plan. What is broken is in `violations`."""
        async with (
            open_node(None, port=None, attachment_reader=read_text, faults=ServerFaultPlan()) as node,
            trio.open_nursery() as self.nursery,
        ):
            on_restart = node.app._on_restart
            self.recorder = ServiceRecorder(
                node.app, self.complain, self.note, self.had_throughout,
                note_request=self.note_request, on_job=self._job_moves,
            )  # fmt: skip
            names, faults = self.plan.server_faults()
            self.faulty = FaultyApp(self.recorder, faults, on_restart=on_restart)
            self.disturbed_s += [
                (one.at_s, one.until_s + 15) for one in self.plan.mishaps if one.kind in (*names, *ACTOR_FAULTS)
            ]
            self.server = self.recorder.server = Server(self.faulty)
            await self.nursery.start(self.server.run)
            with ExitStack() as stack:
                for patched in self._patches():
                    stack.enter_context(patched)
                stack.enter_context(self.memory.watching())
                async with open_store(Target(embedded=self.recorder), wait_s=None) as self.calm:
                    await self._load()
                    for slot in self.slots:
                        self.nursery.start_soon(self._keep_running, slot)
                    self.nursery.start_soon(self._watch_actors)
                    await self._mishaps()
                    fired = zip(names, self.faulty.firing.fired, strict=True)
                    self._count({name: count for name, count in fired if count})
                    await self._peace()
                    await self._end()
            self.nursery.cancel_scope.cancel()

    def _count(self, fired: dict[str, int]) -> None:
        for name, count in fired.items():
            self.disasters[name] += count
            self.seen[name] += count

    def _patches(self) -> Iterator[Any]:
        yield patch.object(service, "own_name", lambda: this_process.get())
        yield patch.object(janitor, "started_of", self.processes.get)
        yield patch.object(service, "open_system", self.open_system)
        yield patch.object(service, "Budget", self.budget)
        yield patch.object(connector_actor, "engine_settings", self.engine_settings)

    def engine_settings(self, settings: Settings) -> Any:
        """As the configuration says, with budgets so small that somebody has to wait."""
        setup = self.plan.setup
        return attrs.evolve(
            engine_settings(settings),
            queue_size_bytes_max=setup.queue_size_bytes,
            download_memory_size_bytes=setup.download_memory_size_bytes,
            memory_reserve_bytes=setup.memory_bytes // (setup.slots + 1) // 4,
        )

    def budget(self, *_sizes: int) -> Budget:
        """What the jobs of a service share: as much as one of them may take."""
        return Budget(self.plan.setup.memory_bytes, self.plan.setup.memory_bytes // 2)

    async def _load(self) -> None:
        setup = self.plan.setup
        await self.calm.ensure_indices()
        for one in setup.connectors:
            await self._create(one)
        for number in range(setup.services):
            self.slots.append(Slot(number))

    async def _create(self, setup: ConnectorSetup) -> None:
        """Make a connector, and what its source holds."""
        number = len(self.shelves)
        chance = random.Random(f"{self.plan.seed} {number}")
        shelf = Shelf(number, f"c{number}", chance, self.plan.source_faults(number), setup)
        self.shelves[shelf.id] = shelf
        for part, count in enumerate(setup.parts):
            shelf.corpus[f"p{part}"] = []
            for document in range(count):
                self.put(shelf, f"p{part}", f"p{part}-{document:03}")
        if setup.is_restricted:
            shelf.people = {name: [name] for name in PEOPLE}
        await self.calm.connectors.create(shelf.id, index_name=index_of(shelf), service_type="shelf")
        shelf.second = setup.second
        await self._schedule(shelf, setup.every_minutes)

    async def _schedule(self, shelf: Shelf, every_minutes: int | None) -> None:
        shelf.every_minutes, shelf.scheduled_since_s = every_minutes, trio.current_time()
        restricted = shelf.setup.is_restricted
        cron = f"{shelf.second} 0/{every_minutes or 1} * * * ?"
        full = Schedule(enabled=every_minutes is not None, interval=cron)
        access = Schedule(enabled=restricted and every_minutes is not None, interval=cron)

        def decide(present: Any) -> Any:
            configured = present
            if "shelf" not in present.configuration:
                configured = transitions.configured(present, {"shelf": {"value": shelf.id}})
            features = attrs.evolve(configured.features or Features(), document_level_security=Flag(enabled=restricted))
            return attrs.evolve(configured, scheduling=Scheduling(full=full, access_control=access), features=features)

        await self.calm.connectors.update(shelf.id, decide)

    def _settings(self) -> Settings:
        setup = self.plan.setup
        content = {
            "connectors": [{"connector_id": f"c{one}"} for one in range(len(setup.connectors) + len(setup.spares))],
            "service.idling": 15,
            "service.heartbeat": 60,
            "service.job_cleanup_interval": 20,
            "service.max_concurrent_content_syncs": setup.slots,
            "service.max_errors": 8,
            "service.preflight_max_attempts": 3,
            "service.preflight_idle": 2,
            "elasticsearch.max_wait_duration": 20,
            "elasticsearch.request_timeout": 30,
            "elasticsearch.max_retries": 4,
            "elasticsearch.retry_interval": 3,
            "elasticsearch.bulk.chunk_size": 8,
            "elasticsearch.bulk.max_concurrency": 3,
            "callboard.sync.elasticsearch_patience": 300,
            "callboard.sync.deletion_guard.documents": GUARD_DOCUMENTS,
            "callboard.sync.deletion_guard.share": GUARD_SHARE,
            "callboard.missed_schedules": "catch_up_once" if setup.catches_up else "skip",
            "callboard.shutdown_seconds": 10,
            "callboard.text_extraction.engine": "plain",
        }
        return read_mapping(content, {}).settings

    # The services

    async def _keep_running(self, slot: Slot) -> None:
        """As a supervisor of the machine does: start the service again when it has gone."""
        while True:
            while (left_s := slot.back_at_s - trio.current_time()) > 0:  # noqa: ASYNC110 - peace brings it back earlier
                await trio.sleep(min(left_s, 1.0))
            await self._live(slot)
            slot.back_at_s = max(slot.back_at_s, trio.current_time() + 0.5)

    async def _live(self, slot: Slot) -> None:
        slot.lives += 1
        pid = 1000 + slot.number * 100 + slot.lives
        space = "00000000" if self.plan.setup.is_one_machine else f"{slot.number:08x}"
        own = WorkerName(f"host{0 if self.plan.setup.is_one_machine else slot.number}", pid, pid * 7, space)
        slot.name, slot.stop, slot.stopped_at_s = str(own), trio.Event(), None
        this_process.set(own)
        this_slot.set(slot)
        self.processes[pid] = own.started
        slot.cable = ServiceCable(
            self.server, slot.name, random.Random(f"{self.plan.seed} {pid}"), self.plan.setup.latency_s
        )
        self.note(f"{slot.name} starts")
        slot.is_gone = trio.Event()
        self.nursery.start_soon(self._serve, slot, own, slot.cable, slot.is_gone)
        await slot.is_gone.wait()

    async def _serve(self, slot: Slot, own: WorkerName, cable: ServiceCable, is_gone: trio.Event) -> None:
        name = str(own)
        with own_clock(slot.offset_s) as slot.clock, trio.CancelScope() as slot.scope:
            scope = slot.scope
            try:
                async with open_service(
                    self._settings(), embedded=cable, sources={"shelf": self.source_class()}, environment={},
                    on_event=lambda event: self._happens(name, event),
                ) as running:  # fmt: skip
                    slot.running = running
                    slot.parts = tuple(child.name for child in running.tree().children)
                    await slot.stop.wait()
                    slot.stopped_at_s = trio.current_time()
                    await running.stop()
            except (StoreError, PreflightFailed) as exc:
                self.seen["service could not start"] += 1
                self.note(f"{name} cannot go on: {type(exc).__name__}: {exc}")
            except TooManyProblems as exc:
                self.seen["service gave up"] += 1
                self.note(f"{name} gives up: {exc}")
            except Exception as exc:
                if is_injected(exc):
                    self.seen["service ended by a fault"] += 1
                    self.note(f"{name} ends by a fault of its actors: {_leaf(exc)}")
                elif not cable.is_cut:
                    self.complain(f"{name} ended by a mistake of its own: {_leaf(exc)}")
        self.note(f"{name} has gone")
        if slot.stopped_at_s is not None and trio.current_time() - slot.stopped_at_s > STOPS_WITHIN_S:
            self.complain(f"{name} was told to stop and took {trio.current_time() - slot.stopped_at_s:.0f} s")
        if scope.cancelled_caught and cable.is_cut:
            return  # it was killed, and has been buried already
        slot.running = None
        self._bury(slot, own)
        is_gone.set()
        if slot.stopped_at_s is not None and not self.is_disturbed(slot.stopped_at_s - 10, trio.current_time()):
            left = [job.id[:6] for job in self._jobs_of(name) if job.status in ("in_progress", "canceling")]
            if left:
                self.complain(f"{name} stopped in order and left {left} running")

    def _bury(self, slot: Slot, own: WorkerName) -> None:
        self.processes.pop(own.pid, None)
        for at_work in self.runners.values():
            at_work.discard(str(own))

    def _jobs_of(self, name: str) -> list[JobSeen]:
        return [job for job in self.recorder.seen_jobs.values() if job.source.get("worker_hostname") == name]

    async def _kill(self, slot: Slot, back_after_s: float) -> None:
        """As SIGKILL would: nothing it still tries reaches anybody, and its process is gone from the table at once."""
        if slot.cable is None or slot.scope is None or slot.running is None:
            return
        own = WorkerName.parse(slot.name)
        assert own is not None
        slot.cable.is_cut = True
        slot.running = None
        self._bury(slot, own)
        slot.back_at_s = trio.current_time() + back_after_s
        slot.scope.cancel()
        slot.is_gone.set()

    def _happens(self, name: str, event: ServiceEvent) -> None:
        detail = event.detail if isinstance(event.detail, str) else getattr(event.detail, "status", "")
        if event.kind == "schedule_fired":
            made = self.fired.setdefault((event.connector_id, detail), set())
            made.add(event.job_id or "")
            if len(made) > 1:
                self.complain(f"the fire time of {event.connector_id} ({detail}) made {len(made)} jobs")
        self.note(f"{name}: {event.kind} {event.connector_id} {(event.job_id or '')[:6]} {detail or ''}".rstrip())
        self.seen[event.kind] += 1

    def _job_moves(self, job: JobSeen, was: str | None, by: str) -> None:
        self.seen[f"job {job.status}"] += 1
        if job.kind == "access_control" and job.status == "completed":
            self.seen["access-control sync"] += 1
        if job.status == "in_progress":
            if len(job.workers) > 1 and job.workers[-1] != job.workers[-2]:
                self.seen["takeover"] += 1
            same = [
                one.id[:6]
                for one in self.recorder.seen_jobs.values()
                if one.connector == job.connector
                and (one.kind == "access_control") == (job.kind == "access_control")
                and one.status in ("in_progress", "canceling")
            ]
            if len(same) > 1:
                self.complain(f"{job.connector} has {len(same)} running jobs of one kind: {same}")
        if was == "in_progress" and job.status == "suspended" and by != job.workers[-1]:
            self.seen["reclaimed idle job"] += 1
            if self.runners.get(job.id):
                self.complain(f"{by} took job {job.id[:6]} from {job.workers[-1]}, which was at work")
        if job.status in TERMINAL:
            self._judge_end(job, by)

    def _judge_end(self, job: JobSeen, by: str) -> None:
        if job.source.get("error"):
            self.note(f"job {job.id[:6]} says {job.source['error']}")
        done = self.recorder.done.get(job.id)
        carried_out = (done.indexed, done.deleted) if done else (0, 0)
        told = (job.source.get("indexed_document_count") or 0, job.source.get("deleted_document_count") or 0)
        if told[0] > carried_out[0] or told[1] > carried_out[1]:
            self.complain(f"job {job.id[:6]} counts {told}; the server carried out {carried_out}")
        is_undisturbed = not self.is_disturbed(job.created_s, trio.current_time()) and len(job.began_s) == 1
        if is_undisturbed and job.status == "completed" and told != carried_out:
            self.complain(f"job {job.id[:6]} counts {told}; undisturbed, the server carried out {carried_out}")
        own = (job.source.get("metadata") or {}).get("callboard") or {}
        if own.get("held_back_deletions"):
            self.seen["held-back deletion"] += 1
            self.note(f"job {job.id[:6]} holds back {own['held_back_deletions']} deletions")
        self.seen["document retried"] += bool((own.get("counters") or {}).get("retried"))
        self.seen["deletion"] += bool(told[1])

    # The mishaps

    async def _mishaps(self) -> None:
        for event in self.plan.events():
            await trio.sleep(max(0.0, event.at_s - trio.current_time()))
            self.note(f"MISHAP {event}")
            if await self._happen(event):
                self.disasters[event.kind] += 1
                self.seen[event.kind] += 1
        await trio.sleep(max(0.0, self.plan.setup.horizon_s - trio.current_time()))

    async def _happen(self, event: Mishap) -> bool:
        """Make one event happen; False if there was nothing for it to happen to."""
        slot = self.slots[event.target % len(self.slots)]
        shelf = self.alive()[event.target % len(self.alive())]
        now_s = trio.current_time()
        match event.kind:
            case "kill":
                was_running = slot.running is not None
                await self._kill(slot, event.amount)
                return was_running
            case "stop":
                if slot.running is None or slot.stop.is_set():
                    return False
                slot.back_at_s = now_s + event.amount
                slot.stop.set()
            case "cut off":
                self.disturbed_s.append((now_s, now_s + event.amount))
                self.nursery.start_soon(self._cut_off, slot.cable, event.amount)
            case "source down":
                shelf.down_until_s = now_s + event.amount
            case "source defect":
                shelf.defect = True
            case "connector created":
                spare = len(self.shelves) - len(self.plan.setup.connectors)
                if spare >= len(self.plan.setup.spares):
                    return False
                await self._create(self.plan.setup.spares[spare])
            case "connector deleted":
                if len(self.alive()) < 2:
                    return False
                shelf.is_deleted = True
                await self.calm.connectors.delete(shelf.id)
            case "source shrinks":
                for part in list(shelf.corpus):
                    for one in list(shelf.corpus[part]):
                        if shelf.rng.random() < 0.4 + 0.5 * event.amount:
                            self.remove(shelf, part, one.id)
            case "corpus changes":
                self.change(shelf, 0.1 + 0.3 * event.amount)
            case "job requested" | "access job requested" | "incremental job requested":
                kind = REQUESTED[event.kind]
                if kind is JobType.ACCESS_CONTROL and not shelf.setup.is_restricted:
                    return False
                await self.calm.jobs.create(await self.calm.connectors.get(shelf.id), kind)
            case "cancel requested":
                return await self._cancel_one(event)
            case "schedule changes":
                await self._schedule(shelf, int(event.amount) or None)
            case "clock jumps":
                slot.offset_s = event.amount
                if slot.clock is not None:
                    slot.clock.clock_offset_s = event.amount
            case "deletions confirmed":
                return await self._confirm()
            case "foreign write":
                ids = sorted(await self.recorder.documents_of(index_of(shelf)))
                if not ids:
                    return False
                one = ids[event.target % len(ids)]
                await self.recorder.ask("PUT", f"/{index_of(shelf)}/_doc/{one}?refresh=true", {"title": "not yours"})
            case "look now":
                if slot.running is None:
                    return False
                slot.running.look_now()
        return True

    async def _cut_off(self, cable: ServiceCable | None, seconds: float) -> None:
        if cable is None or cable.is_cut:
            return
        cable.is_cut = True
        await trio.sleep(seconds)
        if cable.name in [slot.name for slot in self.slots if slot.running is not None or slot.scope is not None]:
            cable.is_cut = False

    async def _cancel_one(self, event: Mishap) -> bool:
        active = [
            job for job in self.recorder.seen_jobs.values() if job.status in ("pending", "in_progress", "suspended")
        ]
        if not active:
            return False
        running = [job for job in active if job.status == "in_progress"] or active
        job = running[event.target % len(running)]
        with suppress(TransitionRefused):
            await self.calm.jobs.request_cancel(job.id)
            self.seen["cancel"] += 1
            self.nursery.start_soon(self._cancellation_is_prompt, job, job.source.get("worker_hostname"))
        return True

    async def _cancellation_is_prompt(self, job: JobSeen, by: str | None) -> None:
        asked_s = trio.current_time()
        await trio.sleep(CANCELED_WITHIN_S)
        lives = any(slot.name == by and slot.running is not None for slot in self.slots)
        if job.status == "canceling" and lives and not self.is_disturbed(asked_s - 5, trio.current_time()):
            self.complain(
                f"job {job.id[:6]} is still {job.status} {CANCELED_WITHIN_S:.0f} s after the wish to cancel it"
            )

    async def _confirm(self) -> bool:
        for job in reversed(self.recorder.seen_jobs.values()):
            own = (job.source.get("metadata") or {}).get("callboard") or {}
            if own.get("held_back_deletions") and job.status == "completed":
                with suppress(StoreError):
                    confirmed = await confirm_deletions(self.calm, job.id)
                    self.note(f"somebody confirms {confirmed.deleted} deletions of {job.id[:6]}")
                    return bool(confirmed.deleted)
        return False

    # Peace

    async def _peace(self) -> None:
        """Heal everything, let it come to rest, look at the schedules, sync once more, and compare."""
        self.note("PEACE")
        self.at_peace, self.peace_s = True, trio.current_time()
        self.faulty.use(ServerFaultPlan())
        for shelf in self.shelves.values():
            shelf.down_until_s, shelf.defect = 0.0, False
        for slot in self.slots:
            slot.offset_s = 0.0
            if slot.clock is not None:
                slot.clock.clock_offset_s = 0.0
            slot.back_at_s = min(slot.back_at_s, trio.current_time())
            if slot.system is not None and slot.system.faults is not None:
                slot.system.faults.use(FaultPlan())
        await trio.sleep(GOES_ON_S)
        if not await self._rest("after the mishaps", but_scheduled=True):
            return
        self._look_at_schedules()
        for shelf in self.alive():
            await self._schedule(shelf, None)
        if not await self._rest("without schedules"):
            return
        await self._clean_syncs()
        for shelf in self.alive():
            await self._compare(shelf)
        self._look_at_actors()
        self._look_at_memory()
        for job in self.recorder.seen_jobs.values():
            if self.shelves[job.connector].is_deleted and self.runners.get(job.id):
                self.complain(f"job {job.id[:6]} runs, and its connector has been deleted")

    async def _rest(self, when: str, *, but_scheduled: bool = False) -> bool:
        """Wait until no job waits or runs; jobs that a schedule has just made may be under way."""
        until_s = trio.current_time() + RESTS_WITHIN_S
        while trio.current_time() < until_s:
            active = [
                job
                for job in self.recorder.seen_jobs.values()
                if job.status not in TERMINAL
                # What waits for a connector that somebody has deleted waits until that is taken back.
                and not self.shelves[job.connector].is_deleted
                and not (but_scheduled and job.trigger == "scheduled" and job.created_s > trio.current_time() - 200)
            ]
            if not active:
                await trio.sleep(5)  # the last words of the jobs' workers to their connectors
                return True
            await trio.sleep(5)
        self.complain(
            f"{when} it does not come to rest: "
            + ", ".join(f"{job.id[:6]} of {job.connector} ({job.kind}) is {job.status}" for job in active)
        )
        return False

    def _look_at_schedules(self) -> None:
        """No due fire time is lost, and none makes two jobs."""
        now_s = trio.current_time()
        for shelf in self.alive():
            kinds = ["full"]
            if shelf.setup.is_restricted:
                kinds.append("access_control")
            for kind in kinds:
                taken = self.recorder.taken.get((shelf.id, kind), [])
                jobs = [
                    job for job in self.recorder.seen_jobs.values() if job.connector == shelf.id and job.kind == kind
                ]
                made = [job for job in jobs if job.trigger == "scheduled"]
                self.seen["schedule fired"] += bool(made)
                # Clocks that differ by minutes see different fire times at once; then only jobs of one and the same count.
                clocks_agree = not any(one.kind == "clock jumps" for one in self.plan.mishaps)
                if clocks_agree and len(made) > len(taken):
                    self.complain(f"{len(taken)} fire times of {shelf.id} ({kind}) made {len(made)} jobs")
                for fire_s, at_s in taken:
                    self._is_covered(shelf, kind, fire_s, at_s, jobs)
                due = self._last_due(shelf, now_s - FIRE_SLACK_S)
                if (
                    due is not None
                    and ((self.plan.setup.catches_up and taken) or due > self.peace_s + 60)
                    and (not taken or taken[-1][0] < due)
                ):
                    self.complain(
                        f"the {kind} sync of {shelf.id} was due at {due:.0f} s, and nobody has taken it; "
                        f"the last one taken is {taken[-1][0] if taken else None}"
                    )

    def _is_covered(self, shelf: Shelf, kind: str, fire_s: float, at_s: float, jobs: list[JobSeen]) -> None:
        """A fire time that was taken has made a job, or joined one that waited, however soon the taker died."""
        for job in jobs:
            is_new = at_s - FIRE_SLACK_S <= job.created_s <= at_s + FIRE_SLACK_S
            waited = job.created_s <= at_s and (job.ended_s is None or job.ended_s >= at_s - FIRE_SLACK_S)
            if is_new or waited or any(at_s - FIRE_SLACK_S <= began <= at_s + FIRE_SLACK_S for began in job.began_s):
                return
        self.complain(
            f"the {kind} sync of {shelf.id} at {fire_s:.0f} s was taken at {at_s:.0f} s, and no job came of it"
        )

    def _last_due(self, shelf: Shelf, before_s: float) -> float | None:
        """The last fire time up to then, by arithmetic of our own."""
        if shelf.every_minutes is None:
            return None
        minute = int(before_s // 60)
        while minute >= 0:
            fire_s = minute * 60 + shelf.second
            if minute % 60 % shelf.every_minutes == 0 and fire_s <= before_s:
                return fire_s if fire_s > shelf.scheduled_since_s + FIRE_SLACK_S else None
            minute -= 1
        return None

    async def _clean_syncs(self) -> None:
        wanted = []
        for shelf in self.alive():
            connector = await self.calm.connectors.get(shelf.id)
            wanted.append(await self.calm.jobs.create(connector))
            if shelf.setup.is_restricted:
                wanted.append(await self.calm.jobs.create(connector, JobType.ACCESS_CONTROL))
        if not await self._rest("for the clean syncs"):
            return
        for job in wanted:
            ended = self.recorder.seen_jobs[job.id]
            if ended.status != "completed":
                self.complain(
                    f"the clean {ended.kind} sync of {ended.connector} ended as {ended.status}: {ended.source.get('error')}"
                )
            own = (ended.source.get("metadata") or {}).get("callboard") or {}
            if own.get("held_back_deletions"):
                confirmed = await confirm_deletions(self.calm, job.id)
                self.seen["deletions confirmed"] += 1
                if confirmed.deleted != own["held_back_deletions"]:
                    self.complain(
                        f"{confirmed.deleted} of {own['held_back_deletions']} confirmed deletions were carried out"
                    )
            status = (await self.calm.connectors.get(ended.connector)).status_of(JobType(ended.kind))
            if status is None or status.value != "completed":
                self.complain(f"{ended.connector} says {status} after its clean {ended.kind} sync")

    async def _compare(self, shelf: Shelf) -> None:
        """Hold the indices against the source; what is wanted is made from the corpus without any code of the sync."""
        wanted: dict[str, dict[str, Any]] = {}
        for documents in shelf.corpus.values():
            for one in documents:
                wanted[one.id] = {**one.fields, "id": one.id, "_timestamp": one.timestamp}
                if one.access is not None:
                    wanted[one.id]["_allow_access_control"] = one.access or ["callboard:nobody"]
                if one.content is not None:
                    wanted[one.id]["body"] = shelf.files[one.content.name].decode()
        self._differ(f"{index_of(shelf)}", wanted, await self.recorder.documents_of(index_of(shelf)))
        if not shelf.setup.is_restricted:
            return
        people = {f"{name}@example.org": access for name, access in shelf.people.items()}
        found = await self.recorder.documents_of(f".search-acl-filter-{index_of(shelf)}")
        allowed = {
            one: {"access": document["query"]["template"]["params"]["access_control"]}
            for one, document in found.items()
        }
        self._differ(f"the people of {shelf.id}", {one: {"access": access} for one, access in people.items()}, allowed)

    def _differ(self, what: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
        missing, strange = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        different = [one for one in sorted(wanted.keys() & found.keys()) if wanted[one] != found[one]]
        if missing or strange or different:
            first = f"; {wanted[different[0]]} != {found[different[0]]}" if different else ""
            self.complain(
                f"after the clean sync {what}: missing {missing[:5]}, should be gone {strange[:5]}, "
                f"different {different[:5]}{first}"
            )

    def _look_at_actors(self) -> None:
        """Every actor of every service is one that should be there."""
        for slot in self.slots:
            if slot.running is None:
                self.complain(f"service {slot.number} does not run in peace")
                continue
            found = sorted(_paths(slot.running.tree()))
            wanted = sorted(
                list(slot.parts)
                + [f"connectors/{one.id}" for one in self.alive()]
                + [f"connectors/{one.id}/keeper" for one in self.alive()]
            )
            if found != wanted:
                self.complain(f"the actors of {slot.name} are {found}")
            if slot.running.running():
                self.complain(f"{slot.name} says it runs {slot.running.running()}, and nothing runs")

    def _look_at_memory(self) -> None:
        """Nothing runs any more, so nothing is held."""
        self.seen["memory granted"] += bool(self.memory.grants)
        self.seen["waited for memory"] += bool(self.memory.waited)
        jobs = self.recorder.seen_jobs
        living = {slot.name for slot in self.slots if slot.running is not None}

        def must_be_free(owner: str) -> bool:
            job = jobs.get(owner)
            return owner in living if job is None else job.status == "completed" and len(job.began_s) == 1

        if left := self.memory.left_over(must_be_free):
            self.complain(f"nothing runs, and memory is held: {left}")

    async def _watch_actors(self) -> None:
        """At any time, every actor of a service is one that may be there, and none is there twice."""
        while True:
            await trio.sleep(7)
            for slot in self.slots:
                if slot.running is None:
                    continue
                found = _paths(slot.running.tree())
                may_be = re.compile(
                    "|".join([*map(re.escape, slot.parts), r"connectors/c\d+(/keeper|/job-[0-9a-f-]+.*)?"])
                )
                strange = [path for path in found if not may_be.fullmatch(path)]
                if strange or len(set(found)) < len(found):
                    self.complain(f"among the actors of {slot.name} are {strange or found}")

    async def _end(self) -> None:
        for slot in self.slots:
            slot.back_at_s = float("inf")
            slot.stop.set()
        await trio.sleep(STOPS_WITHIN_S)
        for slot in self.slots:
            if slot.running is not None:
                self.complain(f"{slot.name} does not stop")
        at_work = {job: names for job, names in self.runners.items() if names}
        if at_work:
            self.complain(f"at the end there are sessions left: {at_work}")


def index_of(shelf: Shelf) -> str:
    return f"shelf-{shelf.id}"


def is_injected(exc: BaseException | None) -> bool:
    """Whether a service ended because of a fault that was put into its actors."""
    if exc is None:
        return False
    if isinstance(exc, BaseExceptionGroup):
        return any(is_injected(one) for one in exc.exceptions)
    return isinstance(exc, InjectedFault) or "InjectedFault" in str(exc) or is_injected(exc.__cause__)


async def read_text(data: bytes, _name: str | None) -> str:
    """What the node takes for the text of a file."""
    await trio.lowlevel.checkpoint()
    return data.decode()


def _paths(node: TreeNode, place: str = "") -> list[str]:
    paths: list[str] = []
    for child in node.children:
        paths.append(f"{place}{child.name}")
        paths += _paths(child, f"{place}{child.name}/")
    return paths


def _leaf(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {exc}"
