"""What runs right now, as data: printed, shown on a page, compared in tests."""

from __future__ import annotations

from collections.abc import Iterator

import attrs


@attrs.frozen(kw_only=True)
class TreeNode:
    """One child and what is below it."""

    name: str
    kind: str
    """Name of its class."""
    state: str
    since_s: float
    """Seconds in this state."""
    age_s: float = 0.0
    """Seconds since its first start."""
    restarts: int = 0
    waiting: int = 0
    """Messages in its mailbox."""
    waiting_peak: int = 0
    processed: int = 0
    """Messages handled, or of a part of a task whatever passes through it."""
    unit: str = "message"
    """What `processed` counts."""
    busy_s: float = 0.0
    """Seconds spent in handlers, waiting inside them included."""
    last_error: str | None = None
    children: tuple[TreeNode, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> Iterator[str]:
        facts = [f"{self.kind}, {self.state} for {self.since_s:.1f} s"]
        if self.processed:
            facts.append(f"{self.processed:,} {self.unit}{'s' if self.processed > 1 else ''}")
        if self.waiting:
            facts.append(f"{self.waiting} waiting")
        if self.restarts:
            facts.append(f"{self.restarts} restart{'s' if self.restarts > 1 else ''}")
        if self.last_error:
            facts.append(f"last error {self.last_error}")
        yield f"{first}{self.name}  ({'; '.join(facts)})"
        for at, child in enumerate(self.children):
            is_last = at == len(self.children) - 1
            yield from child._lines(rest + ("└── " if is_last else "├── "), rest + ("    " if is_last else "│   "))
