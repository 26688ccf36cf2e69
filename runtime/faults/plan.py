"""What shall go wrong inside a system of actors, as data: rules that match points of it, say when they fire, and what then happens.

A plan is written in Python or YAML and given to `open_system(faults=...)`. Plans are added with `+`. Every rule draws its chances from
a generator of its own, which comes from the plan's seed and the rule's name, so that to leave out one rule changes no
draw of the others: that is what makes plans composable and failing ones easy to shrink.

Rules only do what the runtime's promises allow. A message that was told is delivered, so `Drop` takes only what may be lost:
messages to mailboxes that drop the oldest, and requests, whose askers reckon with a time-out. Messages of one sender keep their
order, so `Reorder` lets a message overtake those of other senders only.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias

import attrs

from .conditions import InvalidPlan
from .reading import meant
from .rules import PlacedRule, named, read_placed_rules

Point: TypeAlias = Literal["handler", "start", "stop", "mailbox", "send", "receive", "budget", "worker", "time"]
POINTS: Final[tuple[str, ...]] = (
    "handler",
    "start",
    "stop",
    "mailbox",
    "send",
    "receive",
    "budget",
    "worker",
    "time",
)
_PLACES: Final = ("handler", "start", "stop", "send", "receive")
_WAITS: Final = (*_PLACES, "budget", "worker")


@attrs.frozen(kw_only=True)
class Match:
    """What a rule is about. All are shell patterns; what is not said matches everything."""

    actor: str = "*"
    """Path of the child, such as `service/connectors/42/keeper`, or its last part. At streams, budgets and worker
    processes: of the child at work there."""
    message: str = "*"
    """Name of the message's class."""
    stream: str = "*"
    budget: str = "*"
    """Name of the budget's holder."""
    worker: str = "*"
    """Name of the function that runs in a process."""
    point: str = ""
    """Where: `handler`, `start`, `stop`, `mailbox`, `send`, `receive`, `budget`, `worker` or `time`. Empty: where the
    effect is at home."""

    def __attrs_post_init__(self) -> None:
        if self.point and self.point not in POINTS:
            raise InvalidPlan(
                f"point must be one of {', '.join(POINTS)}, not {self.point!r}{meant(self.point, POINTS)}"
            )

    def matches(self, path: str, what: str, point: str) -> bool:
        """Say whether the rule is about this child and this message, stream, holder or function."""
        if self.actor != "*" and not (
            fnmatch.fnmatchcase(path, self.actor) or fnmatch.fnmatchcase(path.rpartition("/")[2], self.actor)
        ):
            return False
        pattern = getattr(self, _NAMED_BY.get(point, ""), "*")
        return pattern == "*" or fnmatch.fnmatchcase(what, pattern)


_NAMED_BY: Final[Mapping[str, str]] = {
    "handler": "message",
    "mailbox": "message",
    "send": "stream",
    "receive": "stream",
    "budget": "budget",
    "worker": "worker",
}


class InjectedFault(Exception):
    """What a rule raises where nothing else was asked for."""


@attrs.frozen(kw_only=True)
class Crash:
    """Raise an error before or after a handler, a start, a clean-up, a batch that is sent or received."""

    points: ClassVar[tuple[str, ...]] = _PLACES
    when: str = attrs.field(default="before")
    """`before`: nothing was done yet. `after`: it was done, and whoever asked does not learn it.

    A batch whose receiving crashes after it is gone from the stream and never settled.
    """
    error: Callable[[], Exception] | None = attrs.field(default=None, metadata={"python_only": True})
    """Makes the error that is raised; an `InjectedFault` if None."""

    @when.validator
    def _check(self, _attribute: Any, value: str) -> None:
        if value not in ("before", "after"):
            raise InvalidPlan(f"when must be `before` or `after`, not {value!r}")


def _assert_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InvalidPlan(f"{name} must be greater than 0, not {value!r}")


@attrs.frozen(kw_only=True)
class Delay:
    """Wait before going on."""

    points: ClassVar[tuple[str, ...]] = _WAITS
    seconds: float

    def __attrs_post_init__(self) -> None:
        _assert_positive("seconds", self.seconds)


@attrs.frozen(kw_only=True)
class Stall:
    """Hang, until somebody cancels."""

    points: ClassVar[tuple[str, ...]] = _WAITS


@attrs.frozen(kw_only=True)
class Drop:
    """Lose a message that may be lost: one to a mailbox that drops the oldest (a dead letter), or a request (`AskTimeout`)."""

    points: ClassVar[tuple[str, ...]] = ("mailbox",)


@attrs.frozen(kw_only=True)
class Reorder:
    """Let a message overtake waiting ones of other senders, by a number of places that is drawn."""

    points: ClassVar[tuple[str, ...]] = ("mailbox",)


@attrs.frozen(kw_only=True)
class Fill:
    """Fill the mailbox behind this message: the next sender meets a full one, until the actor has caught up."""

    points: ClassVar[tuple[str, ...]] = ("mailbox",)


@attrs.frozen(kw_only=True)
class Cancel:
    """Cancel a life of a child at its n-th checkpoint from its start, as a supervisor does at a deadline.

    What its spec says decides whether it is started again. At the point `time`: whatever matches and lives then.
    """

    points: ClassVar[tuple[str, ...]] = ("start", "time")
    at_checkpoint: int = 1

    def __attrs_post_init__(self) -> None:
        _assert_positive("at_checkpoint", self.at_checkpoint)


@attrs.frozen(kw_only=True)
class JumpClock:
    """Set the wall clock, which `now()` tells, forward or back. Trio's clock, and so every deadline, goes on."""

    points: ClassVar[tuple[str, ...]] = ("time", *_PLACES)
    seconds: float


@attrs.frozen(kw_only=True)
class Exhaust:
    """Take all of a memory budget that is not held or reserved, for a while, whenever somebody wants some of it."""

    points: ClassVar[tuple[str, ...]] = ("budget",)
    seconds: float

    def __attrs_post_init__(self) -> None:
        _assert_positive("seconds", self.seconds)


@attrs.frozen(kw_only=True)
class FailWorker:
    """Let a worker process die (`WorkerCrashed`), or never return (`WorkerTimeout`, once its time is up)."""

    points: ClassVar[tuple[str, ...]] = ("worker",)
    how: str = attrs.field(default="crash")

    @how.validator
    def _check(self, _attribute: Any, value: str) -> None:
        if value not in ("crash", "timeout"):
            raise InvalidPlan(f"how must be `crash` or `timeout`, not {value!r}")


Effect: TypeAlias = Crash | Delay | Stall | Drop | Reorder | Fill | Cancel | JumpClock | Exhaust | FailWorker

EFFECTS: Final[Mapping[str, type[Any]]] = {
    "crash": Crash,
    "delay": Delay,
    "stall": Stall,
    "drop": Drop,
    "reorder": Reorder,
    "fill": Fill,
    "cancel": Cancel,
    "jump_clock": JumpClock,
    "exhaust": Exhaust,
    "fail_worker": FailWorker,
}


@attrs.frozen(kw_only=True)
class Rule(PlacedRule):
    """One thing that goes wrong. Raises `InvalidPlan` if its effect cannot happen at its point."""

    effects = EFFECTS
    effect: Effect
    match: Match = Match()


@attrs.frozen
class FaultPlan:
    """Rules for a system of actors, in the order they are asked. Several may hit at once: a handler may be late *and* crash."""

    rules: Sequence[Rule] = ()
    seed: int = 0

    def __add__(self, other: FaultPlan) -> FaultPlan:
        """The rules of both, with this plan's seed."""
        return FaultPlan((*self.named(), *named(other.rules, len(self.rules))), self.seed)

    def named(self) -> tuple[Rule, ...]:
        """The rules, each with a name."""
        return named(self.rules)


def read_runtime_plan(content: Any) -> FaultPlan:
    """Read a plan from plain data, as YAML gives it.

        seed: 7
        rules:
          - {match: {actor: "keeper-*", message: Write}, chance: 0.1, do: {crash: {when: after}}}
          - {match: {actor: "job-*"}, times: 1, do: {cancel: {at_checkpoint: 40}}}

    Raises `InvalidPlan` naming the rule and the key.
    """
    rules, seed = read_placed_rules(content, Rule, Match)
    return FaultPlan(rules, seed)
