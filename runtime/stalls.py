"""Finds who blocks the event loop.

A thread looks at a heartbeat of the loop. If it stops for too long, the thread looks into the loop's stack, where the loop of
an actor tells its path. Costs one wake-up of the loop per interval, and nothing in the actors.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import TYPE_CHECKING

import trio

from .actor import run_actor

if TYPE_CHECKING:
    from .system import System


@asynccontextmanager
async def watch_for_stalls(system: System, *, longer_than_s: float = 0.5) -> AsyncIterator[None]:
    """While the block runs, emit the event `stalled` for whatever blocks the event loop for longer than `longer_than_s`.

    The event's path is that of the actor, or the system's name if no actor was on the stack; its detail is the stack, innermost
    call last. It is emitted as soon as the loop runs again, once per stall.
    """
    watch = _Watch(threading.get_ident(), longer_than_s)
    watcher = threading.Thread(target=watch.run, name="callboard-stalls", daemon=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, system, watch, longer_than_s / 4)
        watcher.start()
        try:
            yield
        finally:
            watch.is_over.set()
            nursery.cancel_scope.cancel()


class _Watch:
    def __init__(self, thread: int, longer_than_s: float) -> None:
        self.thread = thread
        self.longer_than_s = longer_than_s
        self.beat_s = time.monotonic()
        self.found: tuple[str | None, str] | None = None
        self.is_over = threading.Event()

    def run(self) -> None:
        seen_s = 0.0
        while not self.is_over.wait(self.longer_than_s / 4):
            beat_s = self.beat_s
            if beat_s == seen_s or time.monotonic() - beat_s < self.longer_than_s:
                continue
            seen_s = beat_s
            frame = sys._current_frames().get(self.thread)
            if frame is not None:
                self.found = _path_of(frame), "".join(traceback.format_stack(frame, limit=12))


def _path_of(frame: FrameType) -> str | None:
    one: FrameType | None = frame
    while one is not None:
        if one.f_code is run_actor.__code__:
            return str(one.f_locals["ref"].path)
        one = one.f_back
    return None


async def _beat(system: System, watch: _Watch, every_s: float) -> None:
    while True:
        watch.beat_s = time.monotonic()
        found, watch.found = watch.found, None
        if found is not None:
            system.events.emit("stalled", found[0] or system.name, found[1])
        await trio.sleep(every_s)
