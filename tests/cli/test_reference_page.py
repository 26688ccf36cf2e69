"""The reference page is made from the commands and is fresh."""

from __future__ import annotations

from pathlib import Path

from callboard.cli.reference import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def test_the_reference_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "run: make docs"


def test_the_page_does_not_name_this_machine() -> None:
    assert str(Path.home()) not in reference_page()
