"""Decides what happens to the bytes of one direction of one connection. Holds places and counts, and does nothing itself.

Invariant: what passes is a function of the rules that fired and of the bytes, never of how they were cut into pieces on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

import attrs

from .network import Corrupt, Cut, Delay, Drip, LoseResponse, Restart, Rule, Stall


@attrs.frozen
class Pass:
    """Send these bytes on."""

    data: bytes


@attrs.frozen
class Wait:
    """Wait before going on."""

    seconds: float


@attrs.frozen
class Pace:
    """Send what follows this slowly."""

    bytes_per_second: float


@attrs.frozen
class Hang:
    """Let nothing pass any more."""


@attrs.frozen
class Close:
    """Close the connection on both sides."""


@attrs.frozen
class CloseAtAnswer:
    """Close the connection as soon as the server sends anything."""


@attrs.frozen
class GoDown:
    """Drop all connections and refuse new ones for a while."""

    seconds: float


Step: TypeAlias = Pass | Wait | Pace | Hang | Close | CloseAtAnswer | GoDown
LAST: Final = (Hang, Close, GoDown)


@attrs.frozen
class _Place:
    at: int
    number: int
    rule: Rule
    random: Random


@attrs.define
class _Sought:
    number: int
    rule: Rule
    random: Random
    pattern: bytes
    comes: Callable[[], bool]
    seen: bytes = b""


class Flow:
    """The bytes of one direction. `feed` what came, do the steps it returns."""

    def __init__(self) -> None:
        self._at = 0
        self._rules = 0
        self._places: list[_Place] = []
        self._sought: list[_Sought] = []
        self._corrupting = 0
        self._corruptor: Random | None = None

    def place(self, rule: Rule, random: Random) -> None:
        """Let a rule's effect begin at the next byte."""
        self._rules += 1
        self._put(self._rules, rule, random, self._at)

    def seek(self, rule: Rule, random: Random, comes: Callable[[], bool]) -> None:
        """Look for a rule's bytes; `comes` is asked at each place where they passed."""
        self._rules += 1
        self._sought.append(_Sought(self._rules, rule, random, rule.match.contains.encode(), comes))

    def _put(self, number: int, rule: Rule, random: Random, at: int) -> None:
        self._places.append(_Place(at + getattr(rule.effect, "after_bytes", 0), number, rule, random))
        # At the same place the rules' order counts, not the order in which their bytes came.
        self._places.sort(key=lambda place: (place.at, place.number))

    def feed(self, data: bytes) -> list[Step]:
        """Return what to do with these bytes. After a step of `LAST` there is none."""
        for sought in self._sought:
            self._look(sought, data)
        steps: list[Step] = []
        begin, end = self._at, self._at + len(data)
        while self._places and (
            self._places[0].at < end or (self._places[0].at == end and _acts_at_once(self._places[0]))
        ):
            place = self._places.pop(0)
            if place.at > self._at:
                steps.append(self._passed(data[self._at - begin : place.at - begin]))
            step = self._step(place)
            if step is not None:
                steps.append(step)
            if isinstance(step, LAST):
                return steps
        if end > self._at:
            steps.append(self._passed(data[self._at - begin :]))
        return steps

    def _look(self, sought: _Sought, data: bytes) -> None:
        # What was seen before is kept only as far as it may be the beginning of what is sought.
        text, first_at = sought.seen + data, self._at - len(sought.seen)
        behind = 0
        while (found := text.find(sought.pattern, behind)) >= 0:
            behind = found + len(sought.pattern)
            if sought.comes():
                self._put(sought.number, sought.rule, sought.random, first_at + behind)
        sought.seen = text[max(behind, len(text) - len(sought.pattern) + 1) :]

    def _passed(self, data: bytes) -> Pass:
        self._at += len(data)
        if self._corrupting and self._corruptor is not None:
            count = min(self._corrupting, len(data))
            # Never by itself: a byte that stays the same would not be corrupt.
            broken = bytes(byte ^ self._corruptor.randint(1, 255) for byte in data[:count])
            self._corrupting -= count
            data = broken + data[count:]
        return Pass(data)

    def _step(self, place: _Place) -> Step | None:
        match place.rule.effect:
            case Cut():
                return Close()
            case Stall():
                return Hang()
            case Delay(seconds=seconds):
                return Wait(seconds)
            case Drip(bytes_per_second=speed):
                return Pace(speed)
            case LoseResponse():
                return CloseAtAnswer()
            case Restart(down_s=down_s):
                return GoDown(down_s)
            case Corrupt(bytes_replaced=count):
                self._corrupting, self._corruptor = count, place.random
        return None


def _acts_at_once(place: _Place) -> bool:
    """Whether an effect at the end of what has come does not wait for the next byte."""
    return isinstance(place.rule.effect, Cut | Stall | LoseResponse | Restart)
