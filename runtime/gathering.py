"""Batches of single items: sent when they are many, or heavy, or old.

For producers that find one item at a time. `Stream` itself carries batches only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import trio

from .stream import StreamSender

T = TypeVar("T")


class Gatherer(Generic[T]):
    """Gathers items into batches, inside `async with gathering(out, ...)`."""

    def __init__(self, out: StreamSender[T], items_max: int, bytes_max: int, age_max_s: float) -> None:
        if items_max < 1 or bytes_max < 1 or age_max_s <= 0:
            raise ValueError("a batch needs room for at least one item and one byte, and some time")
        self._out = out
        self._items_max, self._bytes_max, self._age_max_s = items_max, bytes_max, age_max_s
        self._items: list[tuple[T, int]] = []
        self._size_bytes = 0
        self._oldest_s = 0.0
        self._has_items = trio.Event()
        self._turn = trio.Lock()

    async def add(self, item: T, size_bytes: int = 0) -> None:
        """Add an item; send first what it would make too heavy, and then what is full.

        A checkpoint only if it sends. Raises `StreamClosed`. Cancelled: the item may be gathered, or not.
        """
        if self._items and self._size_bytes + size_bytes > self._bytes_max:
            await self.flush()
        if not self._items:
            self._oldest_s = trio.current_time()
            self._has_items.set()
        self._items.append((item, size_bytes))
        self._size_bytes += size_bytes
        if len(self._items) >= self._items_max or self._size_bytes >= self._bytes_max:
            await self.flush()

    async def flush(self) -> None:
        """Send what is gathered, if anything, after what is being sent. Cancelled: it stays gathered."""
        async with self._turn:
            if not self._items:
                return
            items, size_bytes = self._items, self._size_bytes
            self._items, self._size_bytes = [], 0
            try:
                await self._out.send([item for item, _ in items], size_bytes)
            except BaseException:
                self._items = items + self._items
                self._size_bytes += size_bytes
                raise

    async def checkpoint(self, value: Any) -> None:
        """Send what is gathered and mark the place behind it; see `StreamSender.checkpoint`."""
        await self.flush()
        await self._out.checkpoint(value)

    async def finish(self, checkpoint: Any = None) -> None:
        """Send what is gathered, and say that this is all; see `StreamSender.finish`."""
        await self.flush()
        await self._out.finish(checkpoint)

    async def _send_what_is_old(self, failures: list[Exception], block: trio.CancelScope) -> None:
        try:
            while True:
                if not self._items:
                    self._has_items = trio.Event()
                    await self._has_items.wait()
                due_s = self._oldest_s + self._age_max_s
                if trio.current_time() < due_s:
                    await trio.sleep_until(due_s)
                else:
                    await self.flush()
        except Exception as error:  # noqa: BLE001 - raised by `gathering`, bare
            failures.append(error)
            block.cancel()


@asynccontextmanager
async def gathering(
    out: StreamSender[T], *, items_max: int = 100, bytes_max: int = 1_000_000, age_max_s: float = 1.0
) -> AsyncIterator[Gatherer[T]]:
    """Send single items in batches of at most `items_max`, about `bytes_max`, none waiting longer than `age_max_s`.

    A heavier item travels alone. At the end of the block what is left is sent; if the block raises or is cancelled, it is not.
    Raises `StreamClosed` from the block when nobody receives any more, and what the block raises as it is.
    """
    gatherer = Gatherer(out, items_max, bytes_max, age_max_s)
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gatherer._send_what_is_old, failures, nursery.cancel_scope)
        try:
            yield gatherer
            await gatherer.flush()
        except Exception as error:  # noqa: BLE001 - raised again below, not wrapped into a group by the nursery
            failures.insert(0, error)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
