"""Journals longer than a search answers, and older than anybody wants to keep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from uuid import uuid4

import attrs
import pytest
import trio
import trio.testing

from callboard.actors.journal import Entry, Narrator, follow_journal, journal_pages, read_journal, story, write_entries
from callboard.actors.journal.events import JobClaimed, JobWaits, Throttled
from callboard.actors.service import open_service
from callboard.node import open_node
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import now, simulated_seams

JOURNAL = ".callboard-journal"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as opened:
        yield opened


def waits(count: int, job_id: str, *, each_s: float = 0.001) -> list[Entry]:
    """Some in one instant, as they are when much happens at once."""
    began = now() - timedelta(hours=1)
    return [
        Entry(
            at=began + timedelta(seconds=number // 7 * each_s),
            happening=JobWaits(why=f"{number}"),
            job_id=job_id,
            number=number,
        )
        for number in range(count)
    ]


async def write(store: Store, entries: list[Entry]) -> None:
    for first in range(0, len(entries), 2_000):
        await write_entries(store, entries[first : first + 2_000])
    await store.content.refresh(JOURNAL)


async def numbers_of(store: Store, job_id: str, page_size: int) -> list[int]:
    found: list[int] = []
    async with aclosing(journal_pages(store, job_id=job_id, page_size=page_size)) as pages:
        async for page in pages:
            assert len(page) <= page_size
            found += [entry.number for _, entry in page]
    return found


async def test_a_story_longer_than_a_search_answers_is_read_to_its_end(store: Store) -> None:
    await write(store, waits(10_500, "long"))
    await write(store, waits(3, "other"))
    assert await numbers_of(store, "long", 1_000) == list(range(10_500))
    assert await numbers_of(store, "long", 7_000) == list(range(10_500))
    assert await numbers_of(store, "none", 100) == []
    assert [entry.number for _, entry in await read_journal(store, job_id="long", limit=5)] == list(
        range(10_495, 10_500)
    )


@pytest.mark.integration
async def test_the_same_with_elasticsearch(elasticsearch_url: str) -> None:
    job_id = f"journal-test-{uuid4().hex[:8]}"
    async with open_store(Target(elasticsearch_url)) as store:
        try:
            await write(store, waits(10_050, job_id))
            assert await numbers_of(store, job_id, 4_000) == list(range(10_050))
        finally:
            await store.content.delete_by_query(JOURNAL, {"term": {"job_id": job_id}})


async def test_a_journal_that_nobody_has_written_yet_is_empty(store: Store) -> None:
    assert await numbers_of(store, "none", 100) == []


async def test_who_follows_gets_the_beginning_of_a_long_story_too(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    with simulated_seams(7):
        await write(store, waits(2_500, "long"))
        found: list[int] = []
        late = attrs.evolve(waits(1, "long")[0], at=now(), number=99_999)
        async with aclosing(follow_journal(store, "long")) as pages:
            async for entries in pages:
                found += [entry.number for entry in entries]
                if len(found) == 2_500:
                    await write(store, [late])
                if 99_999 in found:
                    break
    assert found == [*range(2_500), 99_999]


def test_a_story_told_piece_by_piece_is_the_story() -> None:
    began = now()
    entries = [
        Entry(at=began, happening=JobClaimed(job_type="full"), number=0),
        *(
            Entry(
                at=began + timedelta(hours=number), happening=Throttled(by="Wiki", status=429, wait_s=1), number=number
            )
            for number in range(1, 30)
        ),
        Entry(at=began + timedelta(days=3), happening=JobWaits(why="late"), number=99),
    ]
    whole = story(entries)
    narrator = Narrator()
    told = [line for entry in entries for line in narrator.add([entry])] + narrator.end()
    assert told == whole
    assert any("29 times" in line for line in whole)
    assert narrator.end() == []


async def test_a_running_service_forgets_what_is_older_than_the_retention_and_nothing_else(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    with simulated_seams(7):
        await store.ensure_indices()
        hours = (1, 2 * 24, 7 * 24 - 1, 7 * 24 + 1, 40 * 24)
        entries = [
            Entry(at=now() - timedelta(hours=one), happening=JobWaits(why=f"{one} h"), job_id="old") for one in hours
        ]
        await write(store, entries)
        settings = {
            "connectors": [{"connector_id": "one"}],
            "callboard.text_extraction.engine": "plain",
            "callboard.journal.retention_days": 7,
        }

        async def left() -> list[str]:
            await store.content.refresh(JOURNAL)
            found = await read_journal(store, job_id="old")
            return [entry.happening.why for _, entry in found]  # type: ignore[attr-defined]

        async with open_service(settings, embedded=store.target.embedded):
            await trio.sleep(60)
            assert await left() == ["167 h", "48 h", "1 h"]
            await trio.sleep(2.2 * 3_600)
            assert await left() == ["48 h", "1 h"], "it looks again while it runs"
