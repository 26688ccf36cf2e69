"""The decisions behind the runtime: each is in the code, and has a test."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path
from typing import Any

import trio

from callboard.runtime import open_system
from callboard.runtime.actor import MESSAGES_PER_WAKE_UP

from .conftest import Note, Recorders

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| .* \| `([\w.]+)` \| `(test_\w+)\.(test_\w+)` \|$", re.MULTILINE)


def test_each_decision_is_in_the_code_and_has_a_test() -> None:
    rows = ROW.findall((ROOT / "docs/runtime-semantics.md").read_text(encoding="utf-8"))
    assert len(rows) == 19
    for place, module, test in rows:
        name, *path = place.split(".")
        found: Any = importlib.import_module(f"callboard.runtime.{name}")
        for part in path:
            found = getattr(found, part)
        tests = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {test}\(", tests, re.MULTILINE), f"{module} has no {test}"


async def test_a_busy_actor_lets_others_run(autojump_clock: Any, recorders: Recorders) -> None:
    """With hundreds of messages waiting, whoever else is ready has its turn after each few dozen."""
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        for _ in range(3 * MESSAGES_PER_WAKE_UP):
            ref.tell_nowait(Note("x"))
        seen = [ref.processed]
        while seen[-1] < 3 * MESSAGES_PER_WAKE_UP:
            await trio.lowlevel.checkpoint()
            seen.append(ref.processed)
        steps = [after - before for before, after in itertools.pairwise(seen)]
        # Trio runs those who are ready in random order, so that the actor may have two turns between two of this task.
        assert max(steps) in (MESSAGES_PER_WAKE_UP, 2 * MESSAGES_PER_WAKE_UP)
