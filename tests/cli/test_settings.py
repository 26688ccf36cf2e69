"""What `--set` takes, and what it becomes."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.cli.settings import as_stored, check_fields, parse_assignments, values_of, with_values

SCHEMA: dict[str, Any] = {
    "directory": {"type": "str", "value": ""},
    "port": {"type": "int", "value": 1},
    "use_tls": {"type": "bool", "value": False},
}


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.text()))
def test_whatever_stands_behind_the_first_equals_sign_is_the_value(values: dict[str, str]) -> None:
    assert parse_assignments(f"{name}={value}" for name, value in values.items()) == values


@pytest.mark.parametrize("text", ["hunter2", "=x", " =x", ""])
def test_a_text_without_a_field_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(click.UsageError, match="FIELD=VALUE") as refused:
        parse_assignments([text])
    assert "hunter2" not in str(refused.value)


def test_a_field_is_set_once() -> None:
    with pytest.raises(click.UsageError, match="set twice"):
        parse_assignments(["a=1", "a=2"])


def test_an_unknown_field_is_told_the_nearest_one_and_all_there_are() -> None:
    with pytest.raises(click.UsageError, match=r"Did you mean 'directory'.*directory, port, use_tls"):
        check_fields("dir", SCHEMA, ["directry"])


def test_texts_become_what_the_field_stores() -> None:
    entered = with_values(SCHEMA, {"directory": "7", "port": "7", "use_tls": "Yes"})
    assert values_of(entered) == {"directory": "7", "port": 7, "use_tls": True}
    assert values_of(SCHEMA) == {"directory": "", "port": 1, "use_tls": False}


@pytest.mark.parametrize(("kind", "text"), [("int", "many"), ("bool", "maybe")])
def test_a_text_of_another_type_is_left_for_the_checks(kind: str, text: str) -> None:
    assert as_stored({"type": kind}, text) == text
