"""Comparing two indices: the comparison must find what differs, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.difference import DocumentDifference, FieldDifference, Place, compare, differing
from callboard.protocol.store import Store, Target, open_store

documents = st.dictionaries(
    st.sampled_from("abc"), st.integers(0, 2) | st.dictionaries(st.sampled_from("xy"), st.integers(0, 1))
)


@given(documents)
def test_a_document_equals_itself(document: dict[str, Any]) -> None:
    assert differing("1", document, dict(document)) is None


@given(documents, documents)
def test_a_difference_is_found_from_both_sides(left: dict[str, Any], right: dict[str, Any]) -> None:
    there, back = differing("1", left, right), differing("1", right, left)
    assert (there is None) == (back is None) == (left == right)
    if there is not None and back is not None:
        assert [field.field for field in there.fields] == [field.field for field in back.fields]


def test_fields_are_named_with_both_values() -> None:
    left, right = {"title": "a", "who": {"name": "x", "age": 1}}, {"title": "a", "who": {"name": "y"}, "new": None}
    difference = differing("1", left, right)
    assert difference == DocumentDifference(
        "1",
        "different",
        (
            FieldDifference("new", "(absent)", None),
            FieldDifference("who.age", 1, "(absent)"),
            FieldDifference("who.name", "x", "y"),
        ),
    )


def test_ignored_fields_do_not_count() -> None:
    assert differing("1", {"a": 1, "who": {"x": 1}}, {"a": 2}, ignore=("a", "who")) is None


@asynccontextmanager
async def indices(url: str, left: dict[str, Any], right: dict[str, Any]) -> AsyncIterator[tuple[Store, str, str]]:
    names = [f"difference-{side}-{uuid.uuid4().hex}" for side in ("left", "right")]
    async with open_store(Target(url)) as store:
        try:
            for name, content in zip(names, (left, right), strict=True):
                await store.content.ensure_index(name)
                lines = [line for key, doc in content.items() for line in ({"index": {"_id": key}}, doc)]
                if lines:
                    await store.content.bulk(b"".join(orjson.dumps(line) + b"\n" for line in lines), index=name)
            yield store, names[0], names[1]
        finally:
            for name in names:
                await store.content.delete_index(name)


@pytest.mark.integration
async def test_two_indices_are_compared_in_pages(elasticsearch_url: str) -> None:
    same = {f"s{number}": {"n": number} for number in range(1200)}
    left = {**same, "l": {"n": 1}, "d": {"n": 1, "who": {"x": 1}}}
    right = {**same, "r": {"n": 1}, "r2": {"n": 2}, "d": {"n": 2, "who": {"x": 1}}}
    async with indices(elasticsearch_url, left, right) as (store, one, other):
        found = await compare(Place(store, one), Place(store, other))
        assert (found.equal, found.only_left, found.only_right, found.different) == (1200, 1, 2, 1)
        assert found.by_field == {"n": 1}
        assert {example.id for example in found.examples} == {"l", "r", "r2", "d"}
        assert (await compare(Place(store, one), Place(store, one))).is_empty
        assert (await compare(Place(store, one), Place(store, other), ignore=["n"])).different == 0


@pytest.mark.integration
async def test_only_the_first_differences_are_kept(elasticsearch_url: str) -> None:
    async with indices(elasticsearch_url, {str(number): {} for number in range(30)}, {}) as (store, one, other):
        found = await compare(Place(store, one), Place(store, other), examples_max=3)
    assert found.only_left == 30
    assert len(found.examples) == 3
