"""A connector held and let go from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from callboard.cli.exits import Exit


def test_a_connector_is_paused_and_resumed(callboard: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    where = ("--embedded", str(tmp_path / "data"))
    settings = ("--service-type", "dir", "--index-name", "notes", "--name", "Notes", "--set", f"directory={tmp_path}")
    made = callboard("connector", "create", *settings, *where, "-o", "json")
    connector_id = json.loads(made.out)["id"]
    paused = callboard("connector", "pause", connector_id, "--because", "it  moves", *where)
    assert (paused.code, "is paused" in paused.out) == (Exit.DONE, True), paused.err
    assert f"connector resume {connector_id}" in paused.out
    shown = callboard("connector", "show", connector_id, *where)
    assert "by the command line: it moves" in shown.out
    again = callboard("connector", "pause", connector_id, *where)
    assert (again.code, "already" in again.err) == (Exit.FAILED, True), again.err
    resumed = callboard("connector", "resume", connector_id, "--format", "json", *where)
    assert json.loads(resumed.out) == {"id": connector_id, "paused": False}
    assert "Paused" not in callboard("connector", "show", connector_id, *where).out
    assert callboard("connector", "resume", connector_id, *where).code == Exit.FAILED
