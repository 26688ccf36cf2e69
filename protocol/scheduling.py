"""Whether a connector's schedules fire, decided without a clock: the scheduler says how far it has looked and what time it is.

Many services may look at one connector. Who writes the fire time to the connector first, under its sequence number, makes the
job; `connectors.schedule_fired` refuses the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

import attrs

from .connectors import is_nonsense
from .cron import Cron, InvalidCron
from .documents import Connector, JobType, Schedule

MISSED_MAX = 1_000
"""So far missed fire times are counted."""


class MissedFires(StrEnum):
    """What happens to fire times at which no service was awake."""

    SKIP = "skip"
    """They are passed over, as the protocol has it."""
    RUN_ONCE = "run_once"
    """However many there were, the sync runs once, soon after the service is back."""


@attrs.frozen
class Fire:
    """Make a job now, for this fire time."""

    at: datetime


@attrs.frozen
class Wait:
    """Nothing to do before this time; None: it never fires again."""

    until: datetime | None


def due(
    schedule: Schedule,
    *,
    last: datetime | None,
    since: datetime,
    now: datetime,
    missed: MissedFires = MissedFires.SKIP,
) -> Fire | Wait:
    """Decide about one schedule.

    `last` is the fire time of the last scheduled job, by whichever service. `since` is up to where this scheduler has looked
    before, at first its start; fire times after it and up to `now` count. Of several the last one is taken, once: a job that
    begins now brings everything that the others would have brought. Raises `InvalidCron`.
    """
    if not schedule.enabled:
        return Wait(None)
    cron = Cron.parse(schedule.interval)
    if last is not None and is_nonsense(last, now):
        last = None
    looked = since
    if last is not None:
        looked = last if missed is MissedFires.RUN_ONCE else max(last, since)
    fire_time = cron.last_within(looked, now)
    return Wait(cron.next_after(max(looked, now))) if fire_time is None else Fire(fire_time)


@attrs.frozen
class Missed:
    """Fire times that nobody was there for."""

    count: int
    first: datetime
    last: datetime


def missed(schedule: Schedule, *, last: datetime | None, until: datetime) -> Missed | None:
    """Find the fire times after the last one that made a job and up to `until`; None if there are none, or nobody knows the last.

    Counts up to `MISSED_MAX`. Raises `InvalidCron`.
    """
    if not schedule.enabled or last is None or is_nonsense(last, until):
        return None
    cron = Cron.parse(schedule.interval)
    latest = cron.last_within(last, until)
    first = cron.next_after(last)
    if latest is None or first is None:
        return None
    count, moment = 1, first
    while moment < latest and count < MISSED_MAX:
        following = cron.next_after(moment)
        assert following is not None
        moment, count = following, count + 1
    return Missed(count, first, latest)


def schedules_of(
    connector: Connector, *, incremental: bool, access_control: bool
) -> Iterator[tuple[JobType, Schedule]]:
    """Yield the schedules that count, in the order in which their jobs should be made.

    Full syncs always count. `incremental` and `access_control` say whether the source class can, and the licence allows it;
    the connector's features must say so as well.
    """
    if not connector.is_schedulable:
        return
    features = connector.features
    for job_type in (JobType.ACCESS_CONTROL, JobType.INCREMENTAL, JobType.FULL):
        match job_type:
            case JobType.ACCESS_CONTROL:
                counts = access_control and features is not None and features.document_level_security_enabled
            case JobType.INCREMENTAL:
                counts = incremental and features is not None and features.incremental_sync_enabled
            case _:
                counts = True
        schedule = connector.scheduling.of(job_type)
        if counts and schedule.enabled:
            yield job_type, schedule


def schedule_problems(connector: Connector) -> dict[JobType, InvalidCron]:
    """Find the enabled schedules whose cron expression cannot be used."""
    problems: dict[JobType, InvalidCron] = {}
    for job_type in JobType:
        schedule = connector.scheduling.of(job_type)
        if schedule.enabled:
            try:
                Cron.parse(schedule.interval)
            except InvalidCron as reason:
                problems[job_type] = reason
    return problems
