"""`callboard index`: what is in the server, and emptying or deleting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .exits import Exit
from .failures import CommandFailed
from .groups import Entry, LazyGroup, Section
from .options import Command, destination_options, format_option, yes_option
from .terminal import counted, note, print_json, print_table, tell_done

if TYPE_CHECKING:
    from ..protocol.store import Store
    from .destination import Destination

SECTIONS = (
    Section(
        "Commands",
        {
            "list": Entry("index:list_", "List the indices and how many documents they hold."),
            "clean": Entry("index:clean", "Delete every document of an index, and keep the index."),
            "delete": Entry("index:delete", "Delete an index with everything in it."),
        },
    ),
)


@click.group(cls=LazyGroup, sections=SECTIONS, package=__package__, invoke_without_command=True)
@click.pass_context
def index(context: click.Context) -> None:
    """List, empty and delete indices."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command("list", cls=Command)
@destination_options
@format_option("table", "json", default="table")
def list_(format_: str, **where: Any) -> None:
    """List the indices and how many documents they hold."""
    from .destination import Destination
    from .running import run_async

    rows = run_async(_list, Destination.chosen(**where))
    if format_ == "json":
        print_json([{"index": name, "documents": documents} for name, documents in rows])
    elif not rows:
        note("There are no indices.")
    else:
        note(f"{counted(len(rows), 'index', 'indices')}:")
        shown = [(name, "unknown" if documents is None else f"{documents}") for name, documents in rows]
        print_table(["Index name", "Number of documents"], shown, right=[1])


async def _list(destination: Destination) -> list[tuple[str, int | None]]:
    from ..protocol.store import NotSupported
    from .destination import open_destination

    async with open_destination(destination) as store:
        try:
            answer = await store.client.cat.indices(format="json", h="index,docs.count", expand_wildcards="open")
        except NotSupported:
            # A serverless project tells names, and no counts.
            named = await store.client.indices.get(index="*", expand_wildcards="open")
            return sorted((name, None) for name in named.body)
        entries: Any = answer.body
        counts = {entry["index"]: entry.get("docs.count") for entry in entries}
        visible = {name: count for name, count in counts.items() if not name.startswith(".")}
        return sorted((name, None if count is None else int(count)) for name, count in visible.items())


@click.command(cls=Command)
@click.argument("index_name", metavar="INDEX")
@yes_option
@destination_options
@format_option("text", "json", default="text")
def clean(index_name: str, yes: bool, format_: str, **where: Any) -> None:
    """Delete every document of an index, and keep the index."""
    _confirmed(f"Delete all documents of {index_name!r}?", index_name, yes)
    from .destination import Destination
    from .running import run_async

    deleted = run_async(_clean, Destination.chosen(**where), index_name)
    tell_done(
        format_,
        f"Deleted {counted(deleted, 'document')} of {index_name!r}.",
        {"index": index_name, "documents_deleted": deleted},
    )


async def _clean(destination: Destination, index_name: str) -> int:
    from .destination import open_destination

    async with open_destination(destination) as store:
        answer = await store.client.delete_by_query(index=index_name, query={"match_all": {}}, refresh=True)
    failures = answer.body.get("failures") or []
    if failures:
        raise CommandFailed(
            f"{counted(len(failures), 'document')} of {index_name!r} could not be deleted; "
            f"{counted(answer.body['deleted'], 'was', 'were')}.",
            hint="Run it again; if the same remain, look at the server's log.",
        )
    deleted: int = answer.body["deleted"]
    return deleted


@click.command(cls=Command)
@click.argument("index_name", metavar="INDEX")
@yes_option
@destination_options
@format_option("text", "json", default="text")
def delete(index_name: str, yes: bool, format_: str, **where: Any) -> None:
    """Delete an index with everything in it."""
    _confirmed(f"Delete the index {index_name!r} with everything in it?", index_name, yes)
    from .destination import Destination
    from .running import run_async

    run_async(_delete, Destination.chosen(**where), index_name)
    tell_done(format_, f"Deleted the index {index_name!r}.", {"index": index_name, "deleted": True})


async def _delete(destination: Destination, index_name: str) -> None:
    from .destination import open_destination

    async with open_destination(destination) as store:
        await store.client.indices.delete(index=index_name)


def _confirmed(question: str, index_name: str, yes: bool) -> None:
    if any(sign in index_name for sign in "*,?") or index_name in {"_all", ""}:
        raise click.UsageError(
            "Name one index; patterns and lists are not taken here, because nothing can be taken back."
        )
    from .prompting import confirm

    if not confirm(question, yes=yes):
        raise CommandFailed("Nothing was deleted.", code=Exit.FAILED)


async def index_exists(store: Store, index_name: str) -> bool:
    """Whether there is an index, or an alias, of this name."""
    return bool(await store.client.indices.exists(index=index_name))
