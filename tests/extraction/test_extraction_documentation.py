"""The page about text extraction says what is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from callboard.actors.extraction import DEFAULT_EXTENSIONS, ExtractionLimits, Status

PAGE = (Path(__file__).parents[2] / "docs" / "text-extraction.md").read_text(encoding="utf-8")


def test_the_example_runs_and_prints_what_the_page_says(tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [printed] = re.findall(r"prints `([^`]+)`", PAGE)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (printed, "")


def test_every_status_and_extension_is_on_the_page() -> None:
    for status in Status:
        assert f"| `{status.value}` |" in PAGE
    section = PAGE.partition("## Which files")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\.\w+)`", section)) == DEFAULT_EXTENSIONS


def test_the_limits_on_the_page_are_the_defaults() -> None:
    limits = ExtractionLimits()
    for shown in (
        f"{limits.size_bytes_max // 2**20} MiB",
        f"{limits.characters_max:,}",
        f"{limits.seconds_max:g}",
        f"{limits.memory_bytes_max // 2**20} MiB",
        f"{limits.unpacked_bytes_max // 2**20} MiB",
        f"{limits.nesting_max} deep",
        f"{limits.entries_max:,}",
    ):
        assert f"| {shown} |" in PAGE
