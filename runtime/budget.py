"""A byte budget shared by all the work of a process, so that total memory is a setting and not an accident.

Every holder (a job) owns a reserve that nobody else can take; the rest is shared, first come, first served. Who has a reserve and
holds nothing is granted any one item, charged as the reserve at most, so that nobody stands still because others do. An item larger than
all a holder could ever get is charged as that much and so is granted alone. A holder may have a limit of its own; who waits
because of that keeps nobody else waiting. Whoever holds a grant can finish and release it without another grant (`Grant.part`
hands bytes on), so there is no cycle of waiting: the head of the queue waits only for releases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType

import attrs
import trio

from .seams import current_faults


class BudgetClosed(Exception):
    """The holder was closed while somebody waited for its bytes."""


class Grant:
    """Bytes that are held until `release`, or until the `with` block ends. Releasing twice is harmless."""

    __slots__ = ("_charged_bytes", "_holder", "size_bytes")

    def __init__(self, holder: Holder | None, size_bytes: int, charged_bytes: int) -> None:
        self._holder = holder
        self.size_bytes = size_bytes
        self._charged_bytes = charged_bytes

    def part(self, size_bytes: int) -> Grant:
        """Move so many of the held bytes, or all there are, into a grant of their own. Never waits."""
        moved = min(max(0, size_bytes), self._charged_bytes) if self._holder is not None else 0
        self._charged_bytes -= moved
        return Grant(self._holder, size_bytes, moved)

    def release(self) -> None:
        """Give the bytes back. Never waits."""
        holder, self._holder = self._holder, None
        if holder is not None:
            holder._give_back(self._charged_bytes)

    def __enter__(self) -> Grant:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    async def __aenter__(self) -> Grant:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@attrs.define(eq=False)
class _Waiter:
    holder: Holder
    size_bytes: int
    task: trio.lowlevel.Task
    granted_bytes: int | None = None

    @property
    def charge_bytes(self) -> int:
        return self.holder._chargeable(self.size_bytes)


class Budget:
    """A number of bytes that holders share. `set_aside_bytes` of them are kept for reserves, also of holders to come."""

    def __init__(self, size_bytes: int, set_aside_bytes: int = 0) -> None:
        if size_bytes < 1:
            raise ValueError(f"a budget needs at least one byte, not {size_bytes}")
        if not 0 <= set_aside_bytes < size_bytes:
            raise ValueError(f"a budget of {size_bytes} bytes cannot set {set_aside_bytes} aside")
        self.size_bytes = size_bytes
        self.set_aside_bytes = set_aside_bytes
        self._reserved_bytes = 0
        self._shared_used_bytes = 0
        self._waiters: deque[_Waiter] = deque()
        self.peak_bytes = 0
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes charged now, over all holders. Never more than `size_bytes`."""
        return self._held_bytes

    @property
    def waiting(self) -> int:
        """How many takers wait."""
        return len(self._waiters)

    @property
    def unreserved_bytes(self) -> int:
        """What is set aside and not reserved yet."""
        return max(0, self.set_aside_bytes - self._reserved_bytes)

    def holder(self, name: str, reserve_bytes: int = 0, size_bytes_max: int | None = None) -> Holder:
        """Add somebody who takes bytes, at most `size_bytes_max` at once. The reserve is theirs until the holder closes.

        Raises `ValueError` if the reserves of all holders would exceed the budget.
        """
        if reserve_bytes < 0 or self._reserved_bytes + reserve_bytes > self.size_bytes:
            raise ValueError(
                f"{name} wants a reserve of {reserve_bytes} bytes; the budget of {self.size_bytes} bytes has "
                f"{self.size_bytes - self._reserved_bytes} left to reserve"
            )
        if size_bytes_max is not None and size_bytes_max < max(reserve_bytes, 1):
            raise ValueError(f"{name} wants a limit of {size_bytes_max} bytes and a reserve of {reserve_bytes}")
        self._reserved_bytes += reserve_bytes
        self._wake()
        return Holder(self, name, reserve_bytes, size_bytes_max)

    @property
    def _shared_bytes(self) -> int:
        return self.size_bytes - max(self._reserved_bytes, self.set_aside_bytes)

    def _fits(self, holder: Holder, charge_bytes: int) -> bool:
        # A reserve that was given while others held its bytes comes true when they release them; until then nobody exceeds.
        if self._held_bytes + charge_bytes > self.size_bytes or holder._is_over_limit(charge_bytes):
            return False
        part = self._shared_part(holder, charge_bytes)
        return part == 0 or self._shared_used_bytes + part <= self._shared_bytes

    def _shared_part(self, holder: Holder, charge_bytes: int) -> int:
        over_before = max(0, holder.held_bytes - holder.reserve_bytes)
        return max(0, holder.held_bytes + charge_bytes - holder.reserve_bytes) - over_before

    def _charge(self, holder: Holder, charge_bytes: int) -> None:
        self._shared_used_bytes += self._shared_part(holder, charge_bytes)
        holder.held_bytes += charge_bytes
        self._held_bytes += charge_bytes
        self.peak_bytes = max(self.peak_bytes, self._held_bytes)

    def _wake(self) -> None:
        """Grant in order. Behind a waiter for shared bytes, only those pass who need none of them."""
        shared_is_awaited = False
        at_limit: set[Holder] = set()
        for waiter in list(self._waiters):
            # Reckoned anew each time: what a holder could get at most changes when others reserve.
            holder = waiter.holder
            if holder in at_limit or holder._is_over_limit(waiter.charge_bytes):
                at_limit.add(holder)
                continue
            for charge_bytes in holder._charges(waiter.size_bytes):
                needs_shared = self._shared_part(holder, charge_bytes) > 0
                if self._fits(holder, charge_bytes) and not (needs_shared and shared_is_awaited):
                    break
            else:
                shared_is_awaited = shared_is_awaited or self._shared_part(holder, waiter.charge_bytes) > 0
                continue
            self._waiters.remove(waiter)
            self._charge(holder, charge_bytes)
            waiter.granted_bytes = charge_bytes
            trio.lowlevel.reschedule(waiter.task)


class Holder:
    """One taker of a budget, with a reserve of its own."""

    def __init__(self, budget: Budget, name: str, reserve_bytes: int, size_bytes_max: int | None = None) -> None:
        self._budget = budget
        self.name = name
        self.reserve_bytes = reserve_bytes
        self.size_bytes_max = size_bytes_max
        self.held_bytes = 0
        self._closed = False
        self._faults = current_faults()

    async def take(self, size_bytes: int) -> Grant:
        """Wait until `size_bytes` are free for this holder, then hold them until the grant is released.

        First come, first served among those who need shared bytes. A size above all this holder could get is granted alone.
        Cancelled while waiting: nothing is held. Raises `BudgetClosed` after `close`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._faults is not None:
            await self._faults.take(self, size_bytes)
        grant = self.take_nowait(size_bytes)
        if grant is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return grant
        budget = self._budget
        waiter = _Waiter(self, size_bytes, trio.lowlevel.current_task())
        budget._waiters.append(waiter)

        def abort(_: object) -> trio.lowlevel.Abort:
            budget._waiters.remove(waiter)
            budget._wake()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if waiter.granted_bytes is None:
            raise BudgetClosed(f"{self.name} was closed while waiting for {size_bytes} bytes")
        return Grant(self, size_bytes, waiter.granted_bytes)

    def take_nowait(self, size_bytes: int) -> Grant | None:
        """Hold the bytes if they are free and nobody waits before us; None otherwise. Raises `BudgetClosed` after `close`."""
        if self._closed:
            raise BudgetClosed(f"{self.name} is closed")
        for charge_bytes in self._charges(size_bytes):
            if self._is_free(charge_bytes):
                self._budget._charge(self, charge_bytes)
                return Grant(self, size_bytes, charge_bytes)
        return None

    def _charges(self, size_bytes: int) -> Iterator[int]:
        """What an item may be charged as: its size, or the reserve if it is the first."""
        yield self._chargeable(size_bytes)
        if self.reserve_bytes and not self.held_bytes:
            yield min(self._chargeable(size_bytes), self.reserve_bytes)

    def _is_free(self, charge_bytes: int) -> bool:
        budget = self._budget
        if not budget._fits(self, charge_bytes):
            return False
        needs_shared = budget._shared_part(self, charge_bytes) > 0
        at_limit: set[Holder] = set()
        for waiter in budget._waiters:
            holder = waiter.holder
            if holder is self:
                return False
            if holder in at_limit or holder._is_over_limit(waiter.charge_bytes):
                at_limit.add(holder)
            elif needs_shared:
                return False
        return True

    def close(self) -> None:
        """Give the reserve back and fail whoever still waits. Grants that are out stay valid until released."""
        if self._closed:
            return
        self._closed = True
        budget = self._budget
        for waiter in [waiter for waiter in budget._waiters if waiter.holder is self]:
            budget._waiters.remove(waiter)
            trio.lowlevel.reschedule(waiter.task)
        self._settle_reserve()
        budget._wake()

    def abandon(self) -> None:
        """Close, and give back what is still held: whoever took it has ended for certain. To release it later is harmless."""
        self.close()
        self._give_back(self.held_bytes)

    def _settle_reserve(self) -> None:
        # What is still held moves from the reserve to the shared part, and goes back from there.
        budget, kept = self._budget, min(self.held_bytes, self.reserve_bytes)
        budget._reserved_bytes -= self.reserve_bytes
        budget._shared_used_bytes += kept
        self.reserve_bytes = 0

    def _chargeable(self, size_bytes: int) -> int:
        charge_bytes = min(max(0, size_bytes), self.reserve_bytes + self._budget._shared_bytes)
        return charge_bytes if self.size_bytes_max is None else min(charge_bytes, self.size_bytes_max)

    def _is_over_limit(self, charge_bytes: int) -> bool:
        return self.size_bytes_max is not None and self.held_bytes + charge_bytes > self.size_bytes_max

    def _give_back(self, charged_bytes: int) -> None:
        budget = self._budget
        charged_bytes = min(charged_bytes, self.held_bytes)  # what an abandoned holder held has been given back already
        over_before = max(0, self.held_bytes - self.reserve_bytes)
        self.held_bytes -= charged_bytes
        budget._held_bytes -= charged_bytes
        budget._shared_used_bytes -= over_before - max(0, self.held_bytes - self.reserve_bytes)
        budget._wake()
