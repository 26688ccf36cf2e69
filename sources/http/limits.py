"""How fast a source may ask: one bucket of tokens for each host, shared by everybody who talks to it."""

from __future__ import annotations

import math

import trio

from ...runtime import monotonic


class TokenBucket:
    """Lets `per_second` requests through on average, and `burst` at once; adapts to what the host bears.

    `throttled` halves the rate and holds everybody back as long as the host asked; every success afterwards raises it again a
    little, up to where it began. First come, first served.
    """

    def __init__(self, per_second: float = math.inf, burst: int = 10) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a token bucket needs a rate above 0 and a burst of at least 1")
        self._highest = per_second
        self.per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._filled_s: float | None = None
        self._closed_until_s = -math.inf
        self._turn = trio.Lock()
        self.throttled_count = 0

    async def take(self) -> None:
        """Wait for a token. Cancelled: none was taken."""
        async with self._turn:
            while True:
                wait_s = self._wait_s(monotonic())
                if wait_s <= 0:
                    break
                await trio.sleep(wait_s)
            if math.isfinite(self.per_second):
                self._tokens -= 1

    def throttled(self, retry_after_s: float | None) -> None:
        """The host has refused: slow down, and stay away for as long as it asked."""
        self.throttled_count += 1
        current = self.per_second if math.isfinite(self.per_second) else 100.0
        self.per_second = max(0.1, current / 2)
        self._tokens = 0.0
        self._filled_s = monotonic()
        if retry_after_s is not None:
            self._closed_until_s = max(self._closed_until_s, monotonic() + retry_after_s)

    def succeeded(self) -> None:
        """The host has answered: go a little faster again."""
        if self.per_second < self._highest:
            self.per_second = min(self._highest, self.per_second * 1.02 + 0.01)

    def _wait_s(self, now_s: float) -> float:
        if now_s < self._closed_until_s:
            return self._closed_until_s - now_s
        if not math.isfinite(self.per_second):
            return 0.0
        if self._filled_s is not None:
            self._tokens = min(float(self._burst), self._tokens + (now_s - self._filled_s) * self.per_second)
        self._filled_s = now_s
        # A wait that is computed from a rate may end a rounding error too early.
        return 0.0 if self._tokens >= 1 - 1e-9 else (1 - self._tokens) / self.per_second
