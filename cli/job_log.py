"""`callboard job log`: the story of one job, from the journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .options import Command, destination_options, format_option
from .terminal import note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..actors.journal import Entry, Narrator
    from .destination import Destination

ENDS = frozenset({"job_completed", "job_failed", "job_suspended", "job_cancelled", "job_lost"})


@click.command(cls=Command)
@click.argument("job_id")
@click.option("--follow", is_flag=True, help="Go on as it happens, until the job ends.")
@destination_options
@format_option("text", "json", default="text")
def log(job_id: str, follow: bool, format_: str, **where: Any) -> None:
    """Tell the story of a job.

    A service keeps the journal (`callboard.journal`). Times are those of this machine; JSON has one entry per line.
    """
    from .destination import Destination
    from .running import run_async

    run_async(_follow if follow else _log, Destination.chosen(**where), job_id, format_ == "json")


class _Printer:
    """Prints entries as they come, as sentences or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._narrator: Narrator | None = None

    def add(self, entries: Iterable[Entry]) -> None:
        """Print what comes next, in order."""
        from ..actors.journal import Narrator

        for entry in entries:
            if self._as_json:
                click.echo(json.dumps(entry.as_document(), ensure_ascii=False))
                continue
            if self._narrator is None:
                self._narrator = Narrator(zone=entry.at.astimezone().tzinfo)
            self._echo(self._narrator.add([entry]))

    def end(self) -> None:
        """Nothing comes for now."""
        if self._narrator is not None:
            self._echo(self._narrator.end())

    def _echo(self, lines: Iterable[str]) -> None:
        for line in lines:
            click.echo(line)


async def _log(destination: Destination, job_id: str, as_json: bool) -> None:
    from contextlib import aclosing

    from ..actors.journal import journal_pages
    from .destination import open_destination

    printer, found = _Printer(as_json=as_json), False
    async with open_destination(destination) as store:
        async with aclosing(journal_pages(store, job_id=job_id)) as pages:
            async for page in pages:
                found = found or bool(page)
                printer.add(entry for _, entry in page)
        printer.end()
        if not found:
            await store.jobs.get(job_id)
            note(f"The journal has nothing about the job {job_id}.")


async def _follow(destination: Destination, job_id: str, as_json: bool) -> None:
    from contextlib import aclosing

    from ..actors.journal import follow_journal
    from .destination import open_destination

    printer = _Printer(as_json=as_json)
    async with open_destination(destination) as store:
        await store.jobs.get(job_id)
        async with aclosing(follow_journal(store, job_id)) as pages:
            async for entries in pages:
                printer.add(entries)
                printer.end()
                if entries and entries[-1].kind in ENDS:
                    return
