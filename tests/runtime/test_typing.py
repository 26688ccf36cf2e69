"""What a type checker knows of messages and refs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from typing import assert_type

import attrs

from callboard.runtime import Actor, ActorRef, Request, Stream, blocking, handles, worker_process


@attrs.frozen
class Length(Request[int]):
    text: str


class Measure(Actor):
    @handles
    async def on_length(self, message: Length) -> int:
        return len(message.text)


async def main(ref: ActorRef[Measure], stream: Stream[str]) -> None:
    assert_type(await ref.ask(Length("abc"), timeout_s=1), int)
    assert_type(await blocking(len, "abc"), int)
    assert_type(await worker_process(str.upper, "abc", timeout_s=1), str)
    async with stream.receiver() as batches:
        async for batch in batches:
            assert_type(batch.items[0], str)
    length = await ref.ask(Length("abc"), timeout_s=1)
    wrong: str = length
    await ref.ask("not a request", timeout_s=1)
"""


def test_answers_have_their_types(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary", program.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout + done.stderr
    assert 'Incompatible types in assignment (expression has type "int", variable has type "str")' in lines[0]
    assert 'Argument 1 to "ask" of "ActorRef" has incompatible type "str"' in lines[1]
