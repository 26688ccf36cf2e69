"""`callboard job log`: the story of one job, from the journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .options import Command, destination_options, format_option
from .terminal import note

if TYPE_CHECKING:
    from ..actors.journal import Entry
    from .destination import Destination

ENTRIES_MAX = 10_000
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


def _print(entries: list[Entry], *, as_json: bool) -> None:
    from ..actors.journal import story

    if as_json:
        lines = [json.dumps(entry.as_document(), ensure_ascii=False) for entry in entries]
    else:
        zone = entries[0].at.astimezone().tzinfo if entries else None
        lines = story(entries, zone=zone)
    for line in lines:
        click.echo(line)


async def _log(destination: Destination, job_id: str, as_json: bool) -> None:
    from ..actors.journal import read_journal
    from .destination import open_destination

    async with open_destination(destination) as store:
        found = [entry for _, entry in await read_journal(store, job_id=job_id, limit=ENTRIES_MAX)]
        if not found:
            await store.jobs.get(job_id)
            note(f"The journal has nothing about the job {job_id}.")
        _print(found, as_json=as_json)


async def _follow(destination: Destination, job_id: str, as_json: bool) -> None:
    from contextlib import aclosing

    from ..actors.journal import follow_journal
    from .destination import open_destination

    async with open_destination(destination) as store:
        await store.jobs.get(job_id)
        async with aclosing(follow_journal(store, job_id)) as pages:
            async for entries in pages:
                _print(entries, as_json=as_json)
                if entries and entries[-1].kind in ENDS:
                    return
