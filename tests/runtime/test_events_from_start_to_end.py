"""Who listens to a system from outside hears also what happens before its block begins and after it has ended."""

from __future__ import annotations

from callboard.runtime import Actor, ChildSpec, Event, StopReason, Supervisor, open_system


class Quiet(Actor):
    async def stopping(self, reason: StopReason) -> None:
        raise RuntimeError("cannot let go")


async def test_the_start_and_the_stop_are_heard() -> None:
    heard: list[Event] = []
    root = Supervisor([ChildSpec(name="quiet", start=Quiet)])
    async with open_system("house", root, on_event=heard.append) as system:
        at_begin = [event.kind for event in heard]
        inside: list[Event] = []
        with system.events.calling(inside.append):
            pass
        assert inside == []
    kinds = [(event.kind, event.path) for event in heard]
    assert "started" in at_begin
    assert ("crashed", "house/quiet") in kinds
    assert ("stopped", "house/quiet") in kinds
