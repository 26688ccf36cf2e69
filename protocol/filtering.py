"""Basic sync rules: which documents are kept, decided by the first rule that matches.

Compiled once for a job and applied to batches. A rule looks at one top-level field; absent and null fields match nothing, and a
document that no rule matches is kept. The rule's value is text; what it is compared as depends on the document's value:

    boolean    the words true, t, yes, y, on and false, f, no, n, off
    number     a number
    date       a date; without an offset it is in UTC
    text       for equals the text itself or the same instant; for < and > dates, else numbers, else texts
    list       matches if one of its values does

Values that cannot be compared do not match; nothing in a document makes a rule fail.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, TypeVar

import attrs

from .documents import Rule, Rules, Validation, ValidationError, ValidationState
from .wire import JSON, kind_of

ADVANCED_SNIPPET: Final = "advanced_snippet"
"""The id under which complaints about advanced rules are reported."""

_TRUE: Final = frozenset({"true", "t", "yes", "y", "on"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "off"})
_MATCH_ALL: Final = frozenset({".*", "(.*)"})
_DATE_START: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

Fields = TypeVar("Fields", bound=Mapping[str, Any])
Matcher = Callable[[Any], bool]


class Policy(StrEnum):
    INCLUDE = "include"
    EXCLUDE = "exclude"


class Operator(StrEnum):
    EQUALS = "equals"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    REGEX = "regex"
    LESS = "<"
    GREATER = ">"


REGEX_SECONDS_MAX: Final = 0.25
"""One regular expression may work so long on one value."""


class SlowExpression(ValueError):
    """A regular expression took too long on a value of a document."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        super().__init__(
            f"The regular expression {expression} of a sync rule took more than {REGEX_SECONDS_MAX:g} s on one value. "
            "Write it without repetitions inside repetitions."
        )


class InvalidRules(ValueError):
    """The sync rules of a job cannot be used. `validation` holds the complaints as they are stored."""

    def __init__(self, validation: Validation) -> None:
        self.validation = validation
        listed = "; ".join(f"{', '.join(error.ids)}: {', '.join(error.messages)}" for error in validation.errors)
        super().__init__(f"The sync rules cannot be used: {listed}. Correct the draft and activate it.")


@attrs.frozen
class _Test:
    field: str
    matches: Matcher
    keeps: bool


@attrs.frozen
class CompiledRules:
    """Sync rules, ready for many documents. Made by `compile_rules`."""

    _tests: tuple[_Test, ...]

    @property
    def keeps_everything(self) -> bool:
        """No rule can drop anything, so that nothing needs to be looked at."""
        return all(test.keeps for test in self._tests)

    def keeps(self, fields: Mapping[str, Any]) -> bool:
        """Tell whether a document with these fields is kept."""
        return self.decide((fields,))[0]

    def keep(self, documents: Sequence[Fields]) -> list[Fields]:
        """Return those of a batch that are kept, in their order."""
        if self.keeps_everything:
            return list(documents)
        return [document for document, kept in zip(documents, self.decide(documents), strict=True) if kept]

    def decide(self, documents: Iterable[Mapping[str, Any]]) -> list[bool]:
        """Tell for each document of a batch whether it is kept."""
        tests = [(test.field, test.matches, test.keeps) for test in self._tests]
        decisions: list[bool] = []
        decided = decisions.append
        for document in documents:
            for field, matches, keeps in tests:
                value = document.get(field)
                if value is not None and matches(value):
                    decided(keeps)
                    break
            else:
                decided(True)
        return decisions


def compile_rules(rules: Rules | Iterable[Rule]) -> CompiledRules:
    """Prepare rules for use, in the order of their `order`; the default rule, which keeps everything, is left out.

    Raises `InvalidRules` for rules that `validate_rules` complains about.
    """
    listed = rules.rules if isinstance(rules, Rules) else tuple(rules)
    validation = validate_rules(listed)
    if validation.state is not ValidationState.VALID:
        raise InvalidRules(validation)
    ordered = sorted((rule for rule in listed if not rule.is_default), key=lambda rule: rule.order)
    tests = [_Test(rule.field, _matcher(rule), str(rule.policy).lower() == Policy.INCLUDE) for rule in ordered]
    # What is kept anyway, since no rule matches, needs no rule at the end that keeps it.
    while tests and tests[-1].keeps:
        tests.pop()
    return CompiledRules(tuple(tests))


def validate_rules(
    rules: Rules | Iterable[Rule], advanced_problems: Iterable[tuple[Sequence[str], str]] = ()
) -> Validation:
    """Check rules and return the validation as it is stored: the state, and complaints with the rules' ids.

    Of a whole set the advanced snippet is checked as well. `advanced_problems` are the source's complaints about it, as ids and
    message.
    """
    listed = rules.rules if isinstance(rules, Rules) else tuple(rules)
    errors = [error for position, rule in enumerate(listed) for error in _complaints(position, rule)]
    errors += _doubles(listed)
    if isinstance(rules, Rules) and not isinstance(rules.advanced_snippet.value, Mapping | list | None):
        kind = kind_of(rules.advanced_snippet.value)
        errors.append(_error([ADVANCED_SNIPPET], f"Advanced rules must be an object or a list, but are {kind}."))
    errors += [_error(list(ids) or [ADVANCED_SNIPPET], message) for ids, message in advanced_problems]
    state = ValidationState.INVALID if errors else ValidationState.VALID
    return Validation(state=state, errors=tuple(errors))


def _error(ids: Sequence[str], message: str) -> ValidationError:
    return ValidationError(ids=tuple(ids), messages=(message,))


def _complaints(position: int, rule: Rule) -> Iterable[ValidationError]:
    if rule.is_default:
        # It is never evaluated, so that nothing in it can be wrong.
        return
    name = rule.id if isinstance(rule.id, str) and rule.id else f"rule {position + 1}"
    messages = [
        f"The {what} of a rule must be a text that is not empty, but is {kind_of(value)}."
        for what, value in (("id", rule.id), ("field", rule.field), ("value", rule.value))
        if not (isinstance(value, str) and value)
    ]
    messages += [
        f"The {what} of a rule must be one of {', '.join(kinds)}."
        for what, value, kinds in (("policy", rule.policy, Policy), ("operator", rule.rule, Operator))
        if not (isinstance(value, str) and value.lower() in list(kinds))
    ]
    if isinstance(rule.order, bool) or not isinstance(rule.order, int | float) or not math.isfinite(rule.order):
        messages.append(f"The order of a rule must be a number, but is {kind_of(rule.order)}.")
    if not messages and str(rule.rule).lower() == Operator.REGEX:
        if rule.value in _MATCH_ALL:
            messages.append(f"The regular expression {rule.value} matches everything; only the default rule may do so.")
        else:
            messages += _regex_complaints(rule.value)
    if messages:
        yield ValidationError(ids=(name,), messages=tuple(messages))


def _bounded(expression: str) -> Callable[[str], bool]:
    """Match an expression at the start of a text. One that backtracks for ever must not hold up everything else."""
    import regex

    match = regex.compile(expression).match

    def matches(text: str) -> bool:
        try:
            return match(text, timeout=REGEX_SECONDS_MAX) is not None
        except TimeoutError:
            raise SlowExpression(expression) from None

    return matches


def _regex_complaints(pattern: str) -> list[str]:
    import regex

    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as reason:
        return [f"The regular expression {pattern} is not valid: {reason}."]
    return []


def _doubles(rules: Sequence[Rule]) -> list[ValidationError]:
    """Rules that test the same are contradictory or useless, whatever their policies are: all of them are named."""
    same: dict[tuple[str, str, str], list[str]] = {}
    for rule in rules:
        if all(isinstance(part, str) for part in (rule.id, rule.field, rule.rule, rule.value)):
            same.setdefault((rule.field, rule.rule.lower(), rule.value), []).append(rule.id)
    return [
        _error(ids, f"Several rules test whether {field} {operator} {value}. Keep one of them.")
        for (field, operator, value), ids in same.items()
        if len(ids) > 1
    ]


# Matchers: one closure for each rule, with everything about the rule's value worked out beforehand.


def _matcher(rule: Rule) -> Matcher:
    wanted = _Wanted.of(rule.value)
    match Operator(str(rule.rule).lower()):
        case Operator.EQUALS:
            return _equals(wanted)
        case Operator.LESS:
            return _compares(wanted, lambda found, limit: bool(found < limit))
        case Operator.GREATER:
            return _compares(wanted, lambda found, limit: bool(found > limit))
        case Operator.REGEX:
            return _on_text(_bounded(rule.value))
        case Operator.CONTAINS:
            part = rule.value
            return _on_text(lambda text: part in text)
        case Operator.STARTS_WITH:
            start = rule.value
            return _on_text(lambda text: text.startswith(start))
        case Operator.ENDS_WITH:
            end = rule.value
            return _on_text(lambda text: text.endswith(end))


@attrs.frozen
class _Wanted:
    """The value of a rule as everything that it can be."""

    text: str
    truth: bool | None
    number: int | Decimal | None
    approximate: float | None
    """The number for comparing with floats: 0.1 as text is the float 0.1, which is not a tenth."""
    moment: datetime | None

    @classmethod
    def of(cls, text: str) -> _Wanted:
        word = text.strip().lower()
        truth = True if word in _TRUE else False if word in _FALSE else None
        number = _number(text)
        return cls(text, truth, number, _as_float(number), _moment(text))


def _number(text: str) -> int | Decimal | None:
    if len(text) > 40 or "_" in text:
        return None
    # Not through float: ids of 18 digits differ in the last one.
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _as_float(number: int | Decimal | None) -> float | None:
    try:
        return None if number is None else float(number)
    except OverflowError:
        return None


def _moment(value: Any) -> datetime | None:
    moment: datetime
    if isinstance(value, str):
        if not _DATE_START.match(value):
            return None
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    else:
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    # Moments are compared as they are: at the edges of the calendar there is no converting to UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _equals(wanted: _Wanted) -> Matcher:
    text, truth, moment = wanted.text, wanted.truth, wanted.moment
    number, approximate = wanted.number, wanted.approximate

    def equals(value: Any) -> bool:
        if value.__class__ is str:
            return value == text or (moment is not None and _moment(value) == moment)
        if isinstance(value, bool):
            return value is truth
        if isinstance(value, float):
            return approximate is not None and value == approximate
        if isinstance(value, int | Decimal):
            return number is not None and _safely(lambda: value == number)
        if isinstance(value, date):
            return moment is not None and _moment(value) == moment
        if isinstance(value, list | tuple | set | frozenset):
            return any(item is not None and equals(item) for item in value)
        return _text(value) == text

    return equals


def _compares(wanted: _Wanted, holds: Callable[[Any, Any], bool]) -> Matcher:
    text, truth, moment = wanted.text, wanted.truth, wanted.moment
    number, approximate = wanted.number, wanted.approximate

    def compares(value: Any) -> bool:
        if isinstance(value, bool):
            return truth is not None and holds(value, truth)
        if isinstance(value, float):
            return approximate is not None and holds(value, approximate)
        if isinstance(value, int | Decimal):
            return number is not None and _safely(lambda: holds(value, number))
        if isinstance(value, str):
            if moment is not None and (found := _moment(value)) is not None:
                return holds(found, moment)
            if number is not None and (found_number := _number(value)) is not None:
                return holds(found_number, number)
            # A date or number against a text that is neither is no comparison.
            return moment is None and number is None and holds(value, text)
        if isinstance(value, date):
            found = _moment(value)
            return moment is not None and found is not None and holds(found, moment)
        if isinstance(value, list | tuple | set | frozenset):
            return any(item is not None and compares(item) for item in value)
        return False

    return compares


def _on_text(holds: Callable[[str], bool]) -> Matcher:
    def matches(value: Any) -> bool:
        if value.__class__ is str:
            return holds(value)
        if isinstance(value, bool):
            # The reference service wrote booleans with a capital; both spellings are found.
            return holds("true") or holds("True") if value else holds("false") or holds("False")
        if isinstance(value, list | tuple | set | frozenset):
            return any(item is not None and matches(item) for item in value)
        return holds(_text(value))

    return matches


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            return str(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def _safely(compare: Callable[[], JSON]) -> bool:
    """A decimal that is not a number compares with nothing."""
    try:
        return bool(compare())
    except ArithmeticError:
        return False
