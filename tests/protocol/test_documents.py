"""Documents that anybody may have written are read without loss: what nobody changed is written back as it was."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.documents import (
    STRAY_CURSOR,
    Connector,
    ConnectorStatus,
    Features,
    Filtering,
    Flag,
    JobStatus,
    JobType,
    Rules,
    Schedule,
    SyncJob,
    default_filtering,
    read_connector,
    read_job,
    write_connector,
    write_job,
)
from callboard.protocol.jobs import TransitionRefused, complete
from callboard.protocol.wire import InvalidDocument, changes, merged, read, read_stamp, same, write, write_stamp

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
stamps = st.sampled_from(
    [
        None,
        "2025-01-31T12:00:00Z",
        "2025-01-31T12:00:00.123456+00:00",
        "2025-01-31T12:00:00",
        "2025-01-31",
        1738324800000,
    ]
)
texts = st.none() | st.text(max_size=10)
counts = st.sampled_from([None, 0, 7, "12", 3.0])
flags = st.sampled_from([True, False, "true", "false", None])
cursors = st.none() | st.dictionaries(st.text(max_size=6), json_values, max_size=3)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields, and sometimes one that nobody here knows."""
    known = st.fixed_dictionaries({}, optional=fields)
    unknown = st.dictionaries(st.sampled_from(["x_new", "x_other", "_odd"]), json_values, max_size=2)
    return st.builds(lambda a, b: {**a, **b}, known, unknown)


rule_objects = objects(
    id=st.text(max_size=5), policy=json_values, value=json_values, order=json_values, created_at=stamps
)
rules_objects = objects(
    rules=st.lists(rule_objects, max_size=2),
    advanced_snippet=objects(value=json_values, created_at=stamps),
    validation=objects(
        state=st.sampled_from(["edited", "valid", "invalid"]),
        errors=st.lists(objects(ids=st.lists(st.text()), messages=st.lists(st.text())), max_size=2),
    ),
)
filtering_entries = objects(domain=st.sampled_from(["DEFAULT", "other"]), active=rules_objects, draft=rules_objects)
flag_objects = st.none() | objects(enabled=flags)
connector_sources = objects(
    api_key_id=texts,
    configuration=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    deleted=flags,
    error=texts,
    features=st.none()
    | objects(
        sync_rules=st.none() | objects(basic=flag_objects, advanced=flag_objects),
        incremental_sync=flag_objects,
        filtering_rules=flags,
    ),
    filtering=st.none() | filtering_entries | st.lists(filtering_entries, max_size=2),
    index_name=texts,
    is_native=flags,
    last_indexed_document_count=counts,
    last_seen=stamps,
    last_sync_status=st.sampled_from([None, *JobStatus]).map(lambda status: status and status.value),
    pipeline=st.none() | objects(name=st.text(max_size=5), reduce_whitespace=flags),
    scheduling=st.none() | objects(full=objects(enabled=flags, interval=st.text(max_size=10))),
    status=st.sampled_from([status.value for status in ConnectorStatus]),
    sync_cursor=json_values,
)
job_sources = objects(
    **{STRAY_CURSOR: cursors},
    connector=objects(
        id=st.text(max_size=5),
        filtering=st.none()
        | rules_objects
        | st.lists(rules_objects, max_size=2)
        | st.lists(filtering_entries, max_size=1),
        sync_cursor=cursors,
        pipeline=st.none() | objects(name=st.text(max_size=5)),
    ),
    created_at=stamps,
    indexed_document_count=counts,
    metadata=st.dictionaries(st.text(max_size=4), json_values, max_size=2),
    status=st.sampled_from([status.value for status in JobStatus]),
    error=texts,
)


@given(connector_sources)
def test_a_connector_that_nobody_changed_is_written_as_it_was_read(source: dict[str, Any]) -> None:
    before = copy.deepcopy(source)
    connector = read_connector("c", source)
    assert same(write_connector(connector), before)
    assert same(source, before)
    assert not changes(connector, connector)


@given(job_sources)
def test_a_job_that_nobody_changed_is_written_as_it_was_read(source: dict[str, Any]) -> None:
    before = copy.deepcopy(source)
    assert same(write_job(read_job("j", source)), before)
    assert same(source, before)


@given(connector_sources, texts, cursors, st.sampled_from(list(ConnectorStatus)), st.booleans())
def test_a_change_touches_only_what_it_changes(
    source: dict[str, Any], error: str | None, cursor: Any, status: ConnectorStatus, enabled: bool
) -> None:
    before = read_connector("c", source)
    full = attrs.evolve(before.scheduling.full, enabled=enabled)
    after = attrs.evolve(
        before,
        error=error,
        sync_cursor=cursor,
        status=status,
        last_seen=NOW,
        scheduling=attrs.evolve(before.scheduling, full=full),
    )
    written = write_connector(after)
    touched = {"error", "sync_cursor", "status", "last_seen", "scheduling"}
    for key in (source.keys() | written.keys()) - touched:
        assert key in source
        assert key in written
        assert same(source[key], written[key])
    assert read_connector("c", written) == after
    difference = changes(before, after)
    assert difference.doc.keys() <= touched
    if difference.exact:
        assert same(merged(source, difference.doc), written)


@given(json_values, st.sampled_from([Connector, SyncJob, Rules, Filtering, Features]))
def test_anything_is_read_or_refused_with_the_place_named(source: Any, kind: Any) -> None:
    before = copy.deepcopy(source)
    try:
        value = read(kind, source)
    except InvalidDocument as refused:
        assert refused.problems
        assert "must be" in str(refused)
    else:
        assert same(write(value), before)
    assert same(source, before)


@given(st.dictionaries(st.sampled_from([field.name for field in attrs.fields(Connector)]), json_values, max_size=6))
def test_every_field_of_a_connector_takes_any_json_or_names_itself(source: dict[str, Any]) -> None:
    try:
        connector = read_connector("c", source)
    except InvalidDocument as refused:
        assert all(problem.path.split(".")[0].split("[")[0] in source for problem in refused.problems)
    else:
        written = write_connector(connector)
        source.pop("id", None) if source.get("id") == "c" else None
        assert same(written, source)


def test_all_problems_are_listed_at_once_and_no_value_is_shown() -> None:
    source = {"status": 3.5, "filtering": [{"active": {"rules": [3, {"created_at": "hunter2"}]}}], "deleted": {}}
    with pytest.raises(InvalidDocument) as refused:
        read_connector("library", source)
    paths = {problem.path for problem in refused.value.problems}
    assert paths == {"status", "filtering[0].active.rules[0]", "filtering[0].active.rules[1].created_at", "deleted"}
    assert "hunter2" not in str(refused.value)
    assert "library" in str(refused.value)


def test_a_document_made_here_stores_no_nulls() -> None:
    written = write_connector(Connector(filtering=(default_filtering(NOW),)))
    assert None not in written.values()
    assert "features" not in written
    assert "pipeline" not in written
    assert written["status"] == "created"
    assert type(written["status"]) is str
    assert written["filtering"][0]["active"]["rules"][0]["id"] == "DEFAULT"
    assert json.loads(json.dumps(written)) == written
    assert read_connector("", written) == Connector(filtering=(default_filtering(NOW),))


@pytest.mark.parametrize(
    "shape",
    [
        {"rules": [{"id": "r"}]},
        [{"rules": [{"id": "r"}]}],
        [{"domain": "DEFAULT", "active": {"rules": [{"id": "r"}]}, "draft": {}}],
        {"active": {"rules": [{"id": "r"}]}},
    ],
)
def test_the_rules_of_a_job_are_found_in_every_shape(shape: Any) -> None:
    job = read_job("j", {"connector": {"id": "c", "filtering": shape}})
    assert [rule.id for rule in job.connector.filtering.rules] == ["r"]


def test_the_stray_cursor_of_the_reference_is_understood() -> None:
    assert read_job("j", {STRAY_CURSOR: {"at": 1}, "connector": {"id": "c"}}).sync_cursor == {"at": 1}
    assert read_job("j", {STRAY_CURSOR: {"at": 1}, "connector": {"sync_cursor": None}}).sync_cursor == {"at": 1}
    assert read_job("j", {STRAY_CURSOR: {"at": 1}, "connector": {"sync_cursor": {"at": 2}}}).sync_cursor == {"at": 2}
    assert read_job("j", {}).sync_cursor is None


def test_features_are_honoured_in_old_and_new_spelling() -> None:
    old = read_connector("c", {"features": {"filtering_rules": True, "filtering_advanced_config": True}}).features
    assert old is not None
    assert old.basic_rules_enabled
    assert old.advanced_rules_enabled
    assert old.native_connector_api_keys_enabled
    new = read_connector("c", {"features": {"sync_rules": {"advanced": {"enabled": True}}, "filtering_rules": False}})
    assert new.features is not None
    assert new.features.sync_rules_enabled
    assert not new.features.basic_rules_enabled
    assert not Features().sync_rules_enabled
    assert not Features(native_connector_api_keys=Flag(enabled=False)).native_connector_api_keys_enabled


def test_the_default_domain_is_found_and_replaced_in_place() -> None:
    connector = read_connector("c", {"filtering": [{"domain": "x"}, {"domain": "DEFAULT", "note": 1}]})
    draft = Rules(rules=default_filtering(NOW).draft.rules)
    changed = connector.with_rules(attrs.evolve(connector.rules, draft=draft))
    written = write_connector(changed)["filtering"]
    assert [entry["domain"] for entry in written] == ["x", "DEFAULT"]
    assert written[1]["note"] == 1
    assert changed.rules.draft == draft
    assert read_connector("c", {}).with_rules(Filtering()).filtering == (Filtering(),)


def test_null_and_absent_stay_apart() -> None:
    connector = read_connector("c", {"error": None})
    assert write_connector(attrs.evolve(connector, language=None)) == {"error": None}
    assert write_connector(attrs.evolve(connector, error="x")) == {"error": "x"}
    cleared = attrs.evolve(read_connector("c", {"error": "x"}), error=None)
    assert write_connector(cleared) == {"error": None}


def test_a_key_that_leaves_an_object_asks_for_the_whole_document() -> None:
    before = read_connector("c", {"sync_cursor": {"a": 1, "b": 2}})
    after = attrs.evolve(before, sync_cursor={"a": 1})
    assert changes(before, after).doc == {}
    assert not changes(before, after).exact
    assert changes(before, after)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-31T12:00:00", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31T12:00:00Z", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31T14:00:00+02:00", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31T12:00:00.123456789Z", datetime(2025, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2025-01-31", datetime(2025, 1, 31, tzinfo=UTC)),
        ("2025-02", datetime(2025, 2, 1, tzinfo=UTC)),
        ("2025", datetime(2025, 1, 1, tzinfo=UTC)),
        (1738324800123, datetime(2025, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)),
        ("1738324800123", datetime(2025, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)),
    ],
)
def test_stamps_are_read_as_elasticsearch_reads_them(text: Any, expected: datetime) -> None:
    assert read_stamp(text) == expected


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none())
def test_no_stamp_raises_anything_but_value_errors(value: Any) -> None:
    try:
        moment = read_stamp(value)
    except ValueError:
        return
    assert moment.utcoffset() == timedelta(0)


@given(st.datetimes(timezones=st.none() | st.just(UTC)))
def test_stamps_survive(moment: datetime) -> None:
    assert read_stamp(write_stamp(moment)) == (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def test_the_kinds_of_sync_keep_their_bookkeeping_apart() -> None:
    connector = read_connector(
        "c",
        {
            "last_sync_status": "completed",
            "last_access_control_sync_status": "error",
            "last_incremental_sync_scheduled_at": "2025-01-01",
            "scheduling": {"incremental": {"enabled": True, "interval": "0 0 1 * * ?"}},
        },
    )
    assert connector.status_of(JobType.INCREMENTAL) is JobStatus.COMPLETED
    assert connector.status_of(JobType.ACCESS_CONTROL) is JobStatus.ERROR
    assert connector.scheduled_at(JobType.INCREMENTAL) == datetime(2025, 1, 1, tzinfo=UTC)
    assert connector.scheduled_at(JobType.FULL) is None
    assert connector.scheduling.of(JobType.INCREMENTAL) == Schedule(enabled=True, interval="0 0 1 * * ?")


@pytest.mark.parametrize("status", ["hibernating", "Connected"])
def test_a_status_of_a_newer_version_is_kept_and_means_nothing_here(status: str) -> None:
    connector = read_connector("library", {"status": status, "last_sync_status": "postponed"})
    assert connector.status == status
    assert connector.status not in list(ConnectorStatus)
    assert write_connector(connector) == {"status": status, "last_sync_status": "postponed"}
    job = read_job("j", {"status": "postponed"})
    assert not job.status.is_terminal
    assert not job.status.is_running
    assert not job.status.may_be_claimed
    assert write_job(job) == {"status": "postponed"}
    with pytest.raises(TransitionRefused, match="unknown to this version"):
        complete(job, datetime(2030, 1, 1, tzinfo=UTC))
