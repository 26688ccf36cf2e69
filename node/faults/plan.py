"""What shall go wrong, as data: rules that match requests, say when they fire, and what then happens.

A plan is written in Python or YAML. Rules are asked in order; every rule that fires takes part, so that an answer can be late
*and* lost. Counting and chance live in `Firing`, so that one plan can be used by many servers at once, each from its own seed.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs

_STATUSES = range(400, 600)


class InvalidPlan(ValueError):
    """A plan that cannot be used; says which rule and why."""


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


@attrs.frozen(kw_only=True)
class Refuse:
    """The connection closes before the request is looked at: nothing happens at the server."""


@attrs.frozen(kw_only=True)
class Status:
    """Answer with an error instead of doing what was asked."""

    status: int
    retry_after_s: float | None = None
    reason: str = "injected fault"


@attrs.frozen(kw_only=True)
class FailItems:
    """Take operations out of a `_bulk` request and answer them with an error; the others are really done."""

    status: int
    share: float = 1.0
    ids: Sequence[str] = ()
    """Only these document ids; empty: any."""
    reason: str = "injected fault"


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


@attrs.frozen(kw_only=True)
class Corrupt:
    """Bytes in the middle of the answer's body are replaced; its length stays."""

    bytes_replaced: int = 4


@attrs.frozen(kw_only=True)
class StaleRead:
    """A GET is answered with what the same GET was answered before, if it was ever asked."""


Effect: TypeAlias = Refuse | Status | FailItems | LoseResponse | CutBody | Delay | Drip | Corrupt | StaleRead

_EFFECTS: Mapping[str, type[Effect]] = {
    "refuse": Refuse,
    "status": Status,
    "fail_items": FailItems,
    "lose_response": LoseResponse,
    "cut_body": CutBody,
    "delay": Delay,
    "drip": Drip,
    "corrupt": Corrupt,
    "stale_read": StaleRead,
}


@attrs.frozen(kw_only=True)
class Rule:
    """One thing that goes wrong. Without conditions it fires at every request that matches."""

    effect: Effect
    match: Match = Match()
    chance: float = 1.0
    """Probability that a matching request is hit."""
    skip: int = 0
    """Let so many matching requests pass first."""
    every: int = 1
    """Then fire at each n-th one."""
    times: int | None = None
    """Fire so often at most; None: for ever."""
    from_s: float = 0.0
    """Fire only from this time on, in seconds since the server started."""
    until_s: float | None = None


@attrs.frozen
class ServerFaultPlan:
    """Rules in the order they are asked."""

    rules: Sequence[Rule] = ()
    seed: int = 0


class Firing:
    """Decides for one server which rules hit a request. Holds counts and a random generator, and does nothing else."""

    def __init__(self, plan: ServerFaultPlan) -> None:
        self._rules = plan.rules
        self.random = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose
        self._seen = [0] * len(plan.rules)
        self.fired = [0] * len(plan.rules)
        """How often each rule has fired, in the order of the plan."""

    def effects(self, method: str, path: str, body: bytes, at_s: float) -> list[Effect]:
        """Return what happens to this request. `at_s`: seconds since the server started."""
        hit: list[Effect] = []
        for number, rule in enumerate(self._rules):
            if at_s < rule.from_s or (rule.until_s is not None and at_s >= rule.until_s):
                continue
            if not rule.match.matches(method, path, body):
                continue
            self._seen[number] += 1
            turn = self._seen[number] - rule.skip
            if turn < 1 or (turn - 1) % rule.every or (rule.times is not None and self.fired[number] >= rule.times):
                continue
            if rule.chance < 1.0 and self.random.random() >= rule.chance:
                continue
            self.fired[number] += 1
            hit.append(rule.effect)
        return hit


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
    _only(content, {"seed", "rules"}, "the plan")
    seed, rules = content.get("seed", 0), content.get("rules")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InvalidPlan(f"seed must be a whole number, not {seed!r}")
    if not isinstance(rules, Sequence) or isinstance(rules, str) or not rules:
        raise InvalidPlan("the plan needs a list `rules` with at least one rule")
    return ServerFaultPlan(rules=tuple(_rule(rule, f"rules[{at}]") for at, rule in enumerate(rules)), seed=seed)


def _rule(content: Any, where: str) -> Rule:
    if not isinstance(content, Mapping):
        raise InvalidPlan(f"{where} must be a map")
    conditions = {attribute.name for attribute in attrs.fields(Rule)} - {"effect", "match"}
    _only(content, {"match", "do", *conditions}, where)
    if "do" not in content:
        raise InvalidPlan(f"{where} needs the key `do`: one of {', '.join(_EFFECTS)}")
    match = _build(Match, content.get("match", {}), f"{where}.match")
    rule: Rule = _build(
        Rule,
        {name: content[name] for name in conditions if name in content},
        where,
        effect=_effect(content["do"], where),
        match=match,
    )
    if not 0 <= rule.chance <= 1:
        raise InvalidPlan(f"{where}.chance must lie between 0 and 1, not {rule.chance!r}")
    if rule.every < 1 or rule.skip < 0:
        raise InvalidPlan(f"{where}: `every` must be at least 1 and `skip` at least 0")
    return rule


def _effect(content: Any, where: str) -> Effect:
    if isinstance(content, str):
        content = {content: {}}
    if not isinstance(content, Mapping) or len(content) != 1:
        raise InvalidPlan(f"{where}.do must name one of {', '.join(_EFFECTS)}")
    ((name, arguments),) = content.items()
    if name not in _EFFECTS:
        raise InvalidPlan(f"{where}.do: unknown effect {name!r}; known are {', '.join(_EFFECTS)}")
    effect: Effect = _build(_EFFECTS[name], arguments or {}, f"{where}.do.{name}")
    if isinstance(effect, Status | FailItems) and effect.status not in _STATUSES:
        raise InvalidPlan(
            f"{where}.do.{name}.status must be an HTTP error status from 400 to 599, not {effect.status!r}"
        )
    return effect


def _build(cls: type[Any], arguments: Any, where: str, **more: Any) -> Any:
    if not isinstance(arguments, Mapping):
        raise InvalidPlan(f"{where} must be a map")
    fields = {attribute.name: attribute for attribute in attrs.fields(attrs.resolve_types(cls))}
    _only(arguments, set(fields) - set(more), where)
    for name, value in arguments.items():
        wanted = str(fields[name].type)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {"float": number, "int": number and float(value).is_integer()}.get(
            wanted.removeprefix("<class '").removesuffix("'>")
        )
        if fits is False or ("float |" in wanted and not (number or value is None)):
            raise InvalidPlan(f"{where}.{name} must be a number, not {value!r}")
    try:
        return cls(**arguments, **more)
    except TypeError as error:
        missing = [
            name
            for name, field in fields.items()
            if field.default is attrs.NOTHING and name not in arguments and name not in more
        ]
        raise InvalidPlan(f"{where} needs {', '.join(missing)}") from error


def _only(content: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in content:
        if name not in known:
            raise InvalidPlan(f"{where}: unknown key {name!r}; known are {', '.join(sorted(known))}")
