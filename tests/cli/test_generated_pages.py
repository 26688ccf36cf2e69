"""The pages made from the code are fresh, and say something about everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard.actors.configuration import options
from callboard.cli.generated_pages import pages
from callboard.sources.registry import service_types

DOCS = Path(__file__).parents[2] / "docs"
PAGES = dict(pages(DOCS / "sources" / "notes"))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_fresh(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name], "run: make docs"


def test_every_key_of_the_service_is_on_its_page() -> None:
    for key, _, _ in options():
        assert f"`{key}`" in PAGES["configuration.md"], key


def test_every_source_has_a_page_and_every_page_a_source() -> None:
    known = {info.service_type for info in service_types()}
    written = {path.stem for path in (DOCS / "sources").glob("*.md")} - {"index"}
    assert written == known
