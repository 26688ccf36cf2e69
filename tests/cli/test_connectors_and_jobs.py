"""Connectors, jobs and indices from the command line, against a real Elasticsearch and against the built-in node."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.cli.exits import Exit

SERVERS = ["node", pytest.param("elasticsearch", marks=pytest.mark.integration)]


@pytest.fixture(params=SERVERS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The options that name a server, each of the two in turn."""
    if request.param == "node":
        return ("--embedded", str(tmp_path / "data"))
    return ("--to", request.getfixturevalue("elasticsearch_url"))


@pytest.fixture
def index_name() -> str:
    return f"cli-test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.txt").write_text("The thunder sheet is cracked.\n")
    return folder


@pytest.fixture
def created(
    callboard: Any, where: tuple[str, str], index_name: str, notes: Path, tmp_path: Path
) -> Iterator[dict[str, Any]]:
    """A connector for the folder, and its index; both gone afterwards."""
    (tmp_path / "data").mkdir(exist_ok=True)
    done = callboard(
        *("connector", "create", "--service-type", "dir", "--index-name", index_name, "--name", "Notes"),
        *("--set", f"directory={notes}", "--format", "json", *where),
    )
    assert done.code == Exit.DONE, done.err
    made: dict[str, Any] = json.loads(done.out)
    yield made
    callboard("connector", "delete", made["id"], "--with-index", "--purge", "--yes", *where)


def test_a_new_connector_can_be_shown_and_listed(
    callboard: Any, where: tuple[str, str], created: dict[str, Any], index_name: str, notes: Path
) -> None:
    shown = json.loads(callboard("connector", "show", created["id"], "--format", "json", *where).out)
    assert (shown["index_name"], shown["service_type"], shown["status"]) == (index_name, "dir", "configured")
    assert shown["configuration"]["directory"]["value"] == str(notes)
    listed = json.loads(callboard("connector", "list", "--format", "json", *where).out)
    assert created["id"] in [each["id"] for each in listed]
    assert "Notes" in callboard("connector", "list", *where).out


def test_an_index_has_one_connector(
    callboard: Any, where: tuple[str, str], created: dict[str, Any], index_name: str, notes: Path
) -> None:
    again = callboard(
        *("connector", "create", "--service-type", "dir", "--index-name", index_name, "--name", "Again"),
        *("--set", f"directory={notes}", *where),
    )
    again.assert_failed(Exit.FAILED, created["id"])


def test_a_job_waits_and_is_canceled_at_once(
    callboard: Any, where: tuple[str, str], created: dict[str, Any], index_name: str
) -> None:
    started = callboard("job", "start", "-i", created["id"], "-t", "FULL", "-o", "json", *where)
    job_id = json.loads(started.out)["id"]
    facts = json.loads(callboard("job", "view", job_id, "-o", "json", *where).out)
    assert facts == {
        "job_id": job_id,
        "connector_id": created["id"],
        "index_name": index_name,
        "job_status": "pending",
        "job_type": "full",
        "documents_indexed": 0,
        "volume_documents_indexed": 0,
        "documents_deleted": 0,
    }
    assert json.loads(callboard("job", "list", created["id"], "--format", "json", *where).out) == [facts]
    assert callboard("job", "cancel", job_id, "--yes", *where).code == Exit.DONE
    assert "canceled" in callboard("job", "view", job_id, *where).out
    callboard("job", "cancel", job_id, "--yes", *where).assert_failed(Exit.FAILED, job_id)
    followed = callboard("job", "follow", job_id, *where)
    assert followed.code == Exit.FAILED


def test_unknown_ids_are_one_line(callboard: Any, where: tuple[str, str], created: dict[str, Any]) -> None:
    for command in (("connector", "show"), ("job", "view"), ("job", "list"), ("job", "follow"), ("connector", "check")):
        callboard(*command, "no-such-id", *where).assert_failed(Exit.NOT_FOUND, "no-such-id")
    callboard("job", "start", "-i", "no-such-id", "-t", "full", *where).assert_failed(Exit.NOT_FOUND, "no-such-id")
    callboard("job", "cancel", "no-such-id", "--yes", *where).assert_failed(Exit.NOT_FOUND, "no-such-id")


def test_what_is_missing_for_a_job_is_named_in_words(callboard: Any) -> None:
    callboard("job", "start", "-t", "full").assert_failed(Exit.USAGE, "--connector-id")
    callboard("job", "start", "-i", "7f3a").assert_failed(Exit.USAGE, "--job-type")


def test_a_schedule_says_when_it_fires_next(callboard: Any, where: tuple[str, str], created: dict[str, Any]) -> None:
    done = callboard("connector", "schedule", created["id"], "0 0 2 * * ?", *where)
    assert "next at" in done.out
    assert "02:00:00 UTC" in done.out
    callboard("connector", "schedule", created["id"], "now and then", *where).assert_failed(Exit.USAGE, "now and then")
    assert callboard("connector", "disable", created["id"], *where).code == Exit.DONE
    shown = json.loads(callboard("connector", "show", created["id"], "--format", "json", *where).out)
    assert shown["scheduling"]["full"] == {"enabled": False, "interval": "0 0 2 * * ?"}


def test_a_check_says_what_the_source_says(
    callboard: Any, where: tuple[str, str], created: dict[str, Any], notes: Path
) -> None:
    assert callboard("connector", "check", created["id"], *where).code == Exit.DONE
    missing = notes / "elsewhere"
    assert callboard("connector", "edit", created["id"], "--set", f"directory={missing}", *where).code == Exit.DONE
    callboard("connector", "check", created["id"], *where).assert_failed(Exit.NOT_FOUND, str(missing))


def test_an_exported_deployment_applies_without_a_change(
    callboard: Any, where: tuple[str, str], created: dict[str, Any], tmp_path: Path
) -> None:
    exported = callboard("connector", "export", created["id"], *where)
    file = tmp_path / "deployment.yml"
    file.write_text(exported.out)
    assert "Nothing to change" in callboard("connector", "apply", "-f", file, *where).out
    file.write_text(exported.out.replace("name: Notes", "name: Letters"))
    shown = callboard("connector", "apply", "-f", file, "--dry-run", *where)
    assert "name: Notes -> Letters" in shown.out
    assert callboard("connector", "apply", "-f", file, "--yes", *where).code == Exit.DONE
    assert "Nothing to change" in callboard("connector", "apply", "-f", file, *where).out


def test_an_index_is_listed_cleaned_and_deleted(
    callboard: Any, where: tuple[str, str], created: dict[str, Any], index_name: str
) -> None:
    listed = json.loads(callboard("index", "list", "--format", "json", *where).out)
    assert {"index": index_name, "documents": 0} in listed
    assert "Deleted 0 documents" in callboard("index", "clean", index_name, "--yes", *where).out
    callboard("index", "delete", index_name, *where).assert_failed(Exit.USAGE, "--yes")
    callboard("index", "delete", "cli-*", "--yes", *where).assert_failed(Exit.USAGE, "Name one index")
    assert callboard("index", "delete", index_name, "--yes", *where).code == Exit.DONE
    callboard("index", "delete", index_name, "--yes", *where).assert_failed(Exit.NOT_FOUND, index_name)


def test_nothing_is_left_of_a_connector_that_could_not_be_made(
    callboard: Any, where: tuple[str, str], created: dict[str, Any], index_name: str
) -> None:
    other = f"{index_name}-other"
    settings = ("--set", "directory=", "--name", "x", "--service-type", "dir", "--index-name", other)
    callboard("connector", "create", *settings, *where).assert_failed(Exit.USAGE, "directory")
    listed = json.loads(callboard("index", "list", "--format", "json", *where).out)
    assert other not in [each["index"] for each in listed]
