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


@given(jobs=JOBS, limit=st.integers(1, 120))
def test_limits_are_kept_and_whoever_is_at_one_holds_up_nobody(jobs: list[Any], limit: int) -> None:
    budget = Budget(100)
    served = 0

    async def work(holder: Any, size: int, hold_s: int) -> None:
        nonlocal served
        async with await holder.take(size) as grant:
            assert holder.held_bytes <= limit
            assert budget.held_bytes <= budget.size_bytes
            handed_on = grant.part(size // 2)
            await trio.sleep(hold_s)
        with handed_on:
            await trio.sleep(hold_s)
        served += 1

    async def main() -> None:
        stuck = budget.holder("stuck", 1, 1)
        stuck.take_nowait(1)
        async with trio.open_nursery() as nursery:
            # Waits for ever, for itself alone.
            scope = await nursery.start(_waiting_for, stuck)
            async with trio.open_nursery() as others:
                for reserve, items in jobs:
                    spare = min(reserve, limit, max(0, 80 - budget._reserved_bytes))
                    holder = budget.holder("job", spare, limit)
                    for size, hold_s, _ in items:
                        others.start_soon(work, holder, size, hold_s)
            scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert served == sum(len(items) for _, items in jobs)
    assert (budget.held_bytes, budget.waiting) == (1, 0)


async def _waiting_for(holder: Any, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await holder.take(1)


async def test_small_items_do_not_overtake_a_large_one_of_a_holder_at_its_limit() -> None:
    budget = Budget(100)
    holder = budget.holder("one", 0, 48)
    first = await holder.take(40)
    order: list[int] = []

    async def take(size: int) -> None:
        async with await holder.take(size):
            order.append(size)

    async with trio.open_nursery() as nursery:
        for size in (45, 5):
            nursery.start_soon(take, size)
            await trio.testing.wait_all_tasks_blocked()
        other = budget.holder("other").take_nowait(50)
        assert other is not None
        first.release()
    assert order == [45, 5]


def test_a_part_of_a_grant_outlives_it() -> None:
    budget = Budget(100)
    grant = budget.holder("one").take_nowait(30)
    assert grant is not None
    part, all_the_rest, nothing = grant.part(10), grant.part(50), grant.part(1)
    grant.release()
    assert budget.held_bytes == 30
    part.release()
    assert budget.held_bytes == 20
    all_the_rest.release()
    nothing.release()
    assert budget.held_bytes == 0
    assert grant.part(5).release() is None


def test_what_is_set_aside_is_there_for_whoever_comes_late() -> None:
    budget = Budget(100, 50)
    greedy = budget.holder("greedy", 10)
    assert greedy.take_nowait(200) is not None
    assert (greedy.held_bytes, budget.unreserved_bytes) == (60, 40)
    late = budget.holder("late", 20)
    first = late.take_nowait(45)
    assert first is not None, "who holds nothing is granted any one item, charged as the reserve"
    assert (late.held_bytes, late.take_nowait(1)) == (20, None)
    first.release()
    assert late.take_nowait(20) is not None
    with pytest.raises(ValueError, match="aside"):
        Budget(100, 100)


def test_a_limit_below_its_reserve_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        Budget(100).holder("one", 10, 5)


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


async def test_what_an_abandoned_holder_held_is_free_again_and_late_releases_change_nothing() -> None:
    budget = Budget(100, 40)
    gone, other = budget.holder("gone", 20), budget.holder("other", 20)
    first, second = await gone.take(30), await gone.take(10)
    part = first.part(5)
    gone.abandon()
    assert budget.held_bytes == 0
    kept = other.take_nowait(60)
    assert kept is not None
    for grant in (first, part, second):
        grant.release()
    assert budget.held_bytes == 60
    kept.release()
    assert (budget.held_bytes, budget.unreserved_bytes) == (0, 20)
    with pytest.raises(BudgetClosed):
        await gone.take(1)
