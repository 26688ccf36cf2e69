"""The bounded map keeps order and bound, fails like a loop and leaves no call behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from callboard.sources.http import mapped


@given(delays=st.lists(st.integers(0, 20), max_size=25), at_once=st.integers(1, 6))
def test_order_and_bound_hold_whatever_the_calls_take(delays: list[int], at_once: int) -> None:
    running, most = 0, 0

    async def call(item: tuple[int, int]) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(item[1])
        running -= 1
        return item[0]

    async def main() -> list[int]:
        return [found async for found in mapped(enumerate(delays), call, at_once=at_once)]

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == list(range(len(delays)))
    assert most == min(at_once, len(delays))


async def test_an_error_comes_where_its_result_would_have_been(autojump_clock: trio.testing.MockClock) -> None:
    async def call(item: int) -> int:
        await trio.sleep(1 if item == 2 else 100 if item > 2 else 5)
        if item == 2:
            raise LookupError("two")
        return item

    found: list[int] = []

    async def read() -> None:
        async for one in mapped(range(9), call, at_once=5):
            found.append(one)  # noqa: PERF401  # what came before the error counts

    with pytest.raises(LookupError, match="two"):
        await read()
    assert found == [0, 1]
    assert trio.current_time() == 5


async def test_no_call_runs_while_a_result_is_used_or_after_leaving(autojump_clock: trio.testing.MockClock) -> None:
    running, taken = 0, 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    async def call(item: int) -> int:
        nonlocal running
        running += 1
        try:
            await trio.sleep(1)
        finally:
            running -= 1
        return item

    async with aclosing(mapped(items(), call, at_once=3)) as found:
        async for _ in found:
            assert running == 0
            break
    assert taken == 3
    with trio.move_on_after(0.5) as scope:
        async for _ in mapped(range(9), call, at_once=3):
            pass
    assert scope.cancelled_caught
    assert running == 0


async def test_a_bound_below_one_is_refused() -> None:
    async def call(item: int) -> int:
        return item

    with pytest.raises(ValueError, match="at_once is 0"):
        [one async for one in mapped([1], call, at_once=0)]
