"""Confluence through the sync engine into the node: text of attachments, their limits, and what a failure leaves alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import callboard
from callboard.actors.sync import DeletionLimits, SyncSettings
from callboard.node import open_node
from callboard.protocol.documents import Pipeline
from callboard.protocol.store import Store, Target, open_store

from .confluence_double import ConfluenceDouble, refusal
from .test_confluence import filled, source, stood_in

SETTINGS = SyncSettings(deletions=DeletionLimits(documents_max=1000), download_size_bytes_max=100, download_tries_max=1)


@pytest.fixture
def wiki(monkeypatch: pytest.MonkeyPatch) -> ConfluenceDouble:
    double = filled("confluence_cloud")
    double.contents["p2"].attachments.update({"large.txt": b"x" * 101, "program.exe": b"MZ"})
    stood_in(monkeypatch, double)
    return double


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async def words(data: bytes, name: str | None) -> str:
        return data.decode()

    async with open_node(port=None, attachment_reader=words) as node:
        yield Target(embedded=node.app)


async def synced(wiki: ConfluenceDouble, target: Target, kind: str = "full", *spaces: str) -> Any:
    one = source(wiki, *spaces, retry_count=0)
    return await callboard.sync(one, target, index="wiki", kind=kind, settings=SETTINGS, pipeline=Pipeline())  # type: ignore[arg-type]


async def indexed(target: Target) -> dict[str, dict[str, Any]]:
    async with open_store(target) as store:
        return await _indexed(store)


async def _indexed(store: Store) -> dict[str, dict[str, Any]]:
    await store.client.indices.refresh(index="wiki")
    answer = await store.client.search(index="wiki", query={"match_all": {}}, size=1000)
    return {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}


async def test_attachments_are_read_within_their_limits(wiki: ConfluenceDouble, target: Target) -> None:
    report = await synced(wiki, target)
    assert report.status == "completed", report.error
    found = await indexed(target)
    assert found["att-p2-notes.txt"]["body"] == "the notes"
    for name in ("large.txt", "program.exe", "empty.txt"):
        assert "body" not in found[f"att-p2-{name}"], "only what is known of it is indexed"
    read = {asked.url.path.rpartition("/")[2] for asked in wiki.asked if "/download/" in asked.url.path}
    assert read == {"notes.txt", "a b&c#.md"}


async def test_an_incremental_sync_reads_only_attachments_that_changed(wiki: ConfluenceDouble, target: Target) -> None:
    await synced(wiki, target)
    wiki.asked.clear()
    wiki.contents["o1"].when = "2026-02-03T04:05:06.000Z"
    wiki.contents["o1"].body = "<p>new words</p>"
    report = await synced(wiki, target, "incremental")
    assert report.status == "completed", report.error
    assert (await indexed(target))["o1"]["body"] == "new words"
    assert not [asked for asked in wiki.asked if "/download/" in asked.url.path]


async def test_what_is_gone_is_deleted_and_what_cannot_be_read_stays(wiki: ConfluenceDouble, target: Target) -> None:
    await synced(wiki, target)
    before = set(await indexed(target))
    del wiki.contents["p7"], wiki.contents["o1"]
    wiki.fail("('DOC')+AND+type=page", refusal(503), times=10)
    report = await synced(wiki, target)
    assert report.status == "error"
    assert before - set(await indexed(target)) == {"o1"}, "nothing of the space that could not be listed"
    wiki.faults.clear()
    report = await synced(wiki, target)
    assert report.status == "completed", report.error
    assert before - set(await indexed(target)) == {"o1", "p7"}


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("content/p2/child/attachment", refusal(403)),
        ("rest/api/space/DOC", refusal(404)),
        ("type=page", httpx.Response(200, json={"results": [{"type": "page"}]})),
    ],
)
async def test_nothing_is_lost_where_a_listing_has_holes(
    wiki: ConfluenceDouble, target: Target, where: str, answer: httpx.Response
) -> None:
    await synced(wiki, target)
    before = set(await indexed(target))
    wiki.fail(where, answer, times=10)
    await synced(wiki, target)
    assert set(await indexed(target)) == before


async def test_a_space_that_is_not_wanted_any_more_is_deleted(wiki: ConfluenceDouble, target: Target) -> None:
    await synced(wiki, target)
    await synced(wiki, target, "full", "DOC")
    found = await indexed(target)
    assert "p1" in found
    assert "o1" not in found
