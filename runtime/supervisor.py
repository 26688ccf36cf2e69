"""Supervisors start children, look after them, and stop them in reverse order.

Every child has a slot: a task in the supervisor's nursery in which its lives follow one another. Pauses before a restart are
slept there, so that a supervisor always hears. With `one_for_all` and `rest_for_one` a failure opens a round: all whom it
concerns come down, last one first, sleep until the longest pause is over, and start again in the order of their first start.

A child that fails too often without a healthy run makes the supervisor fail; its own supervisor then decides. No child outlives
its supervisor, and what a child raised is never lost: it is restarted over, or raised further up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeVar, overload

import trio

from .actor import Actor, ActorRef
from .child import Child, Regroup, Started, wants_restart
from .events import Events
from .handle import Handle, TaskRef
from .lifecycle import (
    NORMAL,
    SHUTDOWN,
    ChildSpec,
    NameTaken,
    RestartsExhausted,
    RuntimeProblem,
    StartFailed,
    StopReason,
    Strategy,
)
from .seams import random
from .task import Task
from .tree import TreeNode

FOREVER: Final = float("inf")
ActorT = TypeVar("ActorT", bound=Actor)


class Supervisor:
    """Describes a supervisor: the children it starts with, and what it does when one fails.

    `auto_stop` ends it, in order, when `any` or `all` of its significant children have ended for good by themselves: the shape
    of a piece of work that is over at some time. Why each ended is told by its ref.
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


class SupervisorRef(Handle):
    """A running supervisor: start and stop children at it."""

    def __init__(self, path: str, events: Events, system: Any) -> None:
        super().__init__(path)
        self._events = events
        self._system = system
        self._begin(Supervisor())

    def _begin(self, spec: Supervisor) -> None:
        """Forget the last life."""
        self.spec = spec
        self._children: dict[str, Child] = {}
        self._nursery: trio.Nursery | None = None
        self._over = trio.Event()
        self._failure: RuntimeProblem | None = None
        self._deadline_s = FOREVER
        self._round: set[Child] = set()
        self._round_until_s = 0.0
        self._start_scope = trio.CancelScope()
        self._orderly = trio.CancelScope()

    @overload
    async def start_child(self, spec: ChildSpec[ActorT]) -> ActorRef[ActorT]: ...
    @overload
    async def start_child(self, spec: ChildSpec[Task]) -> TaskRef: ...
    @overload
    async def start_child(self, spec: ChildSpec[Supervisor]) -> SupervisorRef: ...
    @overload
    async def start_child(self, spec: ChildSpec) -> Any: ...
    async def start_child(self, spec: ChildSpec) -> Any:
        """Start a child and return its ref once it has started.

        Raises `StartFailed` with the child's own error as cause, and `NameTaken`. Cancelled: the child is stopped.
        """
        return await self._start(spec, is_dynamic=True)

    async def _start(self, spec: ChildSpec, is_dynamic: bool) -> Any:
        nursery = self._nursery
        if nursery is None or self._over.is_set():
            raise StartFailed(f"{self.path} is not running, so {spec.name} cannot be started.")
        if spec.name in self._children:
            raise NameTaken(f"{self.path} already has a child {spec.name!r}.")
        try:
            made = spec.start()
        except Exception as error:
            raise StartFailed(f"{self.path}/{spec.name} could not be made: {error}") from error
        ref = self._make_ref(spec, made)
        child = Child(spec, ref, type(made).__name__, self._system, self, self._events, made, is_dynamic)
        self._children[spec.name] = child
        await nursery.start(self._slot, child)
        return ref

    def _make_ref(self, spec: ChildSpec, made: Actor | Task | Supervisor) -> Handle:
        path = f"{self.path}/{spec.name}"
        if isinstance(made, Actor):
            ref: ActorRef[Any] = ActorRef(path, type(made), self._events)
            if self._system.faults is not None:
                self._system.faults.watch(ref)
            return ref
        return TaskRef(path) if isinstance(made, Task) else SupervisorRef(path, self._events, self._system)

    async def stop_child(self, name: str) -> None:
        """Stop a child and wait until it has ended; nothing if there is none of that name."""
        child = self._children.get(name)
        if child is not None:
            await self._bring_down([child])

    def child(self, name: str) -> Any:
        """The ref of a child, or None."""
        child = self._children.get(name)
        return None if child is None else child.ref

    async def stop(self, deadline_s: float = FOREVER) -> None:
        """Stop all children in reverse order and end. `deadline_s`: when, on Trio's clock, all that still run are cancelled."""
        self._want_end()
        self._halt(deadline_s)
        await self.wait_until_ended()

    def _halt(self, deadline_s: float = FOREVER) -> None:
        self._deadline_s = min(self._deadline_s, deadline_s)
        self._orderly.deadline = self._deadline_s
        self._over.set()
        self._start_scope.cancel()

    def tree(self) -> tuple[TreeNode, ...]:
        """The children as they are now."""
        return tuple(child.node() for child in self._children.values())

    # The life of the supervisor itself

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until stopped. Raises `RestartsExhausted` when a child cannot be kept alive, and a first child's `StartFailed`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                with self._start_scope:
                    await self._start_first()
                if self._failure is None:
                    task_status.started()
                    await self._over.wait()
                await self._shut_down()
            except BaseException:
                # Somebody may start a child from elsewhere just now: that one is not cancelled by this nursery.
                for child in self._children.values():
                    child.is_stopping = True
                    child.cancel()
                raise
            finally:
                self._nursery = None
        if self._failure is not None:
            raise self._failure

    async def _start_first(self) -> None:
        for spec in self.spec.children:
            if self._over.is_set():
                return
            try:
                await self._start(spec, is_dynamic=False)
            except StartFailed as failure:
                if self._failure is None:
                    self._failure = failure
                self._over.set()

    async def _shut_down(self) -> None:
        """Dynamic children end together, then the first ones in reverse order; at the deadline all are cancelled at once."""
        self._over.set()
        with self._orderly:
            await self._bring_down([child for child in self._children.values() if child.is_dynamic])
            for child in reversed(list(self._children.values())):
                await self._bring_down([child])
            return
        for child in self._children.values():
            child.is_stopping = True
            child.ref._want_end()
            child.cancel()

    async def _bring_down(self, children: Sequence[Child]) -> None:
        """End children together, each within its own time, and then for good."""
        limits: list[tuple[float, Child]] = []
        for child in children:
            child.is_stopping = True
            limits.append((min(self._deadline_s, trio.current_time() + child.spec.shutdown_s), child))
            child.ref._want_end()
            child.ref._halt(limits[-1][0])
        for limit_s, child in sorted(limits, key=lambda one: one[0]):
            with trio.move_on_at(limit_s):
                await child.wait_until_ended()
            if not child.has_ended:
                child.cancel()
        for child in children:
            await child.wait_until_ended()

    # The slots

    async def _slot(self, child: Child, task_status: trio.TaskStatus[None]) -> None:
        started = Started(child, task_status)
        del task_status
        reason, is_first = NORMAL, True
        try:
            while True:
                if not is_first:
                    child.become("starting")
                    started = Started(child)
                began_s = trio.current_time()
                reason = await child.live(started)
                is_first = False
                if self._is_last_life(child):
                    return
                regroup = child.regroup
                was_brought_down = regroup is not None and not regroup.may_start.is_set()
                if was_brought_down and reason.kind != "error":
                    if child.spec.restart == "temporary":
                        child.is_taken_down = True
                        return
                elif not wants_restart(child.spec, reason) or not self._may_fail_once_more(
                    child, reason, trio.current_time() - began_s
                ):
                    return
                await self._wait_to_restart(child, was_brought_down and reason.kind != "error")
                if self._is_last_life(child):
                    reason = SHUTDOWN
                    return
                child.restarts += 1
                self._events.emit("restarted", child.ref.path, str(reason))
        finally:
            self._end_slot(child, reason)

    def _is_last_life(self, child: Child) -> bool:
        return child.is_to_end or self._over.is_set()

    def _may_fail_once_more(self, child: Child, reason: StopReason, lived_s: float) -> bool:
        backoff = child.spec.backoff
        child.failures = 1 if lived_s >= backoff.healthy_s else child.failures + 1
        if child.failures < backoff.give_up_after:
            return True
        times = "once" if child.failures == 1 else f"{child.failures} times"
        self._failure = RestartsExhausted(f"{child.ref.path} failed {times} without a healthy run: {reason}")
        self._failure.__cause__ = reason.error
        self._events.emit("escalated", self.path, str(self._failure))
        self._over.set()
        self._start_scope.cancel()
        return False

    async def _wait_to_restart(self, child: Child, was_brought_down: bool) -> None:
        pause_s = 0.0 if was_brought_down else child.spec.backoff.pause_s(child.failures, random().random())
        until_s = trio.current_time() + pause_s
        if self.spec.strategy == "one_for_one":
            await child.pause_until(until_s)
            return
        if not was_brought_down:
            self._join_round(child, until_s)
        regroup = child.regroup
        assert regroup is not None
        regroup.is_down.set()
        await child.pause_until(FOREVER, regroup.may_start)

    # Rounds: several children come down and start again together

    def _join_round(self, failed: Child, until_s: float) -> None:
        others = list(self._children.values())
        if self.spec.strategy == "rest_for_one":
            others = others[others.index(failed) :]
        is_first = not self._round
        for child in others:
            if child.regroup is None or child.regroup.may_start.is_set():
                if child.regroup is not None:
                    child.regroup.is_settled.set()
                child.regroup = Regroup()
            self._round.add(child)
        self._round_until_s = max(until_s, self._round_until_s) if not is_first else until_s
        if is_first:
            assert self._nursery is not None
            self._nursery.start_soon(self._run_round)

    async def _run_round(self) -> None:
        while self._round and not self._over.is_set():
            for child in reversed(self._in_order()):
                await self._take_down(child)
            if trio.current_time() < self._round_until_s:
                with trio.move_on_at(self._round_until_s):
                    await self._over.wait()
                continue
            if all(child.regroup is None or child.regroup.is_down.is_set() for child in self._round):
                await self._let_up()

    def _in_order(self) -> list[Child]:
        self._round = {child for child in self._round if not child.has_ended}
        return [child for child in self._children.values() if child in self._round]

    async def _take_down(self, child: Child) -> None:
        regroup = child.regroup
        if regroup is None or regroup.is_down.is_set():
            return
        limit_s = trio.current_time() + child.spec.shutdown_s
        child.ref._halt(limit_s)
        with trio.move_on_at(limit_s):
            await regroup.is_down.wait()
            return
        child.cancel()
        await regroup.is_down.wait()

    async def _let_up(self) -> None:
        """Start those who are down, one after the other, until one fails: it has then opened the round again."""
        for child in self._in_order():
            regroup = child.regroup
            if regroup is None:
                self._round.discard(child)
                continue
            if not regroup.is_down.is_set():
                return
            regroup.may_start.set()
            await regroup.is_settled.wait()
            if child.regroup is not None and not child.has_ended:
                return
            self._round.discard(child)

    def _end_slot(self, child: Child, reason: StopReason) -> None:
        child.become("ended")
        if self._children.get(child.spec.name) is child:
            del self._children[child.spec.name]
        if child.regroup is not None:
            child.regroup.is_down.set()
            child.regroup.is_settled.set()
        child.ref._close(reason)
        if child.spec.significant and not child.is_to_end and not child.is_taken_down:
            left = any(other.spec.significant for other in self._children.values())
            if self.spec.auto_stop == "any" or (self.spec.auto_stop == "all" and not left):
                self._halt()
