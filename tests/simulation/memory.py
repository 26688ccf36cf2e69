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
    """The job at work here."""
    held: dict[budgets.Budget, int] = attrs.field(factory=dict)
    owners: dict[budgets.Budget, str | None] = attrs.field(factory=dict)
    grants: int = 0
    waited: int = 0
    """How often somebody had to wait for bytes."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every budget and grant that is made inside."""
        watch = self
        make, take = budgets.Budget.__init__, budgets.Holder.take

        def made(budget: budgets.Budget, size_bytes: int) -> None:
            make(budget, size_bytes)
            watch.held[budget], watch.owners[budget] = 0, watch.owner()

        async def taken(holder: budgets.Holder, size_bytes: int) -> budgets.Grant:
            watch.waited += bool(holder._budget.waiting)
            return await take(holder, size_bytes)

        class WatchedGrant(budgets.Grant):
            __slots__ = ("_is_out",)

            def __init__(self, holder: Any, size_bytes: int, charged_bytes: int) -> None:
                super().__init__(holder, size_bytes, charged_bytes)
                self._is_out = holder is not None
                if holder is not None:
                    watch.moved(holder, charged_bytes)

            def release(self) -> None:
                holder = self._holder
                super().release()
                if self._is_out and self._holder is None:
                    self._is_out = False
                    watch.moved(holder, -self._charged_bytes)

        with (
            patch.object(budgets.Budget, "__init__", made),
            patch.object(budgets.Holder, "take", taken),
            patch.object(budgets, "Grant", WatchedGrant),
        ):
            yield

    def moved(self, holder: Any, charged_bytes: int) -> None:
        """Note what was granted, or given back."""
        budget = holder._budget
        self.held[budget] = held_bytes = self.held.get(budget, 0) + charged_bytes
        self.grants += charged_bytes > 0
        if charged_bytes > 0 and held_bytes > budget.size_bytes:
            self.complain(f"{holder.name} holds more than its budget: {held_bytes} of {budget.size_bytes} bytes")

    def left_over(self, ended_in_order: Callable[[str], bool]) -> list[str]:
        """What is still held of budgets that belong to nobody, or to a job that ended in order: the others died with theirs."""
        return [
            f"{held} of {budget.size_bytes} bytes by {self.owners[budget]}"
            for budget, held in self.held.items()
            if held and ((owner := self.owners[budget]) is None or ended_in_order(owner))
        ]
