"""Messages that an actor sends to itself later, on Trio's clock.

Timers belong to one life of an actor and need no task: its loop waits for the next message or the next timer, whichever comes
first. A timer fires between messages, never in the middle of one, and an interval never piles up: ticks that were missed
during a long message are one tick.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container
from typing import Any

import attrs
import trio


@attrs.define(eq=False)
class Timer:
    """One message to come. `cancel` takes it back."""

    message: Any
    interval_s: float | None
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Never fire again. Harmless if it has fired."""
        self.is_cancelled = True


class Timers:
    """The timers of one life of one actor: `self.context.timers`."""

    __slots__ = ("_handled", "_heap", "_max", "_number")

    def __init__(self, handled: Container[type[Any]], timers_max: int = 10_000) -> None:
        self._handled = handled
        self._max = timers_max
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0

    def after(self, pause_s: float, message: Any) -> Timer:
        """Handle the message once, after `pause_s` seconds. Raises `TypeError` if the actor has no handler for it."""
        return self._add(pause_s, message, None)

    def every(self, interval_s: float, message: Any) -> Timer:
        """Handle the message again and again, `interval_s` seconds apart, first after one interval."""
        if interval_s <= 0:
            raise ValueError(f"an interval must be longer than {interval_s} s")
        return self._add(interval_s, message, interval_s)

    def _add(self, pause_s: float, message: Any, interval_s: float | None) -> Timer:
        if type(message) not in self._handled:
            raise TypeError(f"a timer for {type(message).__name__}, which the actor has no handler for")
        self._heap = self._heap if len(self._heap) < self._max else self._swept()
        timer = Timer(message, interval_s)
        self._push(trio.current_time() + max(0.0, pause_s), timer)
        return timer

    def _push(self, at_s: float, timer: Timer) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at_s, self._number, timer))

    def _swept(self) -> list[tuple[float, int, Timer]]:
        left = [entry for entry in self._heap if not entry[2].is_cancelled]
        if len(left) >= self._max:
            raise ValueError(f"an actor may have {self._max} timers, not more")
        heapq.heapify(left)
        return left

    def next_s(self) -> float:
        """When the next timer fires; infinity if there is none."""
        while self._heap and self._heap[0][2].is_cancelled:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def take_due(self, now_s: float) -> Any:
        """The message of a timer that is due, or None. An interval is set anew from its own beat, without drift."""
        if self.next_s() > now_s:
            return None
        at_s, _, timer = heapq.heappop(self._heap)
        if timer.interval_s is not None:
            beats = math.floor((now_s - at_s) / timer.interval_s) + 1
            self._push(at_s + beats * timer.interval_s, timer)
        return timer.message
