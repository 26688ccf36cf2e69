"""Cron expressions against known answers, and against an evaluator that shares no code: it tries every second of every day."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.protocol.cron import YEAR_MAX, Cron, InvalidCron

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def stamp(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # what the reference service gets wrong
        ("0/5 * * * * ?", "2025-01-01T00:00:00", ["2025-01-01T00:00:05", "2025-01-01T00:00:10"]),
        ("0 0/15 * * * ?", "2025-01-01T00:00:00", ["2025-01-01T00:15:00", "2025-01-01T00:30:00"]),
        ("0 0 12 1/5 * ?", "2025-01-01T12:00:00", ["2025-01-06T12:00:00", "2025-01-11T12:00:00"]),
        ("0 0 12 ? * 2-6", "2025-01-03T12:00:00", ["2025-01-06T12:00:00", "2025-01-07T12:00:00"]),
        ("0 0 12 ? * 2,4", "2025-01-01T12:00:00", ["2025-01-06T12:00:00", "2025-01-08T12:00:00"]),
        ("0 0 12 ? * 6L", "2025-01-01T00:00:00", ["2025-01-31T12:00:00", "2025-02-28T12:00:00"]),
        ("0 0 12 ? * FRIL", "2025-01-01T00:00:00", ["2025-01-31T12:00:00", "2025-02-28T12:00:00"]),
        ("0 0 12 ? * 6#3", "2025-01-01T00:00:00", ["2025-01-17T12:00:00", "2025-02-21T12:00:00"]),
        ("0 0 12 ? * FRI#2", "2025-01-01T00:00:00", ["2025-01-10T12:00:00", "2025-02-14T12:00:00"]),
        ("0 0 12 L * ?", "2024-02-01T00:00:00", ["2024-02-29T12:00:00", "2024-03-31T12:00:00"]),
        ("0 0 12 LW * ?", "2025-05-01T00:00:00", ["2025-05-30T12:00:00", "2025-06-30T12:00:00"]),
        ("0 0 12 15W * ?", "2025-02-01T00:00:00", ["2025-02-14T12:00:00", "2025-03-14T12:00:00"]),
        ("0 0 12 1 1 ? 2027-2028", "2025-01-01T00:00:00", ["2027-01-01T12:00:00", "2028-01-01T12:00:00"]),
        ("0  0\t12  * *  ?", "2025-01-01T00:00:00", ["2025-01-01T12:00:00"]),
        # what the reference service gets right
        ("0 0,15,30,45 * * * ?", "2025-01-01T00:15:00", ["2025-01-01T00:30:00", "2025-01-01T00:45:00"]),
        ("0 0 * * * ?", "2025-01-01T00:00:00", ["2025-01-01T01:00:00"]),
        ("0 0 0 * * ?", "2025-12-31T23:59:59", ["2026-01-01T00:00:00"]),
        ("0 30 4 ? * 1", "2025-01-01T00:00:00", ["2025-01-05T04:30:00", "2025-01-12T04:30:00"]),
        ("0 30 4 31 * ?", "2025-01-01T00:00:00", ["2025-01-31T04:30:00", "2025-03-31T04:30:00"]),
        ("0 0 0 29 2 ?", "2025-01-01T00:00:00", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        # the rest of the grammar
        (
            "0 0 22-2 * * ?",
            "2025-01-01T01:00:00",
            ["2025-01-01T02:00:00", "2025-01-01T22:00:00", "2025-01-01T23:00:00"],
        ),
        (
            "0 0 22-3/2 * * ?",
            "2025-01-01T03:00:00",
            ["2025-01-01T22:00:00", "2025-01-02T00:00:00", "2025-01-02T02:00:00"],
        ),
        (
            "0 0 0 ? * FRI-MON",
            "2025-01-01T00:00:00",
            ["2025-01-03", "2025-01-04", "2025-01-05", "2025-01-06", "2025-01-10"],
        ),
        ("0 0 0 28-2 * ?", "2025-02-02T00:00:00", ["2025-02-28", "2025-03-01", "2025-03-02", "2025-03-28"]),
        (
            "0 0 0 1 nov-feb ?",
            "2025-03-01T00:00:00",
            ["2025-11-01", "2025-12-01", "2026-01-01", "2026-02-01", "2026-11-01"],
        ),
        ("0 0 0 ? * L", "2025-01-01T00:00:00", ["2025-01-04", "2025-01-11"]),
        ("0 0 0 L-3 * ?", "2025-02-01T00:00:00", ["2025-02-25", "2025-03-28"]),
        ("0 0 0 L-30 * ?", "2025-02-01T00:00:00", ["2025-03-01", "2025-05-01"]),
        ("0 0 0 L-3W * ?", "2025-08-01T00:00:00", ["2025-08-28", "2025-09-26"]),
        ("0 0 0 1W * ?", "2025-02-02T00:00:00", ["2025-02-03", "2025-03-03", "2025-04-01"]),
        ("0 0 0 31W * ?", "2025-08-01T00:00:00", ["2025-08-29", "2025-10-31"]),
        ("0 0 0 ? * 6#5", "2025-01-01T00:00:00", ["2025-01-31", "2025-05-30"]),
        ("/20 * * * * ?", "2025-01-01T00:00:00", ["2025-01-01T00:00:20", "2025-01-01T00:00:40"]),
        ("*/20 * * * * ?", "2025-01-01T00:00:40", ["2025-01-01T00:01:00"]),
        (
            "10-40/15 0 0 * * ?",
            "2025-01-01T00:00:10",
            ["2025-01-01T00:00:25", "2025-01-01T00:00:40", "2025-01-02T00:00:10"],
        ),
        ("0 0 0 ? * MON/3", "2025-01-01T00:00:00", ["2025-01-02", "2025-01-06"]),
        ("0 0 0 1 1 ? 2030/10", "2025-01-01T00:00:00", ["2030-01-01", "2040-01-01"]),
        ("0 0 0 1 1 ? * more that is ignored", "2025-06-01T00:00:00", ["2026-01-01"]),
        ("1 * * * * ?", "2025-01-01T00:00:00.999999", ["2025-01-01T00:00:01", "2025-01-01T00:01:01"]),
    ],
)
def test_known_answers(expression: str, after: str, expected: list[str]) -> None:
    cron = Cron.parse(expression)
    moment = stamp(after)
    for answer in expected:
        found = cron.next_after(moment)
        assert found == stamp(answer)
        assert found is not None
        moment = found


@pytest.mark.parametrize(
    ("expression", "field", "says"),
    [
        ("", None, "0 fields"),
        ("* * * * ?", None, "5 fields"),
        ("0 0 0 * * *", None, "neither"),
        ("0 0 0 ? * ?", None, "both"),
        ("60 0 0 * * ?", 1, "not between 0 and 59"),
        ("0 61 0 * * ?", 2, "61"),
        ("0 0 24 * * ?", 3, "hours"),
        ("0 0 0 0 * ?", 4, "not between 1 and 31"),
        ("0 0 0 32 * ?", 4, "32"),
        ("0 0 0 32W * ?", 4, "32"),
        ("0 0 0 L-31 * ?", 4, "30 is the most"),
        ("0 0 0 L,3 * ?", 4, "'L'"),
        ("0 0 0 3L * ?", 4, "'L'"),
        ("0 0 0 W * ?", 4, "number"),
        ("0 0 0 * 13 ?", 5, "13"),
        ("0 0 0 * JANUARY ?", 5, "JANUARY"),
        ("0 0 0 ? * 8", 6, "not between 1 and 7"),
        ("0 0 0 ? * 0", 6, "not between 1 and 7"),
        ("0 0 0 ? * XYZ", 6, "SUN, MON"),
        ("0 0 0 ? * 6#6", 6, "1 to 5"),
        ("0 0 0 ? * 6#1,6#2", 6, "#"),
        ("0 0 0 ? * 1#1#1", 6, "#"),
        ("0 0 0 ? * 6L,2", 6, "6L"),
        ("0 0 0 ? * 15W", 6, "15W"),
        ("0 0 0 * * ? 1969", 7, "1970"),
        ("0 0 0 * * ? 2030-2029", 7, "backwards"),
        ("0/60 0 0 * * ?", 1, "step 60"),
        ("0 0/60 0 * * ?", 2, "between 1 and 59"),
        ("0 0 0/24 * * ?", 3, "between 1 and 23"),
        ("0 0 0 1/32 * ?", 4, "between 1 and 31"),
        ("0 0 0 * 1/13 ?", 5, "between 1 and 12"),
        ("0 0 0 ? * 1/8", 6, "between 1 and 7"),
        ("*/0 0 0 * * ?", 1, "step 0"),
        ("0/ 0 0 * * ?", 1, "not a number"),
        ("1,,2 0 0 * * ?", 1, "empty place"),
        ("1- 0 0 * * ?", 1, "''"),
        ("? 0 0 * * ?", 1, "'?'"),
        ("-1 0 0 * * ?", 1, "''"),
        ("*5 0 0 * * ?", 1, "'*5'"),
    ],
)
def test_errors_point_at_the_field(expression: str, field: int | None, says: str) -> None:
    with pytest.raises(InvalidCron) as refused:
        Cron.parse(expression)
    assert refused.value.field == field
    assert says in str(refused.value)
    if field:
        assert f"field {field} (" in str(refused.value)


@given(st.text() | st.lists(st.text(alphabet="0123456789*?/,-LW#MONJANFRI", max_size=6), max_size=8).map(" ".join))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        cron = Cron.parse(text)
    except InvalidCron:
        return
    found = cron.next_after(stamp("2025-01-01T00:00:00"))
    assert found is None or found > stamp("2025-01-01T00:00:00")
    assert Cron.parse(str(cron)) == cron
    assert Cron.parse(text.lower()) == cron


# An evaluator of its own: says of one value whether a field's text holds for it, and walks through time.


def number(text: str) -> int:
    names = {name: place + 1 for place, name in enumerate(MONTHS)} | {
        name: place + 1 for place, name in enumerate(DAYS)
    }
    return names[text] if text in names else int(text)


def holds(text: str, value: int, low: int, high: int) -> bool:
    return any(holds_one(item, value, low, high) for item in text.split(","))


def holds_one(item: str, value: int, low: int, high: int) -> bool:
    step = 1
    if "/" in item:
        item, step_text = item.split("/")
        step = int(step_text)
        if item in ("", "*"):
            item = str(low)
        if "-" not in item:
            start = number(item)
            return value >= start and (value - start) % step == 0
    if item == "*":
        return True
    if "-" not in item:
        return value == number(item)
    start, end = map(number, item.split("-"))
    at, size = start, high - low + 1
    for passed in range(size):
        if at == value and passed % step == 0:
            return True
        if at == end:
            return False
        at = low if at == high else at + 1
    return False


def day_holds(month_day: str, week_day: str, day: date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    if week_day == "?":
        if month_day == "L":
            return day.day == last
        if month_day == "LW":
            later = [day + timedelta(days=more) for more in range(1, last - day.day + 1)]
            return day.isoweekday() <= 5 and all(other.isoweekday() > 5 for other in later)
        if month_day.startswith("L-"):
            return day.day == last - int(month_day[2:])
        if month_day.endswith("W"):
            wanted = int(month_day[:-1])
            weekdays = [other for other in range(1, last + 1) if day.replace(day=other).isoweekday() <= 5]
            return wanted <= last and day.day == min(weekdays, key=lambda other: abs(other - wanted))
        return holds(month_day, day.day, 1, 31)
    name = day.isoweekday() % 7 + 1
    if week_day == "L":
        return name == 7
    if week_day.endswith("L"):
        return name == number(week_day[:-1]) and day.day + 7 > last
    if "#" in week_day:
        wanted_day, occurrence = week_day.split("#")
        return name == number(wanted_day) and (day.day - 1) // 7 + 1 == int(occurrence)
    return holds(week_day, name, 1, 7)


def brute_force(expression: str, after: datetime, days: int) -> datetime | None:
    parts = expression.split(" ")
    seconds, minutes, hours, month_day, month, week_day = parts[:6]
    year = parts[6] if len(parts) > 6 else "*"
    for more in range(days + 1):
        day = after.date() + timedelta(days=more)
        right_year = holds(year, day.year, 1970, 2199)
        if not (right_year and holds(month, day.month, 1, 12) and day_holds(month_day, week_day, day)):
            continue
        for hour in range(24):
            for minute in range(60):
                if not (holds(hours, hour, 0, 23) and holds(minutes, minute, 0, 59)):
                    continue
                for second in range(60):
                    found = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)
                    if holds(seconds, second, 0, 59) and found > after:
                        return found
    return None


def field_texts(low: int, high: int, names: list[str] | None = None) -> st.SearchStrategy[str]:
    value = st.integers(low, high).map(str)
    if names:
        value |= st.sampled_from(names)
    step = st.integers(1, min(high - low, 59)).map(str)
    ranges = st.tuples(value, value).map("-".join)
    one = value | ranges | st.tuples(value | ranges | st.just("*") | st.just(""), step).map("/".join)
    return st.just("*") | one | st.lists(one, min_size=2, max_size=3).map(",".join)


month_days = (
    field_texts(1, 31)
    | st.sampled_from(["L", "LW"])
    | st.integers(1, 31).map("{}W".format)
    | st.integers(0, 30).map("L-{}".format)
)
week_days = (
    field_texts(1, 7, DAYS)
    | st.just("L")
    | st.sampled_from(DAYS).map("{}L".format)
    | st.tuples(st.sampled_from([*DAYS, "1", "7"]), st.sampled_from("12345")).map("#".join)
)
expressions = st.tuples(
    field_texts(0, 59),
    field_texts(0, 59),
    field_texts(0, 23),
    st.tuples(month_days, field_texts(1, 12, MONTHS), st.just("?"))
    | st.tuples(st.just("?"), field_texts(1, 12, MONTHS), week_days),
    st.sampled_from(["", " *", " 2024-2026", " 2025/2", " 2024,2027"]),
).map(lambda parts: " ".join([*parts[:3], *parts[3]]) + parts[4])
moments = st.datetimes(datetime(2023, 1, 1), datetime(2027, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC))


@settings(max_examples=400, deadline=None)
@given(expressions, moments)
def test_the_next_fire_time_is_the_one_found_by_trying(expression: str, after: datetime) -> None:
    expected = brute_force(expression, after, days=800)
    found = Cron.parse(expression).next_after(after)
    if expected is not None:
        assert found == expected
    else:
        assert found is None or found.date() > after.date() + timedelta(days=800)


@settings(deadline=None)
@given(expressions, moments, st.integers(0, 100_000))
def test_the_last_fire_time_of_a_stretch_has_none_behind_it(expression: str, after: datetime, length_s: int) -> None:
    cron = Cron.parse(expression)
    until = after + timedelta(seconds=length_s)
    last = cron.last_within(after, until)
    if last is None:
        following = cron.next_after(after)
        assert following is None or following > until
        return
    assert after < last <= until
    assert cron.next_after(last - timedelta(seconds=1)) == last
    following = cron.next_after(last)
    assert following is None or following > until


def test_time_zones_are_understood() -> None:
    cron = Cron.parse("0 0 12 * * ?")
    assert cron.next_after(datetime.fromisoformat("2025-01-01T12:30:00+02:00")) == stamp("2025-01-01T12:00:00")
    assert cron.next_after(datetime(2025, 1, 1, 12)) == stamp("2025-01-02T12:00:00")


def test_what_never_fires_says_so() -> None:
    assert Cron.parse("0 0 0 30 2 ?").next_after(stamp("2025-01-01")) is None
    assert Cron.parse("0 0 0 1 1 ? 2020").next_after(stamp("2025-01-01")) is None
    assert Cron.parse("* * * * * ?").next_after(datetime(YEAR_MAX, 12, 31, 23, 59, 59, tzinfo=UTC)) is None
    assert Cron.parse("* * * * * ?").next_after(datetime.max) is None
