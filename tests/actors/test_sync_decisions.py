"""What the engine decides, without any server: bytes, batches, verdicts, concurrency, limits, checkpoints, tables."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from array import array
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.sync.batches import batches
from callboard.actors.sync.concurrency import AdaptiveConcurrency
from callboard.actors.sync.deletions import Listed, judge_deletions, may_delete
from callboard.actors.sync.encoding import Encoder, truncated, with_member
from callboard.actors.sync.error_monitor import ErrorMonitor, TooManyErrors
from callboard.actors.sync.fingerprints import hash64
from callboard.actors.sync.known import Known, stamp_of
from callboard.actors.sync.ledger import Entries, Run, ledger_index
from callboard.actors.sync.operations import delete_operation, index_operation, update_operation
from callboard.actors.sync.segments import PartitionProgress
from callboard.actors.sync.settings import DeletionLimits, ErrorLimits
from callboard.actors.sync.verdicts import Drop, GiveUp, SendAgain, Split, judge_error, judge_items, pause_s
from callboard.protocol.store import Forbidden, Refused, TooLarge, TooManyRequests, Unavailable, Unreachable


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.timedelta(minutes=2), 120.0),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal(12), 12),
        (Decimal("0.5"), 0.5),
        (Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        (Decimal("NaN"), None),
        (b"\x00\xff", "AP8="),
        ({3}, [3]),
        (Colour.RED, "red"),
        (2**70, str(2**70)),
        ({1: "a"}, {"1": "a"}),
        ("\ud800", "?"),
        (PurePosixPath("/a"), "/a"),
    ],
)
def test_every_value_has_some_form(value: Any, form: Any) -> None:
    assert orjson.loads(Encoder().encode({"value": value})) == {"value": form}


def test_values_without_a_form_of_their_own_are_counted() -> None:
    encoder = Encoder()
    encoder.encode({"value": 1})
    assert encoder.converted == 0
    encoder.encode({"value": object()})
    assert encoder.converted == 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text(st.characters()), inner),
    )
)
def test_encoding_never_raises(value: Any) -> None:
    orjson.loads(Encoder().encode({"value": value}))


@given(st.dictionaries(st.text(), st.integers(-5, 5)))
def test_a_member_is_added_to_a_line(fields: dict[str, int]) -> None:
    fields.pop("_timestamp", None)
    assert orjson.loads(with_member(orjson.dumps(fields), "_timestamp", "x")) == {**fields, "_timestamp": "x"}


@given(st.text(max_size=400), st.text(max_size=400), st.integers(100, 600))
def test_long_texts_are_cut_to_the_limit_and_named(one: str, two: str, limit: int) -> None:
    fields = {"id": "x", "one": one, "two": two}
    size = len(orjson.dumps(fields))
    cut = truncated(fields, size, limit)
    if size <= limit or cut is None:
        return
    assert len(orjson.dumps(cut)) <= limit
    assert cut["_truncated_fields"]
    assert one.startswith(cut["one"])
    assert two.startswith(cut["two"])


@given(st.lists(st.integers(0, 50)), st.integers(1, 5), st.integers(1, 120))
def test_batches_keep_order_and_bounds(sizes: list[int], count_max: int, size_max: int) -> None:
    operations = [index_operation(str(n), b"x" * size, 0, is_new=True) for n, size in enumerate(sizes)]
    total = sum(len(one.payload) for one in operations)
    cut = list(batches(operations, total, count_max, size_max))
    assert [one for batch, _ in cut for one in batch] == operations
    for batch, size_bytes in cut:
        assert size_bytes == sum(len(one.payload) for one in batch)
        assert len(batch) <= count_max
        assert size_bytes <= size_max or len(batch) == 1


def test_operations_are_lines_of_a_bulk_request() -> None:
    assert index_operation('a"b', b"{}", 1, is_new=True).payload == b'{"index":{"_id":"a\\"b"}}\n{}\n'
    assert (
        update_operation("a", b"{}", 1, is_new=True).payload
        == b'{"update":{"_id":"a"}}\n{"doc":{},"doc_as_upsert":true}\n'
    )
    assert delete_operation("a").payload == b'{"delete":{"_id":"a"}}\n'


def test_items_are_judged_one_by_one() -> None:
    items: list[Any] = [
        {"index": {"status": 201, "result": "created", "_seq_no": 4}},
        {"index": {"status": 429, "error": {"type": "es_rejected_execution_exception"}}},
        {"index": {"status": 400, "error": {"type": "mapper", "reason": "no", "caused_by": {"reason": "why"}}}},
        {"delete": {"status": 404, "result": "not_found", "_seq_no": 9}},
        {"index": {"status": 503, "error": {"type": "unavailable"}}},
    ]
    judged = judge_items(["index", "index", "index", "delete", "index"], items, has_errors=True)
    assert (judged.accepted, judged.seq_nos, judged.busy) == ([0, 3], [4, 9], [1, 4])
    assert [(one.at, one.kind, one.reason) for one in judged.refused] == [(2, "mapper", "no: why")]


@given(st.lists(st.sampled_from([200, 201, 400, 404, 429, 500, 503])))
def test_every_item_has_exactly_one_fate(statuses: list[int]) -> None:
    items: list[Any] = [{"index": {"status": status}} for status in statuses]
    judged = judge_items(["index"] * len(items), items, has_errors=True)
    fates = judged.accepted + judged.busy + [one.at for one in judged.refused]
    assert sorted(fates) == list(range(len(items)))


def test_an_answer_with_a_wrong_number_of_items_says_nothing() -> None:
    with pytest.raises(ValueError, match="1 items to 2"):
        judge_items(["index", "index"], [{"index": {}}], has_errors=False)


def test_errors_of_whole_requests() -> None:
    assert isinstance(judge_error(TooManyRequests("busy"), 5), SendAgain)
    assert isinstance(judge_error(Unavailable("away"), 5), SendAgain)
    assert isinstance(judge_error(Unreachable("cut"), 5), SendAgain)
    assert isinstance(judge_error(TooLarge("413"), 5), Split)
    assert isinstance(judge_error(Refused("400"), 5), Split)
    assert isinstance(judge_error(TooLarge("413"), 1), Drop)
    assert isinstance(judge_error(Forbidden("403"), 5), GiveUp)


def test_pauses_grow_to_a_cap() -> None:
    seeded = random.Random(1)
    pauses = [pause_s(attempt, seeded) for attempt in range(1, 40)]
    assert all(0 < pause <= 10 for pause in pauses)
    assert pauses[0] <= 0.25
    assert min(pauses[10:]) >= 5


def round_trips(controller: AdaptiveConcurrency, at_s: float, took_s: float, *, busy: bool = False) -> float:
    """Send as many requests as allowed, all of which take so long; return when they have ended."""
    count = controller.allowed
    for _ in range(count):
        controller.started()
    for _ in range(count):
        controller.ended(at_s + took_s, took_s, busy=busy)
    return at_s + took_s


def test_concurrency_grows_while_the_server_stays_fast_and_stops_at_its_cap() -> None:
    controller = AdaptiveConcurrency(8)
    at_s = 0.0
    for _ in range(30):
        at_s = round_trips(controller, at_s, 0.1)
    assert controller.allowed == 8


def test_concurrency_shrinks_when_the_server_refuses_or_slows_down() -> None:
    controller = AdaptiveConcurrency(10)
    at_s = 0.0
    for _ in range(30):
        at_s = round_trips(controller, at_s, 0.1)
    before = controller.limit
    at_s = round_trips(controller, at_s, 0.1, busy=True)
    at_s = round_trips(controller, at_s, 0.1, busy=True)
    assert controller.limit < before
    before = controller.limit
    at_s = round_trips(controller, at_s, 3.0)
    assert controller.limit < before
    for _ in range(2000):
        at_s = round_trips(controller, at_s, 0.1, busy=True)
    assert controller.allowed == 1


@pytest.mark.parametrize(
    ("limits", "good_before", "bad", "trips"),
    [
        (ErrorLimits(consecutive_max=10, rate_max=1), 0, 10, False),
        (ErrorLimits(consecutive_max=10, rate_max=1), 0, 11, True),
        (ErrorLimits(consecutive_max=1000, total_max=20, rate_max=1), 500, 21, True),
        (ErrorLimits(consecutive_max=1000, rate_max=0.15, window=100), 500, 15, False),
        (ErrorLimits(consecutive_max=1000, rate_max=0.15, window=100), 500, 16, True),
        (ErrorLimits(consecutive_max=1000, rate_max=0.15, window=0), 500, 900, False),
        (ErrorLimits(enabled=False), 0, 5000, False),
    ],
)
def test_the_monitor_trips_at_its_thresholds(limits: ErrorLimits, good_before: int, bad: int, trips: bool) -> None:
    monitor = ErrorMonitor(limits)
    monitor.succeeded(good_before)
    tripped = False
    for number in range(bad):
        try:
            monitor.failed(f"error {number}")
        except TooManyErrors as exc:
            assert "The last error" in str(exc)
            tripped = True
    assert tripped == trips
    if trips:
        with pytest.raises(TooManyErrors):
            monitor.check()
    assert monitor.total == bad
    assert len(monitor.last) == min(bad, limits.kept)


@pytest.mark.parametrize(
    ("count", "in_index", "action"),
    [(0, 0, "nothing"), (10, 10, "delete"), (11, 100, "hold_back"), (11, 110, "delete"), (5400, 6000, "hold_back")],
)
def test_unusually_many_deletions_wait(count: int, in_index: int, action: str) -> None:
    assert judge_deletions(count, in_index, DeletionLimits()).action == action
    if action == "hold_back":
        assert judge_deletions(count, in_index, DeletionLimits(), confirmed=True).action == "delete"
        assert judge_deletions(count, in_index, DeletionLimits(), agreed=True).action == "hold_back"
        by_agreement = DeletionLimits(release="next_full_sync")
        assert judge_deletions(count, in_index, by_agreement, agreed=True).action == "delete"


def test_only_what_a_closed_partition_lacks_may_go() -> None:
    some = Listed(closed={1}, named={1, 2}, all_named=True)
    assert may_delete(1, some)
    assert not may_delete(2, some)
    assert not may_delete(0, some), "nobody knows where it came from"
    assert may_delete(3, some), "the source does not name its partition any more"
    cut = Listed(closed={1}, named={1}, all_named=False)
    assert may_delete(1, cut)
    assert not may_delete(3, cut)
    assert may_delete(0, Listed(closed={1, 2}, named={1, 2}, all_named=True))


def test_a_document_that_could_not_be_read_is_kept_by_whoever_goes_on_behind_it() -> None:
    progress = PartitionProgress("a", 1, resumable=True)
    progress.spare("row-1")
    progress.checkpoint("row-3")
    assert list(progress.take_seen()) == [hash64(b"row-1")]


def test_nobody_goes_on_behind_a_folder_that_could_not_be_read() -> None:
    progress = PartitionProgress("a", 1, resumable=True)
    progress.checkpoint("before")
    progress.containers_failed += 1
    progress.checkpoint("behind")
    progress.finish()
    assert progress.settled_checkpoint == "before"


def test_a_checkpoint_is_reached_when_all_before_it_is_settled() -> None:
    progress = PartitionProgress("a", 1)
    first = progress.current
    first.pending = 3
    progress.checkpoint("one")
    second = progress.current
    second.pending = 1
    progress.checkpoint("two")
    progress.settle(second, 1)
    assert progress.settled_checkpoint is None
    progress.settle(first, 2)
    assert progress.settled_checkpoint is None
    progress.settle(first, 1)
    assert progress.settled_checkpoint == "two"
    progress.finish()
    assert progress.is_clean
    assert progress.is_settled


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1), st.integers(-1, 2**62), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)
        )
    )
)
def test_a_run_of_the_ledger_survives_packing(entries: list[tuple[int, int, int, int]]) -> None:
    run = Run()
    for entry in entries:
        run.add(*entry)
    assert Run.unpacked(run.packed(), len(run)) == run


@pytest.mark.parametrize(("text", "count"), [("", 1), ("AAAA", 1), ("not base64!", 0)])
def test_what_is_not_a_run_is_refused(text: str, count: int) -> None:
    with pytest.raises(ValueError):
        Run.unpacked(text, count)


@pytest.mark.parametrize("memory", [1 << 24, 1])
async def test_the_newest_entry_of_a_document_holds(memory: int) -> None:
    entries = Entries(memory)
    many = 3000
    await entries.add(
        Run(array("Q", range(many)), array("q", [5] * many), array("Q", [1] * many), array("Q", [9] * many))
    )
    await entries.add(Run(array("Q", [7, 8]), array("q", [6, 4]), array("Q", [2, 2]), array("Q", [9, 9])))
    assert await entries.find([7, 8, many]) == [(6, 2, 9), (5, 1, 9), (-1, 0, 0)]
    entries.close()


@pytest.mark.parametrize("memory", [1 << 24, 1], ids=["in memory", "on disk"])
async def test_what_is_known_is_found_marked_and_left_over(memory: int) -> None:
    known = Known(memory)
    top = 2**64 - 1
    for start in (0, 3000):
        ids = [f"id-{n}" for n in range(start, start + 3000)]
        await known.add(
            ids, list(range(start, start + 3000)), [stamp_of(one) for one in ids], [top] * 3000, [top - 1] * 3000
        )
    assert known.is_spilled == (memory == 1)
    found = await known.find(["id-5", "absent", "id-5999"])
    assert found.fingerprints == [top, 0, top]
    assert found.stamps == [stamp_of("id-5"), 0, stamp_of("id-5999")]
    assert found.rows[1] == -1
    assert not known.mark(found.rows[0])
    assert known.mark(found.rows[0])
    left = [one async for page in known.unseen() for one in page]
    assert len(left) == 5999
    assert ("id-5", top - 1, 5) not in left
    assert ("id-6", top - 1, 6) in left
    known.close()


def test_a_ledger_has_a_legal_name() -> None:
    assert ledger_index("notes") == ".callboard-ledger-notes"
    assert len(ledger_index("x" * 255).encode()) <= 255
