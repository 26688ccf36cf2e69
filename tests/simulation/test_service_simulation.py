"""The campaign of the whole service in every test run, its replay, the shrinker, and the proof that it finds mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .campaign import PROCESSES
from .proof import PAGE, everything, finder, rows
from .service_campaign import ServiceOutcome, run_plan, run_service_campaign, run_service_seed
from .service_mutations import SERVICE_MUTATIONS
from .service_plan import ACTOR_FAULTS, EVENTS, SERVER_FAULTS, SOURCE_FAULTS, Mishap, Plan, draw_plan
from .shrinking import kind_of, shrink, smallest_failing

SEEDS = 170
"""Of the service."""
MUTANT_SEEDS = 80
"""A mistake has to be found within so many seeds."""
ROOT = Path(__file__).parents[2]


def test_the_service_keeps_its_promises_through_a_campaign_that_has_seen_everything() -> None:
    summary = run_service_campaign(range(SEEDS), processes=PROCESSES)
    print(summary.shown())
    assert not summary.failed, "\n\n".join(outcome.shown() for outcome in summary.failed)
    assert not summary.never_seen, f"never happened: {summary.never_seen}\n{summary.shown()}"


def test_a_service_seed_replays_to_the_last_request_in_any_process() -> None:
    first, second = run_service_seed(2), run_service_seed(2)
    assert len(first.journal) > 100
    assert first.journal == second.journal
    assert first.digest != run_service_seed(3).digest
    program = "from tests.simulation.service_campaign import run_service_seed; print(run_service_seed(2).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == first.digest


def test_plans_leave_out_most_kinds_of_mishaps_and_cover_all_of_them() -> None:
    plans = [draw_plan(seed) for seed in range(100)]
    assert plans[7] == draw_plan(7)
    assert {one.kind for plan in plans for one in plan.mishaps} >= {
        *EVENTS,
        *ACTOR_FAULTS,
        *SERVER_FAULTS,
        *SOURCE_FAULTS,
    }
    assert all(len({one.kind for one in plan.mishaps}) < 35 for plan in plans)
    assert len({plan.setup.services for plan in plans}) == 3


@pytest.mark.parametrize("mistake", SERVICE_MUTATIONS)
def test_the_simulation_of_the_service_finds_a_deliberate_mistake(mistake: str) -> None:
    known = rows(PAGE.read_text()).get(("service", mistake))
    seeds = dict.fromkeys([*([known[0]] if known else []), *range(MUTANT_SEEDS)])
    found = finder(mistake, "service", seeds)
    assert found is not None, f"{MUTANT_SEEDS} seeds do not find a service that {mistake}"
    print(f"seed {found.seed}: {found.violations[0]}")


def test_the_page_names_every_deliberate_mistake_and_the_seed_that_finds_it() -> None:
    assert list(rows(PAGE.read_text())) == everything(), "run: python -m tests.simulation.proof"


# The shrinker


@given(st.sets(st.integers(0, 30), min_size=1, max_size=4), st.integers(31, 60))
def test_the_smallest_failing_part_is_found(guilty: set[int], count: int) -> None:
    def fails(items: Sequence[int]) -> bool:
        return guilty <= set(items)

    assert set(smallest_failing(range(count), fails)) == guilty


def test_a_failing_plan_becomes_small_and_its_story_can_be_read() -> None:
    def run(plan: Plan) -> ServiceOutcome:
        # The product's mistake is made up here, so that only the shrinker is tried: it fails when a kill follows a stop.
        kinds = [one.kind for one in plan.events()]
        outcome = ServiceOutcome(plan.seed, [], "", [], Counter(), 0, plan=plan)
        if "kill" in kinds and "stop" in kinds:
            outcome.violations = [f"job {len(kinds):06} went from x to y"]
        return outcome

    mishaps = tuple(Mishap(kind, at_s) for at_s, kind in enumerate(["kill", *EVENTS, "stop", *EVENTS]))
    failing = attrs.evolve(draw_plan(1), mishaps=mishaps)
    smallest = shrink(failing, run)
    assert sorted(one.kind for one in smallest.plan.mishaps) == ["kill", "stop"]
    assert smallest.plan.setup.services == 1
    with pytest.raises(ValueError, match="nothing to make smaller"):
        shrink(attrs.evolve(failing, mishaps=()), run)


def test_a_failing_run_tells_its_plan_its_story_and_how_to_replay_it() -> None:
    with SERVICE_MUTATIONS["scheduler forgets a fire"]():
        outcome = next(found for seed in range(MUTANT_SEEDS) if (found := run_service_seed(seed)).violations)
        smaller = run_plan(attrs.evolve(outcome.plan, mishaps=()))
    told = outcome.shown()
    assert outcome.violations[0] in told
    assert "rates:" in told
    assert f"python -m tests.simulation --service --seed {outcome.seed}" in told
    assert " . " not in told.split("the end of its story")[1]
    assert {kind_of(one) for one in smaller.violations} == {kind_of(outcome.violations[0])}
