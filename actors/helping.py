"""Helping with jobs that another service runs: listing some of their partitions, for as long as there is a free slot.

Whoever runs a job owns it: it names the partitions, deletes, and writes how the job ended. Helpers only take leases on partitions
that nobody lists. They leave at once when the job is asked to end, ends, or changes hands, and when an own job needs the slot.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import aclosing
from typing import Any

import attrs
import trio

from ..protocol import JobStatus, JobType, SyncJob
from ..protocol import jobs as transitions
from ..protocol.store import NotFound, Store, StoreError
from ..runtime import ChildSpec, Context, StartFailed, Task, TreeNode, monotonic
from ..sources.source import SourceContext
from .configured import engine_settings
from .connector import JOB_SHUTDOWN_S, content_store_of, source_maker
from .job_plan import plan_of, rules_of
from .journal.events import HelpBegun, HelpEnded
from .journal.telling import tell, telling
from .secrets import hidden, secrets_of
from .service_state import ServiceState
from .sync.failing import cause
from .sync.lease_keeping import shared_jobs
from .sync.run import SyncRun

LOOK_EVERY_S = 2.0
HELP_AGAIN_S = 60.0
"""Pause after help that failed: the job itself may well go on without it."""


async def helpable_jobs(store: Store, connector_ids: Collection[str], own: Collection[str]) -> list[SyncJob]:
    """Jobs of these connectors that other services run, and that have partitions nobody lists. Raises `StoreError`."""
    running = store.jobs.list(connector_ids=connector_ids, statuses=[JobStatus.IN_PROGRESS], job_types=[JobType.FULL])
    async with aclosing(running):
        others = {str(job.id): job async for job in running if job.id not in own}
    return [others[job_id] for job_id in await shared_jobs(store, list(others))]


def help_key(job_id: str) -> str:
    """The name under which a failed help is remembered, apart from the job itself, which may run here all the same."""
    return f"help {job_id}"


class HelpDesk:
    """Gives the slots that no own job needs to jobs of other services that have partitions nobody lists."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._look_at_s = -math.inf

    @property
    def _is_open(self) -> bool:
        shares = self._state.settings.callboard.sync.share_jobs and "sync_content" in self._state.actions
        return shares and not self._state.stopping.is_set()

    def _free_slots(self) -> int:
        used = sum(job.job_type.is_content for job in self._state.running.values())
        return self._state.slots.content - used - len(self._state.helping)

    def pause_s(self) -> float:
        """Seconds until it makes sense to `offer` help again."""
        return self._look_at_s - monotonic() if self._is_open and self._free_slots() > 0 else math.inf

    def makes_room(self) -> bool:
        """Whether a slot is free for an own job; if only help has them all, one help is asked to end. That wakes the scheduler."""
        if self._free_slots() > 0:
            return True
        for _, leave in self._state.helping.values():
            if not leave.is_set():
                leave.set()
                break
        return False

    async def offer(self, context: Context) -> None:
        """Help where help is wanted, as far as there are free slots and it is time to look. Raises `StoreError`."""
        state = self._state
        if self.pause_s() > 0:
            return
        self._look_at_s = monotonic() + LOOK_EVERY_S
        for job in await helpable_jobs(state.store, list(state.connectors), {*state.running, *state.helping}):
            if self._free_slots() > 0 and help_key(job.id) not in state.held_now():
                await self._help(context, job)

    async def _help(self, context: Context, job: SyncJob) -> None:
        supervisor = context.system.root.child("connectors").child(job.connector.id)
        if supervisor is None:
            return
        leave = self._state.help_begins(job)
        try:
            await supervisor.start_child(
                ChildSpec(
                    name=f"help-{job.id}",
                    start=lambda: HelpTask(job, self._state, leave),
                    restart="temporary",
                    shutdown_s=JOB_SHUTDOWN_S,
                )
            )
        except StartFailed:
            # The connector's supervisor is being started again.
            self._state.help_ends(job)


class HelpTask(Task):
    """Helps with one job until nothing is left to take, or it has to leave. Cancelled: its leases are given back."""

    def __init__(self, job: SyncJob, state: ServiceState, leave: trio.Event) -> None:
        self._job, self._state, self._leave = job, state, leave
        self._why = "nothing was left to take"
        self._run: SyncRun | None = None

    async def run(self, context: Context) -> None:
        """List partitions. What goes wrong here ends the help, and is no fault of the job."""
        job, state = self._job, self._state
        log = context.log.bind(job=job.id, connector=job.connector.id, index=job.connector.index_name)
        try:
            with telling(state.teller, connector_id=job.connector.id, job_id=job.id):
                tell(HelpBegun())
                log.info("help.begun")
                try:
                    await self._help(log)
                except Exception as exc:  # noqa: BLE001 - help ends here; whoever runs the job goes on without it
                    self._why = hidden(_sentence(exc), secrets_of(job.connector.configuration))
                    state.hold(help_key(job.id), self._why, HELP_AGAIN_S)
                indexed = self._run.progress().indexed if self._run is not None else 0
                tell(HelpEnded(why=self._why, indexed=indexed))
                log.info("help.ended", why=self._why, indexed=indexed)
        finally:
            state.help_ends(job)

    def parts(self) -> Sequence[TreeNode]:
        """The stages of the engine."""
        return () if self._run is None else self._run.stages()

    async def _help(self, log: Any) -> None:
        job, state = self._job, self._state
        make_source = await source_maker(state, job)
        settings = engine_settings(state.settings)
        features = state.connectors[job.connector.id].features if job.connector.id in state.connectors else None
        context = SourceContext(
            log=log,
            content_size_bytes_max=settings.download_size_bytes_max,
            document_level_security=bool(features and features.document_level_security_enabled),
        )
        source = make_source(job, context)
        async with content_store_of(state, job) as content_store, trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope, settings.watch_every_s)
            nursery.start_soon(self._obey, self._leave, "an own job needs the slot", nursery.cancel_scope)
            nursery.start_soon(self._obey, state.stopping, "the service stops", nursery.cancel_scope)
            async with source.session():
                await source.validate()
                await source.ping()
                plan, _ = await plan_of(state.store, job, source, rules_of(job, source), content_store=content_store)
                plan = attrs.evolve(plan, is_helped=True, worker=state.worker)
                self._run = SyncRun(
                    content_store or state.store,
                    source,
                    plan,
                    settings,
                    extractor=state.extractor,
                    own_store=state.store,
                    budget=state.memory,
                )
                await self._run.run()
            nursery.cancel_scope.cancel()

    async def _obey(self, asked: trio.Event, why: str, scope: trio.CancelScope) -> None:
        await asked.wait()
        self._why = why
        scope.cancel()

    async def _watch(self, scope: trio.CancelScope, every_s: float) -> None:
        """Leave when the job is to end, has ended, or is run by another service than it was."""
        while True:
            await trio.sleep(every_s)
            try:
                stored: SyncJob | None = await self._state.store.jobs.get(self._job.id)
            except NotFound:
                stored = None
            except StoreError:
                # Nothing is known of the job; the leases say soon enough whether they are still ours.
                continue
            match transitions.judge(self._job, stored):
                case transitions.Cancel():
                    self._why = "somebody asked for the end of the job"
                    break
                case transitions.Stop(why=why):
                    self._why = why
                    break
        scope.cancel()


def _sentence(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return cause(exc)
