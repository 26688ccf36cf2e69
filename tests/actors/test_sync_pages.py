"""What is done to whole pages at once comes to the same as doing it document by document."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.sync.collecting import YOUNG_OBJECTS_MAX, seldom_collecting
from callboard.actors.sync.encoding import Encoder
from callboard.actors.sync.fingerprints import Fingerprinter
from callboard.actors.sync.known import Known, stamp_of
from callboard.sources.source import Document

STAMPS = st.sampled_from(["2026-01-01", "2026-01-02", "", None])
IDS = st.integers(0, 6).map(lambda n: f"row-{n}")


async def known_of(stored: dict[str, str | None]) -> Known:
    known = Known(1 << 20)
    ids = list(stored)
    nothing = [0] * len(ids)
    await known.add(ids, nothing, [stamp_of(stored[one]) for one in ids], nothing, nothing)
    return known


@given(st.dictionaries(IDS, STAMPS), st.lists(st.tuples(IDS, STAMPS), max_size=8))
async def test_a_page_is_compared_as_its_documents_are(
    stored: dict[str, str | None], listed: list[tuple[str, str | None]]
) -> None:
    page = [Document(one, {}, timestamp) for one, timestamp in listed]
    whole, single = await known_of(stored), await known_of(stored)
    others, duplicates = whole.mark_unchanged(page)
    others_of_each: list[Document] = []
    duplicates_of_each = 0
    for document in page:
        left, again = single.mark_unchanged([document])
        others_of_each += left
        duplicates_of_each += again
    assert (list(others), duplicates) == (others_of_each, duplicates_of_each)
    assert [one async for pages in whole.unseen() for one in pages] == [
        one async for pages in single.unseen() for one in pages
    ]


VALUES = st.one_of(st.text(), st.integers(), st.none(), st.sampled_from([2**70, object, "\ud800", {1: 2}, b"x"]))


@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=5))
def test_documents_are_written_together_as_alone(documents: list[dict[str, object]]) -> None:
    together, alone = Encoder(), Encoder()
    lines = together.encode_all(documents)
    assert lines == [alone.encode(one) for one in documents]
    assert together.converted == alone.converted
    fingerprinter = Fingerprinter(b"setup")
    assert fingerprinter.of_all(lines) == [fingerprinter.of(line) for line in lines]


def test_rights_count_whatever_their_order() -> None:
    assert stamp_of("2026", ["a", "b"]) == stamp_of("2026", ["b", "a", "b"])
    assert len({stamp_of("2026"), stamp_of("2026", []), stamp_of("2026", ["a"]), stamp_of("2026", ["a", "b"])}) == 4
    assert stamp_of(None, ["a"]) == 0


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def test_the_collector_is_set_back_by_the_last_of_several_syncs() -> None:
    gc.set_threshold(700, 10, 10)
    first, second = seldom_collecting(), seldom_collecting()
    first.__enter__()
    second.__enter__()
    assert gc.get_threshold() == (YOUNG_OBJECTS_MAX, 10, 10)
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == YOUNG_OBJECTS_MAX
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [0, YOUNG_OBJECTS_MAX * 2])
def test_a_host_that_has_chosen_otherwise_keeps_its_choice(chosen: int) -> None:
    gc.set_threshold(chosen, 10, 10)
    with seldom_collecting():
        assert gc.get_threshold()[0] == chosen
    assert gc.get_threshold()[0] == chosen
