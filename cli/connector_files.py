"""`callboard connector export|apply|import`: a deployment kept under version control."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .deployment import Change, Wanted, apply_to, difference, exported, read_deployment
from .exits import Exit
from .failures import CommandFailed
from .options import Command, destination_options, format_option, yes_option
from .prompting import confirm
from .terminal import counted, is_terminal, note, print_json, tell_done

if TYPE_CHECKING:
    from ..protocol.documents import Connector
    from ..protocol.store import Store
    from .destination import Destination

_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "delete": ("-", "red")}


@click.command(cls=Command)
@click.argument("connector_ids", nargs=-1)
@destination_options
@format_option("yaml", "json", default="yaml")
def export(connector_ids: tuple[str, ...], format_: str, **where: Any) -> None:
    """Write connectors as YAML, for version control.

    All of them if none is named. Secret settings are left out; in the file they can be written as ${NAME}, which `apply` takes
    from the environment.
    """
    import yaml

    from .destination import Destination
    from .running import run_async

    connectors = run_async(_read, Destination.chosen(**where), connector_ids)
    if format_ == "json":
        print_json(exported(connectors))
        return
    click.echo(yaml.safe_dump(exported(connectors), sort_keys=False, allow_unicode=True, width=120), nl=False)


async def _read(destination: Destination, connector_ids: Sequence[str]) -> list[Connector]:
    from .destination import open_destination

    async with open_destination(destination) as store:
        if connector_ids:
            return [await store.connectors.get(each) for each in connector_ids]
        return await _all(store)


async def _all(store: Store) -> list[Connector]:
    from ..protocol.store import NotFound

    try:
        return [each async for each in store.connectors.list()]
    except NotFound:
        return []


def _apply(file: Path, prune: bool, dry_run: bool, yes: bool, format_: str, where: dict[str, Any]) -> None:
    from .destination import Destination
    from .running import run_async

    wanted = read_deployment(_read_yaml(file), os.environ)
    destination = Destination.chosen(**where)
    changes = run_async(_plan, destination, wanted, prune)
    facts: dict[str, Any] = {
        "changes": [{"id": each.id, "kind": each.kind, "lines": list(each.lines)} for each in changes],
        "made": False,
    }
    if format_ == "text":
        for change in changes:
            _print_change(change)
    if not changes:
        as_it_is = counted(len(wanted), "connector is", "connectors are")
        tell_done(format_, f"Nothing to change: {as_it_is} as the file says.", facts)
        return
    if dry_run:
        tell_done(format_, f"{counted(len(changes), 'change')}; nothing was done.", facts)
        return
    if not confirm(f"Make {counted(len(changes), 'change')}?", yes=yes):
        raise CommandFailed("Nothing was changed.", code=Exit.FAILED)
    run_async(_carry_out, destination, changes)
    tell_done(format_, f"Made {counted(len(changes), 'change')}.", {**facts, "made": True})


_FILE = click.Path(path_type=Path)
_PRUNE = click.option(
    "--prune", is_flag=True, help="Delete connectors that the file does not mention; their indices stay."
)
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")


@click.command(cls=Command)
@click.option("-f", "--file", metavar="FILE", type=_FILE, required=True, help="The YAML file.")
@_PRUNE
@_DRY_RUN
@yes_option
@destination_options
@format_option("text", "json", default="text")
def apply(file: Path, prune: bool, dry_run: bool, yes: bool, format_: str, **where: Any) -> None:
    """Make the connectors equal to a file, after showing the difference.

    Connectors that the file does not mention stay, unless --prune is given. So does whatever the file does not say of those
    that it mentions. Secret settings are written as ${NAME} and taken from the environment.
    """
    _apply(file, prune, dry_run, yes, format_, where)


@click.command("import", cls=Command)
@click.argument("file", metavar="FILE", type=_FILE)
@yes_option
@destination_options
@format_option("text", "json", default="text")
def import_(file: Path, yes: bool, format_: str, **where: Any) -> None:
    """Create or change the connectors that a file describes; the same as apply -f FILE."""
    _apply(file, prune=False, dry_run=False, yes=yes, format_=format_, where=where)


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandFailed(f"There is no file {str(path)!r}.", code=Exit.NOT_FOUND) from None
    except OSError as error:
        raise CommandFailed(f"{str(path)!r} cannot be read: {error.strerror}.", code=Exit.LOCAL) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CommandFailed(f"{str(path)!r} is not YAML{where}.", code=Exit.USAGE) from None


async def _plan(destination: Destination, wanted: Sequence[Wanted], prune: bool) -> list[Change]:
    from .destination import open_destination

    async with open_destination(destination) as store:
        present = {connector.id: connector for connector in await _all(store)}
    changes = []
    for each in wanted:
        before = present.get(each.id)  # type: ignore[call-overload]
        after = apply_to(each, before or _blank(each), _described)
        lines = difference(before, after, each.secret_fields)
        if before is None:
            changes.append(Change(each.id, "create", lines, each))
        elif lines:
            changes.append(Change(each.id, "change", lines, each))
    if prune:
        kept = {each.id for each in wanted}
        changes += [Change(each, "delete", (), None) for each in present if each not in kept]
    return changes


def _blank(wanted: Wanted) -> Connector:
    from ..protocol import connectors as transitions
    from ..runtime import now

    return transitions.create(wanted.id, now(), service_type=wanted.service_type, name=wanted.id)


def _described(service_type: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    from ..protocol.configuration import upkeep
    from .catalogue import source_type

    return dict(upkeep(stored, source_type(service_type).Config).configuration)


async def _carry_out(destination: Destination, changes: Sequence[Change]) -> None:
    from .destination import open_destination

    done = 0
    async with open_destination(destination, create=True) as store:
        await store.ensure_indices()
        try:
            for change in changes:
                await _change(store, change)
                done += 1
        except BaseException:
            if done:
                note(f"{counted(done, 'change was', 'changes were')} made before this; apply again after mending it.")
            raise


async def _change(store: Store, change: Change) -> None:
    wanted = change.wanted
    if wanted is None:
        await store.connectors.delete(change.id)
        return
    if change.kind == "create":
        await store.connectors.create(
            wanted.id,
            index_name=wanted.fields.get("index_name"),
            name=wanted.fields.get("name") or wanted.id,
            service_type=wanted.service_type,
            is_native=wanted.fields.get("is_native", False),
        )
    # Decided again on the document as it is now: somebody may have changed it since the difference was shown.
    await store.connectors.update(change.id, lambda connector: apply_to(wanted, connector, _described))


def _print_change(change: Change) -> None:
    sign, colour = _SIGNS[change.kind]
    head = f"{sign} {change.id}"
    click.echo(click.style(head, fg=colour, bold=True) if is_terminal() else head)
    for line in change.lines:
        click.echo(f"    {line}")
