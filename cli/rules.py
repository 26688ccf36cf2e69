"""`callboard rules`: try sync rules before they decide what is indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from .exits import Exit
from .failures import CommandFailed
from .groups import Entry, LazyGroup, Section
from .options import Command, destination_options, format_option
from .search import shorten_title
from .terminal import counted, is_terminal, note, print_json

if TYPE_CHECKING:
    from ..protocol.documents import Rule
    from .destination import Destination

SECTIONS = (
    Section("Commands", {"test": Entry("rules:test", "Show which documents of a source a set of rules keeps.")}),
)
_TITLE_FIELDS = ("title", "name", "path", "subject", "url")


@attrs.frozen
class Sampled:
    """One document of the source, and what the rules say to it."""

    id: str
    title: str
    kept: bool


@click.group(cls=LazyGroup, sections=SECTIONS, package=__package__, invoke_without_command=True)
@click.pass_context
def rules(context: click.Context) -> None:
    """Try sync rules before they decide what is indexed."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command(cls=Command)
@click.argument("connector_id")
@click.option("--draft", is_flag=True, help="Try the draft rules instead of the active ones.")
@click.option(
    "--rule",
    "texts",
    metavar="RULE",
    multiple=True,
    help='Try these rules instead, in this order, such as "exclude path ends_with .tmp"; repeatable.',
)
@click.option(
    "--sample",
    default=200,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Look at this many documents at most.",
)
@click.option("--all", "show_all", is_flag=True, help="Show what is kept too, not only what is dropped.")
@destination_options
@format_option("text", "json", default="text")
def test(
    connector_id: str, draft: bool, texts: tuple[str, ...], sample: int, show_all: bool, format_: str, **where: Any
) -> None:
    """Show which documents of a source a set of rules keeps.

    Reads the first documents of the connector's source and asks the rules about each. Nothing is written and no content is
    fetched. The first rule that matches a document decides; what no rule matches is kept.
    """
    from .destination import Destination
    from .running import run_async

    given = [read_rule(number, text) for number, text in enumerate(texts)]
    tried = run_async(_test, Destination.chosen(**where), connector_id, draft, given, sample)
    kept = sum(each.kept for each in tried)
    if format_ == "json":
        listed = [attrs.asdict(each) for each in tried]
        print_json({"sampled": len(tried), "kept": kept, "dropped": len(tried) - kept, "documents": listed})
        return
    for each in tried:
        if show_all or not each.kept:
            sign, colour = ("keep", "green") if each.kept else ("drop", "red")
            shown = click.style(sign, fg=colour) if is_terminal() else sign
            click.echo(f"{shown}  {shorten_title(each.title, None)}")
    note(f"Of {counted(len(tried), 'document')} the rules keep {kept:,} and drop {len(tried) - kept:,}.")


def read_rule(order: int, text: str) -> Rule:
    """Read `exclude path ends_with .tmp`: policy, field, operator, and the rest as value. Raises a usage error."""
    from ..protocol.documents import Rule
    from ..protocol.filtering import Operator, Policy

    words = text.split(maxsplit=3)
    policies, operators = [each.value for each in Policy], [each.value for each in Operator]
    if len(words) != 4 or words[0].lower() not in policies or words[2].lower() not in operators:
        raise click.UsageError(f"{text!r} is no rule. Write: {'|'.join(policies)} FIELD {'|'.join(operators)} VALUE")
    return Rule(
        id=f"rule-{order + 1}",
        policy=words[0].lower(),
        field=words[1],
        rule=words[2].lower(),
        value=words[3],
        order=order,
    )


async def _test(
    destination: Destination, connector_id: str, draft: bool, given: Sequence[Rule], sample: int
) -> list[Sampled]:
    from ..protocol.configuration import read_configuration
    from ..protocol.filtering import InvalidRules, compile_rules
    from .catalogue import source_type
    from .destination import open_destination

    async with open_destination(destination) as store:
        connector = await store.connectors.get(connector_id)
    if connector.service_type is None:
        raise CommandFailed(f"The connector {connector_id} has no service type, so there is nothing to sample.")
    chosen_rules = given or (connector.rules.draft if draft else connector.rules.active)
    try:
        compiled = compile_rules(chosen_rules)
    except InvalidRules as error:
        complaints = "; ".join(message for each in error.validation.errors for message in each.messages)
        raise CommandFailed(f"The rules cannot be used: {complaints}", code=Exit.USAGE) from error
    chosen = source_type(connector.service_type)
    documents = await sampled(chosen(read_configuration(chosen.Config, connector.configuration)), sample)
    decided = compiled.decide([{"id": each.id, "_id": each.id, **each.fields} for each in documents])
    return [
        Sampled(
            each.id, str(next((each.fields[name] for name in _TITLE_FIELDS if each.fields.get(name)), each.id)), kept
        )
        for each, kept in zip(documents, decided, strict=True)
    ]


async def sampled(source: Any, size: int) -> list[Any]:
    """The first documents of a source, over as many partitions as it takes."""
    from contextlib import aclosing

    from ..sources.source import Document

    documents: list[Any] = []
    async with source.session(), aclosing(source.partitions()) as partitions:
        async for partition in partitions:
            async with aclosing(source.documents(partition)) as listing:
                async for items in listing:
                    page = items if isinstance(items, list | tuple) else [items]
                    documents += [item for item in page if isinstance(item, Document)]
                    if len(documents) >= size:
                        return documents[:size]
    return documents
