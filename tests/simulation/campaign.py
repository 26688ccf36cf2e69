"""Many seeds in a row, with what they showed, and what they should have shown and did not."""

from __future__ import annotations

import hashlib
import os
import site
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import attrs

from .scheduling import run_simulated
from .world import World

EXPECTED = (
    "resume", "takeover", "held-back deletion", "deletions confirmed", "deletion", "unchanged", "document retried", "bulk 429",
    "bulk 413", "any 503", "items 400", "answer lost", "bulk answer lost", "connection refused", "answer cut", "answer corrupt",
    "slow", "stale read", "crash", "suspend", "shutdown", "cancel request", "job completed", "job error", "job canceled",
    "job suspended after an attempt", "claim refused", "janitor refused", "listing broken", "download broken", "download given up",
    "file too large", "failure of the source", "document refused", "id named twice", "change during the scan", "foreign write",
    "listing ended early", "held back after a lie", "empty page", "huge document", "slow download", "server restarts",
    "memory granted", "waited for memory", "kept as partition is broken", "completed and compared",
)  # fmt: skip
"""A campaign in which one of these never happened has tested less than it says."""

ROOT = Path(__file__).parents[2]
PROCESSES = min(os.cpu_count() or 1, 8)
"""So many a campaign uses if nobody says otherwise."""


@attrs.define
class Outcome:
    """What became of one seed."""

    seed: int
    violations: list[str]
    rates: str
    journal: list[str]
    seen: Counter[str]
    disasters: int

    @property
    def digest(self) -> str:
        """The same for the same course of events, to the last request."""
        return hashlib.sha256("\n".join(self.journal).encode()).hexdigest()

    def shown(self, journal_lines: int = 60) -> str:
        """For people: what broke, under which rates, and what led to it."""
        broken = "\n".join(f"  ! {why}" for why in self.violations[:10])
        last = "\n".join(f"  {line}" for line in self.journal[-journal_lines:])
        return (
            f"seed {self.seed} breaks {len(self.violations)} promises:\n{broken}\nrates:\n{self.rates}\n"
            f"the end of its journal ({len(self.journal)} lines):\n{last}\n"
            f"replay it: python -m tests.simulation --seed {self.seed}"
        )


def run_seed(seed: int) -> Outcome:
    """Live through one seed."""
    world = World(seed)
    try:
        run_simulated(seed, world.run)
    except Exception as exc:
        world.violations.append(f"the simulation ended with {type(exc).__name__}: {exc}")
    return Outcome(
        seed, world.violations, world.rates.shown(), world.journal, world.seen, sum(world.disasters.values())
    )


@attrs.define
class Summary:
    """What a campaign amounts to."""

    seeds: int = 0
    disasters: int = 0
    seconds: float = 0.0
    seen: Counter[str] = attrs.field(factory=Counter)
    failed: list[Outcome] = attrs.field(factory=list)
    expected: Sequence[str] = EXPECTED

    @property
    def never_seen(self) -> list[str]:
        return [name for name in self.expected if not self.seen[name]]

    def add(self, outcome: Outcome) -> None:
        """Count one seed in."""
        self.seeds += 1
        self.disasters += outcome.disasters
        self.seen.update(outcome.seen)
        if outcome.violations:
            self.failed.append(outcome)

    def shown(self) -> str:
        """A table of what happened how often."""
        rows = "\n".join(f"  {name:34} {count:8}" for name, count in sorted(self.seen.items()))
        per_minute = 60 * self.disasters / self.seconds if self.seconds else 0
        seeds_per_minute = 60 * self.seeds / self.seconds if self.seconds else 0
        return (
            f"{self.seeds} seeds, {self.disasters} disasters in {self.seconds:.0f} s "
            f"({seeds_per_minute:.0f} seeds and {per_minute:.0f} disasters a minute)\n{rows}"
        )


def run_campaign(seeds: Iterable[int], *, failures_max: int = 5, processes: int = 1) -> Summary:
    """Run the seeds; give up after some failures."""
    return lived(run_seed, seeds, Summary(), failures_max, processes)


def lived(
    run: Callable[[int], Outcome], seeds: Iterable[int], summary: Summary, failures_max: int, processes: int
) -> Summary:
    """Live through seeds, one by one or in processes side by side: a seed is the same wherever it runs."""
    started_s = time.perf_counter()
    for outcome in _outcomes(run, seeds, processes):
        summary.add(outcome)
        summary.seconds = time.perf_counter() - started_s
        if len(summary.failed) >= failures_max:
            break
    return summary


def _outcomes(run: Callable[[int], Outcome], seeds: Iterable[int], processes: int) -> Iterator[Outcome]:
    if processes == 1:
        yield from map(run, seeds)
        return
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=site.addsitedir, initargs=(str(ROOT),)
    )
    try:
        yield from pool.map(_Brief(run), seeds, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


@attrs.frozen
class _Brief:
    """Sends the journal of a run home only if somebody will read it."""

    run: Callable[[int], Outcome]

    def __call__(self, seed: int) -> Outcome:
        outcome = self.run(seed)
        return outcome if outcome.violations else attrs.evolve(outcome, journal=[])
