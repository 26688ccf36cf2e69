"""Runs the command as its users do: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest


@attrs.frozen
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    def assert_failed(self, code: int, *words: str) -> None:
        """It failed with this code, said one line (and at most one hint) with all of these words, and showed no traceback."""
        assert self.code == code, (self.code, self.out, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert 1 <= len(lines) <= 2, self.err
        for word in words:
            assert word in self.err, f"{word!r} is missing in: {self.err}"


RunCommand = Callable[..., Finished]


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """An environment in which no setting of the person who runs the tests can be seen."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "PYTHONUTF8": "1"} | extra


@pytest.fixture
def callboard(tmp_path: Path) -> RunCommand:
    """`callboard("search", "notes", "storm", input="y\\n", CALLBOARD_URL=...)` runs the command and gives how it ended."""

    def run(*arguments: str | Path, input: str = "", timeout_s: float = 60, **environment: str) -> Finished:  # noqa: A002
        done = subprocess.run(
            [sys.executable, "-m", "callboard", *map(str, arguments)],
            cwd=tmp_path,
            env=clean_environment(tmp_path / "home", **environment),
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run
