"""How actors start, stop, are cancelled and killed, and what their clean-up may do."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from callboard.runtime import (
    Actor,
    ChildSpec,
    CleanUpFailed,
    Context,
    NameTaken,
    StartFailed,
    StopReason,
    Task,
    open_system,
)

from .conftest import Crash, Finish, Note, Recorder, Recorders, Sleep


class Refuses(Actor):
    async def started(self) -> None:
        raise OSError("no such port")


async def test_what_started_raises_reaches_whoever_started_the_actor(autojump_clock: Any) -> None:
    async with open_system() as system:
        with pytest.raises(StartFailed, match="callboard/a could not be started: OSError: no such port") as caught:
            await system.spawn(ChildSpec(name="a", start=Refuses))
        assert isinstance(caught.value.__cause__, OSError)
        assert system.find("a") is None
        assert system.tree().children == ()


async def test_a_factory_that_fails_is_a_failed_start(autojump_clock: Any) -> None:
    def broken() -> Actor:
        raise RuntimeError("no settings")

    async with open_system() as system:
        with pytest.raises(StartFailed, match="no settings"):
            await system.spawn(ChildSpec(name="a", start=broken))


async def test_spawn_returns_when_started_has(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        await system.spawn(recorders.spec("a", start_s=3))
        assert trio.current_time() == pytest.approx(3, abs=0.1) or recorders.diary == ["start a"]


async def test_a_name_is_taken_until_its_child_has_ended(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        with pytest.raises(NameTaken, match="already has a child 'a'"):
            await system.spawn(recorders.spec("a"))
        await ref.stop()
        await system.spawn(recorders.spec("a"))


async def test_a_cancelled_spawn_leaves_no_child(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        with trio.move_on_after(1) as scope:
            await system.spawn(recorders.spec("a", start_s=10))
        assert scope.cancelled_caught
        assert system.tree().children == ()
        assert recorders.diary == ["stop a"]


async def test_stop_ends_after_the_current_message_and_for_good(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a", restart="permanent"))
        await ref.tell(Sleep(2))
        await ref.tell(Note("never"))
        await trio.sleep(1)
        await ref.stop()
        assert ref.reason == StopReason("shutdown")
        assert recorders.diary == ["start a", "slept a", "stop a"]
        assert system.find("a") is None


async def test_cancel_ends_in_the_middle_of_a_message(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        await ref.tell(Sleep(50))
        await trio.sleep(1)
        began_s = trio.current_time()
        ref.cancel()
        assert (await ref.monitor()).kind == "shutdown"
        assert trio.current_time() - began_s < 0.1
        assert recorders.diary == ["start a", "stop a"]


async def test_an_actor_that_does_not_stop_in_time_is_killed_and_still_cleans_up(
    autojump_clock: Any, recorders: Recorders
) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a", shutdown_s=2))
        await ref.tell(Sleep(50))
        await trio.sleep(1)
        began_s = trio.current_time()
        await system.root.stop_child("a")
        assert trio.current_time() - began_s == pytest.approx(2)
        assert recorders.diary == ["start a", "stop a"]


async def test_clean_up_is_shielded_but_not_for_ever(autojump_clock: Any, recorders: Recorders) -> None:
    seen: list[Any] = []
    async with open_system() as system:
        with system.events.calling(lambda event: seen.append((event.kind, event.detail))):
            quick = await system.spawn(recorders.spec("quick", stop_s=3, shutdown_s=4))
            slow = await system.spawn(recorders.spec("slow", stop_s=30, shutdown_s=4))
            quick.cancel()
            slow.cancel()
            await quick.monitor()
            assert recorders.diary[-1] == "stop quick"
            began_s = trio.current_time()
            await slow.monitor()
            assert trio.current_time() - began_s == pytest.approx(1)
    assert "stop slow" not in recorders.diary
    assert any(kind == "crashed" and isinstance(detail.error, CleanUpFailed) for kind, detail in seen)


async def test_what_a_clean_up_raises_is_recorded(autojump_clock: Any) -> None:
    class Untidy(Actor):
        async def stopping(self, reason: StopReason) -> None:
            raise ValueError("still in use")

    async with open_system() as system:
        with system.events.listen() as events:
            ref = await system.spawn(ChildSpec(name="a", start=Untidy))
            await ref.stop()
            kinds = [event.kind async for event in _some(events, 3)]
    assert kinds == ["started", "crashed", "stopped"]


async def _some(events: Any, number: int) -> Any:
    left = number
    async for event in events:
        yield event
        left -= 1
        if not left:
            return


async def test_an_actor_may_finish_by_itself(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a", restart="transient"))
        await ref.tell(Finish())
        assert await ref.monitor() == StopReason("normal")


async def test_an_error_is_the_reason(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a", restart="temporary"))
        await ref.tell(Crash("bad page"))
        reason = await ref.monitor()
        assert str(reason) == "ValueError: bad page"
        assert isinstance(reason.error, ValueError)
        assert (await ref.monitor()) is reason


async def test_nothing_outlives_the_system(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
    assert ref.reason == StopReason("shutdown")
    assert recorders.diary == ["start a", "stop a"]
    with pytest.raises(StartFailed, match="not running"):
        await system.spawn(recorders.spec("b"))


async def test_what_the_block_raises_comes_out_as_it_is(autojump_clock: Any, recorders: Recorders) -> None:
    async def run() -> None:
        async with open_system() as system:
            await system.spawn(recorders.spec("a"))
            raise KeyError("x")

    with pytest.raises(KeyError):
        await run()
    assert recorders.diary == ["start a", "stop a"]


async def test_a_cancelled_block_stops_its_actors_in_order(autojump_clock: Any, recorders: Recorders) -> None:
    with trio.move_on_after(1) as scope:
        async with open_system() as system:
            await system.spawn(recorders.spec("a", stop_s=1))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert recorders.diary == ["start a", "stop a"]


async def test_a_cancelled_block_ends_by_its_deadline(autojump_clock: Any, recorders: Recorders) -> None:
    with trio.move_on_after(1):
        async with open_system(shutdown_s=2) as system:
            ref = await system.spawn(recorders.spec("a", shutdown_s=100))
            await ref.tell(Sleep(1000))
            await trio.sleep_forever()
    assert trio.current_time() < 4 + 1
    assert recorders.diary == ["start a", "stop a"]


async def test_kill_cuts_a_running_stop_short(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a", shutdown_s=100))
        await ref.tell(Sleep(1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(system.stop)
            await trio.sleep(1)
            began_s = trio.current_time()
            await system.kill()
            assert trio.current_time() - began_s < 0.1
    assert recorders.diary == ["start a", "stop a"]


async def test_a_task_runs_to_its_end_and_can_be_cancelled(autojump_clock: Any) -> None:
    class Waits(Task):
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        async def run(self, context: Context) -> None:
            await trio.sleep(self.seconds)

    async with open_system() as system:
        short = await system.spawn(ChildSpec(name="short", start=lambda: Waits(1), restart="temporary"))
        long = await system.spawn(ChildSpec(name="long", start=lambda: Waits(9), restart="permanent"))
        assert await short.monitor() == StopReason("normal")
        await long.stop()
        assert long.reason == StopReason("shutdown")


CHECKPOINTS_MAX = 60


class Busy(Recorder):
    async def started(self) -> None:
        self.diary.append("began")
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self.diary.append("started")

    async def stopping(self, reason: StopReason) -> None:
        self.diary.append("stopping")
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self.diary.append("ended")


@pytest.mark.parametrize("way", ["actor", "block", "kill"])
async def test_cancelled_at_every_checkpoint_each_life_that_began_ends_with_its_clean_up(
    autojump_clock: Any, way: str
) -> None:
    for moment in range(CHECKPOINTS_MAX):
        diary: list[Any] = []

        async def run(diary: list[Any], moment: int, scope: trio.CancelScope) -> None:
            async with open_system() as system, trio.open_nursery() as nursery:

                async def strike() -> None:
                    for _ in range(moment):
                        await trio.lowlevel.checkpoint()
                    ref = system.find("a")
                    if way == "actor" and ref is not None:
                        ref.cancel()
                    elif way == "block":
                        scope.cancel()
                    elif way == "kill":
                        await system.kill()

                nursery.start_soon(strike)
                try:
                    ref = await system.spawn(ChildSpec(name="a", start=lambda: Busy(diary)))
                except StartFailed:
                    return
                await ref.tell(Note("one"))
                await ref.tell(Note("two"))
                await ref.stop()

        with trio.CancelScope() as scope:
            await run(diary, moment, scope)
        assert diary.count("began") == diary.count("ended") <= 1, (way, moment, diary)
        assert diary.count("stopping") == diary.count("began")
