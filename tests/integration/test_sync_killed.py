"""SIGKILL at seeded moments, again and again: the run after it goes on, and the index equals the source in the end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.protocol import JobStatus
from callboard.protocol import jobs as transitions
from callboard.protocol.store import Store
from callboard.runtime import now

from .conftest import Server

COUNT = 4_000
PAGE = 50
KILLS = 17
"""Per seed; three seeds make more than fifty moments."""

WORKER = """
import json, sys, trio
from callboard.actors.job import run_job
from callboard.actors.sync import DeletionLimits, SyncSettings
from callboard.protocol.store import Target, open_store
from callboard.sources.source import Checkpoint, Document, Features, Partition, Source

url, job_id, first, count, page = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])

class Counting(Source):
    service_type, name = "counting", "Counting"
    features = Features(resumable=True)
    partition_concurrency = 2
    def __init__(self):
        super().__init__(None)
        self.read = 0
    async def ping(self):
        pass
    async def partitions(self, rules=None):
        for key in ("0", "1"):
            yield Partition(key)
    async def documents(self, partition, checkpoint=None):
        half = count // 2
        start = first + int(partition.key) * half
        at = start if checkpoint is None else checkpoint
        while at < start + half:
            await trio.sleep(0.002)
            self.read += page
            yield [Document(f"d{n}", {"n": n, "from": first}, "2026-01-01") for n in range(at, at + page)]
            at += page
            yield Checkpoint(at)

async def main():
    source = Counting()
    settings = SyncSettings(
        checkpoint_every_s=0.02, bulk_documents_max=page, deletions=DeletionLimits(documents_max=10**6)
    )
    async with open_store(Target(url)) as store:
        print("ready", flush=True)
        report = await run_job(store, job_id, make_source=lambda *_: source, settings=settings)
    print(json.dumps({**report.as_json(), "read": source.read}), flush=True)

trio.run(main)
"""


@pytest.fixture
def worker(tmp_path: Path, server: Server) -> Iterator[Any]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    started: list[subprocess.Popen[str]] = []

    def start(job_id: str, first: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(server.target.url), job_id, str(first), str(COUNT), str(PAGE)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


async def put_aside(store: Store, job_id: str, connector_id: str) -> None:
    """What a janitor does with a job whose worker is gone, without waiting for it to look idle."""
    job = await store.jobs.get(job_id)
    if job.status is JobStatus.IN_PROGRESS:
        job = await store.jobs.documents.update(job_id, lambda found: transitions.suspend(found, now()))
    if job.status is JobStatus.SUSPENDED:
        await store.connectors.sync_ends(connector_id, job)
    else:
        # Killed between the note on the connector and the claim.
        def decide(connector: Any) -> Any:
            import attrs

            return attrs.evolve(connector, last_sync_status=None)

        await store.connectors.update(connector_id, decide)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_job_killed_again_and_again_ends_with_the_index_equal_to_the_source(
    store: Store, index: str, connector_id: str, worker: Any, seed: int
) -> None:
    import trio

    chance = random.Random(seed)
    await store.connectors.create(connector_id, index_name=index, service_type="counting")
    job = await store.jobs.create(await store.connectors.get(connector_id))
    process = await trio.to_thread.run_sync(worker, job.id, 0)
    out, err = await trio.to_thread.run_sync(process.communicate)
    assert json.loads(out.splitlines()[-1])["status"] == "completed", err
    # Half of the documents are gone, half are new, and those that stay have changed.
    first = COUNT // 4
    job = await store.jobs.create(await store.connectors.get(connector_id))
    kills = 0
    while kills < KILLS:
        process = await trio.to_thread.run_sync(worker, job.id, first)
        await trio.sleep(chance.uniform(0.0, 0.45))
        process.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(process.wait)
        kills += 1
        if (await store.jobs.get(job.id)).status is JobStatus.COMPLETED:
            await expect(store, index, first)
            job = await store.jobs.create(await store.connectors.get(connector_id))
            first += 100
        else:
            await put_aside(store, job.id, connector_id)
    process = await trio.to_thread.run_sync(worker, job.id, first)
    out, err = await trio.to_thread.run_sync(process.communicate)
    report = json.loads(out.splitlines()[-1])
    assert report["status"] == "completed", err
    await expect(store, index, first)
    ended = await store.jobs.get(job.id)
    assert ended.status is JobStatus.COMPLETED
    assert ended.total_document_count == COUNT
    for name in (index, f".callboard-ledger-{index}"):
        await store.content.delete_index(name)


async def expect(store: Store, index: str, first: int) -> None:
    await store.content.refresh(index)
    found: dict[str, Any] = {}
    async for page in store.content.existing(index, fields=("n", "from")):
        for one, source in zip(page.ids, page.sources or (), strict=True):
            found[one] = (source["n"], source["from"])
    assert found == {f"d{n}": (n, first) for n in range(first, first + COUNT)}
