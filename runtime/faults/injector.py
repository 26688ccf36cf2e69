"""Does inside one system what a fault plan says, and tells of everything it did.

It stands where the runtime asks `system.faults`: in handlers, starts, clean-ups, mailboxes, streams, budgets and worker processes. A
system without a plan has none, and then nothing of this is imported.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from .conditions import Turns
from .plan import (
    Cancel,
    Crash,
    Delay,
    Exhaust,
    FailWorker,
    FaultPlan,
    InjectedFault,
    JumpClock,
    Rule,
    Stall,
)
from .queue import FaultyQueue

if TYPE_CHECKING:
    from ..actor import Actor, ActorRef
    from ..budget import Holder
    from ..events import Events
    from ..seams import Seams

HAPPENED_MAX: Final = 10_000


@attrs.frozen(kw_only=True)
class Injected:
    """One fault that was injected: the detail of the event `fault`."""

    rule: str
    effect: str
    point: str
    path: str
    """Of the child, where there is one."""
    what: str
    """Name of the message's class, the stream, the holder or the function."""
    at_s: float


class Injector:
    """The faults of one running system: `system.faults`."""

    def __init__(self, plan: FaultPlan, seed: int | None, events: Events, seams: Seams, nursery: trio.Nursery) -> None:
        self._events, self._seams, self._nursery = events, seams, nursery
        self._seed = plan.seed if seed is None else seed
        self._started_s = trio.current_time()
        self._lives: dict[trio.lowlevel.Task, Any] = {}
        self._steps: dict[trio.lowlevel.Task, tuple[int, Rule]] = {}
        self._instrument: _Checkpoints | None = None
        self._beside_scopes: set[trio.CancelScope] = set()
        self.happened: deque[Injected] = deque(maxlen=HAPPENED_MAX)
        """The last faults that were injected."""
        self.use(plan)

    def use(self, plan: FaultPlan) -> None:
        """Go on with another plan, counting from zero; an empty one heals the system. What has begun goes on to its end."""
        self.plan = plan
        rules = plan.named()
        self._rules = [(rule, Turns(rule), Random(f"{self._seed}/{rule.name}")) for rule in rules]  # noqa: S311
        self._by_point: dict[str, list[tuple[Rule, Turns, Random]]] = {}
        for one in self._rules:
            self._by_point.setdefault(one[0].point, []).append(one)
        self._steps.clear()
        self._round = object()
        for rule, turns, random in self._by_point.get("time", ()):
            self._nursery.start_soon(self._beside, partial(self._at_time, self._round, rule, turns, random))
        if self._instrument is None and any(isinstance(rule.effect, Cancel) for rule in rules):
            self._instrument = _Checkpoints(self._steps, self._lives)
            trio.lowlevel.add_instrument(self._instrument)

    def close(self) -> None:
        """End what still runs beside the system, and take back what was installed in Trio."""
        for scope in self._beside_scopes:
            scope.cancel()
        if self._instrument is not None:
            trio.lowlevel.remove_instrument(self._instrument)
            self._instrument = None

    async def _beside(self, function: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope(shield=True) as scope:
            self._beside_scopes.add(scope)
            await function()
        self._beside_scopes.discard(scope)

    @property
    def fired(self) -> Mapping[str, int]:
        """Name of each rule -> how often it has hit."""
        return Counter({rule.name: turns.fired for rule, turns, _ in self._rules})

    def hits(self, point: str, path: str, what: str, may: Callable[[Rule], bool] | None = None) -> list[Rule]:
        """Count what happens at a point, and return the rules that fire. `may`: whether a rule's effect is possible here."""
        at_s = trio.current_time() - self._started_s
        return [
            rule
            for rule, turns, random in self._by_point.get(point, ())
            if rule.holds_at(at_s)
            and rule.match.matches(path, what, point)
            and (may is None or may(rule))
            and turns.comes(random)
            and self._tell(rule, point, path, what)
        ]

    def _tell(self, rule: Rule, point: str, path: str, what: str) -> bool:
        effect = rule.effect_name
        at_s = trio.current_time() - self._started_s
        injected = Injected(rule=rule.name, effect=effect, point=point, path=path, what=what, at_s=at_s)
        self.happened.append(injected)
        self._events.emit("fault", path, injected)
        return True

    async def around(
        self, point: str, path: str, what: str, function: Callable[..., Awaitable[Any]], *args: Any
    ) -> Any:
        """Call the function, with the faults of a point before and after it."""
        rules = self.hits(point, path, what)
        await self._wait(rules)
        _raise(rules, "before")
        result = await function(*args)
        _raise(rules, "after")
        return result

    async def _wait(self, rules: list[Rule]) -> None:
        for rule in rules:
            match rule.effect:
                case Delay(seconds=seconds):
                    await trio.sleep(seconds)
                case Stall():
                    await trio.sleep_forever()
                case JumpClock(seconds=seconds):
                    self._seams.clock_offset_s += seconds

    # Children

    def methods(self, path: str, methods: Mapping[type[Any], Callable[..., Awaitable[Any]]]) -> dict[type[Any], Any]:
        """Put the faults of handlers around them."""
        return {
            message_class: partial(self.around, "handler", path, message_class.__name__, method)
            for message_class, method in methods.items()
        }

    async def live(self, child: Any, run: Callable[..., Awaitable[bool]], *args: Any) -> bool:
        """Run one life of a child, with the faults of its start, and cancel it where a rule says so."""
        task = trio.lowlevel.current_task()
        self._lives[task] = child
        path = child.ref.path
        try:
            rules = self.hits("start", path, child.kind)
            for rule in rules:
                if isinstance(rule.effect, Cancel):
                    self._steps[task] = (rule.effect.at_checkpoint, rule)
            await self._wait(rules)
            _raise(rules, "before")
            result = await run(*args)
            _raise(rules, "after")
        finally:
            del self._lives[task]
            self._steps.pop(task, None)
        return result

    def watch(self, ref: ActorRef[Any]) -> None:
        """Put the faults of mailboxes into the mailbox of a new actor."""
        mailbox = ref._mailbox
        mailbox.data, mailbox.room = FaultyQueue(self, ref), mailbox.capacity

    def stand_in(self, actor: Actor, path: str) -> None:
        """Put the faults of handlers and of the clean-up round those of one life of an actor."""
        mine: Any = actor
        mine._methods = self.methods(path, actor._methods)
        mine.stopping = partial(self.around, "stop", path, "", actor.stopping)

    def draw(self, rule: Rule, first: int, last: int) -> int:
        """Draw a place between two, both included, by the rule's own chance."""
        return next(random for one, _, random in self._rules if one is rule).randint(first, last)

    def path_here(self) -> str:
        """Path of the child at work now; empty outside of all."""
        task = trio.lowlevel.current_task()
        child = self._lives.get(_owner(task, self._lives)) if self._lives else None  # type: ignore[arg-type]
        return "" if child is None else str(child.ref.path)

    async def _at_time(self, this_round: object, rule: Rule, turns: Turns, random: Random) -> None:
        begins_s = rule.begins_after(-1.0)
        while begins_s is not None:
            await trio.sleep_until(self._started_s + begins_s)
            if this_round is not self._round:
                return
            if turns.comes(random):
                await self._do_at_time(rule)
            # From the clock, not from the last time: what takes long skips turns instead of piling them up.
            begins_s = rule.begins_after(max(begins_s, trio.current_time() - self._started_s))

    async def _do_at_time(self, rule: Rule) -> None:
        if isinstance(rule.effect, Cancel):
            for child in list(self._lives.values()):
                if rule.match.matches(child.ref.path, "", "time"):
                    self._tell(rule, "time", child.ref.path, child.kind)
                    child.cancel()
            return
        self._tell(rule, "time", "", "")
        await self._wait([rule])

    # Budgets and processes

    async def take(self, holder: Holder, size_bytes: int) -> None:
        """The faults that come before bytes are taken."""
        rules = self.hits("budget", self.path_here(), holder.name)
        for rule in rules:
            if isinstance(rule.effect, Exhaust):
                self._exhaust(holder, rule.effect.seconds)
        await self._wait(rules)

    def _exhaust(self, holder: Holder, seconds: float) -> None:
        budget = holder._budget
        glutton = budget.holder("fault")
        free_bytes = min(budget.size_bytes - budget.held_bytes, budget._shared_bytes - budget._shared_used_bytes)
        grant = glutton.take_nowait(free_bytes) if free_bytes > 0 else None

        async def give_back() -> None:
            try:
                await trio.sleep(seconds)
            finally:
                if grant is not None:
                    grant.release()
                glutton.close()

        self._nursery.start_soon(self._beside, give_back)

    async def work(self, function: str, timeout_s: float) -> None:
        """The faults that come instead of a worker process."""
        from ..processes import WorkerCrashed, WorkerTimeout

        rules = self.hits("worker", self.path_here(), function)
        with trio.move_on_after(timeout_s) as limit:
            await self._wait(rules)
            for rule in rules:
                if isinstance(rule.effect, FailWorker):
                    if rule.effect.how == "crash":
                        raise WorkerCrashed(f"the process of {function} was ended by the fault rule {rule.name}")
                    await trio.sleep_forever()
        if limit.cancelled_caught:
            raise WorkerTimeout(f"{function} did not return within {timeout_s:g} s, by a fault rule.")


def _raise(rules: list[Rule], when: str) -> None:
    for rule in rules:
        effect = rule.effect
        if isinstance(effect, Crash) and effect.when == when:
            raise InjectedFault(f"fault rule {rule.name}") if effect.error is None else effect.error()


def _owner(task: trio.lowlevel.Task, lives: Mapping[trio.lowlevel.Task, Any]) -> trio.lowlevel.Task | None:
    """The task of the nearest child that a task belongs to."""
    one: trio.lowlevel.Task | None = task
    while one is not None and one not in lives:
        nursery = one.parent_nursery
        one = None if nursery is None else nursery.parent_task
    return one


class _Checkpoints(trio.abc.Instrument):
    """Counts the checkpoints of lives that a rule wants to cancel. A step of a task that a child has started counts for the child."""

    def __init__(self, steps: dict[trio.lowlevel.Task, tuple[int, Rule]], lives: dict[trio.lowlevel.Task, Any]) -> None:
        self._steps, self._lives = steps, lives

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        owner = _owner(task, self._lives) if self._steps else None
        if owner is None or owner not in self._steps:
            return
        left, rule = self._steps[owner]
        if left > 1:
            self._steps[owner] = (left - 1, rule)
            return
        del self._steps[owner]
        self._lives[owner].cancel()
