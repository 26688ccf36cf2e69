"""`callboard source`: what documents can come from, and making a source of one's own."""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path
from string import Template
from typing import Any

import click

from .exits import Exit
from .failures import CommandFailed
from .groups import Entry, LazyGroup, Section
from .options import Command, format_option
from .terminal import counted, note, print_json, print_table, tell_done

SECTIONS = (
    Section(
        "Commands",
        {
            "list": Entry("source:list_", "List the sources there are."),
            "describe": Entry("source:describe", "Show the settings and abilities of a source, and an example."),
            "check": Entry("source_check:check", "Try a source with settings, and say what is wrong with either."),
            "new": Entry("source:new", "Write the beginning of a source of your own, with tests that pass."),
        },
    ),
)
SCAFFOLD = Path(__file__).parent / "scaffold"


@click.group(cls=LazyGroup, sections=SECTIONS, package=__package__, invoke_without_command=True)
@click.pass_context
def source(context: click.Context) -> None:
    """Look at sources, and make one of your own."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command("list", cls=Command)
@format_option("table", "json", default="table")
def list_(format_: str) -> None:
    """List the sources there are."""
    from ..sources.registry import service_types

    found = sorted(service_types(), key=lambda info: info.service_type)
    if format_ == "json":
        print_json([{"service_type": info.service_type, "name": info.name} for info in found])
    else:
        note(f"{counted(len(found), 'source')}:")
        print_table(["Service type", "Name"], [(info.service_type, info.name) for info in found])


@click.command(cls=Command)
@click.argument("service_type")
@format_option("text", "json", default="text")
def describe(service_type: str, format_: str) -> None:
    """Show the settings and abilities of a source, and an example."""
    from ..protocol.configuration import schema_of
    from .catalogue import source_type

    chosen = source_type(service_type)
    schema = schema_of(chosen.Config)
    if format_ == "json":
        print_json({"service_type": service_type, "name": chosen.name, "features": abilities(chosen), "fields": schema})
        return
    click.echo(f"{chosen.name} ({service_type})")
    click.echo(f"\n{one_paragraph(chosen.__doc__)}\n")
    print_table(["Ability", ""], abilities(chosen).items())
    click.echo()
    rows = [
        (
            name,
            entry["type"],
            "yes" if entry["required"] else "",
            _first_value(entry),
            entry["tooltip"] or entry["label"],
        )
        for name, entry in schema.items()
    ]
    print_table(["Setting", "type", "required", "first value", "meaning"], rows)
    click.echo(f"\nExample:\n  {example(service_type, schema)}")


def abilities(chosen: type[Any]) -> dict[str, str]:
    """What a source can do, in words."""
    features = chosen.features
    incremental = {"none": "no", "delta": "yes, from a feed of changes", "skip_unchanged": "yes, by time stamps"}
    words = {True: "yes", False: "no"}
    return {
        "basic rules": words[features.basic_rules],
        "advanced rules": words[features.advanced_rules],
        "incremental sync": incremental[features.incremental],
        "document-level security": words[features.document_level_security],
        "goes on where it was interrupted": words[features.resumable],
    }


def one_paragraph(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def example(service_type: str, schema: dict[str, Any]) -> str:
    """A command line that syncs from such a source once, with what must be given filled in."""
    parts = []
    for name, entry in schema.items():
        if entry["required"] and not entry["depends_on"] and entry["value"] in (None, ""):
            parts.append(f"--set-file {name}=FILE" if entry["sensitive"] else f"--set {name}=...")
    return " ".join(["callboard sync", service_type, *parts, "--index", f"search-{service_type.replace('_', '-')}"])


def _first_value(entry: dict[str, Any]) -> str:
    value = entry["value"] if entry["value"] not in (None, "") else entry["default_value"]
    return "" if value in (None, "") else str(value)


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--into",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where to make the folder.  [the current one]",
)
@format_option("text", "json", default="text")
def new(name: str, into: Path, format_: str) -> None:
    """Write the beginning of a source of your own, with tests that pass.

    NAME becomes the service type, the folder and the module, such as tide_tables.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", name) or keyword.iskeyword(name):
        raise click.UsageError(f"{name!r} cannot be a service type; use small letters, digits and underscores.")
    folder = into.expanduser() / name
    if folder.exists():
        raise CommandFailed(f"{str(folder)!r} exists already.", hint="Choose another name or place.", code=Exit.USAGE)
    words = {
        "name": name,
        "class_name": "".join(map(str.capitalize, name.split("_"))),
        "title": name.replace("_", " ").capitalize(),
    }
    files = {"source.py": f"{name}.py", "test.py": f"test_{name}.py", "readme.md": "README.md"}
    folder.mkdir(parents=True)
    try:
        for template, target in files.items():
            text = Template((SCAFFOLD / f"{template}.template").read_text(encoding="utf-8")).substitute(words)
            (folder / target).write_text(text, encoding="utf-8")
    except BaseException:
        # Half a source would only be in the way of the next try.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    facts = {"folder": str(folder), "files": list(files.values())}
    tell_done(format_, f"Wrote {folder}: the source, its tests, and how to run it.", facts)
    note(f"Next: cd {folder} && python -m pytest test_{name}.py")
