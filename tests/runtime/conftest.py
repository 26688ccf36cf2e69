"""Actors that write down what happens to them, for all tests of the runtime."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from callboard.runtime import Actor, Backoff, ChildSpec, Request, StopReason, handles

AT_ONCE = Backoff(first_s=0.0, jitter=0.0)


@attrs.frozen
class Note:
    text: str


@attrs.frozen
class Crash:
    text: str = "boom"


@attrs.frozen
class Sleep:
    seconds: float


@attrs.frozen
class Finish:
    pass


@attrs.frozen
class Count(Request[int]):
    pass


@attrs.frozen
class Slow(Request[str]):
    seconds: float


class Recorder(Actor):
    """Writes everything into a list that outlives it."""

    def __init__(self, diary: list[Any], name: str = "", start_s: float = 0.0, stop_s: float = 0.0) -> None:
        self.diary, self.name = diary, name
        self.start_s, self.stop_s = start_s, stop_s
        self.notes = 0

    async def started(self) -> None:
        await trio.sleep(self.start_s)
        self.diary.append(f"start {self.name}".strip())

    async def stopping(self, reason: StopReason) -> None:
        await trio.sleep(self.stop_s)
        self.diary.append(f"stop {self.name}".strip())

    @handles
    async def on_note(self, message: Note) -> None:
        self.notes += 1
        self.diary.append(message.text)

    @handles
    async def on_crash(self, message: Crash) -> None:
        raise ValueError(message.text)

    @handles
    async def on_sleep(self, message: Sleep) -> None:
        await trio.sleep(message.seconds)
        self.diary.append(f"slept {self.name}".strip())

    @handles
    async def on_finish(self, message: Finish) -> None:
        self.context.finish()

    @handles
    async def on_count(self, message: Count) -> int:
        return self.notes

    @handles
    async def on_slow(self, message: Slow) -> str:
        await trio.sleep(message.seconds)
        self.diary.append("slow done")
        return "done"


class Recorders:
    """Makes specs of recorders that share one diary."""

    def __init__(self) -> None:
        self.diary: list[Any] = []

    def spec(self, name: str, *, start_s: float = 0.0, stop_s: float = 0.0, **options: Any) -> ChildSpec:
        options.setdefault("backoff", AT_ONCE)
        return ChildSpec(name=name, start=lambda: Recorder(self.diary, name, start_s, stop_s), **options)


@pytest.fixture
def recorders() -> Recorders:
    return Recorders()
