"""Who may see what: an empty or unknown set of readers lets nobody in."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.access import (
    ALLOW_ACCESS_CONTROL,
    NOBODY,
    QUERY_SOURCE,
    ReservedPrincipal,
    access_list,
    allows,
    identity_document,
    principal,
    with_access,
)

readers = st.lists(st.none() | st.text(max_size=6) | st.sampled_from(["email:a", "group:b", NOBODY]), max_size=5)
people = st.lists(st.sampled_from(["email:a", "group:b", "user:c", "callboard", "nobody"]), max_size=4)


@given(st.none() | readers, people)
def test_only_readers_that_are_named_get_in(named: list[str | None] | None, person: list[str]) -> None:
    document = {ALLOW_ACCESS_CONTROL: access_list(named)}
    assert document[ALLOW_ACCESS_CONTROL]
    assert allows(document, person) == bool({one.strip() for one in named or () if one} & set(person))


@given(st.none() | readers)
def test_an_identity_document_never_carries_the_entry_for_nobody(named: list[str | None] | None) -> None:
    try:
        document = identity_document("a", named or [])
    except ReservedPrincipal:
        assert any("callboard" in (one or "") for one in named or ())
    else:
        principals = document["query"]["template"]["params"]["access_control"]
        assert not allows({ALLOW_ACCESS_CONTROL: [NOBODY]}, principals)


@pytest.mark.parametrize("nothing", [None, [], [None], [""], [" "], iter(())])
def test_an_empty_set_of_readers_is_nobody(nothing: object) -> None:
    assert access_list(nothing) == [NOBODY]  # type: ignore[arg-type]
    assert with_access({}, None) == {ALLOW_ACCESS_CONTROL: [NOBODY]}


def test_readers_are_added_to_those_a_document_names() -> None:
    assert with_access({ALLOW_ACCESS_CONTROL: ["email:b"]}, ["email:a", "email:b"]) == {
        ALLOW_ACCESS_CONTROL: ["email:a", "email:b"]
    }
    assert with_access({ALLOW_ACCESS_CONTROL: [NOBODY]}, ["email:a"]) == {ALLOW_ACCESS_CONTROL: ["email:a"]}
    assert with_access({ALLOW_ACCESS_CONTROL: "email:b"}, []) == {ALLOW_ACCESS_CONTROL: ["email:b"]}
    assert with_access({ALLOW_ACCESS_CONTROL: {"odd": 1}}, []) == {ALLOW_ACCESS_CONTROL: [NOBODY]}


def test_a_document_without_a_list_is_open_to_all_in_elasticsearch() -> None:
    assert allows({}, [])
    assert allows({ALLOW_ACCESS_CONTROL: []}, [])
    assert allows({ALLOW_ACCESS_CONTROL: None}, [])


def test_principals_need_both_parts() -> None:
    assert principal("email", "a@b") == "email:a@b"
    assert principal("user_id", 0) == "user_id:0"
    assert principal(None, "x") is principal("email", None) is principal("email", " ") is principal("", "x") is None


def test_an_identity_document_has_what_applications_read() -> None:
    document = identity_document(
        "a@b",
        ["group:x", "email:a@b", None, "group:x"],
        identity={"email": "a@b"},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert document == {
        "_id": "a@b",
        "id": "a@b",
        "identity": {"email": "a@b"},
        "created_at": "2026-01-01T00:00:00+00:00",
        "query": {"template": {"params": {"access_control": ["email:a@b", "group:x"]}, "source": QUERY_SOURCE}},
    }
    assert identity_document("a", [], timestamp="t")["_timestamp"] == "t"


def test_the_template_renders_to_the_query() -> None:
    rendered = QUERY_SOURCE.replace("{{#toJson}}access_control{{/toJson}}", json.dumps(["email:a"]))
    assert json.loads(rendered) == {
        "bool": {
            "should": [
                {"bool": {"must_not": {"exists": {"field": "_allow_access_control"}}}},
                {"terms": {"_allow_access_control.keyword": ["email:a"]}},
            ]
        }
    }
