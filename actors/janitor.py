"""The janitor: jobs that nobody works on any more, and connectors that seem to run a job and do not.

A worker of Callboard is dead if its process was here and has gone, which is seen at once, also by its own successor; or if its job
has not been written for `LEASE_S` while the janitor watched. Only the janitor's own clock counts for that, so that clocks which
differ between machines never make a living worker look dead. Its jobs are suspended: whoever claims one goes on from its checkpoint.
A job that has killed its worker again and again ends with an error. Workers of other programs follow the protocol's rule, 300
seconds by the time stamps, and their jobs end with an error as the protocol has it.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from datetime import datetime
from typing import Any

import attrs
import structlog
import trio

from ..protocol import Connector, JobStatus, SyncJob, TransitionRefused
from ..protocol import jobs as transitions
from ..protocol.jobs import IDLE_AFTER, IDLE_ERROR, ORPHANED_ERROR
from ..protocol.store import NotFound, StoreError
from ..runtime import Context, Task, blocking, monotonic, now
from .journal.events import JobTakenOver
from .journal.keeping import forget_old
from .scheduler import ProblemBudget
from .service_state import ServiceState
from .worker_name import WorkerName, started_of

log = structlog.get_logger(__name__)

LEASE_S = 60.0
"""Six heartbeats of a job."""
GHOST_S = 20.0
"""So long a connector may be noted as running without a job that runs: its worker is between two writes."""
LOOK_EVERY_S_MAX = 20.0
TAKEOVERS_MAX = 3
FORGET_EVERY_S = 3600.0


@attrs.frozen
class Watched:
    """A running job as it looked when it last changed, by the janitor's own clock."""

    mark: tuple[Any, ...]
    since_s: float


class Janitor(Task):
    """One per service."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._own = WorkerName.parse(state.worker)
        self._watched: dict[str, Watched] = {}
        self._ghosts: dict[tuple[str, bool], float] = {}
        self._deleted: set[str] = set()
        """Connectors that somebody has deleted and that still have a document. Theirs is nobody's work, so any janitor looks after it."""
        self._orphans_at_s = -math.inf
        self._forgot_at_s = -math.inf
        self._budget = ProblemBudget("janitor", state)

    async def run(self, context: Context) -> None:
        """Look and clean up, for ever. Raises `TooManyProblems`."""
        while not self._state.stopping.is_set():
            try:
                await self.look()
            except StoreError as exc:
                context.log.warning("janitor.problem", why=str(exc))
                self._budget.spend(exc)
            interval_s = min(self._state.settings.service.job_cleanup_interval, LOOK_EVERY_S_MAX)
            await self._pause(interval_s)

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._state.stopping.wait()

    async def look(self) -> None:
        """Look once at all running jobs of this service's connectors, and clean up what is over."""
        own = list(self._state.connectors) or [one.connector_id for one in self._state.settings.connectors]
        looked_after = [*own, *(self._deleted - set(own))]
        listed = self._state.store.jobs.list(
            connector_ids=looked_after, statuses=(JobStatus.IN_PROGRESS, JobStatus.CANCELING)
        )
        async with aclosing(listed):
            running = [job async for job in listed]
        marks = {job.id: _mark(job) for job in running}
        self._watched = {job_id: one for job_id, one in self._watched.items() if job_id in marks}
        for job in running:
            watched = self._watched.get(job.id)
            if watched is None or watched.mark != marks[job.id]:
                watched = self._watched[job.id] = Watched(marks[job.id], monotonic())
            if job.id not in self._state.running and await self._is_lost(job, watched):
                is_deleted = job.connector.id in self._deleted and job.connector.id not in self._state.connectors
                await self._clean(job, self._end_deleted if is_deleted else self._take_over)
        await self._free_ghosts(running)
        if monotonic() - self._orphans_at_s >= self._state.settings.service.job_cleanup_interval:
            self._orphans_at_s = monotonic()
            await self._end_orphans()
        journal = self._state.settings.callboard.journal
        if journal.enabled and monotonic() - self._forgot_at_s >= FORGET_EVERY_S:
            self._forgot_at_s = monotonic()
            await forget_old(self._state.store, journal.retention_days)

    async def _is_lost(self, job: SyncJob, watched: Watched) -> bool:
        silent_s = monotonic() - watched.since_s
        worker = WorkerName.parse(job.worker_hostname)
        if worker is None:
            return silent_s >= IDLE_AFTER.total_seconds() or (silent_s >= LEASE_S and transitions.is_idle(job, now()))
        if self._own is not None and await blocking(worker.is_dead, self._own, started_of):
            return True
        # A job that claims to be ours and does not run here: its end could not be written.
        return silent_s >= LEASE_S

    async def _clean(self, job: SyncJob, act: Any) -> None:
        try:
            await act(job)
        except (TransitionRefused, NotFound) as exc:
            log.info("job.not_cleaned", job=job.id, why=str(exc))
        except StoreError as exc:
            log.warning("job.not_cleaned", job=job.id, why=str(exc))

    async def _take_over(self, found: SyncJob) -> None:
        def decide(job: SyncJob) -> SyncJob:
            if _mark(job) != _mark(found):
                raise TransitionRefused(f"Job {job.id} has come back to life.", status=job.status.value)
            return put_aside(job, now())

        store = self._state.store
        ended = await store.jobs.documents.update(found.id, decide)
        try:
            await store.connectors.sync_ends(ended.connector.id, ended)
        except NotFound:
            log.info("job.without_connector", job=ended.id)
        log.warning("job.taken_over", job=ended.id, worker=found.worker_hostname, status=ended.status.value)
        taken = JobTakenOver(previous=found.worker_hostname or "", status=ended.status.value)
        self._state.note(taken, ended.connector.id, ended.id)
        self._state.tell("job_taken_over", ended.connector.id, ended.id, f"from {found.worker_hostname or 'nobody'}")
        self._state.wake()

    async def _free_ghosts(self, running: list[SyncJob]) -> None:
        """Free connectors that are noted as running although no job of that kind does: a worker died between its writes."""
        alive = {(job.connector.id, job.job_type.is_content) for job in running}
        alive |= {(job.connector.id, job.job_type.is_content) for job in self._state.running.values()}
        ghosts = {
            (connector.id, is_content)
            for connector in self._state.connectors.values()
            for is_content, status in (
                (True, connector.last_sync_status),
                (False, connector.last_access_control_sync_status),
            )
            if status is JobStatus.IN_PROGRESS and (connector.id, is_content) not in alive
        }
        self._ghosts = {ghost: self._ghosts.get(ghost, monotonic()) for ghost in ghosts}
        for (connector_id, is_content), since_s in self._ghosts.items():
            if monotonic() - since_s < GHOST_S:
                continue

            def decide(present: Connector, is_content: bool = is_content) -> Connector:
                if is_content and present.last_sync_status is JobStatus.IN_PROGRESS:
                    return attrs.evolve(present, last_sync_status=None)
                if not is_content and present.last_access_control_sync_status is JobStatus.IN_PROGRESS:
                    return attrs.evolve(present, last_access_control_sync_status=None)
                return present

            try:
                await self._state.store.connectors.update(connector_id, decide)
            except (StoreError, TransitionRefused) as exc:
                log.warning("connector.not_freed", connector=connector_id, why=str(exc))
            else:
                log.warning("connector.freed", connector=connector_id, content=is_content)
                self._state.wake()

    async def _end_orphans(self) -> None:
        """End running jobs whose connector does not exist at all, and note those that are deleted: their workers may live still."""
        listed = self._state.store.connectors.list(include_deleted=True)
        async with aclosing(listed):
            deleted = {str(connector.id): connector.deleted async for connector in listed}
        self._deleted = {connector_id for connector_id, is_deleted in deleted.items() if is_deleted}
        known = set(deleted)
        known |= set(self._state.failing)  # exists, and cannot be read
        orphaned = self._state.store.jobs.orphaned(known)
        async with aclosing(orphaned):
            found = [job async for job in orphaned]
        for job in found:
            await self._clean(job, self._end_orphan)

    async def _end_orphan(self, job: SyncJob) -> None:
        if await self._state.store.connectors.exists(job.connector.id):
            return
        await self._state.store.jobs.fail_lost(job.id, ORPHANED_ERROR, lambda stored, _: stored.status.is_running)
        log.warning("job.orphaned", job=job.id, connector=job.connector.id)

    async def _end_deleted(self, job: SyncJob) -> None:
        """End a job that has lost its worker and whose connector was deleted: nobody would go on with it."""
        await self._state.store.jobs.fail_lost(
            job.id, ORPHANED_ERROR, lambda stored, _: stored.status.is_running and _mark(stored) == _mark(job)
        )
        log.warning("job.orphaned", job=job.id, connector=job.connector.id)


def put_aside(job: SyncJob, moment: datetime) -> SyncJob:
    """What becomes of a job that has lost its worker. Pure."""
    if job.status is JobStatus.CANCELING:
        return transitions.cancel(job, moment)
    if WorkerName.parse(job.worker_hostname) is None:
        return transitions.fail(job, moment, IDLE_ERROR)
    own: dict[str, Any] = job.metadata.get("callboard") or {}
    before = own.get("takeovers")
    takeovers = (before if isinstance(before, int) else 0) + 1
    if takeovers > TAKEOVERS_MAX:
        return transitions.fail(
            job,
            moment,
            f"JobLost: {takeovers} workers died while they ran this job. Look at the log of the last, "
            f"{job.worker_hostname}; it may need more memory.",
        )
    return transitions.suspend(job, moment, metadata={"callboard": {**own, "takeovers": takeovers}})


def _mark(job: SyncJob) -> tuple[Any, ...]:
    return (job.status, job.worker_hostname, job.started_at, job.last_seen, job.indexed_document_count)
