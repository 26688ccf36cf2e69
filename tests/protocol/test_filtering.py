"""Basic rules over documents of every type, and the way of a draft into force."""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol import drafts
from callboard.protocol.documents import (
    AdvancedSnippet,
    Connector,
    Rule,
    Rules,
    Validation,
    ValidationState,
    default_filtering,
    default_rule,
    read_connector,
    read_rules,
)
from callboard.protocol.filtering import InvalidRules, Operator, SlowExpression, compile_rules, validate_rules
from callboard.protocol.jobs import TransitionRefused
from callboard.protocol.wire import InvalidDocument, write

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def rule(
    operator: str, value: Any, *, rule_id: str = "r", policy: str = "exclude", field: str = "f", order: Any = 0
) -> Rule:
    return Rule(id=rule_id, policy=policy, field=field, rule=operator, value=value, order=order)


def matches(operator: str, value: str, found: Any) -> bool:
    return not compile_rules([rule(operator, value)]).keeps({"f": found})


@pytest.mark.parametrize(
    ("operator", "value", "found", "expected"),
    [
        # text
        ("equals", "a", "a", True),
        ("equals", "a", "A", False),
        ("starts_with", "pl", "play", True),
        ("ends_with", "ay", "play", True),
        ("contains", "la", "play", True),
        ("contains", "x", "play", False),
        ("regex", "p.a", "play", True),
        ("regex", "lay", "play", False),
        ("<", "b", "a", True),
        ("<", "a", "b", False),
        # booleans really compare
        ("equals", "true", True, True),
        ("equals", "True", True, True),
        ("equals", "yes", True, True),
        ("equals", "off", False, True),
        ("equals", "true", False, False),
        ("equals", "1", True, False),
        ("equals", "perhaps", True, False),
        ("<", "true", False, True),
        ("starts_with", "T", True, True),
        ("starts_with", "t", True, True),
        # numbers
        ("equals", "5", 5, True),
        ("equals", "5.0", 5, True),
        ("equals", "5", 5.0, True),
        ("equals", "0.1", 0.1, True),
        (">", "0.1", 0.1, False),
        ("equals", "five", 5, False),
        ("equals", "123456789012345678", 123456789012345679, False),
        ("equals", "123456789012345679", 123456789012345679, True),
        ("equals", "1.10", Decimal("1.1"), True),
        (">", "9", 10, True),
        ("<", "9", 10, False),
        (">", "9", "10", True),
        (">", "1e3", 1001, True),
        ("<", "5", float("nan"), False),
        (">", "5", Decimal("NaN"), False),
        ("equals", "nan", float("nan"), False),
        ("contains", "2", 123, True),
        # dates
        (">", "2025-01-31", "2025-02-01T00:00:00Z", True),
        (">", "2025-01-31T12:00:00+02:00", "2025-01-31T11:00:00Z", True),
        ("<", "2025-01-31", datetime(2025, 1, 30), True),
        ("<", "2025-01-31", datetime(2025, 1, 30, tzinfo=UTC), True),
        ("<", "2025-01-31", date(2025, 1, 30), True),
        ("equals", "2025-01-31", date(2025, 1, 31), True),
        ("equals", "2025-01-31T12:00:00Z", "2025-01-31T12:00:00+00:00", True),
        ("<", "soon", datetime(2025, 1, 30), False),
        ("starts_with", "2025-01", datetime(2025, 1, 30), True),
        # types that do not fit
        ("<", "5", "many", False),
        (">", "5", "many", False),
        (">", "2025-01-31", "many", False),
        (">", "many", 5, False),
        (">", "5", {"a": 1}, False),
        (">", "5", None, False),
        ("equals", "None", None, False),
        ("regex", ".", None, False),
        # lists and objects
        ("equals", "a", ["b", "a"], True),
        ("equals", "a", [], False),
        (">", "5", [1, "x", None, 7], True),
        ("contains", "ay", ["play"], True),
        ("equals", '{"a": 1}', {"a": 1}, True),
        ("contains", "ä", {"a": "ä"}, True),
        # operators in any case
        ("EQUALS", "a", "a", True),
    ],
)
def test_what_matches(operator: str, value: str, found: Any, expected: bool) -> None:
    assert matches(operator, value, found) is expected


def test_an_absent_field_matches_nothing() -> None:
    for operator in Operator:
        assert compile_rules([rule(operator.value, "x.*")]).keeps({"other": "x"})


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        rule("starts_with", "a", rule_id="third", order=3),
        rule("equals", "abc", rule_id="first", policy="include", order=1),
        rule("equals", "abd", rule_id="second", policy="EXCLUDE", order=2),
        default_rule(NOW, 4),
    ]
    compiled = compile_rules(rules)
    documents = [{"f": text} for text in ("abc", "abd", "ab", "b")]
    assert compiled.decide(documents) == [True, False, False, True]
    assert compiled.keep(documents) == [{"f": "abc"}, {"f": "b"}]


def test_without_excluding_rules_nothing_is_looked_at() -> None:
    assert compile_rules([]).keeps_everything
    assert compile_rules(default_filtering(NOW).active).keeps_everything
    assert compile_rules([rule("equals", "x", policy="include")]).keeps_everything
    assert not compile_rules([rule("equals", "x")]).keeps_everything


def test_an_excluding_default_rule_is_not_evaluated() -> None:
    assert compile_rules([attrs.evolve(default_rule(NOW), policy="exclude")]).keeps({"f": "x"})


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=10)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.uuids()
    | st.binary(max_size=5)
    | st.sampled_from(["2025-01-31", "5", "true", "1e999", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
rule_values = st.text(min_size=1, max_size=8) | st.sampled_from(
    [
        "5",
        "-1.5",
        "1e999",
        "true",
        "2025-01-31",
        "0001-01-01",
        "9999-12-31T23:59:59-14:00",
        "nan",
        "inf",
        "sNaN",
        "9" * 400,
    ]
)


@given(st.sampled_from(list(Operator)), rule_values, st.lists(anything, max_size=4))
def test_nothing_in_a_document_makes_a_rule_fail(operator: Operator, value: str, found: list[Any]) -> None:
    try:
        compiled = compile_rules([rule(operator.value, value)])
    except InvalidRules:
        assert operator is Operator.REGEX
        return
    documents = [{"f": one} for one in found]
    decisions = compiled.decide(documents)
    assert all(type(decision) is bool for decision in decisions)
    assert decisions == [compiled.keeps(document) for document in documents]
    assert compiled.keep(documents) == [one for one, kept in zip(documents, decisions, strict=True) if kept]


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**15), 10**15))
def test_numbers_compare_as_numbers(found: float, limit: int) -> None:
    text = str(limit)
    assert matches("<", text, found) == (found < limit)
    assert matches(">", text, found) == (found > limit)
    assert matches("equals", text, found) == (found == limit)


@given(*[st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones())] * 2)
def test_dates_compare_as_instants(found: datetime, limit: datetime) -> None:
    for value in (found, found.isoformat()):
        assert matches("<", limit.isoformat(), value) == (
            datetime.fromisoformat(found.isoformat()) < datetime.fromisoformat(limit.isoformat())
        )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"id": ""}, "id"),
        ({"field": ""}, "field"),
        ({"field": 5}, "a number"),
        ({"value": ""}, "value"),
        ({"value": None}, "null"),
        ({"policy": "maybe"}, "include, exclude"),
        ({"rule": "like"}, "starts_with"),
        ({"order": None}, "order"),
        ({"order": True}, "order"),
        ({"order": float("nan")}, "order"),
        ({"rule": "regex", "value": ".*"}, "matches everything"),
        ({"rule": "regex", "value": "(.*)"}, "matches everything"),
        ({"rule": "regex", "value": "("}, "not valid"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_with_its_id(changed: dict[str, Any], says: str) -> None:
    validation = validate_rules([attrs.evolve(rule("equals", "x"), **changed)])
    assert validation.state is ValidationState.INVALID
    (error,) = validation.errors
    assert error.ids == (("rule 1",) if changed == {"id": ""} else ("r",))
    assert says in " ".join(error.messages)
    with pytest.raises(InvalidRules, match="draft"):
        compile_rules([attrs.evolve(rule("equals", "x"), **changed)])


def test_rules_that_test_the_same_are_all_named() -> None:
    rules = [
        rule("equals", "x", rule_id="a"),
        rule("EQUALS", "x", rule_id="b", policy="include"),
        rule("equals", "y", rule_id="c"),
    ]
    (error,) = validate_rules(rules).errors
    assert error.ids == ("a", "b")


def test_the_default_rule_may_match_everything() -> None:
    assert validate_rules(default_filtering(NOW).draft) == Validation()


def test_advanced_rules_are_objects_or_lists() -> None:
    for value in ({}, [], [{"a": 1}], None):
        assert validate_rules(Rules(advanced_snippet=AdvancedSnippet(value=value))).state is ValidationState.VALID
    (error,) = validate_rules(Rules(advanced_snippet=AdvancedSnippet(value="x"))).errors
    assert write(error) == {
        "ids": ["advanced_snippet"],
        "messages": ["Advanced rules must be an object or a list, but are a text."],
    }
    told = validate_rules(Rules(), [((), "no such table"), (("t",), "odd")])
    assert [error.ids for error in told.errors] == [("advanced_snippet",), ("t",)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
rule_objects = st.dictionaries(
    st.sampled_from(["id", "policy", "field", "rule", "value", "order", "x"]),
    json_values | st.sampled_from(["include", "equals", "regex", "DEFAULT"]),
)


@given(
    st.fixed_dictionaries({"rules": json_values | st.lists(rule_objects, max_size=4), "advanced_snippet": json_values})
)
def test_any_set_of_rules_is_valid_or_says_why(source: dict[str, Any]) -> None:
    before = copy.deepcopy(source)
    try:
        rules = read_rules(source)
    except InvalidDocument as refused:
        assert refused.problems
        return
    validation = validate_rules(rules)
    if validation.state is ValidationState.VALID:
        compile_rules(rules).keeps({"f": "x"})
    else:
        assert all(error.ids and error.messages for error in validation.errors)
    assert repr(source) == repr(before)


# Drafts


def connector(**fields: Any) -> Connector:
    features = {"sync_rules": {"basic": {"enabled": True}}}
    stored = {"features": features, "filtering": [write(default_filtering(NOW)) | {"x_new": 1}]}
    return attrs.evolve(read_connector("c", stored), **fields)


def test_a_draft_comes_into_force() -> None:
    edited = drafts.edit_draft(
        connector(), NOW, rules=[rule("equals", "x", order=7), rule("equals", "y", rule_id="s", order=2)]
    )
    assert drafts.needs_validation(edited)
    assert [(one.id, one.order) for one in edited.rules.draft.rules] == [("s", 2), ("r", 7), ("DEFAULT", 8)]
    assert [one.id for one in edited.rules.active.rules] == ["DEFAULT"]
    with pytest.raises(TransitionRefused, match="edited"):
        drafts.activate(edited)
    active = drafts.validated(edited, validate_rules(edited.rules.draft))
    assert active.rules.active == active.rules.draft
    assert active.rules.active.validation.state is ValidationState.VALID
    assert write(active)["filtering"][0]["x_new"] == 1
    assert not drafts.needs_validation(active)
    with pytest.raises(TransitionRefused, match="do not wait"):
        drafts.validated(active, Validation())


def test_an_invalid_draft_stays_a_draft() -> None:
    edited = drafts.edit_draft(connector(), NOW, rules=[rule("regex", ".*")])
    judged = drafts.validated(edited, validate_rules(edited.rules.draft))
    assert judged.rules.draft.validation.state is ValidationState.INVALID
    assert judged.rules.active == connector().rules.active
    with pytest.raises(TransitionRefused, match="invalid"):
        drafts.activate(judged)


def test_a_part_that_is_not_edited_stays() -> None:
    snippet = AdvancedSnippet(value=[{"a": 1}], created_at=NOW)
    first = drafts.edit_draft(connector(), NOW, rules=[rule("equals", "x")])
    second = drafts.edit_draft(first, NOW, advanced_snippet=snippet)
    assert second.rules.draft.rules == first.rules.draft.rules
    assert second.rules.draft.advanced_snippet == snippet
    third = drafts.edit_draft(second, NOW, rules=[])
    assert third.rules.draft.advanced_snippet == snippet
    assert [(one.id, one.order) for one in third.rules.draft.rules] == [("DEFAULT", 0)]
    with pytest.raises(TransitionRefused, match="basic rules, advanced rules"):
        drafts.edit_draft(connector(), NOW)


def test_drafts_wait_only_where_rules_are_a_feature() -> None:
    edited = drafts.edit_draft(connector(features=None), NOW, rules=[])
    assert not drafts.needs_validation(edited)


def test_an_expression_that_backtracks_for_ever_is_stopped_and_named() -> None:
    rule = Rule(id="r", policy="exclude", field="a", rule="regex", value="(x+x+)+y", order=0)
    rules = compile_rules(Rules(rules=(rule,)))
    with pytest.raises(SlowExpression, match=r"repetitions inside repetitions"):
        rules.keeps({"a": "x" * 5000})
