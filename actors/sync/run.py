"""One sync from its first question to its last answer: what is there, what the source has, what follows.

    partitions ─> listing and comparison ─> operations ─> sink ─> Elasticsearch
                        │                       ^
                        └──> downloads ─────────┘

Every partition is listed, compared and turned into operations by one task; the stages are joined by streams whose bytes count
until Elasticsearch has answered, so a slow server slows the source down and nothing grows. Deletions come last, from what was
not listed.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import attrs
import structlog
import trio

from ...protocol import identity_document
from ...protocol.ids import InvalidDocumentId, document_id
from ...protocol.indices import content_index
from ...protocol.store import NotFound, Store, StoreError
from ...runtime import monotonic, new_id
from ...runtime.budget import Budget
from ...runtime.stream import Stream, StreamSender
from ...sources.errors import SourceError
from ...sources.source import Checkpoint, Document, Failure, Identity, Partition, Source
from ..journal.events import (
    ContentRead,
    DeadLettersReplayed,
    DeletionsBegun,
    DeletionsHeldBack,
    JobResumed,
    PageCompared,
    PartitionBroken,
    PartitionClosed,
    PartitionOpened,
    SourceNotListed,
)
from ..journal.telling import is_told, shown, tell
from .batches import batches
from .collecting import seldom_collecting
from .content import QUARANTINE, AttachmentReader, ContentFailed, ContentReader, NoText, TextReader, TooLarge, fetch
from .dead_letters import DeadLetters, letter_of
from .deletions import Listed, judge_deletions, may_delete
from .encoding import TRUNCATED
from .error_monitor import ErrorMonitor
from .fingerprints import hash64
from .known import Known
from .ledger import Entries, Ledger, Run, read_index
from .operations import Operation, Operations, delete_operation
from .plan import SyncPlan
from .preparing import Prepared, Preparer, Wanted
from .report import (
    HELD_BACK_KEPT,
    Counters,
    FailedDocument,
    PartitionReport,
    ProgressEvent,
    Status,
    SyncReport,
)
from .segments import PartitionCounts, PartitionProgress, Segment
from .settings import SyncSettings
from .sink import Sink
from .state import HeldBack, JobState, forget_held, read_held, write_held

PAGE_DOCUMENTS = 100
"""Documents that a source yields one by one are compared so many at a time."""
PARTITIONS_REPORTED = 100
CLOSING_S = 5.0
CHANGES = "changes"
SMALL_FILES_AT_ONCE = 64
"""Small files that are read in one go: enough to make the way to a thread and back cheap, few enough to bound memory."""

log = structlog.get_logger(__name__)


class SyncFailed(Exception):
    """The sync could not do its work; the text is a sentence for people."""


class EngineFailed(Exception):
    """What went wrong is the engine's own fault and not the source's, so that no partition is to blame."""


@attrs.frozen
class _Download:
    partition: PartitionProgress
    segment: Segment
    wanted: Wanted


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
    ) -> None:
        self._store, self._source, self._plan, self._settings = store, source, plan, settings
        self._extractor, self._on_progress = extractor, on_progress
        self.counters = Counters()
        self.carried = PartitionCounts()
        """What earlier runs of the same job had settled."""
        self.letters = DeadLetters(store, plan.index, plan.connector_id, plan.job_id)
        self._monitor = ErrorMonitor(settings.errors)
        self._ledger: Ledger | None = None
        self._known: Known | None = None
        self._in_index = 0
        self._knows_partitions = False
        self._partitions: dict[str, PartitionProgress] = {}
        self._all_named = False
        self._listing_failed: str | None = None
        self._notes: list[str] = []
        self._held: tuple[int, tuple[str, ...]] = (0, ())
        self._cursor: Any = None
        self._total: int | None = None
        self._started_s = monotonic()
        self._downloading: set[str] = set()
        self._download_ended = trio.lowlevel.ParkingLot()
        self._streams: tuple[Stream[Operations], Stream[_Download]] | None = None
        self._sink: Sink | None = None
        self._saving = trio.Lock()
        tracks = bool(plan.job_id) and source.features.resumable and plan.kind == "full"
        self._state = JobState(store, plan.job_id) if tracks else None
        self._stage = "elasticsearch"
        if plan.goes_on and not tracks:
            what = "this source" if plan.kind == "full" else f"a sync of this kind ({plan.kind})"
            self._notes.append(f"{what} cannot go on from a checkpoint, so the job started over")

    # What it says

    @property
    def seconds(self) -> float:
        return monotonic() - self._started_s

    def progress(self) -> ProgressEvent:
        """Where the run stands."""
        counters, carried = self.counters, self.carried
        return ProgressEvent(
            listed=counters.listed + carried.listed,
            indexed=counters.indexed + carried.indexed,
            deleted=counters.deleted + carried.deleted,
            unchanged=counters.unchanged + carried.unchanged,
            failed=counters.failed + carried.failed,
            size_bytes=counters.size_bytes + carried.size_bytes,
            queued=counters.queued,
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

    def report(self, status: Status, error: str | None = None) -> SyncReport:
        """How the run ended, or stands."""
        progress = self.progress()
        partitions = sorted(
            (_report_of(one) for one in self._partitions.values()), key=lambda one: (one.state == "closed", one.key)
        )
        held, examples = self._held
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
            failures=tuple(self.letters.first),
            partitions=tuple(partitions[:PARTITIONS_REPORTED]),
            counters=self.counters,
            cursor=self._cursor if self._cursor is not None else self._source.sync_cursor(),
            total=self._total,
            job_id=self._plan.job_id or None,
            notes=tuple(self._notes),
        )

    # What it does

    async def run(self) -> None:
        """Do the whole sync. Raises `SyncFailed` (and what the stages raise) if it is not complete.

        Cancelled: what was settled is persisted as far as that takes no longer than a few seconds, and nothing keeps running.
        """
        try:
            with shown(self), seldom_collecting():
                async with trio.open_nursery() as nursery:
                    if self._on_progress is not None:
                        nursery.start_soon(self._tell)
                    if self._state is not None:
                        nursery.start_soon(self._save_checkpoints)
                    await self._work()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first_of(group) from group
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_S / 10):
                await self._keep_what_is_settled()
            if self._known is not None:
                self._known.close()
            if self._on_progress is not None:
                self._on_progress(self.progress())

    async def _work(self) -> None:
        plan = self._plan
        await self._store.content.ensure_index(plan.index)
        with_changes = plan.kind == "incremental" and self._source.features.incremental == "delta"
        trust_stamps = False
        if not with_changes:
            trust_stamps = await self._read_index()
        self._sink = Sink(
            self._store,
            plan.index,
            settings=self._settings,
            counters=self.counters,
            monitor=self._monitor,
            letters=self.letters,
            ledger=self._ledger,
            pipeline=plan.pipeline.name if plan.pipeline is not None else None,
        )
        preparer = Preparer(
            plan,
            self._settings,
            self.counters,
            self._known,
            trust_stamps=trust_stamps,
            compare_access=self._source.features.document_level_security,
        )
        await self._list_and_send(preparer, self._sink, with_changes=with_changes)
        self._stage = "elasticsearch"
        if not with_changes:
            await self._delete(self._sink)
        self.counters.check_conservation()
        await self._conclude()

    async def _read_index(self) -> bool:
        """Learn what is in the index. Tell whether equal timestamps prove that a document is unchanged."""
        plan, settings = self._plan, self._settings
        self._ledger = ledger = Ledger(self._store, plan.index)
        await ledger.open()
        assert ledger.head is not None
        known = self._known = Known(settings.known_memory_size_bytes)
        by_stamp = (
            plan.kind == "incremental" and settings.skip_unchanged and ledger.head.setup in ("", plan.setup.hex())
        )
        entries: Entries | None = None
        seen: Entries | None = None
        try:
            needs_entries = settings.skip_unchanged and not by_stamp
            if ledger.is_stored and needs_entries:
                entries = await ledger.load(settings.known_memory_size_bytes // 2)
            if self._state is not None:
                seen = await self._resume(self._state)
            pages = read_index(
                self._store,
                plan.index,
                known,
                entries,
                seen,
                timestamps=by_stamp or plan.kind == "access_control",
                access_lists=by_stamp and self._source.features.document_level_security,
            )
            async with aclosing(pages):
                async for _ in pages:
                    pass
        finally:
            for table in (entries, seen):
                if table is not None:
                    table.close()
        self._in_index = known.count
        await self._ask_for_replay(known)
        self._knows_partitions = entries is not None or not ledger.is_stored
        if plan.kind == "full" and entries is not None and ledger.wants_compaction(known.count):
            await ledger.compact(known)
        return by_stamp

    async def _ask_for_replay(self, known: Known) -> None:
        asked = known_of = 0
        await self.letters.read_quarantine()
        async with aclosing(self.letters.asked_for()) as pages:
            async for ids in pages:
                asked += len(ids)
                known_of += await known.forget_versions(ids)
        if asked:
            if self._extractor is not None:
                self._extractor.release_quarantine()
            tell(DeadLettersReplayed(documents=asked))
            log.info("dead_letters.replayed", documents=asked, in_index=known_of)

    async def _resume(self, state: JobState) -> Entries | None:
        """Take up what an earlier run of this job has left."""
        await state.open()
        earlier = await state.load()
        if not earlier:
            if self._plan.goes_on:
                self._notes.append("no checkpoint was reached before, so the job started over")
            return None
        for one in earlier.values():
            partition = PartitionProgress(one.key, hash64(one.key.encode()), resumable=True)
            partition.go_on_from(one.checkpoint, one.counts)
            if one.is_closed:
                partition.finish()
                partition.is_stored_closed = True
            self._partitions[one.key] = partition
            self.carried.add(one.counts)
        seen = Entries(self._settings.known_memory_size_bytes // 4)
        hashes_of = state.seen()
        async with aclosing(hashes_of):
            async for hashes in hashes_of:
                nothing = array("Q", bytes(8 * len(hashes)))
                await seen.add(Run(hashes, array("q", bytes(8 * len(hashes))), nothing, nothing))
        self._notes.append(f"goes on from the checkpoints of {len(earlier)} partitions")
        tell(JobResumed(partitions=len(earlier), listed=self.carried.listed))
        log.info("sync.resumed", partitions=len(earlier), listed=self.carried.listed)
        return seen

    async def _list_and_send(self, preparer: Preparer, sink: Sink, *, with_changes: bool) -> None:
        settings = self._settings
        budget = Budget(settings.queue_size_bytes_max)
        batches_max = max(2, settings.queue_documents_max // settings.bulk_documents_max)
        operations: Stream[Operations] = Stream("operations", batches_max, budget.holder(self._plan.index), senders=2)
        wanted: Stream[_Download] = Stream("downloads", max(2, settings.queue_documents_max // SMALL_FILES_AT_ONCE))
        self._streams = operations, wanted
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.pump, operations)
            nursery.start_soon(self._download_all, preparer, wanted, operations)
            async with operations.sender() as out, wanted.sender() as wants:
                emit = _Emit(self, preparer, out, wants)
                if with_changes:
                    await self._list_changes(emit)
                elif self._plan.kind == "access_control":
                    await self._list_identities(emit)
                else:
                    await self._list_partitions(emit)
                await wants.finish()
                await out.finish()

    # Listing

    async def _list_partitions(self, emit: _Emit) -> None:
        limit = trio.Semaphore(self._settings.partitions_max or max(1, self._source.partition_concurrency))
        named: set[str] = set()
        async with trio.open_nursery() as workers:
            try:
                async with aclosing(self._source.partitions(self._plan.advanced_rules)) as partitions:
                    async for partition in partitions:
                        if partition.key in named:
                            raise SyncFailed(f"The source names the partition {partition.key!r} twice.")
                        named.add(partition.key)
                        progress = self._progress_of(partition.key)
                        if progress.state == "listed":
                            continue
                        await limit.acquire()
                        workers.start_soon(self._list_partition, partition, progress, emit, limit)
                self._all_named = True
            except SyncFailed:
                raise
            except Exception as exc:  # noqa: BLE001 - naming partitions ends here; it is reported with the job
                self._listing_failed = _cause(exc)
                tell(SourceNotListed(why=self._listing_failed))
                log.warning("source.partitions_failed", why=self._listing_failed)

    def _progress_of(self, key: str) -> PartitionProgress:
        progress = self._partitions.get(key)
        if progress is None:
            progress = PartitionProgress(key, hash64(key.encode("utf-8", "surrogatepass")), self._state is not None)
            self._partitions[key] = progress
        return progress

    async def _list_partition(
        self, partition: Partition, progress: PartitionProgress, emit: _Emit, limit: trio.Semaphore
    ) -> None:
        try:
            async with aclosing(self._source.documents(partition, progress.settled_checkpoint)) as listing:
                await self._read(listing, progress, emit)
        except (StoreError, SyncFailed, EngineFailed):
            raise
        except Exception as exc:  # noqa: BLE001 - a partition ends here; it is reported, and deletes nothing
            self._broke(progress, exc)
        else:
            progress.finish()
        finally:
            limit.release()

    def _broke(self, progress: PartitionProgress, exc: Exception) -> None:
        progress.state, progress.why = "broken", _cause(exc)
        tell(PartitionBroken(partition=progress.key, why=progress.why, listed=progress.listed))
        log.warning("partition.broken", partition=progress.key, why=progress.why)

    async def _list_changes(self, emit: _Emit) -> None:
        progress = self._progress_of(CHANGES)
        try:
            async with aclosing(self._source.changes(self._plan.cursor, self._plan.advanced_rules)) as listing:
                await self._read(listing, progress, emit)
        except (StoreError, SyncFailed, EngineFailed):
            raise
        except Exception as exc:  # noqa: BLE001 - the change feed ends here; it is reported with the job
            self._broke(progress, exc)
        else:
            progress.finish()
            self._all_named = True

    async def _read(self, listing: AsyncIterator[Any], progress: PartitionProgress, emit: _Emit) -> None:
        """Read one listing to its end. What the source raises is raised."""
        tell(PartitionOpened(partition=progress.key, resumed=progress.resumed))
        began_s = monotonic()
        page: list[Document] = []
        async for found in listing:
            if found.__class__ is list and not page and _are_documents(found):
                await emit.documents(found, progress)
                continue
            for item in found if isinstance(found, list | tuple) else (found,):
                if item.__class__ is Document:
                    page.append(item)
                    continue
                await emit.documents(page, progress)
                page = []
                await self._take(item, progress, emit)
            # A page of the source is compared as it comes; single documents are gathered.
            if page and (len(page) >= PAGE_DOCUMENTS or isinstance(found, list | tuple)):
                await emit.documents(page, progress)
                page = []
        await emit.documents(page, progress)
        _closed(progress, began_s)

    async def _take(self, item: Any, progress: PartitionProgress, emit: _Emit) -> None:
        match item:
            case Checkpoint(value=value):
                progress.checkpoint(value)
                self._cursor = value if progress.key == CHANGES else self._cursor
            case Failure():
                await self._failure(item, progress)
            case Document():
                await emit.documents([item], progress)
            case _:
                raise TypeError(
                    f"The source yielded {type(item).__name__} instead of a document, failure or checkpoint."
                )

    async def _failure(self, failure: Failure, progress: PartitionProgress) -> None:
        if failure.scope != "item" or failure.document_id is None:
            # Nobody knows which documents it hides, so none of this partition may count as gone.
            progress.containers_failed += 1
            progress.why = progress.why or f"{failure.what}: {failure.cause}"
        else:
            progress.spare(failure.document_id)
            if self._known is not None:
                found = await self._known.find([failure.document_id])
                if found.rows[0] >= 0:
                    self._known.mark(found.rows[0])
        progress.current.counts.failed += 1
        letter_of(
            self.counters,
            self.letters,
            FailedDocument(failure.what, "listing", failure.cause, progress.key, failure.document_id),
        )
        if self.letters.wants_flush:
            await self.letters.flush()

    async def _list_identities(self, emit: _Emit) -> None:
        progress = self._progress_of("identities")
        try:
            tell(PartitionOpened(partition=progress.key))
            began_s = monotonic()
            async with aclosing(self._source.identities()) as listing:
                async for found in listing:
                    items = found if isinstance(found, list | tuple) else (found,)
                    for item in items:
                        if isinstance(item, Failure):
                            await self._failure(item, progress)
                    await emit.identities([item for item in items if isinstance(item, Identity)], progress)
        except (StoreError, SyncFailed, EngineFailed):
            raise
        except Exception as exc:  # noqa: BLE001 - the listing of identities ends here; it is reported with the job
            self._broke(progress, exc)
        else:
            _closed(progress, began_s)
            progress.finish()
            self._all_named = True

    # Downloads

    async def _download_all(self, preparer: Preparer, wanted: Stream[_Download], out: Stream[Operations]) -> None:
        workers = self._settings.downloads_max or max(1, self._source.content_concurrency)
        memory = Budget(self._settings.download_memory_size_bytes).holder("downloads")
        async with self._reader() as reader, out.sender() as sender:
            async with trio.open_nursery() as nursery, wanted.receiver() as downloads:
                limit = trio.Semaphore(workers)
                async for batch in downloads:
                    small, others = self._sorted_by_size(batch.items, reader)
                    for group in small:
                        await limit.acquire()
                        nursery.start_soon(
                            self._download_small, group, preparer, reader, memory, sender, limit, nursery
                        )
                    for one in others:
                        await limit.acquire()
                        nursery.start_soon(self._download, one, preparer, reader, memory, sender, limit)
                    batch.settle()
            await sender.finish()

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[ContentReader]:
        if not self._plan.text_locally:
            yield AttachmentReader()
            return
        if self._extractor is not None:
            yield TextReader(self._extractor)
            return
        from ..extraction import ExtractionSettings, open_extractor

        # Opened with the first file: a sync without content pays nothing for it.
        async with _Lazily(lambda: open_extractor(ExtractionSettings())) as extractor:
            yield TextReader(extractor)

    def _sorted_by_size(
        self, items: Sequence[_Download], reader: ContentReader
    ) -> tuple[list[list[_Download]], list[_Download]]:
        """Groups of small files, each of one segment, and the files that are read one by one."""
        size_max, limit = self._source.small_content_bytes_max, self._settings.download_size_bytes_max
        if limit is not None:
            size_max = min(size_max, limit)
        groups: list[list[_Download]] = []
        others: list[_Download] = []
        for one in items:
            content = one.wanted.content
            size_bytes = content.size_bytes
            if size_bytes is None or size_bytes > size_max or content.gives != "bytes" or not reader.accepts(content):
                others.append(one)
            elif groups and groups[-1][0].segment is one.segment and len(groups[-1]) < SMALL_FILES_AT_ONCE:
                groups[-1].append(one)
            else:
                groups.append([one])
        return groups, others

    async def _download_small(
        self,
        group: list[_Download],
        preparer: Preparer,
        reader: ContentReader,
        memory: Any,
        sender: StreamSender[Operations],
        limit: trio.Semaphore,
        nursery: trio.Nursery,
    ) -> None:
        """Read a group of small files in one go; those that need more than that are read one by one."""
        counters = self.counters
        left: list[_Download] = []
        done: list[_Download] = []
        operations: list[Operation] = []
        size_bytes = 0
        try:
            async with await memory.take(3 * sum(one.wanted.content.size_bytes or 0 for one in group)):
                try:
                    contents = await self._source.fetch_small([one.wanted.content for one in group])
                except SourceError:
                    contents = [None] * len(group)
                for one, data in zip(group, contents, strict=True):
                    more = None if data is None else reader.read_at_once(one.wanted.content, data)
                    if data is None or more is None:
                        left.append(one)
                        continue
                    operation = preparer.completed(one.wanted, more, failed=False)
                    operations.append(operation)
                    size_bytes += len(operation.payload)
                    done.append(one)
                    self.letters.was_read(one.wanted.id)
                    counters.downloaded += 1
                    counters.downloaded_bytes += len(data)
                if operations:
                    first = group[0]
                    for part, part_bytes in batches(
                        operations, size_bytes, self._settings.bulk_documents_max, self._settings.bulk_size_bytes_max
                    ):
                        await sender.send([Operations(first.partition, first.segment, part, part_bytes)], part_bytes)
        finally:
            limit.release()
            self._downloading.difference_update(one.wanted.id for one in done)
            self._download_ended.unpark_all()
        for one in left:
            await limit.acquire()
            nursery.start_soon(self._download, one, preparer, reader, memory, sender, limit)

    async def _download(
        self,
        one: _Download,
        preparer: Preparer,
        reader: ContentReader,
        memory: Any,
        sender: StreamSender[Operations],
        limit: trio.Semaphore,
    ) -> None:
        wanted, counters, settings = one.wanted, self.counters, self._settings
        content, size_max = wanted.content, settings.download_size_bytes_max
        more: dict[str, Any] | None = None
        failed = keeps_text = False
        began_s, before = monotonic(), counters.downloads_too_large
        try:
            if content.gives == "bytes" and not reader.accepts(content):
                pass
            elif size_max is not None and content.size_bytes is not None and content.size_bytes > size_max:
                counters.downloads_too_large += 1
                keeps_text = True
            else:
                # The bytes, and the text that is made of them.
                expected = 3 * (content.size_bytes if content.size_bytes is not None else min(size_max or 2**20, 2**20))
                async with await memory.take(expected):
                    try:
                        fetched = await fetch(
                            self._source,
                            content,
                            reader,
                            size_bytes_max=size_max,
                            tries_max=settings.download_tries_max,
                        )
                    except TooLarge:
                        counters.downloads_too_large += 1
                        keeps_text = True
                        self.letters.was_read(wanted.id)
                    except NoText as exc:
                        keeps_text = True
                        self.letters.was_read(wanted.id)
                        log.info("download.no_text", id=wanted.id, name=content.name, why=str(exc))
                    except ContentFailed as exc:
                        # Poison is not tried again for the same file: it would cost two workers in every sync.
                        keeps_text = exc.where == QUARANTINE
                        failed = not keeps_text
                        if exc.where == "extraction":
                            self.letters.was_read(wanted.id)
                        letter = FailedDocument(wanted.id, exc.where, exc.why, one.partition.key, wanted.id)
                        letter_of(counters, self.letters, letter)
                        one.segment.counts.failed += 1
                        log.warning("download.failed", id=wanted.id, name=content.name, why=exc.why)
                    else:
                        more = fetched.fields
                        self.letters.was_read(wanted.id)
                        counters.downloaded += 1
                        counters.downloaded_bytes += fetched.size_bytes
            if is_told():
                large = counters.downloads_too_large > before
                outcome = "failed" if failed else "ok" if more is not None else "too_large" if large else "no_text"
                size_read = content.size_bytes or 0
                took_s = monotonic() - began_s
                tell(ContentRead(name=content.name, size_bytes=size_read, seconds=took_s, outcome=outcome))
            earlier = None
            if (failed or keeps_text) and wanted.row >= 0 and wanted.operation == "index" and content.gives == "bytes":
                earlier = await self._earlier_text(wanted.id)
            operation = preparer.completed(wanted, more, failed=failed, keeps_text=keeps_text, earlier=earlier)
            size_bytes = len(operation.payload)
            await sender.send([Operations(one.partition, one.segment, [operation], size_bytes)], size_bytes)
        finally:
            limit.release()
            self._downloading.discard(wanted.id)
            self._download_ended.unpark_all()

    async def _earlier_text(self, document_id: str) -> dict[str, Any]:
        """The text that a document of the index has from its file; nothing if it has none. Raises `StoreError`."""
        told = await self._store.client.mget(
            index=self._plan.index, ids=[document_id], source_includes=["body", TRUNCATED]
        )
        found: dict[str, Any] = next((hit["_source"] for hit in told["docs"] if hit.get("found")), {})
        if "body" not in found:
            return {}
        flagged = "body" in found.get(TRUNCATED, ())
        return {"body": found["body"], **({TRUNCATED: ["body"]} if flagged else {})}

    # Deleting

    async def _delete(self, sink: Sink) -> None:
        """Delete what is known to be gone, unless it looks like an accident."""
        known, plan = self._known, self._plan
        assert known is not None
        partitions = self._partitions.values()
        listed = Listed(
            closed=frozenset(one.hash for one in partitions if one.is_clean),
            named=frozenset(one.hash for one in partitions),
            all_named=self._all_named,
        )
        if not listed.closed and not listed.all_named:
            return
        await self._know_partitions(listed)
        count, spared, digest = 0, 0, 0
        examples: list[str] = []
        async with aclosing(known.unseen()) as pages:
            async for page in pages:
                for one, partition, _ in page:
                    if may_delete(partition, listed):
                        count += 1
                        digest ^= hash64(one.encode("utf-8", "surrogatepass"))
                        if len(examples) < HELD_BACK_KEPT:
                            examples.append(one)
                    else:
                        spared += 1
        if spared:
            self._notes.append(
                f"{spared} documents that were not listed are kept: their partitions were not listed to the end"
            )
        held = (
            await read_held(self._store, plan.index)
            if count or self._settings.deletions.release == "next_full_sync"
            else None
        )
        shown = f"{digest:016x}"
        verdict = judge_deletions(
            count,
            self._in_index,
            self._settings.deletions,
            confirmed=plan.deletions_confirmed or (held is not None and held.state == "confirmed"),
            agreed=held is not None and (held.count, held.digest) == (count, shown) and held.job_id != plan.job_id,
        )
        if verdict.why:
            self._notes.append(verdict.why)
        if verdict.action == "hold_back":
            self._held = count, tuple(examples)
            self.counters.held_back = count
            tell(DeletionsHeldBack(count=count, why=verdict.why))
            log.warning("deletions.held_back", count=count, why=verdict.why)
            record = HeldBack(new_id(), plan.index, plan.job_id, plan.connector_id, count, shown, "waiting")
            await write_held(self._store, record, self._gone(listed))
            return
        if verdict.action == "delete":
            if count:
                tell(DeletionsBegun(count=count))
            await self._send_deletes(sink, listed)
        if held is not None:
            await forget_held(self._store, plan.index)

    async def _know_partitions(self, listed: Listed) -> None:
        """Deciding by partition needs the ledger, which not every sync has read at its beginning."""
        if listed.all_closed or self._knows_partitions or self._ledger is None:
            return
        assert self._known is not None
        entries = await self._ledger.load(self._settings.known_memory_size_bytes // 2)
        try:
            await self._known.join_partitions(entries)
        finally:
            entries.close()

    async def _gone(self, listed: Listed) -> Any:
        assert self._known is not None
        async with aclosing(self._known.unseen()) as pages:
            async for page in pages:
                yield [(one, seq_no) for one, partition, seq_no in page if may_delete(partition, listed)]

    async def _send_deletes(self, sink: Sink, listed: Listed) -> None:
        settings = self._settings
        stream: Stream[Operations] = Stream("deletions", 2, Budget(settings.queue_size_bytes_max).holder("deletions"))
        progress = PartitionProgress("deletions", 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.pump, stream)
            async with stream.sender() as out, aclosing(self._gone(listed)) as pages:
                async for page in pages:
                    gone = [delete_operation(one) for one, _ in page]
                    self.counters.deletes_queued += len(gone)
                    self.counters.deletes_sent += len(gone)
                    progress.current.pending += len(gone)
                    total = sum(len(one.payload) for one in gone)
                    for part, size_bytes in batches(
                        gone, total, settings.bulk_documents_max, settings.bulk_size_bytes_max
                    ):
                        await out.send([Operations(progress, progress.current, part, size_bytes)], size_bytes)
                await out.finish()

    # Concluding

    async def _conclude(self) -> None:
        """Write what must be known next time, and say whether the sync is complete."""
        plan, store = self._plan, self._store
        if self._ledger is not None:
            await self._ledger.flush()
        await self.letters.flush()
        broken = [one for one in self._partitions.values() if one.state == "broken"]
        if self._listing_failed is not None:
            raise SyncFailed(f"The source could not name its partitions: {self._listing_failed}")
        if broken:
            more = f" (and {len(broken) - 1} more partitions)" if len(broken) > 1 else ""
            raise SyncFailed(f"{broken[0].key}: {broken[0].why}{more}. Nothing of what was not listed was deleted.")
        holes = [one for one in self._partitions.values() if one.containers_failed]
        if holes:
            raise SyncFailed(_parts_unread(holes))
        if self._ledger is not None and plan.kind == "full":
            await self._ledger.completed(plan.setup.hex())
        await self.letters.forget_replayed()
        await self.letters.forget_released()
        if plan.kind == "full" and plan.job_id:
            await self.letters.forget_resolved()
        await self._forget_state()
        try:
            self._total = await store.content.count(content_index(plan.index), refresh=True)
        except NotFound:
            # An access-control sync may come before the first content sync.
            self._total = 0

    async def _keep_what_is_settled(self) -> None:
        """At the end, whatever end it is: write checkpoints, ledger and letters as far as there is time."""
        try:
            if self._state is not None and self._total is None:
                await self._save_settled()
            if self._ledger is not None:
                await self._ledger.flush()
            await self.letters.flush()
        except Exception as exc:  # noqa: BLE001 - the run is over; what could not be kept is only sent again
            log.warning("sync.state_not_kept", why=_cause(exc))

    async def _save_checkpoints(self) -> None:
        while True:
            await trio.sleep(self._settings.checkpoint_every_s)
            await self._save_settled()

    async def _forget_state(self) -> None:
        async with self._saving:
            # Nothing may be saved from here on: a partition noted as read to its end, without the ids that were listed in it,
            # would make whoever goes on delete what it holds.
            state, self._state = self._state, None
            if state is not None:
                await state.forget()

    async def _save_settled(self) -> None:
        async with self._saving:
            state = self._state
            if state is None:
                return
            for partition in list(self._partitions.values()):
                closed = partition.is_clean and partition.is_settled
                if partition.has_new_checkpoint or (closed and not partition.is_stored_closed):
                    # What the ledger does not hold yet would be sent again; what a checkpoint skips would not.
                    if self._ledger is not None:
                        await self._ledger.flush()
                    await state.save(partition, is_closed=closed)
                    partition.is_stored_closed = closed

    async def _tell(self) -> None:
        assert self._on_progress is not None
        while True:
            self._on_progress(self.progress())
            await trio.sleep(self._settings.progress_every_s)


class _Emit:
    """Where listings put what they find."""

    def __init__(
        self, run: SyncRun, preparer: Preparer, out: StreamSender[Operations], wants: StreamSender[_Download]
    ) -> None:
        self._run, self._preparer, self._out, self._wants = run, preparer, out, wants
        self._settings = run._settings

    async def documents(self, page: list[Document], progress: PartitionProgress) -> None:
        """Compare a page and hand on what has to be sent or read."""
        if page:
            began_s = monotonic()
            with _engine():
                await self._documents(page, progress)
            if is_told():
                took_s = monotonic() - began_s
                tell(PageCompared(partition=progress.key, documents=len(page), seconds=took_s))

    async def _documents(self, page: list[Document], progress: PartitionProgress) -> None:
        if progress.key == CHANGES:
            for part in _once_each(page):
                await self._wait_for_downloads({str(one.id) for one in part})
                await self._hand_on(await self._preparer.documents(part), progress, len(part))
            return
        await self._hand_on(await self._preparer.documents(page), progress, len(page))

    async def identities(self, found: Sequence[Identity], progress: PartitionProgress) -> None:
        """Compare identities and hand on what has to be sent."""
        with _engine():
            await self._identities(found, progress)

    async def _identities(self, found: Sequence[Identity], progress: PartitionProgress) -> None:
        written: list[tuple[str, dict[str, object]]] = []
        usable: list[Identity] = []
        for identity in found:
            try:
                one = document_id(identity.id)
            except InvalidDocumentId as exc:
                self._run.counters.listed += 1
                self._refuse(str(identity.fields)[:80], str(exc), progress)
                continue
            usable.append(identity)
            written.append((one, _identity(identity, one)))
        if written:
            await self._hand_on(await self._preparer.identities(usable, written), progress, len(written))

    def _refuse(self, what: str, why: str, progress: PartitionProgress) -> None:
        self._run.counters.refused += 1
        self._run.letters.add(FailedDocument(what, "listing", why, progress.key))

    async def _hand_on(self, prepared: Prepared, progress: PartitionProgress, listed: int) -> None:
        run, settings, segment = self._run, self._settings, progress.current
        count = len(prepared.operations) + len(prepared.wanted)
        # Counted before anything is awaited: from here on the segment is not settled without them.
        segment.pending += count
        run.counters.sent += count
        progress.listed += listed
        counts = segment.counts
        counts.listed += listed
        counts.unchanged += prepared.unchanged
        counts.failed += len(prepared.refused)
        if segment.seen is not None:
            segment.seen.extend([hash64(one.encode("utf-8", "surrogatepass")) for one in prepared.ids])
        for refused in prepared.refused:
            run.letters.add(FailedDocument(refused.what, "listing", refused.why, progress.key))
        for part, size_bytes in batches(
            prepared.operations, prepared.size_bytes, settings.bulk_documents_max, settings.bulk_size_bytes_max
        ):
            await self._out.send([Operations(progress, segment, part, size_bytes)], size_bytes)
        for start in range(0, len(prepared.wanted), SMALL_FILES_AT_ONCE):
            some = prepared.wanted[start : start + SMALL_FILES_AT_ONCE]
            run._downloading.update(wanted.id for wanted in some)
            await self._wants.send([_Download(progress, segment, wanted) for wanted in some])
        if not count:
            await trio.lowlevel.checkpoint()

    async def _wait_for_downloads(self, ids: set[str]) -> None:
        """A later change of a document must not overtake an earlier one that is still being read."""
        run = self._run
        while not run._downloading.isdisjoint(ids):
            await run._download_ended.park()


@contextmanager
def _engine() -> Iterator[None]:
    """Tell apart what fails here from what fails in the source whose listing is being read."""
    try:
        yield
    except (StoreError, SyncFailed):
        raise
    except Exception as exc:
        raise EngineFailed(_cause(exc)) from exc


def _closed(progress: PartitionProgress, began_s: float) -> None:
    """Tell that a listing came to its end, and whether parts of it could not be read."""
    if progress.containers_failed:
        tell(PartitionBroken(partition=progress.key, why=progress.why, listed=progress.listed))
    else:
        tell(PartitionClosed(partition=progress.key, listed=progress.listed, seconds=monotonic() - began_s))


def _are_documents(found: Sequence[Any]) -> bool:
    return {item.__class__ for item in found} == {Document}


def _once_each(page: list[Document]) -> list[list[Document]]:
    """Cut a page so that no document is named twice in one part."""
    parts: list[list[Document]] = [[]]
    ids: set[str] = set()
    for document in page:
        one = str(document.id)
        if one in ids:
            parts.append([])
            ids = set()
        ids.add(one)
        parts[-1].append(document)
    return parts


def _identity(identity: Identity, document_id: str) -> dict[str, object]:
    if identity.document is not None:
        document = dict(identity.document)
        document.pop("_id", None)
        document["id"] = document_id
    else:
        document = dict(identity_document(document_id, identity.access, identity=identity.fields))
        document.pop("_id", None)
    if identity.timestamp is not None:
        document["_timestamp"] = identity.timestamp
    return document


class _Lazily:
    """An extractor that is opened at its first use, and closed with the block."""

    def __init__(self, open_it: Callable[[], Any]) -> None:
        self._open_it = open_it
        self._context: Any = None
        self._opened: Any = None
        self._lock = trio.Lock()

    async def __aenter__(self) -> _Lazily:
        return self

    async def __aexit__(self, *details: Any) -> None:
        if self._context is not None:
            await self._context.__aexit__(*details)

    def accepts(self, name: str) -> bool:
        from ..extraction import is_accepted

        return is_accepted(name)

    def extract_at_once(self, name: str, content: bytes, media_type: str | None = None) -> Any:
        from ..extraction import ExtractionLimits
        from ..extraction.extractor import read_at_once

        return read_at_once(name, content, ExtractionLimits(), media_type)

    async def extract(self, name: str, chunks: AsyncIterator[bytes], media_type: str | None = None) -> Any:
        async with self._lock:
            if self._opened is None:
                context = self._open_it()
                self._opened = await context.__aenter__()
                self._context = context
        return await self._opened.extract(name, chunks, media_type)


def _parts_unread(holes: Sequence[PartitionProgress]) -> str:
    count = sum(one.containers_failed for one in holes)
    parts = "1 part" if count == 1 else f"{count} parts"
    # A source that is one single partition calls it "." or nothing: that name tells nobody anything.
    names = [one.key for one in holes[:5] if one.key not in ("", ".")]
    kept = f"Nothing was deleted from: {', '.join(names)}." if names else "Nothing was deleted."
    return f"{parts} of the source could not be read, for example {holes[0].why.rstrip('.')}. {kept}"


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


def _cause(exc: BaseException) -> str:
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that says why a nursery ended. Cancellations are passed on whole."""
    leaves = _leaves(group)
    if any(isinstance(leaf, trio.Cancelled) or not isinstance(leaf, Exception) for leaf in leaves):
        return group
    return leaves[0]


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]
