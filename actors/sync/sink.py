"""The bulk sink: sends operations, several requests at a time, until each has an answer.

Batches arrive whole and stay whole; small ones travel together. No id is ever in two requests at once, and never twice in one,
so operations on one document keep their order whatever is retried. A request that fails as a whole is sent again for as long
as the patience lasts; documents that Elasticsearch was too busy for are sent again alone; what it will not take becomes a
dead letter. Between taking an operation and settling it, every one of them is in exactly one `_Parcel`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import structlog
import trio

from ...protocol.store import BulkAnswer, RetryPolicy, Store, StoreError
from ...runtime import monotonic, random
from ...runtime.stream import Batch, Stream
from ..journal.events import BulkAnswered, BulkSplit, Retried, Throttled
from ..journal.telling import is_told, tell
from .concurrency import AdaptiveConcurrency
from .dead_letters import DeadLetters
from .error_monitor import ErrorMonitor
from .ledger import Ledger
from .operations import Operation, Operations
from .report import Counters, FailedDocument
from .settings import SyncSettings
from .verdicts import Drop, GiveUp, Judged, Refusal, SendAgain, Split, Verdict, judge_error, judge_items, pause_s

ONE_ATTEMPT = RetryPolicy(patience_s=0)
LAST_ANSWERS_S = 0.25
"""How long the answers to requests that are under way are waited for when the work is cancelled, so that what arrives is counted."""
DELIVERIES_PER_SLOT = 4
"""Requests that may wait for their next attempt, per request that may be under way."""

log = structlog.get_logger(__name__)


class CannotIndex(Exception):
    """Elasticsearch takes nothing from this job: no right, no index, or out of patience."""


@attrs.define(eq=False)
class _Parcel:
    """Operations of one batch that travel together in one request."""

    batch: Batch[Operations]
    operations: Operations
    open: int
    """Operations without an answer."""

    def settle(self, count: int) -> None:
        self.open -= count
        assert self.open >= 0, "an operation was settled twice"
        operations = self.operations
        operations.partition.settle(operations.segment, count)
        if not self.open:
            self.batch.settle()


@attrs.define(eq=False)
class _Request:
    """What goes into one bulk request; `owners[i]` is the parcel of `entries[i]`."""

    entries: list[Operation] = attrs.field(factory=list)
    owners: list[_Parcel] = attrs.field(factory=list)
    ids: set[str] = attrs.field(factory=set)
    size_bytes: int = 0
    opened_at_s: float = 0.0
    tries: int = 0
    """How often its documents were refused for Elasticsearch being busy."""

    def part(self, places: Sequence[int]) -> _Request:
        entries = [self.entries[at] for at in places]
        size_bytes = sum(len(entry.payload) for entry in entries)
        return _Request(entries, [self.owners[at] for at in places], set(), size_bytes, self.opened_at_s, self.tries)


class Sink:
    """Sends what `pump` receives to one index."""

    def __init__(
        self,
        store: Store,
        index: str,
        *,
        settings: SyncSettings,
        counters: Counters,
        monitor: ErrorMonitor,
        letters: DeadLetters,
        ledger: Ledger | None = None,
        pipeline: str | None = None,
    ) -> None:
        self._store, self._index, self._pipeline = store, index, pipeline
        self._settings, self._counters = settings, counters
        self._monitor, self._letters, self._ledger = monitor, letters, ledger
        self.concurrency = AdaptiveConcurrency(settings.bulk_concurrency_max)
        self._request = _Request()
        self._in_flight: set[str] = set()
        self._deliveries = 0
        self._changed = trio.Condition()
        self._dispatching = trio.Lock()
        self._flushing = trio.Lock()
        self._answers_until_s = math.inf
        self._under_way: set[trio.CancelScope] = set()
        self.waits_for_server = False

    async def pump(self, stream: Stream[Operations]) -> None:
        """Send everything of a stream, and return once all of it is settled.

        Raises `CannotIndex` and `TooManyErrors`. Then, and when cancelled, nothing more is sent, and the answers to requests under
        way are waited for a moment, so that what has arrived is counted; what is not answered by then may or may not have been
        carried out, and counts as unanswered.
        """
        self._answers_until_s = math.inf
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bound_last_answers)
            nursery.start_soon(self._send_what_is_old, nursery)
            async with stream.receiver() as batches:
                async for batch in batches:
                    for operations in batch.items:
                        await self._take(batch, operations, nursery)
            async with self._dispatching:
                await self._dispatch(nursery)
            async with self._changed:
                while self._deliveries:
                    await self._changed.wait()
            nursery.cancel_scope.cancel()
        if self._ledger is not None:
            await self._write_ledger()
        self._monitor.check()

    async def _bound_last_answers(self) -> None:
        """Once the work is cancelled, let what is under way go on for a moment only."""
        try:
            await trio.sleep_forever()
        finally:
            self._answers_until_s = trio.current_time() + LAST_ANSWERS_S
            for scope in self._under_way:
                scope.deadline = self._answers_until_s

    async def _take(self, batch: Batch[Operations], operations: Operations, nursery: trio.Nursery) -> None:
        settings = self._settings
        parcel = _Parcel(batch, operations, len(operations.entries))
        ids = {entry.id for entry in operations.entries}
        async with self._dispatching:
            request = self._request
            if request.entries and (
                len(request.entries) + len(operations.entries) > settings.bulk_documents_max
                or request.size_bytes + operations.size_bytes > settings.bulk_size_bytes_max
                or not request.ids.isdisjoint(ids)
            ):
                await self._dispatch(nursery)
            if len(ids) == len(operations.entries):
                self._put(parcel, operations.entries, ids, operations.size_bytes)
            else:
                # The source named a document twice: the later operation waits for the earlier one.
                for entry in operations.entries:
                    if entry.id in self._request.ids:
                        await self._dispatch(nursery)
                    self._put(parcel, [entry], {entry.id}, len(entry.payload))
            if self._is_full():
                await self._dispatch(nursery)

    def _put(self, parcel: _Parcel, entries: list[Operation], ids: set[str], size_bytes: int) -> None:
        request = self._request
        if not request.entries:
            request.opened_at_s = monotonic()
        request.entries += entries
        request.owners += [parcel] * len(entries)
        request.ids |= ids
        request.size_bytes += size_bytes

    def _is_full(self) -> bool:
        request, settings = self._request, self._settings
        return len(request.entries) >= settings.bulk_documents_max or request.size_bytes >= settings.bulk_size_bytes_max

    async def _send_what_is_old(self, nursery: trio.Nursery) -> None:
        age_s = self._settings.bulk_age_s_max
        while True:
            await trio.sleep(age_s / 2)
            if self._request.entries and monotonic() - self._request.opened_at_s >= age_s:
                async with self._dispatching:
                    if self._request.entries and monotonic() - self._request.opened_at_s >= age_s:
                        await self._dispatch(nursery)

    async def _dispatch(self, nursery: trio.Nursery) -> None:
        """Start the delivery of the open request once there is room and none of its ids is under way."""
        request = self._request
        if not request.entries:
            return
        deliveries_max = self._settings.bulk_concurrency_max * DELIVERIES_PER_SLOT
        async with self._changed:
            while (
                not self.concurrency.may_start()
                or self._deliveries >= deliveries_max
                or not self._in_flight.isdisjoint(request.ids)
            ):
                await self._changed.wait()
        self._request = _Request()
        self._in_flight |= request.ids
        self._deliveries += 1
        self.concurrency.started()
        nursery.start_soon(self._deliver, request)

    async def _deliver(self, request: _Request) -> None:
        """Send a request until every operation in it is settled. The first attempt's slot is taken already."""
        ids = request.ids
        todo = [request]
        has_slot = True
        while todo:
            part = todo.pop()
            todo.extend(reversed(await self._attempt_until_answered(part, has_slot)))
            has_slot = False
            await trio.lowlevel.checkpoint_if_cancelled()
        self._in_flight -= ids
        self._deliveries -= 1
        await self._notify()
        if self._ledger is not None and self._ledger.is_full:
            await self._write_ledger()
        if self._letters.wants_flush:
            await self._letters.flush()

    async def _attempt_until_answered(self, request: _Request, has_slot: bool) -> list[_Request]:
        """Get an answer for a request; return what must be sent in further requests: busy items, or two halves."""
        settings = self._settings
        body = b"".join([entry.payload for entry in request.entries])
        first_failed_at_s: float | None = None
        attempt = 0
        while True:
            attempt += 1
            if not has_slot:
                await self._wait_for_slot()
            has_slot = False
            # From here on a cancellation waits for the answer.
            await trio.lowlevel.checkpoint_if_cancelled()
            started_s = monotonic()
            self._counters.requests += 1
            self._counters.request_bytes += len(body)
            error: Exception | None = None
            judged: Judged | None = None
            verdict: Verdict | None = None
            try:
                answer = await self._answer(body, len(request.entries))
                judged = judge_items(
                    [entry.kind for entry in request.entries] if answer.has_errors else request.entries,  # type: ignore[arg-type]
                    answer.items,
                    has_errors=answer.has_errors,
                )
            except StoreError as exc:
                error, verdict = exc, judge_error(exc, len(request.entries))
            except ValueError as exc:
                # An answer that cannot be read says nothing; the operations bear being carried out twice.
                error, verdict = exc, SendAgain(str(exc))
            finally:
                busy = judged is None or bool(judged.busy)
                self.concurrency.ended(monotonic(), monotonic() - started_s, busy=busy)
                if is_told():
                    outcome = "failed" if judged is None else "busy" if busy else "ok"
                    took_s = monotonic() - started_s
                    tell(
                        BulkAnswered(
                            documents=len(request.entries), size_bytes=len(body), seconds=took_s, outcome=outcome
                        )
                    )
            if isinstance(verdict, Drop):
                judged = Judged([], [], [], [], [verdict.refusal])
            if judged is not None:
                self.waits_for_server = False
                self._settle(request, judged, attempt)
            await self._notify()
            if judged is not None:
                return await self._busy_of(request, judged)
            assert error is not None
            match verdict:
                case GiveUp(why=why):
                    raise CannotIndex(why) from error
                case Split(why=why):
                    middle = len(request.entries) // 2
                    tell(BulkSplit(documents=len(request.entries), size_bytes=len(body), why=why))
                    log.info("bulk.split", count=len(request.entries), bytes=len(body), why=why)
                    return [request.part(range(middle)), request.part(range(middle, len(request.entries)))]
                case SendAgain(why=why):
                    self.waits_for_server = True
                    first_failed_at_s = started_s if first_failed_at_s is None else first_failed_at_s
                    pause = pause_s(attempt, random())
                    if monotonic() + pause - first_failed_at_s > settings.patience_s:
                        raise CannotIndex(
                            f"Elasticsearch took nothing for {monotonic() - first_failed_at_s:.0f} s: {why}"
                        ) from error
                    if getattr(error, "status", None) == 429:
                        tell(Throttled(by="Elasticsearch", status=429, wait_s=pause))
                    else:
                        tell(Retried(what="bulk", attempt=attempt, wait_s=pause, why=why))
                    log.warning(
                        "bulk.retry", count=len(request.entries), attempt=attempt, after_s=round(pause, 2), why=why
                    )
                    await trio.sleep(pause)

    async def _answer(self, body: bytes, count: int) -> BulkAnswer:
        """Send a body and return the answer, also when cancelled meanwhile, if it comes soon. Raises `StoreError`."""
        with trio.CancelScope(shield=True, deadline=self._answers_until_s) as scope:
            self._under_way.add(scope)
            try:
                return await self._store.content.bulk(
                    body, index=self._index, pipeline=self._pipeline, policy=ONE_ATTEMPT
                )
            finally:
                self._under_way.discard(scope)
        self._counters.unanswered += count
        await trio.lowlevel.checkpoint()
        raise AssertionError("only a cancellation bounds the wait for an answer")

    def _settle(self, request: _Request, judged: Judged, attempt: int) -> None:
        """Take note of every operation that has its final answer. Raises `TooManyErrors`."""
        if self._settings.log_operations:
            for at, result in zip(judged.accepted, judged.results, strict=True):
                log.debug("document.settled", index=self._index, id=request.entries[at].id, result=result)
            for refusal in judged.refused:
                log.debug("document.refused", index=self._index, id=request.entries[refusal.at].id, why=refusal.reason)
        if judged.accepted:
            self._accept(request, judged, is_first=attempt == 1 and not request.tries)
        for refusal in judged.refused:
            self._refuse(request, refusal)

    async def _busy_of(self, request: _Request, judged: Judged) -> list[_Request]:
        """Return the operations that Elasticsearch was too busy for as a request, after a pause; nothing if they have had their tries."""
        if not judged.busy:
            return []
        if request.tries >= self._settings.item_tries_max:
            for at in judged.busy:
                self._refuse(
                    request, Refusal(at, 429, "busy", f"Elasticsearch was too busy for it {request.tries + 1} times.")
                )
            return []
        again = request.part(judged.busy)
        again.tries = request.tries + 1
        self._counters.retried += len(again.entries)
        pause = pause_s(again.tries, random())
        tell(Throttled(by="Elasticsearch", status=429, wait_s=pause, documents=len(again.entries)))
        await trio.sleep(pause)
        return [again]

    def _accept(self, request: _Request, judged: Judged, *, is_first: bool) -> None:
        """Count accepted operations and write them into the ledger, parcel by parcel."""
        counters, entries, owners = self._counters, request.entries, request.owners
        results = judged.results
        counters.results.update(results)
        counters.settled += len(results)
        counters.dropped_by_pipeline += results.count("noop")
        if is_first:
            # A document that was not there when we looked, and is there now: the source named it twice. After a lost answer
            # it may just as well be our own first attempt.
            new = sum([entries[at][4] for at in judged.accepted])
            counters.duplicates += max(0, new - results.count("created") - results.count("noop"))
        self._monitor.succeeded(len(results))
        start, count = 0, len(judged.accepted)
        if count == len(entries) and owners[0].open == count:
            # The usual case: one batch, all of it accepted.
            self._accept_of(owners[0], entries, judged.seq_nos)
            return
        while start < count:
            owner = owners[judged.accepted[start]]
            end = start + 1
            while end < count and owners[judged.accepted[end]] is owner:
                end += 1
            self._accept_of(owner, [entries[at] for at in judged.accepted[start:end]], judged.seq_nos[start:end])
            start = end

    def _accept_of(self, owner: _Parcel, entries: list[Operation], seq_nos: list[int]) -> None:
        counters, operations = self._counters, owner.operations
        written = [entry for entry in entries if entry[0] != "delete"]
        deleted = len(entries) - len(written)
        whole = len(entries) == len(operations.entries)
        size_bytes = operations.size_bytes if whole else sum(len(entry.payload) for entry in entries)
        counters.indexed += len(written)
        counters.deleted += deleted
        counters.size_bytes += size_bytes
        counts = operations.segment.counts
        counts.indexed += len(written)
        counts.deleted += deleted
        counts.size_bytes += size_bytes
        if self._ledger is not None and written:
            numbers = (
                seq_nos
                if not deleted
                else [number for entry, number in zip(entries, seq_nos, strict=True) if entry.kind != "delete"]
            )
            self._ledger.note(
                [entry.id for entry in written],
                numbers,
                [entry.fingerprint for entry in written],
                operations.partition.hash,
            )
        owner.settle(len(entries))

    def _refuse(self, request: _Request, refusal: Refusal) -> None:
        """Count an operation that finally failed. Raises `TooManyErrors`."""
        entry, owner = request.entries[refusal.at], request.owners[refusal.at]
        why = f"{refusal.kind}: {refusal.reason}"
        self._counters.failed_at_sink += 1
        owner.operations.segment.counts.failed += 1
        self._letters.add(
            FailedDocument(
                what=entry.id, where="indexing", why=why, partition=owner.operations.partition.key, document_id=entry.id
            )
        )
        log.warning("bulk.refused", id=entry.id, operation=entry.kind, status=refusal.status, why=why)
        owner.settle(1)
        self._monitor.failed(f"{entry.kind} of {entry.id!r}: {why}")

    async def _wait_for_slot(self) -> None:
        async with self._changed:
            while not self.concurrency.may_start():
                await self._changed.wait()
        self.concurrency.started()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _write_ledger(self) -> None:
        async with self._flushing:
            if self._ledger is not None:
                await self._ledger.flush()
