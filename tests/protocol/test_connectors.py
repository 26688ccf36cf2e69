"""The life of a connector document: what people and services may do to it, and what each of them writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol import connectors, jobs
from callboard.protocol.documents import (
    Connector,
    ConnectorStatus,
    JobStatus,
    JobType,
    SyncJob,
    read_connector,
    write_connector,
)
from callboard.protocol.indices import InvalidIndexName
from callboard.protocol.jobs import TransitionRefused
from callboard.protocol.wire import changes, merged, same

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)

ALLOWED = {
    "created": {"needs_configuration", "error"},
    "needs_configuration": {"configured"},
    "configured": {"needs_configuration", "connected", "error"},
    "connected": {"configured", "error"},
    "error": {"connected", "configured"},
}


@given(st.lists(st.sampled_from(list(ConnectorStatus)), max_size=20))
def test_no_walk_leaves_the_machine(walk: list[ConnectorStatus]) -> None:
    connector = connectors.create("c", NOW, index_name="search-c")
    for wanted in walk:
        if wanted.value in ALLOWED[connector.status.value]:
            connector = connectors.change_status(connector, wanted)
            assert connector.status is wanted
        else:
            with pytest.raises(TransitionRefused) as refused:
                connectors.change_status(connector, wanted)
            assert connector.status.value in refused.value.why
            assert wanted.value in refused.value.why


def test_a_new_connector_has_the_defaults_of_elasticsearch() -> None:
    written = write_connector(connectors.create("c", NOW, index_name="search-c"))
    filtering = written.pop("filtering")
    assert filtering[0]["domain"] == "DEFAULT"
    off = {"enabled": False, "interval": "0 0 0 * * ?"}
    assert written == {
        "configuration": {},
        "custom_scheduling": {},
        "deleted": False,
        "index_name": "search-c",
        "is_native": False,
        "name": "",
        "scheduling": {"full": off, "incremental": off, "access_control": off},
        "status": "created",
        "sync_now": False,
    }
    assert connectors.create("c", NOW, is_native=True).status is ConnectorStatus.NEEDS_CONFIGURATION
    with pytest.raises(InvalidIndexName, match="content-"):
        connectors.create("c", NOW, index_name="search-c", is_native=True)


def ready(**fields: Any) -> Connector:
    return Connector(
        **{"index_name": "search-c", "service_type": "dir", "status": ConnectorStatus.CONFIGURED, **fields}
    )


def test_errors_come_and_go() -> None:
    broken = connectors.report_error(ready(), "no such folder")
    assert (broken.status, broken.error) == (ConnectorStatus.ERROR, "no such folder")
    for nothing in (None, ""):
        mended = connectors.report_error(broken, nothing)
        assert (mended.status, mended.error) == (ConnectorStatus.CONNECTED, None)
    assert connectors.connected(broken).error is None


@pytest.mark.parametrize("status", [ConnectorStatus.CREATED, ConnectorStatus.NEEDS_CONFIGURATION])
def test_nothing_is_connected_before_it_is_configured(status: ConnectorStatus) -> None:
    with pytest.raises(TransitionRefused, match=status.value):
        connectors.connected(ready(status=status))
    with pytest.raises(TransitionRefused, match="deleted"):
        connectors.connected(ready(deleted=True))


def test_changes_of_kind_and_place() -> None:
    assert connectors.change_service_type(ready(status=ConnectorStatus.CREATED), "s3").status == "created"
    assert connectors.change_service_type(ready(), "s3").status == "needs_configuration"
    with pytest.raises(InvalidIndexName):
        connectors.change_native(ready(), True)
    native = connectors.change_native(ready(index_name="content-c", status=ConnectorStatus.CONNECTED), True)
    assert (native.is_native, native.status) == (True, ConnectorStatus.CONFIGURED)
    assert connectors.change_index_name(ready(), None).index_name is None
    with pytest.raises(InvalidIndexName):
        connectors.change_index_name(native, "search-c")
    assert connectors.configured(ready(), {"a": {}}).status is ConnectorStatus.CONFIGURED
    assert connectors.with_service_type(ready(), "x").service_type == "dir"
    assert connectors.with_service_type(ready(service_type=None), "x").service_type == "x"


def test_the_heartbeat_is_due_by_age() -> None:
    connector = ready()
    assert connectors.needs_check_in(connector, NOW)
    seen = connectors.check_in(connector, NOW)
    assert not connectors.needs_check_in(seen, NOW + timedelta(seconds=299))
    assert connectors.needs_check_in(seen, NOW + timedelta(seconds=300))
    assert connectors.check_in(seen, NOW - timedelta(days=1)).last_seen == NOW


def run(job_type: JobType, connector: Connector) -> tuple[Connector, SyncJob]:
    job = jobs.claim(jobs.create(connector, NOW, job_type=job_type), NOW, "host")
    return connectors.sync_starts(connector, job_type), job


def test_one_job_of_a_kind_at_a_time() -> None:
    started, _ = run(JobType.FULL, ready(error="old"))
    assert (started.status, started.error, started.last_sync_status) == ("connected", None, "in_progress")
    with pytest.raises(TransitionRefused, match="content"):
        connectors.sync_starts(started, JobType.INCREMENTAL)
    both = connectors.sync_starts(started, JobType.ACCESS_CONTROL)
    assert both.last_access_control_sync_status is JobStatus.IN_PROGRESS


@pytest.mark.parametrize("job_type", list(JobType))
@pytest.mark.parametrize("ending", ["complete", "fail", "suspend", "cancel"])
def test_what_a_job_leaves_on_its_connector(job_type: JobType, ending: str) -> None:
    before = read_connector("c", {**write_connector(ready(sync_cursor={"at": 1})), "x_new": [1]})
    connector, job = run(job_type, before)
    counts = jobs.Counts(indexed=7, deleted=2)
    match ending:
        case "complete":
            job = jobs.complete(job, NOW, counts)
        case "fail":
            job = jobs.fail(job, NOW, "OSError: gone", counts)
        case "suspend":
            job = jobs.suspend(job, NOW, counts)
        case _:
            job = jobs.cancel(jobs.request_cancel(job, NOW), NOW, counts)
    ended = connectors.sync_ends(connector, job, LATER, sync_cursor={"at": 2})
    error = "OSError: gone" if ending == "fail" else None
    assert ended.last_synced == LATER
    assert ended.status == ("error" if error else "connected")
    assert ended.error == error
    assert ended.status_of(job_type) is job.status
    assert (ended.last_sync_error, ended.last_access_control_sync_error) == (
        (error, None) if job_type.is_content else (None, error)
    )
    counted = ending != "suspend"
    assert ended.last_indexed_document_count == (7 if counted else None)
    assert ended.last_deleted_document_count == (2 if counted else None)
    moved = ending == "complete" and job_type.is_content
    assert ended.sync_cursor == ({"at": 2} if moved else {"at": 1})
    difference = changes(connector, ended)
    assert same(merged(write_connector(connector), difference.doc), write_connector(ended))
    assert write_connector(ended)["x_new"] == [1]
    other = JobType.ACCESS_CONTROL if job_type.is_content else JobType.FULL
    assert ended.status_of(other) is None


def test_a_vanished_job_is_an_error_of_both_kinds() -> None:
    lost = connectors.sync_ends(ready(sync_cursor={"at": 1}), None, NOW)
    assert lost.status is ConnectorStatus.ERROR
    assert lost.last_sync_status is lost.last_access_control_sync_status is JobStatus.ERROR
    assert lost.last_sync_error == lost.last_access_control_sync_error == lost.error
    assert lost.sync_cursor == {"at": 1}


def test_a_running_job_has_not_ended() -> None:
    connector, job = run(JobType.FULL, ready())
    with pytest.raises(TransitionRefused, match="in_progress"):
        connectors.sync_ends(connector, job, NOW)


def test_a_fire_time_is_taken_once() -> None:
    taken = connectors.schedule_fired(ready(), JobType.INCREMENTAL, NOW)
    assert taken.last_incremental_sync_scheduled_at == NOW
    assert taken.last_sync_scheduled_at is None
    for earlier in (NOW, NOW - timedelta(seconds=1)):
        with pytest.raises(TransitionRefused, match="already"):
            connectors.schedule_fired(taken, JobType.INCREMENTAL, earlier)
    assert connectors.schedule_fired(taken, JobType.INCREMENTAL, LATER).scheduled_at(JobType.INCREMENTAL) == LATER


WANTED = connectors.features_document(
    basic_rules=True, advanced_rules=False, incremental_sync=True, document_level_security=False
)


def test_features_of_a_self_managed_connector_are_overwritten() -> None:
    stored = {"features": {"filtering_rules": True, "x_new": {"a": 1}, "incremental_sync": {"enabled": False}}}
    written = write_connector(connectors.with_features(read_connector("c", stored), WANTED))["features"]
    assert written == {**WANTED, "x_new": {"a": 1}}


def test_features_of_a_native_connector_are_only_completed() -> None:
    stored = {
        "is_native": True,
        "features": {"sync_rules": {"basic": {"enabled": False}}, "incremental_sync": {"enabled": False}},
    }
    written = write_connector(connectors.with_features(read_connector("c", stored), WANTED))["features"]
    assert written == {
        **WANTED,
        "sync_rules": {"basic": {"enabled": False}, "advanced": {"enabled": False}},
        "incremental_sync": {"enabled": False},
    }


def test_features_that_are_there_already_change_nothing() -> None:
    connector = connectors.with_features(ready(), WANTED)
    assert connector.features is not None
    assert connector.features.basic_rules_enabled
    assert connectors.with_features(connector, WANTED) is connector


def test_deleted_and_unconfigured_connectors_are_left_alone() -> None:
    assert attrs.evolve(ready()).is_schedulable
    assert not ready(deleted=True).is_schedulable
    assert not ready(status=ConnectorStatus.CREATED).is_schedulable
