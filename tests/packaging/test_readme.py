"""What the README promises is there: its commands exist, its links lead somewhere, its program runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trio

from callboard.cli.main import callboard as root
from callboard.node import open_node

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^ {4}callboard (.+?)(?:  +#.*)?$", README, re.MULTILINE)))


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (CHECKOUT / link).exists()] == []


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_can_be_parsed(line: str) -> None:
    """Take the line apart as click would, without running it."""
    arguments = re.sub(r'"[^"]*"', "words", line).split()
    command: click.Command = root
    context = click.Context(root, info_name="callboard")
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments[0])
        assert found is not None, line
        command, arguments = found, arguments[1:]
    command.make_context(command.name, arguments, parent=context, resilient_parsing=False)


async def test_the_program_shown_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.txt").write_text("one")
    async with open_node() as node:
        text = program.replace("/srv/notes", str(tmp_path / "notes")).replace("http://127.0.0.1:9200", str(node.url))
        command = [sys.executable, "-c", f"{text}\nprint(report.status, report.indexed)"]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"completed 1\n"), done.stderr.decode()


def test_make_help_names_what_the_readme_names() -> None:
    shown = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for target in set(re.findall(r"make ([a-z]+)", README)):
        assert f"  make {target}" in shown
