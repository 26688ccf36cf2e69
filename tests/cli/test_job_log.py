"""The story of a job from the command line, told afterwards and as it happens, by a service that really runs it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.cli.exits import Exit


@pytest.fixture
def url(callboard: Any) -> str:
    line: str = callboard.start("node", "--port", "0").stdout.readline()
    return line.split(" at ")[1].split(" ")[0]


@pytest.fixture
def connector(callboard: Any, url: str, tmp_path: Path) -> str:
    """A connector for a folder, and a service's configuration that looks after it."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(30):
        (notes / f"{number}.txt").write_text("The thunder sheet is cracked.\n")
    settings = ("--service-type", "dir", "--index-name", "notes", "--name", "Notes", "--set", f"directory={notes}")
    made = callboard("connector", "create", *settings, "--to", url, "-o", "json")
    connector_id: str = json.loads(made.out)["id"]
    content = {
        "elasticsearch": {"host": url},
        "connectors": [{"connector_id": connector_id}],
        "service.idling": 0.3,
        "callboard.text_extraction.engine": "plain",
    }
    (tmp_path / "config.yml").write_text(yaml.safe_dump(content))
    return connector_id


def serving(callboard: Any, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            callboard.command("service", "-c", folder / "config.yml"),
            cwd=folder,
            env=callboard.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    callboard.started.append(process)
    return process


def test_a_job_is_followed_and_its_story_told_afterwards(
    callboard: Any, url: str, connector: str, tmp_path: Path
) -> None:
    where = ("--to", url)
    job = json.loads(callboard("job", "start", "-i", connector, "-t", "full", *where, "-o", "json").out)["id"]
    empty = callboard("job", "log", job, *where)
    assert (empty.code, empty.out) == (Exit.DONE, "")
    assert f"nothing about the job {job}" in empty.err
    following = callboard.start("job", "log", job, "--follow", *where)
    in_json = callboard.start("job", "log", job, "--follow", "--format", "json", *where)
    watching = callboard.start("job", "follow", job, "--format", "json", *where)
    serving(callboard, tmp_path)
    # It ends by itself when the job does.
    told, complaints = following.communicate(timeout=90)
    assert (following.returncode, complaints) == (Exit.DONE, ""), (tmp_path / "service.log").read_text()
    lines, _ = in_json.communicate(timeout=30)
    entries = [json.loads(line) for line in lines.splitlines()]
    kinds = [entry["kind"] for entry in entries]
    assert kinds[-1] == "job_completed"
    assert "job_claimed" in kinds
    assert {entry["job_id"] for entry in entries} == {job}
    assert len(told.splitlines()) >= len(set(kinds)) - 1
    seen, _ = watching.communicate(timeout=30)
    assert watching.returncode == Exit.DONE
    assert (json.loads(seen)["job_status"], json.loads(seen)["documents_indexed"]) == ("completed", 30)
    afterwards = callboard("job", "log", job, *where)
    assert afterwards.code == Exit.DONE
    assert "30" in afterwards.out
    again = callboard("job", "log", job, "--follow", *where, timeout_s=30)
    assert again.code == Exit.DONE, "a story that has ended is told and not waited for"
    assert again.out.splitlines()[-1] == afterwards.out.splitlines()[-1]
    scripted = callboard("job", "log", job, "--format", "json", *where)
    assert [json.loads(line)["kind"] for line in scripted.out.splitlines()][-1] == "job_completed"


def test_following_stops_at_ctrl_c(callboard: Any, url: str, connector: str) -> None:
    import signal

    job = json.loads(callboard("job", "start", "-i", connector, "-t", "full", "--to", url, "-o", "json").out)["id"]
    following = callboard.start("job", "log", job, "--follow", "--to", url)
    time.sleep(2)
    assert following.poll() is None
    following.send_signal(signal.SIGINT)
    out, said = following.communicate(timeout=30)
    assert (following.returncode, out, said.strip()) == (Exit.INTERRUPTED, "", "Error: Interrupted.")
