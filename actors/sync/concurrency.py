"""How many bulk requests to have under way, learnt from how the server bears them.

Additive increase, multiplicative decrease on two signals, as congestion control on networks does it: refusals for being busy, and
round trips that take clearly longer than they used to. Once per round trip the controller looks at the mean of the requests
that ended since: was the limit reached and did the server stay as fast as ever, one more is allowed; was it slower by 2.5
standard deviations or did it refuse, the limit shrinks to nine tenths.
"""

from __future__ import annotations

import math

import attrs

DECREASE = 0.9
WEIGHT = 0.4
DEVIATIONS = 2.5


@attrs.define
class AdaptiveConcurrency:
    """Decides only; whoever sends asks `may_start` and reports `started` and `ended`. Times are seconds of one clock."""

    limit_max: int
    limit: float = 1.0
    in_flight: int = 0
    peak: int = 0
    _mean_s: float | None = None
    _variance: float = 0.0
    _ended_in_window: int = 0
    _sum_s: float = 0.0
    _was_busy: bool = False
    _reached_limit: bool = False
    _window_ends_at: float | None = None

    @property
    def allowed(self) -> int:
        """Requests that may be under way now."""
        return max(1, min(self.limit_max, int(self.limit)))

    def may_start(self) -> bool:
        """Tell whether one more request may be sent."""
        return self.in_flight < self.allowed

    def started(self) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        if self.in_flight >= self.allowed:
            self._reached_limit = True

    def ended(self, at_s: float, took_s: float, *, busy: bool = False) -> None:
        """Take note of an answer, or of none (`busy`). Refusals do not say how fast the server is, only that it is full."""
        assert self.in_flight > 0, "a request ended that never started"
        self.in_flight -= 1
        if busy:
            self._was_busy = True
        else:
            self._ended_in_window += 1
            self._sum_s += took_s
        if self._window_ends_at is None:
            self._window_ends_at = at_s
        if at_s >= self._window_ends_at:
            self._adjust(at_s)

    def _adjust(self, at_s: float) -> None:
        current_s = self._sum_s / self._ended_in_window if self._ended_in_window else None
        mean_s = self._mean_s
        threshold_s = math.sqrt(self._variance) * DEVIATIONS
        if self._was_busy or (current_s is not None and mean_s is not None and current_s > mean_s + threshold_s):
            self.limit = max(1.0, self.limit * DECREASE)
        elif self._reached_limit and current_s is not None:
            self.limit = min(float(self.limit_max), math.floor(self.limit) + 1.0)
        if current_s is not None:
            if mean_s is None:
                self._mean_s = current_s
            else:
                difference = current_s - mean_s
                self._mean_s = mean_s + WEIGHT * difference
                self._variance = (1 - WEIGHT) * (self._variance + WEIGHT * difference * difference)
        self._window_ends_at = at_s + (self._mean_s or 0.0)
        self._ended_in_window, self._sum_s = 0, 0.0
        self._was_busy = self._reached_limit = False
