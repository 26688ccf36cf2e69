"""Sync jobs in Elasticsearch: made, found, claimed by exactly one worker, and ended by the worker that claimed them.

A claim is a guarded write that leaves a mark (`claim_id`) of its own in the document. Every later write of the worker first
finds that mark, so a worker that was given up for lost cannot write over the one that claimed the job after it, and a claim
whose answer was lost on the way recognises itself. The `_connector` API's own `_claim` and `_stats` look at neither state nor
version and are therefore not used: two services could both "claim" one job through them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import attrs

from ...runtime import new_id, now
from .. import jobs as transitions
from ..documents import Connector, JobStatus, JobType, SyncJob, TriggerMethod, read_job, write_job
from ..ids import ConnectorId, JobId
from ..indices import JOBS_ALIAS
from ..jobs import IDLE_AFTER, Counts, TransitionRefused
from ..wire import JSON, write_stamp
from .client import Wire
from .errors import NotSupported, TooManyRequests, Unavailable, Unreachable
from .guarded import GuardedDocuments

CLAIM_MARK = "claim_id"
"""Unmapped field of a job document; other programs ignore it and keep it."""

_OLDEST_FIRST = [{"created_at": {"order": "asc", "unmapped_type": "date"}}]
_NEWEST_FIRST = [{"created_at": {"order": "desc", "unmapped_type": "date"}}]


class Jobs:
    """`store.jobs`. Raises `StoreError`, `TransitionRefused` where the state does not allow it, `InvalidDocument`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._api = wire.target.use_connectors_api
        self.documents: GuardedDocuments[SyncJob] = GuardedDocuments(wire, JOBS_ALIAS, "Sync job", read_job, write_job)

    async def create(
        self,
        connector: Connector,
        job_type: JobType = JobType.FULL,
        trigger_method: TriggerMethod = TriggerMethod.ON_DEMAND,
    ) -> SyncJob:
        """Make a pending job for the connector as it is now. Refused without index or service type."""
        # Judged here in both modes, so that a refusal reads the same.
        job = transitions.create(
            connector, now(), job_type=job_type, trigger_method=trigger_method, job_id=JobId(new_id())
        )
        if self._api:
            try:
                return await self._create_through_api(job)
            except NotSupported:
                self._api = False
        return await self.documents.create(job.id, job)

    async def create_scheduled(self, connector: Connector, job_type: JobType, fire_time: datetime) -> SyncJob:
        """Make the one job of a fire time: its id follows from the fire time, so it is made once, by whoever tries.

        Raises `Conflict` if it was made before. Refused without index or service type.
        """
        moment = fire_time.astimezone(UTC).isoformat()
        job_id = sha256(f"{connector.id}|{job_type.value}|{moment}".encode()).hexdigest()[:32]
        job = transitions.create(
            connector, now(), job_type=job_type, trigger_method=TriggerMethod.SCHEDULED, job_id=JobId(job_id)
        )
        return await self.documents.create(job.id, job)

    async def _create_through_api(self, job: SyncJob) -> SyncJob:
        # The server chooses the id, so a second attempt could make a second job: it is sent once. If no answer comes, the
        # job is looked for, and made in the index if it is not there; a sync must neither be lost nor doubled.
        known = {found.id async for found in self._like(job)}
        body = {
            "id": job.connector.id,
            "job_type": job.job_type.value,
            "trigger_method": job.trigger_method.value,
        }
        try:
            told = await self._wire.call("POST", "/_connector/_sync_job", body, max_retries=0)
        except (Unreachable, Unavailable, TooManyRequests):
            made = [found async for found in self._like(job) if found.id not in known]
            return made[0] if made else await self.documents.create(job.id, job)
        return await self.get(told["id"])

    def _like(self, job: SyncJob) -> AsyncGenerator[SyncJob]:
        alive = [status for status in JobStatus if not status.is_terminal]
        return self.list(connector_ids=[job.connector.id], statuses=alive, job_types=[job.job_type])

    async def get(self, job_id: str) -> SyncJob:
        """Read one job as it is now. Raises `NotFound`."""
        job, _ = await self.documents.read(job_id)
        return job

    def list(
        self,
        *,
        connector_ids: Collection[str] | None = None,
        statuses: Collection[JobStatus] | None = None,
        job_types: Collection[JobType] | None = None,
        newest_first: bool = False,
    ) -> AsyncGenerator[SyncJob]:
        """Yield the jobs that match all given filters, oldest first unless asked otherwise, however many there are."""
        query = _query(connector_ids, statuses, job_types)
        return self.documents.list(query, _NEWEST_FIRST if newest_first else _OLDEST_FIRST)

    def pending(
        self, connector_ids: Collection[str], job_types: Collection[JobType] | None = None
    ) -> AsyncGenerator[SyncJob]:
        """Yield the jobs of these connectors that wait for a worker, new or suspended, oldest first."""
        return self.list(
            connector_ids=connector_ids, statuses=(JobStatus.PENDING, JobStatus.SUSPENDED), job_types=job_types
        )

    async def idle(
        self, connector_ids: Collection[str] | None, idle_after: timedelta = IDLE_AFTER
    ) -> AsyncGenerator[SyncJob]:
        """Yield the running jobs of these connectors (None: all) whose worker has not been seen for `idle_after`."""
        running = self.list(connector_ids=connector_ids, statuses=(JobStatus.IN_PROGRESS, JobStatus.CANCELING))
        async with aclosing(running):
            async for job in running:
                if transitions.is_idle(job, now(), idle_after):
                    yield job

    async def orphaned(self, all_connector_ids: Collection[str]) -> AsyncGenerator[SyncJob]:
        """Yield the running jobs of no connector at all. The ids must be all there are, not only a service's own."""
        running = self.list(statuses=(JobStatus.IN_PROGRESS, JobStatus.CANCELING))
        async with aclosing(running):
            async for job in running:
                if transitions.is_orphaned(job, all_connector_ids):
                    yield job

    async def claim(self, job_id: str, worker_hostname: str, sync_cursor: JSON = None) -> SyncJob:
        """Make a waiting job this worker's; the returned job is the proof that later writes ask for.

        However many try, one gets it; the others get `TransitionRefused`. Cancelled: it may be claimed with nobody working
        on it, until it counts as idle.
        """
        mark = new_id()
        moment = now()

        def decide(job: SyncJob) -> SyncJob:
            if _mark(job) == mark:
                return job
            claimed = transitions.claim(job, moment, worker_hostname, sync_cursor)
            return attrs.evolve(claimed, stored={**(claimed.stored or {}), CLAIM_MARK: mark})

        return await self.documents.update(job_id, decide)

    async def check_in(self, mine: SyncJob) -> SyncJob:
        """Say that the worker of this claimed job is alive. Refused if the job is not its any more."""
        return await self._write(mine, lambda job: transitions.check_in(job, now()), refresh=False)

    async def report(self, mine: SyncJob, counts: Counts, metadata: Mapping[str, Any] | None = None) -> SyncJob:
        """Put counts into the document of a claimed job, which also checks it in."""
        return await self._write(mine, lambda job: transitions.report(job, now(), counts, metadata), refresh=False)

    async def complete(
        self, mine: SyncJob, counts: Counts | None = None, metadata: Mapping[str, Any] | None = None
    ) -> SyncJob:
        """End a claimed job that has done its work. Refused once somebody asked to cancel it."""
        return await self._write(mine, lambda job: transitions.complete(job, now(), counts, metadata))

    async def fail(
        self, mine: SyncJob, error: str, counts: Counts | None = None, metadata: Mapping[str, Any] | None = None
    ) -> SyncJob:
        """End a claimed job that cannot go on."""
        return await self._write(mine, lambda job: transitions.fail(job, now(), error, counts, metadata))

    async def suspend(
        self, mine: SyncJob, counts: Counts | None = None, metadata: Mapping[str, Any] | None = None
    ) -> SyncJob:
        """Put a claimed job aside for any worker to claim. Refused once somebody asked to cancel it."""
        return await self._write(mine, lambda job: transitions.suspend(job, now(), counts, metadata))

    async def cancel(
        self, mine: SyncJob, counts: Counts | None = None, metadata: Mapping[str, Any] | None = None
    ) -> SyncJob:
        """End a claimed job whose end somebody asked for."""
        return await self._write(mine, lambda job: transitions.cancel(job, now(), counts, metadata))

    async def request_cancel(self, job_id: str) -> SyncJob:
        """Ask for the end of a job; one that no worker runs is canceled at once. Anybody may ask."""
        return await self.documents.update(job_id, lambda job: transitions.request_cancel(job, now()))

    async def fail_lost(self, job_id: str, error: str, is_lost: Callable[[SyncJob, datetime], bool]) -> SyncJob:
        """End a job that has lost its worker or connector. Judged on the document as it is when written, not as it was found."""

        def decide(job: SyncJob) -> SyncJob:
            moment = now()
            if not is_lost(job, moment):
                raise TransitionRefused(f"Job {job.id} has come back to life.", status=job.status.value)
            return transitions.fail(job, moment, error)

        return await self.documents.update(job_id, decide)

    async def delete(self, job_id: str) -> None:
        """Remove the record of one job. Raises `NotFound`."""
        await self.documents.delete(job_id)

    async def delete_of(self, connector_id: ConnectorId | str) -> int:
        """Remove the records of all jobs of a connector and return how many."""
        return await self.documents.delete_matching({"term": {"connector.id": connector_id}})

    async def delete_ended(self, before: datetime, statuses: Sequence[JobStatus] | None = None) -> int:
        """Remove the records of jobs that ended before this moment and return how many."""
        ended = statuses or [status for status in JobStatus if status.is_terminal]
        return await self.documents.delete_matching(
            {
                "bool": {
                    "filter": [
                        {"terms": {"status": [status.value for status in ended]}},
                        {"range": {"completed_at": {"lt": write_stamp(before)}}},
                    ]
                }
            }
        )

    async def _write(self, mine: SyncJob, step: Callable[[SyncJob], SyncJob], *, refresh: bool = True) -> SyncJob:
        mark = _mark(mine)
        if mark is None:
            raise TransitionRefused(f"Job {mine.id} was not claimed here, so it is not ours to write.")

        def decide(job: SyncJob) -> SyncJob:
            if not is_same_claim(mine, job):
                raise TransitionRefused(
                    f"Job {job.id} was claimed by {job.worker_hostname or 'nobody'} since.", status=job.status.value
                )
            return step(job)

        return await self.documents.update(mine.id, decide, refresh=refresh)


def is_same_claim(mine: SyncJob, stored: SyncJob) -> bool:
    """Tell whether the stored job still carries the claim of `mine`. Another service's claim keeps the mark but not the rest."""
    return (_mark(mine), mine.worker_hostname, mine.started_at) == (
        _mark(stored),
        stored.worker_hostname,
        stored.started_at,
    )


def _mark(job: SyncJob) -> str | None:
    mark = (job.stored or {}).get(CLAIM_MARK)
    return mark if isinstance(mark, str) else None


def _query(
    connector_ids: Collection[str] | None,
    statuses: Collection[JobStatus] | None,
    job_types: Collection[JobType] | None,
) -> dict[str, Any]:
    filters: list[dict[str, Any]] = []
    if connector_ids is not None:
        filters.append({"terms": {"connector.id": sorted(connector_ids)}})
    if statuses is not None:
        filters.append({"terms": {"status": sorted(status.value for status in statuses)}})
    if job_types is not None:
        filters.append({"terms": {"job_type": sorted(job_type.value for job_type in job_types)}})
    return {"bool": {"filter": filters}}
