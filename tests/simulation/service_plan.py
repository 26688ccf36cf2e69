"""What happens in one simulation of the whole service, as data: drawn from a seed, replayed, and made smaller by the shrinker.

A plan is a setup that stays, and a list of mishaps that may each be left out: faults of the server for a while, faults of a
connector's source for good, and single events. First the rates are drawn (which kinds there are at all, and how often), then
the mishaps at these rates.
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
    Status,
)
from callboard.runtime import FaultPlan
from callboard.runtime import faults as inside

_CONTENT = Match(path="/shelf-*/_bulk")

SERVER_FAULTS: Mapping[str, tuple[Match, Effect, float]] = {
    "server busy": (_CONTENT, Status(status=429, retry_after_s=1), 0.5),
    "request too large": (_CONTENT, Status(status=413), 0.6),
    "server unavailable": (Match(), Status(status=503), 0.15),
    "server away": (Match(), Refuse(), 1.0),
    "items busy": (_CONTENT, FailItems(status=429, share=0.4), 0.6),
    "answer lost": (Match(), LoseResponse(), 0.15),
    "bulk answer lost": (_CONTENT, LoseResponse(), 0.5),
    "connection refused": (Match(), Refuse(), 0.2),
    "answer cut": (Match(), CutBody(after_bytes=10), 0.08),
    "answer corrupt": (Match(), Corrupt(), 0.03),
    "server slow": (Match(), Delay(seconds=2), 0.2),
    "server restarts": (Match(), Restart(down_s=1), 1.0),
}
"""Name -> where, what, and the highest chance per request that is drawn."""
_ANY, _KEEPER, _JOB = inside.Match(point="handler"), inside.Match(actor="keeper"), inside.Match(actor="job-*")
ACTOR_FAULTS: Mapping[str, tuple[inside.Match, inside.Effect, float]] = {
    "handler crashes": (_ANY, inside.Crash(), 0.4),
    "handler crashes afterwards": (_ANY, inside.Crash(when="after"), 0.4),
    "handler late": (_ANY, inside.Delay(seconds=8), 0.6),
    "handler stalls": (_ANY, inside.Stall(), 0.3),
    "keeper cannot start": (inside.Match(actor="keeper", point="start"), inside.Crash(), 0.5),
    "job cannot start": (inside.Match(actor="job-*", point="start"), inside.Crash(), 0.5),
    "job crashes at its end": (inside.Match(actor="job-*", point="start"), inside.Crash(when="after"), 0.5),
    "part of the service crashes": (inside.Match(actor="[sj]*", point="start"), inside.Crash(), 0.3),
    "keeper canceled": (_KEEPER, inside.Cancel(at_checkpoint=5), 0.6),
    "job torn off": (_JOB, inside.Cancel(at_checkpoint=60), 0.5),
    "batch late": (inside.Match(stream="*", point="send"), inside.Delay(seconds=4), 0.4),
    "batch crashes": (inside.Match(stream="*", point="send"), inside.Crash(), 0.6),
    "message lost": (inside.Match(point="mailbox"), inside.Drop(), 0.6),
    "mailbox full": (inside.Match(point="mailbox"), inside.Fill(), 0.6),
    "memory exhausted": (inside.Match(point="budget"), inside.Exhaust(seconds=6), 0.3),
}
"""Name -> where in every service, what, and the highest chance that is drawn."""
SOURCE_FAULTS: Mapping[str, float] = {
    "listing breaks": 0.4,
    "naming breaks": 0.2,
    "item fails": 0.3,
    "id named twice": 0.6,
    "changes during the scan": 0.5,
    "slow source": 0.7,
    "empty pages": 0.6,
    "named again at the end": 0.5,
    "huge document": 0.4,
    "download fails": 0.5,
    "download broken for good": 0.2,
    "slow download": 0.4,
}
EVENTS: Mapping[str, float] = {
    "kill": 4.0,
    "stop": 3.0,
    "cut off": 2.0,
    "source down": 2.0,
    "source defect": 1.5,
    "source shrinks": 2.0,
    "corpus changes": 6.0,
    "job requested": 5.0,
    "access job requested": 3.0,
    "cancel requested": 4.0,
    "schedule changes": 2.0,
    "clock jumps": 3.0,
    "deletions confirmed": 2.0,
    "foreign write": 1.5,
    "look now": 2.0,
    "incremental job requested": 3.0,
    "connector created": 1.5,
    "connector deleted": 1.0,
}
"""Name -> how many of them a run has at most, on average."""


@attrs.frozen
class Mishap:
    """One thing that happens. What its numbers mean depends on the kind."""

    kind: str
    at_s: float = 0.0
    target: int = 0
    """Which service or connector, counted round."""
    amount: float = 0.0
    """A chance, or seconds."""
    until_s: float = 0.0

    def __str__(self) -> str:
        until = f" until {self.until_s:.1f} s" if self.until_s else ""
        return f"{self.kind} at {self.at_s:.1f} s{until}, target {self.target}, amount {self.amount:.3g}"


@attrs.frozen
class ConnectorSetup:
    """One connector and its source, before anything happens."""

    parts: tuple[int, ...]
    """Documents per partition."""
    every_minutes: int | None
    """Its full syncs are scheduled at each so-manieth minute of the hour; None: not scheduled."""
    second: int
    is_restricted: bool
    """Documents name their readers, and there are access-control syncs."""
    page_documents: int
    page_delay_s: float
    files: float = 0.0
    """Share of the documents that come with a file."""


@attrs.frozen
class Setup:
    """What stays, whatever is left out of a plan."""

    horizon_s: float
    services: int
    is_one_machine: bool
    """A service can see that another one's process has gone."""
    connectors: tuple[ConnectorSetup, ...]
    latency_s: float
    slots: int
    catches_up: bool
    spares: tuple[ConnectorSetup, ...] = ()
    """Connectors that somebody makes during the run."""
    queue_size_bytes: int = 4000
    """Memory for what is on its way from a source to the server, in each job."""
    download_memory_size_bytes: int = 6000

    @property
    def memory_bytes(self) -> int:
        """What all jobs of a service share."""
        return self.queue_size_bytes + self.download_memory_size_bytes


@attrs.frozen
class Plan:
    """Everything about one run. The same plan is the same run."""

    seed: int
    setup: Setup
    rates: Mapping[str, float]
    mishaps: tuple[Mishap, ...]

    def server_faults(self) -> tuple[list[str], ServerFaultPlan]:
        """The names of the server's faults, and the rules that bring them."""
        faults = [one for one in self.mishaps if one.kind in SERVER_FAULTS]
        return [one.kind for one in faults], ServerFaultPlan([_server_rule(one) for one in faults], self.seed)

    def actor_faults(self, started_s: float, life: str) -> FaultPlan | None:
        """The rules for one life of a service, whose time begins when it starts; None if nothing goes wrong inside of it."""
        rules = []
        for number, one in enumerate(self.mishaps):
            if one.kind not in ACTOR_FAULTS or one.until_s <= started_s:
                continue
            match, effect, _ = ACTOR_FAULTS[one.kind]
            from_s, until_s = max(0.0, one.at_s - started_s), one.until_s - started_s
            name = f"{one.kind}/{number}"
            rules.append(
                inside.Rule(effect=effect, match=match, chance=one.amount, from_s=from_s, until_s=until_s, name=name)
            )
            if one.kind == "handler stalls":
                # Nothing but a cancellation ends it, as a supervisor of the machine would order.
                ends = inside.Match(actor="keeper", point="time")
                rules.append(
                    inside.Rule(
                        effect=inside.Cancel(), match=ends, from_s=until_s + 1, name=f"stalled keeper canceled/{number}"
                    )
                )
        return FaultPlan(rules, random.Random(f"{self.seed} {life}").getrandbits(32)) if rules else None

    def source_faults(self, connector: int) -> dict[str, float]:
        """Kind -> chance per attempt, for one connector."""
        return {one.kind: one.amount for one in self.mishaps if one.kind in SOURCE_FAULTS and one.target == connector}

    def events(self) -> list[Mishap]:
        """The single events, earliest first."""
        return sorted((one for one in self.mishaps if one.kind in EVENTS), key=lambda one: one.at_s)

    def shown(self) -> str:
        """For people: the setup, the rates, and every mishap."""
        rates = ", ".join(f"{name} {rate:.2f}" for name, rate in self.rates.items()) or "none"
        mishaps = "\n".join(f"  {one}" for one in sorted(self.mishaps, key=lambda one: one.at_s)) or "  nothing happens"
        return f"  setup: {self.setup}\n  rates: {rates}\n{mishaps}"


def _server_rule(one: Mishap) -> Rule:
    match, effect, _ = SERVER_FAULTS[one.kind]
    if isinstance(effect, Restart):
        return Rule(effect=Restart(down_s=one.until_s - one.at_s), match=match, times=1, from_s=one.at_s)
    return Rule(effect=effect, match=match, chance=one.amount, from_s=one.at_s, until_s=one.until_s)


def draw_plan(seed: int) -> Plan:
    """Draw which kinds of mishaps there are and how often, then the mishaps."""
    rng = random.Random(f"service {seed}")
    setup = _draw_setup(rng)
    mishaps: list[Mishap] = []
    rates: dict[str, float] = {}
    share = rng.choice([0.0, 0.15, 0.3, 0.5])
    for name, (_, _, highest) in SERVER_FAULTS.items():
        if rng.random() < share:
            is_away = name in ("server away", "server restarts")
            chance = highest if is_away else highest * (0.1 + 0.9 * rng.random())
            rates[name] = round(chance, 3)
            for _ in range(rng.randint(1, 2)):
                at_s = rng.uniform(0, setup.horizon_s)
                until_s = at_s + (rng.uniform(5, 150) if is_away else rng.uniform(20, 200))
                mishaps.append(Mishap(name, at_s, 0, chance, min(until_s, setup.horizon_s)))
    share = rng.choice([0.0, 0.25, 0.5])
    for name, highest in SOURCE_FAULTS.items():
        if rng.random() < share:
            rates[name] = round(highest * (0.1 + 0.9 * rng.random()), 3)
            everybody = range(len(setup.connectors) + len(setup.spares))
            mishaps += [Mishap(name, 0.0, number, rates[name]) for number in everybody]
    share = rng.choice([0.0, 0.0, 0.12, 0.25])
    for name, (_, _, highest) in ACTOR_FAULTS.items():
        if rng.random() < share:
            rates[name] = round(highest * (0.1 + 0.9 * rng.random()), 3)
            at_s = rng.uniform(0, setup.horizon_s - 20)
            mishaps.append(Mishap(name, at_s, 0, rates[name], min(at_s + rng.uniform(15, 120), setup.horizon_s - 3)))
    for name, most in EVENTS.items():
        if rng.random() < 0.5:
            rates[name] = round(most * rng.random(), 2)
            for _ in range(round(rng.random() * 2 * rates[name])):
                mishaps.append(_draw_event(rng, name, setup))
    return Plan(seed, setup, rates, tuple(mishaps))


def _draw_connector(rng: random.Random) -> ConnectorSetup:
    return ConnectorSetup(
        parts=tuple(rng.randint(2, 10) for _ in range(rng.randint(1, 2))),
        every_minutes=rng.choice([None, 1, 2, 3]),
        second=rng.randrange(60),
        is_restricted=rng.random() < 0.35,
        page_documents=rng.randint(2, 6),
        page_delay_s=10 ** rng.uniform(-1, 0.9),
        files=rng.choice([0.0, 0.0, 0.3]),
    )


def _draw_setup(rng: random.Random) -> Setup:
    connectors = tuple(_draw_connector(rng) for _ in range(rng.randint(1, 3)))
    return Setup(
        horizon_s=rng.choice([90.0, 150.0, 240.0]),
        services=rng.choice([1, 2, 2, 3]),
        is_one_machine=rng.random() < 0.5,
        connectors=connectors,
        latency_s=rng.choice([0.0, 0.02, 0.2]),
        slots=rng.choice([1, 1, 2]),
        catches_up=rng.random() < 0.7,
        spares=tuple(_draw_connector(rng) for _ in range(2)),
        queue_size_bytes=rng.choice([700, 4000, 60_000]),
        download_memory_size_bytes=rng.choice([2500, 9000, 60_000]),
    )


def _draw_event(rng: random.Random, kind: str, setup: Setup) -> Mishap:
    at_s = rng.uniform(1, setup.horizon_s)
    target = rng.randrange(60)
    match kind:
        case "kill" | "stop":
            amount = rng.choice([0.5, 5.0, 40.0, 120.0])
        case "cut off":
            amount = rng.uniform(1, 25)
        case "source down":
            amount = rng.uniform(5, 90)
        case "clock jumps":
            amount = rng.uniform(-90, 90)
        case "schedule changes":
            amount = rng.choice([0, 1, 2, 4])
        case _:
            amount = rng.random()
    return Mishap(kind, at_s, target, amount)
