"""When a schedule fires: cron expressions of six or seven fields, as Elasticsearch takes them, in UTC.

    seconds minutes hours day-of-month month day-of-week [year]

Values are numbers, or three letters for months (JAN-DEC) and days of the week (SUN-SAT, which are 1-7). Each field is a list of
values, ranges and steps: `5`, `1-5`, `22-2` (around the end), `*`, `0/15`, `10-40/5`. Exactly one of the two day fields is `?`.
Day of month also takes `L` (last day), `L-3`, `LW` (last weekday) and `15W` (the weekday nearest to the 15th, in its month);
day of week also takes `L` (Saturday), `6L` or `FRIL` (last Friday of the month) and `6#3` or `FRI#3` (third Friday).
A day that a month does not have is passed over.
"""

from __future__ import annotations

import calendar
import re
from bisect import bisect_left
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2199
"""A fixed end, beyond what Elasticsearch allows (a hundred years from now), so that parsing does not depend on the clock."""

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


class InvalidCron(ValueError):
    """A text is not a cron expression. `field` is the number of the field at fault, from 1, or None for the whole."""

    def __init__(self, expression: str, why: str, *, field: int | None = None, text: str | None = None) -> None:
        self.expression, self.why, self.field, self.text = expression, why, field, text
        place = f"field {field} ({_FIELDS[field - 1].name}), {text!r}, " if field else ""
        shown = expression if len(expression) <= 100 else expression[:97] + "..."
        super().__init__(f"The schedule {shown!r} is not valid: {place}{why}.")


@attrs.frozen
class _Field:
    name: str
    low: int
    high: int
    step_max: int
    names: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field("seconds", 0, 59, 59),
    _Field("minutes", 0, 59, 59),
    _Field("hours", 0, 23, 23),
    _Field("day of month", 1, 31, 31),
    _Field("month", 1, 12, 12, _MONTHS),
    _Field("day of week", 1, 7, 7, _DAYS),
    _Field("year", YEAR_MIN, YEAR_MAX, YEAR_MAX - YEAR_MIN),
)
_DAY_OF_MONTH, _DAY_OF_WEEK, _YEAR = 3, 5, 6


@attrs.frozen
class _MonthDays:
    """Days by their number in the month."""

    plain: frozenset[int] = frozenset()
    nearest_weekday: frozenset[int] = frozenset()
    from_last: int | None = None
    """So many days before the last one."""
    from_last_weekday: bool = False

    def of(self, year: int, month: int) -> Iterable[int]:
        last = calendar.monthrange(year, month)[1]
        days = {day for day in self.plain if day <= last}
        days |= {_nearest_weekday(year, month, day, last) for day in self.nearest_weekday if day <= last}
        if self.from_last is not None and (day := last - self.from_last) >= 1:
            days.add(_nearest_weekday(year, month, day, last) if self.from_last_weekday else day)
        return days


@attrs.frozen
class _WeekDays:
    """Days by their name; 0 is Sunday."""

    days: frozenset[int]
    occurrence: int | None = None
    """Only the n-th such day of the month; -1 is the last."""

    def of(self, year: int, month: int) -> Iterable[int]:
        last = calendar.monthrange(year, month)[1]
        first_is = (calendar.weekday(year, month, 1) + 1) % 7
        matching = [day for day in range(1, last + 1) if (first_is + day - 1) % 7 in self.days]
        if self.occurrence is None:
            return matching
        if self.occurrence == -1:
            return matching[-1:]
        return matching[self.occurrence - 1 : self.occurrence]


def _nearest_weekday(year: int, month: int, day: int, last: int) -> int:
    match calendar.weekday(year, month, day):
        case 5:
            return day - 1 if day > 1 else day + 2
        case 6:
            return day + 1 if day < last else day - 2
        case _:
            return day


@attrs.frozen
class Cron:
    """A parsed schedule. Make one with `Cron.parse`."""

    text: str = attrs.field(eq=False)
    _seconds: tuple[int, ...] = attrs.field(repr=False)
    _minutes: tuple[int, ...] = attrs.field(repr=False)
    _hours: tuple[int, ...] = attrs.field(repr=False)
    _days: _MonthDays | _WeekDays = attrs.field(repr=False)
    _months: tuple[int, ...] = attrs.field(repr=False)
    _years: tuple[int, ...] = attrs.field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read a cron expression. Raises `InvalidCron` that points at the field at fault."""
        parts = re.split(r"[ \t]+", text.strip(" \t").upper()) if text.strip(" \t") else []
        if len(parts) < 6:
            raise InvalidCron(
                text, f"it has {len(parts)} fields and needs six or seven, such as '0 0 2 * * ?' for every night at two"
            )
        parts = parts[:7]
        by_month_day, by_week_day = parts[_DAY_OF_MONTH] != "?", parts[_DAY_OF_WEEK] != "?"
        if by_month_day == by_week_day:
            raise InvalidCron(
                text,
                "neither of the day fields is '?'; put it into the one that does not matter"
                if by_month_day
                else "both day fields are '?'; say at least '*' in one of them",
            )
        try:
            seconds, minutes, hours = (_values(_FIELDS[index], parts[index]) for index in range(3))
            days = _month_days(parts[_DAY_OF_MONTH]) if by_month_day else _week_days(parts[_DAY_OF_WEEK])
            months = _values(_FIELDS[4], parts[4])
            years = _values(_FIELDS[_YEAR], parts[_YEAR] if len(parts) > _YEAR else "*")
        except _Wrong as wrong:
            raise InvalidCron(text, wrong.why, field=_FIELDS.index(wrong.field) + 1, text=wrong.text) from None
        return cls(
            " ".join(parts),
            seconds=tuple(sorted(seconds)),
            minutes=tuple(sorted(minutes)),
            hours=tuple(sorted(hours)),
            days=days,
            months=tuple(sorted(months)),
            years=tuple(sorted(years)),
        )

    def __str__(self) -> str:
        return self.text

    def next_after(self, moment: datetime) -> datetime | None:
        """The first fire time strictly after an instant, in UTC; None if there is none. A naive instant is in UTC."""
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        try:
            start = moment.replace(microsecond=0) + timedelta(seconds=1)
        except OverflowError:
            return None
        for year in self._years[bisect_left(self._years, start.year) :]:
            for month in self._months:
                if (year, month) < (start.year, start.month):
                    continue
                for day in sorted(self._days.of(year, month)):
                    if (year, month, day) < (start.year, start.month, start.day):
                        continue
                    is_today = (year, month, day) == (start.year, start.month, start.day)
                    time = self._first_time((start.hour, start.minute, start.second) if is_today else (0, 0, 0))
                    if time is not None:
                        return datetime(year, month, day, *time, tzinfo=UTC)
        return None

    def last_within(self, after: datetime, until: datetime) -> datetime | None:
        """The last fire time after one instant and not after another; None if there is none."""
        low, high = self.next_after(after), until
        if low is None or low > high:
            return None
        # Bisection. Invariant: `low` is a fire time, and there is none after `high` that counts.
        while True:
            middle = low + (high - low) / 2
            found = self.next_after(middle)
            if found is not None and found <= high:
                low = found
            elif middle - low < timedelta(seconds=1):
                return low
            else:
                high = middle

    def _first_time(self, since: tuple[int, int, int]) -> tuple[int, int, int] | None:
        hour, minute, second = since
        for a_hour in self._hours[bisect_left(self._hours, hour) :]:
            least_minute = minute if a_hour == hour else 0
            for a_minute in self._minutes[bisect_left(self._minutes, least_minute) :]:
                least_second = second if (a_hour, a_minute) == (hour, minute) else 0
                for a_second in self._seconds[bisect_left(self._seconds, least_second) :]:
                    return (a_hour, a_minute, a_second)
        return None


class _Wrong(Exception):
    def __init__(self, field: _Field, text: str, why: str) -> None:
        self.field, self.text, self.why = field, text, why


def _values(field: _Field, text: str) -> set[int]:
    """All values of a field that is a list of values, ranges and steps."""
    values: set[int] = set()
    for item in text.split(","):
        if not item:
            raise _Wrong(field, text, "has an empty place in its list")
        values |= _item(field, text, item)
    return values


def _item(field: _Field, text: str, item: str) -> set[int]:
    base, slash, step_text = item.partition("/")
    step = _step(field, text, step_text) if slash else 1
    if base in ("*", ""):
        return set(range(field.low, field.high + 1, step))
    start_text, dash, end_text = base.partition("-")
    start = _value(field, text, start_text)
    if not dash:
        return set(range(start, field.high + 1, step)) if slash else {start}
    end = _value(field, text, end_text)
    if end >= start:
        return set(range(start, end + 1, step))
    if field is _FIELDS[_YEAR]:
        raise _Wrong(field, text, "goes backwards; a range of years starts with the earlier one")
    size = field.high - field.low + 1
    return {(value - field.low) % size + field.low for value in range(start, end + size + 1, step)}


def _step(field: _Field, text: str, step_text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", step_text, re.ASCII):
        raise _Wrong(field, text, f"has the step {step_text!r}, which is not a number")
    step = int(step_text)
    if not 1 <= step <= field.step_max:
        raise _Wrong(field, text, f"has the step {step}, which is not between 1 and {field.step_max}")
    return step


def _value(field: _Field, text: str, value_text: str) -> int:
    if value_text in field.names:
        return field.names.index(value_text) + field.low
    if not re.fullmatch(r"\d{1,9}", value_text, re.ASCII):
        known = f" or one of {', '.join(field.names)}" if field.names else ""
        raise _Wrong(field, text, f"has {value_text!r} where a number{known} is expected")
    value = int(value_text)
    if not field.low <= value <= field.high:
        raise _Wrong(field, text, f"has {value}, which is not between {field.low} and {field.high}")
    return value


def _month_days(text: str) -> _MonthDays:
    field = _FIELDS[_DAY_OF_MONTH]
    if found := re.fullmatch(r"L(?:-(\d{1,9}))?(W)?", text, re.ASCII):
        offset = int(found[1] or 0)
        if offset > 30:
            raise _Wrong(field, text, f"counts {offset} days back from the last; 30 is the most")
        return _MonthDays(from_last=offset, from_last_weekday=bool(found[2]))
    items = text.split(",")
    if any("L" in item for item in items):
        raise _Wrong(field, text, "has an 'L' that does not stand alone; it can only be L, LW, L-3 or the like")
    nearest = {_value(field, text, item[:-1]) for item in items if item.endswith("W")}
    plain = [item for item in items if not item.endswith("W")]
    return _MonthDays(frozenset(_values(field, ",".join(plain))) if plain else frozenset(), frozenset(nearest))


def _week_days(text: str) -> _WeekDays:
    field = _FIELDS[_DAY_OF_WEEK]
    if text == "L":
        return _WeekDays(frozenset({6}))
    if "#" in text:
        day, _, occurrence = text.partition("#")
        if not re.fullmatch(r"[1-5]", occurrence, re.ASCII):
            raise _Wrong(field, text, "needs one number from 1 to 5 after its only '#', and no list")
        return _WeekDays(frozenset({_value(field, text, day) - 1}), int(occurrence))
    if found := re.fullmatch(r"([1-7]|[A-Z]{3})L", text, re.ASCII):
        return _WeekDays(frozenset({_value(field, text, found[1]) - 1}), -1)
    return _WeekDays(frozenset(day - 1 for day in _values(field, text)))
