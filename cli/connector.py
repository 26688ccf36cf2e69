"""`callboard connector`: the definitions that link a source to an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .exits import Exit
from .failures import CommandFailed
from .groups import Entry, LazyGroup, Section
from .options import Command, again, destination_options, format_option, yes_option
from .terminal import counted, note, print_json, print_properties, print_table, tell_done

if TYPE_CHECKING:
    from ..protocol.documents import Connector
    from .destination import Destination

SECTIONS = (
    Section(
        "Commands",
        {
            "create": Entry("connector_creation:create", "Create a connector, and the index it fills."),
            "list": Entry("connector:list_", "List the connectors."),
            "show": Entry("connector:show", "Show one connector; secret settings are masked."),
            "edit": Entry("connector_changes:edit", "Change settings of a connector."),
            "schedule": Entry("connector_changes:schedule", "Say when a connector syncs."),
            "enable": Entry("connector_changes:enable", "Let the schedules of a connector fire."),
            "disable": Entry("connector_changes:disable", "Stop the schedules of a connector."),
            "pause": Entry("connector_changes:pause", "Hold all syncs of a connector, at every service."),
            "resume": Entry("connector_changes:resume", "Let a paused connector sync again."),
            "check": Entry(
                "connector_changes:check", "Ask a connector's source whether it answers and takes the settings."
            ),
            "delete": Entry("connector:delete", "Delete a connector; its index stays unless asked."),
        },
    ),
    Section(
        "Deployments in files",
        {
            "export": Entry("connector_files:export", "Write connectors as YAML, for version control."),
            "apply": Entry(
                "connector_files:apply", "Make the connectors equal to a file, after showing the difference."
            ),
            "import": Entry(
                "connector_files:import_",
                "Create or change the connectors that a file describes; the same as apply -f FILE.",
            ),
        },
    ),
)


@click.group(cls=LazyGroup, sections=SECTIONS, package=__package__, invoke_without_command=True)
@click.pass_context
def connector(context: click.Context) -> None:
    """Create, look at and change connectors."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command("list", cls=Command)
@destination_options
@format_option("table", "json", default="table")
def list_(format_: str, **where: Any) -> None:
    """List the connectors."""
    from .destination import Destination
    from .running import run_async

    found = run_async(_list, Destination.chosen(**where))
    if format_ == "json":
        print_json([summary(each) for each in found])
    elif not found:
        note("There are no connectors.")
    else:
        note(f"{counted(len(found), 'connector')}:")
        headers = ["ID", "Name", "Index name", "Service type", "Status", "Last sync job status"]
        print_table(headers, [list(summary(each).values())[:6] for each in found])


async def _list(destination: Destination) -> list[Connector]:
    from ..protocol.store import NotFound
    from .destination import open_destination

    async with open_destination(destination) as store:
        try:
            return [each async for each in store.connectors.list()]
        except NotFound:
            # Nobody has made the protocol's indices yet, so there is nothing in them.
            return []


@click.command(cls=Command)
@click.argument("connector_id")
@destination_options
@format_option("text", "json", default="text")
def show(connector_id: str, format_: str, **where: Any) -> None:
    """Show one connector; secret settings are masked."""
    from .destination import Destination
    from .running import run_async

    found = run_async(_get, Destination.chosen(**where), connector_id)
    if format_ == "json":
        print_json(as_json(found))
    else:
        _print_connector(found)


async def _get(destination: Destination, connector_id: str) -> Connector:
    from .destination import open_destination

    async with open_destination(destination) as store:
        return await store.connectors.get(connector_id)


@click.command(cls=Command)
@click.argument("connector_id")
@click.option("--with-index", is_flag=True, help="Delete its index too, with everything in it.")
@click.option("--purge", is_flag=True, help="Remove the document instead of marking it, and the records of its jobs.")
@yes_option
@destination_options
@format_option("text", "json", default="text")
def delete(connector_id: str, with_index: bool, purge: bool, yes: bool, format_: str, **where: Any) -> None:
    """Delete a connector; its index stays unless asked."""
    from .destination import Destination
    from .prompting import confirm
    from .running import run_async

    also = " and its index with everything in it" if with_index else ""
    if not confirm(f"Delete the connector {connector_id}{also}?", yes=yes):
        raise CommandFailed("Nothing was deleted.", code=Exit.FAILED)
    deleted = run_async(_delete, Destination.chosen(**where), connector_id, with_index, purge)
    kept = "" if with_index or deleted.index_name is None else f" Its index {deleted.index_name!r} is kept."
    tell_done(
        format_,
        f"Deleted the connector {connector_id}.{kept}",
        {"id": connector_id, "deleted": True, "index_name": deleted.index_name, "index_deleted": with_index},
    )


async def _delete(destination: Destination, connector_id: str, with_index: bool, purge: bool) -> Connector:
    from .destination import open_destination

    async with open_destination(destination) as store:
        found = await store.connectors.get(connector_id)
        running = [each.id async for each in store.jobs.list(connector_ids=[connector_id]) if each.status.is_running]
        if running:
            raise CommandFailed(
                f"The job {running[0]} of connector {connector_id} is running.",
                hint=f"End it first: {again(f'job cancel {running[0]}')}",
            )
        await store.connectors.delete(connector_id, hard=purge)
        if purge:
            await store.jobs.delete_of(connector_id)
        if with_index and found.index_name is not None:
            await store.content.delete_index(found.index_name)
        return found


def summary(found: Connector) -> dict[str, Any]:
    """The facts of a connector that lists show and scripts read."""
    return {
        "id": found.id,
        "name": found.name,
        "index_name": found.index_name,
        "service_type": found.service_type,
        "status": found.status.value,
        "last_sync_status": found.last_sync_status.value if found.last_sync_status else None,
        "last_synced": found.last_synced,
        "error": found.error,
    }


def as_json(found: Connector) -> dict[str, Any]:
    """The whole document for scripts, with secret settings masked."""
    from ..protocol.configuration import masked
    from ..protocol.documents import write_connector

    document = write_connector(found)
    return {"id": found.id, **document, "configuration": masked(found.configuration)}


def _print_connector(found: Connector) -> None:
    from ..protocol.configuration import masked
    from ..protocol.documents import JobType
    from ..protocol.pausing import pause_of
    from .settings import values_of

    facts = [(name.replace("_", " ").capitalize(), value) for name, value in summary(found).items()]
    facts += [
        ("Documents indexed last", found.last_indexed_document_count),
        ("Documents deleted last", found.last_deleted_document_count),
        ("Last seen by a service", found.last_seen),
        ("Paused", str(pause_of(found) or "").removeprefix("paused ") or None),
    ]
    print_properties((name, value) for name, value in facts if value is not None)
    click.echo("\nSchedules")
    for job_type in JobType:
        schedule = found.scheduling.of(job_type)
        state = f"on, {schedule.interval}" if schedule.enabled else "off"
        click.echo(f"  {job_type.value:<15} {state}")
    click.echo("\nSettings")
    values = values_of(masked(found.configuration))
    for name, value in values.items():
        click.echo(f"  {name} = {value}")
    if not values:
        click.echo("  none yet; a service fills in the fields, or set them: callboard connector edit")
