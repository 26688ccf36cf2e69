"""Many seeds of the whole service in a row: what they showed, and what they should have shown and did not."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

import attrs

from .campaign import Outcome, Summary, lived
from .scheduling import run_simulated
from .service_plan import ACTOR_FAULTS, Plan, draw_plan
from .service_world import ServiceWorld

SERVICE_EXPECTED = (
    *ACTOR_FAULTS, "stalled keeper canceled", "service ended by a fault", "server restarts", "connector created",
    "connector deleted", "incremental job requested", "file downloaded", "download broken", "huge document", "empty page",
    "named again at the end", "memory granted", "waited for memory",
    "kill", "stop", "cut off", "clock jumps", "source was down", "defect of a source", "actor restarted", "source shrinks",
    "change during the scan", "job requested", "access-control sync", "schedule changes", "schedule fired", "schedule_fired",
    "cancel", "job canceled", "job suspended", "job error", "job completed", "resume", "takeover", "reclaimed idle job",
    "job_taken_over", "held-back deletion", "deletions confirmed", "deletion", "server busy", "request too large",
    "server unavailable", "server away", "answer lost", "connection refused", "answer cut", "server slow", "items busy",
    "foreign write", "document retried",
)  # fmt: skip
"""A campaign of services in which one of these never happened has tested less than it says."""


@attrs.define
class ServiceOutcome(Outcome):
    """What became of one plan."""

    plan: Plan = attrs.field(kw_only=True)
    command: str = "--service"

    def shown(self, journal_lines: int = 60) -> str:
        """For people: what broke, the plan, and the story of the run without its single requests."""
        broken = "\n".join(f"  ! {why}" for why in self.violations[:10])
        story = [line for line in self.journal if not line[10:].startswith(". ")]
        told = "\n".join(f"  {line}" for line in story[-journal_lines:])
        return (
            f"service seed {self.seed} breaks {len(self.violations)} promises:\n{broken}\nits plan:\n{self.plan.shown()}\n"
            f"the end of its story ({len(story)} lines, {len(self.journal)} with every request):\n{told}\n"
            f"replay it: python -m tests.simulation --service --seed {self.seed}   (--shrink looks for a smaller plan)"
        )


def run_plan(plan: Plan) -> ServiceOutcome:
    """Live through one plan."""
    world = ServiceWorld(plan)
    with _without_records():
        try:
            run_simulated(plan.seed, world.run)
        except Exception as exc:
            world.violations.append(f"the simulation ended with {_leaf(exc)}")
    return ServiceOutcome(
        plan.seed, world.violations, plan.shown(), world.journal, world.seen, sum(world.disasters.values()), plan=plan
    )


def run_service_seed(seed: int) -> ServiceOutcome:
    """Draw the plan of one seed and live through it."""
    return run_plan(draw_plan(seed))


def run_service_campaign(seeds: Iterable[int], *, failures_max: int = 5, processes: int = 1) -> Summary:
    """Run the seeds; give up after some failures."""
    return lived(run_service_seed, seeds, Summary(expected=SERVICE_EXPECTED), failures_max, processes)


@contextlib.contextmanager
def _without_records() -> Iterator[None]:
    """Client libraries make a log record of every request, which nobody reads here."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _leaf(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {exc}"
