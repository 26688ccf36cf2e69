"""What every command says when a server, a key, an id or a file is not what it should be: one line, a code, no traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import structlog

from callboard.cli.exits import Exit
from callboard.cli.main import callboard as root
from callboard.cli.main import run

UNKNOWN = "no-such-id"

AT_A_SERVER: dict[str, tuple[str, ...]] = {
    "connector apply": ("-f", "deployment.yml", "--yes"),
    "connector check": (UNKNOWN,),
    "connector create": (
        *("--service-type", "dir", "--index-name", "notes", "--name", "Notes", "--set", "directory=notes"),
    ),
    "connector delete": (UNKNOWN, "--yes"),
    "connector disable": (UNKNOWN,),
    "connector edit": (UNKNOWN, "--name", "Letters"),
    "connector enable": (UNKNOWN,),
    "connector export": (UNKNOWN,),
    "connector import": ("deployment.yml", "--yes"),
    "connector list": (),
    "connector pause": (UNKNOWN,),
    "connector resume": (UNKNOWN,),
    "connector schedule": (UNKNOWN, "0 0 2 * * ?"),
    "connector show": (UNKNOWN,),
    "dead-letters list": (),
    "dead-letters replay": ("--index", UNKNOWN, "--yes"),
    "diff": (UNKNOWN, UNKNOWN),
    "index clean": (UNKNOWN, "--yes"),
    "index delete": (UNKNOWN, "--yes"),
    "index list": (),
    "job cancel": (UNKNOWN, "--yes"),
    "job confirm-deletes": (UNKNOWN, "--yes"),
    "job follow": (UNKNOWN,),
    "job list": (UNKNOWN,),
    "job log": (UNKNOWN,),
    "job start": ("-i", UNKNOWN, "-t", "full"),
    "job view": (UNKNOWN,),
    "rules test": (UNKNOWN,),
    "search": (UNKNOWN, "storm"),
    "sync": ("dir", "--set", "directory=notes", "--index", "notes"),
}
"""Every command that works at a server, and a command line that needs nothing else."""

NAMES_NOTHING = {
    *("connector apply", "connector create", "connector import", "connector list", "dead-letters list"),
    *("dead-letters replay", "index list", "sync"),
}
"""These have no id that could be unknown, or take it as "none yet"."""

OTHERS = {
    *("completion", "config check", "config show", "demo", "doctor", "extract", "extraction engines"),
    *("extraction fetch-tika", "extraction-service", "fault-proxy", "login", "node", "service", "source check"),
    *("source describe", "source list", "source new", "top"),
}
"""These need no server, or are tried below in their own way."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        deeper = (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, deeper)
        else:
            yield " ".join(deeper)


@pytest.fixture
def fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """`fails(5, "job", "view", "x")` runs a command in a scratch folder, checks how it fails, and gives what it says."""
    configured = structlog.get_config()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("URL", "API_KEY", "USERNAME", "PASSWORD", "PROFILE", "DEBUG", "OPERATIONS_TOKEN"):
        monkeypatch.delenv(f"CALLBOARD_{name}", raising=False)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.txt").write_text("The thunder sheet is cracked.\n")
    (tmp_path / "deployment.yml").write_text(
        "connectors: [{id: notes, service_type: dir, index_name: notes, configuration: {directory: notes}}]\n"
    )

    def check(code: Exit, *arguments: str) -> str:
        capsys.readouterr()
        got = run(arguments)
        printed = capsys.readouterr()
        assert got == code, printed.out + printed.err
        assert printed.out == ""
        assert "Traceback" not in printed.err
        lines = [line for line in printed.err.splitlines() if line.strip() and not line.startswith("Syncing ")]
        assert 1 <= len(lines) <= 2, printed.err
        assert lines[0].startswith("Error: ")
        return printed.err

    yield check
    structlog.configure(**configured)


@pytest.fixture(scope="module")
def dead() -> Iterator[str]:
    """An address where nobody listens, kept for us."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_no_command_is_forgotten_here() -> None:
    assert set(commands(root)) == AT_A_SERVER.keys() | OTHERS
    assert AT_A_SERVER.keys() >= NAMES_NOTHING


@pytest.mark.parametrize("command", AT_A_SERVER)
def test_a_dead_host(fails: Callable[..., str], dead: str, command: str) -> None:
    said = fails(Exit.UNREACHABLE, *command.split(), *AT_A_SERVER[command], "--to", dead)
    assert dead.removeprefix("http://") in said


@pytest.mark.parametrize("command", AT_A_SERVER)
def test_a_wrong_key(fails: Callable[..., str], answering: Any, tmp_path: Path, command: str) -> None:
    refusal = b'{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}'
    url = answering(401, refusal, Content_Type="application/json", X_elastic_product="Elasticsearch")
    (tmp_path / "key").write_text("dGhlIHdyb25nIGtleQ==\n")
    said = fails(Exit.REFUSED, *command.split(), *AT_A_SERVER[command], "--to", url, "--api-key-file", "key")
    assert url.removeprefix("http://") in said
    assert "dGhlIHdyb25nIGtleQ" not in said


@pytest.mark.parametrize("command", sorted(AT_A_SERVER.keys() - NAMES_NOTHING))
def test_an_unknown_id(fails: Callable[..., str], tmp_path: Path, command: str) -> None:
    (tmp_path / "data").mkdir()
    said = fails(Exit.NOT_FOUND, *command.split(), *AT_A_SERVER[command], "--embedded", "data")
    assert UNKNOWN in said


@pytest.mark.parametrize("command", AT_A_SERVER)
def test_a_half_written_profile(fails: Callable[..., str], tmp_path: Path, command: str) -> None:
    profile = tmp_path / "config" / "callboard" / "profiles" / "default.yml"
    profile.parent.mkdir(parents=True)
    profile.write_text("elasticsearch:\n  host: http://h:9200\n  password: 'hunter")
    said = fails(Exit.USAGE, *command.split(), *AT_A_SERVER[command])
    assert "default.yml" in said
    assert "hunter" not in said


@pytest.mark.parametrize("command", AT_A_SERVER)
def test_a_key_file_that_is_not_there(fails: Callable[..., str], command: str) -> None:
    said = fails(Exit.NOT_FOUND, *command.split(), *AT_A_SERVER[command], "--api-key-file", "nowhere")
    assert "nowhere" in said


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (Exit.UNREACHABLE, ("login", "--host", "{dead}", "--user", "ines", "--password-file", "secret"), "{dead}"),
        (Exit.UNREACHABLE, ("top", "--url", "{dead}", "--once"), "{dead}"),
        (Exit.NOT_FOUND, ("top", "--token-file", "nowhere"), "nowhere"),
        (Exit.USAGE, ("login", "--host", "h:9200", "--user", "ines", "--password-file", "secret"), "h:9200"),
        (Exit.NOT_FOUND, ("login", "--host", "{dead}", "--user", "ines", "--password-file", "nowhere"), "nowhere"),
        (Exit.NOT_FOUND, ("connector", "list", "--profile", "staging"), "staging"),
        (Exit.NOT_FOUND, ("-c", "nowhere.yml", "connector", "list"), "nowhere.yml"),
        (Exit.USAGE, ("-c", "half.yml", "connector", "list"), "half.yml"),
        (Exit.USAGE, ("connector", "apply", "-f", "half.yml"), "half.yml"),
        (Exit.NOT_FOUND, ("connector", "apply", "-f", "nowhere.yml"), "nowhere.yml"),
        (Exit.USAGE, ("connector", "import", "half.yml"), "half.yml"),
        (Exit.NOT_FOUND, ("connector", "import", "nowhere.yml"), "nowhere.yml"),
        (
            Exit.USAGE,
            (
                *("connector", "create", "--service-type", "dir", "--index-name", "x", "--name", "x"),
                *("--from-file", "half.yml"),
            ),
            "half.yml",
        ),
        (
            Exit.USAGE,
            (
                *("connector", "create", "--service-type", "dir", "--index-name", "x", "--name", "x"),
                *("--set", "directory=notes", "--update-config", "--connector-service-config", "half.yml"),
            ),
            "half.yml",
        ),
        (Exit.NOT_FOUND, ("sync", "dir", "--index", "x", "--set-file", "directory=nowhere"), "nowhere"),
        (Exit.LOCAL, ("sync", "dir", "--index", "x", "--embedded", "garbled"), "garbled"),
        (Exit.LOCAL, ("index", "list", "--embedded", "garbled"), "garbled"),
        (Exit.LOCAL, ("node", "--port", "0", "--data", "garbled"), "garbled"),
        (Exit.USAGE, ("node", "--port", "0", "--faults", "half.yml"), "half.yml"),
        (Exit.USAGE, ("config", "check", "-c", "half.yml"), "half.yml"),
        (Exit.NOT_FOUND, ("config", "check", "-c", "nowhere.yml"), "nowhere.yml"),
        (Exit.USAGE, ("config", "show", "-c", "half.yml"), "half.yml"),
        (Exit.NOT_FOUND, ("config", "show", "-c", "nowhere.yml"), "nowhere.yml"),
        (Exit.USAGE, ("config", "check", "-c", "notes"), "notes"),
        (Exit.USAGE, ("service", "-c", "half.yml"), "half.yml"),
        (Exit.NOT_FOUND, ("service", "-c", "nowhere.yml"), "nowhere.yml"),
        (Exit.USAGE, ("doctor", "-c", "half.yml"), "half.yml"),
        (Exit.NOT_FOUND, ("doctor", "-c", "nowhere.yml"), "nowhere.yml"),
        (Exit.NOT_FOUND, ("extract", "nowhere.txt"), "nowhere.txt"),
        (Exit.USAGE, ("extract", "notes"), "notes"),
        (Exit.NOT_FOUND, ("demo", "nowhere"), "nowhere"),
        (Exit.USAGE, ("demo", "notes/one.txt"), "one.txt"),
        (Exit.USAGE, ("source", "describe", "dri"), "dir"),
        (Exit.USAGE, ("source", "check", "dri"), "dir"),
        (Exit.USAGE, ("source", "check", "nowhere:Tides"), "nowhere"),
        (Exit.USAGE, ("source", "new", "notes"), "notes"),
        (Exit.USAGE, ("extraction-service", "--port", "0", "--engine", "nothing"), "nothing"),
        (Exit.NOT_FOUND, ("extraction-service", "--port", "0", "--shared-folder", "nowhere"), "nowhere"),
        (Exit.USAGE, ("completion", "tcsh"), "tcsh"),
        (Exit.USAGE, ("diff", "a", "b", "--right-profile", "half"), "half.yml"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, tuple) else None,
)
def test_what_else_goes_wrong(
    fails: Callable[..., str], dead: str, tmp_path: Path, code: Exit, arguments: tuple[str, ...], words: str
) -> None:
    half = 'elasticsearch: {host: "http://h:9200", password: "hunter'
    (tmp_path / "half.yml").write_text(half)
    profile = tmp_path / "config" / "callboard" / "profiles" / "half.yml"
    profile.parent.mkdir(parents=True)
    profile.write_text(half)
    (tmp_path / "secret").write_text("wrong\n")
    (tmp_path / "garbled").mkdir()
    for name in ("node.sqlite", "node.db"):
        (tmp_path / "garbled" / name).write_bytes(b"SQLite format 3\0" + b"half of it" * 500)
    said = fails(code, *(word.replace("{dead}", dead) for word in arguments))
    assert words.replace("{dead}", dead.removeprefix("http://")) in said
    assert "hunter" not in said


def test_a_doctor_tells_of_a_dead_host_as_a_finding(
    fails: Callable[..., str], dead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--to", dead, "--format", "json"]) == Exit.FAILED
    (server,) = [each for each in json.loads(capsys.readouterr().out) if each["subject"] == "Server"]
    assert server["verdict"] == "problem"
    assert dead.removeprefix("http://") in server["text"]


def test_top_tells_a_wrong_token_from_a_wrong_server(fails: Callable[..., str], answering: Any) -> None:
    assert "--token-file" in fails(Exit.REFUSED, "top", "--once", "--url", answering(401, b"{}"))
    fails(Exit.UNREACHABLE, "top", "--once", "--url", answering(200, b"<html>Welcome</html>"))
    fails(Exit.UNREACHABLE, "top", "--once", "--url", answering(404, b"{}"))
