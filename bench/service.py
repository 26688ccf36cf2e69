"""How soon the service works, and what it costs to leave it alone.

    python bench/service.py [start] [--rounds N]                       start until ready, until the first claim; idle memory and CPU
    python bench/service.py soak [--connectors N] [--jobs N] [--slots N]   many connectors and jobs in one service

The service is a process of its own; the built-in node runs in a second one. Prints a table. The soak runs 200 connectors and 2,000 jobs
unless told otherwise, and says whether memory stays flat: the median of the first quarter against that of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
import yaml

from callboard.protocol.store import Store, Target, open_store

IDLE_S = 20.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
SOURCE = """
import attrs
from callboard.protocol.configuration import setting
from callboard.sources.source import Document, Source

@attrs.frozen
class Config:
    count: int = setting("Count", default=10)

class Props(Source):
    service_type = "props"
    name = "Props"
    Config = Config

    async def ping(self):
        return None

    async def documents(self, partition, checkpoint=None):
        yield [Document(f"prop-{number}", {"number": number}) for number in range(self.config.count)]
"""


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB (10^6 bytes)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


@contextmanager
def node(folder: Path) -> Iterator[str]:
    """A built-in node in a process of its own; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "callboard", "node", "--port", "0", "--data", folder / "data"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield next(word for word in process.stdout.readline().split() if word.startswith("http://"))
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def service(folder: Path, url: str, connectors: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A service whose log is `service.log`."""
    (folder / "props_source.py").write_text(SOURCE)
    content = {
        "connectors": [{"connector_id": name} for name in connectors],
        "elasticsearch.host": url,
        "sources": {"props": "props_source:Props"},
        **more,
    }
    (folder / "config.yml").write_text(yaml.safe_dump(content))
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "callboard", "service", "-c", folder / "config.yml", "--filebeat"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


async def make(store: Store, names: list[str]) -> None:
    """Connectors of the source above, ready to run."""
    await store.ensure_indices()
    for name in names:
        await store.connectors.create(name, index_name=f"bench-{name}", service_type="props")
        await store.client.update(
            index=".elastic-connectors",
            id=name,
            doc={"status": "configured", "configuration": {"count": {"value": 10}}, "pipeline": None},
        )


def until_logged(folder: Path, message: str) -> None:
    """Wait for a line of the log."""
    log = folder / "service.log"
    while f'"message": "{message}' not in log.read_text():
        time.sleep(0.005)


def start(rounds: int) -> None:
    """Measure start-up and idleness."""
    ready, claimed, memory, processor = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with node(folder) as url:

            async def prepare() -> None:
                async with open_store(Target(url)) as store:
                    await make(store, ["one"])

            async def request() -> str:
                async with open_store(Target(url)) as store:
                    return (await store.jobs.create(await store.connectors.get("one"))).id

            async def claim_of(job_id: str) -> float | None:
                async with open_store(Target(url)) as store:
                    while True:
                        job = await store.jobs.get(job_id)
                        if job.status.is_terminal:
                            assert job.started_at is not None
                            return job.started_at.timestamp()
                        await trio.sleep(0.05)

            trio.run(prepare)
            for number in range(rounds):
                job_id = trio.run(request)
                began, began_s = time.time(), time.perf_counter()
                with service(folder, url, ["one"]) as process:
                    until_logged(folder, "service.ready")
                    ready.append(time.perf_counter() - began_s)
                    claim = trio.run(claim_of, job_id)
                    assert claim is not None
                    claimed.append(claim - began)
                if number == rounds - 1:
                    # Without a source loaded: nothing to do at all.
                    with service(folder, url, ["nobody"]) as process:
                        until_logged(folder, "service.ready")
                        time.sleep(2)
                        before = cpu_s(process.pid)
                        time.sleep(IDLE_S)
                        processor.append((cpu_s(process.pid) - before) / IDLE_S * 100)
                        memory.append(resident_mb(process.pid))
    print(f"start until ready          {min(ready):6.2f} s best  {statistics.median(ready):6.2f} s median of {rounds}")
    print(f"start until first claim    {min(claimed):6.2f} s best  {statistics.median(claimed):6.2f} s median")
    print(f"idle memory                {memory[0]:6.1f} MB")
    print(f"idle processor             {processor[0]:6.2f} % of one core over {IDLE_S:g} s")


def soak(connectors: int, jobs: int, slots: int) -> None:
    """Run many jobs of many connectors in one service and watch its memory."""
    names = [f"c{number}" for number in range(connectors)]
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with node(folder) as url:

            async def run(pid: int) -> float:
                async with open_store(Target(url)) as store:
                    began = trio.current_time()
                    for round_ in range(-(-jobs // connectors)):
                        for one in names[: min(connectors, jobs - round_ * connectors)]:
                            await store.jobs.create(await store.connectors.get(one))
                        while True:
                            waiting = 0
                            async for job in store.jobs.list():
                                waiting += not job.status.is_terminal
                            memory.append(resident_mb(pid))
                            if not waiting:
                                break
                            await trio.sleep(1)
                    return trio.current_time() - began

            async def prepare() -> None:
                async with open_store(Target(url)) as store:
                    await make(store, names)

            trio.run(prepare)
            more = {"service.idling": 1, "service.max_concurrent_content_syncs": slots}
            with service(folder, url, names, **more) as process:
                until_logged(folder, "service.ready")
                at_first = resident_mb(process.pid)
                seconds = trio.run(run, process.pid)
            with service(folder, url, names, **{"service.max_concurrent_content_syncs": slots}) as process:
                until_logged(folder, "service.ready")
                # The first look checks every source; what follows is idleness.
                time.sleep(20)
                before = cpu_s(process.pid)
                time.sleep(3 * IDLE_S)
                idle = (cpu_s(process.pid) - before) / (3 * IDLE_S) * 100
                idle_memory = resident_mb(process.pid)

            async def count() -> dict[str, int]:
                told: dict[str, int] = {}
                async with open_store(Target(url)) as store:
                    async for job in store.jobs.list():
                        told[job.status.value] = told.get(job.status.value, 0) + 1
                return told

            statuses = trio.run(count)
    quarter = max(len(memory) // 4, 1)
    print(f"{connectors} connectors, {jobs} jobs, {slots} slots: {json.dumps(statuses)} in {seconds:.0f} s")
    print(f"memory at the start        {at_first:6.1f} MB")
    print(f"memory, first quarter      {statistics.median(memory[:quarter]):6.1f} MB (median)")
    print(
        f"memory, last quarter       {statistics.median(memory[-quarter:]):6.1f} MB (median), highest {max(memory):.1f} MB"
    )
    print(f"idle, all connected        {idle_memory:6.1f} MB, {idle:.2f} % of one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("start", "soak"), default="start")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connectors", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=8)
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if given.what == "start":
        start(given.rounds)
    else:
        soak(given.connectors, given.jobs, given.slots)


if __name__ == "__main__":
    main()
