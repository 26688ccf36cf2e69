"""Reading rules of fault plans from plain data, as YAML gives it: one way for all kinds of rules.

    - {match: {path: "*/_bulk"}, chance: 0.2, do: {status: {status: 429}}}
    - {match: {actor: "*/keeper"}, every: 10, do: crash}

A rule is `match` (about what), `do` (what then happens), and conditions (when).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from .conditions import InvalidPlan

R = TypeVar("R", bound=attrs.AttrsInstance)

NUMBER_MAX = 1e15
"""Larger ones, and what is not a number at all, mean nothing as a time, a size or a count."""


def read_seed(content: Mapping[str, Any]) -> int:
    """Return the plan's seed, 0 if it names none. Raises `InvalidPlan`."""
    seed = content.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InvalidPlan(f"seed must be a whole number, not {seed!r}")
    return seed


def read_rules(
    content: Any, key: str, rule_class: type[R], match_class: type[Any], effects: Mapping[str, type[Any]]
) -> tuple[R, ...]:
    """Read a list of rules. `key` names the list in complaints. Raises `InvalidPlan` naming the rule and the key."""
    if not isinstance(content, Sequence) or isinstance(content, str) or not content:
        raise InvalidPlan(f"the plan needs a list `{key}` with at least one rule")
    return tuple(_rule(rule, f"{key}[{at}]", rule_class, match_class, effects) for at, rule in enumerate(content))


def only(content: Mapping[str, Any], known: set[str], where: str) -> None:
    """Raise `InvalidPlan` for a key that nobody knows."""
    for name in content:
        if name not in known:
            raise InvalidPlan(f"{where}: unknown key {name!r}{nearest(name, known)}")


def nearest(word: Any, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or else which there are."""
    return meant(word, known) or f"; known are {', '.join(sorted(known))}"


def meant(word: Any, known: Iterable[str]) -> str:
    """Say which known word was probably meant; nothing if none is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _rule(content: Any, where: str, rule_class: type[R], match_class: type[Any], effects: Mapping[str, type[Any]]) -> R:
    if not isinstance(content, Mapping):
        raise InvalidPlan(f"{where} must be a map")
    conditions = {attribute.name for attribute in attrs.fields(rule_class)} - {"effect", "match"}
    only(content, {"match", "do", *conditions}, where)
    if "do" not in content:
        raise InvalidPlan(f"{where} needs the key `do`: one of {', '.join(effects)}")
    match = _build(match_class, content.get("match", {}), f"{where}.match")
    given = {name: content[name] for name in conditions if name in content}
    rule: R = _build(rule_class, given, where, effect=_effect(content["do"], where, effects), match=match)
    return rule


def _effect(content: Any, where: str, effects: Mapping[str, type[Any]]) -> Any:
    if isinstance(content, str):
        content = {content: {}}
    if not isinstance(content, Mapping) or len(content) != 1:
        raise InvalidPlan(f"{where}.do must name one of {', '.join(effects)}")
    ((name, arguments),) = content.items()
    if name not in effects:
        raise InvalidPlan(f"{where}.do: unknown effect {name!r}{nearest(name, effects)}")
    return _build(effects[name], arguments or {}, f"{where}.do.{name}")


def _build(cls: type[Any], arguments: Any, where: str, **more: Any) -> Any:
    if not isinstance(arguments, Mapping):
        raise InvalidPlan(f"{where} must be a map")
    fields = {
        attribute.name: attribute
        for attribute in attrs.fields(attrs.resolve_types(cls))
        if not attribute.metadata.get("python_only")
    }
    only(arguments, set(fields) - set(more), where)
    for name, value in arguments.items():
        _assert_type(fields[name].type, value, f"{where}.{name}")
    try:
        return cls(**arguments, **more)
    except InvalidPlan as problem:
        raise InvalidPlan(f"{where}: {problem}") from None
    except TypeError as error:
        missing = [
            name
            for name, field in fields.items()
            if field.default is attrs.NOTHING and name not in arguments and name not in more
        ]
        raise InvalidPlan(f"{where} needs {', '.join(missing)}") from error


def _assert_type(wanted: Any, value: Any, where: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not abs(value) <= NUMBER_MAX:
        raise InvalidPlan(f"{where} must be a number of at most {NUMBER_MAX:g}")
    whole = number and float(value).is_integer()
    optional = value is None and wanted in (float | None, int | None)
    fits = {float: number, float | None: number, int: whole, int | None: whole}.get(wanted)
    if fits is False and not optional:
        raise InvalidPlan(f"{where} must be a number, not {value!r}")
    if wanted is str and not isinstance(value, str):
        raise InvalidPlan(f"{where} must be a text, not {value!r}")
    if wanted is bool and not isinstance(value, bool):
        raise InvalidPlan(f"{where} must be true or false, not {value!r}")
    if wanted == Sequence[str] and (isinstance(value, str) or not _are_texts(value)):
        raise InvalidPlan(f"{where} must be a list of texts, not {value!r}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(one, str) for one in value)
