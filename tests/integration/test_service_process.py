"""The service as a process of its own, against the built-in node and against Elasticsearch: schedules, jobs, signals, deaths, clocks, nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio
import yaml

from callboard.protocol import Pipeline, Schedule, Scheduling
from callboard.protocol import connectors as transitions
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import new_id

T = TypeVar("T")

SOURCE = """
import attrs, trio
from callboard.protocol.configuration import setting
from callboard.sources.errors import Transient
from callboard.sources.source import Checkpoint, Document, Features, Source

@attrs.frozen
class Config:
    count: int = setting("Count", default=3)
    pause: str = setting("Pause", default="0")
    fault: str = setting("Fault", default="-")

class Props(Source):
    service_type = "props"
    name = "Props"
    Config = Config
    features = Features(resumable=True)

    def __init__(self, config, context=None):
        if config.fault == "construction":
            raise RuntimeError("the stage collapsed")
        super().__init__(config, context)

    async def ping(self):
        if self.config.fault == "ping":
            raise Transient("The stage does not answer.")

    async def documents(self, partition, checkpoint=None):
        for number in range(checkpoint or 0, self.config.count):
            await trio.sleep(float(self.config.pause))
            yield [Document(f"prop-{number}", {"number": number})]
            yield Checkpoint(number + 1)
"""
SKEWED = """
import sys
from datetime import datetime, timedelta
from callboard.runtime import seams

OFFSET = timedelta(seconds=float(sys.argv.pop(1)))

class Wrong(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + OFFSET

seams.datetime = Wrong
from callboard.cli.main import main
main()
"""
"""A machine whose clock is wrong: the program with another wall clock in the runtime's seam."""


@attrs.define
class Stage:
    """A server, connectors that nobody else has, and services that work on them."""

    url: str
    folder: Path
    prefix: str
    running: list[subprocess.Popen[str]] = attrs.field(factory=list)
    logs: list[Path] = attrs.field(factory=list)
    indices: list[str] = attrs.field(factory=list)

    def on_store(self, act: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            async with open_store(Target(self.url)) as store:
                return await act(store)

        return trio.run(run)

    def id(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def configure(self, *names: str, **more: Any) -> None:
        content = {
            "connectors": [{"connector_id": self.id(name)} for name in names],
            "elasticsearch.host": self.url,
            "sources": {"props": "props_source:Props", "broken": "broken_source:Broken"},
            "service.idling": 0.3,
            "service.max_concurrent_content_syncs": 2,
            "callboard.text_extraction.engine": "plain",
            **more,
        }
        (self.folder / "config.yml").write_text(yaml.safe_dump(content))

    def service(self, *options: str, skew_s: float | None = None) -> subprocess.Popen[str]:
        """Start a service and wait until it is ready."""
        log = self.folder / f"service-{len(self.logs)}.log"
        self.logs.append(log)
        program = ["-m", "callboard"] if skew_s is None else ["skewed.py", str(skew_s)]
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, *program, "service", "-c", "config.yml", *options],
                cwd=self.folder,
                env=kept | {"PYTHONPATH": str(self.folder), "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=out,
                text=True,
            )
        self.running.append(process)
        until(lambda: "service.ready" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process

    def make(self, name: str, schedule: str | None = None, service_type: str = "props", **values: Any) -> str:
        connector_id = self.id(name)
        self.indices.append(connector_id)
        full = Schedule(enabled=schedule is not None, interval=schedule or "0 0 0 * * ?")

        def decide(present: Any) -> Any:
            stored = {key: {"value": value} for key, value in values.items()}
            configured = transitions.configured(present, stored)
            return attrs.evolve(configured, scheduling=Scheduling(full=full), pipeline=Pipeline())

        async def act(store: Store) -> None:
            await store.ensure_indices()
            await store.connectors.create(connector_id, index_name=connector_id, name=name, service_type=service_type)
            await store.connectors.update(connector_id, decide)  # type: ignore[arg-type]

        self.on_store(act)
        return connector_id

    def connector(self, name: str) -> dict[str, Any]:
        async def act(store: Store) -> dict[str, Any]:
            told = await store.client.get(index=".elastic-connectors", id=self.id(name))
            return dict(told["_source"])

        return self.on_store(act)

    def note_fired(self, name: str, moment: datetime) -> None:
        async def act(store: Store) -> None:
            document = {"last_sync_scheduled_at": moment.isoformat()}
            await store.client.update(index=".elastic-connectors", id=self.id(name), doc=document, refresh=True)

        self.on_store(act)

    def last_fired(self, name: str) -> datetime:
        return datetime.fromisoformat(self.connector(name)["last_sync_scheduled_at"])

    def request_job(self, name: str) -> str:
        async def act(store: Store) -> str:
            return (await store.jobs.create(await store.connectors.get(self.id(name)))).id

        return self.on_store(act)

    def job(self, job_id: str) -> dict[str, Any]:
        async def act(store: Store) -> dict[str, Any]:
            return dict((await store.client.get(index=".elastic-connectors-sync-jobs", id=job_id))["_source"])

        return self.on_store(act)

    def jobs(self, name: str) -> list[Any]:
        async def act(store: Store) -> list[Any]:
            return [job async for job in store.jobs.list(connector_ids=[self.id(name)])]

        return self.on_store(act)

    def cancel(self, job_id: str) -> None:
        async def act(store: Store) -> None:
            await store.jobs.request_cancel(job_id)  # type: ignore[arg-type]

        self.on_store(act)

    def count(self, name: str) -> int:
        async def act(store: Store) -> int:
            return await store.content.count(self.id(name))

        return self.on_store(act)

    def with_status(self, job_id: str, *statuses: str, seconds: float = 60) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["status"] in statuses else None

        found: dict[str, Any] = until(look, seconds)
        return found

    def ended(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        return self.with_status(job_id, "completed", "error", "canceled", seconds=seconds)

    def clean(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()

        async def act(store: Store) -> None:
            for name in self.indices:
                await store.client.indices.delete(index=name, ignore_unavailable=True)
                await store.jobs.delete_of(name)
                await store.client.options(ignore_status=404).delete(index=".elastic-connectors", id=name, refresh=True)

        self.on_store(act)


def until(look: Callable[[], Any], seconds: float = 40) -> Any:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to that in time")


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """End a service that runs still; return its exit code."""
    assert process.poll() is None, "it has ended by itself"
    process.send_signal(number)
    code = process.wait(20)
    assert number != signal.SIGKILL or code == -signal.SIGKILL
    return code


@pytest.fixture
def stage(server_url: str, tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "props_source.py").write_text(SOURCE)
    (tmp_path / "broken_source.py").write_text("raise RuntimeError('the script is torn')\n")
    (tmp_path / "skewed.py").write_text(SKEWED)
    stage = Stage(server_url, tmp_path, f"service-{new_id()[:10]}")
    try:
        yield stage
    finally:
        stage.clean()


def test_the_whole_life_of_jobs(stage: Stage) -> None:
    stage.make("clock", schedule="0/2 * * * * ?")
    stage.make("hand")
    stage.make("slow", count="600", pause="0.1")
    stage.configure("clock", "hand", "slow")
    process = stage.service()

    # A schedule fires and a requested job runs.
    until(lambda: any(job.status.value == "completed" for job in stage.jobs("clock")))
    assert {job.trigger_method.value for job in stage.jobs("clock")} == {"scheduled"}
    assert stage.ended(stage.request_job("hand"))["status"] == "completed"
    assert stage.count("hand") == 3

    # A job is canceled while it runs.
    job_id = stage.request_job("slow")
    stage.with_status(job_id, "in_progress")
    began = time.monotonic()
    stage.cancel(job_id)
    assert stage.ended(job_id)["status"] == "canceled"
    assert time.monotonic() - began < 5

    # Shutdown suspends, the next service goes on.
    def has_documents() -> bool:
        return bool(stage.job(job_id)["status"] == "in_progress") and stage.count("slow") > 0

    job_id = stage.request_job("slow")
    until(has_documents)
    began = time.monotonic()
    assert end(process) == 0
    assert time.monotonic() - began < 5
    assert stage.job(job_id)["status"] == "suspended"
    assert stage.connector("slow")["last_sync_status"] == "suspended"
    process = stage.service()
    stage.with_status(job_id, "in_progress")

    # A crash is noticed by the next service at once, and the job goes on.
    end(process, signal.SIGKILL)
    assert stage.job(job_id)["status"] == "in_progress"
    stage.service()
    until(lambda: "job.taken_over" in stage.logs[-1].read_text(), 10)
    stage.with_status(job_id, "in_progress")
    assert "Traceback" not in "".join(log.read_text() for log in stage.logs)


def test_three_services_with_wrong_clocks_and_sudden_deaths_run_every_job_once(stage: Stage) -> None:
    names = [f"c{number}" for number in range(5)]
    for name in names:
        stage.make(name, count="25", pause="0.1")
    stage.make("clock", schedule="0/5 * * * * ?")
    stage.configure(*names, "clock")
    services = [stage.service(skew_s=skew_s) for skew_s in (-7200.0, 0.0, 90.0)]
    jobs = {name: stage.request_job(name) for name in names}
    until(lambda: sum(stage.job(job_id)["status"] == "in_progress" for job_id in jobs.values()) >= 3)
    end(services[0], signal.SIGKILL)
    end(services[2], signal.SIGKILL)
    stage.service(skew_s=3600.0)
    for name, job_id in jobs.items():
        job = stage.ended(job_id, 120)
        assert (job["status"], job["total_document_count"]) == ("completed", 25), job
        assert stage.count(name) == 25
    assert [len(stage.jobs(name)) for name in names] == [1] * len(names)
    # However many clocks, a fire time has one job.
    fired = stage.jobs("clock")
    assert fired
    assert len({job.id for job in fired}) == len(fired)
    assert sum(not job.status.is_terminal for job in fired) <= 1


def test_fire_times_missed_by_a_dead_service_are_caught_up_once(stage: Stage) -> None:
    # Once a year, so that no fire time of its own falls into the test.
    stage.make("yearly", schedule="0 0 0 1 1 ?")
    stage.make("other")
    stage.configure("yearly", "other", **{"service.log_level": "DEBUG"})
    end(stage.service(), signal.SIGKILL)
    stage.note_fired("yearly", datetime.now(UTC) - timedelta(days=3 * 365))
    services = [stage.service(), stage.service()]
    until(lambda: stage.jobs("yearly"))
    until(lambda: stage.last_fired("yearly") > datetime.now(UTC) - timedelta(days=366))
    # The other service has had its looks by the time that jobs requested later are done.
    for _ in services:
        assert stage.ended(stage.request_job("other"))["status"] == "completed"
    assert len(stage.jobs("yearly")) == 1
    assert [end(process) for process in services] == [0, 0]
    assert sum(log.read_text().count("schedule.fired") for log in stage.logs[1:]) == 1


def test_a_second_signal_ends_at_once(stage: Stage) -> None:
    stage.make("deaf", count="5", pause="0.1")
    (stage.folder / "props_source.py").write_text(
        SOURCE.replace("await trio.sleep(float(self.config.pause))", "await deaf()")
        + "\nasync def deaf():\n    open('deaf', 'w').close()\n    with trio.CancelScope(shield=True):\n        await trio.sleep(30)\n"
    )
    stage.configure("deaf", **{"callboard.shutdown_seconds": 25})
    process = stage.service()
    stage.request_job("deaf")
    until(lambda: (stage.folder / "deaf").exists())
    process.send_signal(signal.SIGTERM)
    until(lambda: "service.stops" in stage.logs[0].read_text())
    time.sleep(1)
    assert process.poll() is None, "the source does not let go, so the first signal has to wait"
    began = time.monotonic()
    assert end(process, signal.SIGINT) == 130
    assert time.monotonic() - began < 2


def test_what_is_broken_is_shown_where_it_is_broken_and_all_others_run_on(stage: Stage) -> None:
    for name in ("construction", "ping", "good"):
        stage.make(name, fault=name if name != "good" else "-")
    stage.make("unknown", service_type="propz")
    stage.make("import", service_type="broken")
    stage.make("nonsense")
    stage.make("vanished")

    async def spoil(store: Store) -> None:
        await store.client.update(
            index=".elastic-connectors",
            id=stage.id("nonsense"),
            doc={"index_name": ["a", "b"], "status": "upside down"},
            refresh=True,
        )

    stage.on_store(spoil)
    stage.configure("construction", "ping", "good", "unknown", "import", "nonsense", "vanished")
    process = stage.service()

    def shown(name: str) -> str:
        def look() -> str | None:
            connector = stage.connector(name)
            return str(connector.get("error")) if connector["status"] == "error" else None

        found: str = until(look)
        return found

    for name, words in (
        ("construction", "the stage collapsed"),
        ("ping", "does not answer"),
        ("unknown", "'propz'"),
        ("import", "the script is torn"),
        ("nonsense", "index_name"),
    ):
        assert words in shown(name), (name, shown(name))
    assert stage.ended(stage.request_job("good"))["status"] == "completed"

    # The index of a connector vanishes: the next full sync makes it again, with all documents.
    assert stage.ended(stage.request_job("vanished"))["status"] == "completed"

    async def vanish(store: Store) -> None:
        await store.client.indices.delete(index=stage.id("vanished"))

    stage.on_store(vanish)
    assert stage.ended(stage.request_job("vanished"))["status"] == "completed"
    assert stage.count("vanished") == 3
    assert end(process) == 0
    assert "Traceback" not in stage.logs[0].read_text()


def test_a_requested_job_starts_soon_after_the_start_and_idle_is_small(stage: Stage) -> None:
    stage.make("one")
    stage.configure("one", **{"service.idling": 30})
    job_id = stage.request_job("one")
    process = stage.service("--filebeat")
    assert stage.ended(job_id)["status"] == "completed"
    until(lambda: "job.ended" in stage.logs[0].read_text())
    moments: dict[str, str] = {}
    for line in stage.logs[0].read_text().splitlines():
        told = json.loads(line)
        moments.setdefault(told["message"].partition(":")[0], told["@timestamp"])
    assert moments["service.ready"] <= moments["job.ended"]
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        resident_kib = int(next(line for line in status.read_text().splitlines() if "VmRSS" in line).split()[1])
        assert resident_kib < 90_000  # the exact figure is the benchmark's; this catches a heavy import
    assert end(process) == 0
