"""Actors that would wait for themselves, listeners that fail, several failures at once, and random races."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
import structlog.testing
import trio
import trio.lowlevel

from callboard.runtime import (
    Actor,
    ActorRef,
    AskCycle,
    Backoff,
    ChildSpec,
    Event,
    MailboxFull,
    Request,
    RestartsExhausted,
    RuntimeProblem,
    StopReason,
    Supervisor,
    handles,
    open_system,
    run_simulated,
)

from .conftest import Count, Crash, Note, Recorders

TIRELESS = Backoff(first_s=0, give_up_after=10**6)


@attrs.frozen
class Fill(Request[str]):
    pass


@attrs.frozen
class End(Request[str]):
    pass


class Selfish(Actor):
    mailbox_capacity = 2

    @handles
    async def on_fill(self, message: Fill) -> str:
        ref: Any = self.context.ref
        try:
            for _ in range(3):
                await ref.tell(Note("more"))
        except MailboxFull as error:
            return str(error)
        return "no error"

    @handles
    async def on_note(self, message: Note) -> None:
        pass

    @handles
    async def on_end(self, message: End) -> str:
        ref: Any = self.context.ref
        try:
            await ref.stop()
        except AskCycle as error:
            ref.stop_nowait()
            return str(error)
        return "no error"


async def test_an_actor_cannot_wait_for_itself(autojump_clock: Any) -> None:
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=Selfish))
        assert "its own mailbox" in await ref.ask(Fill(), timeout_s=1)
        assert "its own end" in await ref.ask(End(), timeout_s=1)
        assert (await ref.monitor()).kind == "shutdown"


async def test_a_listener_that_fails_is_logged_and_changes_nothing(autojump_clock: Any, recorders: Recorders) -> None:
    def bad(event: Event) -> None:
        raise ValueError("bad listener")

    async with open_system() as system:
        with structlog.testing.capture_logs() as lines, system.events.calling(bad):
            ref = await system.spawn(recorders.spec("a"))
            await ref.tell(Crash())
            await ref.tell(Note("after"))
            assert await ref.ask(Count(), timeout_s=5) == 1
    assert [line["event"] for line in lines] == ["a listener failed and is not called any more"]


async def test_the_first_of_several_failures_is_raised_and_the_others_are_noted(
    autojump_clock: Any, recorders: Recorders
) -> None:
    spec = recorders.spec("a", backoff=Backoff(give_up_after=1))
    with pytest.raises(RestartsExhausted) as raised:  # noqa: PT012 - it is the block that raises
        async with open_system(root=Supervisor([spec])) as system:
            system.find("a").tell_nowait(Crash())
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while the block ended")
    assert raised.value.__notes__ == ["Afterwards: ValueError: while the block ended"]


@attrs.frozen
class Nap(Request[int]):
    seconds: float
    cancel_with_asker = True


class Racer(Actor):
    def __init__(self, lives: list[int]) -> None:
        self.lives = lives

    async def started(self) -> None:
        self.lives[0] += 1
        await trio.sleep(0.01)

    async def stopping(self, reason: StopReason) -> None:
        self.lives[1] += 1
        await trio.sleep(0.02)

    @handles
    async def on_crash(self, message: Crash) -> None:
        raise ValueError

    @handles
    async def on_nap(self, message: Nap) -> int:
        await trio.sleep(message.seconds)
        return 1


async def race(seed: int, lives: list[int]) -> None:
    """Stops, cancels, crashes, starts, requests, restarts of groups and stops of the system, all at the same time."""
    chance = random.Random(seed)

    def racer(name: str, **options: Any) -> ChildSpec:
        return ChildSpec(name=name, start=lambda: Racer(lives), backoff=TIRELESS, **options)

    def group() -> Supervisor:
        restarts = [chance.choice(["permanent", "transient", "temporary"]) for _ in range(3)]
        children: list[ChildSpec] = [
            racer(f"k{at}", restart=restart, shutdown_s=chance.choice([0.01, 0.03, 1]))
            for at, restart in enumerate(restarts)
        ]
        return Supervisor(children, chance.choice(["one_for_one", "one_for_all", "rest_for_one"]))  # type: ignore[arg-type]

    async def strike(system: Any) -> None:
        for number in range(chance.randrange(1, 8)):
            await trio.sleep(chance.random() * 0.05)
            ref = system.find(chance.choice(["s/k0", "s/k1", "s/k2", "s", "top"]))
            what = chance.choice(["stop", "cancel", "crash", "ask", "start", "stop child"])
            try:
                if isinstance(ref, ActorRef) and what == "crash":
                    ref.tell_nowait(Crash())
                elif isinstance(ref, ActorRef) and what == "ask":
                    await ref.ask(Nap(chance.random() * 0.05), timeout_s=chance.random() * 0.05)
                elif ref is not None and what in ("stop", "cancel") and chance.random() < 0.3:
                    ref.cancel() if what == "cancel" else await ref.stop()
                elif (place := system.find("s")) is not None and what == "stop child":
                    await place.stop_child("k1")
                elif place is not None and what == "start":
                    with trio.move_on_after(chance.random() * 0.03):
                        await place.start_child(racer(f"{number} {chance.random()}", restart="temporary"))
            except RuntimeProblem:
                continue

    root = Supervisor(
        [ChildSpec(name="s", start=group, backoff=TIRELESS), racer("top")],
        chance.choice(["one_for_one", "one_for_all"]),  # type: ignore[arg-type]
    )
    with trio.fail_after(1000):
        async with open_system(root=root) as system:
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(strike, system)
                if chance.random() < 0.3:
                    await trio.sleep(chance.random() * 0.2)
                    with trio.move_on_after(chance.random() * 0.1):
                        await system.stop(chance.choice([0.0, 0.01, 100]))
                    if chance.random() < 0.5:
                        await system.kill()
            await trio.sleep(5)
            # Whoever is there is there for good, and nobody hangs half way.
            assert {node.state for node in system.tree().children} <= {"running"}


def test_random_races_leave_nobody_half_way() -> None:
    lives = [0, 0]
    for seed in range(150):
        run_simulated(race, seed, lives, seed=seed)
        assert lives[0] == lives[1], seed
    assert lives[0] > 1000
