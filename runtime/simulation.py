"""One switch that puts a whole program under virtual time, seeded chance and a seeded order of tasks.

With the same seed the same program does the same things in the same order, so that a failure found once can be replayed. That
holds as long as nothing goes past the seams: one worker thread or one real socket would spoil it.
"""

from __future__ import annotations

import random as _random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing
from trio._core import _run as _trio_run

from .seams import simulated_seams

T = TypeVar("T")


def run_simulated(main: Callable[..., Awaitable[T]], *args: Any, seed: int) -> T:
    """Run a Trio program as `trio.run` does, in simulation. Time jumps whenever every task waits.

    Raises whatever the program raises.
    """
    with simulated_seams(seed), _seeded_scheduler(seed):
        return trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def _seeded_scheduler(seed: int) -> Iterator[None]:
    # Trio has this switch for Hypothesis, without a public name: sort what is ready by age, then shuffle by this generator.
    scheduler: Any = _trio_run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.setstate(_random.Random(seed).getstate())  # noqa: S311 - repeatable on purpose
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before[0]
        scheduler._r.setstate(before[1])
