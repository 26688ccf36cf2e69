"""Points in time and scrolls: views of indices that later writes do not change, held for as long as somebody comes back.

A snapshot of an index is a number, the index's clock at that moment. While any is held, documents that are deleted or replaced are
only marked with the time of their death (`docs_N.died`), so that older views still see them; when the last one goes, they go too.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from ...runtime import monotonic, new_id
from ..errors import ApiError, illegal_argument
from .catalog import Transaction
from .database import Database, purge
from .search import Target

CONTEXTS_MAX = 500
RELEASE_TIMEOUT_S = 60.0
KEEP_ALIVE_MAX_S = 24 * 3600.0
_UNITS_S = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@attrs.define(eq=False)
class Context:
    """One open point in time or scroll."""

    context_id: str
    targets: list[Target]
    expires_s: float
    keep_alive_s: float
    numbers: frozenset[int]
    scroll: ScrollState | None = None


@attrs.define
class ScrollState:
    """The hits of a scroll, decided when it was opened; where it stands; and how they are shown."""

    places: array[int]
    docs: array[int]
    request: Any
    at: int = 0


def read_duration_s(text: str, name: str) -> float:
    """Read a duration such as `1m` or `500ms`. Raises 400."""
    for unit in ("nanos", "micros", "ms", "s", "m", "h", "d"):
        digits = text.removesuffix(unit)
        if digits != text and digits.replace(".", "", 1).isdigit():
            return float(digits) * _UNITS_S[unit]
    raise illegal_argument(
        f"failed to parse setting [{name}] with value [{text}] as a time value: unit is missing or unrecognized"
    )


def read_keep_alive_s(text: str) -> float:
    """Read how long a context lives without being used. Raises 400 if that is longer than a day."""
    duration = read_duration_s(text, "keep_alive")
    if duration > KEEP_ALIVE_MAX_S:
        raise illegal_argument(
            f"Keep alive for request ({text}) is too large. It must be less than (1d). This limit can be set by changing the "
            "[search.max_keep_alive] cluster level setting."
        )
    return duration


def _context_missing(context_id: str) -> ApiError:
    missing = {
        "type": "search_context_missing_exception",
        "reason": f"No search context found for id [{context_id[:12]}]",
    }
    error = ApiError(
        404,
        "search_phase_execution_exception",
        "all shards failed",
        phase="query",
        grouped=True,
        failed_shards=[{"shard": -1, "index": None, "reason": missing}],
    )
    error.root = missing
    return error


class Snapshots:
    """All open contexts of a node. Those whose time is over go when the next request comes, not by a clock of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[str, Context] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, targets: Sequence[Target], keep_alive_s: float) -> Context:
        """Hold a view of these indices as they are now. Raises 429 if too many are held already.

        Cancelled: nothing is held.
        """
        await self.expire()
        if len(self._open) >= CONTEXTS_MAX:
            raise ApiError(
                429,
                "es_rejected_execution_exception",
                f"Trying to create too many scroll contexts or points in time. Must be less than or equal to: [{CONTEXTS_MAX}].",
            )

        def hold(transaction: Transaction) -> dict[int, int]:
            clocks = {index.number: index.clock for index in transaction.indices.values()}
            held = {target.number: clocks[target.number] for target in targets if target.number in clocks}
            for number in held:
                self._database.snapshots[number] = self._database.snapshots.get(number, 0) + 1
            return held

        clocks = await self._database.write(hold)
        seen = [attrs.evolve(target, clock=clocks[target.number]) for target in targets if target.number in clocks]
        context = Context(new_id() + new_id(), seen, monotonic() + keep_alive_s, keep_alive_s, frozenset(clocks))
        self._open[context.context_id] = context
        return context

    async def use(self, context_id: str, keep_alive_s: float | None) -> Context:
        """Return an open context and prolong it. Raises 404 if it is not open, was closed, or its time is over."""
        await self.expire()
        context = self._open.get(context_id)
        living = {index.number for index in self._database.catalog.indices.values()}
        if context is None or not context.numbers <= living:
            raise _context_missing(context_id)
        context.keep_alive_s = context.keep_alive_s if keep_alive_s is None else keep_alive_s
        context.expires_s = monotonic() + context.keep_alive_s
        return context

    async def close(self, context_id: str) -> bool:
        """Let a context go; false if there was none."""
        context = self._open.pop(context_id, None)
        if context is None:
            return False
        await self._release([context])
        return True

    async def close_all(self, *, scrolls: bool) -> int:
        """Let all scrolls (or points in time) go and return how many there were."""
        gone = [context for context in self._open.values() if (context.scroll is not None) == scrolls]
        for context in gone:
            del self._open[context.context_id]
        await self._release(gone)
        return len(gone)

    async def expire(self) -> None:
        """Let those go whose time is over."""
        moment = monotonic()
        gone = [context for context in self._open.values() if context.expires_s <= moment]
        for context in gone:
            del self._open[context.context_id]
        await self._release(gone)

    async def _release(self, contexts: list[Context]) -> None:
        if not contexts:
            return
        # They are not in the table of open contexts any more, so this is the only chance to free what they hold.
        with trio.CancelScope(deadline=monotonic() + RELEASE_TIMEOUT_S, shield=True):
            await self._database.write(self._let_go, contexts)

    def _let_go(self, transaction: Transaction, contexts: list[Context]) -> None:
        held = self._database.snapshots
        for context in contexts:
            for number in context.numbers:
                held[number] -= 1
                if held[number] == 0:
                    del held[number]
        for index in transaction.indices.values():
            touched = any(index.number in context.numbers for context in contexts)
            if touched and index.number not in held:
                purge(
                    transaction.connection,
                    index.number,
                    [f"texts_{index.number}_{table}" for table in range(index.text_tables)],
                )
