"""`callboard sync`: make an index equal to a source, once, in this process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from .exits import Exit
from .failures import one_line
from .faults import announce, faults_option, read_fault_plans
from .job import JOB_TYPES
from .options import Command, again, destination_options, format_option
from .settings import parse_assignments
from .terminal import counted, in_bytes, in_seconds, is_quiet, note, print_json

if TYPE_CHECKING:
    from ..actors.extraction import ExtractionSettings
    from ..actors.rehearsal import Rehearsal
    from ..node.faults import FaultPlans
    from .destination import Destination
    from .one_shot import Ended


@attrs.frozen
class Wish:
    """What a person asks for with one command line."""

    service_type: str
    values: dict[str, str] = attrs.field(repr=False)
    index_name: str
    kind: str
    quiet: bool = False
    extraction: ExtractionSettings | None = None
    """How files become text, if a configuration file says it."""
    faults: FaultPlans | None = None


@click.command(cls=Command)
@click.argument("service_type")
@click.option(
    "--set",
    "assignments",
    metavar="FIELD=VALUE",
    multiple=True,
    help="A setting of the source; repeatable. `callboard source describe SERVICE_TYPE` shows them.",
)
@click.option(
    "--set-file",
    "files",
    metavar="FIELD=FILE",
    multiple=True,
    help="A setting whose value is the first line of a file, for passwords; repeatable.",
)
@click.option(
    "--index", "index_name", metavar="NAME", required=True, help="The index to fill; made if it does not exist."
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(JOB_TYPES, case_sensitive=False),
    default="full",
    show_default=True,
    help="Everything, what has changed, or who may see what.",
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be indexed, changed and deleted, and write nothing anywhere."
)
@faults_option("Inject faults on the way to the server, as this YAML plan says, loudly marked.")
@destination_options
@format_option("text", "json", default="text")
def sync(
    service_type: str,
    assignments: tuple[str, ...],
    files: tuple[str, ...],
    index_name: str,
    kind: str,
    dry_run: bool,
    faults: Path | None,
    format_: str,
    **where: Any,
) -> int:
    """Make an index equal to a source, once.

    New and changed documents are indexed, and what the source no longer has is deleted. The sync is an ordinary job of an ordinary
    connector: both are kept in the server, so that the next sync of the same index needs no settings, and a service can take
    over. Ctrl-C ends it in order. With `callboard -c FILE sync ...`, files become text as FILE says it for a service.

    """
    from ..protocol.indices import check_index_name
    from .catalogue import known_service_type
    from .destination import Destination
    from .running import run_async

    wish = Wish(
        service_type=known_service_type(service_type),
        values=values_given(assignments, files),
        index_name=check_index_name(index_name),
        kind=kind.lower(),
        quiet=is_quiet(),
        extraction=_extraction(),
        faults=read_fault_plans(faults, ("elasticsearch", "network")) if faults else None,
    )
    if dry_run and wish.faults is not None:
        raise click.UsageError(
            "--faults and --dry-run do not go together: a dry run sends nothing that could go wrong."
        )
    if wish.faults is not None:
        announce(wish.faults.shown())
    if dry_run:
        return _rehearsed(Destination.chosen(**where), wish, format_)
    ended = run_async(_sync, Destination.chosen(**where), wish)
    if format_ == "json":
        rehearsal = {} if wish.faults is None else {"rehearsal": wish.faults.shown()}
        print_json({"connector_id": ended.connector_id, **ended.report.as_json(), **rehearsal})
    else:
        print_ended(ended, index_name)
    return exit_code(ended)


def _rehearsed(destination: Destination, wish: Wish, format_: str) -> int:
    """Print what a sync would do, and return the exit code."""
    from .running import run_async

    told = run_async(_rehearse, destination, wish)
    if format_ == "json":
        print_json(attrs.asdict(told))
        return Exit.DONE
    click.echo(
        f"{wish.index_name}: {told.new:,} to index, {told.changed:,} to change, {told.deleted:,} to delete, "
        f"{told.unchanged:,} unchanged; nothing was written."
    )
    if told.dropped:
        click.echo(f"  rules leave out {counted(told.dropped, 'document')}")
    samples = (
        ("index", told.new, told.new_samples),
        ("change", told.changed, told.changed_samples),
        ("delete", told.deleted, told.deleted_samples),
        ("fails", told.failed, told.failures),
    )
    for what, count, shown in samples:
        for each in shown:
            click.echo(f"  {what:<7} {one_line(each)}")
        if count > len(shown):
            click.echo(f"  {what:<7} ... and {count - len(shown):,} more")
    for remark in told.notes:
        note(f"  note: {remark}")
    return Exit.DONE


async def _rehearse(destination: Destination, wish: Wish) -> Rehearsal:
    from ..actors.job_plan import JobFailed
    from ..actors.rehearsal import rehearse
    from ..protocol.documents import JobType
    from .destination import open_destination
    from .failures import CommandFailed
    from .own_connector import connector_as_if

    if destination.embedded is not None and not destination.embedded.exists():
        # The node in memory has the same pipelines as one that is made by a sync, and leaves nothing behind.
        destination = attrs.evolve(destination, embedded=None, is_empty=True)
    async with open_destination(destination) as store:
        connector = await connector_as_if(store, wish.service_type, wish.index_name, wish.values)
        try:
            return await rehearse(store, connector, job_type=JobType(wish.kind))
        except JobFailed as failed:
            raise CommandFailed(str(failed)) from failed


def _extraction() -> ExtractionSettings | None:
    """What the file of `callboard -c FILE` says of extraction. Raises `CommandFailed` if it cannot be used."""
    from pathlib import Path

    from .destination import root_option

    given = root_option("config")
    if given is None:
        return None
    from ..actors.extraction import ExtractionUnavailable, chosen_engine
    from .extraction_options import configured_settings
    from .failures import CommandFailed

    wanted = configured_settings(Path(given))
    try:
        # Asked before anything is made: an engine that is not there must not leave an index behind.
        chosen_engine(wanted)
    except ExtractionUnavailable as unavailable:
        raise CommandFailed(str(unavailable), code=Exit.USAGE) from None
    return wanted


def values_given(assignments: tuple[str, ...], files: tuple[str, ...]) -> dict[str, str]:
    """The settings of `--set` and `--set-file` together. Raises a usage error, or `CommandFailed` for a file."""
    from pathlib import Path

    from .options import read_secret_file

    values = parse_assignments(assignments)
    for name, path in parse_assignments(files).items():
        if name in values:
            raise click.UsageError(f"The field {name!r} is set twice.")
        values[name] = read_secret_file(Path(path).expanduser(), name)
    return values


async def _sync(destination: Destination, wish: Wish) -> Ended:
    from ..actors.reminding import rehearsal_notes
    from .destination import open_destination
    from .embedding import data_folder
    from .one_shot import check_source, run_one_shot
    from .own_connector import connector_for, entered

    configuration = entered(wish.service_type, {}, wish.values) if wish.values else None
    if configuration is not None:
        # Asked before anything is made: a mistyped folder must not leave an index behind.
        await check_source(wish.service_type, configuration)
    with data_folder(destination.embedded) as keep:
        async with open_destination(destination, create=True, extraction=wish.extraction, faults=wish.faults) as store:
            await store.ensure_indices()
            connector = await connector_for(store, wish.service_type, wish.index_name, wish.values, wish.index_name)
            keep()
            title = f"Syncing {wish.service_type} into {wish.index_name}"
            alone = destination.embedded is not None
            return await run_one_shot(
                store,
                connector,
                wish.kind,
                title=title,
                alone=alone,
                quiet=wish.quiet,
                extraction=wish.extraction,
                notes=rehearsal_notes(wish.faults.shown() if wish.faults is not None else ""),
            )


def exit_code(ended: Ended) -> Exit:
    """Done if the job completed; interrupted if a signal ended it; local if a disk is full; failed for all else."""
    if ended.interrupted:
        return Exit.INTERRUPTED
    if ended.report.status == "completed":
        return Exit.DONE
    # A job ends with a sentence and not with an error that could be asked for its kind.
    return Exit.LOCAL if "disk is full" in (ended.report.error or "") else Exit.FAILED


def print_ended(ended: Ended, index_name: str, next_command: Callable[[str], str] = again) -> None:
    """Say in one line how a sync ended, and what could not be indexed in more.

    `next_command` makes of a command what a person can type to run it at the same server.
    """
    report = ended.report
    counts = [
        f"{counted(report.indexed, 'document')} indexed",
        f"{report.deleted:,} deleted",
        f"{report.unchanged:,} unchanged",
        *([f"{report.failed:,} failed"] if report.failed else []),
    ]
    line = f"{', '.join(counts)}; {in_bytes(report.bytes)} in {in_seconds(report.seconds)}."
    match report.status:
        case "completed":
            click.echo(f"{index_name}: {line}")
            note(f"  connector {ended.connector_id}; its jobs: {next_command(f'job list {ended.connector_id}')}")
        case "error":
            note(f"Error: {_reason(report.error)}")
            note(f"       Until then: {line}")
        case status:
            note(f"{status.capitalize()}: {line}")
    for failure in report.failures:
        note(f"  failed: {failure.what}: {one_line(failure.why)}")
    if report.failed > len(report.failures):
        note(f"  ... and {report.failed - len(report.failures):,} more")
    for remark in report.notes:
        note(f"  note: {remark}")
    if report.held_back_deletions:
        note(f"  If these deletions are meant: {next_command(f'job confirm-deletes {report.job_id}')}")


def _reason(error: str | None) -> str:
    # The job document names the class of the error too, for programs; a person reads the sentence.
    return re.sub(r"^[A-Z][A-Za-z]+: (?=\S)", "", one_line(error or "")) or "The sync failed."
