"""Counts what is held of every memory budget of a simulation, by a sum of its own.

The budgets' own counters are what is under test; here every grant is noted when it is made and crossed out when it is released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import attrs

from callboard.runtime import budget as budgets


@attrs.define(eq=False)
class MemoryWatch:
    """Every budget that was made while `watching`, and what is held of it."""

    complain: Callable[[str], None]
    owner: Callable[[], str | None]
    """The job at work here, or the service."""
    held: dict[budgets.Budget, int] = attrs.field(factory=dict)
    held_by: dict[budgets.Holder, int] = attrs.field(factory=dict)
    abandoned: set[budgets.Holder] = attrs.field(factory=set)
    owners: dict[budgets.Budget, str | None] = attrs.field(factory=dict)
    grants: int = 0
    waited: int = 0
    """How often somebody had to wait for bytes."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every budget and grant that is made inside."""
        watch = self
        make, take, abandon = budgets.Budget.__init__, budgets.Holder.take, budgets.Holder.abandon

        def made(budget: budgets.Budget, *sizes: int, **options: int) -> None:
            make(budget, *sizes, **options)
            watch.held[budget], watch.owners[budget] = 0, watch.owner()

        async def taken(holder: budgets.Holder, size_bytes: int) -> budgets.Grant:
            watch.waited += bool(holder._budget.waiting)
            return await take(holder, size_bytes)

        def abandoned(holder: budgets.Holder) -> None:
            abandon(holder)
            if holder not in watch.abandoned and not holder.held_bytes:
                watch.moved(holder, -watch.held_by.get(holder, 0))
                watch.abandoned.add(holder)

        class WatchedGrant(budgets.Grant):
            __slots__ = ("_is_out",)

            def __init__(self, holder: Any, size_bytes: int, charged_bytes: int) -> None:
                super().__init__(holder, size_bytes, charged_bytes)
                self._is_out = holder is not None
                if holder is not None:
                    watch.moved(holder, charged_bytes)

            def part(self, size_bytes: int) -> budgets.Grant:
                if self._holder is not None:
                    # What moves into a grant of its own is counted by that one.
                    watch.moved(self._holder, -min(max(0, size_bytes), self._charged_bytes))
                return super().part(size_bytes)

            def release(self) -> None:
                holder = self._holder
                super().release()
                if self._is_out and self._holder is None:
                    self._is_out = False
                    watch.moved(holder, -self._charged_bytes)

        with (
            patch.object(budgets.Budget, "__init__", made),
            patch.object(budgets.Holder, "take", taken),
            patch.object(budgets.Holder, "abandon", abandoned),
            patch.object(budgets, "Grant", WatchedGrant),
        ):
            yield

    def moved(self, holder: Any, charged_bytes: int) -> None:
        """Note what was granted, or given back."""
        if holder in self.abandoned:
            return
        budget = holder._budget
        self.held[budget] = held_bytes = self.held.get(budget, 0) + charged_bytes
        self.held_by[holder] = by_holder_bytes = self.held_by.get(holder, 0) + charged_bytes
        if charged_bytes <= 0:
            return
        self.grants += 1
        if held_bytes > budget.size_bytes:
            self.complain(f"{holder.name} holds more than its budget: {held_bytes} of {budget.size_bytes} bytes")
        elif holder.size_bytes_max is not None and by_holder_bytes > holder.size_bytes_max:
            self.complain(f"{holder.name} holds more than it may: {by_holder_bytes} of {holder.size_bytes_max} bytes")

    def left_over(self, must_be_free: Callable[[str], bool]) -> list[str]:
        """What is still held of budgets that belong to nobody, or to owners that must have given it back: others died with theirs."""
        return [
            f"{held} of {budget.size_bytes} bytes by {self.owners[budget]}"
            for budget, held in self.held.items()
            if held and ((owner := self.owners[budget]) is None or must_be_free(owner))
        ]
