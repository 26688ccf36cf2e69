"""Streams: every batch once, ends that are said, checkpoints only after all before them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from callboard.runtime import Budget, Interrupted, Stream, StreamClosed


@given(
    script=st.lists(st.one_of(st.integers(1, 5), st.just("checkpoint")), max_size=30),
    receivers=st.integers(1, 4),
    seed=st.integers(0, 1000),
    with_budget=st.booleans(),
)
def test_parallel_receivers_get_every_batch_once_and_checkpoints_wait(
    script: list[Any], receivers: int, seed: int, with_budget: bool
) -> None:
    chance = random.Random(seed)
    budget = Budget(10)
    holder = budget.holder("job") if with_budget else None
    stream: Stream[int] = Stream("s", budget=holder)
    got: list[int] = []
    settled: set[int] = set()
    due: dict[int, int] = {}

    async def send() -> None:
        number = 0
        async with stream.sender() as out:
            for step in script:
                if step == "checkpoint":
                    due[len(due)] = number
                    await out.checkpoint(len(due) - 1)
                else:
                    await out.send(list(range(number, number + step)), size_bytes=step)
                    number += step
            await out.finish()

    def check() -> None:
        reached = stream.settled_checkpoint
        expected = [mark for mark, before in due.items() if set(range(before)) <= settled]
        assert reached == (expected[-1] if expected else None)

    async def receive() -> None:
        async with stream.receiver() as batches:
            async for batch in batches:
                await trio.sleep(chance.random())
                got.extend(batch.items)
                settled.update(batch.items)
                batch.settle()
                batch.settle()
                check()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for _ in range(receivers):
                nursery.start_soon(receive)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    total = sum(step for step in script if step != "checkpoint")
    assert sorted(got) == list(range(total))
    assert (stream.items_sent, stream.items_done, stream.items_failed) == (total, total, 0)
    assert stream.end is not None
    assert budget.held_bytes == 0


@pytest.mark.parametrize("how", ["return", "error", "cancel"])
async def test_a_sender_that_is_left_without_finish_interrupts(autojump_clock: Any, how: str) -> None:
    stream: Stream[int] = Stream("pages")

    async def send(scope: trio.CancelScope) -> None:
        with scope:
            try:
                async with stream.sender() as out:
                    await out.send([1])
                    await out.checkpoint("one")
                    if how == "error":
                        raise OSError
                    if how == "cancel":
                        await trio.sleep_forever()
            except OSError:
                pass

    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(send, scope)
        with pytest.raises(Interrupted, match="The stream 'pages' broke off"):  # noqa: PT012 - it breaks off while we read
            async with stream.receiver() as batches:
                async for batch in batches:
                    seen.extend(batch.items)
                    batch.settle()
                    await trio.sleep(1)
                    scope.cancel()
    assert seen == [1]
    assert stream.end is None
    assert stream.settled_checkpoint == "one"


async def test_a_sender_without_receivers_is_told_and_holds_nothing(autojump_clock: Any) -> None:
    budget = Budget(100)
    stream: Stream[int] = Stream("pages", batches_max=1, budget=budget.holder("job"))
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            async with stream.sender() as out:
                with pytest.raises(StreamClosed, match="Nobody receives"):  # noqa: PT012 - one of several
                    for number in range(9):
                        await out.send([number], size_bytes=10)

        nursery.start_soon(send)
        async with stream.receiver() as batches:
            async for batch in batches:
                batch.settle()
                await trio.sleep(1)
                break
    assert budget.held_bytes == 0


async def test_batches_that_nobody_received_give_their_bytes_back(autojump_clock: Any) -> None:
    budget = Budget(100)
    stream: Stream[int] = Stream("pages", batches_max=4, budget=budget.holder("job"))
    async with stream.sender() as out:
        for number in range(3):
            await out.send([number], size_bytes=10)
        assert budget.held_bytes == 30
        async with stream.receiver():
            pass
    assert budget.held_bytes == 0


async def test_a_cancelled_send_sends_nothing(autojump_clock: Any) -> None:
    budget = Budget(100)
    stream: Stream[int] = Stream("pages", batches_max=1, budget=budget.holder("job"))
    async with stream.sender() as out:
        await out.send([1], size_bytes=10)
        with trio.move_on_after(1):
            await out.send([2], size_bytes=10)
        assert budget.held_bytes == 10
        await out.finish("end")
        with pytest.raises(RuntimeError, match="has finished"):
            await out.send([3])
    async with stream.receiver() as batches:
        async for batch in batches:
            assert batch.items == [1]
            batch.settle(done=0, failed=1)
    assert (stream.items_sent, stream.items_done, stream.items_failed) == (1, 0, 1)
    assert stream.settled_checkpoint == "end"


async def test_several_senders_end_it_together(autojump_clock: Any) -> None:
    stream: Stream[int] = Stream("pages", senders=2)
    seen: list[int] = []

    async def send(number: int) -> None:
        async with stream.sender() as out:
            await trio.sleep(number)
            await out.send([number])
            await out.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, 1)
        nursery.start_soon(send, 2)
        async with stream.receiver() as batches:
            async for batch in batches:
                seen.extend(batch.items)
                batch.settle()
    assert seen == [1, 2]
    assert stream.end is not None
    assert stream.end.items == 2
    with pytest.raises(RuntimeError, match="all the senders"):
        async with stream.sender():
            pass
