"""What the buttons do. Each is told to the journal, and answered with the place to look next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs

from ...protocol import Connector, JobType
from ...protocol.documents import Scheduling
from ...protocol.pausing import pause_connector, pause_job, pause_of, resume_connector, resume_job
from ...protocol.store import NotFound
from ...runtime import System, now
from ..journal.service_events import PersonActed
from ..service_state import ServiceState
from ..sync.dead_letters import replay_dead_letters
from ..sync.state import confirm_deletions
from .connector_page import possible
from .reading import held_back, is_paused
from .words import KINDS, connector_path, job_path

PAGE = "the operations page"
PAUSED = "Somebody has paused it on the operations page."
PAUSED_SEEN_S = 5.0
"""So long the scheduler may offer what it had read before the pause was written."""


class Refused(Exception):
    """A button cannot do what it says; the text is for the person who pressed it."""


@attrs.frozen
class Pressed:
    """Where to go, and which notice to show there."""

    path: str
    notice: str


class Buttons:
    """Carries out what people ask for. Raises `Refused`, `NotFound`, `TransitionRefused` and `StoreError`, as each says."""

    def __init__(self, state: ServiceState, system: System) -> None:
        self._state, self._system = state, system

    async def press(self, path: list[str], form: Mapping[str, str]) -> Pressed:
        """Find the button of a path and press it. Raises `NotFound` for one that there is not."""
        match path:
            case ["connectors", connector_id, "start"]:
                return await self._start(connector_id, _job_type(form))
            case ["connectors", connector_id, "schedule"]:
                return await self._turn(connector_id, (_job_type(form),), form.get("turn") == "on")
            case ["connectors", connector_id, "pause"]:
                return await self._pause_connector(connector_id)
            case ["connectors", connector_id, "resume"]:
                return await self._resume_connector(connector_id)
            case ["connectors", connector_id, "replay"]:
                connector = await self._state.store.connectors.get(connector_id)
                if connector.index_name is None:
                    raise Refused("The connector has no index, so it has no dead letters.")
                marked = await replay_dead_letters(self._state.store, index=connector.index_name)
                self._note(f"asked for another try of {marked:,} documents", connector_id)
                return Pressed(connector_path(connector_id), "replay" if marked else "replay-none")
            case ["jobs", job_id, "replay"]:
                job = await self._state.store.jobs.get(job_id)
                marked = await replay_dead_letters(self._state.store, index=job.connector.index_name, job_id=job_id)
                self._note(f"asked for another try of {marked:,} documents", job.connector.id, job_id)
                return Pressed(job_path(job_id), "replay" if marked else "replay-none")
            case ["jobs", job_id, "cancel"]:
                return await self._cancel(job_id)
            case ["jobs", job_id, "pause"]:
                return await self._pause(job_id)
            case ["jobs", job_id, "resume"]:
                return await self._resume(job_id)
            case ["jobs", job_id, "confirm-deletions"]:
                return await self._confirm(job_id)
        raise NotFound("There is no such button.", status=404)

    async def _start(self, connector_id: str, job_type: JobType) -> Pressed:
        state = self._state
        connector = await state.store.connectors.get(connector_id)
        if not connector.is_schedulable:
            raise Refused(f"The connector is {connector.status.value}; it has to be configured first.")
        if not possible(connector, job_type):
            raise Refused(f"The source {connector.service_type} has no {KINDS[job_type.value].lower()} sync.")
        job = await state.store.jobs.create(connector, job_type)
        self._note(f"asked for a {KINDS[job_type.value].lower()} sync", connector_id, job.id)
        state.look_requested = True
        state.wake()
        return Pressed(job_path(job.id), "started")

    async def _turn(self, connector_id: str, kinds: tuple[JobType, ...], on: bool) -> Pressed:
        await self._change(
            connector_id, lambda present: attrs.evolve(present, scheduling=_switched(present.scheduling, kinds, on))
        )
        names = ", ".join(KINDS[kind.value].lower() for kind in kinds)
        self._note(f"switched {'on' if on else 'off'} the schedule ({names})", connector_id)
        return Pressed(connector_path(connector_id), "schedule-on" if on else "schedule-off")

    async def _pause_connector(self, connector_id: str) -> Pressed:
        await self._change(connector_id, lambda present: pause_connector(present, now(), PAGE))
        self._note("paused the connector", connector_id)
        return Pressed(connector_path(connector_id), "connector-paused")

    async def _resume_connector(self, connector_id: str) -> Pressed:
        await self._change(connector_id, resume_connector)
        self._note("resumed the connector", connector_id)
        return Pressed(connector_path(connector_id), "connector-resumed")

    async def _change(self, connector_id: str, decide: Callable[[Connector], Connector]) -> None:
        state = self._state
        changed = await state.store.connectors.update(connector_id, decide)
        if connector_id in state.connectors:
            state.connectors[connector_id] = changed
        state.look_requested = True
        state.wake()

    async def _cancel(self, job_id: str) -> Pressed:
        job = await self._state.store.jobs.get(job_id)
        if job.status.is_terminal:
            raise Refused(f"The job is over already: {job.status.value}.")
        await self._state.store.jobs.request_cancel(job_id)
        self._state.held.pop(job_id, None)
        self._note("asked for the end of the job", job.connector.id, job_id)
        self._state.look_requested = True
        self._state.wake()
        return Pressed(job_path(job_id), "canceled")

    async def _pause(self, job_id: str) -> Pressed:
        """Suspend a job that runs here, and keep one that waits from beginning, at every service.

        Cancelled: it may be suspended without being held.
        """
        state = self._state
        job = await state.store.jobs.get(job_id)
        if job.status.is_terminal:
            raise Refused(f"The job is over already: {job.status.value}.")
        if job_id not in state.running and not job.status.may_be_claimed:
            raise Refused(f"It runs in {job.worker_hostname or 'another service'}; pause it there.")
        state.hold(job_id, PAUSED, math.inf)
        self._note("paused the job", job.connector.id, job_id)
        keeper = self._system.find("connectors")
        supervisor = keeper.child(job.connector.id) if keeper is not None else None
        if job_id in state.running and supervisor is not None:
            await supervisor.stop_child(f"job-{job_id}")
        try:
            await state.store.jobs.documents.update(job_id, lambda present: pause_job(present, now(), PAGE))
        except BaseException:
            # Nobody but this process would know of it.
            state.held.pop(job_id, None)
            raise
        state.hold(job_id, PAUSED, PAUSED_SEEN_S)
        return Pressed(job_path(job_id), "paused")

    async def _resume(self, job_id: str) -> Pressed:
        state = self._state
        job = await state.store.jobs.get(job_id)
        if not is_paused(state, job):
            raise Refused("The job is not paused. If it waits, its page says for what.")
        if pause_of(job) is not None:
            await state.store.jobs.documents.update(job_id, resume_job)
        state.held.pop(job_id, None)
        self._note("resumed the job", job.connector.id, job_id)
        state.was_freed = True
        state.look_requested = True
        state.wake()
        return Pressed(job_path(job_id), "resumed")

    async def _confirm(self, job_id: str) -> Pressed:
        job = await self._state.store.jobs.get(job_id)
        if await held_back(self._state, job) is None:
            raise Refused(
                "This job holds no deletions back any more. A later sync may have decided anew, or somebody confirmed them."
            )
        self._note("confirmed the deletions that were held back", job.connector.id, job_id)
        await confirm_deletions(self._state.store, job_id)
        return Pressed(job_path(job_id), "confirmed")

    def _note(self, what: str, connector_id: str, job_id: str = "") -> None:
        self._state.note(PersonActed(what=what), connector_id, job_id)


def _job_type(form: Mapping[str, str]) -> JobType:
    try:
        return JobType(form.get("type", ""))
    except ValueError:
        raise Refused(f"There is no kind of sync called {form.get('type', '')!r}.") from None


def _switched(scheduling: Scheduling, kinds: tuple[JobType, ...], on: bool) -> Scheduling:
    for kind in kinds:
        schedule = attrs.evolve(scheduling.of(kind), enabled=on)
        scheduling = attrs.evolve(scheduling, **{kind.value: schedule})  # type: ignore[arg-type]
    return scheduling
