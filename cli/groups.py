"""A group of commands that are imported only when they run, and listed in sections that a stranger can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import attrs
import click


@attrs.frozen
class Entry:
    """One command: where it is defined (`module:name` inside the command line's package) and its one-line help."""

    where: str
    help: str


@attrs.frozen
class Section:
    """Commands that belong together, under a heading."""

    title: str
    entries: Mapping[str, Entry]


class LazyGroup(click.Group):
    """A click group whose help never imports a command."""

    def __init__(self, *arguments: Any, sections: Sequence[Section], package: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sections, self._package = sections, package
        self._entries = {name: entry for section in sections for name, entry in section.entries.items()}

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        module, _, attribute = entry.where.partition(":")
        command: click.Command = getattr(import_module(f".{module}", self._package), attribute)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if name not in self._entries and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, self._entries, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            context.fail(f"There is no command {name!r}.{meant}")
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self._entries)
        for section in self._sections:
            with formatter.section(section.title):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in section.entries.items()])
