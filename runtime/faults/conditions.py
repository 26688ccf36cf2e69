"""When a rule of a fault plan fires: the part that all kinds of plans have in common."""

from __future__ import annotations

from random import Random

import attrs


class InvalidPlan(ValueError):
    """A plan that cannot be used; says which rule and why."""


@attrs.frozen(kw_only=True)
class Conditions:
    """When a rule fires. Without conditions it fires at everything that matches."""

    chance: float = 1.0
    """Probability that what matches is hit."""
    skip: int = 0
    """Let so many matches pass first."""
    every: int = 1
    """Then fire at each n-th one."""
    times: int | None = None
    """Fire so often at most; None: for ever."""
    from_s: float = 0.0
    """Fire only from this time on, in seconds since the server or the system started."""
    until_s: float | None = None
    every_s: float | None = None
    """The time between `from_s` and `until_s` comes again after so many seconds. None: it comes once."""

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise InvalidPlan(f"chance must lie between 0 and 1, not {self.chance!r}")
        if self.every < 1 or self.skip < 0:
            raise InvalidPlan("`every` must be at least 1 and `skip` at least 0")
        if self.every_s is None:
            return
        if not self.every_s > 0:
            raise InvalidPlan(f"every_s must be greater than 0, not {self.every_s!r}")
        if self.until_s is not None and self.until_s - self.from_s > self.every_s:
            raise InvalidPlan("every_s must not be shorter than the time from `from_s` to `until_s`")

    def holds_at(self, at_s: float) -> bool:
        """Whether the rule may fire at this time."""
        if at_s < self.from_s:
            return False
        if self.every_s is not None:
            at_s = self.from_s + (at_s - self.from_s) % self.every_s
        return self.until_s is None or at_s < self.until_s

    def begins_after(self, at_s: float) -> float | None:
        """When the rule's time begins next after `at_s`; None if never again. Its first begin counts from before zero."""
        if at_s < self.from_s:
            return self.from_s
        if self.every_s is None:
            return None
        return self.from_s + ((at_s - self.from_s) // self.every_s + 1) * self.every_s


@attrs.define(eq=False)
class Turns:
    """Counts for one rule what matched and how often it fired."""

    conditions: Conditions
    seen: int = 0
    fired: int = 0

    def comes(self, random: Random) -> bool:
        """Count one match, and say whether the rule fires at it."""
        conditions = self.conditions
        self.seen += 1
        turn = self.seen - conditions.skip
        if turn < 1 or (turn - 1) % conditions.every:
            return False
        if conditions.times is not None and self.fired >= conditions.times:
            return False
        if conditions.chance < 1.0 and random.random() >= conditions.chance:
            return False
        self.fired += 1
        return True
