"""The last phase of a sync: what was not listed goes, unless that looks like an accident."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import structlog
import trio

from ...runtime import new_id
from ...runtime.stream import Stream
from ..journal.events import DeletionsBegun, DeletionsHeldBack
from ..journal.telling import tell
from .batches import batches
from .checkpoints import Checkpoints
from .deletions import Listed, judge_deletions, may_delete
from .fingerprints import hash64
from .operations import Operations, delete_operation
from .report import (
    HELD_BACK_KEPT,
)
from .sink import Sink
from .state import HeldBack, forget_held, read_held, write_held
from .work import Work

log = structlog.get_logger(__name__)


class Deleting:
    """Deletes what is known to be gone."""

    def __init__(self, work: Work, sink: Sink, checkpoints: Checkpoints) -> None:
        self._work, self._sink, self._checkpoints = work, sink, checkpoints

    async def run(self) -> None:
        """Delete what is known to be gone, unless it looks like an accident."""
        known, plan = self._work.known, self._work.plan
        assert known is not None
        partitions = self._work.partitions.values()
        listed = Listed(
            closed=frozenset(one.hash for one in partitions if one.is_clean),
            named=frozenset(one.hash for one in partitions),
            all_named=self._work.all_named,
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
            self._work.notes.append(
                f"{spared} documents that were not listed are kept: their partitions were not listed to the end"
            )
        held = (
            await read_held(self._work.own_store, plan.index)
            if count or self._work.settings.deletions.release == "next_full_sync"
            else None
        )
        shown = f"{digest:016x}"
        verdict = judge_deletions(
            count,
            self._work.in_index,
            self._work.settings.deletions,
            confirmed=plan.deletions_confirmed or (held is not None and held.state == "confirmed"),
            agreed=held is not None and (held.count, held.digest) == (count, shown) and held.job_id != plan.job_id,
        )
        if verdict.why:
            self._work.notes.append(verdict.why)
        if verdict.action == "hold_back":
            self._work.held = count, tuple(examples)
            self._work.counters.held_back = count
            tell(DeletionsHeldBack(count=count, why=verdict.why))
            log.warning("deletions.held_back", count=count, why=verdict.why)
            record = HeldBack(new_id(), plan.index, plan.job_id, plan.connector_id, count, shown, "waiting")
            await write_held(self._work.own_store, record, self._gone(listed))
            return
        if verdict.action == "delete" or plan.goes_on:
            await self._checkpoints.begin_deleting(count)
            if count:
                tell(DeletionsBegun(count=count))
            await self._send_deletes(listed)
        if held is not None:
            await forget_held(self._work.own_store, plan.index)

    async def _know_partitions(self, listed: Listed) -> None:
        """Deciding by partition needs the ledger, which not every sync has read at its beginning."""
        if listed.all_closed or self._work.knows_partitions or self._work.ledger is None:
            return
        assert self._work.known is not None
        entries = await self._work.ledger.load(self._work.settings.known_memory_size_bytes // 2)
        try:
            await self._work.known.join_partitions(entries)
        finally:
            entries.close()

    async def _gone(self, listed: Listed) -> Any:
        assert self._work.known is not None
        async with aclosing(self._work.known.unseen()) as pages:
            async for page in pages:
                yield [(one, seq_no) for one, partition, seq_no in page if may_delete(partition, listed)]

    async def _send_deletes(self, listed: Listed) -> None:
        settings = self._work.settings
        stream: Stream[Operations] = Stream("deletions", 2, self._work.queue_bytes)
        progress = self._work.deletions
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sink.pump, stream)
            async with stream.sender() as out, aclosing(self._gone(listed)) as pages:
                async for page in pages:
                    gone = [delete_operation(one) for one, _ in page]
                    self._work.counters.deletes_queued += len(gone)
                    self._work.counters.deletes_sent += len(gone)
                    progress.current.pending += len(gone)
                    total = sum(len(one.payload) for one in gone)
                    for part, size_bytes in batches(
                        gone, total, settings.bulk_documents_max, settings.bulk_size_bytes_max
                    ):
                        await out.send([Operations(progress, progress.current, part, size_bytes)], size_bytes)
                await out.finish()
