"""One seed's course of events: a corpus that changes, jobs under disasters, then peace, one clean sync, and the comparison."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio

from callboard.actors.job import run_job, suspend_lost
from callboard.actors.sync import DeletionLimits, SyncReport, SyncSettings, confirm_deletions
from callboard.node import open_node
from callboard.node.faults import FaultyApp, ServerFaultPlan
from callboard.protocol import JobType, TransitionRefused
from callboard.protocol import jobs as transitions
from callboard.protocol.store import NotFound, RetryPolicy, Store, StoreError, Target, open_store
from callboard.sources.scripted import FileScript, PartScript, Script, ScriptedSource
from callboard.sources.source import ContentRef, Document, Failure

from .memory import MemoryWatch
from .rates import INDEX, Rates, draw_rates
from .recorder import JOBS, Recorder, worker

CONNECTOR = "c1"
FILE_SIZE_MAX = 20_000
ENDS_WITHIN_S = 30.0
"""So soon after its cancellation a run must have returned, whatever its last writes meet."""
CANCELED_WITHIN_S = 3.0
"""So soon after somebody asked for it, a job must have ended at a server that answers."""
RUN_S_MAX = 4000.0
ATTEMPTS_MAX = 6
OWN_ERRORS = (
    "SyncFailed", "CannotIndex", "TooManyErrors", "StateNotWritten", "Transient", "Unreachable", "Unavailable", "Refused",
    "TooManyRequests", "TooLarge", "NotElasticsearch", "Conflict", "TimedOut", "Incomplete", "StoreError", "BadAnswer",
)  # fmt: skip
"""What may end a job here; any other error is a mistake in the engine."""


@attrs.define(eq=False)
class Cable:
    """The way from one worker to the server: it takes its time, and a dead worker's is cut."""

    behind: Any
    rng: random.Random
    latency_s: float
    is_cut: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.is_cut:
            raise ConnectionError("this worker is dead")
        await trio.sleep(self.rng.random() * self.latency_s)
        if self.is_cut:
            raise ConnectionError("this worker is dead")
        await self.behind(scope, receive, send)


class WatchedSource(ScriptedSource):
    """Tells the world who works on which job."""

    def __init__(self, world: World, name: str, job_id: str, script: Script) -> None:
        super().__init__(world.corpus, script, files=world.files, on_page=world.page_begins)
        self._world, self._worker, self._job = world, name, job_id

    def session(self) -> Any:
        return self._world.session(self._worker, self._job)


@attrs.define(eq=False)
class World:
    """Everything of one run, and what it was seen to do."""

    seed: int
    clean: bool = False
    """No faults at all: the run must then be boring."""
    rng: random.Random = attrs.field(init=False)
    rates: Rates = attrs.field(init=False)
    corpus: dict[str, list[Document]] = attrs.field(factory=dict)
    files: dict[str, bytes] = attrs.field(factory=dict)
    texts: dict[str, set[str]] = attrs.field(factory=dict)
    """Id -> every text its file ever had: a document whose file has become too large keeps an earlier one."""
    since: dict[str, float] = attrs.field(factory=dict)
    """Id -> since when the source has it without a break."""
    passes: dict[str, float] = attrs.field(factory=dict)
    """Job -> when it first began."""
    versions: int = 0
    lied_to: set[str] = attrs.field(factory=set)
    """Jobs for which a listing ended early and said nothing."""
    workers: int = 0
    running: dict[str, set[str]] = attrs.field(factory=dict)
    journal: list[str] = attrs.field(factory=list)
    violations: list[str] = attrs.field(factory=list)
    seen: Counter[str] = attrs.field(factory=Counter)
    disasters: Counter[str] = attrs.field(factory=Counter)
    restless: bool = False
    """The corpus changes under the feet of the running sync."""
    moved: bool = False
    """It did so since the job began."""
    settings: SyncSettings = attrs.field(init=False)
    memory: MemoryWatch = attrs.field(init=False)
    recorder: Recorder = attrs.field(init=False)
    faulty: FaultyApp = attrs.field(init=False)
    calm: Store = attrs.field(init=False)
    """The way of people and janitors to the server, past all faults."""

    def __attrs_post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.memory = MemoryWatch(self.complain, lambda: (by := worker.get()) and by[0])
        self.rates = Rates({}, {}, {}) if self.clean else draw_rates(self.rng)

    # Bookkeeping

    def note(self, line: str) -> None:
        self.journal.append(f"{trio.current_time():9.3f} {line}")

    def complain(self, why: str) -> None:
        self.note(f"VIOLATION {why}")
        self.violations.append(why)

    def chance(self, kind: str, rates: Any) -> bool:
        return self.rng.random() < rates.get(kind, 0.0)

    def had_throughout(self, document_id: str, job_id: str) -> bool:
        if job_id in self.lied_to:
            return False  # nobody can know better than what the source says; the guard bounds what it costs
        since = self.since.get(document_id)
        return since is not None and since <= self.passes.get(job_id, 0.0)

    def session(self, name: str, job_id: str) -> Any:
        @asynccontextmanager
        async def watched() -> Any:
            at_work = self.running.setdefault(job_id, set())
            at_work.add(name)
            self.passes.setdefault(job_id, trio.current_time())
            if len(at_work) > 1:
                self.complain(f"job {job_id} has {len(at_work)} runners: {sorted(at_work)}")
            try:
                yield
            finally:
                at_work.discard(name)

        return watched()

    # The corpus

    def put(self, part: str, document_id: str) -> None:
        self.versions += 1
        kept = [one for one in self.corpus[part] if one.id != document_id]
        content = None
        if self.rng.random() < 0.3:
            name = f"{document_id}.txt"
            size = FILE_SIZE_MAX + 5000 if self.rng.random() < 0.1 else self.rng.randint(1, 9000)
            self.files[name] = (f"text {self.versions} " * (size // 6 + 1)).strip().encode()[:size].strip()
            self.texts.setdefault(document_id, set()).add(self.files[name].decode())
            told = len(self.files[name]) if self.rng.random() < 0.5 else None
            content = ContentRef(name, size_bytes=told, version=str(self.versions))
        fields = {"title": f"version {self.versions}", "size": self.rng.randint(0, 9)}
        stamp = f"2026-01-01T00:{self.versions // 60:02}:{self.versions % 60:02}Z"
        self.corpus[part] = [*kept, Document(document_id, fields, timestamp=stamp, content=content)]
        self.since.setdefault(document_id, trio.current_time())

    def remove(self, part: str, document_id: str) -> None:
        self.corpus[part] = [one for one in self.corpus[part] if one.id != document_id]
        self.since.pop(document_id, None)

    def change(self, share: float) -> None:
        for part in list(self.corpus):
            for one in list(self.corpus[part]):
                lot = self.rng.random()
                if lot < share / 3:
                    self.remove(part, one.id)
                elif lot < share:
                    self.put(part, one.id)
            for _ in range(self.rng.randint(0, 3)):
                self.put(part, f"{part}-{self.rng.randrange(1000):03}")

    def shrink(self) -> None:
        self.disasters["source shrinks"] += 1
        self.note("the source shrinks")
        part = self.rng.choice(list(self.corpus))
        for one in list(self.corpus[part]):
            if self.rng.random() < 0.8:
                self.remove(part, one.id)

    def page_begins(self, part: str, number: int) -> None:
        if self.restless and self.rng.random() < 0.3:
            self.disasters["changes during the scan"] += 1
            self.seen["change during the scan"] += 1
            self.note(f"the corpus changes before page {number} of {part}")
            self.change(0.1)
            self.moved = True

    def expected(self) -> dict[str, dict[str, Any]]:
        """What the index has to hold, made from the corpus without any code of the sync."""
        wanted: dict[str, dict[str, Any]] = {}
        for documents in self.corpus.values():
            for one in documents:
                fields = {**one.fields, "id": one.id, "_timestamp": one.timestamp}
                if one.content is not None and len(self.files[one.content.name]) <= FILE_SIZE_MAX:
                    fields["body"] = self.files[one.content.name].decode()
                wanted[one.id] = fields
        return wanted

    def _too_large(self) -> list[str]:
        contents = [(one.id, one.content) for documents in self.corpus.values() for one in documents]
        return [one for one, content in contents if content and len(self.files[content.name]) > FILE_SIZE_MAX]

    def draw_script(self) -> Script:
        """What goes wrong at the source in one attempt."""
        rng, rates = self.rng, self.rates.source
        parts: dict[str, PartScript] = {}
        for part, documents in self.corpus.items():
            failures: list[Failure] = []
            ids = [one.id for one in documents]
            if ids and self.chance("item fails", rates):
                failures.append(Failure("item", "a document", "no right", document_id=rng.choice(ids)))
            if self.chance("container fails", rates):
                failures.append(Failure("container", "a folder", "no right"))
            delay_s = rng.random()
            if self.chance("slow source", rates):
                delay_s = rng.random() * 8
            parts[part] = PartScript(
                page_documents=rng.randint(2, 9),
                page_delay_s=delay_s,
                fails_at_page=rng.randint(1, 4) if self.chance("listing breaks", rates) else None,
                repeated=set(rng.sample(ids, len(ids) // 3)) if self.chance("id named twice", rates) else (),
                failures=failures,
                one_by_one=rng.random() < 0.2,
                empty_pages={1, rng.randint(2, 4)} if self.chance("empty pages", rates) else (),
                repeated_at_end=set(ids[:2]) if self.chance("named again at the end", rates) else (),
                padding_bytes={rng.choice(ids): 30_000} if ids and self.chance("huge document", rates) else {},
                ends_after=rng.randint(0, len(ids) // 2) if self.chance("listing ends early", rates) else None,
            )
        files: dict[str, FileScript] = {}
        for name in self.files:
            if self.chance("download broken for good", rates):
                files[name] = FileScript(fails_after_bytes=rng.choice([0, 5000]))
            elif self.chance("download fails", rates):
                files[name] = FileScript(fails_after_bytes=rng.choice([0, 5000]), fails_times=rng.randint(1, 3))
            elif self.chance("slow download", rates):
                files[name] = FileScript(delay_s=rng.random() * 5, chunk_delay_s=rng.random())
        naming = rng.randint(0, len(self.corpus)) if self.chance("naming breaks", rates) else None
        return Script(parts=parts, files=files, naming_fails_after=naming)

    # The course of events

    async def run(self) -> None:
        """Live through the seed. What is broken is in `violations`."""
        rng = self.rng
        self.settings = SyncSettings(
            bulk_documents_max=rng.randint(2, 15),
            bulk_concurrency_max=rng.randint(1, 4),
            bulk_age_s_max=0.3,
            queue_documents_max=rng.choice([8, 64]),
            download_size_bytes_max=FILE_SIZE_MAX,
            known_memory_size_bytes=rng.choice([2_000, 1 << 20]),
            queue_size_bytes_max=rng.choice([500, 4_000, 1 << 20]),
            download_memory_size_bytes=rng.choice([3_000, 25_000, 1 << 20]),
            patience_s=60,
            item_tries_max=20,
            deletions=DeletionLimits(
                documents_max=3, share_max=0.2, release=rng.choice(["confirm", "confirm", "next_full_sync"])
            ),
            checkpoint_every_s=0.3,
            heartbeat_every_s=2.0,
            watch_every_s=0.25,
        )
        async with open_node(None, port=None, attachment_reader=_read_text, faults=ServerFaultPlan()) as node:
            self.recorder = Recorder(node.app, self.complain, self.note, self.had_throughout)
            self.faulty = FaultyApp(self.recorder, ServerFaultPlan(), on_restart=node.app._on_restart)
            async with open_store(Target(embedded=self.recorder), wait_s=None) as calm:
                self.calm = calm
                await calm.ensure_indices()
                await calm.connectors.create(CONNECTOR, index_name=INDEX, service_type="scripted")
                with self.memory.watching():
                    await self._live()
        self.seen["memory granted"] += bool(self.memory.grants)
        self.seen["waited for memory"] += bool(self.memory.waited)

    async def _live(self) -> None:
        rng = self.rng
        for part in [f"p{number}" for number in range(rng.randint(1, 3))]:
            self.corpus[part] = []
            for number in range(rng.randint(3, 25)):
                self.put(part, f"{part}-{number:03}")
        for _ in range(rng.randint(1, 3)):
            kind = JobType.INCREMENTAL if rng.random() < 0.25 else JobType.FULL
            await self._job_through_disasters(kind)
            self.change(0.2)
            if self.chance("source shrinks", self.rates.disasters):
                self.shrink()
            if self.chance("foreign write", self.rates.disasters):
                await self._foreign_write()
        await self._peace()

    async def _foreign_write(self) -> None:
        ids = sorted(await self.recorder.documents())
        if ids:
            self.disasters["foreign write"] += 1
            self.seen["foreign write"] += 1
            one = self.rng.choice(ids)
            self.note(f"somebody writes over {one}")
            await self.recorder.ask("PUT", f"/{INDEX}/_doc/{one}?refresh=true", {"title": "not yours"})

    async def _job_through_disasters(self, kind: JobType) -> None:
        job_id = (await self.calm.jobs.create(await self.calm.connectors.get(CONNECTOR), kind)).id
        before = await self.recorder.documents()
        self.moved = False
        for attempt in range(ATTEMPTS_MAX):
            at_peace = attempt >= ATTEMPTS_MAX - 2
            self.restless = not at_peace and self.chance("changes during the scan", self.rates.source)
            self.faulty.use(ServerFaultPlan() if at_peace else self.rates.plan(self.rng.getrandbits(32)))
            script = Script() if at_peace else self.draw_script()
            racers = 1
            if not at_peace and self.chance("race for the job", self.rates.disasters):
                self.disasters["race for the job"] += 1
                racers = 2
            async with trio.open_nursery() as nursery:
                if any(one.ends_after is not None for one in script.parts.values()):
                    self.lied_to.add(job_id)
                for _ in range(racers):
                    nursery.start_soon(self._attempt, job_id, script, at_peace, before, kind)
            self._count_faults()
            self.faulty.use(ServerFaultPlan())
            status = self.recorder.jobs[job_id]["status"]
            await self._free_connector()
            if status in ("completed", "error", "canceled"):
                self.seen[f"job {status}"] += 1
                return
            if status in ("in_progress", "canceling"):
                await self._janitor(job_id, status)
            if self.recorder.jobs[job_id]["status"] in ("error", "canceled"):
                return
            self.seen[f"job {status} after an attempt"] += 1
        self.complain(f"job {job_id} does not end: {self.recorder.jobs[job_id]['status']}")

    async def _free_connector(self) -> None:
        """What the service's janitor does for a connector whose worker died between its writes to connector and job."""
        connector = await self.calm.connectors.get(CONNECTOR)
        running = {"in_progress", "canceling"} & {job["status"] for job in self.recorder.jobs.values()}
        if connector.last_sync_status == "in_progress" and not running:
            self.seen["connector freed"] += 1
            await self.calm.connectors.update(CONNECTOR, lambda one: attrs.evolve(one, last_sync_status=None))

    async def _janitor(self, job_id: str, status: str) -> None:
        """The worker is dead: after the time of the protocol, the job is put aside, or ended."""
        await trio.sleep(301)
        if status == "canceling":
            ended = await self.calm.jobs.fail_lost(job_id, transitions.IDLE_ERROR, transitions.is_idle)
            await self.calm.connectors.sync_ends(CONNECTOR, ended)
            return
        await suspend_lost(self.calm, job_id)
        self.seen["takeover"] += 1

    def _count_faults(self) -> None:
        for name, fired in zip(self.rates.server, self.faulty.firing.fired, strict=False):
            if fired:
                self.disasters[name] += fired
                self.seen[name] += fired

    async def _attempt(
        self, job_id: str, script: Script, at_peace: bool, before: dict[str, Any], kind: JobType
    ) -> SyncReport | None:
        """One worker takes the job and lives, or does not."""
        self.workers += 1
        name = f"worker-{self.workers}"
        worker.set((name, job_id))
        rng = self.rng
        cable = Cable(self.faulty, random.Random(rng.getrandbits(32)), rng.choice([0.0, 0.02, 0.3]))
        target = Target(embedded=cable, retries=RetryPolicy(patience_s=30, cap_s=3, first_s=0.2))
        source = WatchedSource(self, name, job_id, script)
        end = _End()
        report: SyncReport | None = None
        async with open_store(target, wait_s=None) as store, trio.open_nursery() as nursery:
            nursery.start_soon(self._disaster, job_id, name, cable, end, at_peace)
            with trio.move_on_after(RUN_S_MAX) as limit, end.scope:
                try:
                    report = await run_job(
                        store, job_id, make_source=lambda *_: source, settings=self.settings, worker_hostname=name,
                        stop=end.stop,
                    )  # fmt: skip
                except TransitionRefused as exc:
                    self.seen["claim refused"] += 1
                    self.note(f"{name} is refused: {exc.why}")
                except StoreError as exc:
                    self.note(f"{name} cannot begin: {type(exc).__name__}: {exc}")
                except Exception as exc:
                    self.complain(f"{name} raises {type(exc).__name__}: {exc}")
            if limit.cancelled_caught:
                self.complain(f"{name} hangs")
            if end.at_s is not None and not end.is_request and trio.current_time() - end.at_s > ENDS_WITHIN_S:
                self.complain(f"{name} was told to end and took {trio.current_time() - end.at_s:.0f} s")
            nursery.cancel_scope.cancel()
        self.running.get(job_id, set()).discard(name)
        if report is not None:
            await self._judge(name, report, source, before, kind, end)
        return report

    async def _disaster(self, job_id: str, name: str, cable: Cable, end: _End, at_peace: bool) -> None:
        if at_peace:
            return
        rng = self.rng
        after_s = 10 ** rng.uniform(-2, 1.6)
        for kind in ("crash", "suspend", "cancel request", "shutdown", "hasty janitor"):
            if self.chance(kind, self.rates.disasters):
                break
        else:
            return
        await trio.sleep(after_s)
        self.note(f"{kind} of {name}")
        self.disasters[kind] += 1
        self.seen[kind] += 1
        match kind:
            case "crash":
                cable.is_cut = True
                self.running.get(job_id, set()).discard(name)
                end.scope.cancel()
                end.at_s = trio.current_time()
            case "suspend":
                end.stop.set()
                end.at_s = trio.current_time()
            case "shutdown":
                end.scope.cancel()
                end.at_s = trio.current_time()
            case "cancel request":
                worker.set(None)
                with suppress(TransitionRefused):
                    await self.calm.jobs.request_cancel(job_id)
                    end.at_s, end.is_request = trio.current_time(), True
            case "hasty janitor":
                worker.set(None)
                while True:
                    with suppress(TransitionRefused):
                        await suspend_lost(self.calm, job_id)
                        if self.running.get(job_id):
                            self.complain(f"the janitor took {job_id} from a worker that was at work")
                        return
                    self.seen["janitor refused"] += 1
                    await trio.sleep(1)

    async def _judge(
        self, name: str, report: SyncReport, source: WatchedSource, before: dict[str, Any], kind: JobType, end: _End
    ) -> None:
        """Look at what a run says of itself, and whether it is true."""
        self.note(f"{name} reports {report.status}: {dict(report.as_json())}")
        self._see(report, source)
        assert report.job_id is not None
        stored, done = self.recorder.jobs[report.job_id], self.recorder.done.get(report.job_id)
        if report.error and not report.error.startswith((*OWN_ERRORS, "Job ", "The end of the job", "The document")):
            self.complain(f"{name} ended by a mistake of its own: {report.error}")
        indexed, deleted = (done.indexed, done.deleted) if done else (0, 0)
        if report.indexed > indexed or report.deleted > deleted:
            self.complain(
                f"{name} counts {report.indexed} indexed and {report.deleted} deleted; the server carried out "
                f"{indexed} and {deleted}"
            )
        patience_s = ENDS_WITHIN_S + 30 if self.rates.server else CANCELED_WITHIN_S
        if end.is_request and end.at_s is not None and trio.current_time() - end.at_s > patience_s:
            self.complain(f"{name} worked on {trio.current_time() - end.at_s:.0f} s after the job was to be canceled")
        for one in report.held_back_examples:
            if self.had_throughout(one, report.job_id):
                self.complain(f"{name} would delete {one}, although the source had it since the job began")
        if stored["status"] == report.status == "completed":
            told = (stored["indexed_document_count"], stored["deleted_document_count"])
            if told != (report.indexed, report.deleted):
                self.complain(f"the job says {told}, the run {report.indexed} and {report.deleted}")
            limits = self.settings.deletions
            most = max(limits.documents_max, limits.share_max * len(before))
            if limits.release == "confirm" and report.deleted > most + 1 and not self.moved:
                self.complain(f"{name} deleted {report.deleted} of {len(before)} documents, and nobody was asked")
            failed = {one.document_id for one in report.failures}
            is_known = len(failed) == report.failed and None not in failed
            is_true = not self.moved and report.job_id not in self.lied_to
            self.seen["held back after a lie"] += report.job_id in self.lied_to and bool(report.held_back_deletions)
            if kind is JobType.FULL and is_known and not report.held_back_deletions and is_true:
                self.seen["completed and compared"] += 1
                await self.compare(f"{name} completed", but=failed)

    def _see(self, report: SyncReport, source: WatchedSource) -> None:
        counters, happened = report.counters, source.happened
        self.disasters["source"] += happened.listings_broken + happened.downloads_broken + happened.failures
        facts = {
            "resume": any(happened.started_from.values()) or any(one.resumed for one in report.partitions),
            "held-back deletion": report.held_back_deletions,
            "document retried": counters.retried,
            "deletion": report.deleted,
            "unchanged": report.unchanged,
            "listing broken": happened.listings_broken,
            "download broken": happened.downloads_broken,
            "download given up": counters.downloads_failed,
            "file too large": counters.downloads_too_large,
            "failure of the source": happened.failures,
            "document refused": counters.failed_at_sink,
            "id named twice": happened.repeated,
            "listing ended early": happened.cut_short,
            "empty page": happened.empty_pages,
            "huge document": any(one.padding_bytes for one in source.script.parts.values()),
            "slow download": any(one.delay_s for one in source.script.files.values()) and happened.fetched,
            "kept as partition is broken": any("are kept" in note for note in report.notes),
        }
        self.seen.update([name for name, fact in facts.items() if fact])

    # Peace

    async def _peace(self) -> None:
        """Heal everything, sync once more, and compare."""
        self.note("peace")
        self.faulty.use(ServerFaultPlan())
        self.restless = self.moved = False
        before = await self.recorder.documents()
        job = await self.calm.jobs.create(await self.calm.connectors.get(CONNECTOR))
        reports: list[SyncReport | None] = []

        async def sync() -> None:
            reports.append(await self._attempt(job.id, Script(), True, before, JobType.FULL))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync)
        (report,) = reports
        if report is None or report.status != "completed" or report.failed:
            self.complain(f"the clean sync ended with {report and (report.status, report.error, report.failed)}")
            return
        done = self.recorder.done.get(job.id)
        told = (report.indexed, report.deleted)
        carried_out = (done.indexed, done.deleted) if done else (0, 0)
        if told != carried_out:
            self.complain(f"the clean sync says {told}, and the server carried out {carried_out}")
        if report.held_back_deletions:
            confirmed = await confirm_deletions(self.calm, job.id)
            self.seen["deletions confirmed"] += 1
            if confirmed.deleted != report.held_back_deletions:
                self.complain(
                    f"{confirmed.deleted} of {report.held_back_deletions} confirmed deletions were carried out"
                )
        if left := self.memory.left_over(lambda by: by == f"worker-{self.workers}"):
            self.complain(f"the clean sync has ended, and memory is held: {left}")
        await self.compare("after the clean sync", is_clean=True)
        with suppress(NotFound):
            await self._no_leftovers(job.id)

    async def _no_leftovers(self, job_id: str) -> None:
        status, _ = await self.recorder.ask("GET", f"{JOBS}/_doc/{job_id}")
        if status != 200:
            self.complain("the record of the clean sync has vanished")
        connector = await self.calm.connectors.get(CONNECTOR)
        if connector.last_sync_status != "completed":
            self.complain(f"the connector says {connector.last_sync_status} after the clean sync")

    async def compare(self, when: str, but: Collection[str | None] = (), *, is_clean: bool = False) -> None:
        """Hold the index against the source, but for the documents that were reported as failed."""
        wanted, found = self.expected(), await self.recorder.documents()
        if not is_clean:
            # Huge documents are made huge while they are listed; in peace they are not.
            for fields in found.values():
                fields.pop("padding", None)
        for one in self._too_large():
            if found.get(one, {}).get("body") in self.texts[one]:
                del found[one]["body"]
        wanted = {one: fields for one, fields in wanted.items() if one not in but}
        found = {one: fields for one, fields in found.items() if one not in but}
        missing, strange = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        different = [one for one in sorted(wanted.keys() & found.keys()) if wanted[one] != found[one]]
        if missing or strange or different:
            first = (
                f"; {different[0]}: {_short(wanted[different[0]])} != {_short(found[different[0]])}"
                if different
                else ""
            )
            self.complain(
                f"{when}: missing {missing[:5]}, should be gone {strange[:5]}, different {different[:5]}{first}"
            )


@attrs.define(eq=False)
class _End:
    """How a worker is stopped from outside, and when that was."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    stop: trio.Event = attrs.field(factory=trio.Event)
    at_s: float | None = None
    is_request: bool = False


def _short(document: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value)[:30] for name, value in document.items()}


async def _read_text(data: bytes, _name: str | None) -> str:
    await trio.lowlevel.checkpoint()
    return data.decode()
