"""What `callboard top` draws: the facts of a service as lines, of which as many are shown as the terminal has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.segment import Segment

COLOURS = {"ok": "green", "failing": "bold red", "paused": "yellow", "unconfigured": "dim"}
ORDER = {"failing": 0, "ok": 2, "paused": 3, "unconfigured": 4}
KEYS: Mapping[bytes, str] = {
    b"q": "leave", b"Q": "leave", b"\x04": "leave",
    b"j": "down", b"\x1b[B": "down", b"\x1bOB": "down", b"\r": "down", b"\n": "down",
    b"k": "up", b"\x1b[A": "up", b"\x1bOA": "up",
    b" ": "page down", b"f": "page down", b"\x1b[6~": "page down",
    b"b": "page up", b"\x1b[5~": "page up",
    b"g": "home", b"\x1b[H": "home", b"\x1b[1~": "home", b"\x1bOH": "home",
    b"G": "end", b"\x1b[F": "end", b"\x1b[4~": "end", b"\x1bOF": "end",
}  # fmt: skip
NARROW = 100
"""Terminals of fewer columns are shown fewer facts, so that names and reasons can be read."""
HELP = "↑ ↓ PgUp PgDn scroll · q leaves"


def wishes(typed: bytes) -> list[str]:
    """What the keys in one piece of input ask for; unknown ones ask for nothing."""
    found: list[str] = []
    while typed:
        known = max((key for key in KEYS if typed.startswith(key)), key=len, default=None)
        if known is not None:
            found.append(KEYS[known])
            typed = typed[len(known) :]
        elif typed.startswith((b"\x1b[", b"\x1bO")):
            # A sequence that means nothing here ends with its first letter or tilde.
            end = next(
                (at for at in range(2, len(typed)) if typed[at : at + 1].isalpha() or typed[at] == 0x7E), len(typed)
            )
            typed = typed[end + 1 :]
        else:
            typed = typed[1:]
    return found


@attrs.frozen
class View:
    """Which part of many lines is shown."""

    first: int = 0

    def moved(self, wish: str, total: int, room: int) -> View:
        """The view after a key."""
        step = max(1, room - 1)
        first = {
            "down": self.first + 1, "up": self.first - 1, "page down": self.first + step, "page up": self.first - step,
            "home": 0, "end": total,
        }.get(wish, self.first)  # fmt: skip
        return View(first).within(total, room)

    def within(self, total: int, room: int) -> View:
        """The same, as far as there are so many lines: the terminal may have grown, and connectors may have gone."""
        return View(max(0, min(self.first, total - room)))


def everything(seen: Mapping[str, Any], width: int) -> RenderableType:
    """All that `/api/overview` says, for a terminal that is not one, or for one look."""
    from rich.console import Group

    return Group(head(seen), *body(seen, width))


def head(seen: Mapping[str, Any], *, problem: str = "", silent_s: float = 0.0) -> RenderableType:
    """One line about the service, and one about what is wrong with the line to it."""
    from rich.console import Group
    from rich.text import Text

    states = [one["health"] for one in seen["connectors"]]
    counts = ", ".join(f"{states.count(health):,} {health}" for health in ORDER if health in states)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("callboard", style="bold")
    text.append(f"  {seen['worker']}  {seen['at'][11:19]} UTC  ")
    text.append(
        f"{len(seen['jobs'])} running, {len(seen['waiting'])} waiting · {counts or 'no connectors'}", style="dim"
    )
    if not problem:
        return text
    since = f"As it was {silent_s:.0f} s ago. " if silent_s >= 1 else ""
    return Group(text, Text(f"{since}{problem}", style="bold red", no_wrap=True, overflow="ellipsis"))


def body(seen: Mapping[str, Any], width: int = NARROW) -> list[RenderableType]:
    """The tables, with the columns for which there is room."""
    from rich.text import Text

    names = {one["id"]: one["name"] or one["id"] for one in seen["connectors"]}
    jobs = seen["jobs"]
    parts = [_jobs(jobs, names, width) if jobs else Text("No job runs now.\n", style="dim")]
    if seen["waiting"]:
        parts.append(_waiting(seen["waiting"], names))
    return [*parts, _connectors(seen["connectors"], width)]


def _table(title: str, columns: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", expand=True, box=box.SIMPLE_HEAD, pad_edge=False,
        header_style="dim",
    )  # fmt: skip
    for name, options in columns:
        table.add_column(name, no_wrap=True, **options)
    return table


def _jobs(jobs: Sequence[Mapping[str, Any]], names: Mapping[str, str], width: int) -> RenderableType:
    from rich.text import Text

    number: dict[str, Any] = {"justify": "right"}
    is_wide = width >= NARROW
    counts = ("listed", "indexed", "deleted", "failed") if is_wide else ("listed", "failed")
    table = _table(
        f"Running jobs ({len(jobs):,})",
        [
            ("Connector", {"ratio": 3, "min_width": 12}), *([("Kind", {})] if is_wide else []),
            *((name.capitalize(), number) for name in counts), ("Docs/s", number), ("Limited by", {}),
        ],
    )  # fmt: skip
    for job in jobs:
        at = job["progress"] or {}
        rate = at["listed"] / at["seconds"] if at.get("seconds") else 0.0
        name = Text(names.get(job["connector_id"], job["connector_id"]))
        kind = [job["job_type"].replace("_", " ")] if is_wide else []
        numbers = [f"{at.get(name, 0):,}" for name in counts]
        table.add_row(name, *kind, *numbers, f"{rate:,.0f}", at.get("waiting_on", ""))
    return table  # type: ignore[no-any-return]


def _waiting(waiting: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> RenderableType:
    from rich.text import Text

    table = _table(f"Waiting jobs ({len(waiting):,})", [("Connector", {"ratio": 1}), ("Why", {"ratio": 3})])
    for one in waiting:
        table.add_row(Text(names.get(one["connector_id"], one["connector_id"])), Text(one["why"]))
    return table  # type: ignore[no-any-return]


def _connectors(connectors: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    from rich.text import Text

    is_wide = width >= NARROW
    table = _table(
        f"Connectors ({len(connectors):,})",
        [
            ("Connector", {"ratio": 3, "min_width": 12}), *([("Source", {})] if is_wide else []), ("Health", {}),
            ("Last sync", {}), *([("Next sync", {})] if is_wide else []), ("Why", {"ratio": 4}),
        ],
    )  # fmt: skip
    for one in sorted(connectors, key=_rank):
        why = one.get("paused") or one["why"] or one.get("why_not_scheduled") or ""
        table.add_row(
            Text(one["name"] or one["id"]),
            *([Text(one["service_type"] or "-")] if is_wide else []),
            Text(one["health"], style=COLOURS.get(one["health"], "yellow")),
            _time(one["last_synced"], "never"),
            *([_time(one["next_sync"], "-")] if is_wide else []),
            Text(" ".join(str(why).split())),
        )
    return table  # type: ignore[no-any-return]


def _rank(one: Mapping[str, Any]) -> tuple[int, str]:
    rank = ORDER.get(one["health"], 1)
    return (1 if one.get("running") and rank == ORDER["ok"] else rank), str(one["name"] or one["id"]).lower()


def _time(text: str | None, missing: str) -> str:
    return missing if not text else text[:16].replace("T", " ")


@attrs.define
class Canvas:
    """Turns facts into lines once, however often a part of them is looked at."""

    console: Console
    _key: tuple[int, int] | None = None
    _lines: list[list[Segment]] = attrs.field(factory=list)

    def lines(self, seen: Mapping[str, Any], width: int) -> list[list[Segment]]:
        """All lines of the body at this width."""
        from rich.console import Group

        key = (id(seen), width)
        if key != self._key:
            options = self.console.options.update(width=width, height=None)
            self._lines = self.console.render_lines(Group(*body(seen, width)), options, pad=False)
            self._key = key
        return self._lines

    def frame(
        self, seen: Mapping[str, Any], view: View, *, problem: str = "", silent_s: float = 0.0
    ) -> tuple[RenderableType, int, int]:
        """What fits on the terminal now, with how many lines there are and for how many there is room."""
        from rich.segment import Segment, Segments

        width, height = self.console.size
        options = self.console.options.update(width=width, height=None)
        top = self.console.render_lines(head(seen, problem=problem, silent_s=silent_s), options, pad=False)
        lines = self.lines(seen, width)
        room = max(1, height - len(top) - 1)
        first = view.within(len(lines), room).first
        shown = [*top, *lines[first : first + room]]
        shown += [[]] * (height - 1 - len(shown))
        place = "" if len(lines) <= room else f"{first + 1}-{min(first + room, len(lines))} of {len(lines)} · "
        from rich.style import Style

        shown.append([Segment(f"{place}{HELP}"[:width], Style(dim=True))])
        segments: list[Segment] = []
        for line in shown[:height]:
            segments += [*line, Segment.line()]
        return Segments(segments[:-1]), len(lines), room
