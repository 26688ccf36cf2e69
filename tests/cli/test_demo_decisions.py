"""What the demonstration decides: names, words, counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard.cli.demo import SAMPLE, Kind, checked_folder, index_name_for, kinds, telling_word
from callboard.cli.failures import CommandFailed
from callboard.protocol.indices import check_index_name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (SAMPLE, "demo"),
        (Path("/home/ines/Notes"), "demo-notes"),
        (Path("/x/Été 2026 (neu)"), "demo-t-2026-neu"),
        (Path("/"), "demo"),
        (Path("/" + "x" * 255), "demo-" + "x" * 95),
    ],
)
def test_every_folder_has_a_legal_index(folder: Path, name: str) -> None:
    assert index_name_for(folder) == name
    assert check_index_name(name) == name


def test_documents_are_counted_by_kind() -> None:
    documents = [{"path": "/a.MD", "size": 3, "body": "x"}, {"path": "/b.md", "size": 4}, {"path": "/c"}]
    assert kinds(documents) == [Kind("md", 2, 7, 1), Kind("other", 1, 0, 0)]


def test_a_word_of_several_documents_is_searched_for_and_not_one_of_all() -> None:
    texts = ["about lighthouse keepers", "about lighthouse lamps", "about tides", "about boats"]
    assert telling_word(texts) == "lighthouse"


def test_there_is_always_a_word_to_search_for() -> None:
    assert telling_word(["solitary"]) == "solitary"
    assert telling_word(["a b c"]) == "the"


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CommandFailed, match="is a file"):
        checked_folder(file)
    with pytest.raises(CommandFailed, match="does not exist"):
        checked_folder(tmp_path / "missing")


def test_the_sample_has_every_format_it_promises() -> None:
    found = {path.suffix for path in SAMPLE.rglob("*") if path.is_file()}
    assert found == {".txt", ".md", ".html", ".json", ".csv", ".pdf", ".docx"}
