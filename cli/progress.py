"""How a running sync looks: a live display on terminals, a line now and then elsewhere. Always on standard error.

The display never asks the engine for anything and never makes it wait: it is told the latest counts, and draws them a few times
a second.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Protocol

import attrs

from .terminal import counted, in_bytes, in_seconds, note

if TYPE_CHECKING:
    from rich.console import RenderableType

DRAW_EVERY_S = 0.125
LINE_EVERY_S = 5.0
RATE_WINDOW_S = 3.0
"""Rates are those of the last seconds, so that a slow patch shows."""


@attrs.frozen
class Counts:
    """Where a sync stands. Every number counts documents unless its name says otherwise."""

    listed: int = 0
    indexed: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: int = 0
    size_bytes: int = 0
    queued: int = 0
    """Read from the source and not yet settled by the index."""
    waiting_on: str = ""
    """The slowest stage at the moment, in a word; empty if nothing waits."""

    @property
    def settled(self) -> int:
        return self.indexed + self.deleted + self.unchanged + self.failed


class Display(Protocol):
    """Something that is shown counts."""

    def show(self, counts: Counts, seconds: float) -> None: ...


@attrs.define
class Rates:
    """Documents and bytes a second over a sliding window."""

    _samples: deque[tuple[float, int, int]] = attrs.field(factory=lambda: deque(maxlen=64))

    def add(self, seconds: float, documents: int, size_bytes: int) -> tuple[float, float]:
        """Take a sample and return the rates over the window that it ends."""
        self._samples.append((seconds, documents, size_bytes))
        while len(self._samples) > 2 and seconds - self._samples[1][0] >= RATE_WINDOW_S:
            self._samples.popleft()
        first_s, first_documents, first_bytes = self._samples[0]
        if seconds <= first_s:
            return 0.0, 0.0
        return (documents - first_documents) / (seconds - first_s), (size_bytes - first_bytes) / (seconds - first_s)


class Lines:
    """One plain line every few seconds, for pipes and logs."""

    def __init__(self) -> None:
        self._rates = Rates()
        self._next_s = LINE_EVERY_S

    def show(self, counts: Counts, seconds: float) -> None:
        rate, rate_bytes = self._rates.add(seconds, counts.settled, counts.size_bytes)
        if seconds >= self._next_s:
            self._next_s = seconds + LINE_EVERY_S
            note(progress_line(counts, seconds, rate, rate_bytes))


def progress_line(counts: Counts, seconds: float, rate: float, rate_bytes: float) -> str:
    """One line that says where a sync stands."""
    parts = [
        counted(counts.settled, "document"),
        in_bytes(counts.size_bytes),
        f"{rate:,.0f}/s",
        f"{in_bytes(rate_bytes)}/s",
        f"{counts.queued:,} queued",
    ]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    if counts.waiting_on:
        parts.append(f"waiting for {counts.waiting_on}")
    return f"{in_seconds(seconds)}: {', '.join(parts)}"


class Live:
    """A display that redraws itself in place."""

    def __init__(self, title: str) -> None:
        from rich.spinner import Spinner

        self._title = title
        self._rates = Rates()
        self._spinner = Spinner("dots")
        self._latest: RenderableType = title

    def show(self, counts: Counts, seconds: float) -> None:
        rate, rate_bytes = self._rates.add(seconds, counts.settled, counts.size_bytes)
        self._latest = self.drawn(counts, seconds, rate, rate_bytes)

    def __rich__(self) -> RenderableType:
        return self._latest

    def drawn(self, counts: Counts, seconds: float, rate: float, rate_bytes: float) -> RenderableType:
        """The whole display for one moment."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 3, 0, 0))
        for _ in range(4):
            facts.add_column(justify="right")
            facts.add_column(style="dim")
        facts.add_row(
            f"[bold]{counts.settled:,}[/]", "documents", in_bytes(counts.size_bytes), "read",
            f"{rate:,.0f}", "a second", f"{in_bytes(rate_bytes)}", "a second",
        )  # fmt: skip
        facts.add_row(
            f"[green]{counts.indexed:,}[/]", "indexed", f"{counts.unchanged:,}", "unchanged",
            f"{counts.deleted:,}", "deleted", f"[{'red' if counts.failed else 'dim'}]{counts.failed:,}[/]", "failed",
        )  # fmt: skip
        slow = f"  waiting for {counts.waiting_on}" if counts.waiting_on else ""
        self._spinner.update(text=Text.assemble((self._title, "bold"), (f"  {in_seconds(seconds)}", "dim")))
        queue = Text(f"{counts.queued:,} in the queue{slow}", style="dim")
        return Group(self._spinner, facts, queue)


@asynccontextmanager
async def showing(title: str, latest: Callable[[], Counts], *, quiet: bool = False) -> AsyncIterator[None]:
    """Show the progress of what the block does, reading it from `latest` a few times a second.

    Left in any way, the display is gone from the terminal and nothing of it keeps running.
    """
    import trio

    from ..runtime import monotonic

    if quiet:
        yield
        return
    started = monotonic()
    with _display(title) as (display, redraw):

        async def draw() -> None:
            while True:
                display.show(latest(), monotonic() - started)
                redraw()
                await trio.sleep(DRAW_EVERY_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(draw)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


@contextmanager
def _display(title: str) -> Iterator[tuple[Display, Callable[[], None]]]:
    """The display for this standard error, and what puts its latest state on the screen."""
    if not sys.stderr.isatty():
        note(f"{title} ...")
        yield Lines(), lambda: None
        return
    from rich.console import Console
    from rich.live import Live as RichLive

    display = Live(title)
    display.show(Counts(), 0.0)
    # Drawn by our own task: the display's own refreshing would be a thread that nobody here owns.
    with RichLive(
        display, console=Console(stderr=True), transient=True, auto_refresh=False, redirect_stdout=False
    ) as live:
        yield display, live.refresh
