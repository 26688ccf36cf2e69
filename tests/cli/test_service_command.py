"""`callboard service` and `callboard config` as processes: jobs, signals, logs, exit codes, several services and sudden deaths."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.cli.exits import Exit

CANARY = "canary-4711-secret"
SOURCE = """
import attrs, trio
from callboard.protocol.configuration import setting
from callboard.sources.source import Checkpoint, Document, Features, Source

@attrs.frozen
class Config:
    count: int = setting("Count", default=3)
    pause: str = setting("Pause", default="0")

class Props(Source):
    service_type = "props"
    name = "Props"
    Config = Config
    features = Features(resumable=True)

    async def ping(self):
        return None

    async def documents(self, partition, checkpoint=None):
        for number in range(checkpoint or 0, self.config.count):
            await trio.sleep(float(self.config.pause))
            yield [Document(f"prop-{number}", {"number": number})]
            yield Checkpoint(number + 1)
"""


def until(look: Callable[[], Any], seconds: float = 30) -> Any:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that in time")


class Stage:
    """A node, its connectors, and services that work on them."""

    def __init__(self, callboard: Any, folder: Path, url: str) -> None:
        self.callboard, self.folder, self.url = callboard, folder, url
        (folder / "props_source.py").write_text(SOURCE)
        self.logs: list[Path] = []

    def configure(self, connectors: list[str], **more: Any) -> Path:
        path = self.folder / "config.yml"
        content = {
            "connectors": [{"connector_id": name} for name in connectors],
            "elasticsearch": {"host": self.url, "username": "elastic", "password": CANARY},
            "sources": {"props": "props_source:Props"},
            "service.idling": 0.3,
            "service.job_cleanup_interval": 1,
            "callboard.text_extraction.engine": "plain",
            **more,
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def service(self, *options: str, hears: str = "service.ready") -> subprocess.Popen[str]:
        """Start a service on config.yml and wait until its log says so."""
        log = self.folder / f"service-{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("w") as out:
            process = subprocess.Popen(
                self.callboard.command("service", "-c", self.folder / "config.yml", *options),
                cwd=self.folder,
                env=self.callboard.environment(PYTHONPATH=str(self.folder)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        self.callboard.started.append(process)
        until(lambda: hears in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        import urllib.request

        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def make(self, name: str, **values: Any) -> str:
        """Make a connector of the source above."""
        self.ask("PUT", f"/_connector/{name}", {"index_name": f"props-{name}", "service_type": "props"})
        configuration = {key: {"value": value, "type": "str"} for key, value in values.items()}
        self.ask(
            "POST",
            f"/.elastic-connectors/_update/{name}?refresh=true",
            {"doc": {"configuration": configuration, "status": "configured"}},
        )
        return name

    def request_job(self, name: str) -> str:
        job_id: str = self.ask("POST", "/_connector/_sync_job", {"id": name, "job_type": "full"})["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/.elastic-connectors-sync-jobs/_doc/{job_id}")["_source"]
        return found

    def ended(self, job_id: str, seconds: float = 40) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["status"] in ("completed", "error", "canceled") else None

        found: dict[str, Any] = until(look, seconds)
        return found


@pytest.fixture
def stage(callboard: Any, tmp_path: Path) -> Stage:
    process = callboard.start("node", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    return Stage(callboard, tmp_path, next(word for word in line.split() if word.startswith("http://")))


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(20)


def test_a_requested_job_runs_and_a_signal_ends_in_order(stage: Stage) -> None:
    stage.configure([stage.make("one")])
    process = stage.service()
    job_id = stage.request_job("one")
    job = stage.ended(job_id)
    assert (job["status"], job["indexed_document_count"]) == ("completed", 3)
    assert end(process) == Exit.DONE


def test_shutdown_suspends_a_job_and_the_next_service_goes_on(stage: Stage) -> None:
    stage.configure([stage.make("one", count="40", pause="0.1")])
    process = stage.service()
    job_id = stage.request_job("one")
    until(lambda: stage.job(job_id)["status"] == "in_progress")
    began = time.monotonic()
    assert end(process) == Exit.DONE
    assert time.monotonic() - began < 3
    assert stage.job(job_id)["status"] == "suspended"
    stage.service()
    job = stage.ended(job_id)
    assert (job["status"], job["total_document_count"]) == ("completed", 40)


def test_a_second_signal_ends_at_once(stage: Stage) -> None:
    stage.configure([stage.make("one", count="400", pause="0.1")])
    process = stage.service()
    job_id = stage.request_job("one")
    until(lambda: stage.job(job_id)["status"] == "in_progress")
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.send_signal(signal.SIGCONT)
    # Both arrive at once; the source that will not let go is tried with the service as a process on both servers.
    assert process.wait(10) in (Exit.INTERRUPTED, Exit.DONE)
    assert time.monotonic() - began < 3


def test_a_crash_is_noticed_at_the_next_start_at_once(stage: Stage) -> None:
    stage.configure([stage.make("one", count="60", pause="0.05")])
    process = stage.service()
    job_id = stage.request_job("one")
    until(lambda: stage.job(job_id)["status"] == "in_progress")
    end(process, signal.SIGKILL)
    assert stage.job(job_id)["status"] == "in_progress"
    stage.service()
    job = stage.ended(job_id, 20)
    assert (job["status"], job["total_document_count"]) == ("completed", 60)


def test_three_services_share_the_work_and_take_over_from_the_dead(stage: Stage) -> None:
    names = [stage.make(f"c{number}", count="30", pause="0.1") for number in range(6)]
    stage.configure(names)
    services = [stage.service() for _ in range(3)]
    jobs = [stage.request_job(name) for name in names]
    until(lambda: sum(stage.job(job_id)["status"] == "in_progress" for job_id in jobs) == 3)
    workers = {job["worker_hostname"] for job in map(stage.job, jobs) if job["status"] == "in_progress"}
    assert len(workers) == 3
    for process in services[:2]:
        end(process, signal.SIGKILL)
    ended = [stage.ended(job_id, 90) for job_id in jobs]
    assert [(job["status"], job["total_document_count"]) for job in ended] == [("completed", 30)] * 6
    assert end(services[2]) == Exit.DONE


def test_the_log_can_be_the_elastic_common_schema_and_hides_secrets(stage: Stage) -> None:
    stage.configure([stage.make("one")], **{"service.log_level": "DEBUG"})
    process = stage.service("--filebeat", "--debug")
    job_id = stage.request_job("one")
    stage.ended(job_id)
    assert end(process) == Exit.DONE
    text = stage.logs[0].read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["service.type"] for line in lines} == {"connectors-python"}
    assert any(line.get("labels.sync_job_id") == job_id for line in lines)
    assert CANARY not in text


def test_hangup_takes_over_what_may_change_and_keeps_what_works(stage: Stage) -> None:
    stage.make("one")
    stage.make("two")
    stage.configure(["one"])
    process = stage.service()
    path = stage.configure(["one", "two"], **{"callboard.sync.memory_mib": 64})
    process.send_signal(signal.SIGHUP)
    until(lambda: "service.reloaded" in stage.logs[0].read_text())
    assert "callboard.sync.memory_mib" in stage.logs[0].read_text()
    assert stage.ended(stage.request_job("two"))["status"] == "completed"
    path.write_text("service.idling: never")
    process.send_signal(signal.SIGHUP)
    until(lambda: "service.not_reloaded" in stage.logs[0].read_text())
    assert stage.ended(stage.request_job("one"))["status"] == "completed"
    assert end(process) == Exit.DONE


def test_systemd_is_told(stage: Stage, tmp_path: Path) -> None:
    stage.configure([stage.make("one")])
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.settimeout(10)
        process = stage.callboard.start(
            "service", "-c", tmp_path / "config.yml", NOTIFY_SOCKET=str(address), WATCHDOG_USEC="400000",
            PYTHONPATH=str(tmp_path),
        )  # fmt: skip
        assert listening.recv(100).startswith(b"READY=1")
        assert listening.recv(100) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        told = []
        while not told or told[-1] != b"STOPPING=1":
            told.append(listening.recv(100))
        assert process.wait(10) == Exit.DONE


def test_daemon_and_node_run_in_one_process(callboard: Any, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("service.worker_mode: true\nservice.service_types: [dir]\n")
    process = callboard.start("service", "-c", tmp_path / "config.yml", "--embedded", tmp_path / "data")
    assert process.stderr is not None
    while "service.ready" not in (line := process.stderr.readline()):
        assert line, "it ended"
    assert end(process) == Exit.DONE
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("service.idling: [1]", Exit.USAGE, ["service.idling", "must be a number"]),
        ("connectors: []\n", Exit.FAILED, ["no connector is named"]),
        ("connectors: [{connector_id: changeme}]\n", Exit.FAILED, ["placeholder"]),
        ("elasticsearch.host: nowhere\n", Exit.USAGE, ["elasticsearch.host", "must be a URL"]),
        ("elasticsearch.password: ${NO_SUCH_VARIABLE}\n", Exit.USAGE, ["NO_SUCH_VARIABLE"]),
        ("\t:", Exit.USAGE, ["not YAML"]),
    ],
)
def test_what_cannot_begin_says_why(callboard: Any, tmp_path: Path, content: str, code: int, words: list[str]) -> None:
    (tmp_path / "config.yml").write_text(content)
    done = callboard("service", "-c", tmp_path / "config.yml", "--embedded", tmp_path / "data")
    assert done.code == code, done.err
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err


def test_a_server_that_is_away_is_an_error_of_its_own(callboard: Any, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "connectors: [{connector_id: a}]\nelasticsearch: {host: 'http://127.0.0.1:9', max_wait_duration: 0}\n"
    )
    done = callboard("service", "-c", tmp_path / "config.yml")
    assert done.code == Exit.UNREACHABLE
    assert "127.0.0.1:9" in done.err


def test_usage(callboard: Any, tmp_path: Path) -> None:
    listed = callboard("service", "--action", "list")
    assert (listed.code, listed.out.splitlines()[0], listed.out.splitlines()[-1]) == (
        0,
        "Registered connectors:",
        "Bye",
    )
    schema = callboard("service", "--action", "config", "--service-type", "dir")
    assert "directory" in json.loads(schema.out)
    assert callboard("service", "--action", "config", "--service-type", "dirr").code == Exit.USAGE
    assert callboard("service", "--action", "list", "--action", "schedule").code == Exit.USAGE
    assert callboard("service", "-c", tmp_path / "none.yml").code == Exit.NOT_FOUND


def test_the_configuration_can_be_checked_and_shown(callboard: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(f"elasticsearch.password: {CANARY}\nservice.idlinh: 3\n")
    done = callboard("config", "check", "-c", path)
    assert done.code == Exit.DONE
    assert "service.idling" in done.err or "idling" in done.err
    assert callboard("config", "check", "--strict", "-c", path).code == Exit.FAILED
    shown = callboard("config", "show", "-c", path)
    assert CANARY not in shown.out
    assert yaml.safe_load(shown.out)["elasticsearch"]["password"] == "********"


HOST = """
import asyncio, sys
import callboard

async def main():
    events, ended = [], asyncio.Event()

    def note(event):
        events.append(event.kind)
        if event.kind == "job_ended":
            ended.set()

    async with callboard.open_service("config.yml", on_event=note) as service:
        print("ready", flush=True)
        await asyncio.wait_for(ended.wait(), 30)
        print(service.connectors(), await service.reload(callboard_settings()), await service.stop())
    print(sorted(set(events)))

def callboard_settings():
    from pathlib import Path
    from callboard.actors.configuration import read_file
    return read_file(Path("config.yml"), {}).settings

asyncio.run(main())
"""


def test_a_program_on_asyncio_can_hold_a_service(stage: Stage) -> None:
    stage.configure([stage.make("one")])
    (stage.folder / "host.py").write_text(HOST)
    process = subprocess.Popen(
        [sys.executable, "host.py"],
        cwd=stage.folder,
        env=stage.callboard.environment(PYTHONPATH=str(stage.folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stage.callboard.started.append(process)
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "it ended"
    stage.request_job("one")
    out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "('one',) () True" in out
    assert "'connector_connected', 'connector_found', 'job_ended', 'job_started'" in out
