"""Questions on a terminal: asked in order, secrets hidden, wrong answers asked again, and Ctrl-C leaves nothing half made."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from callboard.cli.exits import Exit


@attrs.define
class Terminal:
    """A command on a terminal of its own: wait for words, type answers, see how it ends."""

    process: subprocess.Popen[bytes]
    descriptor: int
    seen: str = ""
    read_up_to: int = 0

    @classmethod
    def run(cls, callboard: Any, *arguments: str | Path, **environment: str) -> Terminal:
        return cls.run_command(callboard, callboard.command(*arguments), **environment)

    @classmethod
    def run_command(cls, callboard: Any, command: list[str], **environment: str) -> Terminal:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            command,
            cwd=callboard.folder,
            env=callboard.environment(**({"TERM": "xterm", "COLUMNS": "200"} | environment)),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        return cls(process, ours)

    def expect(self, words: str, timeout_s: float = 30) -> None:
        """Read until the words appear after what was expected before."""
        until = time.monotonic() + timeout_s
        while words not in self.seen[self.read_up_to :]:
            assert time.monotonic() < until, f"{words!r} did not appear in: {self.seen}"
            if not self._read(until):
                break
        assert words in self.seen[self.read_up_to :], f"{words!r} did not appear in: {self.seen}"
        self.read_up_to = self.seen.index(words, self.read_up_to) + len(words)

    def expect_match(self, pattern: str, timeout_s: float = 30) -> None:
        """Read until the pattern matches anywhere in what was shown."""
        until = time.monotonic() + timeout_s
        while not re.search(pattern, self.seen):
            assert time.monotonic() < until, f"{pattern!r} did not appear in: {self.seen}"
            assert self._read(until), f"it ended without {pattern!r}: {self.seen}"

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def end(self) -> int:
        until = time.monotonic() + 30
        while self._read(until):
            assert time.monotonic() < until, self.seen
        os.close(self.descriptor)
        return self.process.wait(30)

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self.descriptor], [], [], max(0.0, until - time.monotonic()))
        try:
            piece = os.read(self.descriptor, 65536) if ready else b""
        except OSError:
            # Linux says EIO when nobody holds the other side any more.
            return False
        self.seen += piece.decode("utf-8", "replace")
        return bool(piece)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.txt").write_text("The thunder sheet is cracked.\n")
    return folder


def connectors(callboard: Any, data: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(callboard("connector", "list", "--embedded", data, "-o", "json").out)
    return found


def test_a_connector_is_made_of_answers(callboard: Any, data: Path, notes: Path) -> None:
    terminal = Terminal.run(callboard, "connector", "create", "--embedded", data)
    terminal.expect("Service type")
    terminal.type("dri\n")
    terminal.expect("Did you mean 'dir'?")
    terminal.expect("Service type")
    terminal.type("dir\n")
    terminal.expect("Index name")
    terminal.type("Quux\n")
    terminal.expect("capital letters")
    terminal.expect("Index name")
    terminal.type("notes\n")
    terminal.expect("Name")
    terminal.type("\n")
    terminal.expect("irectory")
    terminal.type(f"{notes}\n")
    while "Connector " not in terminal.seen and terminal.process.poll() is None:
        before = terminal.seen
        terminal._read(time.monotonic() + 1)
        if terminal.seen != before and terminal.seen.rstrip(" ").endswith(":"):
            terminal.type("\n")
    assert terminal.end() == Exit.DONE, terminal.seen
    made = connectors(callboard, data)
    assert [(each["name"], each["index_name"], each["status"]) for each in made] == [("notes", "notes", "configured")]


@pytest.mark.parametrize("answered", [0, 1, 2, 3])
def test_ctrl_c_at_any_question_leaves_nothing(callboard: Any, data: Path, answered: int) -> None:
    terminal = Terminal.run(callboard, "connector", "create", "--embedded", data)
    for question, answer in [("Service type", "dir"), ("Index name", "notes"), ("Name", "Notes")][:answered]:
        terminal.expect(question)
        terminal.type(f"{answer}\n")
    terminal.expect(["Service type", "Index name", "Name", "irectory"][answered])
    time.sleep(0.2)
    terminal.type("\x03")
    assert terminal.end() == Exit.FAILED, terminal.seen
    assert "Stopped; nothing was done." in terminal.seen
    assert "Traceback" not in terminal.seen
    assert connectors(callboard, data) == []
    assert json.loads(callboard("index", "list", "--embedded", data, "-o", "json").out) == []


def test_ctrl_c_in_the_middle_of_a_sync_cancels_its_job(callboard: Any, data: Path, notes: Path) -> None:
    for number in range(8000):
        (notes / f"{number}.txt").write_text(f"note {number} " * 400)
    terminal = Terminal.run(
        callboard, "sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", data, LINES="30"
    )
    # Some are indexed and many are not: this is the middle.
    terminal.expect_match(r"[1-9][\d,]*(\x1b\[[\d;]*m|\s)+indexed")
    terminal.type("\x03")
    assert terminal.end() == Exit.INTERRUPTED, terminal.seen
    assert "Canceled: " in terminal.seen
    assert "Traceback" not in terminal.seen
    (job,) = json.loads(callboard("job", "list", "--embedded", data, "-o", "json").out)
    assert job["job_status"] == "canceled"
    (index,) = json.loads(callboard("index", "list", "--embedded", data, "-o", "json").out)
    assert 0 < index["documents"] < 8001
    # What was on its way when the signal came may have arrived without being counted.
    assert 0 < job["documents_indexed"] <= index["documents"]


def test_ctrl_c_stops_watching_and_not_the_job(callboard: Any, data: Path, notes: Path) -> None:
    settings = ("--service-type", "dir", "--index-name", "notes", "--name", "Notes", "--set", f"directory={notes}")
    made = json.loads(callboard("connector", "create", *settings, "--embedded", data, "-o", "json").out)
    started = callboard("job", "start", "-i", made["id"], "-t", "full", "--embedded", data, "-o", "json")
    job = json.loads(started.out)["id"]
    watching = callboard.start("job", "follow", job, "--embedded", data)
    assert job in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=30)
    assert (watching.returncode, said.strip()) == (Exit.INTERRUPTED, "Error: Interrupted.")
    assert json.loads(callboard("job", "view", job, "--embedded", data, "-o", "json").out)["job_status"] == "pending"


def test_zsh_completes_a_word(callboard: Any, tmp_path: Path, server_missing: Any) -> None:
    if not shutil.which("zsh"):
        server_missing("zsh", "sudo apt-get install zsh")
    (tmp_path / "completion").write_text(callboard("completion", "zsh").out)
    program = tmp_path / "bin" / "callboard"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m callboard "$@"\n')
    program.chmod(0o755)
    terminal = Terminal.run_command(callboard, ["zsh", "-f", "-i"], PATH=f"{program.parent}:{os.environ['PATH']}")
    terminal.type("autoload -U compinit && compinit -u -D; source ./completion; PS1='ready> '; print loa''ded\n")
    terminal.expect("loaded")
    terminal.expect("ready> ")
    terminal.type("callboard dead\t")
    terminal.expect("callboard dead-letters")
    terminal.type("\x15callboard dead-letters rep\t")
    terminal.expect("dead-letters replay")
    terminal.type("\x15exit\n")
    terminal.end()


def test_a_secret_is_not_shown_while_it_is_typed(callboard: Any, answering: Any, tmp_path: Path) -> None:
    hello = json.dumps({"cluster_name": "c", "version": {"number": "9.5.3", "build_flavor": "default"}, "tagline": "x"})
    url = answering(200, hello.encode(), Content_Type="application/json", X_elastic_product="Elasticsearch")
    terminal = Terminal.run(callboard, "login", "--host", url)
    terminal.expect("Username")
    terminal.type("ines\n")
    terminal.expect("Password")
    time.sleep(0.2)
    terminal.type("hunter22\n")
    assert terminal.end() == Exit.DONE, terminal.seen
    assert "hunter22" not in terminal.seen
    assert "hunter22" in (tmp_path / "home/.config/callboard/profiles/default.yml").read_text()


def test_a_question_before_a_deletion_can_be_answered_with_no(callboard: Any, data: Path, notes: Path) -> None:
    sync = ("sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", data)
    assert callboard(*sync).code == Exit.DONE
    terminal = Terminal.run(callboard, "index", "delete", "notes", "--embedded", data)
    terminal.expect("Delete the index 'notes'")
    terminal.type("n\n")
    assert terminal.end() == Exit.FAILED
    assert "Nothing was deleted" in terminal.seen
    assert "notes" in callboard("index", "list", "--embedded", data).out


def test_colours_are_for_terminals_and_can_be_switched_off(callboard: Any) -> None:
    coloured = Terminal.run(callboard, "source", "list")
    assert coloured.end() == Exit.DONE
    assert "\x1b[" in coloured.seen
    plain = Terminal.run(callboard, "source", "list", NO_COLOR="1")
    assert plain.end() == Exit.DONE
    assert "\x1b[" not in plain.seen
    failed = Terminal.run(callboard, "source", "describe", "nothing", NO_COLOR="1")
    assert failed.end() == Exit.USAGE
    assert "\x1b[" not in failed.seen
    assert "\x1b[" not in callboard("source", "list").out


def asked(monkeypatch: pytest.MonkeyPatch, service_type: str, answers: dict[str, list[str]], **given: str) -> list[str]:
    """Answer the questions for a source's settings, each label's answers in turn; give the labels in the order asked."""
    from callboard.cli.catalogue import source_type
    from callboard.cli.questions import ask_settings
    from callboard.cli.settings import with_values
    from callboard.protocol.configuration import schema_of

    labels: list[str] = []

    def prompt(label: str, *, default: Any = None, hide_input: bool = False, **_: Any) -> str:
        labels.append(f"{label} (hidden)" if hide_input else label)
        assert labels.count(label) < 4, f"{label!r} is asked for again and again"
        waiting = answers.get(label)
        return waiting.pop(0) if waiting else str(default if default is not None else "5432")

    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr("click.confirm", lambda label, **_: labels.append(label) or label in answers)
    config_class = source_type(service_type).Config
    configuration = with_values(schema_of(config_class), given)
    ask_settings(configuration, answered=set(given), config_class=config_class)
    return labels


def test_an_answer_that_cannot_be_used_is_asked_for_again_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = asked(monkeypatch, "postgresql", {"Port": ["many", "5432"]})
    assert labels.count("Port") == 2
    assert "whole number" in capsys.readouterr().err
    assert "Password (hidden)" in labels


def test_what_depends_on_an_answer_is_asked_only_after_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from callboard.cli.catalogue import source_type
    from callboard.protocol.configuration import schema_of

    schema = schema_of(source_type("postgresql").Config)
    dependent = [field for field in schema.values() if field["depends_on"] and not field["ui_restrictions"]]
    assert dependent, "the test needs a source with a dependent setting"
    one = dependent[0]
    switch = schema[one["depends_on"][0]["field"]]["label"]
    assert one["label"] not in asked(monkeypatch, "postgresql", {})
    shown = asked(monkeypatch, "postgresql", {switch: []})
    assert any(label.startswith(one["label"]) for label in shown[shown.index(switch) :])
