"""`callboard dead-letters`: the documents that could not be read, extracted or indexed, and another try for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .exits import Exit
from .failures import CommandFailed
from .groups import Entry, LazyGroup, Section
from .options import Command, again, destination_options, format_option, yes_option
from .terminal import counted, note, print_json, print_table

if TYPE_CHECKING:
    from .destination import Destination

SHOWN_MAX = 1_000
"""Letters in a table; JSON has them all."""

SECTIONS = (
    Section(
        "Commands",
        {
            "list": Entry(
                "dead_letters:list_", "List the documents that could not be read, extracted or indexed, and why."
            ),
            "replay": Entry(
                "dead_letters:replay", "Have the next sync try failed documents again, however unchanged they look."
            ),
        },
    ),
)


@click.group("dead-letters", cls=LazyGroup, sections=SECTIONS, package=__package__, invoke_without_command=True)
@click.pass_context
def dead_letters(context: click.Context) -> None:
    """See which documents failed, and have them tried again."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command("list", cls=Command)
@click.option("--index", "index_name", metavar="NAME", help="Only those of this index.")
@click.option("--job", "job_id", metavar="JOB_ID", help="Only those of this job.")
@destination_options
@format_option("table", "json", default="table")
def list_(index_name: str | None, job_id: str | None, format_: str, **where: Any) -> None:
    """List the documents that could not be read, extracted or indexed, and why."""
    from .destination import Destination
    from .running import run_async

    letters_max = SHOWN_MAX if format_ == "table" else None
    letters = run_async(_list, Destination.chosen(**where), index_name, job_id, letters_max)
    if format_ == "json":
        print_json(letters)
    elif not letters:
        note("There are no dead letters.")
    else:
        shown = letters[:SHOWN_MAX]
        more = "The first " if len(letters) > SHOWN_MAX else ""
        note(f"{more}{counted(len(shown), 'dead letter')}:")
        headers = ["Document", "Index", "Failed in", "Why", "Times", "Last seen", "Replay"]
        names = ("what", "index", "where", "why", "times", "last_seen", "replay")
        print_table(headers, [[one.get(name) or "" for name in names] for one in shown], right=[4])


async def _list(
    destination: Destination, index_name: str | None, job_id: str | None, letters_max: int | None
) -> list[dict[str, Any]]:
    from contextlib import aclosing

    from ..actors.sync import list_dead_letters
    from .destination import open_destination

    found: list[dict[str, Any]] = []
    async with (
        open_destination(destination) as store,
        aclosing(list_dead_letters(store, index=index_name, job_id=job_id)) as letters,
    ):
        async for letter in letters:
            found.append(letter)
            # One more than is shown tells that there are more.
            if letters_max is not None and len(found) > letters_max:
                break
    return found


@click.command(cls=Command)
@click.option("--index", "index_name", metavar="NAME", help="Those of this index.")
@click.option("--job", "job_id", metavar="JOB_ID", help="Those of this job.")
@click.option(
    "--now", is_flag=True, help="Request a full sync of their connectors at once; what is unchanged stays as it is."
)
@yes_option
@destination_options
def replay(index_name: str | None, job_id: str | None, now: bool, yes: bool, **where: Any) -> None:
    """Have the next sync try failed documents again, however unchanged they look.

    A letter whose document succeeds is removed. A sync that reads only the changes of a source leaves the marks to the next full one.
    """
    from .destination import Destination
    from .prompting import confirm
    from .running import run_async

    if index_name is None and job_id is None:
        raise click.UsageError("Say which dead letters are meant: --index NAME, --job JOB_ID, or both.")
    if not confirm("Have the next sync try these documents again?", yes=yes):
        raise CommandFailed("Nothing was marked.", code=Exit.FAILED)
    marked, jobs = run_async(_replay, Destination.chosen(**where), index_name, job_id, now)
    if not marked:
        note("There are no such dead letters.")
    else:
        click.echo(f"The next sync tries {counted(marked, 'document')} again.")
        for job in jobs:
            click.echo(f"Requested: job {job}. Watch it: {again(f'job follow {job}')}")
        if now and not jobs:
            note("No connector has put these documents there, so their sync has to be run as before.")


async def _replay(
    destination: Destination, index_name: str | None, job_id: str | None, now: bool
) -> tuple[int, list[str]]:
    from ..actors.sync import replay_dead_letters, request_replay
    from .destination import open_destination

    async with open_destination(destination) as store:
        marked = await replay_dead_letters(store, index=index_name, job_id=job_id)
        jobs = await request_replay(store, index=index_name, job_id=job_id) if now and marked else ()
        return marked, [str(job.id) for job in jobs]
