"""A running service: its journal, its story, its metrics and its live data."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from callboard.actors.journal import KINDS, Entry, Queue, read_journal, story
from callboard.actors.journal.entry import read_entry
from callboard.actors.journal.events import (
    BulkAnswered,
    DeadLetter,
    JobClaimed,
    JobCompleted,
    PageCompared,
    PartitionClosed,
    PartitionOpened,
    Throttled,
)
from callboard.actors.journal.keeping import JOBS_MAX
from callboard.actors.operations import METRICS, OperationsRefused, check_address
from callboard.actors.service import open_service
from callboard.node import open_node
from callboard.protocol import JobType, Pipeline
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.store import Target, open_store
from callboard.runtime import now
from callboard.sources.source import Document, Listing, Partition, Source


@attrs.frozen
class StageConfig:
    count: int = setting("Count", default=3)


class Stage(Source[StageConfig]):
    service_type = "stage"
    name = "Stage"
    Config = StageConfig

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        for number in range(self.config.count):
            yield Document(f"prop-{number}", {"number": number})


def entry(happening: Any, job_id: str = "job") -> Entry:
    return Entry(at=now(), happening=happening, job_id=job_id)


async def test_a_service_tells_a_jobs_story_and_serves_live_data() -> None:
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as store:
        await store.ensure_indices()
        await store.connectors.create("one", index_name="stage-one", name="one", service_type="stage")
        connector = await store.connectors.update(
            "one", lambda present: attrs.evolve(transitions.configured(present, {}), pipeline=Pipeline())
        )
        settings = {
            "connectors": [{"connector_id": "one"}],
            "service.idling": 0.3,
            "callboard.text_extraction.engine": "plain",
            "callboard.operations.enabled": True,
            "callboard.operations.port": 0,
            "callboard.operations.token": "open sesame",
        }
        async with open_service(settings, embedded=node.app, sources={"stage": Stage}) as service:
            job = await store.jobs.create(connector, JobType.FULL)
            service.look_now()
            with trio.fail_after(20):
                while True:
                    if (await store.jobs.get(job.id)).status.is_terminal and service.operations_url is not None:
                        break
                    await trio.sleep(0.05)
            async with httpx.AsyncClient(base_url=service.operations_url or "") as stranger:
                assert (await stranger.get("/metrics")).status_code == 401
                assert (await stranger.get("/ready")).json() == {"ready": True, "reasons": []}
            headers = {"authorization": "Bearer open sesame"}
            async with httpx.AsyncClient(base_url=service.operations_url or "", headers=headers) as client:
                metrics = (await client.get("/metrics")).text
                assert 'callboard_jobs_ended_total{status="completed"} 1' in metrics
                assert 'callboard_documents_total{stage="sent"} 3' in metrics
                assert 'callboard_bulk_seconds_count{outcome="ok"} 1' in metrics
                assert all(f"# TYPE {metric.name} {metric.kind}" in metrics for metric in METRICS)
                seen = (await client.get("/api/overview")).json()
                assert [one["id"] for one in seen["connectors"]] == ["one"]
                assert seen["connectors"][0]["health"] == "ok"
                names = [child["name"] for child in (await client.get("/tree")).json()["children"]]
                assert "operations" in names
                assert (await client.get("/api/jobs/none")).status_code == 404
            port = int((service.operations_url or "").rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
                await raw.send_all(b"GET /events HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer open sesame\r\n\r\n")
                told = b""
                with trio.fail_after(5):
                    while b"event: overview\ndata: {" not in told:
                        told += await raw.receive_some()
        await store.content.refresh(".callboard-journal")
        found = [one for _, one in await read_journal(store, job_id=job.id)]
        kinds = [one.kind for one in found]
        for kind in ("job_claimed", "partition_opened", "partition_closed", "batches_settled", "job_completed"):
            assert kind in kinds
        assert any("Completed after" in line for line in story(found))


def test_neighbours_become_one_line() -> None:
    waits = [entry(Throttled(by="Elasticsearch", status=429, wait_s=seconds)) for seconds in (1, 40, 2)]
    lines = story(waits)
    assert len(lines) == 1
    assert lines[0].endswith("Elasticsearch answered 429 3 times; waited up to 40 s.")
    told = story([entry(Throttled(by="Confluence", status=429, wait_s=40, as_told=True))])
    assert told[0].endswith("Confluence answered 429; waited 40 s as told.")


def test_what_a_newer_version_wrote_keeps_its_sentence() -> None:
    document = {
        **entry(DeadLetter(what="a", where="indexing", why="no")).as_document(),
        "kind": "later",
        "text": "Later.",
    }
    assert read_entry(document).happening.sentence() == "Later."


async def test_a_full_queue_drops_and_counts_and_says_so() -> None:
    queue = Queue(queued_max=2)
    for _ in range(5):
        queue.offer(entry(JobCompleted(indexed=1, deleted=0, unchanged=0, failed=0, size_bytes=1, seconds=1.0)))
    assert (len(queue), queue.dropped) == (2, 3)
    queue.wrote(len(queue.take()))
    assert [one.kind for one in queue.take()] == ["entries_dropped"]


async def test_requests_and_frequent_kinds_are_folded() -> None:
    queue = Queue()
    for _ in range(300):
        queue.offer(entry(BulkAnswered(documents=10, size_bytes=100, seconds=0.1, outcome="ok")))
        queue.offer(entry(Throttled(by="Elasticsearch", status=429, wait_s=1.0)))
    queue.offer(entry(JobCompleted(indexed=1, deleted=0, unchanged=0, failed=0, size_bytes=1, seconds=1.0)))
    kinds = [one.kind for one in queue.take(is_last=True)]
    assert kinds.count("throttled") == 200
    assert kinds[-3:] == ["batches_settled", "entries_folded", "job_completed"]


async def test_what_is_folded_of_jobs_that_never_end_is_bounded_and_not_lost() -> None:
    queue = Queue()
    for number in range(JOBS_MAX + 5):
        told = BulkAnswered(documents=10, size_bytes=100, seconds=0.1, outcome="ok")
        queue.offer(attrs.evolve(entry(told), job_id=f"job-{number}"))
    assert len(queue._jobs) == JOBS_MAX
    assert [(one.kind, one.job_id) for one in queue.take()] == [("batches_settled", f"job-{at}") for at in range(5)]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_others_are_served_only_with_a_token(host: str) -> None:
    with pytest.raises(OperationsRefused):
        check_address(host, None)
    check_address(host, "secret")
    check_address("127.0.0.1", None)


def test_every_kind_says_when_it_is_told() -> None:
    assert all(kind.when and kind.kind for kind in KINDS.values())


def test_every_query_of_the_dashboard_names_a_metric_that_exists() -> None:
    path = Path(__file__).parents[2] / "deploy" / "grafana-dashboard.json"
    queries = [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    names = {metric.name for metric in METRICS}
    assert queries
    for query in queries:
        used = set(re.findall(r"callboard_\w+", query))
        assert used
        assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= names


def test_a_job_becomes_a_trace() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from callboard.actors.operations.traces import Traces

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    traces = Traces(provider)
    for happening in (
        JobClaimed(job_type="full", index="a"),
        PartitionOpened(partition="x"),
        PageCompared(partition="x", documents=2, seconds=0.1),
        BulkAnswered(documents=2, size_bytes=10, seconds=0.1, outcome="ok"),
        PartitionClosed(partition="x", listed=2),
        JobCompleted(indexed=2, deleted=0, unchanged=0, failed=0, size_bytes=10, seconds=1.0),
    ):
        traces.listen(entry(happening))
    spans = {span.name: span for span in kept.get_finished_spans()}
    assert set(spans) == {"job full", "partition", "page", "bulk"}
    assert spans["page"].parent.span_id == spans["partition"].context.span_id
    assert spans["bulk"].parent.span_id == spans["job full"].context.span_id


def test_the_terminal_shows_what_runs() -> None:
    from rich.console import Console

    from callboard.cli.top_screen import everything

    job = {"connector_id": "wiki", "job_type": "full", "partitions": []}
    progress = {"listed": 1200, "indexed": 1000, "deleted": 1, "failed": 2, "seconds": 10.0, "waiting_on": "source"}
    connector = {"id": "wiki", "name": None, "service_type": "dir", "health": "failing", "why": "[red]gone"}
    connector |= {"last_synced": None, "next_sync": None}
    seen = {
        "jobs": [{**job, "progress": progress}],
        "connectors": [connector],
        "waiting": [],
        "worker": "w",
        "at": "2026-01-01T10:00:00",
    }
    for width in (60, 140):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(everything(seen, width))
        shown = console.export_text()
        assert "wiki" in shown
    assert "1,200" in shown
    assert "[red]gone" in shown
    assert "source" in shown


def test_the_written_list_names_every_kind() -> None:
    assert {kind.kind for kind in KINDS.values()} == set(
        re.findall(r"^\| `(\w+)`", JOURNAL_PAGE.read_text(), re.MULTILINE)
    )


JOURNAL_PAGE = Path(__file__).parents[2] / "docs" / "journal.md"
