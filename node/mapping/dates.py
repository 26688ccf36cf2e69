"""Dates as Elasticsearch reads them: text or numbers in, milliseconds since 1970 (UTC) out. Naive stamps are UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHAPE = re.compile(
    r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(?:(\d{2})(?::(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)?)?(Z|[+-]\d{2}(?::?\d{2})?)?)?)?)?"
)
_MATH = re.compile(r"([+-]\d*|/)([yMwdhHms])")
_DAY_MS = 86_400_000
_UNITS = {"w": 7 * _DAY_MS, "d": _DAY_MS, "h": 3_600_000, "H": 3_600_000, "m": 60_000, "s": 1000}
# Elasticsearch's own bounds for `strict_date_optional_time`.
_LIMIT_MS = 9_223_372_036_854_775

DEFAULT_FORMAT = "strict_date_optional_time||epoch_millis"


class InvalidDate(ValueError):
    """Text that is no date."""


def read_date(value: object) -> int:
    """Return milliseconds since 1970 for ISO 8601 text (from a bare year on) or a number. Raises `InvalidDate`."""
    if isinstance(value, bool):
        raise InvalidDate(f"failed to parse date field [{str(value).lower()}] with format [{DEFAULT_FORMAT}]")
    if isinstance(value, int | float):
        if not -_LIMIT_MS <= value <= _LIMIT_MS:
            raise InvalidDate(f"failed to parse date field [{value}] with format [{DEFAULT_FORMAT}]")
        return int(value)
    if not isinstance(value, str):
        raise InvalidDate(f"failed to parse date field of type [{type(value).__name__}]")
    found = _SHAPE.fullmatch(value)
    if found is None:
        if re.fullmatch(r"-?\d{1,16}", value):
            return int(value)
        raise InvalidDate(f"failed to parse date field [{value}] with format [{DEFAULT_FORMAT}]")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError as error:
        raise InvalidDate(f"failed to parse date field [{value}] with format [{DEFAULT_FORMAT}]: {error}") from error
    since = moment - _EPOCH
    milliseconds = since.days * _DAY_MS + since.seconds * 1000
    if fraction:
        milliseconds += int(fraction[:3].ljust(3, "0"))
    return milliseconds - _offset_ms(zone)


def _offset_ms(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "")
    offset = int(digits[:2]) * 3_600_000 + int(digits[2:] or 0) * 60_000
    return -offset if zone[0] == "-" else offset


def looks_like_date(text: str) -> bool:
    """Say whether dynamic mapping makes a date of this text: `yyyy-MM-dd` with or without a time, or `yyyy/MM/dd`."""
    if len(text) < 10 or text[4] != "-" or not text[:4].isdigit():
        return False
    try:
        read_date(text)
    except InvalidDate:
        return False
    return True


def read_date_math(value: object, now: datetime, *, round_up: bool = False) -> int:
    """Return milliseconds for a date, or for date math such as `now-1d/d` or `2024-01-01||+1M`.

    `round_up`: a rounded or incomplete date means its last millisecond, as the `gt` and `lte` of a range want it.
    """
    if not isinstance(value, str):
        return read_date(value)
    if value.startswith("now"):
        start, math = now, value[3:]
    elif "||" in value:
        text, math = value.split("||", 1)
        start = from_ms(read_date(text))
    else:
        return _last_ms(value) if round_up else read_date(value)
    at = 0
    while at < len(math):
        step = _MATH.match(math, at)
        if step is None:
            raise InvalidDate(f"cannot read date math [{value}] at [{math[at:]}]")
        start = _step(start, step[1], step[2], round_up)
        at = step.end()
    return to_ms(start)


def _last_ms(text: str) -> int:
    found = _SHAPE.fullmatch(text)
    first = read_date(text)
    if found is None:
        return first
    _, _, _, hour, minute, second, fraction, _ = found.groups()
    if fraction:
        return first
    # A missing month or day is the first one, as Elasticsearch has it; only the time of day is filled up.
    for given, unit in ((second, "s"), (minute, "m"), (hour, "h")):
        if given:
            return to_ms(_add(from_ms(first), 1, unit)) - 1
    return to_ms(_add(from_ms(first), 1, "d")) - 1


def _step(moment: datetime, operator: str, unit: str, round_up: bool) -> datetime:
    if operator != "/":
        count = int(operator) if len(operator) > 1 else int(operator + "1")
        return _add(moment, count, unit)
    floor = _floor(moment, unit)
    return _add(floor, 1, unit) - timedelta(milliseconds=1) if round_up else floor


def _add(moment: datetime, count: int, unit: str) -> datetime:
    try:
        if unit in _UNITS:
            return moment + timedelta(milliseconds=count * _UNITS[unit])
        months = moment.year * 12 + moment.month - 1 + count * (12 if unit == "y" else 1)
        year, month = divmod(months, 12)
        first = moment.replace(year=year, month=month + 1, day=1)
        last_day = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        return first.replace(day=min(moment.day, last_day.day))
    except (ValueError, OverflowError) as error:
        raise InvalidDate(f"date math leaves the calendar: {error}") from error


def _floor(moment: datetime, unit: str) -> datetime:
    second = moment.replace(microsecond=0)
    match unit:
        case "s":
            return second
        case "m":
            return second.replace(second=0)
        case "h" | "H":
            return second.replace(second=0, minute=0)
    day = second.replace(second=0, minute=0, hour=0)
    match unit:
        case "d":
            return day
        case "w":
            return day - timedelta(days=day.weekday())
        case "M":
            return day.replace(day=1)
    return day.replace(month=1, day=1)


def to_ms(moment: datetime) -> int:
    """Return milliseconds since 1970."""
    since = moment - _EPOCH
    return since.days * _DAY_MS + since.seconds * 1000 + since.microseconds // 1000


def from_ms(milliseconds: int) -> datetime:
    """Return the moment. Raises `InvalidDate` outside the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError as error:
        raise InvalidDate(f"[{milliseconds}] ms is outside the calendar") from error


def format_ms(milliseconds: int) -> str:
    """Return the text that Elasticsearch gives for a date, with milliseconds and `Z`."""
    return from_ms(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
