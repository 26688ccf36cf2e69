"""What may happen to a sync job: each function returns the next document or refuses.

    (made) ─> pending ──────────┬─> in_progress ─┬─> completed
                 │   suspended ─┘       │        ├─> error
                 │       │  ^           │        └─> suspended
                 │       │  └───────────┤
                 v       v              v
                 canceled <──────── canceling ───> error

`wire.changes(job, next)` then says what to write. Every write is guarded by the sequence number under which the job was read;
after a conflict the job is read again and the transition tried again, which may now refuse.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from .documents import (
    STRAY_CURSOR,
    Connector,
    JobConnector,
    JobStatus,
    JobType,
    SyncJob,
    TriggerMethod,
)
from .ids import JobId
from .indices import acl_index
from .pausing import PAUSED, pause_of
from .refusing import TransitionRefused as TransitionRefused
from .wire import JSON

TRANSITIONS: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.PENDING: frozenset({JobStatus.IN_PROGRESS, JobStatus.CANCELED}),
    JobStatus.IN_PROGRESS: frozenset({JobStatus.CANCELING, JobStatus.COMPLETED, JobStatus.ERROR, JobStatus.SUSPENDED}),
    JobStatus.SUSPENDED: frozenset({JobStatus.IN_PROGRESS, JobStatus.CANCELED}),
    JobStatus.CANCELING: frozenset({JobStatus.CANCELED, JobStatus.ERROR}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.CANCELED: frozenset(),
    JobStatus.ERROR: frozenset(),
}

IDLE_AFTER: Final = timedelta(seconds=300)
"""A running job that nobody has seen for so long has lost its worker."""

IDLE_ERROR: Final = "JobIdle: no worker has reported on this job for a while. It is over; the next sync starts anew."
ORPHANED_ERROR: Final = "JobOrphaned: the connector of this job does not exist any more."

_MIB: Final = 1024 * 1024


@attrs.frozen
class Counts:
    """What a job has done so far."""

    indexed: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    deleted: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    size_bytes: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Sent to Elasticsearch; stored as rounded MiB."""
    total: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0)))
    """Documents in the content index, if counted."""


def create(
    connector: Connector,
    now: datetime,
    *,
    job_type: JobType = JobType.FULL,
    trigger_method: TriggerMethod = TriggerMethod.ON_DEMAND,
    job_id: JobId = JobId(""),  # noqa: B008 - a NewType of a constant
) -> SyncJob:
    """Make a pending job that remembers its connector as it is now.

    Refused for a deleted connector, and for one without an index or a service type.
    """
    if connector.deleted:
        raise TransitionRefused(f"Connector {connector.id} is deleted, so nothing can be synced. Restore it first.")
    if not connector.index_name:
        raise TransitionRefused(f"Connector {connector.id} has no index to sync to. Attach an index to it.")
    if not connector.service_type:
        raise TransitionRefused(f"Connector {connector.id} has no service type. Set the kind of its source.")
    snapshot = JobConnector(
        id=connector.id,
        configuration=connector.configuration,
        filtering=connector.rules.active,
        index_name=connector.index_name if job_type.is_content else acl_index(connector.index_name),
        language=connector.language,
        pipeline=connector.pipeline,
        service_type=connector.service_type,
    )
    return SyncJob(
        id=job_id,
        connector=snapshot,
        created_at=now,
        job_type=job_type,
        last_seen=now,
        total_document_count=0,
        trigger_method=trigger_method,
    )


def claim(job: SyncJob, now: datetime, worker_hostname: str, sync_cursor: JSON = None) -> SyncJob:
    """Make a pending or suspended job this worker's. Only pass a cursor for an incremental sync.

    Counts of an earlier, suspended run are kept: who goes on from a checkpoint goes on counting.
    """
    if not worker_hostname:
        raise TransitionRefused("A job can only be claimed by a worker with a host name.")
    if (pause := pause_of(job)) is not None:
        raise TransitionRefused(f"Job {job.id} is {pause}. Resume it first.", status=PAUSED)
    claimed = _step(
        job, JobStatus.IN_PROGRESS, error=None, last_seen=now, started_at=now, worker_hostname=worker_hostname
    )
    if sync_cursor is not None:
        claimed = attrs.evolve(claimed, connector=attrs.evolve(claimed.connector, sync_cursor=sync_cursor))
    return _without_stray_cursor(claimed)


def check_in(job: SyncJob, now: datetime) -> SyncJob:
    """Say that the worker of a running job is alive."""
    return attrs.evolve(_running(job, "check in"), last_seen=_later(job.last_seen, now))


def report(job: SyncJob, now: datetime, counts: Counts, metadata: Mapping[str, Any] | None = None) -> SyncJob:
    """Put the counts of a running job into its document, which also checks it in. Metadata is merged key by key."""
    return _counted(check_in(job, now), counts, metadata)


def complete(
    job: SyncJob, now: datetime, counts: Counts | None = None, metadata: Mapping[str, Any] | None = None
) -> SyncJob:
    """End a job that has done its work. Refused once somebody has asked to cancel it."""
    return _counted(_step(job, JobStatus.COMPLETED, completed_at=now, last_seen=now, error=None), counts, metadata)


def fail(
    job: SyncJob,
    now: datetime,
    error: str,
    counts: Counts | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> SyncJob:
    """End a running job that cannot go on. The error is the text people see: `ClassName: what happened`."""
    return _counted(_step(job, JobStatus.ERROR, completed_at=now, last_seen=now, error=error), counts, metadata)


def suspend(
    job: SyncJob, now: datetime, counts: Counts | None = None, metadata: Mapping[str, Any] | None = None
) -> SyncJob:
    """Put a job aside so that any worker can claim it again. Refused once somebody has asked to cancel it."""
    return _counted(_step(job, JobStatus.SUSPENDED, last_seen=now, error=None), counts, metadata)


def request_cancel(job: SyncJob, now: datetime) -> SyncJob:
    """Ask for the end of a job. One that no worker runs is canceled at once."""
    if job.status.may_be_claimed:
        return _step(job, JobStatus.CANCELED, cancelation_requested_at=now, canceled_at=now, completed_at=now)
    return _step(job, JobStatus.CANCELING, cancelation_requested_at=now)


def cancel(
    job: SyncJob, now: datetime, counts: Counts | None = None, metadata: Mapping[str, Any] | None = None
) -> SyncJob:
    """End a job whose end somebody has asked for, after its worker has stopped."""
    if job.status is not JobStatus.CANCELING:
        raise _refusal(job, JobStatus.CANCELED)
    canceled = _step(job, JobStatus.CANCELED, canceled_at=now, completed_at=now, last_seen=now, error=None)
    return _counted(canceled, counts, metadata)


@attrs.frozen
class GoOn:
    """The job is still this worker's."""


@attrs.frozen
class Cancel:
    """Somebody has asked for the end of the job."""


@attrs.frozen
class Stop:
    """The job is not this worker's any more: stop at once, and leave the document as it is."""

    why: str


def judge(mine: SyncJob, stored: SyncJob | None) -> GoOn | Cancel | Stop:
    """Compare the job as this worker claimed it with the job as it is stored now, and say what the worker has to do."""
    if stored is None:
        return Stop(f"The document of job {mine.id} has vanished.")
    if (stored.worker_hostname, stored.started_at) != (mine.worker_hostname, mine.started_at):
        return Stop(f"Job {mine.id} was claimed by {stored.worker_hostname or 'nobody'}.")
    match stored.status:
        case JobStatus.IN_PROGRESS:
            return GoOn()
        case JobStatus.CANCELING:
            return Cancel()
        case status:
            return Stop(f"Job {mine.id} is {status.value}, although it was running here.")


def is_idle(job: SyncJob, now: datetime, idle_after: timedelta = IDLE_AFTER) -> bool:
    """Tell whether a running job has lost its worker. One that never was seen counts from its start or creation."""
    seen = job.last_seen or job.started_at or job.created_at
    return job.status.is_running and (seen is None or now - seen >= idle_after)


def is_orphaned(job: SyncJob, connector_ids: Container[str]) -> bool:
    """Tell whether a running job belongs to none of these connectors, which must be all there are."""
    return job.status.is_running and job.connector.id not in connector_ids


def _step(job: SyncJob, wanted: JobStatus, **fields: Any) -> SyncJob:
    if wanted not in TRANSITIONS.get(job.status, frozenset()):
        raise _refusal(job, wanted)
    return attrs.evolve(job, status=wanted, **fields)


def _running(job: SyncJob, what: str) -> SyncJob:
    if not job.status.is_running:
        raise TransitionRefused(
            f"Job {job.id} is {job.status.value}; only a running job can {what}.", status=job.status.value
        )
    return job


def _refusal(job: SyncJob, wanted: JobStatus) -> TransitionRefused:
    if job.status not in TRANSITIONS:
        possible = "unknown to this version of Callboard; a newer one may know"
    else:
        possible = ", ".join(sorted(TRANSITIONS[job.status])) or "nothing: it is over"
    return TransitionRefused(
        f"Job {job.id} is {job.status.value} and cannot become {wanted.value}; what it can become is {possible}.",
        status=job.status.value,
        wanted=wanted.value,
    )


def _counted(job: SyncJob, counts: Counts | None, metadata: Mapping[str, Any] | None) -> SyncJob:
    if metadata:
        job = attrs.evolve(job, metadata={**job.metadata, **metadata})
    if counts is None:
        return job
    return attrs.evolve(
        job,
        indexed_document_count=counts.indexed,
        deleted_document_count=counts.deleted,
        indexed_document_volume=round(counts.size_bytes / _MIB),
        total_document_count=job.total_document_count if counts.total is None else counts.total,
    )


def _later(seen: datetime | None, now: datetime) -> datetime:
    # A clock that was set back must not make a living job look idle.
    return now if seen is None else max(seen, now)


def _without_stray_cursor(job: SyncJob) -> SyncJob:
    # Both spellings are one field to Elasticsearch; with both in a document nobody knows which one holds.
    if STRAY_CURSOR not in (job.stored or {}):
        return job
    cursor = job.sync_cursor
    kept = {key: value for key, value in (job.stored or {}).items() if key != STRAY_CURSOR}
    return attrs.evolve(job, stored=kept, connector=attrs.evolve(job.connector, sync_cursor=cursor))
