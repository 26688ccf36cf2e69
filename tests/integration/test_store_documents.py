"""Connectors, jobs and content on a server: what is written can be found, however much there is, and races are refused."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import orjson
import pytest
import trio

from callboard.protocol import connectors as connector_steps
from callboard.protocol.documents import (
    ConnectorStatus,
    JobStatus,
    JobType,
    Rules,
    TriggerMethod,
    Validation,
    ValidationState,
    default_rule,
)
from callboard.protocol.indices import ACL_INDEX_PREFIX, CONNECTORS_ALIAS, InvalidIndexName
from callboard.protocol.jobs import Counts, TransitionRefused, is_idle
from callboard.protocol.store import (
    BulkAnswer,
    Conflict,
    Incomplete,
    NotFound,
    Refused,
    RetryPolicy,
    Store,
    Unavailable,
    Unreachable,
    Unreadable,
    open_store,
)
from callboard.runtime import new_id, now

from .conftest import Server


def lines(*documents: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(document) + b"\n" for document in documents)


def numbered(count: int, timestamp: str | None = "2026-01-01T00:00:00+00:00") -> bytes:
    stamp = {} if timestamp is None else {"_timestamp": timestamp}
    return b"".join(
        lines({"index": {"_id": f"d{number}"}}, {"id": f"d{number}", "n": number, **stamp}) for number in range(count)
    )


def outcomes(answer: BulkAnswer) -> list[tuple[str, int, str | None]]:
    return [(kind, item["status"], item.get("result")) for each in answer.items for kind, item in each.items()]


async def test_the_protocol_indices_are_made_once_by_whoever_comes_first(server: Server) -> None:
    async with open_store(server.target) as store, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(store.ensure_indices)
    async with open_store(server.target) as store:
        assert await store.ensure_indices() == ()
        settings = await store.client.indices.get_settings(index=CONNECTORS_ALIAS)
        (index,) = settings.body
        assert index == ".elastic-connectors-v1"
        assert settings.body[index]["settings"]["index"]["hidden"] == "true"
        mapping = (await store.client.indices.get_mapping(index=CONNECTORS_ALIAS)).body[index]["mappings"]
        assert mapping["dynamic"] == "false"
        assert mapping["properties"]["index_name"] == {"type": "keyword"}


# Content


async def test_an_index_is_created_when_absent_and_untouched_when_present(store: Store, index: str) -> None:
    assert await store.content.ensure_index(index, mappings={"properties": {"n": {"type": "long"}}})
    assert not await store.content.ensure_index(index)
    await store.client.indices.put_alias(index=index, name=f"{index}-alias")
    assert not await store.content.ensure_index(f"{index}-alias")
    mapping = (await store.client.indices.get_mapping(index=index)).body[index]["mappings"]
    assert mapping["properties"]["n"] == {"type": "long"}


async def test_an_index_that_cannot_be_is_refused_by_name(store: Store) -> None:
    with pytest.raises(Refused, match="Upper"):
        await store.content.ensure_index("Upper")


async def test_an_access_control_index_is_hidden_and_not_dynamic(store: Store, index: str) -> None:
    name = ACL_INDEX_PREFIX + index
    try:
        assert await store.content.ensure_index(name)
        found = (await store.client.indices.get(index=name)).body[name]
        assert found["mappings"]["dynamic"] == "false"
        assert found["settings"]["index"]["hidden"] == "true"
    finally:
        assert await store.content.delete_index(name)
    assert not await store.content.delete_index(name)


async def test_every_bulk_item_has_its_outcome_in_the_order_sent(store: Store, index: str) -> None:
    await store.content.ensure_index(index, mappings={"properties": {"n": {"type": "long"}}})
    first = await store.content.bulk(numbered(2), index=index)
    assert not first.has_errors
    assert outcomes(first) == [("index", 201, "created"), ("index", 201, "created")]
    body = lines(
        {"index": {"_id": "d0"}},
        {"n": 5},
        {"index": {"_id": "bad"}},
        {"n": "not a number"},
        {"delete": {"_id": "absent"}},
        {"create": {"_id": "d1"}},
        {"n": 1},
        {"update": {"_id": "d1"}},
        {"doc": {"n": 7}, "doc_as_upsert": True},
        {"delete": {"_id": "d0"}},
    )
    second = await store.content.bulk(body, index=index, with_ids=True)
    assert second.has_errors
    assert outcomes(second) == [
        ("index", 200, "updated"),
        ("index", 400, None),
        ("delete", 404, "not_found"),
        ("create", 409, None),
        ("update", 200, "updated"),
        ("delete", 200, "deleted"),
    ]
    assert [item["_id"] for each in second.items for item in each.values()] == ["d0", "bad", "absent", "d1", "d1", "d0"]
    assert second.items[1]["index"]["error"]["type"] == "document_parsing_exception"
    assert "not a number" in orjson.dumps(second.items[1]).decode()


async def test_bulk_operations_can_name_their_own_index_and_version(store: Store, index: str) -> None:
    await store.content.bulk(lines({"index": {"_index": index, "_id": "a"}}, {"n": 1}))
    stale = lines({"index": {"_index": index, "_id": "a", "if_seq_no": 99, "if_primary_term": 1}}, {"n": 2})
    assert outcomes(await store.content.bulk(stale)) == [("index", 409, None)]


async def test_a_bulk_request_that_is_broken_says_why(store: Store, index: str) -> None:
    await store.content.ensure_index(index)
    with pytest.raises(Refused, match=r"\(400\)\. It says: \S"):
        await store.content.bulk(b'{"index": {"_id": "1"}\n{}\n', index=index)
    with pytest.raises(Refused, match=r"\(400\)\. It says: \S"):
        await store.content.bulk(b'{"dance": {"_id": "1"}}\n{}\n', index=index)


async def test_documents_pass_the_pipeline_and_a_missing_one_is_each_items_error(store: Store, index: str) -> None:
    pipeline = f"{index}-pipeline"
    await store.client.ingest.put_pipeline(id=pipeline, processors=[{"set": {"field": "passed", "value": True}}])
    try:
        answer = await store.content.bulk(numbered(1), index=index, pipeline=pipeline, refresh=True)
        assert not answer.has_errors
        assert (await store.client.get(index=index, id="d0"))["_source"]["passed"] is True
    finally:
        await store.client.ingest.delete_pipeline(id=pipeline)
    absent = await store.content.bulk(numbered(1), index=index, pipeline=pipeline)
    assert absent.has_errors
    assert pipeline in orjson.dumps(absent.items).decode()


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 1000])
async def test_all_existing_documents_are_listed_once_whatever_the_page_size(
    store: Store, index: str, count: int
) -> None:
    await store.content.ensure_index(index)
    if count:
        assert not (await store.content.bulk(numbered(count), index=index)).has_errors
    seen: list[str] = []
    async with aclosing(store.content.existing(index, page_size=100)) as pages:
        async for page in pages:
            assert len(page.ids) == len(page.timestamps) == len(page.seq_nos) <= 100
            assert all(stamp == "2026-01-01T00:00:00+00:00" for stamp in page.timestamps)
            seen += page.ids
    assert len(seen) == count
    assert set(seen) == {f"d{number}" for number in range(count)}


async def test_the_listing_is_of_one_moment_and_knows_sequence_numbers(store: Store, index: str) -> None:
    await store.content.ensure_index(index)
    await store.content.bulk(numbered(25, timestamp=None), index=index)
    seen: dict[str, int] = {}
    async with aclosing(store.content.existing(index, page_size=10, fields=["n"])) as pages:
        async for page in pages:
            if not seen:
                await store.content.bulk(lines({"index": {"_id": "late"}}, {"n": 1}), index=index, refresh=True)
            assert page.timestamps == [None] * len(page)
            assert page.sources is not None
            assert [f"d{source['n']}" for source in page.sources] == page.ids
            seen |= dict(zip(page.ids, page.seq_nos, strict=True))
    assert len(seen) == 25
    identity = next(iter(seen))
    found = await store.client.get(index=index, id=identity)
    assert found["_seq_no"] == seen[identity]


async def test_a_listing_left_early_frees_its_point_in_time(store: Store, index: str) -> None:
    await store.content.ensure_index(index)
    await store.content.bulk(numbered(30), index=index)
    closed: list[str] = []
    node: Any = store.client.transport.node_pool.get()
    perform = node.perform_request

    async def watch(method: str, target: str, **rest: Any) -> Any:
        if method == "DELETE":
            closed.append(target)
        return await perform(method, target, **rest)

    node.perform_request = watch
    async with aclosing(store.content.existing(index, page_size=10)) as pages:
        async for _ in pages:
            break
    assert closed == ["/_pit"]


async def test_a_listing_whose_index_vanishes_is_an_error_and_not_short(
    store: Store, server: Server, index: str
) -> None:
    await store.content.ensure_index(index)
    await store.content.bulk(numbered(30), index=index)
    async with (
        open_store(attrs.evolve(server.target, retries=RetryPolicy(patience_s=0))) as impatient,
        aclosing(impatient.content.existing(index, page_size=10)) as pages,
    ):
        assert len(await anext(pages)) == 10
        await store.content.delete_index(index)
        with pytest.raises((Incomplete, NotFound, Unavailable)):
            await anext(pages)
    async with aclosing(store.content.existing(index)) as pages:
        with pytest.raises(NotFound):
            await anext(pages)


async def test_counting_and_deleting_by_query(store: Store, index: str) -> None:
    await store.content.ensure_index(index)
    await store.content.bulk(numbered(20), index=index)
    assert await store.content.count(index, refresh=True) == 20
    assert await store.content.count(index, {"range": {"n": {"lt": 5}}}) == 5
    assert await store.content.delete_by_query(index, {"range": {"n": {"lt": 5}}}) == 5
    assert await store.content.count(index) == 15
    with pytest.raises(NotFound):
        await store.content.count(f"{index}-absent")


# Connectors


async def test_a_connector_is_made_like_elasticsearch_makes_it(store: Store, connector_id: str) -> None:
    made = await store.connectors.create(connector_id, index_name=connector_id, name="Library", service_type="dir")
    assert await store.connectors.get(connector_id) == made
    assert made.status is ConnectorStatus.CREATED
    assert not made.scheduling.full.enabled
    assert [rule.id for rule in made.rules.active.rules] == ["DEFAULT"]
    with pytest.raises(Conflict, match="exists already"):
        await store.connectors.create(connector_id, name="Another")
    with pytest.raises(Refused, match=connector_id):
        await store.connectors.create(index_name=connector_id)
    with pytest.raises(InvalidIndexName):
        await store.connectors.create(index_name="_bad")


async def test_a_connector_that_is_not_there_is_named(store: Store) -> None:
    absent = f"store-{new_id()}"
    for call in (
        store.connectors.get(absent),
        store.connectors.check_in(absent),
        store.connectors.update(absent, connector_steps.connected),
        store.connectors.delete(absent),
        store.connectors.delete(absent, hard=True),
    ):
        with pytest.raises(NotFound, match=absent):
            await call


async def test_a_deleted_connector_looks_absent_until_asked_for(store: Store, connector_id: str) -> None:
    await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    await store.connectors.delete(connector_id)
    with pytest.raises(NotFound):
        await store.connectors.get(connector_id)
    with pytest.raises(NotFound):
        await store.connectors.update(connector_id, lambda connector: connector)
    assert (await store.connectors.get(connector_id, include_deleted=True)).deleted
    assert await store.connectors.exists(connector_id)
    assert [found.id async for found in store.connectors.list(ids=[connector_id])] == []
    deleted = store.connectors.list(ids=[connector_id], include_deleted=True)
    assert [found.id async for found in deleted] == [connector_id]


async def test_own_connectors_are_those_named_and_those_of_the_types(store: Store, connector_id: str) -> None:
    kind = connector_id
    ids = [f"{connector_id}-{name}" for name in ("named", "typed", "native", "other")]
    try:
        await store.connectors.create(ids[0], service_type="dir")
        await store.connectors.create(ids[1], service_type=kind)
        await store.connectors.create(ids[2], service_type=kind, is_native=True)
        await store.connectors.create(ids[3], service_type="dir")
        own = {found.id async for found in store.connectors.own([ids[0]], [kind])}
        assert own == {ids[0], ids[1]}
        assert {found.id async for found in store.connectors.own([ids[2]])} == {ids[2]}
    finally:
        for each in ids:
            await store.connectors.delete(each, hard=True)


async def test_more_connectors_than_a_page_are_all_listed(store: Store, connector_id: str) -> None:
    ids = [f"{connector_id}-{number:02}" for number in range(25)]
    source = connector_steps.create(connector_id, now(), service_type=connector_id)
    for each in ids:
        await store.connectors.documents.create(each, source)
    try:
        query = {"term": {"service_type": connector_id}}
        sort = [{"service_type": "asc"}]
        found = [found.id async for found in store.connectors.documents.list(query, sort, page_size=10)]
        assert sorted(found) == ids
    finally:
        await store.connectors.documents.delete_matching({"term": {"service_type": connector_id}})


async def test_an_unreadable_connector_is_reported_and_does_not_hide_the_others(
    store: Store, connector_id: str
) -> None:
    await store.connectors.create(connector_id, service_type="dir")
    broken = f"{connector_id}-broken"
    await store.client.index(
        index=CONNECTORS_ALIAS,
        id=broken,
        document={"last_indexed_document_count": [1, 2], "service_type": "dir"},
        refresh=True,
    )
    reported: list[Unreadable] = []
    store.connectors.documents.on_unreadable = reported.append
    try:
        found = [found.id async for found in store.connectors.list(ids=[connector_id, broken])]
    finally:
        await store.client.delete(index=CONNECTORS_ALIAS, id=broken, refresh=True)
    assert found == [connector_id]
    assert [each.id for each in reported] == [broken]
    assert "last_indexed_document_count" in str(reported[0].error)


async def test_of_several_services_one_takes_a_fire_time(store: Store, server: Server, connector_id: str) -> None:
    await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    fire_time = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    taken: list[int] = []

    async def service(number: int) -> None:
        async with open_store(server.target) as own:
            try:
                await own.connectors.schedule_fired(connector_id, JobType.FULL, fire_time)
            except TransitionRefused:
                return
            taken.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(service, number)
    assert len(taken) == 1
    connector = await store.connectors.get(connector_id)
    assert connector.last_sync_scheduled_at == fire_time


async def test_of_several_jobs_of_one_kind_one_starts(store: Store, connector_id: str) -> None:
    await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    await store.connectors.sync_starts(connector_id, JobType.FULL)
    with pytest.raises(TransitionRefused, match="already runs"):
        await store.connectors.sync_starts(connector_id, JobType.INCREMENTAL)
    assert (
        await store.connectors.sync_starts(connector_id, JobType.ACCESS_CONTROL)
    ).status is ConnectorStatus.CONNECTED


async def test_what_others_write_meanwhile_is_kept(store: Store, connector_id: str) -> None:
    await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    documents = store.connectors.documents
    read = documents.read

    async def read_then(document_id: str) -> Any:
        documents.read = read  # type: ignore[method-assign]
        found = await read(document_id)
        await store.client.update(
            index=CONNECTORS_ALIAS, id=document_id, doc={"name": "by Kibana", "a_new_field": {"x": [1, 2.50]}}
        )
        return found

    documents.read = read_then  # type: ignore[method-assign]
    await store.connectors.failed(connector_id, "TypeError: something broke")
    stored = (await store.client.get(index=CONNECTORS_ALIAS, id=connector_id))["_source"]
    assert stored["name"] == "by Kibana"
    assert stored["a_new_field"] == {"x": [1, 2.5]}
    assert (stored["status"], stored["error"]) == ("error", "TypeError: something broke")


async def test_a_cursor_replaces_the_old_one_whole(store: Store, connector_id: str) -> None:
    await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    for cursor in ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}):
        job = await store.jobs.claim((await store.jobs.create(await store.connectors.get(connector_id))).id, "here")
        await store.connectors.sync_starts(connector_id, JobType.FULL)
        done = await store.jobs.complete(job, Counts(indexed=2, deleted=1))
        ended = await store.connectors.sync_ends(connector_id, done, cursor)
        assert ended.sync_cursor == cursor
    stored = (await store.client.get(index=CONNECTORS_ALIAS, id=connector_id))["_source"]
    assert stored["sync_cursor"] == {"b": {"d": 3}}
    assert stored["last_indexed_document_count"] == 2
    assert stored["last_sync_status"] == "completed"


async def test_a_valid_draft_becomes_active_unless_it_was_edited_meanwhile(store: Store, connector_id: str) -> None:
    await store.connectors.create(connector_id, service_type="dir")
    rules = Rules(rules=(default_rule(now(), order=1),), validation=Validation(state=ValidationState.EDITED))
    edited = await store.connectors.update(
        connector_id,
        lambda connector: connector.with_rules(attrs.evolve(connector.rules, draft=rules)),
    )
    valid = Validation(state=ValidationState.VALID)
    after = await store.connectors.draft_validated(connector_id, edited.rules.draft, valid)
    assert after.rules.active.rules == rules.rules
    assert after.rules.draft.validation.state is ValidationState.VALID
    with pytest.raises(TransitionRefused, match="edited meanwhile"):
        await store.connectors.draft_validated(connector_id, edited.rules.draft, valid)


async def test_a_heartbeat_moves_last_seen(store: Store, connector_id: str) -> None:
    await store.connectors.create(connector_id)
    before = now()
    await store.connectors.check_in(connector_id)
    seen = (await store.connectors.get(connector_id)).last_seen
    assert seen is not None
    assert seen >= before - timedelta(seconds=1)


# Jobs


async def test_jobs_are_found_by_what_they_are(store: Store, connector_id: str) -> None:
    connector = await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    full = await store.jobs.create(connector)
    access = await store.jobs.create(connector, JobType.ACCESS_CONTROL, TriggerMethod.SCHEDULED)
    ended = await store.jobs.claim((await store.jobs.create(connector)).id, "here")
    suspended = await store.jobs.claim((await store.jobs.create(connector)).id, "here")
    await store.jobs.fail(ended, "Broken: by a test", Counts(indexed=4), {"seen": 4})
    await store.jobs.suspend(suspended, Counts(indexed=1))
    assert access.connector.index_name == ACL_INDEX_PREFIX + connector_id
    pending = [job.id async for job in store.jobs.pending([connector_id])]
    assert pending == [full.id, access.id, suspended.id]
    content = [job.id async for job in store.jobs.pending([connector_id], [JobType.FULL, JobType.INCREMENTAL])]
    assert content == [full.id, suspended.id]
    failed = [job async for job in store.jobs.list(connector_ids=[connector_id], statuses=[JobStatus.ERROR])]
    assert [(job.id, job.error, job.indexed_document_count, job.metadata) for job in failed] == [
        (ended.id, "Broken: by a test", 4, {"seen": 4})
    ]
    newest = [job.id async for job in store.jobs.list(connector_ids=[connector_id], newest_first=True)]
    assert newest == [suspended.id, ended.id, access.id, full.id]
    assert [job async for job in store.jobs.pending(["store-nobody"])] == []


async def test_a_suspended_job_goes_on_with_its_counts(store: Store, connector_id: str) -> None:
    connector = await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    first = await store.jobs.claim((await store.jobs.create(connector)).id, "one", {"at": 1})
    await store.jobs.report(first, Counts(indexed=5, deleted=2), {"page": 3})
    await store.jobs.suspend(first)
    second = await store.jobs.claim(first.id, "two", {"at": 2})
    assert (second.indexed_document_count, second.deleted_document_count) == (5, 2)
    assert second.sync_cursor == {"at": 2}
    assert second.metadata == {"page": 3}


async def test_a_waiting_job_is_canceled_at_once_and_a_running_one_by_its_worker(
    store: Store, connector_id: str
) -> None:
    connector = await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    waiting = await store.jobs.request_cancel((await store.jobs.create(connector)).id)
    assert waiting.status is JobStatus.CANCELED
    assert waiting.canceled_at == waiting.completed_at == waiting.cancelation_requested_at
    mine = await store.jobs.claim((await store.jobs.create(connector)).id, "here")
    assert (await store.jobs.request_cancel(mine.id)).status is JobStatus.CANCELING
    assert (await store.jobs.cancel(mine)).status is JobStatus.CANCELED
    with pytest.raises(TransitionRefused, match="it is over"):
        await store.jobs.request_cancel(mine.id)


async def test_lost_jobs_are_found_and_one_that_comes_back_is_spared(store: Store, connector_id: str) -> None:
    connector = await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    mine = await store.jobs.claim((await store.jobs.create(connector)).id, "here")
    assert [job.id async for job in store.jobs.idle([connector_id])] == []
    await store.jobs.documents.update(mine.id, lambda job: attrs.evolve(job, last_seen=now() - timedelta(hours=1)))
    assert [job.id async for job in store.jobs.idle([connector_id])] == [mine.id]
    everybody = [found.id async for found in store.connectors.list(include_deleted=True)]
    assert mine.id not in [job.id async for job in store.jobs.orphaned(everybody)]
    others = [each for each in everybody if each != connector_id]
    assert mine.id in [job.id async for job in store.jobs.orphaned(others)]
    await store.jobs.check_in(mine)
    with pytest.raises(TransitionRefused, match="come back to life"):
        await store.jobs.fail_lost(mine.id, "Idle", is_idle)
    failed = await store.jobs.fail_lost(mine.id, "Idle: nobody there", lambda job, moment: True)
    assert (failed.status, failed.error) == (JobStatus.ERROR, "Idle: nobody there")


async def test_records_of_old_jobs_are_removed_on_request(store: Store, connector_id: str) -> None:
    connector = await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    mine = await store.jobs.claim((await store.jobs.create(connector)).id, "here")
    await store.jobs.complete(mine)
    kept = await store.jobs.create(connector)
    long_ago = datetime(1990, 1, 1, tzinfo=UTC)
    await store.jobs.documents.update(mine.id, lambda job: attrs.evolve(job, completed_at=long_ago))
    assert await store.jobs.delete_ended(long_ago + timedelta(days=1)) >= 1
    with pytest.raises(NotFound, match=mine.id):
        await store.jobs.get(mine.id)
    await store.jobs.delete(kept.id)
    assert await store.jobs.delete_of(connector_id) == 0


async def test_a_connector_without_index_or_type_gets_no_job(store: Store, connector_id: str) -> None:
    connector = await store.connectors.create(connector_id, service_type="dir")
    with pytest.raises(TransitionRefused, match="no index"):
        await store.jobs.create(connector)


# Rights


async def test_licence_and_privileges_are_read_or_known_to_be_absent(store: Store) -> None:
    licence = await store.rights.licence()
    assert licence is not None
    assert licence.is_active
    assert licence.allows("basic")
    privileges = await store.rights.privileges(cluster=["monitor"], index={"store-any": ["read", "write"]})
    assert privileges is None or privileges.suffices


async def test_a_refused_port_says_so(server: Server) -> None:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unreachable, match="refuses connections"):
        async with open_store(attrs.evolve(server.target, url=f"http://127.0.0.1:{port}", embedded=None)):
            raise AssertionError
