"""The reference page of the command line, made from the commands themselves: `python -m callboard.cli.reference`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from .examples import examples_of
from .exits import MEANINGS
from .main import callboard

_HEAD = """# The command line

<!-- Made by `make docs` from the commands themselves; a test checks that it is fresh. -->

Results go to standard output, everything else to standard error. Progress and colours appear only on terminals. Every command takes
`--help`, `--quiet`, which leaves only results and errors, and `--debug`, which shows the traceback of an error. NO_COLOR switches colours
off.
"""


def reference_page() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD, _exit_codes()]
    for path, command in _commands(callboard, ()):
        parts.append(_section(path, command))
    return "\n".join(parts).rstrip() + "\n"


def _exit_codes() -> str:
    rows = "\n".join(f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items())
    return f"## Exit codes\n\n| Code | Meaning |\n|---|---|\n{rows}\n"


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def _section(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(("callboard", *path)))
    usage = " ".join([context.info_name or "", *command.collect_usage_pieces(context)])
    lines = [
        f"{'#' * (len(path) + 1)} callboard {' '.join(path)}",
        "",
        f"    {usage}",
        "",
        _text(command.help or ""),
        "",
    ]
    rows = []
    for parameter in command.params:
        if (
            isinstance(parameter, click.Option)
            and not parameter.hidden
            and not {"--debug", "--quiet"} & {*parameter.opts}
        ):
            record = parameter.get_help_record(context)
            if record is not None:
                name, meaning = record
                rows.append(f"| `{name}` | {_cell(meaning)} |")
    if rows:
        lines += ["| Option | Meaning |", "|---|---|", *rows, ""]
    examples = examples_of(" ".join(path))
    if examples:
        lines += ["Examples:", "", *(f"    {line}" for line in examples), ""]
    return "\n".join(lines)


def _text(text: str) -> str:
    """A docstring as Markdown: paragraphs joined, what click keeps as it is as code."""
    shown = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            shown.append("\n".join(f"    {line}" for line in paragraph.splitlines()[1:]))
        else:
            shown.append(" ".join(paragraph.split()))
    return "\n\n".join(shown)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(reference_page(), nl=False)
