"""What shall go wrong on the wire, as data: rules about connections and the bytes on them, for the `FaultProxy`.

A rule is about whole connections, about the places where certain bytes pass, or about a time. Every rule draws its chances from a
generator of its own, which comes from the plan's seed and the rule's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from .conditions import InvalidPlan
from .reading import meant
from .rules import PlacedRule, named, read_placed_rules

POINTS: Final = ("connection", "bytes", "time")
DIRECTIONS: Final = ("both", "request", "response")


@attrs.frozen(kw_only=True)
class Match:
    """What a rule is about."""

    contains: str = ""
    """The rule fires where these bytes pass (UTF-8), and its effect begins behind them. Empty: it fires at each connection."""
    direction: str = "both"
    """Where the bytes flow that are looked at and changed: `request`, `response` or `both`."""
    point: str = ""
    """`connection`, `bytes` or `time`. Empty: `bytes` with `contains`, else where the effect is at home."""

    def __attrs_post_init__(self) -> None:
        for name, value, known in (("point", self.point, ("", *POINTS)), ("direction", self.direction, DIRECTIONS)):
            if value not in known:
                raise InvalidPlan(
                    f"{name} must be one of {', '.join(filter(None, known))}, not {value!r}{meant(value, known)}"
                )
        if self.contains and self.point not in ("", "bytes"):
            raise InvalidPlan(f"`contains` is about bytes, and cannot be used at the point {self.point}")
        if self.point == "bytes" and not self.contains:
            raise InvalidPlan("the point bytes needs `contains`")


def _check_count(name: str, value: int) -> None:
    if value < 0:
        raise InvalidPlan(f"{name} must be at least 0, not {value!r}")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InvalidPlan(f"{name} must be greater than 0, not {value!r}")


@attrs.frozen(kw_only=True)
class Refuse:
    """The connection is reset as soon as it is made; the server never hears of it."""

    points: ClassVar[tuple[str, ...]] = ("connection",)


@attrs.frozen(kw_only=True)
class Cut:
    """Let so many more bytes pass in the direction, and close the connection on both sides."""

    points: ClassVar[tuple[str, ...]] = ("connection", "bytes")
    after_bytes: int = 0

    def __attrs_post_init__(self) -> None:
        _check_count("after_bytes", self.after_bytes)


@attrs.frozen(kw_only=True)
class Drip:
    """From here on bytes pass only this slowly (slow-loris)."""

    points: ClassVar[tuple[str, ...]] = ("connection", "bytes")
    bytes_per_second: float

    def __attrs_post_init__(self) -> None:
        _check_positive("bytes_per_second", self.bytes_per_second)


@attrs.frozen(kw_only=True)
class Corrupt:
    """Replace bytes by others that are drawn; the length stays."""

    points: ClassVar[tuple[str, ...]] = ("connection", "bytes")
    after_bytes: int = 0
    bytes_replaced: int = 4

    def __attrs_post_init__(self) -> None:
        _check_count("after_bytes", self.after_bytes)
        _check_positive("bytes_replaced", self.bytes_replaced)


@attrs.frozen(kw_only=True)
class Stall:
    """After so many more bytes nothing passes any more, and the connection stays open until one side leaves."""

    points: ClassVar[tuple[str, ...]] = ("connection", "bytes")
    after_bytes: int = 0

    def __attrs_post_init__(self) -> None:
        _check_count("after_bytes", self.after_bytes)


@attrs.frozen(kw_only=True)
class Delay:
    """The next bytes wait once, so long."""

    points: ClassVar[tuple[str, ...]] = ("connection", "bytes")
    seconds: float

    def __attrs_post_init__(self) -> None:
        _check_positive("seconds", self.seconds)


@attrs.frozen(kw_only=True)
class LoseResponse:
    """The request passes, and the connection is closed when the server begins to answer: what was asked is done."""

    points: ClassVar[tuple[str, ...]] = ("connection", "bytes")


@attrs.frozen(kw_only=True)
class Restart:
    """Drop all connections and refuse new ones for a while, as a server does that is started again."""

    points: ClassVar[tuple[str, ...]] = ("time", "connection", "bytes")
    down_s: float

    def __attrs_post_init__(self) -> None:
        _check_positive("down_s", self.down_s)


Effect: TypeAlias = Refuse | Cut | Drip | Corrupt | Stall | Delay | LoseResponse | Restart

EFFECTS: Final[Mapping[str, type[Any]]] = {
    "refuse": Refuse,
    "cut": Cut,
    "drip": Drip,
    "corrupt": Corrupt,
    "stall": Stall,
    "delay": Delay,
    "lose_response": LoseResponse,
    "restart": Restart,
}


@attrs.frozen(kw_only=True)
class Rule(PlacedRule):
    """One thing that goes wrong. Raises `InvalidPlan` if its effect cannot happen at its point."""

    effects = EFFECTS
    effect: Effect
    match: Match = Match()

    @property
    def point(self) -> str:
        """Where it fires: at the bytes that are looked for, if there are any."""
        return self.match.point or ("bytes" if self.match.contains else self.effect.points[0])


@attrs.frozen
class NetworkFaultPlan:
    """Rules for the connections to one server. All that fire take part: a connection may be slow *and* cut."""

    rules: Sequence[Rule] = ()
    seed: int = 0

    def named(self) -> tuple[Rule, ...]:
        """The rules, each with a name."""
        return named(self.rules)


def read_network_plan(content: Any) -> NetworkFaultPlan:
    """Read a plan from plain data, as YAML gives it.

        seed: 7
        rules:
          - {chance: 0.1, match: {direction: response}, do: {cut: {after_bytes: 200}}}
          - {match: {contains: "POST /books/_bulk"}, every: 5, do: lose_response}
          - {from_s: 60, every_s: 300, do: {restart: {down_s: 10}}}

    Raises `InvalidPlan` naming the rule and the key.
    """
    rules, seed = read_placed_rules(content, Rule, Match)
    return NetworkFaultPlan(rules, seed)
