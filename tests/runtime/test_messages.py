"""Messages: handlers checked when the class is made, asking, mailboxes that are full, dead letters, timers."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import attrs
import pytest
import trio

from callboard.runtime import (
    Actor,
    ActorDied,
    ActorRef,
    AskCycle,
    AskTimeout,
    ChildSpec,
    MailboxFull,
    NotHandled,
    Request,
    handles,
    open_system,
)

from .conftest import Count, Crash, Note, Recorder, Recorders, Sleep, Slow


@attrs.frozen
class Divide(Request[float]):
    by: int


class Divider(Actor):
    @handles
    async def on_divide(self, message: Divide) -> float:
        return 1 / message.by


@attrs.frozen
class Meet(Request[str]):
    pass


class Peer(Actor):
    peers: ClassVar[dict[str, Any]] = {}

    @handles
    async def on_meet(self, message: Meet) -> str:
        other = self.peers["b" if self.context.name == "a" else "a"]
        try:
            return str(await other.ask(Meet(), timeout_s=5))
        except AskCycle as cycle:
            return str(cycle)


@attrs.define
class Mutable:
    text: str


def _not_async() -> None:
    class Wrong(Actor):
        @handles  # type: ignore[type-var]
        def on_note(self, message: Note) -> None: ...


def _without_annotation() -> None:
    class Wrong(Actor):
        @handles
        async def on_note(self, message) -> None: ...  # type: ignore[no-untyped-def]


def _two_parameters() -> None:
    class Wrong(Actor):
        @handles
        async def on_note(self, message: Note, more: int) -> None: ...


def _plain_type() -> None:
    class Wrong(Actor):
        @handles
        async def on_text(self, message: str) -> None: ...


def _mutable() -> None:
    class Wrong(Actor):
        @handles
        async def on_text(self, message: Mutable) -> None: ...


def _twice() -> None:
    class Wrong(Actor):
        @handles
        async def on_note(self, message: Note) -> None: ...

        @handles
        async def on_both(self, message: Note | Crash) -> None: ...


def _unknown() -> None:
    class Wrong(Actor):
        @handles
        async def on_note(self, message: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_not_async, "must be `async def`"),
        (_without_annotation, "must say which message it takes"),
        (_two_parameters, "must take one message"),
        (_plain_type, "is not an attrs class"),
        (_mutable, "takes Mutable, which is not frozen"),
        (_twice, "Note is handled by both"),
        (_unknown, "cannot be found"),
    ],
)
def test_a_wrong_handler_shows_when_the_class_is_made(make: Any, says: str) -> None:
    with pytest.raises(TypeError, match=re.escape(says)):
        make()


def test_handlers_are_inherited_and_can_be_overridden() -> None:
    class Child(Recorder):
        @handles
        async def on_note(self, message: Note) -> None: ...

    assert Child.handlers == Recorder.handlers


async def test_an_unknown_message_is_an_error_at_the_sender(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        with pytest.raises(NotHandled, match="Recorder has no handler for Mutable"):
            await ref.tell(Mutable("x"))
        with pytest.raises(NotHandled):
            ref.tell_nowait(Mutable("x"))


async def test_ask_returns_the_answer(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref: ActorRef[Recorder] = await system.spawn(recorders.spec("a"))
        await ref.tell(Note("1"))
        answer: int = await ref.ask(Count(), timeout_s=1)
        assert answer == 1


async def test_a_request_that_crashes_its_actor_is_answered_with_its_death(
    autojump_clock: Any, recorders: Recorders
) -> None:
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=Divider))
        with pytest.raises(ActorDied, match="division by zero") as caught:
            await ref.ask(Divide(0), timeout_s=1)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await ref.ask(Divide(2), timeout_s=1) == 0.5


async def test_a_request_that_waits_in_the_mailbox_of_an_ended_actor_is_answered(
    autojump_clock: Any, recorders: Recorders
) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        ref.tell_nowait(Sleep(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.stop)
            with pytest.raises(ActorDied, match="it ended \\(shutdown\\)"):
                await ref.ask(Count(), timeout_s=10)
        with pytest.raises(ActorDied):
            await ref.ask(Count(), timeout_s=10)


async def test_a_request_that_is_late_is_not_handled_any_more(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        ref.tell_nowait(Sleep(5))
        began_s = trio.current_time()
        with pytest.raises(AskTimeout, match=r"callboard/a did not answer Slow within 2 s\."):
            await ref.ask(Slow(1), timeout_s=2)
        assert trio.current_time() - began_s == pytest.approx(2)
        await trio.sleep(10)
        assert recorders.diary == ["start a", "slept a"]


async def test_actors_that_would_wait_for_each_other_are_told(autojump_clock: Any) -> None:
    async with open_system() as system:
        for name in "ab":
            Peer.peers[name] = await system.spawn(ChildSpec(name=name, start=Peer))
        answer = await Peer.peers["a"].ask(Meet(), timeout_s=5)
    assert answer == "callboard/b asks callboard/a, which waits for callboard/b."


def _small(overflow_policy: str) -> type[Recorder]:
    class Small(Recorder):
        mailbox_capacity = 2
        overflow = overflow_policy  # type: ignore[assignment]

    return Small


async def test_tell_waits_while_the_mailbox_is_full(autojump_clock: Any) -> None:
    diary: list[Any] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=lambda: _small("wait")(diary)))
        await ref.tell(Sleep(5))
        await trio.sleep(1)
        await ref.tell(Note("1"))
        await ref.tell(Note("2"))
        with pytest.raises(MailboxFull, match="callboard/a: The mailbox holds 2 messages"):
            ref.tell_nowait(Note("no"))
        with trio.move_on_after(1) as scope:
            await ref.tell(Note("given up"))
        assert scope.cancelled_caught
        await ref.tell(Note("3"))
        assert trio.current_time() >= 5
        await ref.ask(Count(), timeout_s=1)
        assert diary == ["start", "slept", "1", "2", "3"]


async def test_senders_that_wait_are_woken_by_the_end_of_the_actor(autojump_clock: Any) -> None:
    diary: list[Any] = []
    dead: list[Any] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=lambda: _small("wait")(diary)))
        with system.events.calling(lambda event: dead.append(event.detail) if event.kind == "dead_letter" else None):
            async with trio.open_nursery() as nursery:
                ref.tell_nowait(Sleep(5))
                await trio.sleep(1)
                for text in "12345":
                    nursery.start_soon(ref.tell, Note(text))
                await trio.sleep(1)
                ref.cancel()
    assert sorted(note.text for note in dead) == ["1", "2", "3", "4", "5"]


async def test_drop_oldest_keeps_the_newest_and_reports_the_others(autojump_clock: Any) -> None:
    diary: list[Any] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=lambda: _small("drop_oldest")(diary)))
        with system.events.listen() as events:
            for text in "1234":
                ref.tell_nowait(Note(text))
            async for event in events:
                assert (event.kind, event.detail) == ("dead_letter", Note("1"))
                break
        await ref.stop()
        with pytest.raises(ActorDied):
            await ref.ask(Count(), timeout_s=1)


async def test_a_dropped_request_is_answered(autojump_clock: Any) -> None:
    diary: list[Any] = []
    async with open_system() as system, trio.open_nursery() as nursery:
        ref = await system.spawn(ChildSpec(name="a", start=lambda: _small("drop_oldest")(diary)))
        ref.tell_nowait(Sleep(5))
        await trio.sleep(1)

        async def ask() -> None:
            with pytest.raises(ActorDied, match="dropped for newer"):
                await ref.ask(Count(), timeout_s=50)
            assert trio.current_time() < 4

        nursery.start_soon(ask)
        await trio.sleep(1)
        ref.tell_nowait(Note("1"))
        ref.tell_nowait(Note("2"))


async def test_fail_refuses(autojump_clock: Any) -> None:
    diary: list[Any] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=lambda: _small("fail")(diary)))
        ref.tell_nowait(Note("1"))
        ref.tell_nowait(Note("2"))
        with pytest.raises(MailboxFull):
            await ref.tell(Note("3"))
        with pytest.raises(MailboxFull):
            await ref.ask(Count(), timeout_s=1)


async def test_messages_to_an_ended_actor_are_dead_letters(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        ref = await system.spawn(recorders.spec("a"))
        await ref.stop()
        with system.events.listen() as events:
            await ref.tell(Note("late"))
            async for event in events:
                assert (event.kind, event.path, event.detail) == ("dead_letter", "callboard/a", Note("late"))
                break


async def test_a_listener_that_is_too_slow_loses_events_and_knows(autojump_clock: Any, recorders: Recorders) -> None:
    async with open_system() as system:
        with system.events.listen(events_max=1) as events:
            ref = await system.spawn(recorders.spec("a"))
            await ref.stop()
            assert events.lost == 1


async def test_a_slow_handler_is_reported(autojump_clock: Any, recorders: Recorders) -> None:
    seen: list[Any] = []
    async with open_system() as system:
        with system.events.calling(lambda event: seen.append(event) if event.kind == "slow_handler" else None):
            ref = await system.spawn(recorders.spec("a"))
            await ref.ask(Slow(0.5), timeout_s=9)
            await ref.ask(Slow(3), timeout_s=9)
            (node,) = system.tree().children
    assert [(event.path, event.detail[0]) for event in seen] == [("callboard/a", "Slow")]
    assert seen[0].detail[1] == pytest.approx(3)
    assert node.busy_s == pytest.approx(3.5)


class Clockwork(Recorder):
    async def started(self) -> None:
        timers = self.context.timers
        timers.after(2.5, Note("once"))
        timers.every(1.0, Note("tick"))
        timers.after(0.5, Note("never")).cancel()


async def test_timers_tell_later_and_end_with_the_life(autojump_clock: Any) -> None:
    diary: list[Any] = []
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=lambda: Clockwork(diary), restart="temporary"))
        await trio.sleep(3.1)
        assert diary == ["tick", "tick", "once", "tick"]
        await ref.ask(Slow(4.0), timeout_s=9)
        await trio.sleep(0.1)
        # The ticks that were missed are one, and the next comes on the old beat.
        assert diary[4:] == ["slow done", "tick"]
        await trio.sleep(0.9)
        assert diary[6:] == ["tick"]
        await ref.stop()
        await trio.sleep(5)
        assert diary[7:] == ["stop"]


async def test_a_timer_needs_a_handler_and_an_interval_a_length(autojump_clock: Any) -> None:
    class Wrong(Recorder):
        async def started(self) -> None:
            with pytest.raises(TypeError, match="Mutable"):
                self.context.timers.after(1, Mutable("x"))
            with pytest.raises(ValueError, match="interval"):
                self.context.timers.every(0, Note("x"))

    async with open_system() as system:
        await system.spawn(ChildSpec(name="a", start=lambda: Wrong([])))
