"""The engine against the built-in node, in process: what a sync does to an index, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from callboard import node
from callboard.actors.job import run_job
from callboard.actors.sync import (
    DeletionLimits,
    SyncReport,
    SyncSettings,
    confirm_deletions,
    list_dead_letters,
    replay_dead_letters,
    request_replay,
    sync,
)
from callboard.actors.sync.state import JobState
from callboard.node.faults import (
    CutBody,
    FailItems,
    FaultyApp,
    LoseResponse,
    Match,
    Refuse,
    Rule,
    ServerFaultPlan,
    Status,
)
from callboard.protocol import JobStatus, JobType, TransitionRefused
from callboard.protocol import Rule as SyncRule
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import monotonic
from callboard.sources.errors import Transient
from callboard.sources.source import Checkpoint, ContentRef, Document, Failure, Features, Identity

from .conftest import ScriptedSource, rows

INDEX = "library"
QUICK = SyncSettings(bulk_documents_max=50, heartbeat_every_s=0.2, watch_every_s=0.1, checkpoint_every_s=0.05)
LAX = attrs.evolve(QUICK, deletions=DeletionLimits(documents_max=100_000))


@pytest.fixture
async def app() -> AsyncIterator[Any]:
    async with node.open_node(port=None) as opened:
        yield opened.app


@pytest.fixture
async def store(app: Any) -> AsyncIterator[Store]:
    async with open_store(Target(embedded=app)) as opened:
        await opened.ensure_indices()
        yield opened


Faulty = Callable[..., AbstractAsyncContextManager[Store]]


@pytest.fixture
def faulty(app: Any) -> Faulty:
    """Opens a store with faults between it and the node."""

    @asynccontextmanager
    async def opened(*rules: Rule, seed: int = 1) -> AsyncIterator[Store]:
        async with open_store(Target(embedded=FaultyApp(app, ServerFaultPlan(seed=seed, rules=rules)))) as between:
            yield between

    return opened


async def stored(store: Store, index: str = INDEX) -> dict[str, dict[str, Any]]:
    """What the index holds, read without any part of the sync."""
    await store.content.refresh(index)
    told = await store.client.search(index=index, size=10_000, query={"match_all": {}})
    return {hit["_id"]: hit["_source"] for hit in told["hits"]["hits"]}


async def expect_equal(store: Store, source: ScriptedSource) -> None:
    wanted = {one.id: one.fields for items in source.tables.values() for one in items if isinstance(one, Document)}
    found = await stored(store)
    assert found.keys() == wanted.keys()
    for one, fields in wanted.items():
        assert fields.items() <= found[one].items()


def facts(report: SyncReport) -> tuple[Any, ...]:
    return report.status, report.indexed, report.deleted, report.unchanged, report.failed


async def test_a_source_becomes_an_index_and_stays_in_step(store: Store) -> None:
    source = ScriptedSource({"a": rows(130), "b": rows(70, start=130)})
    first = await sync(source, store, index=INDEX, settings=LAX)
    assert facts(first) == ("completed", 200, 0, 0, 0)
    await expect_equal(store, source)
    again = await sync(source, store, index=INDEX, settings=LAX)
    assert facts(again) == ("completed", 0, 0, 200, 0)
    assert again.counters.request_bytes < first.counters.request_bytes / 100
    plain = await sync(source, store, index=INDEX, settings=attrs.evolve(LAX, skip_unchanged=False))
    assert facts(plain) == ("completed", 200, 0, 0, 0)
    source.tables = {"a": rows(100), "b": rows(70, start=130, title="new")}
    changed = await sync(source, store, index=INDEX, settings=LAX)
    assert facts(changed) == ("completed", 70, 30, 100, 0)
    await expect_equal(store, source)


async def test_documents_look_as_they_always_did(store: Store) -> None:
    long = "x" * 600
    source = ScriptedSource(
        {"a": [Document("one", {"n": 1}, access=[]), Document(long, {"n": 2}, timestamp="2026-01-01")]}
    )
    await sync(source, store, index=INDEX)
    found = await stored(store)
    assert found["one"].keys() == {"n", "id", "_timestamp", "_allow_access_control"}
    assert found["one"]["_allow_access_control"] == ["callboard:nobody"]
    [hashed] = [one for one in found if one != "one"]
    assert len(hashed) == 32
    assert found[hashed] == {"n": 2, "id": hashed, "_timestamp": "2026-01-01", "_original_id": long}


async def test_rules_drop_documents_and_delete_their_copies(store: Store) -> None:
    source = ScriptedSource({"a": rows(20)})
    await sync(source, store, index=INDEX)
    rule = SyncRule(id="r", policy="exclude", field="number", rule="<", value="15", order=0)
    report = await sync(source, store, index=INDEX, rules=[rule])
    assert set(await stored(store)) == {f"row-{n}" for n in range(15, 20)}
    assert report.deleted == 15
    assert report.held_back_deletions == 0


async def test_a_change_of_the_rules_processes_everything_again(store: Store) -> None:
    source = ScriptedSource({"a": rows(20)})
    await sync(source, store, index=INDEX)
    rule = SyncRule(id="r", policy="exclude", field="number", rule=">", value="100", order=0)
    assert (await sync(source, store, index=INDEX, rules=[rule])).indexed == 20


async def test_a_document_that_somebody_else_changed_is_sent_again(store: Store) -> None:
    source = ScriptedSource({"a": rows(20)})
    await sync(source, store, index=INDEX)
    await store.client.index(index=INDEX, id="row-3", document={"number": -1})
    assert (await sync(source, store, index=INDEX)).indexed == 1
    await expect_equal(store, source)


async def test_a_lost_ledger_only_means_sending_again(store: Store) -> None:
    source = ScriptedSource({"a": rows(20)})
    await sync(source, store, index=INDEX)
    await store.content.delete_index(f".callboard-ledger-{INDEX}")
    assert facts(await sync(source, store, index=INDEX)) == ("completed", 20, 0, 0, 0)
    assert facts(await sync(source, store, index=INDEX)) == ("completed", 0, 0, 20, 0)


async def test_a_listing_cut_at_a_tenth_deletes_nothing_and_says_why(store: Store) -> None:
    source = ScriptedSource({"a": rows(600)})
    await sync(source, store, index=INDEX)
    source.tables = {"a": [*rows(60), Transient("the connection was cut")]}
    report = await sync(source, store, index=INDEX)
    assert report.status == "error"
    assert "the connection was cut" in (report.error or "")
    assert report.deleted == 0
    assert len(await stored(store)) == 600
    assert report.partitions[0].state == "broken"


async def test_a_short_listing_that_ends_well_holds_deletions_back_until_confirmed(store: Store) -> None:
    source = ScriptedSource({"a": rows(600)})
    await sync(source, store, index=INDEX)
    source.tables = {"a": rows(60) + rows(5, start=1000)}
    report = await sync(source, store, index=INDEX)
    assert facts(report) == ("completed", 5, 0, 60, 0)
    assert report.held_back_deletions == 540
    assert any("540 of 600 documents" in note for note in report.notes)
    assert len(await stored(store)) == 605


async def test_held_back_deletions_go_when_the_next_full_sync_agrees(store: Store) -> None:
    source = ScriptedSource({"a": rows(100)})
    careful = attrs.evolve(QUICK, deletions=DeletionLimits(release="next_full_sync"))
    async with _job(store, source) as job:
        await run_job(store, job, make_source=lambda *_: source, settings=careful)
    source.tables = {"a": rows(20)}
    deleted = []
    for _ in range(2):
        async with _job(store, source) as job:
            report = await run_job(store, job, make_source=lambda *_: source, settings=careful)
            deleted.append((report.deleted, report.held_back_deletions))
    assert deleted == [(0, 80), (80, 0)]


@pytest.mark.parametrize("skip_unchanged", [True, False])
async def test_a_broken_partition_keeps_only_its_own(store: Store, skip_unchanged: bool) -> None:
    source = ScriptedSource({"a": rows(50), "b": rows(50, start=50)})
    await sync(source, store, index=INDEX)
    source.tables = {"a": [*rows(10), Transient("cut")], "b": rows(45, start=50)}
    report = await sync(source, store, index=INDEX, settings=attrs.evolve(QUICK, skip_unchanged=skip_unchanged))
    assert report.status == "error"
    assert report.deleted == 5
    found = await stored(store)
    assert {f"row-{n}" for n in range(95)} == set(found)


async def test_a_failed_container_spares_its_partition_and_an_item_only_itself(store: Store) -> None:
    source = ScriptedSource({"a": rows(20), "b": rows(20, start=20)})
    await sync(source, store, index=INDEX)
    source.tables = {
        "a": [*rows(15), Failure("container", "folder/x", "403")],
        "b": [*rows(17, start=20), Failure("item", "row-37", "odd", document_id="row-37")],
    }
    report = await sync(source, store, index=INDEX)
    assert report.status == "error"
    assert "folder/x" in (report.error or "")
    found = set(await stored(store))
    assert {f"row-{n}" for n in range(38)} == found
    assert report.failed == 2


def with_files(count: int = 6) -> ScriptedSource:
    source = ScriptedSource()
    source.files = {f"file-{n}.txt": b"text %d" % n for n in range(count)}
    source.tables = {
        "a": [
            Document(f"file-{n}", {}, "2026-01-01", content=ContentRef(f"file-{n}.txt", version="1", size_bytes=6))
            for n in range(count)
        ]
    }
    return source


async def test_unchanged_files_are_never_downloaded_again(store: Store) -> None:
    source = with_files()
    await sync(source, store, index=INDEX)
    assert (await stored(store))["file-3"]["body"] == "text 3"
    source.fetched.clear()
    assert facts(await sync(source, store, index=INDEX)) == ("completed", 0, 0, 6, 0)
    assert source.fetched == []


async def test_a_failed_download_keeps_the_document_and_its_text_and_is_named(store: Store) -> None:
    source = with_files()
    await sync(source, store, index=INDEX)
    for one in source.tables["a"]:
        one.content.version = "2"
        one.fields["state"] = "new"
    source.files["file-2.txt"] = ValueError("the file is odd")
    report = await sync(source, store, index=INDEX)
    assert facts(report) == ("completed", 6, 0, 0, 1)
    assert (report.failures[0].what, report.failures[0].where) == ("file-2", "download")
    found = await stored(store)
    assert (found["file-2"]["state"], found["file-2"]["body"]) == ("new", "text 2")
    letters = [letter async for letter in list_dead_letters(store, index=INDEX)]
    assert [(one["what"], one["why"]) for one in letters] == [("file-2", "ValueError: the file is odd")]
    source.files["file-2.txt"] = b"mended"
    assert (await sync(source, store, index=INDEX)).indexed == 1
    assert (await stored(store))["file-2"]["body"] == "mended"


async def letters_of(store: Store) -> list[tuple[str, int, str | None]]:
    letters = [letter async for letter in list_dead_letters(store, index=INDEX)]
    return sorted((one["document_id"], one["times"], one.get("replay")) for one in letters)


@pytest.mark.parametrize("memory_size_bytes", [1 << 24, 1], ids=["in memory", "on disk"])
async def test_a_replayed_letter_is_tried_again_by_a_sync_that_would_skip_it(
    store: Store, memory_size_bytes: int
) -> None:
    settings = attrs.evolve(QUICK, known_memory_size_bytes=memory_size_bytes)
    source = with_files()
    source.files["file-2.txt"] = source.files["file-4.txt"] = ValueError("the file is odd")
    await sync(source, store, index=INDEX, settings=settings)
    source.files["file-2.txt"] = b"mended"
    source.fetched.clear()

    # By its timestamp nothing has changed, so an incremental sync leaves the failed files alone.
    assert facts(await sync(source, store, index=INDEX, kind="incremental", settings=settings))[1:4] == (0, 0, 6)
    assert source.fetched == []
    assert await letters_of(store) == [("file-2", 1, None), ("file-4", 1, None)]

    assert await replay_dead_letters(store, index=INDEX) == 2
    assert await letters_of(store) == [("file-2", 1, "asked"), ("file-4", 1, "asked")]
    report = await sync(source, store, index=INDEX, kind="incremental", settings=settings)
    assert facts(report) == ("completed", 2, 0, 4, 1)
    assert set(source.fetched) == {"file-2.txt", "file-4.txt"}
    assert (await stored(store))["file-2"]["body"] == "mended"
    # The one that is mended is gone; the other came back, counted up and no longer marked.
    assert await letters_of(store) == [("file-4", 2, None)]


async def test_letters_are_tried_again_at_once_by_a_job_that_reads_nothing_else(store: Store) -> None:
    source = with_files()
    source.files["file-2.txt"] = ValueError("the file is odd")
    async with _job(store, source) as job_id:
        await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK)
    assert await request_replay(store, index=INDEX) == ()
    source.files["file-2.txt"] = b"mended"
    source.fetched.clear()
    assert await replay_dead_letters(store, index=INDEX) == 1
    (job,) = await request_replay(store, index=INDEX)
    assert [again.id for again in await request_replay(store, index=INDEX)] == [job.id], "one job is enough"
    report = await run_job(store, job, make_source=lambda *_: source, settings=QUICK)
    assert facts(report) == ("completed", 1, 0, 5, 0)
    assert source.fetched == ["file-2.txt"]
    assert await letters_of(store) == []


async def test_the_letters_of_an_interrupted_sync_stay_marked(store: Store) -> None:
    source = with_files()
    source.files["file-2.txt"] = ValueError("the file is odd")
    await sync(source, store, index=INDEX)
    await replay_dead_letters(store, index=INDEX)
    items = list(source.tables["a"])
    source.tables = {"a": [*items[:2], OSError("the line went dead"), *items[2:]]}
    assert (await sync(source, store, index=INDEX)).status == "error"
    assert await letters_of(store) == [("file-2", 1, "asked")]


async def test_there_is_nothing_to_replay_where_nothing_failed(store: Store) -> None:
    assert await replay_dead_letters(store, index=INDEX) == 0


async def test_a_file_above_the_limit_is_indexed_without_text(store: Store) -> None:
    source = with_files(2)
    source.files["file-0.txt"] = b"x" * 5000
    report = await sync(source, store, index=INDEX, settings=attrs.evolve(QUICK, download_size_bytes_max=1000))
    assert facts(report) == ("completed", 2, 0, 0, 0)
    assert report.counters.downloads_too_large == 1
    assert "body" not in (await stored(store))["file-0"]


async def test_an_incremental_sync_skips_equal_timestamps(store: Store) -> None:
    source = ScriptedSource({"a": rows(30)})
    await sync(source, store, index=INDEX)
    changed = rows(30, title="new")
    changed[4].timestamp = "2026-02-02"
    source.tables = {"a": changed}
    assert facts(await sync(source, store, index=INDEX, kind="incremental")) == ("completed", 1, 0, 29, 0)
    assert (await stored(store))["row-4"]["title"] == "new"


class Feed(ScriptedSource):
    features = Features(incremental="delta")

    async def changes(self, cursor: Any, rules: Any = None) -> Any:
        from callboard.sources.source import Checkpoint

        yield [
            Document("row-1", {"number": 100}, operation="update"),
            Document("row-2", {}, operation="delete"),
            Document("row-99", {"number": 99}),
            Document("row-98", {"number": 98}),
            Document("row-98", {}, operation="delete"),
        ]
        yield Checkpoint({"since": (cursor or {}).get("since", 0) + 1})


async def test_a_change_feed_is_followed_in_order(store: Store) -> None:
    source = Feed({"a": rows(5)})
    await sync(source, store, index=INDEX)
    report = await sync(source, store, index=INDEX, kind="incremental", cursor={"since": 4})
    assert report.status == "completed"
    assert report.cursor == {"since": 5}
    found = await stored(store)
    assert set(found) == {"row-0", "row-1", "row-3", "row-4", "row-99"}
    assert (found["row-1"]["number"], found["row-1"]["id"]) == (100, "row-1")


async def test_identities_are_added_updated_kept_and_removed(store: Store) -> None:
    source = ScriptedSource()
    source.people = [
        Identity(name, {"name": name}, [f"user:{name}"], timestamp="2026") for name in ("ann", "bob", "cy")
    ]
    assert facts(await sync(source, store, index=INDEX, kind="access_control")) == ("completed", 3, 0, 0, 0)
    source.people = source.people[:2]
    source.people[1] = Identity("bob", {"name": "bob"}, ["user:bob", "group:x"], timestamp="2026")
    report = await sync(source, store, index=INDEX, kind="access_control")
    assert facts(report) == ("completed", 1, 1, 1, 0)
    found = await stored(store, f".search-acl-filter-{INDEX}")
    assert set(found) == {"ann", "bob"}
    assert found["bob"]["query"]["template"]["params"]["access_control"] == ["group:x", "user:bob"]


BULK = Match(path=f"/{INDEX}/_bulk")


@pytest.mark.parametrize(
    "rule",
    [
        Rule(match=BULK, effect=FailItems(status=429, share=0.05)),
        Rule(match=BULK, effect=FailItems(status=503, share=0.3), times=6),
        Rule(match=BULK, effect=Status(status=429), every=2),
        Rule(match=BULK, effect=Status(status=503), every=3),
        Rule(match=BULK, effect=Refuse(), every=2),
        Rule(match=BULK, effect=LoseResponse(), every=2),
        Rule(match=BULK, effect=CutBody(after_bytes=20), every=3),
        Rule(effect=Refuse(), skip=6, until_s=2.0),
    ],
    ids=[
        "5 % of items 429",
        "items 503",
        "429 storm",
        "503",
        "refused",
        "lost answers",
        "cut answers",
        "away for seconds",
    ],
)
async def test_nothing_is_lost_whatever_the_server_does(faulty: Faulty, store: Store, rule: Rule) -> None:
    source = ScriptedSource({"a": rows(600), "b": rows(300, start=600)})
    async with faulty(rule) as between:
        report = await sync(source, between, index=INDEX, settings=LAX)
        assert facts(report) == ("completed", 900, 0, 0, 0)
        await expect_equal(store, source)
        source.tables = {"a": rows(500, title="x"), "b": rows(300, start=600)}
        report = await sync(source, between, index=INDEX, settings=LAX)
    assert (report.status, report.deleted, report.failed) == ("completed", 100, 0)
    await expect_equal(store, source)


async def test_documents_that_will_never_be_taken_are_isolated_and_explained(faulty: Faulty, store: Store) -> None:
    source = ScriptedSource({"a": rows(200)})
    async with faulty(
        Rule(match=BULK, effect=FailItems(status=400, ids=("row-7", "row-150"), reason="no such mapping"))
    ) as between:
        report = await sync(source, between, index=INDEX, settings=QUICK)
    assert facts(report) == ("completed", 198, 0, 0, 2)
    assert {one.what for one in report.failures} == {"row-7", "row-150"}
    assert all("no such mapping" in one.why for one in report.failures)
    assert len(await stored(store)) == 198
    assert facts(await sync(source, store, index=INDEX, settings=QUICK)) == ("completed", 2, 0, 198, 0)


async def test_a_request_that_is_too_large_is_halved_until_it_fits(faulty: Faulty, store: Store) -> None:
    source = ScriptedSource({"a": rows(200)})
    poison = Match(path=f"/{INDEX}/_bulk", body_contains='"row-7"')
    async with faulty(Rule(match=poison, effect=Status(status=413))) as between:
        report = await sync(source, between, index=INDEX, settings=QUICK)
    assert facts(report) == ("completed", 199, 0, 0, 1)
    assert report.failures[0].what == "row-7"


async def test_too_many_errors_end_the_sync(faulty: Faulty) -> None:
    async with faulty(Rule(match=BULK, effect=FailItems(status=400))) as between:
        report = await sync(ScriptedSource({"a": rows(200)}), between, index=INDEX, settings=QUICK)
    assert report.status == "error"
    assert "documents in a row failed" in (report.error or "")


async def test_patience_ends(faulty: Faulty) -> None:
    async with faulty(Rule(match=BULK, effect=Refuse())) as between:
        report = await sync(
            ScriptedSource({"a": rows(10)}), between, index=INDEX, settings=attrs.evolve(QUICK, patience_s=0.5)
        )
    assert report.status == "error"
    assert "took nothing" in (report.error or "")


# Jobs


@asynccontextmanager
async def _job(store: Store, source: ScriptedSource, kind: JobType = JobType.FULL) -> AsyncIterator[str]:
    if not await store.connectors.exists("c1"):
        await store.connectors.create("c1", index_name=INDEX, service_type="scripted")
    job = await store.jobs.create(await store.connectors.get("c1"), kind)
    yield job.id


async def test_a_job_and_its_connector_tell_the_truth(store: Store) -> None:
    source = ScriptedSource({"a": rows(40)})
    async with _job(store, source) as job_id:
        report = await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK)
    assert facts(report) == ("completed", 40, 0, 0, 0)
    job, connector = await store.jobs.get(job_id), await store.connectors.get("c1")
    assert (job.status, job.indexed_document_count, job.total_document_count) == (JobStatus.COMPLETED, 40, 40)
    assert (connector.last_sync_status, connector.last_indexed_document_count) == (JobStatus.COMPLETED, 40)


async def test_confirmed_deletions_are_carried_out_except_for_what_was_written_since(store: Store) -> None:
    source = ScriptedSource({"a": rows(100)})
    async with _job(store, source) as job_id:
        await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK)
    source.tables = {"a": rows(20)}
    async with _job(store, source) as job_id:
        report = await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK)
    assert report.held_back_deletions == 80
    await store.client.index(index=INDEX, id="row-50", document={"number": 50})
    confirmed = await confirm_deletions(store, job_id)
    assert (confirmed.deleted, confirmed.changed_since) == (79, 1)
    assert set(await stored(store)) == {f"row-{n}" for n in (*range(20), 50)}


class Blocking(ScriptedSource):
    """Lists some documents, then waits for ever."""

    async def documents(self, partition: Any, checkpoint: Any = None) -> Any:
        async with aclosing(super().documents(partition, checkpoint)) as listed:
            async for found in listed:
                yield found
        await trio.sleep_forever()


async def test_a_cancel_request_ends_a_job_whose_source_blocks_within_a_second(store: Store) -> None:
    source = Blocking({"a": rows(10)})
    async with _job(store, source) as job_id, trio.open_nursery() as nursery:
        asked_s = 0.0

        async def ask() -> None:
            nonlocal asked_s
            await trio.sleep(0.3)
            await store.jobs.request_cancel(job_id)
            asked_s = monotonic()

        nursery.start_soon(ask)
        report = await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK)
        assert monotonic() - asked_s < 1.0
    assert report.status == "canceled"
    assert (await store.jobs.get(job_id)).status is JobStatus.CANCELED


async def test_a_suspended_job_goes_on_where_it_was_with_counts_and_deletions_right(store: Store) -> None:
    source = ScriptedSource({"a": rows(1000)})
    async with _job(store, source) as job_id:
        await run_job(store, job_id, make_source=lambda *_: source, settings=LAX)
    half = Blocking({"a": rows(500, title="new")})
    async with _job(store, half) as job_id:
        with trio.move_on_after(1.5):
            await run_job(store, job_id, make_source=lambda *_: half, settings=LAX)
    assert (await store.jobs.get(job_id)).status is JobStatus.SUSPENDED
    whole = ScriptedSource({"a": rows(900, title="new")})
    report = await run_job(store, job_id, make_source=lambda *_: whole, settings=LAX)
    assert whole.started_from == {"a": 500}
    assert whole.read == 400
    assert facts(report) == ("completed", 900, 100, 0, 0)
    await expect_equal(store, whole)
    job = await store.jobs.get(job_id)
    assert (job.indexed_document_count, job.deleted_document_count) == (900, 100)


async def test_a_suspended_job_of_a_source_that_cannot_go_on_starts_over_and_says_so(store: Store) -> None:
    half = Blocking({"a": rows(500)})
    half.features = Features()
    async with _job(store, half) as job_id:
        with trio.move_on_after(0.5):
            await run_job(store, job_id, make_source=lambda *_: half, settings=LAX)
    assert (await store.jobs.get(job_id)).status is JobStatus.SUSPENDED
    whole = ScriptedSource({"a": rows(900)})
    whole.features = Features()
    report = await run_job(store, job_id, make_source=lambda *_: whole, settings=LAX)
    assert whole.started_from == {"a": None}
    assert "this source cannot go on from a checkpoint, so the job started over" in report.notes
    assert (await store.jobs.get(job_id)).metadata["callboard"]["notes"] == list(report.notes)
    await expect_equal(store, whole)


async def test_a_worker_that_died_between_its_two_writes_blocks_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard.actors.job.NOTE_AGE_S", 0.1)
    source = ScriptedSource({"a": rows(5)})
    async with _job(store, source) as job_id:
        # As a worker leaves it that was killed after its first write.
        await store.connectors.sync_starts("c1", JobType.FULL)
        report = await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK)
    assert facts(report) == ("completed", 5, 0, 0, 0)
    assert (await store.connectors.get("c1")).last_sync_status is JobStatus.COMPLETED


async def test_a_connector_that_runs_a_job_refuses_another_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callboard.actors.job.NOTE_AGE_S", 0.1)
    source = ScriptedSource({"a": rows(5)})
    async with _job(store, source) as running, _job(store, source) as other:
        await store.connectors.sync_starts("c1", JobType.FULL)
        await store.jobs.claim(running, "somebody")
        with pytest.raises(TransitionRefused, match="already runs"):
            await run_job(store, other, make_source=lambda *_: source, settings=QUICK)
    assert (await store.connectors.get("c1")).last_sync_status is JobStatus.IN_PROGRESS
    assert (await store.jobs.get(other)).status is JobStatus.PENDING


async def test_a_job_killed_while_it_deletes_counts_what_it_had_deleted(
    store: Store, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ScriptedSource({"a": rows(100)})
    async with _job(store, source) as job_id:
        await run_job(store, job_id, make_source=lambda *_: source, settings=LAX)
    source = ScriptedSource({"a": rows(40)})
    deleted = 0
    right = JobState.plan_deletions

    async def killed_behind_the_plan(state: JobState, count: int) -> None:
        nonlocal deleted
        await right(state, count)
        # What a process that is killed now may have got done, beyond its last count.
        lines = b"".join(b'{"delete":{"_id":"row-%d"}}\n' % n for n in range(60, 100))
        await store.content.bulk(lines, index=INDEX, refresh=True)
        deleted = 40
        raise KeyboardInterrupt

    async with _job(store, source) as job_id:
        with monkeypatch.context() as patch:
            patch.setattr(JobState, "plan_deletions", killed_behind_the_plan)
            with pytest.raises(BaseException):  # noqa: B017 - however the process ends
                await run_job(store, job_id, make_source=lambda *_: source, settings=LAX)
        assert deleted == 40
        assert (await store.jobs.get(job_id)).status is JobStatus.SUSPENDED
        source = ScriptedSource({"a": rows(40)})
        report = await run_job(store, job_id, make_source=lambda *_: source, settings=LAX)
    assert source.read == 0
    assert (report.status, report.deleted) == ("completed", 60)
    assert (await store.jobs.get(job_id)).deleted_document_count == 60
    await expect_equal(store, source)


async def test_half_a_job_of_a_hundred_partitions_is_not_read_again(store: Store) -> None:
    tables = {f"p{n}": rows(100, start=100 * n) for n in range(100)}
    source = ScriptedSource(tables)
    stop, half_read = trio.Event(), trio.Event()

    async def documents(partition: Any, checkpoint: Any = None) -> Any:
        async with aclosing(ScriptedSource.documents(source, partition, checkpoint)) as listing:
            async for found in listing:
                yield found
                if source.read >= 5_000 and isinstance(found, Checkpoint):
                    half_read.set()
                    await trio.sleep_forever()

    source.documents = documents  # type: ignore[method-assign]
    settings = attrs.evolve(LAX, checkpoint_every_s=0.1)
    async with _job(store, source) as job_id:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: run_job(store, job_id, make_source=lambda *_: source, settings=settings, stop=stop)
            )
            with trio.fail_after(20):
                await half_read.wait()
            # What is not a full batch is sent after a second.
            await trio.sleep(1.5)
            stop.set()
        again = ScriptedSource(tables)
        report = await run_job(store, job_id, make_source=lambda *_: again, settings=settings)
    assert facts(report) == ("completed", 10_000, 0, 0, 0)
    assert source.read + again.read - 10_000 <= 200, "more than two in a hundred were read twice"
    await expect_equal(store, again)


async def test_a_right_that_is_revoked_without_a_new_timestamp_reaches_the_index(store: Store) -> None:
    def readable_by(*names: str) -> ScriptedSource:
        documents = rows(20)
        for document in documents:
            document.access = ["user:ann", *names] if document.id == "row-3" else ["user:ann"]
        return ScriptedSource({"a": documents})

    await sync(readable_by("user:bob"), store, index=INDEX, settings=QUICK)
    report = await sync(readable_by("user:bob"), store, index=INDEX, kind="incremental", settings=QUICK)
    assert facts(report) == ("completed", 0, 0, 20, 0)
    report = await sync(readable_by(), store, index=INDEX, kind="incremental", settings=QUICK)
    assert facts(report) == ("completed", 1, 0, 19, 0)
    assert (await stored(store))["row-3"]["_allow_access_control"] == ["user:ann"]


async def test_the_job_checks_in_while_the_source_is_slow(store: Store) -> None:
    source = Blocking({"a": rows(10)})
    async with _job(store, source) as job_id, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_job(store, job_id, make_source=lambda *_: source, settings=QUICK))
        await trio.sleep(0.8)
        job = await store.jobs.get(job_id)
        assert job.started_at is not None
        assert job.last_seen is not None
        assert job.last_seen > job.started_at
        standing = job.metadata["callboard"]["progress"]
        assert (standing["listed"], standing["waiting_on"]) == (10, "source")
        assert standing["queued"] in (0, 10)
        assert {"bytes", "documents_per_s", "bytes_per_s", "concurrency", "unchanged", "failed"} < set(standing)
        nursery.cancel_scope.cancel()


async def test_a_configuration_that_cannot_work_ends_the_job_with_its_reason(store: Store) -> None:
    class Bad(ScriptedSource):
        async def ping(self) -> None:
            raise Transient("nobody answers at db:5432")

    source = Bad()
    async with _job(store, source) as job_id:
        report = await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK)
    assert report.error == "Transient: nobody answers at db:5432"
    job, connector = await store.jobs.get(job_id), await store.connectors.get("c1")
    assert (job.status, job.error) == (JobStatus.ERROR, report.error)
    assert connector.last_sync_error == report.error


class Endless(ScriptedSource):
    """A file whose bytes never end."""

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                await trio.sleep(0.01)
                yield b"x"

        yield chunks()


@pytest.mark.parametrize("waits_on", ["429s", "a download"])
async def test_stopping_takes_less_than_a_second_whatever_a_job_waits_on(
    store: Store, faulty: Faulty, waits_on: str
) -> None:
    source: ScriptedSource = ScriptedSource({"a": rows(500)})
    if waits_on == "a download":
        source = Endless({"a": [Document("big", {}, "2026", content=ContentRef("big.txt", version="1"))]})
    stop = trio.Event()
    async with (
        faulty(Rule(match=BULK, effect=Status(status=429))) as between,
        _job(store, source) as job_id,
        trio.open_nursery() as nursery,
    ):
        stopped_s = 0.0

        async def ask() -> None:
            nonlocal stopped_s
            await trio.sleep(1.0)
            stop.set()
            stopped_s = monotonic()

        nursery.start_soon(ask)
        report = await run_job(
            store, job_id, make_source=lambda *_: source, settings=QUICK, content_store=between, stop=stop
        )
        assert monotonic() - stopped_s < 1.0
    assert report.status == "suspended"
    assert (await store.jobs.get(job_id)).status is JobStatus.SUSPENDED


async def test_stopping_does_not_wait_for_a_server_that_froze(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    source, stop, hung = Blocking({"a": rows(10)}), trio.Event(), trio.Event()
    real, froze = type(store.jobs).get, False

    async def get(jobs: Any, *arguments: Any) -> Any:
        if froze and not stop.is_set():
            hung.set()
            await trio.sleep_forever()
        return await real(jobs, *arguments)

    monkeypatch.setattr(type(store.jobs), "get", get)
    async with _job(store, source) as job_id, trio.open_nursery() as nursery:

        async def freeze_and_stop() -> None:
            nonlocal froze
            await trio.sleep(0.5)
            froze = True
            await hung.wait()
            stop.set()

        nursery.start_soon(freeze_and_stop)
        with trio.fail_after(10):
            report = await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK, stop=stop)
    assert report.status == "suspended"


class Answering:
    """A server that carries a bulk request out at once, and whose answer to it takes `after_s`."""

    def __init__(self, behind: Any, after_s: float) -> None:
        self.behind, self.after_s = behind, after_s
        self.bulks = 0
        self.first_arrived = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not (scope["type"] == "http" and scope["path"] == f"/{INDEX}/_bulk"):
            await self.behind(scope, receive, send)
            return
        answered: list[Any] = []

        async def keep(message: Any) -> None:
            answered.append(message)

        with trio.CancelScope(shield=True):
            await self.behind(scope, receive, keep)
        self.bulks += 1
        self.first_arrived.set()
        await trio.sleep(self.after_s)
        for message in answered:
            await send(message)


@pytest.mark.parametrize("end", ["cancel", "stop"])
@pytest.mark.parametrize(("after_s", "is_told"), [(0.15, True), (5.0, False)])
async def test_what_is_under_way_at_a_cancellation_is_counted_or_told(
    app: Any, end: str, after_s: float, is_told: bool
) -> None:
    server = Answering(app, after_s)
    async with open_store(Target(embedded=server)) as store:
        await store.ensure_indices()
        source = Blocking({"a": rows(500)})
        async with _job(store, source) as job_id, trio.open_nursery() as nursery:
            stop, ended_s = trio.Event(), 0.0

            async def ask() -> None:
                nonlocal ended_s
                await server.first_arrived.wait()
                ended_s = monotonic()
                if end == "cancel":
                    await store.jobs.request_cancel(job_id)
                else:
                    stop.set()

            nursery.start_soon(ask)
            report = await run_job(store, job_id, make_source=lambda *_: source, settings=QUICK, stop=stop)
            assert monotonic() - ended_s < 1.0
        written = set(await stored(store))
        job = await store.jobs.get(job_id)
    assert report.status == ("canceled" if end == "cancel" else "suspended")
    assert written
    assert job.indexed_document_count == report.indexed
    if is_told:
        assert report.indexed == len(written)
        assert not report.counters.unanswered
    else:
        assert report.indexed == 0
        assert report.counters.unanswered >= len(written)
        assert any(f"{report.counters.unanswered} documents were under way" in note for note in report.notes)
