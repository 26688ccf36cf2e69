"""Cancellation at every checkpoint: of whoever starts, tells, asks, gathers, stops, and of a group in the middle of a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from callboard.runtime import (
    Actor,
    Budget,
    ChildSpec,
    Request,
    StartFailed,
    StopReason,
    Stream,
    Supervisor,
    gathering,
    handles,
    open_system,
)

from .conftest import AT_ONCE, Crash

MOMENTS_MAX = 400


@attrs.frozen
class Work(Request[int]):
    cancel_with_asker = True


class Careful(Actor):
    """Has a checkpoint at every corner, and a state that is whole between messages."""

    def __init__(self, diary: list[str]) -> None:
        self.diary, self.open = diary, 0

    async def started(self) -> None:
        self.diary.append("began")
        await trio.lowlevel.checkpoint()

    async def stopping(self, reason: StopReason) -> None:
        await trio.lowlevel.checkpoint()
        assert self.open == 0
        self.diary.append("ended")

    @handles
    async def on_work(self, message: Work) -> int:
        assert self.open == 0
        self.open += 1
        try:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        finally:
            self.open -= 1
        return 1

    @handles
    async def on_crash(self, message: Crash) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError


async def strike_everywhere(scenario: Callable[[], Awaitable[None]]) -> int:
    """Run the scenario again and again, cancelled one checkpoint later each time, until it ends by itself."""
    for moment in range(MOMENTS_MAX):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            is_over = False

            async def strike(moment: int, scope: trio.CancelScope) -> None:
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(strike, moment, scope)
            with scope:
                await scenario()
                is_over = True
            nursery.cancel_scope.cancel()
        if is_over and not scope.cancel_called:
            return moment
    raise AssertionError("the scenario never came to its end")


async def test_whoever_starts_asks_and_stops(autojump_clock: Any) -> None:
    diary: list[str] = []
    async with open_system() as system:

        async def scenario() -> None:
            try:
                ref = await system.spawn(ChildSpec(name="a", start=lambda: Careful(diary), backoff=AT_ONCE))
                try:
                    for _ in range(3):
                        assert await ref.ask(Work(), timeout_s=5) == 1
                        await ref.tell(Work())
                    await ref.tell(Crash())
                    assert await ref.ask(Work(), timeout_s=5) == 1
                    await ref.stop()
                finally:
                    ref.stop_nowait()
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                        assert (await ref.monitor()).kind in ("shutdown", "error")
            except StartFailed:
                return
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                    await system.root.stop_child("a")
                assert diary.count("began") == diary.count("ended")

        assert await strike_everywhere(scenario) > 20


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_a_system_in_the_middle_of_a_restart(autojump_clock: Any, strategy: Any) -> None:
    diary: list[str] = []

    async def scenario() -> None:
        specs: list[ChildSpec] = [
            ChildSpec(name=name, start=lambda: Careful(diary), backoff=AT_ONCE) for name in ("a", "b", "c")
        ]
        root = Supervisor([ChildSpec(name="group", start=lambda: Supervisor(specs, strategy))])
        try:
            async with open_system(root=root) as system:
                await system.find("group/b").tell(Crash())
                assert await system.find("group/b").ask(Work(), timeout_s=5) == 1
                assert await system.find("group/c").ask(Work(), timeout_s=5) == 1
        finally:
            assert diary.count("began") == diary.count("ended")

    assert await strike_everywhere(scenario) > 15


async def test_a_stream_under_a_budget(autojump_clock: Any) -> None:
    async def scenario() -> None:
        budget = Budget(10)
        stream: Stream[int] = Stream("s", batches_max=1, budget=budget.holder("job"))
        got: list[int] = []

        async def send() -> None:
            async with stream.sender() as out, gathering(out, items_max=2, age_max_s=1) as gatherer:
                for number in range(9):
                    await gatherer.add(number, 4)
                    if number % 4 == 0:
                        await gatherer.checkpoint(number)
                await gatherer.finish()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                async with stream.receiver() as batches:
                    async for batch in batches:
                        await trio.lowlevel.checkpoint()
                        got.extend(batch.items)
                        batch.settle()
            assert got == list(range(9))
            assert stream.settled_checkpoint == 8
        finally:
            # In order and without a gap, as far as it came; what was received and not settled is still held, no more.
            assert got == list(range(len(got)))
            assert stream.settled_checkpoint is None or stream.settled_checkpoint < len(got)
            assert budget.held_bytes <= 8

    assert await strike_everywhere(scenario) > 20
