"""What may happen to a connector document: each function returns the next document or refuses.

The status tells how far a person has come: created, needs_configuration, configured, connected, error. Services write it after
looking at the source and at each end of a job; people move it through the API, which allows only the steps of `TRANSITIONS`.
`wire.changes(connector, next)` says what to write, guarded by the sequence number under which the connector was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from .documents import (
    SCHEDULED_AT,
    Connector,
    ConnectorStatus,
    Features,
    JobStatus,
    JobType,
    SyncJob,
    default_filtering,
)
from .ids import ConnectorId
from .indices import check_index_name
from .pausing import PAUSED, pause_of
from .refusing import TransitionRefused as TransitionRefused
from .wire import JSON, read, write

TRANSITIONS: Final[Mapping[ConnectorStatus, frozenset[ConnectorStatus]]] = {
    ConnectorStatus.CREATED: frozenset({ConnectorStatus.NEEDS_CONFIGURATION, ConnectorStatus.ERROR}),
    ConnectorStatus.NEEDS_CONFIGURATION: frozenset({ConnectorStatus.CONFIGURED}),
    ConnectorStatus.CONFIGURED: frozenset(
        {ConnectorStatus.NEEDS_CONFIGURATION, ConnectorStatus.CONNECTED, ConnectorStatus.ERROR}
    ),
    ConnectorStatus.CONNECTED: frozenset({ConnectorStatus.CONFIGURED, ConnectorStatus.ERROR}),
    ConnectorStatus.ERROR: frozenset({ConnectorStatus.CONNECTED, ConnectorStatus.CONFIGURED}),
}

HEARTBEAT: Final = timedelta(seconds=300)
CLOCK_DIFFERENCE_MAX: Final = timedelta(days=1)
"""By how much the clocks of two services may differ."""
JOB_VANISHED: Final = "JobNotFound: the document of the sync job has vanished."


def create(
    connector_id: str,
    now: datetime,
    *,
    index_name: str | None = None,
    name: str = "",
    description: str | None = None,
    service_type: str | None = None,
    language: str | None = None,
    is_native: bool = False,
) -> Connector:
    """Make a connector as Elasticsearch does. Raises `InvalidIndexName` for an index it may not have."""
    if index_name is not None:
        check_index_name(index_name, is_native=is_native)
    return Connector(
        id=ConnectorId(connector_id),
        description=description,
        filtering=(default_filtering(now),),
        index_name=index_name,
        is_native=is_native,
        language=language,
        name=name,
        service_type=service_type,
        status=ConnectorStatus.NEEDS_CONFIGURATION if is_native else ConnectorStatus.CREATED,
    )


# What people do, through the API


def change_status(connector: Connector, wanted: ConnectorStatus) -> Connector:
    """Move the status by one allowed step. Refused for all others, including a step to the same status."""
    allowed = TRANSITIONS.get(connector.status, frozenset())
    if wanted not in allowed:
        possible = ", ".join(sorted(allowed)) or "unknown to this version of Callboard"
        raise TransitionRefused(
            f"Connector {connector.id} is {connector.status.value} and cannot become {wanted.value}; "
            f"what it can become is {possible}.",
            status=connector.status.value,
            wanted=wanted.value,
        )
    return attrs.evolve(connector, status=wanted)


def configured(connector: Connector, configuration: Mapping[str, JSON]) -> Connector:
    """Save a configuration that a person has entered."""
    return attrs.evolve(connector, configuration=dict(configuration), status=ConnectorStatus.CONFIGURED)


def report_error(connector: Connector, error: str | None) -> Connector:
    """Show an error, or with None or empty text take it away, which makes the connector connected."""
    return failed(connector, error) if error else attrs.evolve(connector, error=None, status=ConnectorStatus.CONNECTED)


def change_service_type(connector: Connector, service_type: str) -> Connector:
    """Give the connector another kind of source, which asks for another configuration."""
    is_new = connector.status is ConnectorStatus.CREATED
    status = ConnectorStatus.CREATED if is_new else ConnectorStatus.NEEDS_CONFIGURATION
    return attrs.evolve(connector, service_type=service_type, status=status)


def change_index_name(connector: Connector, index_name: str | None) -> Connector:
    """Attach another index, or none. Raises `InvalidIndexName`."""
    if index_name is not None:
        check_index_name(index_name, is_native=connector.is_native)
    return attrs.evolve(connector, index_name=index_name)


def change_native(connector: Connector, is_native: bool) -> Connector:
    """Make the connector Elastic-managed or self-managed. Raises `InvalidIndexName`."""
    if is_native and connector.index_name is not None:
        check_index_name(connector.index_name, is_native=True)
    was_connected = connector.status is ConnectorStatus.CONNECTED
    status = ConnectorStatus.CONFIGURED if was_connected else connector.status
    return attrs.evolve(connector, is_native=is_native, status=status)


# What services do


def check_in(connector: Connector, now: datetime) -> Connector:
    """Say that a service looks after the connector."""
    seen = connector.last_seen
    return attrs.evolve(connector, last_seen=now if seen is None else max(seen, now))


def needs_check_in(connector: Connector, now: datetime, heartbeat: timedelta = HEARTBEAT) -> bool:
    """Tell whether the last check-in is older than the heartbeat, or lies in the future of a clock set back."""
    return connector.last_seen is None or abs(now - connector.last_seen) >= heartbeat


def connected(connector: Connector) -> Connector:
    """Say that the configuration is valid and the source answers. Refused before anybody has configured the connector."""
    if not connector.is_schedulable:
        raise TransitionRefused(
            f"Connector {connector.id} is {'deleted' if connector.deleted else connector.status.value}; "
            "only a configured connector can be connected.",
            status=connector.status.value,
            wanted=ConnectorStatus.CONNECTED.value,
        )
    return attrs.evolve(connector, status=ConnectorStatus.CONNECTED, error=None)


def failed(connector: Connector, error: str) -> Connector:
    """Say that the configuration is not valid, or that the source does not answer."""
    return attrs.evolve(connector, status=ConnectorStatus.ERROR, error=error)


def with_service_type(connector: Connector, service_type: str) -> Connector:
    """Fill in the service type that the service's settings name for a connector that has none."""
    return connector if connector.service_type else attrs.evolve(connector, service_type=service_type)


def with_features(connector: Connector, features: Mapping[str, JSON], *, overwrite: bool | None = None) -> Connector:
    """Write what the source can do: over what is there for a self-managed connector, else only what is missing.

    Features that nobody here knows are kept; older spellings are dropped when overwritten, since they would win.
    """
    present = {} if connector.features is None else write(connector.features)
    if overwrite if overwrite is not None else not connector.is_native:
        unknown = {} if connector.features is None else connector.features.unknown
        wanted = {**unknown, **features}
    else:
        wanted = _completed(present, features)
    if connector.features is not None and wanted == present:
        return connector
    return attrs.evolve(connector, features=read(Features, wanted, "The features"))


def features_document(
    *, basic_rules: bool, advanced_rules: bool, incremental_sync: bool, document_level_security: bool
) -> dict[str, JSON]:
    """Write what a source class can do in the shape of a connector's `features`."""
    return {
        "sync_rules": {"basic": {"enabled": basic_rules}, "advanced": {"enabled": advanced_rules}},
        "document_level_security": {"enabled": document_level_security},
        "incremental_sync": {"enabled": incremental_sync},
    }


def schedule_fired(connector: Connector, job_type: JobType, fire_time: datetime) -> Connector:
    """Take the fire time for this service. Refused if another service has taken it, or a later one."""
    last = connector.scheduled_at(job_type)
    if last is not None and last >= fire_time and not is_nonsense(last, fire_time):
        raise TransitionRefused(
            f"The {job_type.value} sync of connector {connector.id} at {fire_time.isoformat()} was scheduled already."
        )
    changed: dict[str, Any] = {SCHEDULED_AT[job_type]: fire_time}
    return attrs.evolve(connector, **changed)


def is_nonsense(last: datetime, now: datetime) -> bool:
    """Tell whether a fire time lies so far ahead that a wrong clock wrote it; it must not silence a schedule for years."""
    return last - now > CLOCK_DIFFERENCE_MAX


def sync_starts(connector: Connector, job_type: JobType) -> Connector:
    """Note that a job begins. Refused while a job of the same kind runs: full and incremental syncs are one kind.

    Refused with the status `paused` while somebody holds the connector.
    """
    if (pause := pause_of(connector)) is not None:
        raise TransitionRefused(f"Connector {connector.id} is {pause}. Resume it first.", status=PAUSED)
    if connector.status_of(job_type) is JobStatus.IN_PROGRESS:
        kind = "content" if job_type.is_content else "access-control"
        raise TransitionRefused(
            f"Connector {connector.id} already runs a {kind} sync.",
            status=JobStatus.IN_PROGRESS.value,
            wanted=JobStatus.IN_PROGRESS.value,
        )
    started = attrs.evolve(connector, status=ConnectorStatus.CONNECTED, error=None)
    return _noted(started, job_type, JobStatus.IN_PROGRESS, None)


def sync_ends(connector: Connector, job: SyncJob | None, now: datetime, sync_cursor: JSON = None) -> Connector:
    """Note that a job has ended or was suspended; None stands for a job whose document has vanished.

    The cursor is kept unless a content sync has completed. Refused for a job that still waits or runs.
    """
    if job is None:
        lost = attrs.evolve(failed(connector, JOB_VANISHED), last_synced=now)
        lost = _noted(lost, JobType.FULL, JobStatus.ERROR, JOB_VANISHED)
        return _noted(lost, JobType.ACCESS_CONTROL, JobStatus.ERROR, JOB_VANISHED)
    if not job.status.is_terminal and job.status is not JobStatus.SUSPENDED:
        raise TransitionRefused(f"Job {job.id} is {job.status.value}, so it has not ended.", status=job.status.value)
    error = job.error if job.status is JobStatus.ERROR else None
    status = ConnectorStatus.ERROR if job.status is JobStatus.ERROR else ConnectorStatus.CONNECTED
    ended = attrs.evolve(connector, last_synced=now, status=status, error=error)
    ended = _noted(ended, job.job_type, job.status, error)
    if job.status.is_terminal:
        ended = attrs.evolve(
            ended,
            last_indexed_document_count=job.indexed_document_count,
            last_deleted_document_count=job.deleted_document_count,
        )
    if job.status is JobStatus.COMPLETED and job.job_type.is_content:
        ended = attrs.evolve(ended, sync_cursor=sync_cursor)
    return ended


def _noted(connector: Connector, job_type: JobType, status: JobStatus, error: str | None) -> Connector:
    if job_type.is_content:
        return attrs.evolve(connector, last_sync_status=status, last_sync_error=error)
    return attrs.evolve(connector, last_access_control_sync_status=status, last_access_control_sync_error=error)


def _completed(present: Mapping[str, JSON], wanted: Mapping[str, JSON]) -> dict[str, JSON]:
    result = dict(present)
    for key, value in wanted.items():
        if result.get(key) is None:
            result[key] = value
        elif isinstance(value, Mapping) and isinstance(result[key], Mapping):
            result[key] = _completed(result[key], value)
    return result
