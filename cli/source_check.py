"""`callboard source check`: a source, built in or one's own, tried with settings before a connector uses it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import click

from .catalogue import source_type
from .exits import Exit
from .failures import CommandFailed, explain, one_line
from .options import Command, format_option
from .settings import check_fields, with_values
from .terminal import counted, note, print_json, print_table


@attrs.define
class Finding:
    """What one check has found."""

    check: str
    passed: bool
    why: str = ""


@click.command(cls=Command)
@click.argument("source", metavar="TYPE|MODULE:CLASS")
@click.option("--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="A setting of the source; repeatable.")
@click.option(
    "--set-file",
    "files",
    metavar="FIELD=FILE",
    multiple=True,
    help="A setting whose value is the first line of a file, for passwords; repeatable.",
)
@click.option(
    "--sample", default=5, show_default=True, type=click.IntRange(1, 1000), help="Show this many documents at most."
)
@click.option(
    "--conformance",
    is_flag=True,
    help="Run the whole conformance kit too: it lists the source many times, so let it hold a few documents only.",
)
@format_option("table", "json", default="table")
def check(
    source: str, assignments: tuple[str, ...], files: tuple[str, ...], sample: int, conformance: bool, format_: str
) -> int:
    """Try a source with settings, and say what is wrong with either.

    Looks at the configuration class, reads the settings, asks the source whether it answers and can work with them, and lists its
    first documents. MODULE:CLASS is a source of your own, found from the current folder. Nothing is written anywhere. The exit
    code is 1 if a check did not pass.
    """
    from .running import run_async
    from .sync import values_given

    chosen = _chosen(source)
    findings, documents = run_async(_check, chosen, values_given(assignments, files), sample, conformance)
    failed = [each for each in findings if not each.passed]
    if format_ == "json":
        print_json({"checks": [attrs.asdict(each) for each in findings], "documents": documents})
    else:
        rows = [(each.check, "ok" if each.passed else "FAILED", each.why) for each in findings]
        print_table(["Check", "Result", "Why"], rows)
        if documents:
            click.echo()
            print_table(["Document", "Fields"], [(one["id"], ", ".join(one["fields"])) for one in documents])
    note(f"{counted(len(failed), 'check')} of {len(findings)} did not pass." if failed else "Everything passed.")
    return Exit.FAILED if failed else Exit.DONE


def _chosen(source: str) -> type[Any]:
    if ":" not in source:
        return source_type(source)
    from ..sources.registry import source_class

    # A source of one's own lies where the person is, as for `python -m`.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    chosen: type[Any] = source_class("own", {"own": source})
    return chosen


async def _check(
    chosen: type[Any], values: dict[str, str], sample: int, conformance: bool
) -> tuple[list[Finding], list[dict[str, Any]]]:
    from ..protocol.configuration import read_configuration, schema_of

    findings: list[Finding] = []
    documents: list[dict[str, Any]] = []

    async def passes(name: str, call: Callable[[], Awaitable[object]]) -> bool:
        try:
            await call()
        except Exception as error:  # noqa: BLE001  a check ends here, and its finding says why
            findings.append(Finding(name, False, _why(error)))
            return False
        findings.append(Finding(name, True))
        return True

    async def describes() -> None:
        schema = schema_of(chosen.Config)
        nameless = [name for name, field in schema.items() if not str(field["label"]).strip()]
        if nameless:
            raise CommandFailed(f"These settings have no label: {', '.join(nameless)}.")

    async def reads() -> None:
        schema = schema_of(chosen.Config)
        check_fields(chosen.service_type, schema, values)
        read_configuration(chosen.Config, with_values(schema, values))

    if not (await passes("configuration class", describes) and await passes("settings", reads)):
        return findings, documents

    def opened() -> Any:
        return chosen(read_configuration(chosen.Config, with_values(schema_of(chosen.Config), values)))

    source = opened()

    async def lists() -> None:
        import orjson

        from ..protocol.ids import document_id
        from .rules import sampled

        found = await sampled(source, sample)
        for one in found:
            document_id(one.id)
            orjson.dumps(one.fields)
        documents.extend({"id": str(one.id), "fields": sorted(one.fields)} for one in found)
        if not found:
            note("The source has no documents with these settings.")

    async def works() -> None:
        async with source.session():
            answers = await passes("answers and takes the credentials", source.ping)
            if answers:
                await passes("can work with the settings", source.validate)

    if not await passes("session", works) or not all(each.passed for each in findings):
        return findings, documents
    if await passes("documents", lists) and conformance:
        await _conform(opened, passes)
    return findings, documents


async def _conform(
    opened: Callable[[], Any], passes: Callable[[str, Callable[[], Awaitable[object]]], Awaitable[bool]]
) -> None:
    """Run each test of the conformance kit."""
    import inspect

    from ..sources.conformance import SourceConformance, Subject

    kit, subject = SourceConformance(), Subject(opened)
    for name, test in inspect.getmembers(kit, inspect.ismethod):
        if name.startswith("test_"):

            async def run(test: Callable[[Subject], Any] = test) -> None:
                outcome = test(subject)
                if inspect.isawaitable(outcome):
                    await outcome

            await passes(name.removeprefix("test_").replace("_", " "), run)


def _why(error: BaseException) -> str:
    if isinstance(error, AssertionError):
        return one_line(str(error)) or "The kit's expectation does not hold."
    if isinstance(error, click.ClickException):
        return one_line(error.format_message())
    return explain(error).message
