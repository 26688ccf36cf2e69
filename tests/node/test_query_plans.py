"""Searches use indices: what SQLite says it will do, and what `minimum_should_match` and friends come to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.node.errors import ApiError
from callboard.node.handlers.bulk import parse_bulk, write_operations
from callboard.node.mapping.dates import InvalidDate, format_ms, read_date, read_date_math
from callboard.node.query.parse import parse_query
from callboard.node.query.plan import Planner, required_count
from callboard.node.storage.catalog import Catalog
from callboard.node.storage.database import Database
from callboard.node.storage.names import Expansion, matches, resolve
from callboard.runtime import now


@pytest.fixture
def database() -> Iterator[Database]:
    opened = Database(None)
    lines = b"".join(b'{"index":{"_id":"%d"}}\n{"k":"v%d","n":%d,"t":"some words"}\n' % (n, n, n) for n in range(50))
    opened._change(write_operations, parse_bulk(lines, "a", None, False), now())
    yield opened
    opened._close()


def plan_of(database: Database, body: dict[str, Any]) -> str:
    catalog: Catalog = database.catalog
    index = catalog.indices["a"]
    planner = Planner(index.mapping, index.number, now())
    node = planner.compile(parse_query(body), scored=False)
    connection: sqlite3.Connection = database._writer
    sql = f"EXPLAIN QUERY PLAN SELECT d.doc FROM docs_{index.number} d WHERE d.died IS NULL AND {node.condition}"
    return "\n".join(row[3] for row in connection.execute(sql, planner.parameters))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"term": {"k.keyword": "v7"}}, "COVERING INDEX values_1 (field=? AND value=?)"),
        ({"terms": {"k.keyword": ["v7", "v8"]}}, "COVERING INDEX values_1 (field=? AND value=?)"),
        ({"range": {"n": {"gte": 3, "lt": 9}}}, "COVERING INDEX values_1 (field=? AND value>? AND value<?)"),
        ({"prefix": {"k.keyword": "v1"}}, "COVERING INDEX values_1 (field=? AND value>? AND value<?)"),
        ({"wildcard": {"k.keyword": "v1*3"}}, "COVERING INDEX values_1 (field=? AND value>? AND value<?)"),
        ({"exists": {"field": "n"}}, "COVERING INDEX values_1 (field=?)"),
        ({"ids": {"values": ["7"]}}, "INDEX ids_1 (id=?)"),
        ({"match": {"t": "words"}}, "VIRTUAL TABLE INDEX"),
    ],
    ids=str,
)
def test_every_kind_of_search_uses_an_index(database, query, wanted):
    plan = plan_of(database, query)
    assert wanted in plan
    assert "SEARCH d USING INTEGER PRIMARY KEY" in plan
    assert "SCAN d" not in plan


@pytest.mark.parametrize(
    ("text", "clauses", "wanted"),
    [
        ("2", 5, 2),
        ("-1", 5, 4),
        ("75%", 4, 3),
        ("-25%", 4, 3),
        ("-25%", 3, 3),
        ("2<75%", 2, 2),
        ("2<75%", 8, 6),
        ("2<-25% 9<-3", 1, 1),
        ("2<-25% 9<-3", 8, 6),
        ("2<-25% 9<-3", 12, 9),
        ("10", 5, 10),
        ("-10", 5, 0),
    ],
)
def test_minimum_should_match(text, clauses, wanted):
    assert required_count(text, clauses) == wanted


@pytest.mark.parametrize("text", ["many", "%", "2<", "", "1.5"])
def test_what_minimum_should_match_cannot_be(text):
    with pytest.raises(ApiError):
        required_count(text, 3)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024", "2024-01-01T00:00:00.000Z"),
        ("2024-02-29", "2024-02-29T00:00:00.000Z"),
        ("2024-02-29T12", "2024-02-29T12:00:00.000Z"),
        ("2024-02-29T12:30:45.123456789Z", "2024-02-29T12:30:45.123Z"),
        ("2024-02-29T12:30:45+02:00", "2024-02-29T10:30:45.000Z"),
        ("2024-02-29T12:30:45-0330", "2024-02-29T16:00:45.000Z"),
        ("1709164800000", "2024-02-29T00:00:00.000Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
    ],
)
def test_dates(text, wanted):
    assert format_ms(read_date(text)) == wanted


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "2024-13-01", "2024-02-30", "24-01-01", "2024-1-1", "2024-01-01 12:00", True, None, [], 1e300],
)
def test_what_is_no_date(value):
    with pytest.raises(InvalidDate):
        read_date(value)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_dates_come_back(milliseconds):
    assert read_date(format_ms(milliseconds)) == milliseconds
    assert read_date(milliseconds) == milliseconds


@given(st.text(max_size=20))
def test_date_math_is_read_or_refused(text):
    for prefix in ("now", "2024-01-01||", ""):
        try:
            read_date_math(prefix + text, now())
        except InvalidDate as error:
            assert str(error)


class _Named:
    def __init__(self, *aliases: str, hidden: bool = False, closed: bool = False) -> None:
        self.aliases: dict[str, dict[str, object]] = {alias: {} for alias in aliases}
        self.hidden = hidden
        self.closed = closed


INDICES = {
    "a1": _Named("all"),
    "a2": _Named("all", "two"),
    ".dot": _Named(hidden=True),
    "hid": _Named(hidden=True),
    "shut": _Named(closed=True),
}


@pytest.mark.parametrize(
    ("expression", "how", "wanted"),
    [
        ("_all", Expansion(), {"a1", "a2"}),
        ("*", Expansion(hidden=True, closed=True), set(INDICES)),
        (".*", Expansion(), {".dot"}),
        ("a*,-a1", Expansion(), {"a2"}),
        ("all", Expansion(), {"a1", "a2"}),
        ("tw*", Expansion(), {"a2"}),
        ("hid", Expansion(), {"hid"}),
        ("none,a1", Expansion(ignore_unavailable=True), {"a1"}),
        ("z*", Expansion(), set()),
    ],
)
def test_names_are_resolved(expression, how, wanted):
    assert set(resolve(expression, INDICES, how)) == wanted


@pytest.mark.parametrize(
    ("expression", "how", "kind"),
    [
        ("none", Expansion(), "index_not_found_exception"),
        ("z*", Expansion(allow_no_indices=False), "index_not_found_exception"),
        ("shut", Expansion(), "index_closed_exception"),
        ("<a-{now/d}>", Expansion(), "not_implemented_exception"),
        ("other:a", Expansion(), "not_implemented_exception"),
    ],
)
def test_names_that_mean_nothing(expression, how, kind):
    with pytest.raises(ApiError) as caught:
        resolve(expression, INDICES, how)
    assert caught.value.kind == kind


@given(st.text(max_size=10))
def test_in_patterns_only_the_star_is_special(text):
    plain = text.replace("*", "")
    assert matches(plain, plain)
    assert matches("*" + plain, "x" + plain)
    assert not matches(plain + "?", plain + "x")
