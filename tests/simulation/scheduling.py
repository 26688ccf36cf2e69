"""One program, one seed, one course of events: Trio's scheduler, its clock and the runtime's seams, all from a number."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import structlog
import trio
import trio._core._run as trio_run
import trio.testing

from callboard.runtime.seams import simulated_seams

T = TypeVar("T")


@contextmanager
def _fixed_scheduling(seed: int) -> Iterator[None]:
    """Let Trio choose among runnable tasks by the seed. The two names are what Hypothesis' own plugin for Trio sets."""
    before, state = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        trio_run._r.setstate(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """What a thousand disasters log is of no use; a failing run is replayed with its journal."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


def run_simulated(seed: int, program: Callable[[], Awaitable[T]]) -> T:
    """Run a program under virtual time with everything that chance decides drawn from the seed."""
    global_state = random.getstate()
    random.seed(seed)
    try:
        with _fixed_scheduling(seed), simulated_seams(seed), _quiet():
            return trio.run(program, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        random.setstate(global_state)
