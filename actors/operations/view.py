"""What the page, `callboard top` and scripts see of a running service, as plain JSON data. Only reads."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import attrs

from ...protocol import Connector
from ...protocol.pausing import pause_of
from ...runtime import TreeNode, now
from ..service_state import ServiceState

PARTITIONS_SHOWN = 100
Health: TypeAlias = Literal["ok", "failing", "paused", "unconfigured"]
HEALTHS: tuple[Health, ...] = get_args(Health)


def overview(state: ServiceState) -> dict[str, Any]:
    """Connectors with their health and syncs, running jobs with live progress, jobs that wait."""
    return {
        "at": now().isoformat(),
        "worker": state.worker,
        "rehearsal": state.rehearsal,
        "connectors": [connector_view(state, connector_id) for connector_id in sorted(state.connectors)],
        "jobs": [job_view(state, job_id) for job_id in list(state.running)],
        "waiting": [
            {"id": job_id, "connector_id": waiting.job.connector.id, "why": waiting.why}
            for job_id, waiting in state.waiting.items()
        ],
    }


def connector_view(state: ServiceState, connector_id: str) -> dict[str, Any]:
    """One connector. Raises `KeyError` if this service does not look after it."""
    connector = state.connectors[connector_id]
    failing = state.failing.get(connector_id)
    pause = pause_of(connector)
    return {
        "id": connector.id,
        "name": connector.name,
        "service_type": connector.service_type,
        "index": connector.index_name,
        "status": connector.status.value,
        "health": health_of(state, connector),
        "why": failing or connector.error,
        "paused": None if pause is None else str(pause),
        "last_synced": connector.last_synced.isoformat() if connector.last_synced else None,
        "last_sync_status": connector.last_sync_status.value if connector.last_sync_status else None,
        "next_sync": _next_sync(connector),
        "why_not_scheduled": state.unfired.get(connector_id),
        "running": [job.id for job in state.running.values() if job.connector.id == connector_id],
    }


def health_of(state: ServiceState, connector: Connector) -> Health:
    """What of a connector an operator has to know first."""
    if pause_of(connector) is not None:
        return "paused"
    if connector.id in state.failing or connector.error:
        return "failing"
    return "ok" if connector.is_schedulable else "unconfigured"


def _next_sync(connector: Connector) -> str | None:
    from ...protocol.scheduling import MissedFires
    from ..schedule_plan import look_at

    if pause_of(connector) is not None:
        return None
    waits = [until for _, until in look_at(connector, now(), now(), MissedFires.SKIP).waits if until is not None]
    return min(waits).isoformat() if waits else None


def job_view(state: ServiceState, job_id: str) -> dict[str, Any]:
    """One running job with its progress. Raises `KeyError` if it does not run here."""
    job = state.running[job_id]
    seen: dict[str, Any] = {
        "id": job.id,
        "connector_id": job.connector.id,
        "index": job.connector.index_name,
        "job_type": job.job_type.value,
        "progress": None,
        "partitions": [],
    }
    run = state.teller.runs.get(job_id)
    if run is not None:
        seen["progress"] = attrs.asdict(run.progress())
        seen["partitions"] = [attrs.asdict(one) for one in run.report("completed").partitions[:PARTITIONS_SHOWN]]
    return seen


def tree_view(node: TreeNode) -> dict[str, Any]:
    """The live tree of actors."""
    return attrs.asdict(node)
