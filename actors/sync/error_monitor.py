"""When so many documents fail that going on makes no sense."""

from __future__ import annotations

from collections import deque

from .settings import ErrorLimits


class TooManyErrors(Exception):
    """A limit was exceeded. The text says which, and what the last error was."""


class ErrorMonitor:
    """Counts final outcomes of documents in order. A document that was refused for being busy and accepted later did not fail."""

    def __init__(self, limits: ErrorLimits) -> None:
        self._limits = limits
        self.total = 0
        self.consecutive = 0
        self.last: deque[str] = deque(maxlen=limits.kept)
        # Starts as if all had gone well, so that one early error is no rate.
        self._window: deque[bool] = deque([False] * limits.window, maxlen=limits.window or None)
        self._in_window = 0
        self.tripped: str | None = None

    def succeeded(self, count: int = 1) -> None:
        """Note that documents were accepted."""
        if count <= 0:
            return
        self.consecutive = 0
        limits = self._limits
        if limits.window and self._in_window:
            for _ in range(min(count, limits.window)):
                self._push(False)

    def failed(self, why: str) -> None:
        """Note that a document finally failed. Raises `TooManyErrors` beyond a limit, and again at every later failure."""
        self.total += 1
        self.consecutive += 1
        self.last.append(why)
        limits = self._limits
        if limits.window:
            self._push(True)
        if not limits.enabled:
            return
        exceeded = self._exceeded()
        if exceeded is not None:
            self.tripped = f"{exceeded}. The last error: {why}"
            raise TooManyErrors(self.tripped)

    def check(self) -> None:
        """Raise `TooManyErrors` if a limit was ever exceeded: nobody can miss it."""
        if self.tripped is not None:
            raise TooManyErrors(self.tripped)

    def _push(self, failed: bool) -> None:
        self._in_window += failed - self._window[0]
        self._window.append(failed)

    def _exceeded(self) -> str | None:
        limits = self._limits
        if self.consecutive > limits.consecutive_max:
            return f"{self.consecutive} documents in a row failed, more than {limits.consecutive_max}"
        if self.total > limits.total_max:
            return f"{self.total} documents failed, more than {limits.total_max}"
        if limits.window and self._in_window / limits.window > limits.rate_max:
            return f"{self._in_window} of the last {limits.window} documents failed, more than {limits.rate_max:.0%}"
        return None
