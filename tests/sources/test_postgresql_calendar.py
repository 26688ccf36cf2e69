"""Dates on PostgreSQL's wire, without a server: the edges of Python's calendar and what lies behind them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from callboard.sources.postgresql_calendar import (
    read_date,
    read_interval,
    read_time,
    read_timestamp,
    read_timestamp_with_zone,
)

DAY_US = 86_400_000_000
FIRST = date(2000, 1, 1)


@given(st.dates())
def test_dates_of_python_are_dates(day):
    assert read_date(((day - FIRST).days,)) == day


@given(st.datetimes())
def test_moments_of_python_are_moments(moment):
    us = (moment - datetime(2000, 1, 1)) // timedelta(microseconds=1)
    assert read_timestamp((us,)) == moment
    assert read_timestamp_with_zone((us,)) == moment.replace(tzinfo=UTC)


def test_what_lies_beyond_is_text_and_infinities_are_the_ends():
    before_christ = (date(1, 1, 1) - FIRST).days - 1
    assert read_date((before_christ,)) == "0001-12-31 BC"
    after = (date(9999, 12, 31) - FIRST).days + 1
    assert read_date((after,)) == "10000-01-01"
    assert read_timestamp((after * DAY_US + 1_500_000,)) == "10000-01-01 00:00:01.500000"
    assert read_timestamp_with_zone((before_christ * DAY_US,)) == "0001-12-31 00:00:00+00 BC"
    assert read_date((2**31 - 1,)) == date.max
    assert read_date((-(2**31),)) == date.min
    assert read_timestamp((2**63 - 1,)) == datetime.max
    assert read_timestamp_with_zone((-(2**63),)) == datetime.min


@given(st.integers(-(2**31) + 1, 2**31 - 2))
def test_every_day_is_something(days):
    assert isinstance(read_date((days,)), date | str)


@given(st.integers(-(2**63) + 1, 2**63 - 2))
def test_every_moment_is_something(us):
    assert isinstance(read_timestamp((us,)), datetime | str)
    assert isinstance(read_timestamp_with_zone((us,)), datetime | str)


def test_times_and_spans():
    assert read_time((DAY_US,)) == "24:00:00"
    assert read_time((1,)) == time(microsecond=1)
    assert read_interval((14, 2, 1)) == timedelta(days=365 + 60 + 2, microseconds=1)
    assert read_interval((2**31 - 1, 0, 1_500_000)) == "P2147483647M0DT1.5S"
