"""Supervisors start children, look after them, and stop them in reverse order.

Every child has a slot: a task in the supervisor's nursery in which its lives follow one another. Pauses before a restart are
slept there, so that a supervisor always hears. With `one_for_all` and `rest_for_one` the slot of the child that failed first
brings the others down, last one first, and lets them up again in the order in which they were declared.

A child that fails too often without a healthy run makes the supervisor fail; its own supervisor then decides. No child outlives
its supervisor, and what a child raised is never lost: it is restarted over, or raised further up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import attrs
import structlog
import trio

from .actor import Actor, ActorRef, Context, run_actor
from .events import Events
from .lifecycle import (
    NORMAL,
    SHUTDOWN,
    ChildSpec,
    NameTaken,
    RestartsExhausted,
    StartFailed,
    StopReason,
    Strategy,
)
from .seams import random
from .task import Task
from .tree import TreeNode

FOREVER: Final = float("inf")


class Supervisor:
    """Describes a supervisor: the children it starts with, and what it does when one fails.

    `auto_stop` ends it, in order, when `any` or `all` of its significant children have ended normally: the shape of a piece of
    work that is over at some time.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec] = (),
        strategy: Strategy = "one_for_one",
        auto_stop: Literal["any", "all"] | None = None,
    ) -> None:
        self.children = tuple(children)
        self.strategy = strategy
        self.auto_stop = auto_stop


class TaskRef:
    """The handle of a `Task`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reason: StopReason | None = None
        self._ended = trio.Event()
        self._scope: trio.CancelScope | None = None

    def cancel(self) -> None:
        """End the task in the middle of whatever it does."""
        if self._scope is not None:
            self._scope.cancel()

    async def monitor(self) -> StopReason:
        """Wait for the end of the task, for good, and return why it came."""
        await self._ended.wait()
        assert self.reason is not None
        return self.reason


@attrs.define(eq=False)
class _Child:
    """One slot: the child that lives in it now, and what has happened to it."""

    spec: ChildSpec
    ref: Any
    kind: str
    first: Actor | Task | Supervisor | None
    state: str = "starting"
    since_s: float = 0.0
    restarts: int = 0
    last_error: str | None = None
    scope: trio.CancelScope | None = None
    is_stopping: bool = False
    has_ended: trio.Event = attrs.field(factory=trio.Event)
    regroup: _Regroup | None = None

    def become(self, state: str) -> None:
        self.state, self.since_s = state, trio.current_time()


@attrs.define(eq=False)
class _Regroup:
    """A child is brought down with others, and waits to be let up again."""

    is_down: trio.Event = attrs.field(factory=trio.Event)
    may_start: trio.Event = attrs.field(factory=trio.Event)
    is_up: trio.Event = attrs.field(factory=trio.Event)


class SupervisorRef:
    """A running supervisor: start and stop children at it."""

    def __init__(self, path: str, spec: Supervisor, events: Events, system: Any) -> None:
        self.path = path
        self.spec = spec
        self.reason: StopReason | None = None
        self._events = events
        self._system = system
        self._children: dict[str, _Child] = {}
        self._nursery: trio.Nursery | None = None
        self._over = trio.Event()
        self._ended = trio.Event()
        self._failure: RestartsExhausted | None = None
        self._deadline_s = FOREVER
        self._significant_ended = 0

    def __repr__(self) -> str:
        return f"<SupervisorRef {self.path}: {len(self._children)} children>"

    async def start_child(self, spec: ChildSpec) -> Any:
        """Start a child and return its ref once it has started.

        Raises `StartFailed` with the child's own error as cause, and `NameTaken`. Cancelled: the child is stopped.
        """
        nursery = self._nursery
        if nursery is None or self._over.is_set():
            raise StartFailed(f"{self.path} is not running, so {spec.name} cannot be started.")
        if spec.name in self._children:
            raise NameTaken(f"{self.path} already has a child {spec.name!r}.")
        made = spec.start()
        child = _Child(spec, self._make_ref(spec, made), type(made).__name__, made)
        self._children[spec.name] = child
        await nursery.start(self._slot, child)
        return child.ref

    async def stop_child(self, name: str) -> None:
        """Stop a child and wait until it has ended; nothing if there is none of that name."""
        child = self._children.get(name)
        if child is not None:
            await self._bring_down(child, trio.current_time() + child.spec.shutdown_s)

    def child(self, name: str) -> Any:
        """The ref of a child, or None."""
        child = self._children.get(name)
        return None if child is None else child.ref

    async def stop(self, deadline_s: float = FOREVER) -> None:
        """Stop all children in reverse order and end. `deadline_s`: when, on Trio's clock, the last is cancelled."""
        self.stop_nowait(deadline_s)
        await self._ended.wait()

    def stop_nowait(self, deadline_s: float = FOREVER) -> None:
        """Ask the supervisor to stop."""
        self._deadline_s = min(self._deadline_s, deadline_s)
        self._over.set()

    async def monitor(self) -> StopReason:
        """Wait for the end of the supervisor and return why it came."""
        await self._ended.wait()
        assert self.reason is not None
        return self.reason

    def tree(self) -> tuple[TreeNode, ...]:
        """The children as they are now."""
        return tuple(self._node(child) for child in self._children.values())

    # The life of the supervisor itself

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until stopped. Raises `RestartsExhausted` when a child cannot be kept alive, and a first child's start error."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    for spec in self.spec.children:
                        await self.start_child(spec)
                except BaseException:
                    self._over.set()
                    nursery.cancel_scope.cancel()
                    raise
                task_status.started()
                await self._over.wait()
                for child in reversed(list(self._children.values())):
                    limit = min(self._deadline_s, trio.current_time() + child.spec.shutdown_s)
                    await self._bring_down(child, limit)
        except BaseException as error:
            self.reason = SHUTDOWN if isinstance(error, trio.Cancelled) else StopReason("error", error)
            raise
        else:
            self.reason = SHUTDOWN if self._failure is None else StopReason("error", self._failure)
        finally:
            self._ended.set()
        if self._failure is not None:
            raise self._failure

    async def _bring_down(self, child: _Child, deadline_s: float) -> None:
        child.is_stopping = True
        with trio.move_on_at(deadline_s):
            self._ask_to_end(child, deadline_s)
            await child.has_ended.wait()
            return
        if child.scope is not None:
            child.scope.cancel()
        await child.has_ended.wait()

    def _ask_to_end(self, child: _Child, deadline_s: float) -> None:
        if child.state == "waiting to restart":
            if child.scope is not None:
                child.scope.cancel()
        elif isinstance(child.ref, ActorRef):
            child.ref.stop_nowait()
        elif isinstance(child.ref, SupervisorRef):
            child.ref.stop_nowait(deadline_s)
        elif child.scope is not None:
            child.scope.cancel()

    # The slots

    async def _slot(self, child: _Child, task_status: trio.TaskStatus[None]) -> None:
        failures = 0
        status: trio.TaskStatus[None] | None = task_status
        reason = NORMAL
        try:
            while True:
                child.become("running" if status is None else "starting")
                began_s = trio.current_time()
                reason = await self._life(child, status)
                status = None
                if child.regroup is not None and not child.is_stopping:
                    await self._wait_for_group(child, child.regroup)
                    continue
                if child.is_stopping or self._over.is_set() or not _wants_restart(child.spec, reason):
                    return
                failures = 1 if trio.current_time() - began_s >= child.spec.backoff.healthy_s else failures + 1
                if failures > child.spec.backoff.give_up_after:
                    self._give_up(child, reason, failures)
                    return
                if not await self._pause_and_regroup(child, failures):
                    return
                child.restarts += 1
                self._events.emit("restarted", child.ref.path, str(reason))
        finally:
            self._end_slot(child, reason)

    async def _life(self, child: _Child, status: trio.TaskStatus[None] | None) -> StopReason:
        """Run a child from start to end. Raises only if the very first start fails, or on cancellation from above."""
        made = child.first if child.first is not None else child.spec.start()
        child.first = None
        if isinstance(child.ref, SupervisorRef) and child.ref._ended.is_set():
            child.ref.__init__(child.ref.path, made, self._events, self._system)  # type: ignore[misc]
        started = _Started(child, status, self._events)
        try:
            with trio.CancelScope() as child.scope:
                child.ref._scope = child.scope
                await self._run(child, made, started)
                reason = SHUTDOWN if child.is_stopping else NORMAL
            if child.scope.cancelled_caught:
                reason = SHUTDOWN
        except Exception as error:
            if not started.is_started and status is not None:
                child.is_stopping = True
                await self._clean_up(child, made, StopReason("error", error))
                raise StartFailed(f"{child.ref.path} could not be started: {error}") from error
            reason = StopReason("error", error)
            child.last_error = str(reason)
            self._events.emit("crashed", child.ref.path, reason)
        except BaseException:
            await self._clean_up(child, made, SHUTDOWN)
            raise
        finally:
            child.scope = None
        await self._clean_up(child, made, reason)
        self._events.emit("stopped", child.ref.path, reason)
        return reason

    async def _run(self, child: _Child, made: Actor | Task | Supervisor, started: _Started) -> None:
        if isinstance(made, Actor):
            made.context = self._context(child, child.ref)
            await run_actor(made, child.ref, started)
        elif isinstance(made, Task):
            started.started()
            await made.run(self._context(child, None))
        else:
            await child.ref.run(started)

    async def _clean_up(self, child: _Child, made: Any, reason: StopReason) -> None:
        if not isinstance(made, Actor):
            return
        child.become("stopping")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + child.spec.shutdown_s):
            try:
                await made.stopping(reason)
            except Exception as error:  # noqa: BLE001 - an actor ends here; what its clean-up raised is recorded
                child.last_error = f"while stopping: {type(error).__name__}: {error}"
                self._events.emit("crashed", child.ref.path, StopReason("error", error))

    async def _pause_and_regroup(self, child: _Child, failures: int) -> bool:
        """Sleep before a restart, with the others of the group down. Tell whether to start again."""
        down = self._affected_by(child)
        for other in reversed(down):
            other.regroup = _Regroup()
            self._ask_to_end(other, trio.current_time() + other.spec.shutdown_s)
            with trio.move_on_after(other.spec.shutdown_s):
                await other.regroup.is_down.wait()
            if not other.regroup.is_down.is_set() and other.scope is not None:
                other.scope.cancel()
                await other.regroup.is_down.wait()
        child.become("waiting to restart")
        with trio.CancelScope() as child.scope:
            await trio.sleep(child.spec.backoff.pause_s(failures, random().random()))
        child.scope = None
        self._let_up(down)
        return not (child.is_stopping or self._over.is_set())

    def _affected_by(self, child: _Child) -> list[_Child]:
        others = list(self._children.values())
        match self.spec.strategy:
            case "one_for_one":
                return []
            case "rest_for_one":
                others = others[others.index(child) + 1 :]
        return [other for other in others if other is not child and not other.is_stopping and other.regroup is None]

    def _let_up(self, down: Sequence[_Child]) -> None:
        for other in down:
            if other.regroup is not None:
                other.regroup.may_start.set()

    async def _wait_for_group(self, child: _Child, regroup: _Regroup) -> None:
        child.become("waiting to restart")
        regroup.is_down.set()
        with trio.CancelScope() as child.scope:
            await regroup.may_start.wait()
        child.scope = None
        child.regroup = None
        child.restarts += 1

    def _give_up(self, child: _Child, reason: StopReason, failures: int) -> None:
        self._failure = RestartsExhausted(f"{child.ref.path} failed {failures} times without a healthy run: {reason}")
        self._failure.__cause__ = reason.error
        self._events.emit("escalated", self.path, str(self._failure))
        self._over.set()

    def _end_slot(self, child: _Child, reason: StopReason) -> None:
        child.become("ended")
        if isinstance(child.ref, ActorRef):
            child.ref._close(reason)
        elif isinstance(child.ref, TaskRef):
            child.ref.reason = reason
            child.ref._ended.set()
        child.has_ended.set()
        if child.regroup is not None:
            child.regroup.is_down.set()
        if self._children.get(child.spec.name) is child:
            del self._children[child.spec.name]
        if child.spec.significant and not child.is_stopping:
            self._significant_ended += 1
            left = sum(other.spec.significant for other in self._children.values())
            if self.spec.auto_stop == "any" or (self.spec.auto_stop == "all" and left == 0):
                self._over.set()

    # What children and viewers are told

    def _make_ref(self, spec: ChildSpec, made: Actor | Task | Supervisor) -> Any:
        path = f"{self.path}/{spec.name}"
        if isinstance(made, Actor):
            return ActorRef(path, type(made), self._events)
        if isinstance(made, Task):
            return TaskRef(path)
        return SupervisorRef(path, made, self._events, self._system)

    def _context(self, child: _Child, ref: ActorRef[Any] | None) -> Context:
        log = structlog.get_logger().bind(actor=child.ref.path)
        return Context(child.spec.name, child.ref.path, log, self._system, ref, self)

    def _node(self, child: _Child) -> TreeNode:
        mailbox = child.ref._mailbox if isinstance(child.ref, ActorRef) else None
        return TreeNode(
            name=child.spec.name,
            kind=child.kind,
            state=child.state,
            since_s=trio.current_time() - child.since_s,
            restarts=child.restarts,
            waiting=len(mailbox.data) if mailbox else 0,
            waiting_peak=mailbox.peak if mailbox else 0,
            processed=child.ref.processed if isinstance(child.ref, ActorRef) else 0,
            last_error=child.last_error,
            children=child.ref.tree() if isinstance(child.ref, SupervisorRef) else (),
        )


class _Started:
    """Tells the starter, at the first life only, that a child has started."""

    def __init__(self, child: _Child, status: trio.TaskStatus[None] | None, events: Events) -> None:
        self._child, self._status, self._events = child, status, events
        self.is_started = False

    def started(self, value: None = None) -> None:
        self.is_started = True
        self._child.become("running")
        self._events.emit("started", self._child.ref.path)
        if self._status is not None:
            self._status.started(value)


def _wants_restart(spec: ChildSpec, reason: StopReason) -> bool:
    return spec.restart == "permanent" or (spec.restart == "transient" and reason.kind == "error")
