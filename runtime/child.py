"""One child of a supervisor: what is known of it, and one life of it from start to clean-up."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from .actor import Actor, ActorRef, Context, run_actor
from .events import Events
from .lifecycle import NORMAL, SHUTDOWN, ChildSpec, CleanUpFailed, StartFailed, StopReason
from .task import Task
from .timers import Timers
from .tree import TreeNode


@attrs.define(eq=False)
class Regroup:
    """A child is down, or is to come down, and waits to be let up again together with others."""

    is_down: trio.Event = attrs.field(factory=trio.Event)
    may_start: trio.Event = attrs.field(factory=trio.Event)
    is_settled: trio.Event = attrs.field(factory=trio.Event)
    """Its start has succeeded, or has failed."""


@attrs.define(eq=False)
class Child:
    """One slot: the child that lives in it now, and what has happened to it."""

    spec: ChildSpec
    ref: Any
    kind: str
    system: Any
    supervisor: Any
    events: Events
    first: Any
    """The child that was made to find out what it is; its first life uses it."""
    is_dynamic: bool = False
    began_s: float = attrs.field(factory=trio.current_time)
    state: str = "starting"
    since_s: float = attrs.field(factory=trio.current_time)
    restarts: int = 0
    failures: int = 0
    last_error: str | None = None
    scope: trio.CancelScope | None = None
    is_stopping: bool = False
    is_taken_down: bool = False
    """It ended with its group, not by itself."""
    regroup: Regroup | None = None
    task: Task | None = None
    """What runs now, if that is a task."""

    def become(self, state: str) -> None:
        self.state, self.since_s = state, trio.current_time()

    def cancel(self) -> None:
        """End the present life, if there is one, wherever it is."""
        if self.scope is not None:
            self.scope.cancel()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended for good."""
        ended: bool = self.ref.has_ended
        return ended

    async def wait_until_ended(self) -> None:
        """Wait until it has ended for good."""
        await self.ref.wait_until_ended()

    @property
    def is_to_end(self) -> bool:
        """It will not be started again, whatever its spec says."""
        return self.is_stopping or self.ref._end_is_wanted

    async def pause_until(self, at_s: float, event: trio.Event | None = None) -> None:
        """Wait between two lives, until a time or an event. A wish that the child should end cuts it short."""
        self.become("waiting to restart")
        if self.is_to_end:
            return
        with trio.CancelScope(deadline=at_s) as pause:
            self.ref._pause = pause
            await (trio.Event() if event is None else event).wait()
        self.ref._pause = None

    async def live(self, started: Started) -> StopReason:
        """Run from start to end. Raises only `StartFailed` if the very first start fails, or on cancellation from above."""
        made: Any = None
        was_told = False
        try:
            with trio.CancelScope() as self.scope:
                self.ref._scope = self.scope
                if self.is_to_end:
                    self.scope.cancel()
                made = self.spec.start() if self.first is None else self.first
                self.first = None
                faults = self.system.faults
                if faults is None:
                    was_told = await self._run(made, started)
                else:
                    was_told = await faults.live(self, self._run, made, started)
            was_told = was_told or self.scope.cancelled_caught
            reason = SHUTDOWN if was_told or self.is_to_end else NORMAL
        except Exception as error:  # noqa: BLE001 - a life ends here; its error is the reason
            reason = StopReason("error", error)
        except BaseException:
            await self._clean_up(made, SHUTDOWN)
            self.events.emit("stopped", self.ref.path, SHUTDOWN)
            raise
        finally:
            self.scope = self.ref._scope = None
        if reason.kind == "error":
            self.last_error = str(reason)
            self.events.emit("crashed", self.ref.path, reason)
        await self._clean_up(made, reason)
        self.events.emit("stopped", self.ref.path, reason)
        if started.is_awaited:
            self.is_stopping = True
            why = f"{self.ref.path} could not be started: {reason if reason.error else 'it was stopped before'}"
            raise StartFailed(why) from reason.error
        return reason

    async def _run(self, made: Any, started: Started) -> bool:
        if isinstance(made, Actor):
            made.context = self._context(self.ref, Timers(type(made).handlers))
            if self.system.faults is not None:
                self.system.faults.stand_in(made, self.ref.path)
            return await run_actor(made, self.ref, started)
        if isinstance(made, Task):
            started.started()
            context = self._context(None, Timers(()))
            telemetry = self.system.telemetry
            self.task = made
            try:
                await (made.run(context) if telemetry is None else telemetry.run(made, context))
            finally:
                self.task = None
            return False
        self.ref._begin(made)
        await self.ref.run(started)
        return False

    def _context(self, ref: Any, timers: Timers) -> Context:
        return Context(self.spec.name, self.ref.path, self.system, ref, self.supervisor, timers)

    async def _clean_up(self, made: Any, reason: StopReason) -> None:
        if not isinstance(made, Actor):
            return
        self.become("stopping")
        problem: Exception | None = None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self.spec.shutdown_s) as scope:
            try:
                telemetry = self.system.telemetry
                await (made.stopping(reason) if telemetry is None else telemetry.stop(made, self.ref, reason))
            except Exception as error:  # noqa: BLE001 - an actor ends here; what its clean-up raised is recorded
                problem = error
        if scope.cancelled_caught:
            problem = CleanUpFailed(f"stopping took longer than {self.spec.shutdown_s:g} s and was cancelled")
        if problem is not None:
            self.last_error = f"while stopping: {type(problem).__name__}: {problem}"
            self.events.emit("crashed", self.ref.path, StopReason("error", problem))

    def node(self) -> TreeNode:
        """What there is to see of it now."""
        actor = self.ref if isinstance(self.ref, ActorRef) else None
        children = self.ref.tree() if hasattr(self.ref, "tree") else self.task.parts() if self.task else ()
        now_s = trio.current_time()
        return TreeNode(
            name=self.spec.name,
            kind=self.kind,
            state=self.state,
            since_s=now_s - self.since_s,
            age_s=now_s - self.began_s,
            restarts=self.restarts,
            waiting=len(actor._mailbox.data) if actor else 0,
            waiting_peak=actor._mailbox.peak if actor else 0,
            processed=actor.processed if actor else 0,
            busy_s=actor.busy_s if actor else 0.0,
            last_error=self.last_error,
            children=tuple(children),
        )


class Started:
    """Tells whoever waits for it that a child has started, and then forgets them: what Trio starts a task by is heavy."""

    __slots__ = ("_child", "_status")

    def __init__(self, child: Child, status: trio.TaskStatus[None] | None = None) -> None:
        self._child, self._status = child, status

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the very first start still."""
        return self._status is not None

    def started(self, value: None = None) -> None:
        child = self._child
        status, self._status = self._status, None
        child.become("running")
        child.events.emit("started", child.ref.path)
        if child.regroup is not None and child.regroup.may_start.is_set():
            child.regroup.is_settled.set()
            child.regroup = None
        if status is not None:
            status.started(value)


def wants_restart(spec: ChildSpec, reason: StopReason) -> bool:
    """Whether a child that ended so is started again by the rules of its spec."""
    return spec.restart == "permanent" or (spec.restart == "transient" and reason.kind == "error")
