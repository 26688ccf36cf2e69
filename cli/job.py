"""`callboard job`: the runs of connectors, wanted, running and over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .exits import Exit
from .failures import CommandFailed
from .groups import Entry, LazyGroup, Section
from .options import Command, again, destination_options, format_option, yes_option
from .terminal import counted, note, print_json, print_properties, print_table, tell_done

if TYPE_CHECKING:
    from ..protocol.documents import Connector, JobType, SyncJob
    from .destination import Destination

JOB_TYPES = ("full", "incremental", "access_control")

SECTIONS = (
    Section(
        "Commands",
        {
            "start": Entry("job:start", "Ask for a sync of a connector."),
            "list": Entry("job:list_", "List the jobs of a connector, or of all, oldest first."),
            "view": Entry("job:view", "Show one job."),
            "follow": Entry("job_follow:follow", "Watch a job until it ends."),
            "log": Entry("job_log:log", "Tell the story of a job."),
            "cancel": Entry("job:cancel", "Ask for the end of a job."),
            "confirm-deletes": Entry("job:confirm_deletes", "Carry out the deletions that a job has held back."),
        },
    ),
)


@click.group(cls=LazyGroup, sections=SECTIONS, package=__package__, invoke_without_command=True)
@click.pass_context
def job(context: click.Context) -> None:
    """Start, watch and cancel sync jobs."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command(cls=Command)
@click.option("-i", "--connector-id", metavar="CONNECTOR_ID", required=True, help="The connector to sync.")
@click.option(
    "-t",
    "--job-type",
    type=click.Choice(JOB_TYPES, case_sensitive=False),
    required=True,
    help="What to sync: everything, what has changed, or who may see what.",
)
@destination_options
@format_option("text", "json", default="text")
def start(connector_id: str, job_type: str, format_: str, **where: Any) -> None:
    """Ask for a sync of a connector.

    The job waits until a service that looks after the connector claims it.
    """
    from ..protocol.documents import JobType
    from .destination import Destination
    from .running import run_async

    made = run_async(_start, Destination.chosen(**where), connector_id, JobType(job_type.lower()))
    if format_ == "json":
        print_json({"id": made.id})
    else:
        click.echo(f"The job {made.id} waits for a service to run it.")
        note(f"  Watch it: {again(f'job follow {made.id}')}")


async def _start(destination: Destination, connector_id: str, job_type: JobType) -> SyncJob:
    from .destination import open_destination

    async with open_destination(destination) as store:
        connector = await store.connectors.get(connector_id)
        refuse_impossible(connector, job_type)
        return await store.jobs.create(connector, job_type)


def refuse_impossible(connector: Connector, job_type: JobType) -> None:
    """Raise `CommandFailed` if the connector's source cannot do such a sync, as far as its features are known."""
    from ..protocol.documents import JobType

    features = connector.features
    if features is None:
        # No service has looked at the connector yet, so nobody knows.
        return
    if job_type is JobType.INCREMENTAL and not features.incremental_sync_enabled:
        raise CommandFailed(
            f"The source {connector.service_type!r} of connector {connector.id} has no incremental sync.",
            hint="Start a full one: -t full",
        )
    if job_type is JobType.ACCESS_CONTROL and not features.document_level_security_enabled:
        raise CommandFailed(
            f"The source {connector.service_type!r} of connector {connector.id} has no document-level security, "
            "so there is no access control to sync."
        )


@click.command("list", cls=Command)
@click.argument("connector_id", required=False)
@destination_options
@format_option("table", "json", default="table")
def list_(connector_id: str | None, format_: str, **where: Any) -> None:
    """List the jobs of a connector, or of all, oldest first."""
    from .destination import Destination
    from .running import run_async

    jobs = run_async(_list, Destination.chosen(**where), connector_id)
    if format_ == "json":
        print_json([summary(each) for each in jobs])
    elif not jobs:
        note(f"The connector {connector_id} has no jobs." if connector_id else "There are no jobs.")
    else:
        note(f"{counted(len(jobs), 'job')}:")
        headers = ["Job id", "Connector id", "Index name", "Job status", "Job type"]
        headers += ["Documents indexed", "Volume documents indexed (MiB)", "Documents deleted"]
        print_table(headers, [list(summary(each).values()) for each in jobs], right=[5, 6, 7])


async def _list(destination: Destination, connector_id: str | None) -> list[SyncJob]:
    from ..protocol.store import NotFound
    from .destination import open_destination

    async with open_destination(destination) as store:
        if connector_id is None:
            try:
                return [each async for each in store.jobs.list()]
            except NotFound:
                # Nobody has made the protocol's indices yet, so there is nothing in them.
                return []
        jobs = [each async for each in store.jobs.list(connector_ids=[connector_id])]
        if not jobs:
            # Nothing to list is an answer only for a connector that exists.
            await store.connectors.get(connector_id, include_deleted=True)
        return jobs


@click.command(cls=Command)
@click.argument("job_id")
@destination_options
@format_option("text", "json", default="text")
def view(job_id: str, format_: str, **where: Any) -> None:
    """Show one job."""
    from .destination import Destination
    from .running import run_async

    found = run_async(_view, Destination.chosen(**where), job_id)
    if format_ == "json":
        print_json(summary(found))
    else:
        print_properties(details(found))


async def _view(destination: Destination, job_id: str) -> SyncJob:
    from .destination import open_destination

    async with open_destination(destination) as store:
        return await store.jobs.get(job_id)


@click.command(cls=Command)
@click.argument("job_id")
@yes_option
@destination_options
@format_option("text", "json", default="text")
def cancel(job_id: str, yes: bool, format_: str, **where: Any) -> None:
    """Ask for the end of a job.

    A job that nobody runs is canceled at once; a running one as soon as its service has stopped it in order.
    """
    from .destination import Destination
    from .prompting import confirm
    from .running import run_async

    if not confirm(f"Cancel the job {job_id}?", yes=yes):
        raise CommandFailed("Nothing was canceled.", code=Exit.FAILED)
    after = run_async(_cancel, Destination.chosen(**where), job_id)
    outcome = "canceled" if after.status.is_terminal else "asked to stop"
    tell_done(format_, f"The job {job_id} is {outcome}.", summary(after))


async def _cancel(destination: Destination, job_id: str) -> SyncJob:
    from .destination import open_destination

    async with open_destination(destination) as store:
        found = await store.jobs.get(job_id)
        if found.status.is_terminal:
            raise CommandFailed(f"The job {job_id} is over already: {found.status.value}.")
        return await store.jobs.request_cancel(job_id)


@click.command("confirm-deletes", cls=Command)
@click.argument("job_id")
@yes_option
@destination_options
@format_option("text", "json", default="text")
def confirm_deletes(job_id: str, yes: bool, format_: str, **where: Any) -> None:
    """Carry out the deletions that a job has held back.

    A sync that would delete an unusual number of documents keeps them and waits for a person, because a source that is half there looks
    just the same. Documents that were written again since are kept.
    """
    from .destination import Destination
    from .prompting import confirm
    from .running import run_async

    if not confirm(f"Delete what the job {job_id} has held back?", yes=yes):
        raise CommandFailed("Nothing was deleted.", code=Exit.FAILED)
    deleted, kept = run_async(_confirm_deletions, Destination.chosen(**where), job_id)
    also = f" {counted(kept, 'document was', 'documents were')} written again since and kept." if kept else ""
    tell_done(
        format_,
        f"Deleted {counted(deleted, 'document')}.{also}",
        {"job_id": job_id, "documents_deleted": deleted, "documents_kept": kept},
    )


async def _confirm_deletions(destination: Destination, job_id: str) -> tuple[int, int]:
    from ..actors.sync.state import confirm_deletions
    from .destination import open_destination

    async with open_destination(destination) as store:
        confirmed = await confirm_deletions(store, job_id)
        return confirmed.deleted, confirmed.changed_since


def summary(found: SyncJob) -> dict[str, Any]:
    """The facts of a job that scripts read."""
    return {
        "job_id": found.id,
        "connector_id": found.connector.id,
        "index_name": found.connector.index_name,
        "job_status": found.status.value,
        "job_type": found.job_type.value,
        "documents_indexed": found.indexed_document_count,
        "volume_documents_indexed": found.indexed_document_volume,
        "documents_deleted": found.deleted_document_count,
    }


def details(found: SyncJob) -> list[tuple[str, Any]]:
    """Everything a person wants to know of a job; what is not known yet is left out."""
    facts = summary(found)
    shown: list[tuple[str, Any]] = [(name.replace("_", " ").capitalize(), value) for name, value in facts.items()]
    shown[6] = ("Volume documents indexed", f"{facts['volume_documents_indexed']} MiB")
    shown += [
        ("Documents in the index", found.total_document_count),
        ("Started by", found.trigger_method.value.replace("_", " ")),
        ("Created at", found.created_at),
        ("Started at", found.started_at),
        ("Completed at", found.completed_at or found.canceled_at),
        ("Last seen", None if found.status.is_terminal else found.last_seen),
        ("Worker", found.worker_hostname),
        ("Error", found.error),
    ]
    return [(name, value) for name, value in shown if value is not None]
