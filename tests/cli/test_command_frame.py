"""The frame of the command line: help, version, error boundary, exit codes."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from callboard.cli.exits import MEANINGS, Exit
from callboard.cli.failures import CommandFailed, explain
from callboard.cli.groups import LazyGroup
from callboard.cli.main import callboard as root
from callboard.cli.main import run

# Drivers, servers and clients that help must not pay for.
HEAVY = {"httpx", "elasticsearch", "hypercorn", "trio", "rich", "structlog", "orjson", "cattrs", "yaml", "ruamel.yaml"}


def all_commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{name} is listed and does not exist"
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += all_commands(command, (*path, name))
    return found


ALL_COMMANDS = all_commands(root)


def test_help_imports_neither_drivers_nor_servers(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['callboard', '--help']\n"
        "from callboard.cli.main import run\n"
        "code = run(['--help'])\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert "callboard demo" in done.stdout


def test_no_arguments_show_the_help_and_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Usage: callboard" in capsys.readouterr().out


def test_the_version_names_the_protocol_too(capsys: pytest.CaptureFixture[str]) -> None:
    from callboard import __version__
    from callboard.protocol.versions import PROTOCOL_VERSION

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"callboard {__version__} (Connector Protocol {PROTOCOL_VERSION})\n"


@pytest.mark.parametrize(("path", "command"), ALL_COMMANDS, ids=[" ".join(path) for path, _ in ALL_COMMANDS])
def test_every_command_explains_itself(
    path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: callboard {' '.join(path)}")
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.opts[0]} has no help"


def test_the_one_line_help_of_a_list_is_the_first_sentence_of_the_command() -> None:
    groups: list[click.Group] = [root, *(command for _, command in ALL_COMMANDS if isinstance(command, LazyGroup))]
    for group in groups:
        assert isinstance(group, LazyGroup)
        for name, entry in group._entries.items():
            command = group.get_command(click.Context(group), name)
            assert command is not None
            assert (command.help or "").strip().split("\n\n")[0].replace("\n", " ") == entry.help, name


def test_a_mistyped_command_is_told_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serch", "notes", "x"]) == Exit.USAGE
    assert "Did you mean 'search'?" in capsys.readouterr().err


def test_every_exit_code_is_documented_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning.replace('`', '')}" in shown


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CommandFailed("The moon is full.", code=Exit.REFUSED), Exit.REFUSED, "The moon is full."),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), Exit.LOCAL, "The disk is full: '/data/x'."),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), Exit.LOCAL, "No permission: '/data'."),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "Interrupted."),
        (ValueError("two\nlines"), Exit.INTERNAL, "Unexpected ValueError: two lines"),
    ],
)
def test_errors_become_one_line_and_a_code(error: BaseException, code: Exit, words: str) -> None:
    explanation = explain(error)
    assert (explanation.code, explanation.message) == (code, words)


def test_of_a_group_of_errors_the_one_we_know_is_shown() -> None:
    known = CommandFailed("The index is closed.", code=Exit.REFUSED)
    group = BaseExceptionGroup("nursery", [RuntimeError("boom"), ExceptionGroup("inner", [known])])
    assert explain(group).message == "The index is closed."


def fail(_: Any) -> None:
    raise RuntimeError("a defect")


@pytest.mark.parametrize(("arguments", "shown"), [([], False), (["--debug"], True)])
def test_a_traceback_is_shown_only_when_asked_for(
    arguments: list[str], shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: click.Command("search", callback=lambda: fail(None)))
    monkeypatch.delenv("CALLBOARD_DEBUG", raising=False)
    assert run([*arguments, "search"]) == Exit.INTERNAL
    printed = capsys.readouterr().err
    assert ("Traceback" in printed) is shown
    assert "Unexpected RuntimeError: a defect" in printed


def test_ctrl_c_anywhere_in_a_command_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("callboard.cli.running.run_async", interrupted)
    assert run(["demo"]) == Exit.INTERRUPTED
    assert "Interrupted." in capsys.readouterr().err
