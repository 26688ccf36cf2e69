"""How fast each connector's documents came lately: a bounded row of samples, and the small curve that is drawn of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from .markup import Markup, element

SAMPLES = 90
SAMPLES_WIDE = 20
CONNECTORS_MAX = 1_000
WIDTH, HEIGHT = 120, 28


@attrs.define(eq=False)
class Throughput:
    """Documents per second of each connector that has run lately, one sample a second."""

    rates: dict[str, deque[float]] = attrs.field(factory=dict)
    _listed: dict[str, int] = attrs.field(factory=dict)
    """Job id -> what it had listed at the last look."""

    def sample(self, running: Mapping[str, str], runs: Mapping[str, Any], passed_s: float) -> None:
        """Look once. `running`: job id -> connector id; `runs`: job id -> the engine's run; `passed_s` since the last look."""
        came: dict[str, float] = {}
        listed: dict[str, int] = {}
        for job_id, connector_id in running.items():
            run = runs.get(job_id)
            if run is None:
                continue
            listed[job_id] = run.progress().listed
            # A job that is seen for the first time may have gone on from a checkpoint: what it had done before is no speed.
            rate = max(0, listed[job_id] - self._listed.get(job_id, listed[job_id])) / max(passed_s, 0.001)
            came[connector_id] = came.get(connector_id, 0.0) + rate
        self._listed = listed
        for connector_id in came:
            if connector_id not in self.rates and len(self.rates) < CONNECTORS_MAX:
                self.rates[connector_id] = deque(maxlen=SAMPLES)
        for connector_id, rates in list(self.rates.items()):
            rates.append(came.get(connector_id, 0.0))
            if connector_id not in came and len(rates) == SAMPLES and not any(rates):
                del self.rates[connector_id]

    def of(self, connector_id: str) -> Sequence[float]:
        """The samples of one connector, oldest first; empty if it has not run lately."""
        return tuple(self.rates.get(connector_id, ()))

    def lately(self, connector_id: str, seconds: int = 5) -> float:
        """Documents per second over the last few seconds."""
        rates = self.of(connector_id)[-seconds:]
        return sum(rates) / len(rates) if rates else 0.0


def sparkline(rates: Sequence[float]) -> Markup:
    """Draw samples as a curve that also says what it shows."""
    if not any(rates):
        return Markup("")
    peak = max(rates)
    # A row that has just begun is drawn as wide as its samples allow, and fills up from the right.
    step = WIDTH / (max(len(rates), SAMPLES_WIDE) - 1)
    begin = WIDTH - step * (len(rates) - 1)
    points = [f"{begin + step * at:.1f},{HEIGHT - 2 - (HEIGHT - 4) * rate / peak:.1f}" for at, rate in enumerate(rates)]
    area = f"M{begin:.1f},{HEIGHT} L{' L'.join(points)} L{WIDTH},{HEIGHT} Z"
    said = f"Documents per second over the last {len(rates)} seconds: now {rates[-1]:,.0f}, at most {peak:,.0f}"
    return element(
        "svg",
        element("path", class_="area", d=area),
        element("polyline", class_="line", points=" ".join(points)),
        class_="spark",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )
