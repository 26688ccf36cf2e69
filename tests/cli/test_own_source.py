"""The beginning of a source of one's own works as it is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callboard.cli.exits import Exit


def test_the_tests_of_a_new_source_pass(callboard: Any, tmp_path: Path) -> None:
    done = callboard("source", "new", "tide_tables")
    assert done.code == Exit.DONE, done.err
    folder = tmp_path / "tide_tables"
    passed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tide_tables.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "6 passed" in passed.stdout
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "."], cwd=folder, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_an_existing_folder_is_not_written_into(callboard: Any, tmp_path: Path) -> None:
    (tmp_path / "tides").mkdir()
    callboard("source", "new", "tides").assert_failed(Exit.USAGE, "tides", "exists")
    assert list((tmp_path / "tides").iterdir()) == []


@pytest.mark.parametrize("name", ["Tides", "1tide", "../tides", "class"])
def test_a_name_that_cannot_be_a_module_is_refused(callboard: Any, name: str) -> None:
    callboard("source", "new", name).assert_failed(Exit.USAGE, name)
