"""The byte budget: never above its size, first come first served, nobody starves, cancellation leaves nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from callboard.runtime import Budget, BudgetClosed

JOBS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.lists(st.tuples(st.integers(0, 150), st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=5,
)
"""Per job: its reserve, and per item its bytes, how long it is held, and when the taker gives up (0: never)."""


@given(jobs=JOBS)
def test_it_never_exceeds_its_size_never_deadlocks_and_all_comes_back(jobs: list[Any]) -> None:
    budget = Budget(100)
    served = gave_up = 0

    async def work(reserve: int, items: list[tuple[int, int, int]]) -> None:
        nonlocal served, gave_up
        if budget._reserved_bytes + reserve > 100:
            reserve = 0
        holder = budget.holder("job", reserve)
        for size, hold_s, patience_s in items:
            with trio.move_on_after(patience_s or float("inf")) as scope:
                async with await holder.take(size):
                    served += 1
                    assert budget.held_bytes <= budget.size_bytes
                    with trio.CancelScope(shield=True):
                        await trio.sleep(hold_s)
                    scope.deadline = float("inf")
            gave_up += scope.cancelled_caught
        holder.close()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for reserve, items in jobs:
                nursery.start_soon(work, reserve, items)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert budget.peak_bytes <= budget.size_bytes
    assert (budget.held_bytes, budget.waiting, budget._reserved_bytes, budget._shared_used_bytes) == (0, 0, 0, 0)
    assert served + gave_up >= sum(len(items) for _, items in jobs)


async def test_first_come_first_served_also_for_the_large() -> None:
    budget = Budget(100)
    holders = [budget.holder(str(number)) for number in range(4)]
    order: list[int] = []
    first = await holders[0].take(60)

    async def take(number: int, size_bytes: int) -> None:
        async with await holders[number].take(size_bytes):
            order.append(number)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number, size_bytes in ((1, 95), (2, 60), (3, 50)):
            nursery.start_soon(take, number, size_bytes)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
        first.release()
    assert order == [1, 2, 3]


async def test_a_reserve_that_is_given_late_waits_for_the_bytes_and_then_is_there() -> None:
    budget = Budget(100)
    early = budget.holder("early")
    grants = [await early.take(50), await early.take(50)]
    late = budget.holder("late", 40)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(early.take, 100)
        nursery.start_soon(late.take, 40)
        await trio.testing.wait_all_tasks_blocked()
        assert (budget.waiting, budget.held_bytes) == (2, 100)
        grants[0].release()
        assert (budget.waiting, budget.held_bytes, late.held_bytes) == (1, 90, 40)
        grants[1].release()
        assert (budget.waiting, budget.held_bytes, early.held_bytes) == (0, 100, 60)


async def test_a_reserve_is_there_while_others_take_all_and_queue() -> None:
    budget = Budget(100)
    greedy, modest = budget.holder("greedy"), budget.holder("modest", 20)
    with pytest.raises(ValueError, match="has 80 left to reserve"):
        budget.holder("late", 81)
    await greedy.take(80)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(greedy.take, 5)
        await trio.testing.wait_all_tasks_blocked()
        grant = await modest.take(20)
        assert budget.held_bytes == 100
        grant.release()
        nursery.cancel_scope.cancel()
    assert budget.waiting == 0


async def test_what_is_larger_than_all_is_granted_alone() -> None:
    budget = Budget(100)
    holder = budget.holder("job", 10)
    async with await holder.take(10_000) as grant:
        assert (grant.size_bytes, budget.held_bytes) == (10_000, 100)
        assert holder.take_nowait(1) is None
    assert budget.held_bytes == 0


async def test_a_waiter_that_gives_up_lets_those_behind_pass() -> None:
    budget = Budget(100)
    holder, other = budget.holder("one"), budget.holder("two")
    await holder.take(50)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def large() -> None:
            with scope:
                await holder.take(80)

        nursery.start_soon(large)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(other.take, 50)
        await trio.testing.wait_all_tasks_blocked()
        assert budget.waiting == 2
        scope.cancel()
    assert (budget.waiting, budget.held_bytes) == (0, 100)


async def test_to_close_fails_whoever_waits_and_keeps_what_is_out() -> None:
    budget = Budget(100)
    holder = budget.holder("job", 30)
    grant = await holder.take(100)

    async def wait() -> None:
        with pytest.raises(BudgetClosed):
            await holder.take(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        holder.close()
    with pytest.raises(BudgetClosed):
        await holder.take(1)
    assert budget.holder("next").take_nowait(1) is None
    grant.release()
    grant.release()
    assert budget.held_bytes == 0
    assert budget.holder("next", 100).take_nowait(100) is not None
