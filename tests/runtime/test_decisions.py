"""The decisions behind the runtime: each is in the code, and has a test."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
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


class _Steps(trio.abc.Instrument):
    """How many messages an actor handles in each step of its task."""

    def __init__(self, processed: Callable[[], int]) -> None:
        self._processed = processed
        self._before = 0
        self.grown: list[int] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = self._processed()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if grown := self._processed() - self._before:
            self.grown.append(grown)


async def test_a_busy_actor_lets_others_run(autojump_clock: Any, recorders: Recorders) -> None:
    """With hundreds of messages waiting, the actor gives way after each few dozen, and not before."""
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        for _ in range(3 * MESSAGES_PER_WAKE_UP):
            ref.tell_nowait(Note("x"))
        steps = _Steps(lambda: ref.processed)
        trio.lowlevel.add_instrument(steps)
        try:
            while ref.processed < 3 * MESSAGES_PER_WAKE_UP:
                await trio.lowlevel.checkpoint()
        finally:
            trio.lowlevel.remove_instrument(steps)
    assert steps.grown == [MESSAGES_PER_WAKE_UP] * 3
