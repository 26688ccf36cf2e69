"""Random walks over the state machine of jobs: no walk leaves it, and every refusal says why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol import jobs
from callboard.protocol.documents import (
    STRAY_CURSOR,
    Connector,
    JobStatus,
    JobType,
    SyncJob,
    TriggerMethod,
    read_connector,
    read_job,
    write_job,
)
from callboard.protocol.ids import ConnectorId, JobId
from callboard.protocol.jobs import Cancel, Counts, GoOn, Stop, TransitionRefused
from callboard.protocol.wire import changes, merged, same

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CONNECTOR = read_connector(
    "library",
    {
        "index_name": "search-library",
        "service_type": "dir",
        "configuration": {"directory": {"value": "/books"}},
        "filtering": [{"active": {"rules": [{"id": "r", "odd": 1}], "note": "kept"}}],
        "pipeline": {"name": "p"},
    },
)

STEPS: dict[str, Callable[[SyncJob, datetime], SyncJob]] = {
    "claim": lambda job, now: jobs.claim(job, now, "stage-left"),
    "check_in": jobs.check_in,
    "report": lambda job, now: jobs.report(job, now, Counts(indexed=2, size_bytes=3 << 20), {"a": 1}),
    "complete": lambda job, now: jobs.complete(job, now, Counts(indexed=3, deleted=1, total=9)),
    "fail": lambda job, now: jobs.fail(job, now, "ValueError: no"),
    "suspend": lambda job, now: jobs.suspend(job, now, Counts(indexed=1)),
    "request_cancel": jobs.request_cancel,
    "cancel": jobs.cancel,
}

# Written by hand from the protocol, not from the table in the code.
EXPECTED = {
    ("pending", "claim"): "in_progress",
    ("pending", "request_cancel"): "canceled",
    ("suspended", "claim"): "in_progress",
    ("suspended", "request_cancel"): "canceled",
    ("in_progress", "check_in"): "in_progress",
    ("in_progress", "report"): "in_progress",
    ("in_progress", "complete"): "completed",
    ("in_progress", "fail"): "error",
    ("in_progress", "suspend"): "suspended",
    ("in_progress", "request_cancel"): "canceling",
    ("canceling", "check_in"): "canceling",
    ("canceling", "report"): "canceling",
    ("canceling", "cancel"): "canceled",
    ("canceling", "fail"): "error",
}


def check(job: SyncJob) -> None:
    """What holds in every state."""
    assert job.status.is_terminal == (job.completed_at is not None)
    assert (job.status is JobStatus.CANCELED) == (job.canceled_at is not None)
    assert (job.status is JobStatus.ERROR) == (job.error is not None)
    if job.status in (JobStatus.CANCELING, JobStatus.CANCELED):
        assert job.cancelation_requested_at is not None
    if job.status in (JobStatus.IN_PROGRESS, JobStatus.CANCELING, JobStatus.SUSPENDED, JobStatus.COMPLETED):
        assert job.worker_hostname is not None
        assert job.started_at is not None
    assert read_job(job.id, write_job(job)) == job


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30), st.sampled_from(list(JobType)))
def test_no_walk_leaves_the_machine(walk: list[str], job_type: JobType) -> None:
    job = jobs.create(CONNECTOR, NOW, job_type=job_type)
    stored = write_job(job)
    check(job)
    for number, name in enumerate(walk):
        expected = EXPECTED.get((job.status.value, name))
        try:
            after = STEPS[name](job, NOW + timedelta(seconds=number))
        except TransitionRefused as refused:
            assert expected is None
            assert job.status.value in refused.why
            continue
        assert after.status.value == expected
        difference = changes(job, after)
        assert difference.exact
        stored = merged(stored, difference.doc)
        assert same(stored, write_job(after))
        check(after)
        job = after


def test_the_table_holds_exactly_what_the_protocol_names() -> None:
    moves = {(before, after) for (before, _), after in EXPECTED.items() if before != after}
    assert moves == {
        (before.value, after.value) for before, all_after in jobs.TRANSITIONS.items() for after in all_after
    }


def test_a_new_job_remembers_its_connector() -> None:
    written = write_job(jobs.create(CONNECTOR, NOW, trigger_method=TriggerMethod.SCHEDULED))
    assert written == {
        "connector": {
            "id": "library",
            "configuration": {"directory": {"value": "/books"}},
            "filtering": {"rules": [{"id": "r", "odd": 1}], "note": "kept"},
            "index_name": "search-library",
            "pipeline": {"name": "p"},
            "service_type": "dir",
        },
        "created_at": NOW.isoformat(),
        "last_seen": NOW.isoformat(),
        "deleted_document_count": 0,
        "indexed_document_count": 0,
        "indexed_document_volume": 0,
        "total_document_count": 0,
        "job_type": "full",
        "metadata": {},
        "status": "pending",
        "trigger_method": "scheduled",
    }


def test_an_access_control_job_writes_to_the_access_control_index() -> None:
    job = jobs.create(CONNECTOR, NOW, job_type=JobType.ACCESS_CONTROL)
    assert job.connector.index_name == ".search-acl-filter-search-library"


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"index_name": None}, "index"), ({"service_type": None}, "service type"), ({"deleted": True}, "deleted")],
)
def test_no_job_is_made_for_a_connector_that_cannot_sync(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(TransitionRefused, match=why):
        jobs.create(attrs.evolve(CONNECTOR, **changed), NOW)


def test_a_claim_needs_a_host() -> None:
    with pytest.raises(TransitionRefused, match="host name"):
        jobs.claim(jobs.create(CONNECTOR, NOW), NOW, "")


def test_a_claim_leaves_one_cursor_where_two_could_contradict() -> None:
    job = read_job("j", {"status": "suspended", STRAY_CURSOR: {"at": 1}, "connector": {"id": "c"}})
    for cursor, expected in (({"at": 2}, {"at": 2}), (None, {"at": 1})):
        claimed = jobs.claim(job, NOW, "host", cursor)
        written = write_job(claimed)
        assert STRAY_CURSOR not in written
        assert written["connector"]["sync_cursor"] == expected
        assert not changes(job, claimed).exact


def test_a_resumed_job_goes_on_counting() -> None:
    job = jobs.claim(jobs.create(CONNECTOR, NOW), NOW, "a")
    job = jobs.suspend(job, NOW, Counts(indexed=5, size_bytes=1_600_000))
    job = jobs.claim(job, NOW, "b")
    assert (job.indexed_document_count, job.indexed_document_volume) == (5, 2)


def test_negative_counts_are_a_bug() -> None:
    with pytest.raises(ValueError, match="indexed"):
        Counts(indexed=-1)


def test_a_worker_learns_what_became_of_its_job() -> None:
    mine = jobs.claim(jobs.create(CONNECTOR, NOW), NOW, "a")
    assert jobs.judge(mine, mine) == GoOn()
    assert jobs.judge(mine, jobs.check_in(mine, NOW + timedelta(seconds=9))) == GoOn()
    assert jobs.judge(mine, jobs.request_cancel(mine, NOW)) == Cancel()
    assert isinstance(jobs.judge(mine, None), Stop)
    assert isinstance(jobs.judge(mine, jobs.fail(mine, NOW, "x: y")), Stop)
    taken = jobs.claim(jobs.suspend(mine, NOW), NOW + timedelta(seconds=1), "b")
    assert "b" in jobs.judge(mine, taken).why  # type: ignore[union-attr]


def test_only_running_jobs_are_idle_or_orphaned() -> None:
    pending = jobs.create(CONNECTOR, NOW)
    running = jobs.claim(pending, NOW, "a")
    late = NOW + timedelta(seconds=300)
    assert jobs.is_idle(running, late)
    assert not jobs.is_idle(running, late - timedelta(seconds=1))
    assert jobs.is_idle(SyncJob(status=JobStatus.IN_PROGRESS), NOW)
    assert not jobs.is_idle(pending, late)
    assert jobs.is_orphaned(running, {"other"})
    assert not jobs.is_orphaned(running, {"library"})
    assert not jobs.is_orphaned(pending, set())


def test_a_clock_set_back_does_not_age_a_job() -> None:
    running = jobs.claim(jobs.create(CONNECTOR, NOW), NOW, "a")
    assert jobs.check_in(running, NOW - timedelta(hours=1)).last_seen == NOW


def test_ids_are_not_part_of_what_is_stored() -> None:
    job = jobs.create(Connector(id=ConnectorId("c"), index_name="i", service_type="s"), NOW, job_id=JobId("j"))
    assert job.id == "j"
    assert "id" not in write_job(job)
