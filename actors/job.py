"""A sync job of the Connector Protocol, from claim to end: the engine's work, and two documents that tell the truth about it.

While the engine works, two tasks of their own look after the job document: one checks in and reports counts at the protocol's
interval, whatever the engine is doing, and one looks twice a second whether somebody asked for the end of the job or took it
away. However the work ends, exactly one transition is written: completed, error, canceled or suspended. A job that was taken
away is left as it is.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

import attrs
import structlog
import trio

from ..protocol import Connector, JobStatus, JobType, SyncJob, TransitionRefused
from ..protocol import connectors as connector_transitions
from ..protocol import jobs as transitions
from ..protocol.configuration import InvalidConfiguration
from ..protocol.filtering import InvalidRules
from ..protocol.jobs import Counts
from ..protocol.pausing import PAUSED
from ..protocol.store import NotFound, Store, StoreError
from ..runtime import Budget, monotonic, now
from ..sources.source import Source, SourceContext
from .job_plan import JobFailed, plan_of, rules_of, source_of
from .journal.endings import ending
from .journal.events import JobClaimed, JobLost
from .journal.telling import tell
from .secrets import hidden, secrets_of
from .sync.embedding import FAILURES
from .sync.report import Counters, ProgressEvent, Status, SyncReport
from .sync.run import SyncRun
from .sync.settings import SyncSettings

log = structlog.get_logger(__name__)

NOTE_AGE_S = 5.0
"""How long a connector must look as if it ran a job that nobody runs, until nobody is taken to be about to claim one."""
LAST_WRITES_S = 5.0
"""How long the last writes of an interrupted job may take."""

MakeSource = Callable[[SyncJob, SourceContext], Source[Any]]


@attrs.frozen
class _Outcome:
    status: Status
    error: str | None = None


@attrs.define
class _Ending:
    """Why the engine was stopped from outside, if it was."""

    by: Literal["", "cancel", "stop", "lost"] = ""
    why: str = ""


async def run_job(
    store: Store,
    job: SyncJob | str,
    *,
    make_source: MakeSource | None = None,
    content_store: Store | None = None,
    settings: SyncSettings | None = None,
    extractor: Any = None,
    budget: Budget | None = None,
    worker_hostname: str | None = None,
    stop: trio.Event | None = None,
    if_interrupted: Literal["suspend", "cancel"] = "suspend",
    on_progress: Callable[[ProgressEvent], None] | None = None,
    notes: Sequence[str] = (),
) -> SyncReport:
    """Claim a pending or suspended job, do its work, and write how it ended into the job and its connector.

    `budget` bounds the memory of all jobs that share it; by default the job has one of its own. `content_store` writes documents with the connector's own key; by default everything goes through `store`. Set `stop` to
    end the job early: it is then suspended, or canceled if `if_interrupted` says so. Cancelled: the same, within seconds.
    `notes` are sentences that the job's document and report shall carry beside their own.
    Raises `TransitionRefused` if the job cannot be claimed or its connector runs another one, and `StoreError` before the
    claim; afterwards what goes wrong is told by the report and the documents.
    """
    settings = settings or SyncSettings()
    job_id = job if isinstance(job, str) else job.id
    found = await store.jobs.get(job_id)
    before, connector = await _start(store, found)
    try:
        # A claim may take so long at a faulty server that its connector was freed meanwhile, so the jobs are asked, too.
        if await _runs_one(store, found.connector.id, found.job_type):
            raise TransitionRefused(
                f"Connector {found.connector.id} runs another job of this kind.", status=JobStatus.IN_PROGRESS.value
            )
        cursor = connector.sync_cursor if found.job_type is JobType.INCREMENTAL else None
        mine = await store.jobs.claim(job_id, worker_hostname or socket.gethostname(), cursor)
    except BaseException as exc:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WRITES_S):
            await _unstart(store, before, found.job_type, f"{type(exc).__name__}: {exc}")
        raise
    tell(
        JobClaimed(
            job_type=found.job_type.value,
            index=found.connector.index_name or "",
            goes_on=found.status is JobStatus.SUSPENDED,
        )
    )
    running = _RunningJob(
        store,
        content_store or store,
        mine,
        connector,
        goes_on=found.status is JobStatus.SUSPENDED,
        settings=settings,
        make_source=make_source or source_of,
        extractor=extractor,
        budget=budget,
        stop=stop,
        if_interrupted=if_interrupted,
        on_progress=on_progress,
        notes=notes,
    )
    return await running.run()


async def _start(store: Store, job: SyncJob) -> tuple[Connector, Connector]:
    """Note on the connector that a job begins; return the connector before and after.

    Raises `TransitionRefused` if it runs another job of that kind. A connector that is noted as running while no job of the kind
    runs is taken over: a worker has died between its two writes. It is looked at twice, because a living one may be between them.
    """
    connector_id, job_type = job.connector.id, job.job_type
    name = "last_sync_status" if job_type.is_content else "last_access_control_sync_status"
    before: list[Connector] = []
    is_ghost = False

    def starts(present: Connector) -> Connector:
        free: dict[str, Any] = {name: None}
        # Whoever was noted may have ended meanwhile: then the connector says how, and goes on saying so.
        is_busy = present.status_of(job_type) is JobStatus.IN_PROGRESS
        before[:] = [attrs.evolve(present, **free) if is_ghost and is_busy else present]
        return connector_transitions.sync_starts(before[-1], job_type)

    try:
        after = await store.connectors.update(connector_id, starts)
        return before[-1], after
    except TransitionRefused as exc:
        if exc.status == PAUSED:
            raise
        for pause_s in (0.0, NOTE_AGE_S):
            await trio.sleep(pause_s)
            if await _runs_one(store, connector_id, job_type):
                raise
    is_ghost = True
    log.warning("connector.freed", connector=connector_id, content=job_type.is_content)
    after = await store.connectors.update(connector_id, starts)
    return before[-1], after


async def _runs_one(store: Store, connector_id: str, job_type: JobType) -> bool:
    kinds = [kind for kind in JobType if kind.is_content is job_type.is_content]
    statuses = [JobStatus.IN_PROGRESS, JobStatus.CANCELING]
    running = store.jobs.list(connector_ids=[connector_id], statuses=statuses, job_types=kinds)
    async with aclosing(running):
        async for _ in running:
            return True
    return False


async def _unstart(store: Store, before: Connector, job_type: JobType, why: str) -> None:
    """Take back that a job began, after it could not be claimed: the connector says again how its last job ended."""
    prefix = "last_sync" if job_type.is_content else "last_access_control_sync"
    names = ("status", "error", f"{prefix}_status", f"{prefix}_error")

    def decide(current: Connector) -> Connector:
        if current.status_of(job_type) is not JobStatus.IN_PROGRESS:
            return current
        kept: dict[str, Any] = {name: getattr(before, name) for name in names}
        return attrs.evolve(current, **kept)

    try:
        await store.connectors.update(before.id, decide)
    except StoreError as exc:
        log.warning("job.not_unstarted", connector=before.id, why=str(exc), because=why)


class _RunningJob:
    """One claimed job. Used once."""

    def __init__(
        self,
        store: Store,
        content_store: Store,
        mine: SyncJob,
        connector: Connector,
        *,
        goes_on: bool,
        settings: SyncSettings,
        make_source: MakeSource,
        extractor: Any,
        budget: Budget | None,
        stop: trio.Event | None,
        if_interrupted: Literal["suspend", "cancel"],
        on_progress: Callable[[ProgressEvent], None] | None,
        notes: Sequence[str],
    ) -> None:
        self._store, self._content_store, self._mine, self._connector = store, content_store, mine, connector
        self._goes_on = goes_on
        self._settings, self._make_source, self._extractor = settings, make_source, extractor
        self._budget = budget
        self._stop, self._if_interrupted, self._on_progress = stop, if_interrupted, on_progress
        self._run: SyncRun | None = None
        self._ending = _Ending()
        self._started_s = monotonic()
        self._notes: tuple[str, ...] = tuple(notes)
        self._log = log.bind(job=mine.id, connector=connector.id, index=mine.connector.index_name)

    async def run(self) -> SyncReport:
        """Do the work and write the end."""
        outcome = _Outcome("error", "The job ended without saying how.")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._check_in)
                nursery.start_soon(self._watch, nursery.cancel_scope)
                if self._stop is not None:
                    nursery.start_soon(self._obey, self._stop, nursery.cancel_scope)
                outcome = await self._work()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WRITES_S):
                await self._finish(self._interrupted(group))
            raise
        if self._ending.by:
            outcome = self._interrupted(None)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WRITES_S):
                return await self._finish(outcome)
        return await self._finish(outcome)

    def _interrupted(self, group: BaseException | None) -> _Outcome:
        ending = self._ending
        if ending.by == "lost":
            return _Outcome("error", ending.why)
        if ending.by == "cancel":
            return _Outcome("canceled")
        if group is not None and not _is_cancellation(group):
            return _Outcome("error", f"{type(group).__name__}: {group}")
        return _Outcome("suspended" if self._if_interrupted == "suspend" else "canceled")

    async def _work(self) -> _Outcome:
        try:
            return await self._sync()
        except (*FAILURES, InvalidConfiguration, InvalidRules, JobFailed) as exc:
            return _Outcome("error", f"{type(exc).__name__}: {exc}")
        except BaseExceptionGroup:
            raise
        except Exception as exc:  # noqa: BLE001 - a job ends here; what ended it is written to its document
            self._log.error("job.crashed", why=f"{type(exc).__name__}: {exc}")
            return _Outcome("error", f"{type(exc).__name__}: {exc}")

    async def _sync(self) -> _Outcome:
        job, settings = self._mine, self._settings
        features = self._connector.features
        context = SourceContext(
            log=self._log,
            content_size_bytes_max=settings.download_size_bytes_max,
            document_level_security=bool(features and features.document_level_security_enabled),
        )
        source = self._make_source(job, context)
        _check_kind(job, source)
        rules = rules_of(job, source)
        async with source.session():
            if not await source.changed():
                return _Outcome("completed")
            await source.validate()
            await source.ping()
            plan, noted = await plan_of(
                self._store, job, source, rules, content_store=self._content_store, goes_on=self._goes_on
            )
            self._notes = (*self._notes, *noted)
            self._run = SyncRun(
                self._content_store,
                source,
                attrs.evolve(plan, worker=job.worker_hostname or ""),
                settings,
                extractor=self._extractor,
                on_progress=self._on_progress,
                own_store=self._store,
                budget=self._budget,
            )
            await self._run.run()
        return _Outcome("completed")

    # The document

    def _counts(self, total: int | None = None) -> Counts:
        if self._run is None:
            return Counts(total=total)
        progress = self._run.progress()
        return Counts(progress.indexed, progress.deleted, progress.size_bytes, total)

    async def _check_in(self) -> None:
        before: ProgressEvent | None = None
        while True:
            await trio.sleep(self._settings.heartbeat_every_s)
            metadata: dict[str, Any] = {}
            if self._run is not None:
                progress = self._run.progress()
                # What others have noted on the job stays: how often its workers have died, for example.
                own = self._mine.metadata.get("callboard") or {}
                metadata = {"callboard": {**own, "progress": _standing(progress, before)}}
                before = progress
            try:
                await self._store.jobs.report(self._mine, self._counts(), metadata)
            except TransitionRefused as exc:
                self._log.info("job.check_in_refused", why=exc.why)
            except StoreError as exc:
                self._log.warning("job.not_checked_in", why=str(exc))

    async def _obey(self, stop: trio.Event, scope: trio.CancelScope) -> None:
        """End the work when we are told to. A task of its own: the watch may hang on a server that answers nothing."""
        await stop.wait()
        self._ending = _Ending("stop")
        scope.cancel()

    async def _watch(self, scope: trio.CancelScope) -> None:
        """End the work when somebody asks for it, or when the job is not ours any more."""
        while True:
            await trio.sleep(self._settings.watch_every_s)
            try:
                stored: SyncJob | None = await self._store.jobs.get(self._mine.id)
            except NotFound:
                stored = None
            except StoreError as exc:
                self._log.warning("job.not_watched", why=str(exc))
                continue
            match transitions.judge(self._mine, stored):
                case transitions.Cancel():
                    self._ending = _Ending("cancel")
                    break
                case transitions.Stop(why=why):
                    self._ending = _Ending("lost", why)
                    break
        scope.cancel()

    async def _finish(self, outcome: _Outcome) -> SyncReport:
        """Write the one last transition, on the job and on the connector, and make the report."""
        # A source may quote what it was configured with; the documents and the log are for other people.
        secrets = secrets_of(self._mine.connector.configuration)
        outcome = hidden(outcome, secrets)
        report = hidden(self._report(outcome), secrets)
        if self._ending.by == "lost":
            tell(JobLost(why=outcome.error or ""))
            self._log.warning("job.lost", why=outcome.error)
            return report
        jobs, counts = self._store.jobs, self._counts(report.total)
        metadata = {"callboard": _metadata(report)}
        ended: SyncJob | None = None
        try:
            try:
                match outcome.status:
                    case "completed":
                        ended = await jobs.complete(self._mine, counts, metadata)
                    case "suspended":
                        ended = await jobs.suspend(self._mine, counts, metadata)
                    case "canceled":
                        ended = await self._cancel(counts, metadata)
                    case "error":
                        ended = await jobs.fail(self._mine, outcome.error or "", counts, metadata)
            except TransitionRefused:
                # Somebody asked for the end of the job in the last moment: it is canceled, whatever we had to say.
                ended = await jobs.cancel(self._mine, counts, metadata)
                report = attrs.evolve(report, status="canceled")
            except NotFound:
                ended = None
            await self._store.connectors.sync_ends(self._connector.id, ended, self._next_cursor(report))
        except (StoreError, TransitionRefused) as exc:
            tell(ending(attrs.evolve(report, status="error", error=f"Its end could not be written: {exc}")))
            self._log.error("job.end_not_written", status=outcome.status, why=str(exc))
            return attrs.evolve(
                report,
                status="error",
                error=report.error or f"The end of the job could not be written: {type(exc).__name__}: {exc}",
            )
        tell(ending(report))
        self._log.info("job.ended", **{key: value for key, value in report.as_json().items() if value is not None})
        return report

    async def _cancel(self, counts: Counts, metadata: dict[str, Any]) -> SyncJob:
        if self._ending.by != "cancel":
            await self._store.jobs.request_cancel(self._mine.id)
        return await self._store.jobs.cancel(self._mine, counts, metadata)

    def _next_cursor(self, report: SyncReport) -> Any:
        return report.cursor if report.cursor is not None else self._connector.sync_cursor

    def _report(self, outcome: _Outcome) -> SyncReport:
        if self._run is not None:
            report = self._run.report(outcome.status, outcome.error)
        else:
            report = SyncReport(status=outcome.status, error=outcome.error, seconds=monotonic() - self._started_s)
        return attrs.evolve(report, job_id=self._mine.id, notes=(*self._notes, *report.notes))


def _check_kind(job: SyncJob, source: Source[Any]) -> None:
    if job.job_type is JobType.INCREMENTAL and source.features.incremental == "none":
        raise JobFailed(f"The source {source.service_type!r} has no incremental sync. Run a full one.")
    if job.job_type is JobType.ACCESS_CONTROL and not source.features.document_level_security:
        raise JobFailed(f"The source {source.service_type!r} has no document-level security.")


def _metadata(report: SyncReport) -> dict[str, Any]:
    """What the job document says beyond the protocol's counts. Bounded, whatever happened."""
    return {
        "unchanged": report.unchanged,
        "failed": report.failed,
        "held_back_deletions": report.held_back_deletions,
        "held_back_examples": list(report.held_back_examples),
        "failures": [attrs.asdict(failure) for failure in report.failures],
        "partitions": [attrs.asdict(one) for one in report.partitions if one.state != "closed"][:20],
        "notes": list(report.notes),
        "counters": _counters(report.counters),
    }


def _standing(progress: ProgressEvent, before: ProgressEvent | None) -> dict[str, Any]:
    """Where a running job stands, for its document; rates are those since `before`, or since the beginning."""
    seconds = progress.seconds - (before.seconds if before is not None else 0.0)
    listed = progress.listed - (before.listed if before is not None else 0)
    size_bytes = progress.size_bytes - (before.size_bytes if before is not None else 0)
    return {
        "listed": progress.listed,
        "unchanged": progress.unchanged,
        "failed": progress.failed,
        "bytes": progress.size_bytes,
        "queued": progress.queued,
        "waiting_on": progress.waiting_on,
        "concurrency": progress.concurrency,
        "documents_per_s": round(listed / seconds, 1) if seconds > 0 else 0.0,
        "bytes_per_s": round(size_bytes / seconds) if seconds > 0 else 0,
    }


def _counters(counters: Counters) -> dict[str, Any]:
    told = attrs.asdict(counters)
    return {**told, "results": dict(counters.results)}


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_cancellation(inner) for inner in exc.exceptions)
    return isinstance(exc, trio.Cancelled | KeyboardInterrupt)


async def suspend_lost(store: Store, job_id: str) -> SyncJob:
    """Put a job aside whose worker has died, so that whoever claims it next goes on from its checkpoints.

    Raises `TransitionRefused` if its worker has been seen lately.
    """

    def decide(job: SyncJob) -> SyncJob:
        if not transitions.is_idle(job, now()):
            raise TransitionRefused(f"Job {job.id} has a living worker.", status=job.status.value)
        return transitions.suspend(job, now())

    suspended = await store.jobs.documents.update(job_id, decide)
    await store.connectors.sync_ends(suspended.connector.id, suspended)
    return suspended
