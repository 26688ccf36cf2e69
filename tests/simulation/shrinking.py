"""From a failing plan to a small one that fails in the same way: delta debugging over the list of mishaps.

Zeller's algorithm: leave out halves, then quarters, then eighths, and keep whatever still fails. A run is fully determined by its
plan, so nothing has to be tried twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from .service_campaign import ServiceOutcome, run_plan
from .service_plan import Mishap, Plan

T = TypeVar("T")
RUNS_MAX = 200


def smallest_failing(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return a part of `items` that fails, and of which no single item can be left out. `items` itself must fail.

    At most `RUNS_MAX` calls of `fails`; beyond that what was found so far is returned.
    """
    kept, pieces, runs = list(items), 2, 0
    while len(kept) >= 1 and runs < RUNS_MAX:
        size = max(1, len(kept) // pieces)
        for start in range(0, len(kept), size):
            without = kept[:start] + kept[start + size :]
            runs += 1
            if fails(without):
                kept, pieces = without, max(pieces - 1, 2)
                break
            if runs >= RUNS_MAX:
                return kept
        else:
            if size == 1:
                return kept
            pieces = min(len(kept), pieces * 2)
    return kept


def kind_of(violation: str) -> str:
    """What a broken promise is about, without names and numbers."""
    return re.sub(r"\[.*?\]|\{.*?\}|\b[0-9a-f]{6}\b|\S*\d\S*", "#", violation).split(":")[0]


def shrink(failing: Plan, run: Callable[[Plan], ServiceOutcome] = run_plan) -> ServiceOutcome:
    """Find a plan with few mishaps and few services that breaks the same promise, and return how it ran.

    Raises `ValueError` if the plan does not fail at all.
    """
    first = run(failing)
    if not first.violations:
        raise ValueError(f"seed {failing.seed} keeps all promises, so there is nothing to make smaller")
    wanted = kind_of(first.violations[0])

    def fails(plan: Plan) -> bool:
        return any(kind_of(one) == wanted for one in run(plan).violations)

    def with_mishaps(mishaps: Sequence[Mishap]) -> Plan:
        return attrs.evolve(failing, mishaps=tuple(mishaps))

    failing = with_mishaps(smallest_failing(failing.mishaps, lambda mishaps: fails(with_mishaps(mishaps))))
    for services in range(1, failing.setup.services):
        smaller = attrs.evolve(failing, setup=attrs.evolve(failing.setup, services=services))
        if fails(smaller):
            failing = smaller
            break
    return run(failing)
