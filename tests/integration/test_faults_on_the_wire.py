"""Faults on the wire and in front of a server, the built-in node and a real Elasticsearch: what was asked is done once and truly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest

import callboard
from callboard.node.faults import (
    FailItems,
    FaultyServer,
    Match,
    Restart,
    Rule,
    ServerFaultPlan,
    StaleRead,
    Status,
    open_faulty_server,
)
from callboard.protocol.store import NotFound, RetryPolicy, Store, StoreError, Target, open_store
from callboard.runtime.faults import NetworkFaultPlan, network, open_fault_proxy
from callboard.sources.registry import source_class

from .conftest import Server

PATIENT = RetryPolicy(patience_s=20, first_s=0.01, cap_s=0.1)
TO_SERVER = network.Match(direction="request")
TO_CLIENT = network.Match(direction="response")
ITEMS = network.Match(direction="response", contains='"items"')
BULK = network.Match(direction="request", contains="_bulk")

ON_THE_WIRE: dict[str, network.Rule] = {
    "refuse": network.Rule(effect=network.Refuse(), every=2, times=5),
    "cut the request": network.Rule(effect=network.Cut(after_bytes=700), match=TO_SERVER, every=2, times=5),
    "cut the answer": network.Rule(effect=network.Cut(after_bytes=300), match=TO_CLIENT, every=2, times=5),
    "lose the answer": network.Rule(effect=network.LoseResponse(), match=BULK, every=2, times=5),
    "stall": network.Rule(effect=network.Stall(after_bytes=10), match=ITEMS, times=1),
    "delay": network.Rule(effect=network.Delay(seconds=0.05), match=BULK),
    "drip": network.Rule(effect=network.Drip(bytes_per_second=20_000), match=TO_CLIENT),
    "restart": network.Rule(effect=network.Restart(down_s=0.5), match=BULK, skip=3, every=4, times=2),
    "restart at a time": network.Rule(effect=network.Restart(down_s=0.2), every_s=0.4, times=3),
}


def lines_of(first: int, count: int) -> bytes:
    return b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (number, number) for number in range(first, first + count))


@asynccontextmanager
async def in_front(
    server: Server, rules: list[Rule], wire: NetworkFaultPlan | None = None
) -> AsyncIterator[tuple[FaultyServer, Store]]:
    async with (
        open_faulty_server(server.target.url or "", ServerFaultPlan(rules, seed=5), wire) as front,
        open_store(Target(front.url, retries=PATIENT), wait_s=20) as between,
    ):
        yield front, between


async def contents(store: Store, index: str) -> dict[str, Any]:
    """What the index really holds, asked past all faults."""
    await store.client.indices.refresh(index=index)
    found = await store.client.search(index=index, size=1000, query={"match_all": {}})
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


@pytest.mark.parametrize("name", ON_THE_WIRE)
async def test_documents_arrive_once_whatever_happens_on_the_wire(
    server: Server, store: Store, index: str, name: str
) -> None:
    parts = urlsplit(server.target.url or "")
    plan = NetworkFaultPlan([ON_THE_WIRE[name]], seed=3)
    async with open_fault_proxy(parts.hostname or "", parts.port or 0, plan) as proxy:
        target = attrs.evolve(server.target, url=proxy.url, retries=PATIENT, request_timeout_s=1.5)
        async with open_store(target, wait_s=20) as between:
            for first in range(0, 200, 20):
                answer = await between.content.bulk(lines_of(first, 20), index=index)
                assert not answer.has_errors
            seen: list[str] = []
            await store.client.indices.refresh(index=index)
            async with aclosing(between.content.existing(index, page_size=50)) as pages:
                async for page in pages:
                    seen += page.ids
        assert proxy.fired["0"] > 0
    assert sorted(seen, key=int) == [str(number) for number in range(200)]
    assert await contents(store, index) == {str(number): {"n": number} for number in range(200)}


async def test_a_corrupt_answer_is_an_error_and_never_taken_for_an_answer(
    server: Server, store: Store, index: str
) -> None:
    parts = urlsplit(server.target.url or "")
    plan = NetworkFaultPlan([network.Rule(effect=network.Corrupt(after_bytes=3), match=ITEMS, every=2)], seed=3)
    async with (
        open_fault_proxy(parts.hostname or "", parts.port or 0, plan) as proxy,
        open_store(attrs.evolve(server.target, url=proxy.url, retries=PATIENT)) as between,
    ):
        for first in (0, 20):
            with pytest.raises(StoreError):
                await between.content.bulk(lines_of(first, 20), index=index)
            answer = await between.content.bulk(lines_of(first, 20), index=index)
            assert len(answer.items) == 20
    assert await contents(store, index) == {str(number): {"n": number} for number in range(40)}


async def test_a_restart_of_a_real_server_loses_open_contexts_and_nothing_else(
    server: Server, store: Store, index: str
) -> None:
    await store.content.bulk(lines_of(0, 3), index=index, refresh=True)
    rule = Rule(effect=Restart(down_s=0.3), match=Match(path="*/restart"), times=1)
    async with in_front(server, [rule]) as (_, between):
        client = between.client
        pit = (await client.open_point_in_time(index=index, keep_alive="1m"))["id"]
        asked: dict[str, Any] = {"pit": {"id": pit}, "query": {"match_all": {}}}
        assert (await client.search(**asked))["hits"]["total"]["value"] == 3
        # Sent again after the restart, as everything is.
        assert not await client.indices.exists(index="restart")
        with pytest.raises(NotFound):
            await client.search(**asked)
    assert len(await contents(store, index)) == 3


async def test_items_fail_and_reads_are_stale_in_front_of_a_real_server(
    server: Server, store: Store, index: str
) -> None:
    rules = [
        Rule(effect=FailItems(status=429, ids=("1",)), match=Match(path="*/_bulk"), times=1),
        Rule(effect=Status(status=413), match=Match(path="*/_bulk", body_contains='"n":99}'), times=1),
        Rule(effect=StaleRead(), match=Match(path=f"/{index}/_doc/*"), skip=1),
    ]
    async with in_front(server, rules) as (_, between):
        answer = await between.content.bulk(lines_of(0, 3), index=index, refresh=True)
        assert answer.has_errors
        assert set(await contents(store, index)) == {"0", "2"}
        with pytest.raises(StoreError, match="Send smaller batches"):
            await between.content.bulk(lines_of(99, 1), index=index)
        for number in (7, 8):
            await store.client.index(index=index, id="x", document={"n": number})
            assert (await between.client.get(index=index, id="x"))["_source"] == {"n": 7}


async def test_a_whole_sync_through_every_kind_of_fault_ends_equal(
    server: Server, store: Store, index: str, tmp_path: Path
) -> None:
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    requests = [
        Rule(effect=Status(status=503), chance=0.1),
        Rule(effect=FailItems(status=429, share=0.3), match=Match(path="*/_bulk"), times=4),
        Rule(effect=Restart(down_s=0.5), match=Match(path="*/_bulk"), skip=1, times=1),
    ]
    wire = NetworkFaultPlan(
        [attrs.evolve(ON_THE_WIRE[name], name=name, every=3) for name in ("refuse", "cut the answer")], 5
    )
    kind: Any = source_class("dir")
    source = kind(kind.Config(directory=str(tmp_path)))
    async with in_front(server, requests, wire) as (front, between):
        report = await callboard.sync(source, between, index=index)
        assert front.app is not None
        assert sum(front.app.firing.fired) > 2
    assert (report.status, report.indexed, report.failed) == ("completed", 60, 0)
    assert len(await contents(store, index)) == 60
