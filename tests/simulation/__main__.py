"""`python -m tests.simulation`: a campaign as long as one likes, or one seed with its whole journal."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import attrs

from .campaign import PROCESSES, Outcome, Summary, run_campaign, run_seed
from .service_campaign import run_service_campaign, run_service_seed
from .service_plan import draw_plan
from .shrinking import shrink

FAILURES_MAX = 5
STEP = 80
"""Seeds between two notes of how far the campaign has come. Of every four, three are of the engine and one of the service."""
CONVINCING = 400
"""So many seeds must have seen everything that is expected."""


def main() -> int:
    """Run what the arguments ask for; the exit code is 1 if a promise was broken or something was never seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=1000, help="how many seeds to run, a quarter of them of the service"
    )
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay this one and print its journal")
    parser.add_argument("--service", action="store_true", help="with --seed: of the whole service, not of the engine")
    parser.add_argument("--shrink", action="store_true", help="with --service --seed: look for a small plan that fails")
    parser.add_argument(
        "--resume", type=Path, help="a file that remembers what was done, so that a stopped campaign goes on"
    )
    parser.add_argument(
        "--processes", type=int, default=PROCESSES, help="how many seeds to run side by side; default: %(default)s"
    )
    given = parser.parse_args()
    if given.seed is not None:
        return _replay(given.seed, is_service=given.service, is_to_shrink=given.shrink)
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    if given.processes < 1:
        parser.error("--processes must be at least 1")
    return _campaign(given.first, given.first + given.seeds, given.resume, given.processes)


def _replay(seed: int, *, is_service: bool, is_to_shrink: bool) -> int:
    if is_to_shrink:
        try:
            smallest = shrink(draw_plan(seed))
        except ValueError as exc:
            print(exc)
            return 0
        print(smallest.shown(200))
        return 1
    outcome: Outcome = run_service_seed(seed) if is_service else run_seed(seed)
    print("\n".join(outcome.journal))
    print(outcome.shown(0) if outcome.violations else f"seed {seed} keeps all promises\n{outcome.rates}")
    return 1 if outcome.violations else 0


@attrs.define
class Campaign:
    """How far a campaign has come, over all the times it was stopped."""

    next_seed: int
    seconds: float = 0.0
    seeds: Counter[str] = attrs.field(factory=Counter)
    disasters: Counter[str] = attrs.field(factory=Counter)
    seen: dict[str, Counter[str]] = attrs.field(factory=dict)
    failed: list[tuple[str, int, str]] = attrs.field(factory=list)
    """(level, seed, what broke first)"""

    @classmethod
    def read(cls, text: str) -> Campaign:
        """Take up what `written` has left."""
        told = json.loads(text)
        return cls(
            told["next_seed"],
            told["seconds"],
            Counter(told["seeds"]),
            Counter(told["disasters"]),
            {level: Counter(seen) for level, seen in told["seen"].items()},
            [tuple(one) for one in told["failed"]],
        )

    def written(self) -> str:
        return json.dumps(attrs.asdict(self))

    def add(self, level: str, part: Summary) -> None:
        self.seeds[level] += part.seeds
        self.disasters[level] += part.disasters
        self.seconds += part.seconds
        self.seen.setdefault(level, Counter()).update(part.seen)
        self.failed += [(level, one.seed, one.violations[0]) for one in part.failed]

    def shown(self) -> str:
        """The table: rates, disasters, what was seen how often, failures."""
        minutes = max(self.seconds, 1e-9) / 60
        lines = []
        for level, seeds in self.seeds.items():
            lines.append(f"{level}: {seeds} seeds, {self.disasters[level]} disasters")
            lines += [f"  {name:34} {count:8}" for name, count in sorted(self.seen[level].items())]
        lines += [f"FAILED {level} seed {seed}: {why}" for level, seed, why in self.failed]
        total = sum(self.disasters.values())
        lines.append(
            f"{sum(self.seeds.values())} seeds, {total} disasters in {self.seconds:.0f} s ({total / minutes:.0f} a minute), "
            f"{len(self.failed)} failed"
        )
        return "\n".join(lines)


def _campaign(first: int, end: int, remembered: Path | None, processes: int) -> int:
    done = Campaign(first)
    if remembered is not None and remembered.exists():
        done = Campaign.read(remembered.read_text())
        print(f"goes on at seed {done.next_seed}")
    expected: dict[str, Summary] = {}
    while done.next_seed < end and len(done.failed) < FAILURES_MAX:
        started_s = time.perf_counter()
        block = range(done.next_seed, min(done.next_seed + STEP, end))
        for level, run, seeds in (
            ("engine", run_campaign, [seed for seed in block if seed % 4]),
            ("service", run_service_campaign, [seed for seed in block if not seed % 4]),
        ):
            part = expected[level] = run(seeds, processes=processes)
            for outcome in part.failed:
                print(outcome.shown(), flush=True)
            done.add(level, part)
        done.next_seed = block.stop
        if remembered is not None:
            remembered.write_text(done.written())
        print(
            f"... seed {done.next_seed} of {end}, {time.perf_counter() - started_s:.0f} s for {len(block)}", flush=True
        )
    print(done.shown())
    if remembered is not None and len(done.failed) < FAILURES_MAX:
        remembered.unlink(missing_ok=True)
    missing = [name for level, part in expected.items() for name in part.expected if not done.seen[level][name]]
    if sum(done.seeds.values()) >= CONVINCING and missing:
        print(f"never seen: {', '.join(missing)}")
        return 1
    return 1 if done.failed else 0


if __name__ == "__main__":
    sys.exit(main())
