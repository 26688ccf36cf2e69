"""How hits are asked for, read and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callboard.cli.search import Hits, as_json, print_hits, read_answer, request_body, shorten_title, show_fragment

BEGIN, END = "\ue000", "\ue001"


def answer(*hits: dict[str, Any], total: int | None = None, relation: str = "eq") -> dict[str, Any]:
    count = len(hits) if total is None else total
    return {"hits": {"total": {"value": count, "relation": relation}, "hits": list(hits)}}


HIT = {
    "_id": "1",
    "_score": 1.5,
    "_source": {"path": "/srv/notes/storm.md", "size": 3},
    "highlight": {
        "path": [f"/srv/notes/{BEGIN}storm{END}.md"],
        "body": [f"the {BEGIN}storm{END}\n   at sea"],
        "body.stem": [f"the {BEGIN}storm{END}"],
    },
}


def test_the_text_comes_before_the_name_and_subfields_are_left_out() -> None:
    (hit,) = read_answer(answer(HIT)).hits
    assert hit.title == "/srv/notes/storm.md"
    assert [fragment[:3] for fragment in hit.fragments] == ["the", "/sr"]


def test_a_document_without_a_name_is_shown_by_its_id() -> None:
    (hit,) = read_answer(answer({"_id": "abc", "_score": None, "_source": {}})).hits
    assert (hit.title, hit.fragments) == ("abc", ())


def test_markup_in_a_document_is_not_taken_for_a_highlight() -> None:
    assert show_fragment(f"<em>not</em> this, {BEGIN}this{END}") == "<em>not</em> this, [this]"


def test_scripts_get_em_elements() -> None:
    shown = as_json("notes", "storm", read_answer(answer(HIT)))
    assert shown["hits"][0]["highlights"][0] == "the <em>storm</em>\n   at sea"
    assert (shown["total"], shown["hits"][0]["document"]) == (1, HIT["_source"])


def test_hits_are_shown_with_their_number_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    print_hits("notes", "storm", read_answer(answer(HIT, total=40)), below=Path("/srv/notes"))
    printed = capsys.readouterr()
    assert "40 documents match 'storm'" in printed.out
    assert "1  storm.md" in printed.out
    assert "the [storm] at sea" in printed.out
    assert "--size" in printed.err


def test_no_hit_is_said_and_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    print_hits("notes", "storm", Hits(total=0, total_is_exact=True, hits=()))
    assert capsys.readouterr().err == "Nothing in 'notes' matches 'storm'.\n"


def test_a_title_that_only_begins_like_the_folder_stays_whole() -> None:
    assert shorten_title("/srv/notes-old/a.md", Path("/srv/notes")) == "/srv/notes-old/a.md"


def test_attachments_are_never_asked_for() -> None:
    assert request_body("storm", size=1)["source_excludes"] == ["_attachment"]
