"""What type checkers know of messages and refs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
from typing import Any, assert_type

import attrs

from callboard.runtime import (
    Actor, ActorRef, ChildSpec, Request, Stream, Supervisor, SupervisorRef, System, Task, TaskRef, blocking,
    gathering, handles, worker_process,
)


@attrs.frozen
class Length(Request[int]):
    text: str


@attrs.frozen
class Note:
    text: str


class Measure(Actor):
    @handles
    async def on_length(self, message: Length) -> int:
        return len(message.text)


async def right(system: System, stream: Stream[str]) -> None:
    ref = await system.spawn(ChildSpec(name="a", start=Measure))
    assert_type(ref, ActorRef[Measure])
    assert_type(await system.spawn(ChildSpec(name="t", start=Task)), TaskRef)
    assert_type(await system.spawn(ChildSpec(name="s", start=Supervisor)), SupervisorRef)
    assert_type(await ref.ask(Length("abc"), timeout_s=1), int)
    assert_type(await blocking(len, "abc"), int)
    assert_type(await worker_process(str.upper, "abc", timeout_s=1), str)
    specs: list[ChildSpec] = [ChildSpec(name="a", start=Measure), ChildSpec(name="t", start=Task)]
    Supervisor(specs)
    general: ActorRef[Actor] = ref
    await general.tell(Note("any message may be told"))
    async with stream.receiver() as batches:
        async for batch in batches:
            assert_type(batch.items[0], str)
    async with stream.sender() as out, gathering(out) as gatherer:
        await gatherer.add("item")


async def wrong(system: System, ref: ActorRef[Measure], stream: Stream[str]) -> None:
    text: str = await ref.ask(Length("abc"), timeout_s=1)  # wrong
    await ref.ask(Note("not a request"), timeout_s=1)  # wrong
    await ref.ask(Length("abc"))  # wrong
    await ref.ask(Length(5), timeout_s=1)  # wrong
    ChildSpec(name="a", start=Note)  # wrong
    ChildSpec(name="a", start=Measure, restart="always")  # wrong
    Supervisor([], strategy="all_for_one")  # wrong
    task = await system.spawn(ChildSpec(name="t", start=Task))
    await task.tell(Note("a task takes no messages"))  # wrong
    async with stream.sender() as out:
        await out.send([1])  # wrong
"""
WRONG = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")]


def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    options = ["--strict", "--follow-imports=silent", "--no-error-summary", "--hide-error-context"]
    command = [sys.executable, "-m", "mypy", *options, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    found = re.findall(r"^program.py:(\d+): error", done.stdout, re.MULTILINE)
    assert sorted({int(number) for number in found}) == WRONG, done.stdout + done.stderr


def test_pyright_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    (tmp_path / "program.py").write_text(PROGRAM)
    settings = {"extraPaths": [str(ROOT / "src")], "reportUnusedExpression": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    said = done.stdout[done.stdout.find("{") :]
    if "{" not in done.stdout:
        # The package is a wrapper; what it wraps comes from the network at its first use.
        assert re.search(r"network|download|npm|connect", done.stderr, re.IGNORECASE), done.stderr
        pytest.skip("pyright could not be downloaded")
    report = json.loads(said)
    errors = [one for one in report["generalDiagnostics"] if one["severity"] == "error"]
    assert sorted({one["range"]["start"]["line"] + 1 for one in errors}) == WRONG, json.dumps(errors, indent=1)
