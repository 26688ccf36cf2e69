"""Whether a person has paused a connector or a job: written into its document, so that every service sees it and restarts keep it.

It stands in a field of our own, `callboard.paused`, which Elasticsearch, Kibana and services of other makers leave as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from .documents import Connector, SyncJob
from .refusing import TransitionRefused
from .wire import JSON, read_stamp, write_stamp

FIELD: Final = "callboard"
PAUSED: Final = "paused"


@attrs.frozen(kw_only=True)
class Pause:
    """Who holds a connector or a job, and since when."""

    since: datetime | None
    """None if what is written cannot be read."""
    by: str
    """Where it was asked for, such as `the command line`."""
    why: str = ""

    def __str__(self) -> str:
        since = f" since {self.since:%Y-%m-%d %H:%M} UTC" if self.since is not None else ""
        by = f", by {self.by}" if self.by else ""
        return f"paused{since}{by}{f': {self.why}' if self.why else ''}"

    def _written(self) -> dict[str, JSON]:
        return {"since": write_stamp(self.since) if self.since else None, "by": self.by, "why": self.why}


def pause_of(document: Connector | SyncJob) -> Pause | None:
    """Say who has paused it; None if nobody has. Something that cannot be read counts as a pause: better held than run unasked."""
    own = document.callboard if isinstance(document, Connector) else document.metadata.get(FIELD)
    found = own.get(PAUSED) if isinstance(own, Mapping) else None
    if found is None or found is False:
        return None
    facts: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    try:
        since = read_stamp(facts["since"])
    except (KeyError, ValueError):
        since = None
    return Pause(since=since, by=str(facts.get("by") or ""), why=str(facts.get("why") or ""))


def pause_connector(connector: Connector, now: datetime, by: str, why: str = "") -> Connector:
    """Hold all syncs of a connector. Refused if somebody holds them already."""
    if (present := pause_of(connector)) is not None:
        raise TransitionRefused(f"Connector {connector.id} is {present} already.", status=PAUSED, wanted=PAUSED)
    return attrs.evolve(connector, callboard=_with(connector.callboard, Pause(since=now, by=by, why=why)))


def resume_connector(connector: Connector) -> Connector:
    """Let a connector sync again. Refused if it is not paused."""
    if pause_of(connector) is None:
        raise TransitionRefused(f"Connector {connector.id} is not paused.", status=connector.status.value)
    return attrs.evolve(connector, callboard=_with(connector.callboard, None))


def pause_job(job: SyncJob, now: datetime, by: str) -> SyncJob:
    """Hold one job that waits or is suspended. Refused for one that runs or is over: suspend it first."""
    if not job.status.may_be_claimed:
        raise TransitionRefused(
            f"Job {job.id} is {job.status.value}, so it cannot be held.", status=job.status.value, wanted=PAUSED
        )
    return _with_pause(job, Pause(since=now, by=by))


def resume_job(job: SyncJob) -> SyncJob:
    """Let a job begin or go on. Refused if it is not paused."""
    if pause_of(job) is None:
        raise TransitionRefused(f"Job {job.id} is not paused.", status=job.status.value)
    return _with_pause(job, None)


def _with_pause(job: SyncJob, pause: Pause | None) -> SyncJob:
    return attrs.evolve(job, metadata={**job.metadata, FIELD: _with(job.metadata.get(FIELD), pause)})


def _with(own: JSON, pause: Pause | None) -> dict[str, JSON]:
    # Null and not absent: an update that merges objects cannot take a key away.
    return {**(own if isinstance(own, Mapping) else {}), PAUSED: None if pause is None else pause._written()}
