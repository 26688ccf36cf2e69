"""`python -m tests.simulation.proof`: which seed finds which deliberate mistake, for the table in `docs/simulation.md`.

With `--check` nothing is written; the exit code is 1 if the page names other mistakes than there are.
"""

from __future__ import annotations

import re
import site
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from .campaign import PROCESSES, ROOT, Outcome, run_seed
from .mutations import MUTATIONS
from .service_campaign import run_service_seed
from .service_mutations import SERVICE_MUTATIONS

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"
BEGIN, END = "<!-- proof: begin -->", "<!-- proof: end -->"
SEEDS = 80


def finder(mistake: str, level: str, seeds: Iterable[int] = range(SEEDS)) -> Outcome | None:
    """The first seed that breaks a promise while the product makes the mistake; None if none of them does.

    Raises `AssertionError` if the mistake has become another one: the code it is patched into has changed its shape.
    """
    mutations, run = (MUTATIONS, run_seed) if level == "engine" else (SERVICE_MUTATIONS, run_service_seed)
    with mutations[mistake]():
        found = next((outcome for seed in seeds if (outcome := run(seed)).violations), None)
    if found is not None and re.search(r"\b(TypeError|AttributeError|NameError)\b", found.violations[0]):
        raise AssertionError(f"{mistake!r} does not fit the product any more: {found.violations[0]}")
    return found


def rows(page: str) -> dict[tuple[str, str], tuple[int, str]]:
    """The table as it stands in the page: (level, mistake) -> seed and what it says."""
    found = re.findall(r"^\| (engine|service) \| (.+?) \| (\d+) \| (.*) \|$", page, flags=re.MULTILINE)
    return {(level, mistake): (int(seed), told) for level, mistake, seed, told in found}


def everything() -> list[tuple[str, str]]:
    """(level, mistake) of all there are."""
    return [("engine", one) for one in MUTATIONS] + [("service", one) for one in SERVICE_MUTATIONS]


def _row(one: tuple[str, str]) -> str | None:
    level, mistake = one
    found = finder(mistake, level)
    if found is None:
        return None
    told = re.sub(r"\b[0-9a-f]{32}\b", "...", found.violations[0]).replace("|", "/")[:110]
    return f"| {level} | {mistake} | {found.seed} | {told} |"


def main() -> int:
    """Make the table anew."""
    page = PAGE.read_text()
    if "--check" in sys.argv:
        return 0 if list(rows(page)) == everything() else 1
    lines = []
    pool = ProcessPoolExecutor(
        PROCESSES, mp_context=get_context("spawn"), initializer=site.addsitedir, initargs=(str(ROOT),)
    )
    with pool:
        for (level, mistake), line in zip(everything(), pool.map(_row, everything()), strict=True):
            if line is None:
                print(f"{SEEDS} seeds do not find a product that {mistake} ({level})")
                return 1
            lines.append(line)
            print(line, flush=True)
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    table = "\n".join(["| Level | The product ... | Seed | What the simulation says |", "|---|---|---|---|", *lines])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
