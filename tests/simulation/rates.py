"""Swarm testing: a seed first draws which misfortunes there are at all and how often, then the events.

A run in which everything goes wrong at once shows little, since nothing gets far; each run has a few kinds of faults, and every
combination comes up in enough runs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs

from callboard.node.faults import (
    Corrupt,
    CutBody,
    Delay,
    Effect,
    FailItems,
    LoseResponse,
    Match,
    Refuse,
    Restart,
    Rule,
    ServerFaultPlan,
    StaleRead,
    Status,
)

INDEX = "library"
_CONTENT = Match(path=f"/{INDEX}/_bulk")
_BULK = Match(path="*/_bulk")

SERVER_FAULTS: Mapping[str, tuple[Match, Effect, float]] = {
    "bulk 429": (_BULK, Status(status=429, retry_after_s=1), 0.5),
    "bulk 413": (_CONTENT, Status(status=413), 0.6),
    "any 503": (Match(), Status(status=503), 0.1),
    "items 429": (_CONTENT, FailItems(status=429, share=0.4), 0.6),
    "items 400": (_CONTENT, FailItems(status=400, share=0.1), 0.2),
    "answer lost": (Match(), LoseResponse(), 0.1),
    "bulk answer lost": (_CONTENT, LoseResponse(), 0.5),
    "connection refused": (Match(), Refuse(), 0.15),
    "answer cut": (Match(), CutBody(after_bytes=10), 0.08),
    "answer corrupt": (Match(), Corrupt(), 0.03),
    "slow": (Match(), Delay(seconds=2), 0.15),
    "stale read": (Match(path="*sync-jobs*"), StaleRead(), 0.1),
    "server restarts": (Match(), Restart(down_s=5), 0.02),
}
"""Name -> where, what, and the highest chance per request that is drawn."""
SOURCE_FAULTS: Mapping[str, float] = {
    "listing breaks": 0.5,
    "naming breaks": 0.3,
    "item fails": 0.3,
    "container fails": 0.3,
    "id named twice": 0.6,
    "changes during the scan": 0.6,
    "download fails": 0.4,
    "download broken for good": 0.2,
    "slow source": 0.8,
    "empty pages": 0.6,
    "named again at the end": 0.5,
    "huge document": 0.4,
    "listing ends early": 0.3,
    "slow download": 0.3,
}
DISASTERS: Mapping[str, float] = {
    "crash": 0.8,
    "suspend": 0.6,
    "cancel request": 0.4,
    "shutdown": 0.5,
    "race for the job": 0.6,
    "hasty janitor": 0.6,
    "source shrinks": 0.5,
    "foreign write": 0.5,
}


@attrs.frozen
class Rates:
    """How often each misfortune happens in one run, as chances. What is not named does not happen."""

    server: Mapping[str, float]
    source: Mapping[str, float]
    disasters: Mapping[str, float]

    def shown(self) -> str:
        """One line per kind, for whoever has to understand a failing seed."""
        return "\n".join(
            f"  {kind}: " + (", ".join(f"{name} {chance:.2f}" for name, chance in rates.items()) or "none")
            for kind, rates in attrs.asdict(self).items()
        )

    def plan(self, seed: int) -> ServerFaultPlan:
        """The server's faults at these rates."""
        rules = tuple(
            Rule(effect=SERVER_FAULTS[name][1], match=SERVER_FAULTS[name][0], chance=chance)
            for name, chance in self.server.items()
        )
        return ServerFaultPlan(rules, seed)


def draw_rates(rng: random.Random) -> Rates:
    """Leave out most kinds, and give the others some chance between nothing and their highest."""
    share = rng.choice([0.0, 0.15, 0.3, 0.5])
    return Rates(
        server=_drawn(rng, {name: highest for name, (_, _, highest) in SERVER_FAULTS.items()}, share),
        source=_drawn(rng, SOURCE_FAULTS, rng.choice([0.0, 0.25, 0.5])),
        disasters=_drawn(rng, DISASTERS, 0.5),
    )


def _drawn(rng: random.Random, highest: Mapping[str, float], share: float) -> dict[str, float]:
    return {name: round(most * (0.1 + 0.9 * rng.random()), 3) for name, most in highest.items() if rng.random() < share}
