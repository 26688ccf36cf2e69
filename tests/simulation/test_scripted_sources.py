"""The engine meets everything a scripted source can do to it: what is true ends in the index, what is doubtful is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from callboard import SyncReport, SyncSettings, sync
from callboard.actors.sync import DeletionLimits
from callboard.protocol import Pipeline
from callboard.testing import (
    Change,
    ContentRef,
    Document,
    FileScript,
    PartScript,
    Script,
    ScriptedSource,
    Target,
    open_node,
    open_store,
    run_simulated,
)


def _simulated(main: Any, **_options: Any) -> Any:
    return run_simulated(main, seed=1)


pytestmark = pytest.mark.trio(run=_simulated)
SETTINGS = SyncSettings(
    bulk_documents_max=10, deletions=DeletionLimits(documents_max=3, share_max=0.2), download_tries_max=3
)


def corpus(count: int = 30) -> dict[str, list[Document]]:
    return {"p": [Document(f"d-{n:02}", {"n": n}) for n in range(count)], "q": [Document("q-00", {"n": 0})]}


async def _text(data: bytes, _name: str | None) -> str:
    await trio.lowlevel.checkpoint()
    return data.decode()


@pytest.fixture
async def store() -> AsyncIterator[Any]:
    async with (
        open_node(None, port=None, attachment_reader=_text) as node,
        open_store(Target(embedded=node.app), wait_s=None) as opened,
    ):
        yield opened


async def indexed(store: Any) -> dict[str, Any]:
    found = await store.client.search(index="books", size=1000)
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


async def run(store: Any, documents: Any, script: Script | None = None, **more: Any) -> SyncReport:
    return await sync(ScriptedSource(documents, script, **more), store, index="books", settings=SETTINGS)


@pytest.mark.parametrize(
    "lie",
    [
        Script(parts={"p": PartScript(ends_after=12)}),
        Script(parts={"p": PartScript(ends_after=0)}),
        Script(naming_ends_after=0),
    ],
    ids=["truncated", "empty", "no partition named"],
)
async def test_a_listing_that_lies_is_held_back_by_the_guard_and_forgotten_with_the_next_true_one(
    store: Any, lie: Script
) -> None:
    assert (await run(store, corpus())).indexed == 31
    report = await run(store, corpus(), lie)
    assert report.deleted == 0
    assert report.held_back_deletions >= 18
    assert len(await indexed(store)) == 31
    again = await run(store, corpus())
    assert (again.status, again.deleted, again.held_back_deletions) == ("completed", 0, 0)
    assert len(await indexed(store)) == 31


async def test_empty_pages_and_ids_named_again_change_nothing(store: Any) -> None:
    script = Script(
        other_parts=PartScript(
            page_documents=5, empty_pages={1, 2, 4}, repeated={"d-03"}, repeated_at_end={"d-00", "d-29"}
        )
    )
    report = await run(store, corpus(), script)
    assert report.status == "completed"
    assert {one: found["n"] for one, found in (await indexed(store)).items() if one.startswith("d")} == {
        f"d-{n:02}": n for n in range(30)
    }
    assert (await run(store, corpus(), script)).deleted == 0


async def test_huge_documents_pass_one_by_one(store: Any) -> None:
    script = Script(parts={"p": PartScript(padding_bytes={"d-03": 4_000_000, "d-04": 4_000_000})})
    report = await run(store, corpus(), script)
    assert report.status == "completed"
    found = await indexed(store)
    assert len(found) == 31
    assert found["d-03"]["padding"]


async def test_what_changes_during_the_scan_is_never_half_there(store: Any) -> None:
    assert (await run(store, corpus())).status == "completed"
    change = Change(part="p", page=2, remove={"d-00", "d-28"}, put=[Document("d-29", {"n": 99}), Document("d-50", {})])
    report = await run(store, corpus(), Script(parts={"p": PartScript(page_documents=10)}, changes=[change]))
    found = await indexed(store)
    assert (report.status, report.deleted) == ("completed", 1)
    assert "d-28" not in found
    assert (found["d-29"]["n"], "d-00" in found, "d-50" in found) == (99, True, True)


async def test_a_download_that_breaks_is_tried_again_and_one_that_breaks_for_good_costs_one_document(
    store: Any,
) -> None:
    documents = {
        "p": [Document(f"d-{n}", {}, content=ContentRef(f"{n}.txt", size_bytes=9000, version="1")) for n in range(3)]
    }
    files = {f"{n}.txt": b"text %d " % n * 1000 for n in range(3)}
    script = Script(
        files={
            "0.txt": FileScript(delay_s=30, chunk_delay_s=5),
            "1.txt": FileScript(fails_after_bytes=4096, fails_times=2),
            "2.txt": FileScript(fails_after_bytes=0),
        }
    )
    source = ScriptedSource(documents, script, files=files)
    report = await sync(source, store, index="books", settings=SETTINGS, pipeline=Pipeline())
    found = await indexed(store)
    assert report.status == "completed"
    assert found["d-0"]["body"].startswith("text 0")
    assert found["d-1"]["body"].startswith("text 1")
    assert "body" not in found.get("d-2", {})
    assert report.failed == 1
