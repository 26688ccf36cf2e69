"""`callboard diff`: what two indices hold, document by document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from .exits import Exit
from .failures import CommandFailed
from .options import Command, again, destination_options, format_option
from .terminal import counted, print_json, print_table

if TYPE_CHECKING:
    from ..actors.difference import Difference
    from ..protocol.store import Store
    from .destination import Destination

VALUE_WIDTH_MAX = 60


@click.command(cls=Command)
@click.argument("left")
@click.argument("right")
@click.option("--right-profile", metavar="NAME", help="RIGHT is at the server of this profile, not beside LEFT.")
@click.option(
    "--ignore", "ignored", metavar="FIELD", multiple=True, help="A field that does not count; may be repeated."
)
@click.option(
    "-n", "--examples", default=20, show_default=True, type=click.IntRange(0, 10_000), help="Show so many differences."
)
@destination_options
@format_option("text", "json", default="text")
def diff(
    left: str,
    right: str,
    right_profile: str | None,
    ignored: tuple[str, ...],
    examples: int,
    format_: str,
    **where: Any,
) -> None:
    """Compare the index LEFT with the index RIGHT, document by document.

    Ends with exit code 0 if they hold the same, and 1 if not. Meant for moving from another connector service: let both sync
    the same source, each into an index of its own, and compare.
    """
    from .destination import Destination
    from .profiles import load_profile
    from .running import run_async

    here = Destination.chosen(**where)
    there = Destination.of_profile(load_profile(right_profile)) if right_profile else None
    found = run_async(_compare, here, there, left, right, ignored, examples)
    if format_ == "json":
        print_json({**attrs.asdict(found, recurse=False), "examples": [attrs.asdict(one) for one in found.examples]})
    else:
        _show(found, left, right)
    if not found.is_empty:
        raise CommandFailed(f"{left!r} and {right!r} do not hold the same.", code=Exit.FAILED)


async def _compare(
    here: Destination, there: Destination | None, left: str, right: str, ignored: tuple[str, ...], examples: int
) -> Difference:
    from ..actors.difference import Place, compare
    from .destination import open_destination

    async with open_destination(here) as store:
        await _check_index(store, left)
        if there is None:
            await _check_index(store, right)
            return await compare(Place(store, left), Place(store, right), ignore=ignored, examples_max=examples)
        async with open_destination(there) as other:
            await _check_index(other, right)
            return await compare(Place(store, left), Place(other, right), ignore=ignored, examples_max=examples)


async def _check_index(store: Store, name: str) -> None:
    from .index import index_exists

    if not await index_exists(store, name):
        raise CommandFailed(f"There is no index {name!r}.", hint=f"See: {again('index list')}", code=Exit.NOT_FOUND)


def _show(found: Difference, left: str, right: str) -> None:
    click.echo(
        f"{counted(found.equal, 'document is', 'documents are')} the same; {found.different:,} differ; "
        f"{found.only_left:,} only in {left!r}; {found.only_right:,} only in {right!r}."
    )
    if found.by_field:
        print_table(["Field", "Documents that differ in it"], found.by_field.most_common(), right=[1])
    rows: list[tuple[str, str, str, str]] = []
    for example in found.examples:
        if example.kind != "different":
            rows.append((example.id, f"only in {left if example.kind == 'only_left' else right}", "", ""))
        rows.extend((example.id, field.field, _short(field.left), _short(field.right)) for field in example.fields)
    if rows:
        click.echo()
        print_table(["Document", "What differs", left, right], rows)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= VALUE_WIDTH_MAX else text[: VALUE_WIDTH_MAX - 1] + "…"
