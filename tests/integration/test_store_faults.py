"""Faults between the store and a server, by rule: whatever is cut, lost or refused, what was asked happens once and truly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import httpx
import pytest

from callboard.node.faults import FaultyApp, ForwardingApp, LoseResponse, Match, Refuse, Rule, ServerFaultPlan, Status
from callboard.protocol.documents import JobStatus
from callboard.protocol.jobs import Counts
from callboard.protocol.store import (
    Retrying,
    RetryPolicy,
    Store,
    StoreError,
    Target,
    TooManyRequests,
    Unreachable,
    open_store,
)

from .conftest import Server

PATIENT = RetryPolicy(patience_s=20, first_s=0.01, cap_s=0.1)
Opener = Callable[..., AbstractAsyncContextManager[Store]]


@pytest.fixture
def faulty(server: Server, store: Store) -> Opener:
    """Opens a store with a fault plan between it and the server; it waits briefly so that tests are quick."""

    @asynccontextmanager
    async def opened(
        *rules: Rule, policy: RetryPolicy = PATIENT, told: list[Retrying] | None = None
    ) -> AsyncIterator[Store]:
        async with httpx.AsyncClient(base_url=server.target.url or "", timeout=30) as client:
            app = FaultyApp(ForwardingApp(client), ServerFaultPlan(seed=1, rules=rules))
            on_retry = None if told is None else told.append
            async with open_store(Target(embedded=app, retries=policy), wait_s=None, on_retry=on_retry) as between:
                yield between

    return opened


def lines_of(count: int) -> bytes:
    return b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (number, number) for number in range(count))


@pytest.mark.parametrize("effect", [LoseResponse(), Refuse(), Status(status=503), Status(status=429)])
async def test_a_job_runs_its_whole_life_while_every_second_answer_fails(
    faulty: Opener, connector_id: str, store: Store, effect: LoseResponse | Refuse | Status
) -> None:
    await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    async with faulty(Rule(effect=effect, every=2)) as between:
        connector = await between.connectors.get(connector_id)
        job = await between.jobs.create(connector)
        mine = await between.jobs.claim(job.id, "here")
        await between.jobs.report(mine, Counts(indexed=1))
        await between.jobs.suspend(mine)
        mine = await between.jobs.claim(job.id, "here")
        await between.jobs.complete(mine, Counts(indexed=2, deleted=1))
    found = [each async for each in store.jobs.list(connector_ids=[connector_id])]
    assert [(each.id, each.status, each.indexed_document_count) for each in found] == [(job.id, JobStatus.COMPLETED, 2)]


async def test_a_listing_survives_lost_answers_without_losing_a_document(
    faulty: Opener, store: Store, index: str
) -> None:
    await store.content.bulk(lines_of(95), index=index)
    async with faulty(Rule(effect=LoseResponse(), match=Match(path="/_search"), every=2)) as between:
        seen: list[str] = []
        async with aclosing(between.content.existing(index, page_size=10)) as pages:
            async for page in pages:
                seen += page.ids
    assert len(seen) == 95
    assert {int(identity) for identity in seen} == set(range(95))


async def test_a_bulk_request_is_sent_again_until_it_is_answered(faulty: Opener, store: Store, index: str) -> None:
    told: list[Retrying] = []
    rules = [Rule(effect=LoseResponse(), times=2), Rule(effect=Status(status=429, retry_after_s=1), skip=2, times=1)]
    async with faulty(*rules, told=told) as between:
        answer = await between.content.bulk(lines_of(10), index=index, refresh=True)
    assert len(answer.items) == 10
    assert not answer.has_errors
    assert await store.content.count(index) == 10
    assert len(told) == 3
    assert told[-1].after_s >= 1


async def test_patience_ends_with_the_error_that_was_last(faulty: Opener, index: str) -> None:
    impatient = RetryPolicy(patience_s=0.2, first_s=0.01, cap_s=0.05)
    for effect, expected in ((Status(status=429), TooManyRequests), (Refuse(), Unreachable)):
        async with faulty(Rule(effect=effect), policy=impatient) as between:
            with pytest.raises(expected):
                await between.content.bulk(lines_of(1), index=index)
            assert issubclass(expected, StoreError)
