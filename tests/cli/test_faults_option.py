"""`--faults`: rehearsals of the node, a sync, a service, and in front of a server, as processes; loud, and never by accident."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from callboard.cli.exits import Exit

LOST = "{match: {path: '*/_bulk'}, times: 1, do: lose_response}"
SECTIONS = f"""
seed: 3
runtime:
  rules:
    - {{match: {{actor: "*/keeper", point: start}}, times: 1, do: crash}}
elasticsearch:
  rules:
    - {LOST}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "plan.yml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"note {number}")
    return folder


def url_in(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return next(word for word in process.stdout.readline().split() if word.startswith("http://"))


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == Exit.DONE, err
    return err


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_a_proxy_stands_in_front_of_a_server_and_counts(callboard: Any, plan: Any, notes: Path) -> None:
    behind = callboard.start("node", "--port", "0")
    url = url_in(behind)
    rules = plan(
        f"""
        elasticsearch: {{rules: [{LOST}, {{match: {{path: /busy}}, do: {{status: {{status: 429}}}}}}]}}
        network: {{rules: [{{match: {{contains: _bulk, direction: request}}, times: 1, do: cut}}]}}
        """
    )
    front = callboard.start("fault-proxy", url, "--faults", rules)
    front_url = url_in(front)
    assert status(f"{front_url}/busy") == 429
    done = callboard("sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--to", front_url)
    assert done.code == Exit.DONE, done.err
    assert "3 documents indexed" in done.out
    err = end(front)
    assert "REHEARSAL: faults are injected on purpose: 2 elasticsearch rules (seed 0), 1 network rule (seed 0)" in err
    assert "elasticsearch rule 0: hit 1 time" in err
    assert "elasticsearch rule 1: hit 1 time" in err
    assert "network rule 0: hit 1 time" in err


def test_a_sync_rehearses_and_says_so_even_if_quiet(callboard: Any, plan: Any, notes: Path, tmp_path: Path) -> None:
    sync = ("sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", tmp_path / "data")
    done = callboard("-q", *sync, "--faults", plan(f"rules: [{LOST}]"))
    assert done.code == Exit.DONE, done.err
    assert "3 documents indexed" in done.out
    assert "REHEARSAL: faults are injected on purpose: 1 elasticsearch rule (seed 0)" in done.err
    told = json.loads(callboard(*sync, "--faults", plan(f"rules: [{LOST}]"), "--format", "json").out)
    assert told["rehearsal"] == "1 elasticsearch rule (seed 0)"
    plain = json.loads(callboard(*sync, "--format", "json").out)
    assert "rehearsal" not in plain
    dry = callboard(*sync, "--faults", plan(f"rules: [{LOST}]"), "--dry-run")
    dry.assert_failed(Exit.USAGE, "--faults and --dry-run do not go together")
    wired = callboard(*sync, "--faults", plan("network: {rules: [{do: cut}]}"))
    assert (wired.code, "needs a server" in wired.err) == (Exit.USAGE, True), wired.err


@pytest.mark.parametrize("format_", ["lines", "ecs"])
def test_a_service_rehearses_loudly_at_every_level_and_in_every_format(
    callboard: Any, plan: Any, tmp_path: Path, format_: str
) -> None:
    (tmp_path / "config.yml").write_text("service.worker_mode: true\nservice.service_types: [dir]\n")
    options = ["--embedded", tmp_path / "data", "--faults", plan(SECTIONS), "--log-level", "CRITICAL"]
    process = callboard.start(
        "service", "-c", tmp_path / "config.yml", *options, *(["--filebeat"] if format_ == "ecs" else [])
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    said = "1 runtime rule (seed 3), 1 elasticsearch rule (seed 3)"
    if format_ == "lines":
        assert f"REHEARSAL: faults are injected on purpose: {said}" in line
        line = process.stderr.readline()
        assert "[CRITICAL] REHEARSAL" in line
    else:
        told = json.loads(line)
        assert told["log.level"] == "critical"
        assert told["message"].startswith("REHEARSAL")
    assert said in line
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == Exit.DONE
    assert "It is over. So often the rules of the section elasticsearch have hit: rule 0: 0." in err


def test_a_service_rehearses_what_happens_on_the_way_to_its_server(callboard: Any, plan: Any, tmp_path: Path) -> None:
    url = url_in(callboard.start("node", "--port", "0"))
    rules = plan("{elasticsearch: {rules: [{every: 4, do: lose_response}]}, network: {rules: [{every: 3, do: cut}]}}")
    (tmp_path / "config.yml").write_text(
        f"service.worker_mode: true\nservice.service_types: [dir]\nelasticsearch.host: {url}\n"
    )
    process = callboard.start("service", "-c", tmp_path / "config.yml", "--faults", rules)
    assert process.stderr is not None
    while "service.ready" not in (line := process.stderr.readline()):
        assert line, "it ended"
    assert "REHEARSAL" not in line
    assert process.poll() is None
    end(process)


@pytest.mark.parametrize(
    ("command", "text", "word"),
    [
        (("node", "--port", "0"), "runtime: {rules: [{do: crash}]}", "has nothing for this command"),
        (("service", "--embedded", "data"), "runtime: {rules: [{do: crush}]}", "did you mean 'crash'?"),
        (("fault-proxy", "http://127.0.0.1:1"), "netwrk: {}", "did you mean 'network'?"),
        (("fault-proxy", "localhost:9200"), "network: {rules: [{do: cut}]}", "not the URL of a server"),
    ],
)
def test_a_plan_that_cannot_be_used_says_why(
    callboard: Any, plan: Any, tmp_path: Path, command: tuple[str, ...], text: str, word: str
) -> None:
    callboard(*command, "--faults", plan(text)).assert_failed(Exit.USAGE, word)
    assert not (tmp_path / "data").exists()


def test_a_section_for_others_is_named(callboard: Any, plan: Any) -> None:
    process = callboard.start("node", "--port", "0", "--faults", plan(SECTIONS))
    url_in(process)
    assert "The section 'runtime' of" in end(process)


def test_a_proxy_needs_a_plan(callboard: Any) -> None:
    callboard("fault-proxy", "http://127.0.0.1:9200").assert_failed(Exit.USAGE, "--faults")
