"""What fires when, which waiting job may start, and why one does not: decided without input, output or a clock of its own."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import attrs

from ..protocol import Connector, JobStatus, JobType, SyncJob
from ..protocol.cron import InvalidCron
from ..protocol.pausing import pause_of
from ..protocol.scheduling import Fire, Missed, MissedFires, due, missed, schedules_of

ACCESS_CONTROL_LICENCE = "platinum"


@attrs.frozen(order=True)
class Planned:
    """One schedule's next fire time."""

    at: datetime
    connector_id: str
    job_type: JobType


class FirePlan:
    """All next fire times in one heap. Entries that a newer look has replaced are dropped when they come up."""

    def __init__(self) -> None:
        self._heap: list[Planned] = []
        self._valid: dict[tuple[str, JobType], datetime] = {}

    def __len__(self) -> int:
        return len(self._valid)

    def put(self, connector_id: str, job_type: JobType, at: datetime | None) -> None:
        """Set the next fire time of a schedule; None: it does not fire."""
        key = (connector_id, job_type)
        if at is None:
            self._valid.pop(key, None)
            return
        if self._valid.get(key) != at:
            self._valid[key] = at
            heapq.heappush(self._heap, Planned(at, connector_id, job_type))
        if len(self._heap) > 2 * len(self._valid) + 64:
            self._heap = [entry for entry in self._heap if self._is_valid(entry)]
            heapq.heapify(self._heap)

    def forget(self, connector_id: str) -> None:
        """Drop all fire times of a connector."""
        for job_type in JobType:
            self._valid.pop((connector_id, job_type), None)

    def next_at(self) -> datetime | None:
        """When the next schedule fires."""
        while self._heap and not self._is_valid(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0].at if self._heap else None

    def take_due(self, now: datetime) -> list[Planned]:
        """Take out everything that fires up to now, earliest first."""
        taken = []
        while (at := self.next_at()) is not None and at <= now:
            entry = heapq.heappop(self._heap)
            del self._valid[entry.connector_id, entry.job_type]
            taken.append(entry)
        return taken

    def _is_valid(self, entry: Planned) -> bool:
        return self._valid.get((entry.connector_id, entry.job_type)) == entry.at


@attrs.frozen
class Capabilities:
    """What can be synced beside full syncs: as the source class has it and the licence allows it."""

    incremental: bool = True
    access_control: bool = True


@attrs.frozen
class Look:
    """What the schedules of one connector say."""

    fires: tuple[tuple[JobType, datetime], ...] = ()
    """Jobs to be made now, in this order."""
    waits: tuple[tuple[JobType, datetime | None], ...] = ()
    problems: tuple[str, ...] = ()


def look_at(
    connector: Connector, since: datetime, now: datetime, missed: MissedFires, can: Capabilities = Capabilities()
) -> Look:
    """Decide about all schedules of a connector. `since`: up to when they were looked at before, at first the start."""
    fires: list[tuple[JobType, datetime]] = []
    waits: dict[JobType, datetime | None] = dict.fromkeys(JobType)
    problems: list[str] = []
    for job_type, schedule in schedules_of(connector, incremental=can.incremental, access_control=can.access_control):
        try:
            verdict = due(schedule, last=connector.scheduled_at(job_type), since=since, now=now, missed=missed)
        except InvalidCron as problem:
            problems.append(str(problem))
            continue
        if isinstance(verdict, Fire):
            fires.append((job_type, verdict.at))
        else:
            waits[job_type] = verdict.until
    return Look(tuple(fires), tuple(waits.items()), tuple(problems))


def missed_by(connector: Connector, until: datetime, can: Capabilities) -> list[tuple[JobType, Missed]]:
    """Find the fire times of a connector's schedules that no service was awake for, up to `until`."""
    found: list[tuple[JobType, Missed]] = []
    for job_type, schedule in schedules_of(connector, incremental=can.incremental, access_control=can.access_control):
        try:
            one = missed(schedule, last=connector.scheduled_at(job_type), until=until)
        except InvalidCron:
            continue
        if one is not None:
            found.append((job_type, one))
    return found


@attrs.frozen
class Slots:
    """How many jobs may run at once here. Content and access-control syncs never wait for each other."""

    content: int = 1
    access_control: int = 1

    def of(self, job_type: JobType) -> int:
        return self.content if job_type.is_content else self.access_control


@attrs.frozen
class Waiting:
    """One job that waits, and why."""

    job: SyncJob
    why: str


@attrs.frozen
class Offer:
    """Which jobs start now, and why the others do not."""

    start: tuple[SyncJob, ...]
    waiting: tuple[Waiting, ...]


def offer(
    pending: Iterable[SyncJob],
    connectors: Mapping[str, Connector],
    running: Collection[SyncJob],
    slots: Slots,
    *,
    licence_allows_access_control: bool = True,
    held: Mapping[str, str] | None = None,
) -> Offer:
    """Choose among waiting jobs, oldest first. `running` are the jobs of this service; `held`: job id -> why not now.

    One job of a kind per connector; who has waited longest gets the next free slot, so nobody starves.
    """
    used = Counter(job.job_type.is_content for job in running)
    busy = {(job.connector.id, job.job_type.is_content) for job in running}
    start: list[SyncJob] = []
    waiting: list[Waiting] = []
    for job in pending:
        kind = (job.connector.id, job.job_type.is_content)
        connector = connectors.get(job.connector.id)
        why = (held or {}).get(job.id) or _why_not(job, connector, kind in busy, licence_allows_access_control)
        if why is None and used[job.job_type.is_content] >= slots.of(job.job_type):
            what, key = ("content", "content") if job.job_type.is_content else ("access-control", "access_control")
            why = (
                f"All {slots.of(job.job_type)} slots for {what} syncs are taken. "
                f"It starts when one is free; `service.max_concurrent_{key}_syncs` gives more."
            )
        if why is not None:
            waiting.append(Waiting(job, why))
            continue
        start.append(job)
        used[job.job_type.is_content] += 1
        busy.add(kind)
    return Offer(tuple(start), tuple(waiting))


def _why_not(job: SyncJob, connector: Connector | None, is_busy: bool, licence_allows: bool) -> str | None:
    kind = "content" if job.job_type.is_content else "access-control"
    if connector is None:
        return "Its connector is not one that this service works on."
    if (pause := pause_of(connector)) is not None:
        return f"The connector is {pause}. Resume it, and this job starts."
    if (pause := pause_of(job)) is not None:
        return f"The job is {pause}. Resume it, and it goes on."
    if is_busy:
        return f"The connector runs another {kind} sync here; one at a time."
    if connector.status_of(job.job_type) is JobStatus.IN_PROGRESS:
        return f"The connector runs another {kind} sync, at another service or at one that has died."
    if not job.job_type.is_content:
        if not licence_allows:
            return (
                "Document-level security needs a Platinum licence or better, and the licence of Elasticsearch "
                "is not, or has expired. Renew it, or cancel this job."
            )
        if connector.features is None or not connector.features.document_level_security_enabled:
            return "Document-level security is switched off for the connector. Switch it on, or cancel this job."
    return None
