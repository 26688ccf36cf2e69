"""One sync from its first question to its last answer: what is there, what the source has, what follows.

    partitions ─> listing and comparison ─> operations ─> sink ─> Elasticsearch
                        │                       ^
                        └──> downloads ─────────┘

Every partition is listed, compared and turned into operations by one task; the stages are joined by streams whose bytes count
until Elasticsearch has answered, so a slow server slows the source down and nothing grows. Deletions come last, from what was
not listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import structlog
import trio

from ...protocol.indices import content_index
from ...protocol.store import NotFound, Store
from ...runtime import TreeNode, monotonic
from ...runtime.budget import Budget
from ...runtime.stream import Stream
from ...sources.source import Source
from ..journal.events import DeadLettersReplayed
from ..journal.telling import shown, tell
from .checkpoints import Checkpoints
from .collecting import seldom_collecting
from .deleting import Deleting
from .downloading import Downloads
from .error_monitor import ErrorMonitor
from .failing import SyncFailed, first_of
from .handing_on import Emit
from .known import Known
from .ledger import Entries, Ledger, read_index
from .listing import Listing
from .operations import Operations
from .plan import SyncPlan
from .preparing import Preparer
from .report import (
    Counters,
    PartitionReport,
    ProgressEvent,
    Status,
    SyncReport,
)
from .segments import PartitionProgress
from .settings import SyncSettings
from .sink import Sink
from .stages import stages_of
from .wanting import SMALL_FILES_AT_ONCE, Download
from .work import Work

PARTITIONS_REPORTED = 100
CLOSING_S = 5.0

log = structlog.get_logger(__name__)


class SyncRun:
    """One run. `run` does the work, `report` says at any time where it stands. Used once."""

    def __init__(
        self,
        store: Store,
        source: Source[Any],
        plan: SyncPlan,
        settings: SyncSettings,
        *,
        extractor: Any = None,
        on_progress: Callable[[ProgressEvent], None] | None = None,
        own_store: Store | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._work = Work(store, source, plan, settings, extractor, own_store, budget)
        self._checkpoints = Checkpoints(self._work)
        self._on_progress = on_progress
        self._streams: tuple[Stream[Operations], Stream[Download]] | None = None
        self._sink: Sink | None = None
        self.budget = self._work.budget
        """What bounds the bytes that are on their way."""
        self._stage = "elasticsearch"
        self._total: int | None = None
        self._started_s = monotonic()

    # What it says

    @property
    def seconds(self) -> float:
        return monotonic() - self._started_s

    def progress(self) -> ProgressEvent:
        """Where the run stands."""
        done = self._work.done()
        return ProgressEvent(
            listed=done.listed,
            indexed=done.indexed,
            deleted=done.deleted,
            unchanged=done.unchanged,
            failed=done.failed,
            size_bytes=done.size_bytes,
            queued=self._work.counters.queued,
            waiting_on=self._waiting_on(),
            seconds=self.seconds,
            concurrency=self._sink.concurrency.allowed if self._sink else 1,
        )

    def _waiting_on(self) -> str:
        if self._streams is None or self._sink is None:
            return self._stage
        operations, downloads = self._streams
        if self._sink.waits_for_server or operations.batches_waiting > 1:
            return "elasticsearch"
        return "downloads" if downloads.batches_waiting > 1 else "source"

    def stages(self) -> tuple[TreeNode, ...]:
        """The stages that run now, for the live tree; none before the first document is asked for."""
        if self._streams is None or self._sink is None:
            return ()
        return stages_of(self._work, self._streams, self._sink, self._waiting_on(), self.seconds)

    def report(self, status: Status, error: str | None = None) -> SyncReport:
        """How the run ended, or stands."""
        progress = self.progress()
        partitions = sorted(
            (_report_of(one) for one in self._work.partitions.values()),
            key=lambda one: (one.state == "closed", one.key),
        )
        held, examples = self._work.held
        return SyncReport(
            status=status,
            indexed=progress.indexed,
            deleted=progress.deleted,
            unchanged=progress.unchanged,
            failed=progress.failed,
            bytes=progress.size_bytes,
            seconds=progress.seconds,
            error=error,
            held_back_deletions=held,
            held_back_examples=examples,
            failures=tuple(self._work.letters.first),
            partitions=tuple(partitions[:PARTITIONS_REPORTED]),
            counters=self._work.counters,
            cursor=self._work.cursor if self._work.cursor is not None else self._work.source.sync_cursor(),
            total=self._total,
            job_id=self._work.plan.job_id or None,
            notes=(*self._work.notes, *_unanswered(self._work.counters)),
        )

    # What it does

    async def run(self) -> None:
        """Do the whole sync. Raises `SyncFailed` (and what the stages raise) if it is not complete.

        Cancelled: what was settled is persisted as far as that takes no longer than a few seconds, and nothing keeps running.
        """
        try:
            with shown(self), seldom_collecting(), self._work.holding():
                async with trio.open_nursery() as nursery:
                    if self._on_progress is not None:
                        nursery.start_soon(self._tell)
                    if self._work.state is not None:
                        nursery.start_soon(self._checkpoints.keep_saving)
                    await self._run()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_of(group) from group
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_S / 10):
                await self._checkpoints.save_at_the_end()
            if self._work.known is not None:
                self._work.known.close()
            if self._on_progress is not None:
                self._on_progress(self.progress())

    async def _run(self) -> None:
        plan = self._work.plan
        if not plan.is_helped:
            await self._work.store.content.ensure_index(plan.index)
        trust_stamps = False
        if not self._work.follows_changes:
            trust_stamps = await self._read_index()
        self._sink = Sink(
            self._work.store,
            plan.index,
            settings=self._work.settings,
            counters=self._work.counters,
            monitor=ErrorMonitor(self._work.settings.errors),
            letters=self._work.letters,
            ledger=self._work.ledger,
            pipeline=plan.pipeline.name if plan.pipeline is not None else None,
        )
        preparer = Preparer(
            plan,
            self._work.settings,
            self._work.counters,
            self._work.known,
            trust_stamps=trust_stamps,
            compare_access=self._work.source.features.document_level_security,
        )
        await self._list_and_send(preparer, self._sink)
        self._stage = "elasticsearch"
        if plan.is_helped:
            await self._work.letters.forget_released()
            return
        if self._work.sharing is not None and self._work.state is not None:
            await self._checkpoints.mark_listed(self._work.state)
        if not self._work.follows_changes:
            await Deleting(self._work, self._sink, self._checkpoints).run()
        self._work.counters.check_conservation()
        await self._conclude()

    async def _read_index(self) -> bool:
        """Learn what is in the index. Tell whether equal timestamps prove that a document is unchanged."""
        plan, settings = self._work.plan, self._work.settings
        self._work.ledger = ledger = Ledger(self._work.own_store, plan.index, self._work.store)
        await ledger.open()
        if plan.is_helped and not ledger.is_stored:
            raise SyncFailed(
                "Whoever runs the job has no ledger that this service can find, so it would begin another one."
            )
        if self._work.sharing is not None:
            # Those who help write to the same one, and so must find it.
            await ledger.make()
        assert ledger.head is not None
        known = self._work.known = Known(settings.known_memory_size_bytes)
        by_stamp = (
            plan.kind == "incremental" and settings.skip_unchanged and ledger.head.setup in ("", plan.setup.hex())
        )
        entries: Entries | None = None
        seen: Entries | None = None
        try:
            needs_entries = settings.skip_unchanged and not by_stamp
            if ledger.is_stored and needs_entries:
                entries = await ledger.load(settings.known_memory_size_bytes // 2)
            if self._work.state is not None:
                seen = await self._checkpoints.resume(self._work.state)
            pages = read_index(
                self._work.store,
                plan.index,
                known,
                entries,
                seen,
                timestamps=by_stamp or plan.kind == "access_control",
                access_lists=by_stamp and self._work.source.features.document_level_security,
            )
            async with aclosing(pages):
                async for _ in pages:
                    pass
        finally:
            for table in (entries, seen):
                if table is not None:
                    table.close()
        self._work.in_index = known.count
        await self._ask_for_replay(known)
        self._work.knows_partitions = entries is not None or not ledger.is_stored
        is_alone = self._work.sharing is None or not (plan.goes_on or plan.is_helped)
        if plan.kind == "full" and is_alone and entries is not None and ledger.wants_compaction(known.count):
            await ledger.compact(known)
        return by_stamp

    async def _ask_for_replay(self, known: Known) -> None:
        asked = known_of = 0
        await self._work.letters.read_quarantine()
        async with aclosing(self._work.letters.asked_for()) as pages:
            async for ids in pages:
                asked += len(ids)
                known_of += await known.forget_versions(ids)
        if asked:
            if self._work.extractor is not None:
                self._work.extractor.release_quarantine()
            tell(DeadLettersReplayed(documents=asked))
            log.info("dead_letters.replayed", documents=asked, in_index=known_of)

    async def _list_and_send(self, preparer: Preparer, sink: Sink) -> None:
        settings = self._work.settings
        batches_max = max(2, settings.queue_documents_max // settings.bulk_documents_max)
        operations: Stream[Operations] = Stream("operations", batches_max, self._work.queue_bytes, senders=2)
        wanted: Stream[Download] = Stream("downloads", max(2, settings.queue_documents_max // SMALL_FILES_AT_ONCE))
        self._streams = operations, wanted
        downloads = Downloads(self._work, preparer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.pump, operations)
            nursery.start_soon(downloads.run, wanted, operations)
            async with operations.sender() as out, wanted.sender() as wants:
                await Listing(self._work, Emit(self._work, preparer, out, wants), self._checkpoints.save).run()
                await wants.finish()
                await out.finish()

    # Concluding

    async def _conclude(self) -> None:
        """Write what must be known next time, and say whether the sync is complete."""
        plan, store = self._work.plan, self._work.store
        if self._work.ledger is not None:
            await self._work.ledger.flush()
        await self._work.letters.flush()
        broken = [one for one in self._work.partitions.values() if one.state == "broken"]
        if self._work.listing_failed is not None:
            raise SyncFailed(f"The source could not name its partitions: {self._work.listing_failed}")
        if broken:
            more = f" (and {len(broken) - 1} more partitions)" if len(broken) > 1 else ""
            raise SyncFailed(f"{broken[0].key}: {broken[0].why}{more}. Nothing of what was not listed was deleted.")
        holes = [one for one in self._work.partitions.values() if one.containers_failed]
        if holes:
            raise SyncFailed(_parts_unread(holes))
        if self._work.ledger is not None and plan.kind == "full":
            await self._work.ledger.completed(plan.setup.hex())
        await self._work.letters.forget_replayed()
        await self._work.letters.forget_released()
        if plan.kind == "full" and plan.job_id:
            await self._work.letters.forget_resolved()
        await self._checkpoints.forget()
        try:
            self._total = await store.content.count(content_index(plan.index), refresh=True)
        except NotFound:
            # An access-control sync may come before the first content sync.
            self._total = 0

    async def _tell(self) -> None:
        assert self._on_progress is not None
        while True:
            self._on_progress(self.progress())
            await trio.sleep(self._work.settings.progress_every_s)


def _parts_unread(holes: Sequence[PartitionProgress]) -> str:
    count = sum(one.containers_failed for one in holes)
    parts = "1 part" if count == 1 else f"{count} parts"
    # A source that is one single partition calls it "." or nothing: that name tells nobody anything.
    names = [one.key for one in holes[:5] if one.key not in ("", ".")]
    kept = f"Nothing was deleted from: {', '.join(names)}." if names else "Nothing was deleted."
    return f"{parts} of the source could not be read, for example {holes[0].why.rstrip('.')}. {kept}"


def _unanswered(counters: Counters) -> Iterator[str]:
    if counters.unanswered:
        yield (
            f"{counters.unanswered} documents were under way when the sync was ended, and Elasticsearch did not answer in time: "
            "they may be in the index, and are not counted"
        )


def _report_of(partition: PartitionProgress) -> PartitionReport:
    state = {"listed": "closed", "broken": "broken"}.get(partition.state, "unfinished")
    if partition.containers_failed and state == "closed":
        state = "broken"
    return PartitionReport(
        key=partition.key,
        state=state,  # type: ignore[arg-type]
        listed=partition.listed,
        why=partition.why,
        resumed=partition.resumed,
    )
