"""Listing a job whose partitions several services share: the one that runs the job names them, everybody takes some.

Each partition is listed by whoever holds its lease; the listing is left as soon as the lease is known to be lost. What such a
holder had sent until then stays: every write names its document, and no two partitions share one. Only what a holder could note
in the lease counts, so that every document is counted once, whoever died in between.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import attrs
import structlog
import trio

from ...runtime import monotonic, random
from ...sources.source import Partition
from ..journal.events import LeaseExpired, LeaseLost, LeaseTaken, SourceNotListed
from ..journal.telling import tell
from .failing import LeaseGone, SyncFailed, cause
from .fingerprints import hash64
from .lease_keeping import Leases
from .leases import Lease, Observer, choose, ended, released
from .report import FAILURES_KEPT, FailedDocument
from .segments import PartitionCounts, PartitionProgress
from .state import STATE_INDEX, JobState

LINGER_S = 5.0
"""A helper without work waits so long for more."""
TICK_S = 0.1
LOOK_PAUSE_S_MIN = 0.2
SAVE_PAUSE_S_MIN = 0.5
TABLE_EVERY_S = 10.0
"""How often whoever runs the job counts what the others have done: as often as a job reports."""
NAMES_WAITING_MAX = 1_000
FAILURES_TOLD = 5
"""Of one partition, to whoever runs the job; all of them are dead letters."""

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class Holding:
    """A partition that is listed here."""

    id: str
    progress: PartitionProgress
    is_lost: bool = False
    is_read: bool = False
    """The listing is over; some of it may wait for its answers."""
    _reading: trio.CancelScope | None = None

    def lose(self) -> None:
        """Leave the listing at the next moment in which nothing of it is half handed on."""
        self.is_lost = True
        if self._reading is not None:
            self._reading.cancel()

    def guard(self, listing: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The listing for as long as the lease holds, then `LeaseGone`."""
        return _Guarded(self, listing)

    async def next_of(self, listing: AsyncIterator[Any]) -> Any:
        if not self.is_lost:
            with trio.CancelScope() as self._reading:
                try:
                    return await anext(listing)
                finally:
                    self._reading = None
        raise LeaseGone(self.progress.key)


class _Guarded:
    # Not a generator: those may not yield inside a cancel scope, and what was read must be handed on outside of it.
    def __init__(self, holding: Holding, listing: AsyncIterator[Any]) -> None:
        self._holding, self._listing = holding, listing

    def __aiter__(self) -> _Guarded:
        return self

    async def __anext__(self) -> Any:
        return await self._holding.next_of(self._listing)


ListOne = Callable[[Partition, PartitionProgress, Holding], Awaitable[None]]
Save = Callable[[], Awaitable[None]]


class Sharing:
    """One service's part in a shared job. The partitions are those of `Work.partitions`."""

    def __init__(
        self,
        leases: Leases,
        partitions: dict[str, PartitionProgress],
        first_failures: list[FailedDocument],
        *,
        lease_s: float,
        look_every_s: float,
    ) -> None:
        self._leases, self._partitions, self._first_failures = leases, partitions, first_failures
        self._look_every_s = look_every_s
        self._observer = Observer(lease_s)
        self._mine: dict[str, Holding] = {}
        self._reading = 0
        self._named: set[str] = set()
        self._unwritten: deque[tuple[str, Mapping[str, Any], str]] = deque()
        self._is_naming_over = False
        self._earlier: dict[str, dict[str, Any]] = {}
        """What an earlier run of the job has left, by partition."""
        self._look_at_s = self._looked_at_s = -math.inf
        self._table_at_s = math.inf
        self._wants_look = False
        self._candidates: deque[tuple[Lease, bool]] = deque()
        self._woken, self._has_room = trio.Event(), trio.Event()
        self._listed_before: set[str] = set()
        self._listed_here: set[str] = set()
        self.elsewhere: set[str] = set()
        """Keys of the partitions that other services have listed."""

    @property
    def is_owner(self) -> bool:
        return self._leases.is_owner

    # What others have done

    async def begin(self) -> int:
        """Learn how far the partitions are; return how many there are already."""
        if self.is_owner:
            self._earlier = {head["key"]: head for head in await self._read_table()}
            self._listed_before = {key for key, head in self._earlier.items() if head["closed"]}
        return len(self._earlier)

    async def _read_table(self) -> list[dict[str, Any]]:
        """Take over what the leases say of all partitions that are not listed here."""
        table = await self._leases.table()
        for head in table:
            if head["key"] not in self._mine:
                told = _told(head)
                before = self._partitions.get(told.key)
                told.resumed = before is not None and before.resumed
                self._partitions[told.key] = told
        self._table_at_s = monotonic() + TABLE_EVERY_S
        return table

    async def conclude(self, state: JobState) -> None:
        """Once everything is listed: take over what the leases say of all partitions.

        What the others have listed must be provable: nothing may be deleted on the strength of ids that nobody knows any more.
        """
        table = await self._read_table()
        left = self._named - {head["key"] for head in table if head["lease"] == "ended"}
        if left:
            # Only a state index that cannot be searched, or was tampered with, makes the leases look as if all were over.
            raise SyncFailed(
                f"{len(left)} partitions were never listed, among them {min(left)!r}: the leases in {STATE_INDEX!r} cannot be "
                "found or are gone. Sync again with `callboard.sync.share_jobs` off, or give the service `manage` on that index."
            )
        unproven = await state.unproven([head for head in table if head["closed"]])
        for head in table:
            progress = self._partitions[head["key"]]
            if head["key"] in unproven:
                progress.state, progress.why = "broken", "which documents were listed in it is not known any more"
            if head["key"] not in self._listed_before | self._listed_here:
                self.elsewhere.add(head["key"])
                for failure in head.get("failures") or ():
                    if len(self._first_failures) < FAILURES_KEPT:
                        self._first_failures.append(FailedDocument(**failure))

    # Listing

    async def list_all(
        self,
        partitions: AsyncGenerator[Partition, None] | None,
        list_one: ListOne,
        state: JobState,
        save: Save,
        room: int,
    ) -> str | None:
        """Name partitions if they are given, and list until nothing is left. Returns why they could not all be named, if so.

        A helper, who names none, returns when there has been nothing to take for a while.
        """
        failed: list[str] = []
        busy_at_s = monotonic()
        async with trio.open_nursery() as workers:
            if partitions is not None:
                workers.start_soon(self._name, partitions, failed)
                self._table_at_s = monotonic() + TABLE_EVERY_S
            workers.start_soon(self._save_what_ends, save)
            while True:
                await self._write_names(is_complete=not failed)
                leases = await self._look_if_due(room)
                while self._candidates and self._reading < room:
                    lease, is_given_up = self._candidates.popleft()
                    self._reading += 1
                    workers.start_soon(self._list, lease, is_given_up, state, list_one)
                if self._mine or self._candidates or self._reading:
                    busy_at_s = monotonic()
                elif partitions is None:
                    if monotonic() - busy_at_s >= LINGER_S:
                        break
                elif self._is_naming_over and not self._unwritten and self._is_over(leases):
                    break
                if monotonic() >= self._table_at_s:
                    await self._read_table()
                await self._pause()
            workers.cancel_scope.cancel()
        return failed[0] if failed else None

    def _is_over(self, leases: list[Lease] | None) -> bool:
        """Whether this look shows nothing to wait for: what an earlier run has left and nobody named again is not."""
        return leases is not None and not any(lease.key in self._named for lease in leases)

    async def _pause(self) -> None:
        with trio.move_on_after(TICK_S if self._wants_look else max(self._look_at_s - monotonic(), TICK_S)):
            await self._woken.wait()
        self._woken = trio.Event()

    async def _name(self, partitions: AsyncGenerator[Partition, None], failed: list[str]) -> None:
        try:
            async with aclosing(partitions):
                async for partition in partitions:
                    if partition.key in self._named:
                        raise SyncFailed(f"The source names the partition {partition.key!r} twice.")
                    self._named.add(partition.key)
                    self._unwritten.append((partition.key, partition.data, partition.title))
                    self._woken.set()
                    while len(self._unwritten) >= NAMES_WAITING_MAX:
                        await self._has_room.wait()
        except SyncFailed:
            raise
        except Exception as exc:  # noqa: BLE001 - naming partitions ends here; it is reported with the job
            failed.append(cause(exc))
            tell(SourceNotListed(why=failed[0]))
            log.warning("source.partitions_failed", why=failed[0])
        self._is_naming_over = True
        self._woken.set()

    async def _write_names(self, *, is_complete: bool) -> None:
        """Offer what was named since; once that is all, drop what an earlier run had and the source does not have any more."""
        if self._unwritten:
            some = list(self._unwritten)
            await self._leases.name(some, self._earlier)
            for _ in some:
                self._unwritten.popleft()
            self._has_room.set()
            self._has_room = trio.Event()
            self._wants_look = True
        elif self._is_naming_over and is_complete and self._earlier:
            gone = sorted(set(self._earlier) - self._named)
            await self._leases.drop(gone)
            for key in gone:
                self._partitions.pop(key, None)
            self._earlier = {}

    async def _look_if_due(self, room: int) -> list[Lease] | None:
        """Look at the leases when it is time, and sooner where there is room and nothing known to fill it with."""
        moment = monotonic()
        is_hungry = self._wants_look and self._reading < room and not self._candidates
        if moment < self._look_at_s and not (is_hungry and moment >= self._looked_at_s + LOOK_PAUSE_S_MIN):
            return None
        self._wants_look = False
        leases = await self._leases.look()
        self._looked_at_s = monotonic()
        self._look_at_s = self._looked_at_s + self._look_every_s
        given_up = self._observer.look([one for one in leases if one.state == "held"], self._looked_at_s)
        wanted = choose(leases, given_up, mine=self._leases.epochs, setup=self._leases.setup, is_owner=self.is_owner)
        if self.is_owner:
            # What an earlier run has left is not touched before the source has named it again.
            wanted = [one for one in wanted if one.key in self._named]
        else:
            # Whoever runs the job takes the first; others meet it less often elsewhere.
            random().shuffle(wanted)
        self._candidates = deque((one, one.id in given_up) for one in wanted)
        return leases

    async def _list(self, lease: Lease, is_given_up: bool, state: JobState, list_one: ListOne) -> None:
        """Take a lease and list its partition, if nobody was faster."""
        try:
            document = await self._leases.take(lease)
            if document is None:
                return
            holding = await self._begin(document, lease.id, state)
            progress = holding.progress
            if is_given_up:
                tell(LeaseExpired(partition=progress.key, listed=progress.settled_counts.listed))
                log.warning("lease.expired", partition=progress.key, listed=progress.settled_counts.listed)
            tell(LeaseTaken(partition=progress.key))
            try:
                await list_one(Partition(progress.key, document["data"], document["title"]), progress, holding)
            except LeaseGone:
                progress.state = "unfinished"
            else:
                holding.is_read = True
        finally:
            self._reading -= 1
            self._wants_look = True
            self._woken.set()

    async def _begin(self, document: dict[str, Any], lease_id: str, state: JobState) -> Holding:
        resumed = await state.take_up(document)
        key = document["key"]
        progress = PartitionProgress(key, hash64(key.encode("utf-8", "surrogatepass")), resumable=True)
        if resumed is not None and (resumed.checkpoint is not None or resumed.counts != PartitionCounts()):
            progress.go_on_from(resumed.checkpoint, resumed.counts)
        self._partitions[key] = progress
        self._mine[key] = Holding(lease_id, progress)
        return self._mine[key]

    # Keeping

    async def _save_what_ends(self, save: Save) -> None:
        """Note at once which partitions are listed and settled; many in one go where many end."""
        while True:
            await trio.sleep(TICK_S if not self._reading else SAVE_PAUSE_S_MIN)
            if any(one.is_read and one.progress.is_settled for one in self._mine.values()):
                await save()
                self._woken.set()

    async def save(self, state: JobState, first: Save, *, gives_back: bool = False) -> None:
        """Note in the leases how far everything is that is listed here, and so renew them.

        What was listed to its end, and with `gives_back` everything, is not held any more afterwards.
        """
        heads: dict[PartitionProgress, bool] = {}
        more: dict[PartitionProgress, Mapping[str, Any]] = {}
        over: list[Holding] = []
        for holding in self._mine.values():
            progress = holding.progress
            if holding.is_read and progress.is_settled:
                heads[progress], more[progress] = progress.is_clean, self._ending(progress)
                over.append(holding)
            else:
                heads[progress], more[progress] = False, released() if gives_back else {}
        if not heads:
            return
        holdings = {holding.progress: holding for holding in self._mine.values()}
        for progress in await state.save_all(heads, first, more):
            self._lost(holdings[progress])
        for holding in over:
            if not holding.is_lost:
                del self._mine[holding.progress.key]
                self._listed_here.add(holding.progress.key)
        if gives_back:
            self._mine = {}

    def _ending(self, progress: PartitionProgress) -> dict[str, Any]:
        failures = [attrs.asdict(one) for one in self._first_failures if one.partition == progress.key]
        return ended(
            "broken" if progress.state == "broken" else "listed",
            why=progress.why,
            containers_failed=progress.containers_failed,
            counts=attrs.asdict(progress.total_counts()),
            failures=failures[:FAILURES_TOLD],
        )

    def _lost(self, holding: Holding) -> None:
        key = holding.progress.key
        tell(LeaseLost(partition=key))
        log.warning("lease.lost", partition=key)
        holding.lose()
        del self._mine[key]
        # Nothing of it counts here any more; what its new holder has done is read from the lease.
        self._partitions[key] = PartitionProgress(key, holding.progress.hash, state="unfinished")
        if self.is_owner:
            self._table_at_s = -math.inf


def _told(head: Mapping[str, Any]) -> PartitionProgress:
    """What a lease says of a partition that is not listed here."""
    key = head["key"]
    progress = PartitionProgress(key, hash64(key.encode("utf-8", "surrogatepass")), state="unfinished")
    is_over = head.get("lease") == "ended" and "all_counts" in head
    progress.settled_counts = PartitionCounts(**(head["all_counts"] if is_over else head["counts"]))
    progress.listed = progress.settled_counts.listed
    progress.containers_failed = int(head.get("containers_failed") or 0)
    progress.why = str(head.get("why") or "")
    if head["closed"]:
        progress.state = "listed"
    elif is_over:
        progress.state = "broken" if head["outcome"] == "broken" else "listed"
    return progress
