"""A bounded concurrent map that keeps the order of its items."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

import trio

T = TypeVar("T")
R = TypeVar("R")


async def mapped(items: Iterable[T], function: Callable[[T], Awaitable[R]], *, at_once: int) -> AsyncGenerator[R, None]:
    """Yield `function` of every item in the items' order, asking for up to `at_once` of them at the same time.

    Works in rounds: no call runs while a result is being used, so a listing may yield from it and be left anywhere, and never
    more than `at_once` results are held. Like a plain loop it yields what comes before an item whose call raises, then raises
    that error itself; calls for later items are cancelled. A cancelled map has no call running.
    """
    if at_once < 1:
        raise ValueError(f"at_once is {at_once}: a map needs at least one call at a time.")
    waiting = iter(items)
    while round_ := list(islice(waiting, at_once)):
        results, error = await _round(round_, function)
        for result in results:
            yield result
        if error is not None:
            raise error


async def _round(items: list[T], function: Callable[[T], Awaitable[R]]) -> tuple[list[R], Exception | None]:
    results: dict[int, R] = {}
    errors: dict[int, Exception] = {}
    scopes = [trio.CancelScope() for _ in items]

    async def call(place: int) -> None:
        with scopes[place]:
            try:
                results[place] = await function(items[place])
            except Exception as error:  # noqa: BLE001  # raised where its result would have been
                errors[place] = error
                for later in scopes[place + 1 :]:
                    later.cancel()

    async with trio.open_nursery() as nursery:
        for place in range(len(items)):
            nursery.start_soon(call, place)
    first = min(errors, default=len(items))
    return [results[place] for place in range(first)], errors.get(first)
