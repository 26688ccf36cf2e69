"""The scheduler: looks at connectors and waiting jobs, makes jobs of due schedules, and starts what has a free slot.

It wakes by time, at the next fire time or after `service.idling`, and whenever a slot becomes free. What it sees of a connector it
tells that connector's keeper, and never waits for it: a slow source holds nobody up.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs

from ..protocol import Connector, ConnectorStatus, JobType, SyncJob, TransitionRefused
from ..protocol import connectors as transitions
from ..protocol.documents import SCHEDULED_AT
from ..protocol.indices import CONNECTORS_ALIAS
from ..protocol.pausing import Pause, pause_of
from ..protocol.scheduling import MissedFires
from ..protocol.store import Conflict, NotFound, StoreError, Unreadable
from ..runtime import Backoff, ChildSpec, Context, StartFailed, Supervisor, Task, monotonic, now
from .connector import JOB_SHUTDOWN_S, ConnectorKeeper, JobTask, Seen
from .helping import HelpDesk
from .journal.events import JobWaits, LicenceRefused
from .journal.service_events import ConnectorPaused, ConnectorResumed, FiresMissed, ScheduleFired, ScheduleMissed
from .schedule_plan import ACCESS_CONTROL_LICENCE, Capabilities, FirePlan, Offer, look_at, missed_by, offer
from .service_state import ServiceState

LOOK_PAUSE_S_MIN = 0.05
AWAY_PAUSE_S_MAX = 60.0
READ_PENDING_EVERY_S = 1.0
"""A long queue is not read again for every slot that becomes free; claims tell what has changed meanwhile."""
TOLD_AFTER_S = 60.0
"""A job that waits for so long gets the reason into its document."""

MISSED_AFTER = timedelta(minutes=1)

FOR_EVER = Backoff(first_s=1.0, cap_s=60.0, give_up_after=2**62)
"""A connector is started again however often it fails: it must never end the service."""


class TooManyProblems(Exception):
    """A part of the service has failed more often than `service.max_errors` allows."""


@attrs.define
class ProblemBudget:
    """Counts problems of one part; beyond `max_errors` within the span it raises."""

    part: str
    state: ServiceState
    count: int = 0
    since_s: float = -math.inf

    def spend(self, problem: BaseException) -> None:
        """Count one problem. Raises `TooManyProblems` from it once there were too many."""
        service = self.state.settings.service
        if monotonic() - self.since_s > service.max_errors_span:
            self.count, self.since_s = 0, monotonic()
        self.count += 1
        if self.count > service.max_errors:
            raise TooManyProblems(
                f"The {self.part} failed {self.count} times within {service.max_errors_span:g} seconds, "
                f"at last with {type(problem).__name__}: {problem}"
            ) from problem


class Scheduler(Task):
    """One per service."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._plan = FirePlan()
        self._looked: dict[str, datetime] = {}
        self._started_at = now()
        self._paused: dict[str, Pause] = {}
        self._told_missed: set[str] = set()
        self._look_at_s = -math.inf
        self._budget = ProblemBudget("scheduler", state)
        self._away = 0
        self._unreadable: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._waits_since: dict[str, float] = {}
        self._pending: list[SyncJob] = []
        self._pending_connectors: dict[str, Connector] = {}
        self._read_again_s = -math.inf
        self._help = HelpDesk(state)

    async def run(self, context: Context) -> None:
        """Look, start, sleep, for ever. Raises `TooManyProblems`."""
        self._context, self._log = context, context.log
        self._state.store.connectors.documents.on_unreadable = self._note_unreadable
        while not self._state.stopping.is_set():
            try:
                await self._turn()
                self._away = 0
            except StoreError as exc:
                self._log.warning("scheduler.problem", why=str(exc))
                self._budget.spend(exc)
                self._away = min(self._away + 1, 10)
            except Exception as exc:  # noqa: BLE001 - counted; too many end the service
                self._log.error("scheduler.defect", why=f"{type(exc).__name__}: {exc}", exc_info=exc)
                self._budget.spend(exc)
                self._away = min(self._away + 1, 10)
            woken = await self._state.woken_within(self._pause_s())
            if woken and self._away:
                # A server that is away is not asked more often because jobs end.
                await self._state.woken_within(LOOK_PAUSE_S_MIN)

    def _pause_s(self) -> float:
        if self._away:
            return float(min(2.0**self._away, AWAY_PAUSE_S_MAX, self._state.settings.service.idling))
        pause_s = self._look_at_s - monotonic()
        fires_at = self._plan.next_at()
        if fires_at is not None:
            pause_s = min(pause_s, (fires_at - now()).total_seconds())
        if self._pending and self._state.was_freed:
            pause_s = min(pause_s, self._read_again_s - monotonic())
            self._state.was_freed = False
        pause_s = min(pause_s, self._help.pause_s())
        self._state.forget_held()
        until = [held.until_s - monotonic() for held in self._state.held.values()]
        return max(min(pause_s, *until) if until else pause_s, LOOK_PAUSE_S_MIN)

    async def _turn(self) -> None:
        if monotonic() >= self._look_at_s or self._state.look_requested:
            self._state.look_requested = False
            await self._look()
            self._state.has_looked = True
            self._look_at_s = monotonic() + self._state.settings.service.idling
        if "schedule" in self._state.actions:
            for planned in self._plan.take_due(now()):
                connector = self._state.connectors.get(planned.connector_id)
                if connector is not None:
                    await self._plan_schedules(connector)
        await self._start_jobs()
        await self._help.offer(self._context)

    # Connectors

    async def _look(self) -> None:
        service = self._state.settings.service
        ids = [one.connector_id for one in self._state.settings.connectors]
        types = service.service_types if service.worker_mode else ()
        found: dict[str, Connector] = {}
        unreadable = dict(self._unreadable)
        self._unreadable = {}
        listed = self._state.store.connectors.own(ids, types)
        async with aclosing(listed):
            async for connector in listed:
                found[connector.id] = connector
        if not found and not self._unreadable:
            # Perhaps the index itself has gone: then it is made again, and people can make connectors again.
            await self._state.store.ensure_indices()
        for connector_id in set(self._state.connectors) - set(found):
            await self._gone(connector_id)
        self._state.connectors = found
        for connector in found.values():
            self._obey_pause(connector)
        for connector_id in self._unreadable:
            if unreadable.get(connector_id) != self._unreadable[connector_id]:
                await self._show_unreadable(connector_id, self._unreadable[connector_id])
        for connector in found.values():
            await self._care_for(connector)
            if "schedule" in self._state.actions:
                await self._plan_schedules(connector)

    def _obey_pause(self, connector: Connector) -> None:
        """Suspend what runs of a connector that somebody has paused, and tell of it once."""
        pause = pause_of(connector)
        if pause is None:
            if self._paused.pop(connector.id, None) is not None:
                self._state.note(ConnectorResumed(), connector.id)
                self._log.info("connector.resumed", connector=connector.id)
                self._state.was_freed = True
                self._read_again_s = -math.inf
            return
        if self._paused.get(connector.id) != pause:
            self._paused[connector.id] = pause
            since = pause.since.isoformat() if pause.since else ""
            self._state.note(ConnectorPaused(by=pause.by, why=pause.why, since=since), connector.id)
            self._log.warning("connector.paused", connector=connector.id, by=pause.by, why=pause.why)
        supervisor = self._context.system.root.child("connectors").child(connector.id)
        for job in self._state.running.values():
            if job.connector.id != connector.id or supervisor is None:
                continue
            running = supervisor.child(f"job-{job.id}")
            if running is not None:
                # It suspends itself, and is not waited for: other connectors go on.
                running.cancel()

    async def _care_for(self, connector: Connector) -> None:
        connectors = self._context.system.find("connectors")
        keeper = self._context.system.root.child("connectors").child(connector.id)
        if keeper is None:
            state = self._state
            keeper = await connectors.start_child(
                ChildSpec(
                    name=connector.id,
                    start=lambda: Supervisor(
                        [ChildSpec(name="keeper", start=lambda: ConnectorKeeper(connector.id, state), backoff=FOR_EVER)]
                    ),
                    shutdown_s=JOB_SHUTDOWN_S,
                    backoff=FOR_EVER,
                )
            )
            self._state.tell("connector_found", connector.id)
        ref = keeper.child("keeper")
        if ref is not None and "schedule" in self._state.actions:
            ref.tell_nowait(Seen(connector))

    async def _gone(self, connector_id: str) -> None:
        """A connector was deleted, or is not ours any more: its jobs here are suspended and its actor ends."""
        if connector_id in self._unreadable:
            # It exists and cannot be read: whatever runs goes on.
            return
        self._plan.forget(connector_id)
        self._paused.pop(connector_id, None)
        self._told_missed.discard(connector_id)
        for known in (self._looked, self._state.capabilities, self._state.failing, self._state.unfired):
            known.pop(connector_id, None)
        await self._context.system.find("connectors").stop_child(connector_id)
        self._state.tell("connector_gone", connector_id)

    def _note_unreadable(self, found: Unreadable) -> None:
        self._unreadable[found.id] = str(found.error)

    async def _show_unreadable(self, connector_id: str, text: str) -> None:
        """Write the error into a document that cannot be read as a whole, beside what is wrong in it."""
        self._log.warning("connector.unreadable", connector=connector_id, why=text)
        self._state.failing[connector_id] = text
        try:
            await self._state.store.client.update(
                index=CONNECTORS_ALIAS,
                id=connector_id,
                doc={"status": ConnectorStatus.ERROR.value, "error": text},
                refresh=True,
            )
        except StoreError as exc:
            self._log.warning("connector.error_not_shown", connector=connector_id, why=str(exc))
        self._state.tell("connector_failed", connector_id, detail=text)

    # Schedules

    async def _plan_schedules(self, connector: Connector) -> None:
        moment = now()
        skips = self._state.settings.callboard.missed_schedules == "skip"
        look = look_at(
            connector,
            self._looked.get(connector.id, self._started_at),
            moment,
            MissedFires.SKIP if skips else MissedFires.RUN_ONCE,
            self._state.capabilities.get(connector.id, Capabilities()),
        )
        self._tell_missed(connector, is_caught_up=not skips)
        problem = "; ".join(look.problems)
        if problem and self._state.unfired.get(connector.id) != problem:
            self._log.warning("schedule.invalid", connector=connector.id, why=problem)
        pause = pause_of(connector)
        for job_type, until in look.waits:
            self._plan.put(connector.id, job_type, until if pause is None else None)
        if pause is not None:
            self._state.unfired[connector.id] = f"The connector is {pause}."
            if skips:
                self._looked[connector.id] = moment
            return
        why_failing = self._state.failing.get(connector.id)
        if look.fires and why_failing is not None:
            why = f"Its source cannot be used now: {why_failing}"
            if self._state.unfired.get(connector.id) != why:
                self._state.note(ScheduleMissed(job_type=look.fires[0][0].value, why=why), connector.id)
            self._state.unfired[connector.id] = why
            return
        if problem:
            self._state.unfired[connector.id] = problem
        else:
            self._state.unfired.pop(connector.id, None)
        for job_type, fire_time in look.fires:
            await self._fire(connector, job_type, fire_time)
        self._looked[connector.id] = moment

    def _tell_missed(self, connector: Connector, *, is_caught_up: bool) -> None:
        """Tell, at the first look, of fire times that came while no service ran."""
        if connector.id in self._told_missed:
            return
        self._told_missed.add(connector.id)
        # A fire time just before the start may be with another service at this moment.
        until = self._started_at - MISSED_AFTER
        can = self._state.capabilities.get(connector.id, Capabilities())
        for job_type, found in missed_by(connector, until, can):
            times = {"first": found.first.isoformat(), "last": found.last.isoformat()}
            happening = FiresMissed(job_type=job_type.value, count=found.count, is_caught_up=is_caught_up, **times)
            self._state.note(happening, connector.id)
            self._log.warning(
                "schedule.missed", connector=connector.id, kind=job_type.value, count=found.count, **times
            )

    async def _fire(self, connector: Connector, job_type: JobType, fire_time: datetime) -> None:
        """Make the job of a fire time, unless one like it waits already, and then note the fire time on the connector.

        In this order, because a service may die in between: the next one finds the fire time due, and the job under the id that
        every service gives to it. Nothing is lost and nothing is made twice.
        """
        store = self._state.store
        try:
            present = await store.connectors.get(connector.id)
            transitions.schedule_fired(present, job_type, fire_time)
            await self._make_job(present, job_type, fire_time)
            fresh = await store.connectors.schedule_fired(connector.id, job_type, fire_time)
        except (TransitionRefused, NotFound) as exc:
            # Another service has it. What it wrote is seen at the next look.
            self._log.debug("schedule.not_ours", connector=connector.id, kind=job_type.value, why=str(exc))
            fresh = attrs.evolve(connector, **_scheduled(job_type, fire_time))
        if connector.id in self._state.connectors:
            self._state.connectors[connector.id] = fresh
        again = look_at(fresh, now(), now(), MissedFires.SKIP)
        for kind, until in again.waits:
            if kind is job_type:
                self._plan.put(connector.id, kind, until)

    async def _make_job(self, connector: Connector, job_type: JobType, fire_time: datetime) -> None:
        async with aclosing(self._state.store.jobs.pending([connector.id], [job_type])) as pending:
            async for job in pending:
                joined = f"the job {job.id} of its kind waits already and stands for both"
                self._state.note(ScheduleMissed(job_type=job_type.value, why=joined), connector.id, job.id)
                self._log.info("schedule.joined", connector=connector.id, kind=job_type.value, waiting_job=job.id)
                return
        try:
            made = await self._state.store.jobs.create_scheduled(connector, job_type, fire_time)
        except Conflict:
            self._log.info(
                "schedule.made_before", connector=connector.id, kind=job_type.value, at=fire_time.isoformat()
            )
            return
        except TransitionRefused as exc:
            self._state.unfired[connector.id] = exc.why
            self._state.note(ScheduleMissed(job_type=job_type.value, why=exc.why), connector.id)
            self._log.warning("schedule.no_job", connector=connector.id, kind=job_type.value, why=exc.why)
            return
        self._log.info("schedule.fired", connector=connector.id, kind=job_type.value, job=made.id)
        late_s = max(0.0, (now() - fire_time).total_seconds())
        fired = ScheduleFired(job_type=job_type.value, fire_time=fire_time.isoformat(), late_s=late_s)
        self._state.note(fired, connector.id, made.id)
        self._state.tell("schedule_fired", connector.id, made.id, f"{job_type.value} at {fire_time.isoformat()}")

    # Jobs

    async def _start_jobs(self) -> None:
        slots = self._state.slots
        kinds = [job_type for job_type in JobType if slots.of(job_type)]
        if not kinds or not self._state.connectors:
            self._state.waiting = {}
            return
        if monotonic() >= self._read_again_s:
            await self._read_pending(kinds)
        pending = [job for job in self._pending if job.id not in self._state.running]
        if not pending:
            self._state.waiting = {}
            self._told, self._waits_since = {}, {}
            return
        offered = offer(
            pending,
            self._pending_connectors,
            list(self._state.running.values()),
            slots,
            licence_allows_access_control=await self._licence_allows(pending),
            held=self._state.held_now(),
        )
        self._state.waiting = {waiting.job.id: waiting for waiting in offered.waiting}
        for job in offered.start:
            if job.job_type.is_content and not self._help.makes_room():
                continue
            self._pending.remove(job)
            await self._start(job)
        await self._tell_waiting(offered)

    async def _read_pending(self, kinds: list[JobType]) -> None:
        listed = self._state.store.jobs.pending(list(self._state.connectors), kinds)
        async with aclosing(listed):
            self._pending = [job async for job in listed if job.id not in self._state.running]
        self._pending_connectors = await self._fresh(self._pending) if self._pending else {}
        self._read_again_s = monotonic() + (READ_PENDING_EVERY_S if self._pending else 0.0)

    async def _fresh(self, pending: list[SyncJob]) -> dict[str, Connector]:
        """The connectors of waiting jobs as they are now: who runs what may have changed since the last look."""
        wanted = {job.connector.id for job in pending} & set(self._state.connectors)
        listed = self._state.store.connectors.list(ids=wanted)
        async with aclosing(listed):
            return {connector.id: connector async for connector in listed}

    async def _licence_allows(self, pending: list[SyncJob]) -> bool:
        if all(job.job_type.is_content for job in pending):
            return True
        licence = await self._state.licence()
        return licence is None or licence.allows(ACCESS_CONTROL_LICENCE)

    async def _start(self, job: SyncJob) -> None:
        supervisor = self._context.system.root.child("connectors").child(job.connector.id)
        if supervisor is None or self._state.stopping.is_set():
            return
        self._state.job_begins(job)
        try:
            await supervisor.start_child(
                ChildSpec(
                    name=f"job-{job.id}",
                    start=lambda: JobTask(job, self._state),
                    restart="temporary",
                    shutdown_s=JOB_SHUTDOWN_S,
                )
            )
        except StartFailed as exc:
            # The connector's supervisor is being started again.
            self._state.hold(job.id, str(exc), 1.0)
            self._state.job_ends(job)

    async def _tell_waiting(self, offered: Offer) -> None:
        """Log why a job waits, once per reason, and write it into the document of one that waits long."""
        ids = {waiting.job.id for waiting in offered.waiting}
        self._told = {job_id: why for job_id, why in self._told.items() if job_id in ids}
        self._waits_since = {job_id: at_s for job_id, at_s in self._waits_since.items() if job_id in ids}
        for waiting in offered.waiting:
            job = waiting.job
            since_s = self._waits_since.setdefault(job.id, monotonic())
            is_lasting = "licence" in waiting.why or monotonic() - since_s >= TOLD_AFTER_S
            if self._told.get(job.id) == waiting.why or not is_lasting:
                continue
            self._told[job.id] = waiting.why
            waits = LicenceRefused(why=waiting.why) if "licence" in waiting.why else JobWaits(why=waiting.why)
            self._state.note(waits, job.connector.id, job.id)
            self._log.info("job.waits", job=job.id, connector=job.connector.id, why=waiting.why)
            try:
                await self._state.store.jobs.documents.update(job.id, partial(_noted, why=waiting.why))
            except (StoreError, TransitionRefused) as exc:
                self._log.debug("job.reason_not_written", job=job.id, why=str(exc))


def _noted(job: SyncJob, *, why: str) -> SyncJob:
    if not job.status.may_be_claimed:
        return job
    own: dict[str, Any] = job.metadata.get("callboard") or {}
    return attrs.evolve(job, metadata={**job.metadata, "callboard": {**own, "waiting": why}})


def _scheduled(job_type: JobType, fire_time: datetime) -> dict[str, Any]:
    return {SCHEDULED_AT[job_type]: fire_time}
