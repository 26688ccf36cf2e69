"""Batches of single items: by count, by bytes, by age."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from callboard.runtime import Interrupted, Stream, StreamClosed, gathering

ITEMS = st.lists(st.tuples(st.floats(0, 3), st.integers(0, 12)), max_size=40)


@given(items=ITEMS, items_max=st.integers(1, 5), bytes_max=st.integers(1, 20), receivers=st.integers(1, 3))
def test_no_batch_is_too_long_too_heavy_or_too_old_and_none_is_lost(
    items: list[tuple[float, int]], items_max: int, bytes_max: int, receivers: int
) -> None:
    stream: Stream[tuple[int, float]] = Stream("s", batches_max=100)
    got: list[int] = []
    settled: set[int] = set()

    async def send() -> None:
        async with (
            stream.sender() as out,
            gathering(out, items_max=items_max, bytes_max=bytes_max, age_max_s=2.0) as gatherer,
        ):
            for number, (pause_s, size_bytes) in enumerate(items):
                await trio.sleep(pause_s)
                await gatherer.add((number, trio.current_time()), size_bytes)
                if number % 3 == 0:
                    await gatherer.checkpoint(number)
            await gatherer.finish()

    async def receive(slow_s: float) -> None:
        async with stream.receiver() as batches:
            async for batch in batches:
                assert len(batch) <= items_max
                assert batch.size_bytes <= bytes_max or len(batch) == 1
                if receivers == 1:
                    assert all(trio.current_time() - born_s <= 2.0 + 1e-6 for _, born_s in batch.items)
                else:
                    await trio.sleep(slow_s)
                got.extend(number for number, _ in batch.items)
                settled.update(number for number, _ in batch.items)
                batch.settle()
                reached = stream.settled_checkpoint
                assert reached is None or settled >= set(range(reached + 1))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(receivers):
                nursery.start_soon(receive, 0.7 * number)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert sorted(got) == list(range(len(items)))
    if receivers == 1:
        assert got == sorted(got)
    assert stream.settled_checkpoint == (max(range(0, len(items), 3)) if items else None)


async def test_a_stream_without_receivers_ends_the_block_bare(autojump_clock: Any) -> None:
    stream: Stream[int] = Stream("s")
    async with stream.receiver():
        pass
    async with stream.sender() as out:
        with pytest.raises(StreamClosed):  # noqa: PT012 - it is the block that raises
            async with gathering(out, age_max_s=1) as gatherer:
                await gatherer.add(1)
                # What is old is sent by itself, and finds nobody.
                await trio.sleep_forever()
        with pytest.raises(ValueError, match="own"):
            async with gathering(out):
                raise ValueError("own")


async def test_what_is_gathered_when_the_block_fails_is_not_sent(autojump_clock: Any) -> None:
    stream: Stream[int] = Stream("s")
    with pytest.raises(ValueError):  # noqa: PT012 - it is the block that raises
        async with stream.sender() as out, gathering(out) as gatherer:
            await gatherer.add(1)
            raise ValueError
    async with stream.receiver() as batches:
        with pytest.raises(Interrupted):
            await batches.__anext__()
    assert stream.items_sent == 0


async def test_a_cancelled_flush_keeps_its_items(autojump_clock: Any) -> None:
    stream: Stream[int] = Stream("s", batches_max=1)
    async with stream.sender() as out, gathering(out, items_max=2) as gatherer:
        await out.send([0])
        await gatherer.add(1)
        with trio.move_on_after(0.1):
            await gatherer.add(2)
        async with stream.receiver() as batches:
            assert list((await batches.__anext__()).items) == [0]
            await gatherer.flush()
            assert list((await batches.__anext__()).items) == [1, 2]
            await gatherer.finish()


async def test_a_gatherer_needs_some_room() -> None:
    stream: Stream[int] = Stream("s")
    async with stream.sender() as out:
        with pytest.raises(ValueError, match="at least one item"):
            async with gathering(out, items_max=0):
                pass
        await out.finish()
