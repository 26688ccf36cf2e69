"""What a second service at one job brings: a source that waits, its partitions shared by one, two and three services.

    python bench/shared_jobs.py [--partitions N] [--pages N] [--pause SECONDS]

The built-in node and every service are processes of their own. A partition has `pages` pages of 20 documents, each of which the
source waits `pause` seconds for; a service lists four partitions at a time. Beside the measured time stands the time that the
waiting alone takes. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import trio
import yaml

from callboard.protocol import JobStatus, SyncJob
from callboard.protocol.store import Store, Target, open_store

AT_ONCE = 4
PAGE = 20
SOURCE = """
import attrs, trio
from callboard.protocol.configuration import setting
from callboard.sources.source import Checkpoint, Document, Features, Partition, Source

@attrs.frozen
class Config:
    partitions: int = setting("Partitions", default=1)
    pages: int = setting("Pages", default=1)
    pause: str = setting("Pause", default="0")

class Waits(Source):
    service_type = "waits"
    name = "Waits"
    Config = Config
    features = Features(resumable=True)
    shareable = True

    async def ping(self):
        return None

    async def partitions(self, rules=None):
        for number in range(self.config.partitions):
            yield Partition(f"part-{number}")

    async def documents(self, partition, checkpoint=None):
        for page in range(checkpoint or 0, self.config.pages):
            await trio.sleep(float(self.config.pause))
            yield [Document(f"{partition.key}-{page}-{at}", {"page": page}) for at in range(20)]
            yield Checkpoint(page + 1)
"""


def start(folder: Path, number: int, url: str) -> subprocess.Popen[bytes]:
    """A service that is ready."""
    content = {
        "connectors": [{"connector_id": "bench"}],
        "elasticsearch.host": url,
        "sources": {"waits": "waits_source:Waits"},
        "service.idling": 1,
        "callboard.sync.share_jobs": True,
        "callboard.sync.partition_concurrency": AT_ONCE,
        "callboard.text_extraction.engine": "plain",
    }
    (folder / "waits_source.py").write_text(SOURCE)
    (folder / "config.yml").write_text(yaml.safe_dump(content))
    path = folder / f"service-{number}.log"
    with path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "callboard", "service", "-c", folder / "config.yml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    while "service.ready" not in path.read_text():
        time.sleep(0.05)
    return process


async def prepare(url: str, given: argparse.Namespace) -> None:
    async with open_store(Target(url)) as store:
        await store.ensure_indices()
        await store.connectors.create("bench", index_name="bench-shared", service_type="waits")
        values = {"partitions": given.partitions, "pages": given.pages, "pause": str(given.pause)}
        configuration = {name: {"value": value} for name, value in values.items()}
        document = {"status": "configured", "configuration": configuration, "pipeline": None}
        await store.client.update(index=".elastic-connectors", id="bench", doc=document)


async def run(url: str) -> tuple[SyncJob, float]:
    """One job from its claim to its end, with an index that is empty."""
    async with open_store(Target(url)) as store:
        await store.client.indices.delete(
            index=["bench-shared", ".callboard-ledger-bench-shared"], ignore_unavailable=True
        )
        job_id = (await store.jobs.create(await store.connectors.get("bench"))).id
        began_s: float | None = None
        while True:
            job = await _job(store, job_id)
            if began_s is None and job.status is not JobStatus.PENDING:
                began_s = trio.current_time()
            if job.status.is_terminal:
                assert began_s is not None
                return job, trio.current_time() - began_s
            await trio.sleep(0.05)


async def _job(store: Store, job_id: str) -> SyncJob:
    return await store.jobs.get(job_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=64)
    parser.add_argument("--pages", type=int, default=5)
    parser.add_argument("--pause", type=float, default=1.0)
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{given.partitions} partitions of {given.pages} pages, {given.pause:g} s each")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        command = [sys.executable, "-m", "callboard", "node", "--port", "0", "--data", str(folder / "data")]
        node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        stack.callback(lambda: (node.terminate(), node.wait(20)))
        assert node.stdout is not None
        url = next(word for word in node.stdout.readline().split() if word.startswith("http://"))
        trio.run(prepare, url, given)
        alone_s = 0.0
        for count in (1, 2, 3):
            process = start(folder, count, url)
            stack.callback(lambda ended=process: (ended.terminate(), ended.wait(60)))
            time.sleep(2)
            job, took_s = trio.run(run, url)
            alone_s = alone_s or took_s
            waits_s = given.partitions * given.pages * given.pause / AT_ONCE / count
            print(
                f"{count} service{'s' if count > 1 else ' '}  {took_s:6.1f} s  ({waits_s:5.1f} s of waiting)  "
                f"{alone_s / took_s:4.2f} times as fast as one  {job.status.value}, {job.indexed_document_count} documents"
            )


if __name__ == "__main__":
    main()
