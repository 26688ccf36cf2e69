"""Reading what the source has, partition by partition, into the stages behind.

A listing that breaks off is noted with its partition and never passes for its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import structlog
import trio

from ...protocol.store import StoreError
from ...runtime import monotonic
from ...sources.source import Checkpoint, Document, Failure, Identity, Partition
from ..journal.events import PartitionBroken, PartitionClosed, PartitionOpened, SourceNotListed
from ..journal.telling import tell
from .dead_letters import letter_of
from .failing import EngineFailed, LeaseGone, SyncFailed, cause
from .handing_on import Emit
from .report import (
    FailedDocument,
)
from .segments import PartitionProgress
from .sharing import Holding, Sharing
from .work import CHANGES, Work

PAGE_DOCUMENTS = 100
"""Documents that a source yields one by one are compared so many at a time,"""
PAGE_AGE_S = 1.0
"""or those that came so long ago, when the next one comes."""

log = structlog.get_logger(__name__)


class Listing:
    """Reads everything a source has. What ends a single partition is noted; what ends the sync is raised."""

    def __init__(self, work: Work, emit: Emit, save: Callable[[], Awaitable[None]]) -> None:
        self._work, self._emit, self._save = work, emit, save

    async def run(self) -> None:
        """List all there is for this kind of sync."""
        plan = self._work.plan
        if self._work.follows_changes:
            await self._list_changes()
        elif plan.kind == "access_control":
            await self._list_identities()
        elif self._work.sharing is not None:
            await self._share_partitions(self._work.sharing)
        else:
            await self._list_partitions()

    async def _list_partitions(self) -> None:
        limit = trio.Semaphore(self._work.settings.partitions_max or max(1, self._work.source.partition_concurrency))
        named: set[str] = set()
        async with trio.open_nursery() as workers:
            try:
                async with aclosing(self._work.source.partitions(self._work.plan.advanced_rules)) as partitions:
                    async for partition in partitions:
                        if partition.key in named:
                            raise SyncFailed(f"The source names the partition {partition.key!r} twice.")
                        named.add(partition.key)
                        progress = self._work.progress_of(partition.key)
                        if progress.state == "listed":
                            continue
                        await limit.acquire()
                        workers.start_soon(self._list_partition, partition, progress, limit)
                self._work.all_named = True
            except SyncFailed:
                raise
            except Exception as exc:  # noqa: BLE001 - naming partitions ends here; it is reported with the job
                self._work.listing_failed = cause(exc)
                tell(SourceNotListed(why=self._work.listing_failed))
                log.warning("source.partitions_failed", why=self._work.listing_failed)

    async def _share_partitions(self, sharing: Sharing) -> None:
        source, state = self._work.source, self._work.state
        assert state is not None
        room = self._work.settings.partitions_max or max(1, source.partition_concurrency)
        partitions = source.partitions(self._work.plan.advanced_rules) if sharing.is_owner else None
        failed = await sharing.list_all(partitions, self._list_leased, state, self._save, room)
        self._work.listing_failed, self._work.all_named = failed, failed is None

    async def _list_leased(self, partition: Partition, progress: PartitionProgress, holding: Holding) -> None:
        async with aclosing(self._work.source.documents(partition, progress.settled_checkpoint)) as listing:
            await self._list_one(holding.guard(listing), progress)

    async def _list_partition(self, partition: Partition, progress: PartitionProgress, limit: trio.Semaphore) -> None:
        try:
            async with aclosing(self._work.source.documents(partition, progress.settled_checkpoint)) as listing:
                await self._list_one(listing, progress)
        finally:
            limit.release()

    async def _list_one(self, listing: AsyncIterator[Any], progress: PartitionProgress) -> None:
        try:
            await self._read(listing, progress)
        except (StoreError, SyncFailed, EngineFailed, LeaseGone):
            raise
        except Exception as exc:  # noqa: BLE001 - a partition ends here; it is reported, and deletes nothing
            self._broke(progress, exc)
        else:
            progress.finish()

    def _broke(self, progress: PartitionProgress, exc: Exception) -> None:
        progress.state, progress.why = "broken", cause(exc)
        tell(PartitionBroken(partition=progress.key, why=progress.why, listed=progress.listed))
        log.warning("partition.broken", partition=progress.key, why=progress.why)

    async def _list_changes(self) -> None:
        progress = self._work.progress_of(CHANGES)
        try:
            async with aclosing(
                self._work.source.changes(self._work.plan.cursor, self._work.plan.advanced_rules)
            ) as listing:
                await self._read(listing, progress)
        except (StoreError, SyncFailed, EngineFailed):
            raise
        except Exception as exc:  # noqa: BLE001 - the change feed ends here; it is reported with the job
            self._broke(progress, exc)
        else:
            progress.finish()
            self._work.all_named = True

    async def _list_identities(self) -> None:
        progress = self._work.progress_of("identities")
        try:
            tell(PartitionOpened(partition=progress.key))
            began_s = monotonic()
            async with aclosing(self._work.source.identities()) as listing:
                async for found in listing:
                    items = found if isinstance(found, list | tuple) else (found,)
                    for item in items:
                        if isinstance(item, Failure):
                            await self._failure(item, progress)
                    await self._emit.identities([item for item in items if isinstance(item, Identity)], progress)
        except (StoreError, SyncFailed, EngineFailed):
            raise
        except Exception as exc:  # noqa: BLE001 - the listing of identities ends here; it is reported with the job
            self._broke(progress, exc)
        else:
            _closed(progress, began_s)
            progress.finish()
            self._work.all_named = True

    async def _read(self, listing: AsyncIterator[Any], progress: PartitionProgress) -> None:
        """Read one listing to its end. What the source raises is raised."""
        tell(PartitionOpened(partition=progress.key, resumed=progress.resumed))
        began_s = monotonic()
        page: list[Document] = []
        page_began_s = 0.0
        async for found in listing:
            if found.__class__ is list and not page and _are_documents(found):
                await self._emit.documents(found, progress)
                continue
            for item in found if isinstance(found, list | tuple) else (found,):
                if item.__class__ is Document:
                    page_began_s = page_began_s if page else monotonic()
                    page.append(item)
                    continue
                await self._emit.documents(page, progress)
                page = []
                await self._take(item, progress)
            # A page of the source is compared as it comes; single documents are gathered, but not for long by a slow source.
            if page and (
                len(page) >= PAGE_DOCUMENTS
                or isinstance(found, list | tuple)
                or monotonic() - page_began_s >= PAGE_AGE_S
            ):
                await self._emit.documents(page, progress)
                page = []
        await self._emit.documents(page, progress)
        _closed(progress, began_s)

    async def _take(self, item: Any, progress: PartitionProgress) -> None:
        match item:
            case Checkpoint(value=value):
                progress.checkpoint(value)
                self._work.cursor = value if progress.key == CHANGES else self._work.cursor
            case Failure():
                await self._failure(item, progress)
            case Document():
                await self._emit.documents([item], progress)
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
            if self._work.known is not None:
                found = await self._work.known.find([failure.document_id])
                if found.rows[0] >= 0:
                    self._work.known.mark(found.rows[0])
        progress.current.counts.failed += 1
        letter_of(
            self._work.counters,
            self._work.letters,
            FailedDocument(failure.what, "listing", failure.cause, progress.key, failure.document_id),
        )
        if self._work.letters.wants_flush:
            await self._work.letters.flush()


def _closed(progress: PartitionProgress, began_s: float) -> None:
    """Tell that a listing came to its end, and whether parts of it could not be read."""
    if progress.containers_failed:
        tell(PartitionBroken(partition=progress.key, why=progress.why, listed=progress.listed))
    else:
        tell(PartitionClosed(partition=progress.key, listed=progress.listed, seconds=monotonic() - began_s))


def _are_documents(found: Sequence[Any]) -> bool:
    return {item.__class__ for item in found} == {Document}
