"""What people and scripts see: tables, JSON, numbers in words. Colour only where a terminal is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click


def is_terminal() -> bool:
    """Whether a person is likely to look at standard output right now."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Print one JSON value, indented, as text that any JSON reader takes."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[int] = ()) -> None:
    """Print rows under headers, aligned by display width; the columns numbered in `right` are numbers.

    Cells are never cut: a table in a pipe is read by programs, and an id that lost its end is worth nothing.
    """
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(headers, *cells, strict=True)]
    bold = is_terminal()

    def line(row: Sequence[str]) -> str:
        padded = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(cell))
            padded.append(space + cell if number in right else cell + space)
        return "  ".join(padded).rstrip()

    click.echo(click.style(line(list(headers)), bold=True) if bold else line(list(headers)))
    click.echo("  ".join("-" * width for width in widths))
    for row in cells:
        click.echo(line(row))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def print_properties(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print name and value in two columns."""
    shown = [(name, "" if value is None else str(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        label = click.style(name.ljust(width), bold=True) if is_terminal() else name.ljust(width)
        click.echo(f"{label}  {value}".rstrip())


QUIET = "callboard.quiet"
"""Where the context of a command line keeps that `--quiet` was said."""


def is_quiet() -> bool:
    """Whether `--quiet` was said: only results and errors are wanted then."""
    context = click.get_current_context(silent=True)
    return bool(context is not None and context.find_root().meta.get(QUIET))


def note(text: str) -> None:
    """Say something to the person, unless `--quiet` was said, without touching the result on standard output."""
    if not is_quiet():
        click.echo(text, err=True)


def tell_done(format_: str, sentence: str, facts: Mapping[str, Any]) -> None:
    """Tell what a command has done: a sentence to a person, the facts of it to a script."""
    if format_ == "json":
        print_json(facts)
    else:
        say(sentence)


def say(text: str) -> None:
    """Tell in a sentence what a command has done; `--quiet` leaves it out, because the exit code says it too."""
    if not is_quiet():
        click.echo(text)


def in_bytes(size_bytes: float) -> str:
    """A size as people say it: `1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def in_seconds(seconds: float) -> str:
    """A duration as people say it: `0.8 s`, `2 min 5 s`, `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def counted(count: int, singular: str, plural: str = "") -> str:
    """`1 document`, `2,345 documents`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
