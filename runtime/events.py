"""What happens to actors, as values: for logs, journals, tests and pages.

Whoever listens gets events as they happen. A listener that does not keep up loses events, never holds anybody up, and can see
how many it has lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import attrs
import structlog
import trio

EventKind: TypeAlias = Literal[
    "started", "stopped", "crashed", "restarted", "escalated", "dead_letter", "slow_handler", "stalled", "fault"
]


@attrs.frozen(kw_only=True)
class Event:
    """One thing that happened to one child."""

    kind: EventKind
    path: str
    at_s: float
    """On Trio's clock."""
    detail: Any = None


class Events:
    """Hands events to whoever listens now."""

    def __init__(self) -> None:
        self._channels: list[_Listener] = []
        self._callbacks: list[Callable[[Event], None]] = []

    def emit(self, kind: EventKind, path: str, detail: Any = None) -> None:
        """Tell all listeners. Costs next to nothing when there are none."""
        if not self._channels and not self._callbacks:
            return
        event = Event(kind=kind, path=path, at_s=trio.current_time(), detail=detail)
        for callback in tuple(self._callbacks):
            try:
                callback(event)
            except Exception:  # noqa: BLE001 - recorded; a listener is nobody's actor
                # Events are emitted where lives end; what listens must not change how they end.
                self._callbacks.remove(callback)
                structlog.get_logger().exception("a listener failed and is not called any more", event_kind=kind)
        for listener in self._channels:
            listener.offer(event)

    @contextmanager
    def calling(self, callback: Callable[[Event], None]) -> Iterator[None]:
        """Call a function, which must not block, at every event. If it raises, that is logged, and it is called no more."""
        self._callbacks.append(callback)
        try:
            yield
        finally:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    @contextmanager
    def listen(self, events_max: int = 1000) -> Iterator[_Listener]:
        """Collect events for `async for event in listener`; at most `events_max` wait, further ones are counted as lost."""
        listener = _Listener(events_max)
        self._channels.append(listener)
        try:
            yield listener
        finally:
            self._channels.remove(listener)
            listener.close()


class _Listener:
    def __init__(self, events_max: int) -> None:
        self._send, self._receive = trio.open_memory_channel[Event](events_max)
        self.lost = 0

    def offer(self, event: Event) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.lost += 1

    def close(self) -> None:
        self._send.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._receive.__aiter__()
