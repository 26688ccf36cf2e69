"""Schedules over hours, in virtual time; silent workers; and the service against a real Elasticsearch."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.service import open_service
from callboard.node import open_node
from callboard.protocol import JobStatus, JobType, Pipeline, Schedule, Scheduling
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import now, simulated_seams
from callboard.sources.source import Document, Listing, Partition, Source

HOUR_S = 3_600.0
SKEW = timedelta(hours=1)


@attrs.frozen
class PropsConfig:
    count: int = setting("Count", default=2)


class Props(Source[PropsConfig]):
    service_type = "props"
    name = "Props"
    Config = PropsConfig

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        for number in range(self.config.count):
            yield Document(f"prop-{number}", {"number": number})


def configuration(*names: str, **more: Any) -> Settings:
    content = {"connectors": [{"connector_id": name} for name in names], "callboard.text_extraction.engine": "plain"}
    return read_mapping({**content, **more}, {}).settings


async def make(store: Store, name: str, interval: str | None, index: str | None = None) -> None:
    await store.connectors.create(name, index_name=index or f"props-{name}", name=name, service_type="props")
    full = Schedule(enabled=interval is not None, interval=interval or "0 0 0 * * ?")

    def decide(present: Any) -> Any:
        configured = transitions.configured(present, {"count": {"value": 2}})
        return attrs.evolve(configured, scheduling=Scheduling(full=full), pipeline=Pipeline())

    await store.connectors.update(name, decide)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    with simulated_seams(7):
        async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as opened:
            await opened.ensure_indices()
            yield opened


def service_on(store: Store, *names: str, **more: Any) -> Any:
    return open_service(configuration(*names, **more), embedded=store.target.embedded, sources={"props": Props})


async def fires(store: Store) -> list[str]:
    return [
        job.created_at.isoformat()
        async for job in store.jobs.list()
        if job.created_at is not None and job.status is JobStatus.COMPLETED
    ]


async def test_a_schedule_fires_at_its_second_and_not_at_the_next_look(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    with simulated_seams(7):
        await make(store, "one", "17 30 * * * ?")
        async with service_on(store, "one"):
            await trio.sleep(3 * HOUR_S)
        fired = await fires(store)
    assert [moment[11:19] for moment in fired] == ["00:30:17", "01:30:17", "02:30:17"]


@pytest.mark.parametrize(("choice", "caught_up"), [("catch_up_once", 1), ("skip", 0)])
async def test_fires_missed_between_two_runs(
    autojump_clock: trio.testing.MockClock, store: Store, choice: str, caught_up: int
) -> None:
    with simulated_seams(7):
        await make(store, "one", "0 0 * * * ?")
        async with service_on(store, "one"):
            await trio.sleep(3700)
        before = len(await fires(store))
        assert before >= 1
        await trio.sleep(5 * 3600)
        async with service_on(store, "one", **{"callboard.missed_schedules": choice}):
            await trio.sleep(60)
        assert len(await fires(store)) == before + caught_up


async def test_a_worker_elsewhere_is_dead_when_it_is_silent_and_not_when_its_clock_is_wrong(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    with simulated_seams(7):
        for name in ("silent", "skewed"):
            await make(store, name, None)
        mine = {}
        for name in ("silent", "skewed"):
            job = await store.jobs.create(await store.connectors.get(name))
            await store.connectors.sync_starts(name, JobType.FULL)
            mine[name] = await store.jobs.claim(job.id, f"{name}/7-7-ffffffff")

        async def beat() -> None:
            # A living worker whose clock is an hour behind.
            for step in range(1000):
                seen = now() - SKEW
                await store.client.update(
                    index=".elastic-connectors-sync-jobs",
                    id=mine["skewed"].id,
                    doc={"last_seen": seen.isoformat(), "indexed_document_count": step},
                    refresh=True,
                )
                await trio.sleep(10)

        async with service_on(store, "silent", "skewed"), trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            await trio.sleep(40)
            assert (await store.jobs.get(mine["silent"].id)).status is JobStatus.IN_PROGRESS
            await trio.sleep(110)
            assert (await store.jobs.get(mine["silent"].id)).status is JobStatus.COMPLETED
            await trio.sleep(600)
            assert (await store.jobs.get(mine["skewed"].id)).status is JobStatus.IN_PROGRESS
            nursery.cancel_scope.cancel()


async def test_a_connector_noted_as_running_without_a_job_is_freed(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    with simulated_seams(7):
        await make(store, "one", None)
        await store.connectors.sync_starts("one", JobType.FULL)
        job = await store.jobs.create(await store.connectors.get("one"))
        async with service_on(store, "one") as service:
            await trio.sleep(5)
            assert "another content sync" in (service.why_waiting(job.id) or "")
            await trio.sleep(90)
        assert (await store.jobs.get(job.id)).status is JobStatus.COMPLETED


async def test_a_vanished_index_is_made_again(autojump_clock: trio.testing.MockClock, store: Store) -> None:
    with simulated_seams(7):
        await make(store, "one", None)
        async with service_on(store, "one") as service:
            await trio.sleep(5)
            await store.client.indices.delete(index=".elastic-connectors-v1")
            await trio.sleep(70)
            assert service.connectors() == ()
            await make(store, "one", None)
            await trio.sleep(70)
            assert service.connectors() == ("one",)


async def test_many_connectors_with_one_slot_all_get_their_turn(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    names = [f"c{number}" for number in range(30)]
    with simulated_seams(7):
        for name in names:
            await make(store, name, "0 0/10 * * * ?")
        async with service_on(store, *names):
            await trio.sleep(700)
        done = {job.connector.id async for job in store.jobs.list(statuses=[JobStatus.COMPLETED])}
    assert done == set(names)


async def test_a_job_that_could_not_start_does_not_keep_the_scheduler_awake(
    autojump_clock: trio.testing.MockClock, store: Store
) -> None:
    requests = 0

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        nonlocal requests
        requests += 1
        await store.target.embedded(scope, receive, send)

    with simulated_seams(7):
        await make(store, "one", None)
        async with open_service(configuration("one"), embedded=counting, sources={"props": Props}) as service:
            service._state.hold("a job that is gone", "It could not be started.", 1.0)
            await trio.sleep(10)
            before = requests
            await trio.sleep(300)
    assert requests - before < 150


@pytest.mark.integration
async def test_the_service_works_with_elasticsearch(elasticsearch_url: str) -> None:
    name = f"service-test-{uuid.uuid4().hex[:12]}"
    async with open_store(Target(elasticsearch_url)) as store:
        await store.ensure_indices()
        await make(store, name, "0/2 * * * * ?", index=name)
        settings = configuration(name, **{"elasticsearch.host": elasticsearch_url, "service.idling": 1})
        try:
            async with open_service(settings, sources={"props": Props}):
                for _ in range(30):
                    if (await store.connectors.get(name)).last_sync_status is JobStatus.COMPLETED:
                        break
                    await trio.sleep(0.2)
            assert await store.content.count(name) == 2
        finally:
            await store.jobs.delete_of(name)
            await store.connectors.delete(name, hard=True)
            await store.client.indices.delete(index=name, ignore_unavailable=True)
