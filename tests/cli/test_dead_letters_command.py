"""Failed documents seen and tried again from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from callboard.actors.sync.dead_letters import DeadLetters
from callboard.actors.sync.report import FailedDocument
from callboard.cli.exits import Exit
from callboard.node import open_node
from callboard.protocol.store import Target, open_store


def write_letters(data: Path, index: str, names: Sequence[str]) -> None:
    data.mkdir(exist_ok=True)

    async def main() -> None:
        async with open_node(data, port=None) as node, open_store(Target(embedded=node.app)) as store:
            letters = DeadLetters(store, index, job_id="job-1")
            for name in names:
                letters.add(FailedDocument(name, "download", "the file is odd", "a", name))
            await letters.flush()

    trio.run(main)


@pytest.fixture
def where(tmp_path: Path) -> tuple[str, str]:
    return ("--embedded", str(tmp_path / "data"))


def test_failed_documents_are_listed_and_marked(callboard: Any, where: tuple[str, str], tmp_path: Path) -> None:
    write_letters(tmp_path / "data", "notes", ["one.txt", "two.txt"])
    write_letters(tmp_path / "data", "other", ["three.txt"])
    listed = callboard("dead-letters", "list", "--index", "notes", *where)
    assert listed.code == Exit.DONE, listed.err
    assert "one.txt" in listed.out
    assert "the file is odd" in listed.out
    assert "three.txt" not in listed.out

    marked = callboard("dead-letters", "replay", "--index", "notes", "--yes", *where)
    assert (marked.code, marked.out) == (Exit.DONE, "The next sync tries 2 documents again.\n")
    letters = json.loads(callboard("dead-letters", "list", "--job", "job-1", "--format", "json", *where).out)
    assert {one["what"]: one.get("replay") for one in letters} == {
        "one.txt": "asked",
        "two.txt": "asked",
        "three.txt": None,
    }


def test_a_replay_of_nothing_in_particular_is_refused(callboard: Any, where: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    refused = callboard("dead-letters", "replay", "--yes", *where)
    assert refused.code == Exit.USAGE
    assert "--index NAME" in refused.err


def test_no_dead_letters_is_an_answer(callboard: Any, where: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert callboard("dead-letters", "list", *where).code == Exit.DONE
    assert "no such dead letters" in callboard("dead-letters", "replay", "--index", "x", "--yes", *where).err
