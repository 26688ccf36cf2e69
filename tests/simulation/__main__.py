"""`python -m tests.simulation`: a campaign as long as one likes, or one seed with its whole journal."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .campaign import run_campaign, run_seed

FAILURES_MAX = 5


def main() -> int:
    """Run what the arguments ask for; the exit code is 1 if a promise was broken or something was never seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay this one and print its journal")
    parser.add_argument(
        "--resume", type=Path, help="a file that remembers the next seed, so that a stopped campaign goes on"
    )
    given = parser.parse_args()
    if given.seed is not None:
        outcome = run_seed(given.seed)
        print("\n".join(outcome.journal))
        print(outcome.shown(0) if outcome.violations else f"seed {given.seed} keeps all promises\n{outcome.rates}")
        return 1 if outcome.violations else 0
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    first = given.first
    if given.resume is not None and given.resume.exists():
        first = int(given.resume.read_text())
        print(f"goes on at seed {first}")
    return _campaign(first, given.first + given.seeds, given.resume)


def _campaign(first: int, end: int, remembered: Path | None) -> int:
    step, total, started_s = 50, None, time.perf_counter()
    for start in range(first, end, step):
        part = run_campaign(range(start, min(start + step, end)))
        if total is None:
            total = part
        else:
            total.seeds += part.seeds
            total.disasters += part.disasters
            total.seen.update(part.seen)
            total.failed += part.failed
        total.seconds = time.perf_counter() - started_s
        for outcome in part.failed:
            print(outcome.shown())
        if len(total.failed) >= FAILURES_MAX:
            break
        if remembered is not None:
            remembered.write_text(str(min(start + step, end)))
    if total is None:
        print("nothing is left to do")
        return 0
    if remembered is not None and len(total.failed) < FAILURES_MAX:
        remembered.unlink(missing_ok=True)
    print(total.shown())
    if total.seeds >= 200 and total.never_seen:
        print(f"never seen: {', '.join(total.never_seen)}")
        return 1
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
