"""What shall go wrong, as data: rules that match requests, say when they fire, and what then happens.

A plan is written in Python or YAML. Rules are asked in order; every rule that fires takes part, so that an answer can be late
*and* lost. Counting and chance live in `Firing`, so that one plan can be used by many servers at once, each from its own seed.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from ...runtime.faults import Conditions, InvalidPlan, Turns, meant, only, read_rules, read_seed

_STATUSES: Final = range(400, 600)
LOSSES: Final = ("nothing", "contexts", "unsaved")


@attrs.frozen(kw_only=True)
class Match:
    """Which requests a rule is about."""

    path: str = "*"
    """Shell pattern for the path without its query, e.g. `*/_bulk`."""
    method: str = "*"
    body_contains: str = ""
    """Only requests whose body holds this text."""

    def matches(self, method: str, path: str, body: bytes) -> bool:
        """Say whether the rule is about this request."""
        return (
            fnmatch.fnmatchcase(path, self.path)
            and self.method in ("*", method)
            and (not self.body_contains or self.body_contains.encode() in body)
        )


def _check_status(status: int) -> None:
    if status not in _STATUSES:
        raise InvalidPlan(f"status must be an HTTP error status from 400 to 599, not {status!r}")


@attrs.frozen(kw_only=True)
class Refuse:
    """The connection closes before the request is looked at: nothing happens at the server."""


@attrs.frozen(kw_only=True)
class Status:
    """Answer with an error instead of doing what was asked."""

    status: int
    retry_after_s: float | None = None
    reason: str = "injected fault"

    def __attrs_post_init__(self) -> None:
        _check_status(self.status)


@attrs.frozen(kw_only=True)
class FailItems:
    """Take operations out of a `_bulk` request and answer them with an error; the others are really done."""

    status: int
    share: float = 1.0
    ids: Sequence[str] = ()
    """Only these document ids; empty: any."""
    reason: str = "injected fault"

    def __attrs_post_init__(self) -> None:
        _check_status(self.status)


@attrs.frozen(kw_only=True)
class LoseResponse:
    """The request is really done, and the connection closes before the answer."""


@attrs.frozen(kw_only=True)
class CutBody:
    """The request is really done; the connection closes after so many bytes of the answer's body."""

    after_bytes: int = 1


@attrs.frozen(kw_only=True)
class Delay:
    """The request waits so long before it is looked at."""

    seconds: float


@attrs.frozen(kw_only=True)
class Drip:
    """The answer comes in small pieces, this slowly."""

    bytes_per_second: float

    def __attrs_post_init__(self) -> None:
        if not self.bytes_per_second > 0:
            raise InvalidPlan(f"bytes_per_second must be greater than 0, not {self.bytes_per_second!r}")


@attrs.frozen(kw_only=True)
class Corrupt:
    """Bytes in the middle of the answer's body are replaced; its length stays."""

    bytes_replaced: int = 4


@attrs.frozen(kw_only=True)
class StaleRead:
    """A GET is answered with what the same GET was answered before, if it was ever asked."""


@attrs.frozen(kw_only=True)
class Restart:
    """The server goes away with this request and comes back after a while. All its connections are dropped, and new ones refused.

    Begins with a request that matches; until the server is back, no rule counts anything.
    """

    down_s: float
    loses: str = "contexts"
    """`contexts`: open points in time and scrolls, as every Elasticsearch does. `unsaved`: also what is not on disk, which is
    everything in a node without a data folder. `nothing`: the network was away, not the server."""

    def __attrs_post_init__(self) -> None:
        if not self.down_s > 0:
            raise InvalidPlan(f"down_s must be greater than 0, not {self.down_s!r}")
        if self.loses not in LOSSES:
            raise InvalidPlan(
                f"loses must be one of {', '.join(LOSSES)}, not {self.loses!r}{meant(self.loses, LOSSES)}"
            )


Effect: TypeAlias = Refuse | Status | FailItems | LoseResponse | CutBody | Delay | Drip | Corrupt | StaleRead | Restart

EFFECTS: Final[Mapping[str, type[Any]]] = {
    "refuse": Refuse,
    "status": Status,
    "fail_items": FailItems,
    "lose_response": LoseResponse,
    "cut_body": CutBody,
    "delay": Delay,
    "drip": Drip,
    "corrupt": Corrupt,
    "stale_read": StaleRead,
    "restart": Restart,
}


@attrs.frozen(kw_only=True)
class Rule(Conditions):
    """One thing that goes wrong. Without conditions it fires at every request that matches."""

    effect: Effect
    match: Match = Match()


@attrs.frozen
class ServerFaultPlan:
    """Rules in the order they are asked."""

    rules: Sequence[Rule] = ()
    seed: int = 0


class Firing:
    """Decides for one server which rules hit a request. Holds counts and a random generator, and does nothing else."""

    def __init__(self, plan: ServerFaultPlan) -> None:
        self._turns = [(rule, Turns(rule)) for rule in plan.rules]
        self.random = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose

    @property
    def fired(self) -> list[int]:
        """How often each rule has fired, in the order of the plan."""
        return [turns.fired for _, turns in self._turns]

    def effects(self, method: str, path: str, body: bytes, at_s: float) -> list[Effect]:
        """Return what happens to this request. `at_s`: seconds since the server started."""
        return [
            rule.effect
            for rule, turns in self._turns
            if rule.holds_at(at_s) and rule.match.matches(method, path, body) and turns.comes(self.random)
        ]


def read_plan(content: Any) -> ServerFaultPlan:
    """Read a plan from plain data, as YAML gives it.

        seed: 7
        rules:
          - {match: {path: "*/_bulk"}, chance: 0.2, do: {status: {status: 429, retry_after_s: 1}}}
          - {match: {path: "*/_bulk"}, every: 10, do: lose_response}

    Raises `InvalidPlan` naming the rule and the key.
    """
    if not isinstance(content, Mapping):
        raise InvalidPlan("a fault plan is a map with the keys `seed` and `rules`")
    only(content, {"seed", "rules"}, "the plan")
    return ServerFaultPlan(read_rules(content.get("rules"), "rules", Rule, Match, EFFECTS), read_seed(content))
