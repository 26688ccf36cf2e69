"""What a job must remember if its process dies, written while it runs, and taken up by whoever goes on."""

from __future__ import annotations

from array import array
from contextlib import aclosing

import structlog
import trio

from ..journal.events import JobResumed
from ..journal.telling import tell
from .failing import cause
from .fingerprints import hash64
from .ledger import Entries, Run
from .segments import PartitionProgress
from .sharing import Sharing
from .state import JobState
from .work import Work

log = structlog.get_logger(__name__)


class Checkpoints:
    """Keeps the state of a running job, as far as the job can go on at all."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._saving = trio.Lock()

    async def resume(self, state: JobState) -> Entries | None:
        """Take up what an earlier run of this job has left."""
        await state.open()
        if self._work.sharing is not None:
            await self._resume_shared(self._work.sharing, state)
            return None
        earlier = await state.load()
        if not earlier:
            if self._work.plan.goes_on:
                self._work.notes.append("no checkpoint was reached before, so the job started over")
            return None
        for one in earlier.values():
            partition = PartitionProgress(one.key, hash64(one.key.encode()), resumable=True)
            partition.go_on_from(one.checkpoint, one.counts)
            if one.is_closed:
                partition.finish()
                partition.is_stored_closed = True
            self._work.partitions[one.key] = partition
            self._work.carried.add(one.counts)
        seen = await self._seen(state)
        self._work.notes.append(f"goes on from the checkpoints of {len(earlier)} partitions")
        tell(JobResumed(partitions=len(earlier), listed=self._work.carried.listed))
        log.info("sync.resumed", partitions=len(earlier), listed=self._work.carried.listed)
        return seen

    async def _seen(self, state: JobState) -> Entries:
        seen = Entries(self._work.settings.known_memory_size_bytes // 4)
        hashes_of = state.seen()
        async with aclosing(hashes_of):
            async for hashes in hashes_of:
                nothing = array("Q", bytes(8 * len(hashes)))
                await seen.add(Run(hashes, array("q", bytes(8 * len(hashes))), nothing, nothing))
        return seen

    async def _resume_shared(self, sharing: Sharing, state: JobState) -> None:
        """Learn how far a shared job is. Where each partition goes on is read when its lease is taken."""
        count = await sharing.begin()
        if sharing.is_owner and count:
            listed = self._work.done().listed
            self._work.notes.append(f"goes on from the checkpoints of {count} partitions")
            tell(JobResumed(partitions=count, listed=listed))
            log.info("sync.resumed", partitions=count, listed=listed)
        elif sharing.is_owner and self._work.plan.goes_on:
            self._work.notes.append("no checkpoint was reached before, so the job started over")

    async def mark_listed(self, state: JobState) -> None:
        """Once a shared job is listed: take note of what the others have done, and of every document that anybody listed."""
        sharing, known = self._work.sharing, self._work.known
        assert sharing is not None
        assert known is not None
        await sharing.conclude(state)
        if sharing.elsewhere:
            self._work.notes.append(
                f"{len(sharing.elsewhere)} of {len(self._work.partitions)} partitions were listed by other services"
            )
        seen = await self._seen(state)
        try:
            await known.mark_listed(seen)
        finally:
            seen.close()

    async def keep_saving(self) -> None:
        while True:
            await trio.sleep(self._work.settings.checkpoint_every_s)
            await self.save()

    async def _flush_ledger(self) -> None:
        if self._work.ledger is not None:
            await self._work.ledger.flush()

    async def save(self, *, gives_back: bool = False) -> None:
        """Persist what has been settled. With `gives_back` the leases of a shared job that are held here become free."""
        async with self._saving:
            state = self._work.state
            if state is None:
                return
            if self._work.sharing is not None:
                await self._work.sharing.save(state, self._flush_ledger, gives_back=gives_back)
                return
            news: dict[PartitionProgress, bool] = {}
            for partition in self._work.partitions.values():
                closed = partition.is_clean and partition.is_settled
                if partition.has_new_checkpoint or (closed and not partition.is_stored_closed):
                    news[partition] = closed
            if not news:
                return
            # What the ledger does not hold yet would be sent again; what a checkpoint skips would not.
            await state.save_all(news, self._flush_ledger)
            for partition, closed in news.items():
                partition.is_stored_closed = closed

    async def begin_deleting(self, count: int) -> None:
        """Note how many documents are about to be deleted, so that whoever goes on knows how many of them are gone.

        Every partition is noted as read to its end first: what is to be deleted is the same for whoever goes on.
        """
        state = self._work.state
        if state is None:
            return
        planned = await state.planned_deletions()
        # An earlier run of this job has deleted what it had planned and we do not find any more.
        self._work.carried.deleted += max(0, planned - count)
        await self.save()
        await state.plan_deletions(max(planned, count))

    async def forget(self) -> None:
        async with self._saving:
            # Nothing may be saved from here on: a partition noted as read to its end, without the ids that were listed in it,
            # would make whoever goes on delete what it holds.
            state, self._work.state = self._work.state, None
            if state is not None:
                await state.forget()

    async def save_at_the_end(self) -> None:
        """At the end, whatever end it is: write checkpoints, ledger and letters as far as there is time."""
        try:
            if self._work.state is not None:
                await self.save(gives_back=True)
            if self._work.ledger is not None:
                await self._work.ledger.flush()
            await self._work.letters.flush()
        except Exception as exc:  # noqa: BLE001 - the run is over; what could not be kept is only sent again
            log.warning("sync.state_not_kept", why=cause(exc))
