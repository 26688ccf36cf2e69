"""Dates, times and spans of PostgreSQL beyond those of Python: they become text instead of ending a listing.

The driver hands over what is on the wire: days and microseconds since 2000, months. Infinities become the ends of Python's
calendar, as they always were in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

_DAY_US: Final = 86_400_000_000
_CYCLE_DAYS: Final = 146_097
"""The calendar repeats itself after so many days, which are 400 years."""
_FIRST: Final = date(2000, 1, 1).toordinal()
_LAST_ORDINAL: Final = date.max.toordinal()
_EPOCH: Final = datetime(2000, 1, 1)
_EPOCH_UTC: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ENDS_DAYS: Final = {2**31 - 1: date.max, -(2**31): date.min}
_ENDS_US: Final = {2**63 - 1: datetime.max, -(2**63): datetime.min}


def read_date(wire: tuple[int]) -> date | str:
    """Return a date, or its text if Python has no such year."""
    (days,) = wire
    ordinal = days + _FIRST
    if 1 <= ordinal <= _LAST_ORDINAL:
        return date.fromordinal(ordinal)
    if (end := _ENDS_DAYS.get(days)) is not None:
        return end
    day, era = _day(days)
    return day + era


def read_timestamp(wire: tuple[int]) -> datetime | str:
    """Return a moment without zone, or its text if Python has no such year."""
    try:
        return _EPOCH + timedelta(0, 0, wire[0])
    except OverflowError:
        return _beyond(wire[0], "")


def read_timestamp_with_zone(wire: tuple[int]) -> datetime | str:
    """Return a moment in UTC, or its text if Python has no such year."""
    try:
        return _EPOCH_UTC + timedelta(0, 0, wire[0])
    except OverflowError:
        return _beyond(wire[0], "+00")


def read_time(wire: tuple[int]) -> time | str:
    """Return a time of day; the end of a day, which Python has not, as text."""
    (us,) = wire
    return "24:00:00" if us == _DAY_US else _time(us)


def read_interval(wire: tuple[int, int, int]) -> timedelta | str:
    """Return a span, its years with 365 and its months with 30 days; one beyond Python's as ISO 8601 text."""
    months, days, us = wire
    years = int(months / 12)
    try:
        return timedelta(days=days + years * 365 + (months - years * 12) * 30, microseconds=us)
    except OverflowError:
        return f"P{months}M{days}DT{us / 1_000_000}S"


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "date": read_date,
    "timestamp": read_timestamp,
    "timestamptz": read_timestamp_with_zone,
    "time": read_time,
    "interval": read_interval,
}
"""By the type's name in `pg_catalog`."""


def _beyond(us: int, zone: str) -> datetime | str:
    if (end := _ENDS_US.get(us)) is not None:
        return end
    days, rest = divmod(us, _DAY_US)
    day, era = _day(days)
    return f"{day} {_time(rest)}{zone}{era}"


def _time(us: int) -> time:
    return (datetime.min + timedelta(microseconds=us)).time()


def _day(days: int) -> tuple[str, str]:
    cycles, rest = divmod(days, _CYCLE_DAYS)
    like = date.fromordinal(_FIRST + rest)
    year = like.year + 400 * cycles
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04d}-{like:%m-%d}", era
