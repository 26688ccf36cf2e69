"""A request whose asker gave up: skipped, carried on, or cancelled, as its class says."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from callboard.runtime import Actor, AskTimeout, ChildSpec, Request, handles, open_system


@attrs.frozen
class Query(Request[str]):
    seconds: float
    cancel_with_asker = True


@attrs.frozen
class Payment(Request[str]):
    seconds: float


class Clerk(Actor):
    def __init__(self, diary: list[str]) -> None:
        self.diary = diary

    @handles
    async def on_query(self, message: Query) -> str:
        try:
            await trio.sleep(message.seconds)
            self.diary.append("queried")
        except trio.Cancelled:
            self.diary.append("query cancelled")
            raise
        return "result"

    @handles
    async def on_payment(self, message: Payment) -> str:
        await trio.sleep(message.seconds)
        self.diary.append("paid")
        return "receipt"


async def test_a_time_out_cancels_only_what_says_so_and_the_actor_lives_on(autojump_clock: Any) -> None:
    diary: list[str] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="clerk", start=lambda: Clerk(diary)))
        with pytest.raises(AskTimeout):
            await ref.ask(Query(10), timeout_s=1)
        assert await ref.ask(Query(0.1), timeout_s=1) == "result"
        assert trio.current_time() < 5
        with pytest.raises(AskTimeout):
            await ref.ask(Payment(10), timeout_s=1)
        assert await ref.ask(Payment(0), timeout_s=20) == "receipt"
        assert system.tree().children[0].restarts == 0
    assert diary == ["query cancelled", "queried", "paid", "paid"]


async def test_a_cancelled_asker_is_as_one_whose_time_is_up(autojump_clock: Any) -> None:
    diary: list[str] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="clerk", start=lambda: Clerk(diary)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ref.ask(Query(10), timeout_s=100))
            await trio.sleep(1)
            nursery.start_soon(lambda: ref.ask(Query(0), timeout_s=100))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert await ref.ask(Payment(0), timeout_s=1) == "receipt"
    # The one that waited was skipped unhandled.
    assert diary == ["query cancelled", "paid"]


async def test_to_cancel_the_actor_goes_through_the_scope_of_a_request(autojump_clock: Any) -> None:
    diary: list[str] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="clerk", start=lambda: Clerk(diary)))
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(AskTimeout):
                    await ref.ask(Query(10), timeout_s=1)

            nursery.start_soon(ask)
            await trio.sleep(1)
            # At the same moment as the time-out.
            ref.cancel()
        assert (await ref.monitor()).kind == "shutdown"
    assert diary == ["query cancelled"]
