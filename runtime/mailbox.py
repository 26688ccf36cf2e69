"""A bounded mailbox with two lanes: control messages never queue behind data.

One task receives; any number send. Nothing in here waits but `wait` and `wait_for_room`.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import trio

from .lifecycle import MailboxFull

T = TypeVar("T")
Overflow: TypeAlias = Literal["wait", "drop_oldest", "fail"]

_NOTHING: Any = ()
"""Stands for a queue that nothing was ever put into: most of many actors are idle, and an empty deque weighs 600 bytes."""


class Mailbox(Generic[T]):
    """Messages waiting for one actor: at most `capacity` of them, and few control messages beside them."""

    __slots__ = ("_receiver", "_senders", "capacity", "control", "data", "is_closed", "overflow", "peak", "room")

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox needs room for at least one message, not {capacity}")
        self.capacity = capacity
        self.overflow = overflow
        self.room = 0
        """`data` takes messages while it is shorter than this: the capacity, but 0 before the first and after the end."""
        self.data: deque[T] = _NOTHING
        self.control: list[T] = _NOTHING
        self.peak = 0
        """The most that waited whenever the receiver looked."""
        self.is_closed = False
        self._receiver: trio.lowlevel.Task | None = None
        self._senders: trio.lowlevel.ParkingLot | None = None

    @property
    def is_full(self) -> bool:
        return len(self.data) >= self.capacity

    def put_nowait(self, message: T) -> T | None:
        """Add a message; return the one that was dropped for it, if any. Raises `MailboxFull` unless overflow drops."""
        dropped: T | None = None
        if len(self.data) >= self.capacity:
            if self.overflow != "drop_oldest":
                raise MailboxFull(f"The mailbox holds {self.capacity} messages already.")
            dropped = self.data.popleft()
        if self.data is _NOTHING:
            self.data, self.room = deque(), self.capacity
        self.data.append(message)
        if self._receiver is not None:
            self._wake_receiver()
        return dropped

    def put_control(self, message: T) -> None:
        """Add a message that goes before all data. Never full: only the runtime sends these, a few per actor."""
        self.control = [*self.control, message]
        self._wake_receiver()

    def clear_control(self) -> None:
        """Forget the control messages of a life that is over."""
        self.control = _NOTHING

    async def wait_for_room(self) -> None:
        """Wait until there may be room, or the mailbox is closed. Cancelled: nothing was sent."""
        if self._senders is None:
            self._senders = trio.lowlevel.ParkingLot()
        await self._senders.park()

    async def wait(self) -> None:
        """Wait until there is something to take. Always a checkpoint. Cancelled: nothing is lost."""
        if self.control or self.data:
            await trio.lowlevel.checkpoint()
            return
        self._receiver = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self.give_up_waiting)

    def give_up_waiting(self, _: object) -> trio.lowlevel.Abort:
        """The receiver is cancelled while it waits."""
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def take(self) -> T | None:
        """Take the next message, control before data; None if there is none."""
        if self.control:
            first, *self.control = self.control
            return first
        if not self.data:
            return None
        message = self.data.popleft()
        if self._senders is not None:
            self._senders.unpark()
        return message

    def close(self) -> list[T]:
        """Take nothing any more; return what was never received. Senders that wait are woken."""
        self.is_closed = True
        left = [*self.control, *self.data]
        self.room = 0
        self.control = self.data = _NOTHING
        if self._senders is not None:
            self._senders.unpark_all()
        return left

    def _wake_receiver(self) -> None:
        task, self._receiver = self._receiver, None
        if task is not None:
            trio.lowlevel.reschedule(task)
