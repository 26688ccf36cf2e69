"""One class per source gives schema, checks and typed values; what people have entered is never lost and never shown."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.configuration import (
    InvalidConfiguration,
    configuration_of,
    greater_than,
    included_in,
    less_than,
    list_type,
    masked,
    read_configuration,
    read_fields,
    redact,
    regex,
    schema_of,
    secrets_in,
    setting,
    upkeep,
)
from callboard.protocol.configuration_values import convert, is_empty, read_values
from callboard.protocol.wire import InvalidDocument, same


class Cloud(StrEnum):
    PUBLIC = "public"
    OWN = "own"


@attrs.frozen
class Config:
    host: str = setting("Host")
    port: int = setting("Port", default=5432, validations=[greater_than(0), less_than(65536)])
    password: str = setting("Password", sensitive=True)
    tables: list[str] = setting("Tables", default="*")
    numbers: list[int] = setting("Numbers", required=False)
    page_size: int = setting("Rows per page", default=50, required=False, advanced=True)
    limit: int | None = setting("Limit", required=False)
    tls: bool = setting("Use TLS", default=False)
    ca: str = setting("Certificate", depends_on={"tls": True}, tooltip="In PEM form.")
    cloud: Cloud = setting("Cloud", default=Cloud.PUBLIC, options={"public": "Public", "own": "Own"})
    mode: Literal["fast", "safe"] = setting("Mode", default="safe", required=False)
    key: str = setting("Key", required=False, validations=[regex("[A-Z]{3}")])

    def complaints(self) -> Iterator[tuple[str, str]]:
        if self.host == "nowhere" and self.port == 1:
            yield "port", "cannot be 1 on nowhere"


GOOD: dict[str, Any] = {"host": {"value": "h"}, "password": {"value": "hunter2!"}}


def test_the_schema_has_every_property_of_every_field() -> None:
    schema = schema_of(Config)
    assert schema["port"] == {
        "default_value": None,
        "depends_on": [],
        "display": "numeric",
        "label": "Port",
        "options": [],
        "order": 2,
        "required": True,
        "sensitive": False,
        "tooltip": None,
        "type": "int",
        "ui_restrictions": [],
        "validations": [{"type": "greater_than", "constraint": 0}, {"type": "less_than", "constraint": 65536}],
        "value": 5432,
    }
    assert schema["page_size"]["default_value"] == 50
    assert schema["page_size"]["value"] is None
    assert schema["page_size"]["ui_restrictions"] == ["advanced"]
    assert schema["ca"]["depends_on"] == [{"field": "tls", "value": True}]
    assert schema["cloud"]["display"] == "dropdown"
    assert schema["cloud"]["options"] == [{"label": "Public", "value": "public"}, {"label": "Own", "value": "own"}]
    assert schema["tables"]["value"] == "*"
    assert json.loads(json.dumps(schema)) == schema
    assert list(read_fields(schema)) == list(schema)


def test_a_stored_configuration_becomes_typed() -> None:
    config = read_configuration(Config, {**GOOD, "port": {"value": "1"}, "tls": "yes", "ca": {"value": "PEM"}})
    assert config == Config(host="h", port=1, password="hunter2!", tls=True, ca="PEM")
    assert config.tables == ["*"]
    assert config.page_size == 50
    assert config.limit is None
    assert config.numbers == []
    assert config.cloud is Cloud.PUBLIC
    assert config.mode == "safe"
    assert "hunter2" not in repr(config)


def test_one_made_in_a_program_has_the_same_defaults() -> None:
    assert Config(host="h", password="p") == read_configuration(Config, {"host": "h", "password": "p"})
    with pytest.raises(TypeError, match="host"):
        Config(password="p")


@pytest.mark.parametrize(
    ("stored", "field", "complaint"),
    [
        ({"host": {"value": ""}}, "host", "needs a value"),
        ({"host": None}, "host", "needs a value"),
        ({"port": {"value": None}}, "port", "needs a value"),
        ({"port": {"value": "x"}}, "port", "must be a whole number"),
        ({"port": {"value": True}}, "port", "must be a whole number"),
        ({"port": {"value": 65536}}, "port", "must be less than 65536"),
        ({"port": {"value": 0}}, "port", "must be greater than 0"),
        ({"tls": {"value": "maybe"}}, "tls", "must be true or false"),
        ({"tls": {"value": True}}, "ca", "needs a value"),
        ({"cloud": {"value": "moon"}}, "cloud", "must be one of public, own"),
        ({"mode": {"value": "odd"}}, "mode", "must be one of fast, safe"),
        ({"numbers": {"value": "1,two"}}, "numbers", "must be a list of whole numbers"),
        ({"key": {"value": "ABCD"}}, "key", "must match the regular expression [A-Z]{3}"),
        ({"tables": {"value": {"a": 1}}}, "tables", "must be a list or text separated by commas"),
        ({"tables": {"value": ", ,"}}, "tables", "needs a value"),
        ({"host": {"value": "nowhere"}, "port": {"value": 1}}, "port", "cannot be 1 on nowhere"),
    ],
)
def test_what_cannot_be_used_is_named(stored: dict[str, Any], field: str, complaint: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        read_configuration(Config, {**GOOD, **stored})
    (problem,) = refused.value.problems
    assert problem.field == field
    assert complaint in problem.complaint
    assert f"({field})" in str(refused.value)


def test_all_problems_come_at_once_and_without_secrets() -> None:
    stored = {"port": {"value": "hunter2!"}, "password": {"value": ["hunter2!", {}]}, "tls": {"value": "hunter2!"}}
    with pytest.raises(InvalidConfiguration) as refused:
        read_configuration(Config, stored)
    assert [problem.field for problem in refused.value.problems] == ["host", "port", "password", "tls"]
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(refused.value)
    by_field = {problem.field: problem for problem in refused.value.problems}
    assert by_field["password"].value is None
    assert by_field["port"].value == "hunter2!"


@pytest.mark.parametrize("word", ["false", "False", "no", "off", "0", "f", 0, False])
def test_words_for_false_are_false(word: Any) -> None:
    assert read_configuration(Config, {**GOOD, "tls": {"value": word}}).tls is False


@pytest.mark.parametrize("word", ["true", "TRUE", "yes", "on", "1", 1, True])
def test_words_for_true_are_true(word: Any) -> None:
    assert read_configuration(Config, {**GOOD, "tls": {"value": word}, "ca": "x"}).tls is True


def test_a_hidden_field_is_not_checked() -> None:
    config = read_configuration(Config, {**GOOD, "ca": {"value": {"odd": 1}}})
    assert config.ca == ""


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (None, "str", ""),
        (5, "str", "5"),
        ("", "int", None),
        (" 7 ", "int", 7),
        (7.0, "int", 7),
        ("a, b ,,c", "list", ["a", "b", "c"]),
        (5, "list", [5]),
        (None, "list", []),
        (["a ", "", None], "list", ["a"]),
        ("", "bool", None),
        ("x", "unknown", "x"),
    ],
)
def test_conversions(value: Any, kind: str, expected: Any) -> None:
    assert convert(value, kind) == expected


def test_a_list_of_nothing_is_empty() -> None:
    assert is_empty([None, ""])
    assert is_empty([])
    assert not is_empty([0])
    assert not is_empty(0)
    assert not is_empty(False)


def test_validations_take_what_they_are_meant_for() -> None:
    schema = {
        "ids": {"label": "Ids", "type": "list", "validations": [list_type("int")]},
        "kinds": {"label": "Kinds", "type": "list", "validations": [included_in("a", "b")]},
        "names": {"label": "Names", "type": "list", "validations": [list_type("str")]},
        "broken": {"label": "Broken", "validations": [{"type": "regex", "constraint": "("}, {"type": "new", "x": 1}]},
    }
    good = {"ids": "1,2", "kinds": "a,b", "names": "x"}
    with pytest.raises(InvalidConfiguration) as refused:
        read_values(schema, {**good, "broken": "y"})
    assert [problem.field for problem in refused.value.problems] == ["broken"]
    with pytest.raises(InvalidConfiguration) as refused:
        read_values(schema, {"ids": "1,x", "kinds": "a,c", "names": [1], "broken": "y"})
    assert [problem.field for problem in refused.value.problems] == ["ids", "kinds", "names", "broken"]


def test_a_dependency_on_nothing_is_an_error() -> None:
    schema = {"a": {"label": "A", "depends_on": [{"field": "b", "value": 1}]}}
    with pytest.raises(InvalidConfiguration, match="'b'"):
        read_values(schema, {"a": "x"})

    @attrs.frozen
    class Broken:
        a: str = setting("A", depends_on={"b": 1})

    with pytest.raises(TypeError, match=r"Broken\.a depends on 'b'"):
        schema_of(Broken)


def test_classes_that_cannot_work_are_refused() -> None:
    @attrs.frozen
    class Display:
        a: str = setting("A", display="hologram")

    @attrs.frozen
    class Kind:
        a: dict[str, str] = setting("A")

    with pytest.raises(TypeError, match="hologram"):
        schema_of(Display)
    with pytest.raises(TypeError, match="dict"):
        schema_of(Kind)


def test_an_empty_configuration_gets_the_whole_schema() -> None:
    done = upkeep({}, Config)
    assert done.is_first
    assert done.configuration == schema_of(Config)
    assert not upkeep(done.configuration, Config).is_needed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
entries = json_values | st.dictionaries(
    st.sampled_from(["value", "label", "required", "sensitive", "type", "depends_on", "validations", "x_new", "order"]),
    json_values,
)
stored_configurations = st.dictionaries(
    st.sampled_from([field.name for field in attrs.fields(Config)]) | st.text(max_size=4), entries, max_size=6
)


@given(stored_configurations)
def test_upkeep_never_loses_a_value_and_comes_to_rest(stored: dict[str, Any]) -> None:
    before = copy.deepcopy(stored)
    done = upkeep(stored, Config)
    assert same(stored, before)
    for name, entry in before.items():
        after = done.configuration[name]
        if isinstance(entry, dict):
            assert "value" not in entry or same(after["value"], entry["value"])
            assert entry.keys() <= after.keys()
            assert same(after.get("x_new"), entry.get("x_new"))
        elif name in schema_of(Config):
            assert same(after["value"], entry)
        else:
            assert same(after, entry)
    assert not upkeep(done.configuration, Config).is_needed
    assert done.is_needed == (not same(done.configuration, before))


@given(stored_configurations)
def test_any_stored_configuration_is_read_or_refused_with_fields_named(stored: dict[str, Any]) -> None:
    try:
        config = read_configuration(Config, stored)
    except InvalidConfiguration as refused:
        assert {problem.field for problem in refused.problems} <= schema_of(Config).keys()
    else:
        assert isinstance(config.port, int)
        assert all(isinstance(number, int) for number in config.numbers)
        assert read_configuration(Config, configuration_of(config)) == config


@given(stored_configurations, stored_configurations)
def test_any_schema_is_read_or_refused(schema: dict[str, Any], stored: dict[str, Any]) -> None:
    try:
        read_values(schema, stored)
    except (InvalidConfiguration, InvalidDocument) as refused:
        assert refused.problems


def test_secrets_are_masked_wherever_they_stand() -> None:
    stored = {
        "password": {"value": "hunter2!", "default_value": "changeme", "sensitive": True},
        "odd": {"value": "s3cr3t", "sensitive": True},
        "api_key": "abcdef",
        "client_secret": {"value": {"nested": "abcdefgh"}},
        "host": {"value": "h"},
        "token": {"value": ""},
    }
    shown = masked(stored)
    for secret in ("hunter2!", "changeme", "s3cr3t", "abcdef"):
        assert secret not in json.dumps(shown)
    assert shown["host"] == {"value": "h"}
    assert shown["token"] == {"value": ""}
    assert stored["api_key"] == "abcdef"
    assert secrets_in(stored) == {"hunter2!", "s3cr3t", "abcdef", "abcdefgh"}
    assert redact("login with hunter2! at h failed", secrets_in(stored)) == "login with ******** at h failed"


@given(stored_configurations)
def test_masking_takes_anything(stored: dict[str, Any]) -> None:
    assert masked(stored).keys() == stored.keys()
    secrets_in(stored)
