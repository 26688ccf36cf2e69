"""Every metric moved by what it counts, traces of real jobs, readiness, and live data that is sent when it is news: in a running service."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import httpx
import pytest
import trio
import trio.testing

from callboard.actors.operations.metrics import METRICS, Metrics
from callboard.actors.service import Service, open_service
from callboard.node import open_node
from callboard.protocol import JobStatus, JobType, Pipeline, SyncJob
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import simulated_seams
from callboard.sources.errors import Throttled, Transient
from callboard.sources.source import ContentRef, Document, Listing, Partition, Source

INDEX = "score-one"


@attrs.frozen
class ScoreConfig:
    scene: str = setting("Scene", default="plain")


class Score(Source[ScoreConfig]):
    """Notes that are plain documents, and sheets that are files."""

    service_type = "score"
    name = "Score"
    Config = ScoreConfig
    troubles: ClassVar[list[Exception]] = []

    async def ping(self) -> None:
        return None

    async def partitions(self, rules: Any = None) -> AsyncIterator[Partition]:
        for key in ("notes", "sheets"):
            yield Partition(key)

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        if self.config.scene == "torn" and partition.key == "sheets":
            raise Transient("The sheets are torn.")
        for number in range(50):
            yield Document(f"{partition.key}-{number}", {"number": number})
        if partition.key == "sheets":
            yield Document("sheet", {}, content=ContentRef("sheet.txt", size_bytes=2_000, version="1"))

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        if type(self).troubles:
            raise type(self).troubles.pop(0)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"Adagio. " * 250

        yield chunks()


@attrs.define
class Hall:
    """A node that can be away, or slow to answer bulk requests."""

    node: Any
    status: int | None = None
    bulk_troubles: list[int] = attrs.field(factory=list)
    may_write: trio.Event | None = None
    requests: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        status = self.status
        if scope["path"] == f"/{INDEX}/_bulk":
            if self.may_write is not None:
                await self.may_write.wait()
            if self.bulk_troubles:
                status = self.bulk_troubles.pop(0)
        if status is None:
            await self.node(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), (b"x-elastic-product", b"Elasticsearch")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error":{"type":"x","reason":"secret-host"}}'})


@attrs.frozen
class World:
    hall: Hall
    store: Store

    async def job(self, scene: str = "plain") -> SyncJob:
        await self.store.connectors.create("one", index_name=INDEX, name="one", service_type="score")
        connector = await self.store.connectors.update(
            "one",
            lambda present: attrs.evolve(
                transitions.configured(present, {"scene": {"value": scene}}), pipeline=Pipeline()
            ),
        )
        return await self.store.jobs.create(connector, JobType.FULL)

    @asynccontextmanager
    async def service(self, **more: Any) -> AsyncIterator[Service]:
        settings = {
            "connectors": [{"connector_id": "one"}],
            "service.idling": 1,
            "callboard.text_extraction.engine": "plain",
            **more,
        }
        async with open_service(settings, embedded=self.hall, sources={"score": Score}) as service:
            yield service

    async def end(self, job: SyncJob) -> SyncJob:
        with trio.fail_after(120):
            while not (found := await self.store.jobs.get(job.id)).status.is_terminal:  # noqa: ASYNC110
                await trio.sleep(0.1)
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    Score.troubles = []
    async with open_node(port=None) as node:
        hall = Hall(node.app)
        async with open_store(Target(embedded=hall)) as store:
            await store.ensure_indices()
            yield World(hall, store)


def values_of(text: str) -> dict[str, float]:
    """Sample -> value."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# Metrics


async def test_every_metric_is_moved_by_what_it_counts(autojump_clock: trio.testing.MockClock, world: World) -> None:
    """With virtual time; how late the loop wakes up needs the real one, and has a test of its own."""
    with simulated_seams(7):
        job = await world.job()
        Score.troubles = [Throttled("Too fast.", 4.0, 429), Transient("Cut.")]
        world.hall.bulk_troubles = [503, 429]
        world.hall.may_write = trio.Event()
        async with world.service() as service:
            metrics = Metrics()
            service._state.teller.listeners.append(metrics.listen)

            def look() -> dict[str, float]:
                return values_of(metrics.exposition(service._state, service.tree()))

            before = look()
            await trio.sleep(5)
            amid = look()
            world.hall.may_write.set()
            assert (await world.end(job)).status is JobStatus.COMPLETED
            await trio.sleep(15)
            after = look()
    assert amid["callboard_jobs_running"] == 1
    assert amid[f'callboard_queued_documents{{job="{job.id}"}}'] > 0
    assert amid[f'callboard_bulk_concurrency{{job="{job.id}"}}'] >= 1
    assert (
        amid['callboard_budget_bytes{budget="documents"}'] > amid['callboard_budget_held_bytes{budget="documents"}'] > 0
    )
    assert amid['callboard_budget_bytes{budget="extraction"}'] > 0
    assert amid['callboard_budget_waiting{budget="documents"}'] == 0
    assert 'callboard_connectors{health="ok"}' in amid
    assert after["callboard_jobs_running"] == 0
    assert after['callboard_budget_held_bytes{budget="documents"}'] == 0
    assert after['callboard_jobs_ended_total{status="completed"}'] == 1
    assert after['callboard_documents_total{stage="compared"}'] == 101
    assert after['callboard_documents_total{stage="sent"}'] == 101
    assert after['callboard_documents_total{stage="read"}'] == 1
    assert after['callboard_bytes_total{stage="sent"}'] > 2_000
    assert after['callboard_bytes_total{stage="read"}'] == 2_000
    assert after['callboard_bulk_seconds_count{outcome="ok"}'] >= 1
    assert after['callboard_bulk_seconds_count{outcome="failed"}'] == 2
    assert (
        after['callboard_bulk_seconds_bucket{outcome="ok",le="+Inf"}']
        == after['callboard_bulk_seconds_count{outcome="ok"}']
    )
    assert after['callboard_throttled_total{by="Elasticsearch"}'] == 1
    assert after['callboard_throttled_total{by="Score"}'] == 1
    assert after['callboard_retries_total{what="bulk"}'] == 1
    assert after['callboard_retries_total{what="download"}'] == 1
    assert after['callboard_content_total{outcome="ok"}'] == 1
    assert after["callboard_content_seconds_total"] >= 4
    assert after['callboard_events_total{kind="job_claimed"}'] == 1
    assert after["callboard_journal_written_total"] > before["callboard_journal_written_total"]
    assert after["callboard_journal_queued"] == 0
    assert after["callboard_journal_dropped_total"] == 0
    assert after['callboard_actor_mailbox{actor="connectors/one/keeper"}'] == 0
    assert after['callboard_actor_busy_seconds_total{actor="connectors/one/keeper"}'] >= 0
    assert after['callboard_actor_restarts_total{actor="scheduler"}'] == 0
    named = {re.sub(r"_(bucket|sum|count)$", "", sample.partition("{")[0]) for sample in {**amid, **after}}
    assert named == {metric.name for metric in METRICS}


async def test_jobs_that_fail_are_suspended_or_wait_are_counted(
    autojump_clock: trio.testing.MockClock, world: World
) -> None:
    with simulated_seams(7):
        job = await world.job("torn")
        metrics = Metrics()
        async with world.service() as service:
            service._state.teller.listeners.append(metrics.listen)
            assert (await world.end(job)).status is JobStatus.ERROR
            await world.store.content.delete_index(INDEX)
            world.hall.may_write = trio.Event()
            for _ in range(2):
                await world.store.jobs.create(await world.store.connectors.get("one"))
            await trio.sleep(5)
            values = values_of(metrics.exposition(service._state, service.tree()))
            await service.stop()
            ended = values_of(metrics.exposition(service._state, service.tree()))
    assert values['callboard_jobs_ended_total{status="error"}'] == 1
    assert values["callboard_jobs_waiting"] == 1
    assert ended['callboard_jobs_ended_total{status="suspended"}'] == 1


async def test_a_blocked_loop_is_seen_in_its_lag(world: World) -> None:
    settings = {"callboard.operations.enabled": True, "callboard.operations.port": 0}
    async with world.service(**settings) as service:
        await _served(service)
        async with httpx.AsyncClient(base_url=str(service.operations_url)) as client:
            await trio.sleep(0.3)
            time.sleep(1.5)  # noqa: ASYNC251 - blocking is what is measured
            await trio.sleep(1.2)
            lag_s = values_of((await client.get("/metrics")).text)["callboard_loop_lag_seconds"]
    assert 0.5 < lag_s < 10


# Traces


async def test_a_job_of_a_running_service_becomes_a_trace_from_its_claim_to_its_end(
    autojump_clock: trio.testing.MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with simulated_seams(7):
        job = await world.job()
        async with world.service(**{"callboard.operations.traces": True}):
            await world.end(job)
            await trio.sleep(1)
    spans = kept.get_finished_spans()
    root = next(span for span in spans if span.name == "job full")
    assert (root.attributes["job"], root.attributes["end"]) == (job.id, "job_completed")
    assert {span.context.trace_id for span in spans} == {root.context.trace_id}
    assert all(root.start_time <= span.start_time <= span.end_time <= root.end_time for span in spans)
    by_name: dict[str, list[Any]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    assert set(by_name) == {"job full", "partition", "page", "bulk", "content"}
    partitions = {span.attributes["partition"]: span for span in by_name["partition"]}
    assert {key: span.attributes["documents"] for key, span in partitions.items()} == {"notes": 50, "sheets": 51}
    parents = {span.context.span_id for span in partitions.values()}
    assert {span.parent.span_id for span in by_name["page"]} <= parents
    assert sum(span.attributes["documents"] for span in by_name["page"]) == 101
    assert {span.parent.span_id for span in by_name["bulk"]} == {root.context.span_id}
    assert sum(span.attributes["documents"] for span in by_name["bulk"]) == 101


async def test_a_failed_job_and_its_partition_are_marked_in_the_trace(
    autojump_clock: trio.testing.MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with simulated_seams(7):
        job = await world.job("torn")
        async with world.service(**{"callboard.operations.traces": True}):
            await world.end(job)
            await trio.sleep(1)
    failed = {span.name for span in kept.get_finished_spans() if not span.status.is_ok and span.status.description}
    assert failed == {"job full", "partition"}


# Readiness and live data


async def _served(service: Service) -> None:
    with trio.fail_after(20):
        while service.operations_url is None:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def test_a_service_is_not_ready_while_elasticsearch_is_away_and_says_why(world: World) -> None:
    settings = {"callboard.operations.enabled": True, "callboard.operations.port": 0}
    async with world.service(**settings) as service:
        await _served(service)
        async with httpx.AsyncClient(base_url=str(service.operations_url), timeout=10.0) as client:

            async def become(status: int, *words: str) -> None:
                with trio.fail_after(15):
                    while True:
                        told = await client.get("/ready")
                        text = " ".join(told.json()["reasons"])
                        assert "secret-host" not in text
                        if told.status_code == status and all(word in text for word in words):
                            return
                        await trio.sleep(0.2)

            await become(200)
            world.hall.status = 503
            await become(503, "Elasticsearch")
            assert (await client.get("/health")).status_code == 200, "the process itself is well"
            world.hall.status = 401
            await become(503, "credentials")
            world.hall.status = None
            await become(200)
            before = world.hall.requests
            for _ in range(50):
                await client.get("/ready")
            assert world.hall.requests - before < 20, "probes share one question"
            service._state.has_looked = False
            await become(503, "connectors")
            service._state.stopping.set()
            told = await client.get("/ready")
            assert (told.status_code, told.json()["reasons"]) == (503, ["The service is stopping."])


async def test_live_data_is_sent_when_it_is_news_with_signs_of_life_in_between(world: World) -> None:
    job = await world.job()
    world.hall.may_write = trio.Event()
    settings = {"callboard.operations.enabled": True, "callboard.operations.port": 0}
    async with world.service(**settings) as service:
        world.hall.may_write.set()
        await world.end(job)
        await _served(service)
        await trio.sleep(2)
        port = int(str(service.operations_url).rpartition(":")[2])
        told = b""
        async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
            await raw.send_all(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            with trio.move_on_after(12):
                while True:
                    told += await raw.receive_some()
            quiet = told
            await world.store.connectors.update("one", lambda one: attrs.evolve(one, name="Renamed"))
            with trio.fail_after(10):
                while b"Renamed" not in told:
                    told += await raw.receive_some()
    assert quiet.count(b"event: overview") == 1, "nothing has changed"
    assert 1 <= quiet.count(b"event: beat") <= 3
    last = told.rpartition(b"event: overview\ndata: ")[2].partition(b"\n\n")[0]
    assert json.loads(last)["connectors"][0]["name"] == "Renamed"
