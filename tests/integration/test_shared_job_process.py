"""Two services as processes of their own at one job, against the built-in node and against Elasticsearch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio
import yaml

from callboard.actors.sync.ledger import ledger_index
from callboard.actors.worker_name import WorkerName
from callboard.protocol import Pipeline
from callboard.protocol import connectors as transitions
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import new_id

T = TypeVar("T")

PARTS, PAGES, PAGE = 24, 10, 5
SOURCE = f"""
import os
import attrs, trio
from callboard.protocol.configuration import setting
from callboard.sources.source import Checkpoint, Document, Features, Partition, Source

@attrs.frozen
class Config:
    pause: str = setting("Pause", default="0.2")

class Parts(Source):
    service_type = "parts"
    name = "Parts"
    Config = Config
    features = Features(resumable=True)
    shareable = True

    async def ping(self):
        return None

    async def partitions(self, rules=None):
        for number in range({PARTS}):
            yield Partition(f"part-{{number}}", {{"number": number}})

    async def documents(self, partition, checkpoint=None):
        for page in range(checkpoint or 0, {PAGES}):
            await trio.sleep(float(self.config.pause))
            ids = [f"{{partition.key}}-{{page}}-{{at}}" for at in range({PAGE})]
            yield [Document(one, {{"by": os.getpid()}}) for one in ids]
            yield Checkpoint(page + 1)
"""


@attrs.define
class Stage:
    """A server, one connector that nobody else has, and services that share its jobs."""

    url: str
    folder: Path
    connector_id: str
    running: list[subprocess.Popen[bytes]] = attrs.field(factory=list)

    def on_store(self, act: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            async with open_store(Target(self.url)) as store:
                return await act(store)

        return trio.run(run)

    def prepare(self) -> None:
        (self.folder / "parts_source.py").write_text(SOURCE)
        content = {
            "connectors": [{"connector_id": self.connector_id}],
            "elasticsearch.host": self.url,
            "sources": {"parts": "parts_source:Parts"},
            "service.idling": 0.3,
            "service.job_cleanup_interval": 1,
            "callboard.sync.share_jobs": True,
            "callboard.text_extraction.engine": "plain",
        }
        (self.folder / "config.yml").write_text(yaml.safe_dump(content))

        async def act(store: Store) -> None:
            await store.ensure_indices()
            await store.connectors.create(
                self.connector_id, index_name=self.connector_id, name="parts", service_type="parts"
            )
            await store.connectors.update(
                self.connector_id,  # type: ignore[arg-type]
                lambda present: attrs.evolve(transitions.configured(present, {}), pipeline=Pipeline()),
            )

        self.on_store(act)

    def service(self) -> subprocess.Popen[bytes]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        with (self.folder / f"service-{len(self.running)}.log").open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "callboard", "service", "-c", "config.yml"],
                cwd=self.folder,
                env=kept | {"PYTHONPATH": str(self.folder), "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=out,
            )
        self.running.append(process)
        return process

    def all_ready(self) -> bool:
        logs = [log.read_text() for log in self.folder.glob("service-*.log")]
        return len(logs) == len(self.running) and all("service.ready" in log for log in logs)

    def request_job(self) -> str:
        async def act(store: Store) -> str:
            return (await store.jobs.create(await store.connectors.get(self.connector_id))).id

        return self.on_store(act)

    def job(self, job_id: str) -> Any:
        return self.on_store(lambda store: store.jobs.get(job_id))

    def documents_by(self) -> dict[int, int]:
        """How many documents of the index each process has written."""

        async def act(store: Store) -> dict[int, int]:
            found: dict[int, int] = {}
            if await store.client.indices.exists(index=self.connector_id):
                async for page in store.content.existing(self.connector_id, fields=("by",)):
                    for source in page.sources or ():
                        found[source["by"]] = found.get(source["by"], 0) + 1
            return found

        return self.on_store(act)

    def clean(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()

        async def act(store: Store) -> None:
            indices = [self.connector_id, ledger_index(self.connector_id)]
            await store.client.indices.delete(index=indices, ignore_unavailable=True)
            await store.jobs.delete_of(self.connector_id)
            at = {"index": ".elastic-connectors", "id": self.connector_id}
            await store.client.options(ignore_status=404).delete(**at, refresh=True)

        self.on_store(act)


@pytest.fixture
def stage(server_url: str, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(server_url, tmp_path, f"shared-{new_id()[:10]}")
    try:
        stage.prepare()
        yield stage
    finally:
        stage.clean()


def until(look: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to that in time")


def test_two_services_share_a_job_and_one_ends_it_when_the_owner_dies(stage: Stage) -> None:
    services = {process.pid: process for process in (stage.service(), stage.service())}
    until(stage.all_ready)
    job_id = stage.request_job()
    until(lambda: set(stage.documents_by()) == set(services))
    first = stage.job(job_id)
    name = WorkerName.parse(first.worker_hostname)
    assert name is not None
    owner = services[name.pid]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    job = until(lambda: (found := stage.job(job_id)).status.is_terminal and found, 90)
    assert (job.status.value, job.error) == ("completed", None)
    assert job.indexed_document_count == job.total_document_count == PARTS * PAGES * PAGE
    assert job.worker_hostname != first.worker_hostname
    assert sum(stage.documents_by().values()) == PARTS * PAGES * PAGE
    assert "Traceback" not in "".join(log.read_text() for log in stage.folder.glob("*.log"))
