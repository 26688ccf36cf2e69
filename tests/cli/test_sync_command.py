"""`callboard sync`, `search`, `node` and `demo`, end to end, as their users run them."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from callboard.cli.exits import Exit

KEYS = {"connector_id", "status", "indexed", "deleted", "unchanged", "failed", "bytes", "seconds", "error"}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.txt").write_text(f"Note {name}: the thunder sheet is cracked.\n")
    return folder


def post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        result: dict[str, Any] = json.load(answer)
        return result


def ready(process: subprocess.Popen[str]) -> str:
    """Wait for the line of a node that says it is ready, and return the URL in it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http://" in line, line + (process.stderr.read() if process.stderr and process.poll() is not None else "")
    return next(word for word in line.split() if word.startswith("http://"))


def synced(callboard: Any, folder: Path, *where: str | Path) -> dict[str, Any]:
    done = callboard("sync", "dir", "--set", f"directory={folder}", "--index", "notes", *where, "--format", "json")
    assert done.code == Exit.DONE, done.err
    report: dict[str, Any] = json.loads(done.out)
    assert set(report) == KEYS
    return report


def test_a_folder_becomes_an_index_and_stays_in_step(callboard: Any, notes: Path, tmp_path: Path) -> None:
    where = ("--embedded", tmp_path / "data")
    first = synced(callboard, notes, *where)
    assert (first["status"], first["error"]) == ("completed", None)
    assert (first["indexed"], first["deleted"], first["unchanged"], first["failed"]) == (3, 0, 0, 0)
    assert first["bytes"] > 0
    assert first["seconds"] > 0
    second = synced(callboard, notes, *where)
    assert (second["indexed"], second["deleted"], second["unchanged"]) == (0, 0, 3)
    (notes / "two.txt").unlink()
    (notes / "four.txt").write_text("Note four: the wind machine.\n")
    third = synced(callboard, notes, *where)
    assert (third["indexed"], third["deleted"], third["unchanged"]) == (1, 1, 2)
    found = json.loads(callboard("search", "notes", "wind machine", *where, "--format", "json").out)
    assert [Path(hit["document"]["path"]).name for hit in found["hits"]] == ["four.txt"]
    assert "<em>wind</em>" in found["hits"][0]["highlights"][0]


def test_a_sync_without_settings_uses_those_of_the_index(callboard: Any, notes: Path, tmp_path: Path) -> None:
    where = ("--embedded", tmp_path / "data")
    synced(callboard, notes, *where)
    again = callboard("sync", "dir", "--index", "notes", *where)
    assert again.code == Exit.DONE, again.err
    assert "3 unchanged" in again.out


def test_connector_and_job_documents_are_kept_true(callboard: Any, notes: Path, tmp_path: Path) -> None:
    where = ("--embedded", tmp_path / "data")
    synced(callboard, notes, *where)
    (connector,) = json.loads(callboard("connector", "list", "--format", "json", *where).out)
    assert (connector["status"], connector["last_sync_status"]) == ("connected", "completed")
    (job,) = json.loads(callboard("job", "list", connector["id"], "--format", "json", *where).out)
    assert (job["job_status"], job["documents_indexed"], job["documents_deleted"]) == ("completed", 3, 0)


def test_an_index_of_one_kind_of_source_is_not_given_to_another(callboard: Any, notes: Path, tmp_path: Path) -> None:
    where = ("--embedded", tmp_path / "data")
    synced(callboard, notes, *where)
    other = callboard("sync", "postgresql", "--index", "notes", *where)
    assert other.code != Exit.DONE
    assert "Traceback" not in other.err


def test_a_node_says_where_it_is_and_stops_in_order(callboard: Any, notes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    node = callboard.start("node", "--port", "0", "--data", data)
    url = ready(node)
    assert synced(callboard, notes, "--to", url)["indexed"] == 3
    node.send_signal(signal.SIGINT)
    out, err = node.communicate(timeout=20)
    assert (node.returncode, out) == (Exit.DONE, ""), err
    # What it has answered is kept.
    found = json.loads(callboard("search", "notes", "thunder", "--embedded", data, "--format", "json").out)
    assert found["total"] == 3


def test_a_node_without_a_folder_keeps_nothing(callboard: Any, tmp_path: Path) -> None:
    node = callboard.start("node", "--port", "0")
    post(ready(node), "/a/_doc?refresh=true", {"x": 1})
    node.send_signal(signal.SIGTERM)
    node.communicate(timeout=20)
    assert node.returncode == Exit.DONE
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []


def test_ctrl_c_ends_a_sync_and_the_job_document_says_so(callboard: Any, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(6000):
        (folder / f"{number}.txt").write_text(f"note {number} " * 40)
    node = callboard.start("node", "--port", "0")
    url = ready(node)
    sync = callboard.start(
        "sync", "dir", "--set", f"directory={folder}", "--index", "many", "--to", url, "--format", "json"
    )
    running = {"query": {"term": {"status": "in_progress"}}}
    deadline = time.monotonic() + 40
    while True:
        assert sync.poll() is None, sync.communicate()
        assert time.monotonic() < deadline, "the job never began"
        try:
            if post(url, "/.elastic-connectors-sync-jobs/_count", running)["count"]:
                break
        except urllib.error.HTTPError:
            # The index of jobs is not there yet.
            time.sleep(0.05)
    asked_s = time.monotonic()
    sync.send_signal(signal.SIGINT)
    out, err = sync.communicate(timeout=20)
    took_s = time.monotonic() - asked_s
    assert sync.returncode == Exit.INTERRUPTED, err
    report = json.loads(out)
    assert report["status"] == "canceled"
    (job,) = post(url, "/.elastic-connectors-sync-jobs/_search", {"query": {"match_all": {}}})["hits"]["hits"]
    assert job["_source"]["status"] == "canceled"
    assert job["_source"]["indexed_document_count"] == report["indexed"]
    assert took_s < 1.0


def test_the_demonstration_indexes_the_sample_and_finds_something(callboard: Any, tmp_path: Path) -> None:
    done = callboard("demo", "--data", tmp_path / "data", timeout_s=120)
    assert done.code == Exit.DONE, done.err
    for extension in ("md", "txt", "html", "json", "csv", "pdf", "docx"):
        assert f"\n{extension} " in done.out
    assert "39 documents indexed" in done.out
    assert "[thunder]" in done.out
    again = callboard("demo", "--data", tmp_path / "data", timeout_s=120)
    assert "39 unchanged" in again.out


def test_the_demonstration_takes_a_folder_of_ones_own(callboard: Any, notes: Path, tmp_path: Path) -> None:
    done = callboard("demo", notes, "--data", tmp_path / "data", timeout_s=120)
    assert done.code == Exit.DONE, done.err
    assert "demo-notes" in done.out


def test_on_a_terminal_there_is_a_live_display_and_it_goes_away(callboard: Any, notes: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        callboard.command(
            "sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", tmp_path / "d"
        ),
        cwd=tmp_path,
        env=callboard.environment(TERM="xterm-256color", COLUMNS="100", LINES="30"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.5)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:
                break
    os.close(master)
    assert process.wait(timeout=20) == Exit.DONE, shown
    text = shown.decode()
    assert "in the queue" in text
    assert "\x1b[2K" in text or "\x1b[1A" in text, "the display was not taken away"
    result, *after = [
        line for line in text.splitlines() if "3 documents indexed" in line or "callboard job list" in line
    ]
    assert result.rpartition("\x1b[2K")[2].startswith("notes: 3 documents indexed")
    assert len(after) == 1, "the last lines are the result and where its jobs are"


def test_a_sync_that_was_killed_is_gone_on_with(callboard: Any, tmp_path: Path) -> None:
    folder, data = tmp_path / "many", tmp_path / "data"
    folder.mkdir()
    for number in range(4000):
        (folder / f"{number}.txt").write_text(f"note {number}")
    where = ("--index", "many", "--embedded", data)
    first = callboard.start("sync", "dir", "--set", f"directory={folder}", *where)
    assert first.stderr is not None
    assert "Syncing" in first.stderr.readline()
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=20)
    again = callboard("sync", "dir", *where, "--format", "json", timeout_s=120)
    assert again.code == Exit.DONE, again.err
    assert json.loads(again.out)["status"] == "completed"
    counted = json.loads(callboard("index", "list", "--embedded", data, "--format", "json").out)
    assert counted == [{"index": "many", "documents": 4000}]


def test_a_killed_sync_does_not_hold_up_the_next_one_at_the_same_server(callboard: Any, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(4000):
        (folder / f"{number}.txt").write_text(f"note {number}")
    node = callboard.start("node", "--port", "0")
    assert node.stdout is not None
    where = ("--index", "many", "--to", node.stdout.readline().split(" at ")[1].split(" ")[0])
    first = callboard.start("sync", "dir", "--set", f"directory={folder}", *where)
    deadline = time.monotonic() + 30
    jobs: list[dict[str, Any]] = []
    while not any(job["job_status"] == "in_progress" for job in jobs):
        assert time.monotonic() < deadline, "the sync never ran"
        connectors = json.loads(callboard("connector", "list", "--format", "json", *where[2:]).out)
        for connector in connectors:
            jobs = json.loads(callboard("job", "list", connector["id"], "--format", "json", *where[2:]).out)
        if first.poll() is not None:
            break
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=20)
    again = callboard("sync", "dir", *where, "--format", "json", timeout_s=120)
    assert again.code == Exit.DONE, again.err
    counted = json.loads(callboard("index", "list", *where[2:], "--format", "json").out)
    assert counted == [{"index": "many", "documents": 4000}]


@pytest.mark.integration
def test_the_same_sync_into_a_real_elasticsearch(
    callboard: Any, notes: Path, tmp_path: Path, elasticsearch_url: str
) -> None:
    where = ("--to", elasticsearch_url)
    name = f"cli-test-{os.getpid()}-{time.monotonic_ns()}"
    command = ("sync", "dir", "--set", f"directory={notes}", "--index", name, *where, "--format", "json")
    try:
        first, second = json.loads(callboard(*command).out), json.loads(callboard(*command).out)
        (notes / "two.txt").unlink()
        third = json.loads(callboard(*command).out)
        assert [(run["indexed"], run["deleted"], run["unchanged"]) for run in (first, second, third)] == [
            (3, 0, 0),
            (0, 0, 3),
            (0, 1, 2),
        ]
        found = json.loads(callboard("search", name, "thunder", *where, "--format", "json").out)
        assert found["total"] == 2
    finally:
        listed = json.loads(callboard("connector", "list", "--format", "json", *where).out)
        for connector in listed:
            if connector["index_name"] == name:
                callboard("connector", "delete", connector["id"], "--with-index", "--purge", "--yes", *where)


def test_an_engine_that_a_configuration_file_names_must_be_there(callboard: Any, notes: Path, tmp_path: Path) -> None:
    config, data = tmp_path / "config.yml", tmp_path / "data"
    config.write_text(
        "elasticsearch:\n  host: http://127.0.0.1:9\n"
        "callboard:\n  text_extraction:\n    engine: plain\n    characters: 10\n"
    )
    sync = ("sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", data)
    done = callboard("-c", config, *sync, "--format", "json")
    assert (done.code, json.loads(done.out)["indexed"]) == (Exit.DONE, 3), done.err
    found = json.loads(callboard("search", "notes", "*", "--lucene", "--embedded", data, "--format", "json").out)
    bodies = [hit["document"].get("body", "") for hit in found["hits"]]
    assert any(bodies)
    assert max(map(len, bodies)) <= 10, "the limit of the file holds where the node reads attachments, too"
    config.write_text("callboard:\n  text_extraction:\n    engine: service\n")
    refused = callboard("-c", config, *sync)
    assert refused.code == Exit.USAGE
    assert "extraction_service.host" in refused.err
