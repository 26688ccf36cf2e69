"""When a job is made: once for each fire time, whichever service is awake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol import connectors
from callboard.protocol.cron import InvalidCron
from callboard.protocol.documents import Connector, JobType, Schedule, read_connector
from callboard.protocol.jobs import TransitionRefused
from callboard.protocol.scheduling import Fire, MissedFires, Wait, due, schedule_problems, schedules_of

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOURLY = Schedule(enabled=True, interval="0 0 * * * ?")


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def test_it_fires_at_its_time_and_not_before() -> None:
    assert due(HOURLY, last=None, since=at(-0.5), now=at(-0.1)) == Wait(NOON)
    assert due(HOURLY, last=None, since=at(-0.5), now=NOON) == Fire(NOON)
    assert due(HOURLY, last=NOON, since=at(-0.5), now=at(0.1)) == Wait(at(1))
    assert due(HOURLY, last=at(-9), since=NOON, now=at(0.1)) == Wait(at(1))


def test_a_schedule_that_is_off_never_fires() -> None:
    assert due(Schedule(enabled=False, interval="nonsense"), last=None, since=at(-9), now=NOON) == Wait(None)


def test_what_was_missed_is_skipped_or_run_once() -> None:
    assert due(HOURLY, last=at(-5), since=at(-0.5), now=at(-0.1)) == Wait(NOON)
    assert due(HOURLY, last=at(-5), since=at(-0.5), now=at(-0.1), missed=MissedFires.RUN_ONCE) == Fire(at(-1))
    assert due(HOURLY, last=None, since=at(-0.5), now=at(-0.1), missed=MissedFires.RUN_ONCE) == Wait(NOON)
    assert due(HOURLY, last=at(-1), since=at(-0.5), now=at(-0.1), missed=MissedFires.RUN_ONCE) == Wait(NOON)


def test_of_many_fire_times_the_last_one_is_taken() -> None:
    every_second = Schedule(enabled=True, interval="* * * * * ?")
    assert due(every_second, last=None, since=at(-24 * 365), now=NOON) == Fire(NOON)


def test_a_wrong_clock_does_not_silence_a_schedule() -> None:
    ahead = due(HOURLY, last=at(1), since=at(-0.5), now=NOON)
    assert ahead == Wait(at(2))
    assert due(HOURLY, last=at(24 * 400), since=at(-0.5), now=NOON) == Fire(NOON)
    wrong = Connector(last_sync_scheduled_at=at(24 * 400))
    assert connectors.schedule_fired(wrong, JobType.FULL, NOON).last_sync_scheduled_at == NOON


def test_a_bad_interval_is_named() -> None:
    with pytest.raises(InvalidCron):
        due(Schedule(enabled=True, interval="every day"), last=None, since=NOON, now=NOON)
    connector = read_connector(
        "c", {"scheduling": {"full": {"enabled": True, "interval": "x"}, "incremental": {"interval": "x"}}}
    )
    assert list(schedule_problems(connector)) == [JobType.FULL]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5000)), max_size=30), st.sampled_from(list(MissedFires)))
def test_many_services_make_one_job_for_each_fire_time(wakes: list[tuple[int, int]], missed: MissedFires) -> None:
    """Three services wake in any order; each fire time is taken once, and none that somebody was awake for is lost."""
    connector = Connector()
    looked = [NOON] * 3
    taken = []
    now = NOON
    for service, pause_s in wakes:
        now += timedelta(seconds=pause_s)
        decision = due(HOURLY, last=connector.last_sync_scheduled_at, since=looked[service], now=now, missed=missed)
        if isinstance(decision, Fire):
            connector = connectors.schedule_fired(connector, JobType.FULL, decision.at)
            taken.append(decision.at)
            with pytest.raises(TransitionRefused):
                connectors.schedule_fired(connector, JobType.FULL, decision.at)
        looked[service] = now
        passed = now.replace(minute=0, second=0, microsecond=0)
        assert passed == NOON or taken[-1] == passed
    assert taken == sorted(set(taken))


def test_schedules_count_only_if_source_and_document_allow_them() -> None:
    on = {"enabled": True, "interval": "0 0 0 * * ?"}
    connector = read_connector(
        "c",
        {
            "status": "connected",
            "scheduling": {"full": on, "incremental": on, "access_control": on},
            "features": {"incremental_sync": {"enabled": True}, "document_level_security": {"enabled": True}},
        },
    )

    def kinds(connector: Connector, *, incremental: bool = True, access_control: bool = True) -> list[JobType]:
        return [one for one, _ in schedules_of(connector, incremental=incremental, access_control=access_control)]

    assert kinds(connector) == [JobType.ACCESS_CONTROL, JobType.INCREMENTAL, JobType.FULL]
    assert kinds(connector, incremental=False, access_control=False) == [JobType.FULL]
    assert kinds(attrs.evolve(connector, features=None)) == [JobType.FULL]
    assert kinds(attrs.evolve(connector, deleted=True)) == []
