"""The campaign of every test run, its replay, and the proof that it finds mistakes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from callboard import sync
from callboard.testing import (
    Document,
    PartScript,
    Script,
    ScriptedSource,
    Target,
    open_node,
    open_store,
    run_simulated,
)

from .campaign import EXPECTED, PROCESSES, Summary, run_campaign, run_seed
from .mutations import MUTATIONS
from .proof import PAGE, finder, rows
from .rates import draw_rates

SEEDS = 860
"""Of the engine; with those of the service more than a thousand."""
MUTANT_SEEDS = 80
"""A mistake has to be found within so many seeds."""
ROOT = Path(__file__).parents[2]


def test_all_promises_hold_through_a_campaign_that_has_seen_everything() -> None:
    summary = run_campaign(range(SEEDS), processes=PROCESSES)
    print(summary.shown())
    assert not summary.failed, "\n\n".join(outcome.shown() for outcome in summary.failed)
    assert not summary.never_seen, f"never happened: {summary.never_seen}\n{summary.shown()}"


def test_a_seed_replays_to_the_last_request() -> None:
    first, second = run_seed(7), run_seed(7)
    assert len(first.journal) > 100
    assert first.journal == second.journal
    assert first.digest != run_seed(8).digest


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_replays_in_another_process_whatever_its_hashes_are(hash_seed: str) -> None:
    program = "from tests.simulation.campaign import run_seed; print(run_seed(7).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == run_seed(7).digest


def test_a_failing_seed_says_what_broke_under_which_rates_and_how_to_replay_it() -> None:
    with MUTATIONS["claims what another has claimed"]():
        outcome = next(found for seed in range(MUTANT_SEEDS) if (found := run_seed(seed)).violations)
    told = outcome.shown()
    assert outcome.violations[0] in told
    assert "server:" in told
    assert f"python -m tests.simulation --seed {outcome.seed}" in told


def test_a_campaign_notices_what_never_happened() -> None:
    seen = run_seed(0).seen
    summary = Summary(seen=seen)
    assert "takeover" in EXPECTED
    assert set(summary.never_seen) == {name for name in EXPECTED if not seen[name]}
    assert summary.never_seen


def test_seeds_draw_different_misfortunes() -> None:
    drawn = [draw_rates(random.Random(seed)) for seed in range(100)]
    assert any(not rates.server for rates in drawn)
    assert any(len(rates.server) > 5 for rates in drawn)
    assert len({rates.shown() for rates in drawn}) > 90


@pytest.mark.parametrize("mistake", MUTATIONS)
def test_the_simulation_finds_a_deliberate_mistake(mistake: str) -> None:
    # The seed that found it last is asked first, to save time; only the order of the search depends on it.
    known = rows(PAGE.read_text()).get(("engine", mistake))
    found = finder(mistake, "engine", dict.fromkeys([*([known[0]] if known else []), *range(MUTANT_SEEDS)]))
    assert found is not None, f"{MUTANT_SEEDS} seeds do not find a product that {mistake}"
    print(f"seed {found.seed}: {found.violations[0]}")


def test_a_listing_that_hangs_ends_with_whoever_cancels_it() -> None:
    corpus = {"p": [Document(f"d-{n:02}", {"n": n}) for n in range(30)]}
    script = Script(parts={"p": PartScript(page_documents=10, hangs_at_page=2)})

    async def main() -> None:
        async with (
            open_node(None, port=None) as node,
            open_store(Target(embedded=node.app), wait_s=None) as store,
        ):
            with trio.move_on_after(600) as patience:
                await sync(ScriptedSource(corpus, script), store, index="books")
            assert patience.cancelled_caught
            assert trio.current_time() < 700

    run_simulated(main, seed=1)
