"""A service with faults injected on purpose: they hit, its jobs still end as they should, and all that shows it says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
import structlog
import trio

from callboard.actors.journal import read_journal
from callboard.actors.reminding import RehearsalReminder
from callboard.actors.service import Service, open_service
from callboard.node import open_node
from callboard.node.faults import LoseResponse, Match, Restart, Rule, ServerFaultPlan, open_faulty_way
from callboard.protocol import JobStatus, JobType, Pipeline, SyncJob
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.store import InvalidTarget, Store, Target, open_store
from callboard.runtime import FaultPlan
from callboard.runtime.faults import Crash, NetworkFaultPlan, network
from callboard.runtime.faults import Match as At
from callboard.runtime.faults import Rule as Inside
from callboard.sources.source import Document, Listing, Partition, Source

SAID = "1 runtime rule (seed 0), 2 elasticsearch rules (seed 0)"


@attrs.frozen
class PropsConfig:
    count: int = setting("Count", default=3)


class Props(Source[PropsConfig]):
    service_type = "props"
    name = "Props"
    Config = PropsConfig

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        for number in range(self.config.count):
            yield Document(f"prop-{number}", {"number": number})


@asynccontextmanager
async def stage() -> AsyncIterator[tuple[str, Store]]:
    async with open_node() as node, open_store(Target(node.url)) as store:
        await store.ensure_indices()
        await store.connectors.create("one", index_name="props-one", name="one", service_type="props")
        await store.connectors.update(
            "one", lambda present: attrs.evolve(transitions.configured(present, {}), pipeline=Pipeline())
        )
        assert node.url is not None
        yield node.url, store


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {
        "connectors": [{"connector_id": "one"}],
        "elasticsearch.host": url,
        "service.idling": 0.3,
        "callboard.text_extraction.engine": "plain",
        **more,
    }


async def ended(service: Service, store: Store) -> SyncJob:
    job = await store.jobs.create(await store.connectors.get("one"), JobType.FULL)
    service.look_now()
    with trio.fail_after(30):
        while True:
            found = await store.jobs.get(job.id)
            if found.status.is_terminal:
                return found
            await trio.sleep(0.05)


async def test_a_rehearsed_service_does_its_work_and_says_everywhere_that_it_is_one() -> None:
    crash = FaultPlan([Inside(effect=Crash(), match=At(actor="*/keeper", point="handler"), times=1)])
    rules = [
        Rule(effect=LoseResponse(), match=Match(path="*/_bulk"), times=1),
        Rule(effect=Restart(down_s=0.3), match=Match(path="*/_bulk"), skip=1, times=1),
    ]
    operations = {"callboard.operations.enabled": True, "callboard.operations.port": 0}
    with structlog.testing.capture_logs() as told:
        async with stage() as (url, store), open_faulty_way(url, ServerFaultPlan(rules)) as app:
            opened = open_service(
                settings(url, **operations), sources={"props": Props}, faults=crash, through=app, rehearsal=SAID
            )
            async with opened as service:
                job = await ended(service, store)
                assert (job.status, job.indexed_document_count) == (JobStatus.COMPLETED, 3)
                assert any("REHEARSAL" in note and SAID in note for note in job.metadata["callboard"]["notes"])
                assert app.firing.fired == [1, 1]
                assert service.operations_url is not None
                async with httpx.AsyncClient(base_url=service.operations_url) as client:
                    assert (await client.get("/health")).json() == {"status": "ok", "rehearsal": SAID}
                    assert (await client.get("/api/overview")).json()["rehearsal"] == SAID
                    for path in ("/", "/actors", f"/jobs/{job.id}", "/connectors/one"):
                        page = (await client.get(path, headers={"accept": "text/html"})).text
                        assert f"Faults are injected on purpose: {SAID}" in page
                assert "rehearsal" in [child.name for child in service.tree().children]
            await store.content.refresh(".callboard-journal")
            kinds = {entry.kind: entry for _, entry in await read_journal(store)}
            assert SAID in kinds["service_started"].happening.sentence()
            assert "injected crash at handler" in kinds["fault_injected"].happening.sentence()
    loud = [one for one in told if one["event"] == "REHEARSAL"]
    assert [one["log_level"] for one in loud] == ["critical"]
    assert SAID in loud[0]["text"]


async def test_a_service_of_every_day_says_nothing_of_it() -> None:
    operations = {"callboard.operations.enabled": True, "callboard.operations.port": 0}
    async with (
        stage() as (url, store),
        open_service(settings(url, **operations), sources={"props": Props}) as service,
    ):
        job = await ended(service, store)
        assert job.metadata["callboard"]["notes"] == []
        assert "rehearsal" not in [child.name for child in service.tree().children]
        async with httpx.AsyncClient(base_url=service.operations_url or "") as client:
            assert (await client.get("/health")).json() == {"status": "ok"}
            assert "Rehearsal" not in (await client.get("/", headers={"accept": "text/html"})).text


async def test_connections_go_wrong_between_a_service_and_its_server() -> None:
    wire = NetworkFaultPlan([network.Rule(effect=network.Cut(after_bytes=400), every=2)], seed=1)
    async with (
        stage() as (url, store),
        open_faulty_way(url, network=wire) as app,
        open_service(settings(url), sources={"props": Props}, through=app) as service,
    ):
        assert (await ended(service, store)).status is JobStatus.COMPLETED


async def test_the_log_is_reminded(autojump_clock: trio.testing.MockClock) -> None:
    with structlog.testing.capture_logs() as told, trio.move_on_after(1801):
        await RehearsalReminder(SAID).run(None)  # type: ignore[arg-type]
    assert len(told) == 4


def test_what_stands_before_a_server_needs_one() -> None:
    with pytest.raises(InvalidTarget, match="through"):
        Target(embedded=object(), through=object())
