"""Actors: one class, one mailbox, one message at a time.

An actor is a task in its supervisor's nursery. Its handlers run one after the other; an exception in one ends the actor and is
seen by its supervisor, whoever asked gets `ActorDied`. `stop` ends it after the current message, `cancel` in the middle of it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Generic, TypeVar

import attrs
import structlog
import trio

from .events import Events
from .lifecycle import ActorDied, AskCycle, AskTimeout, NotHandled, StopReason
from .mailbox import Mailbox, Overflow
from .messages import Request, handler_table

A = TypeVar("A", bound="Actor", covariant=True)
R = TypeVar("R")

MESSAGES_PER_WAKE_UP: Final = 64


class Actor:
    """Override `started` and `stopping`, and write handlers marked with `@handles`."""

    mailbox_capacity: ClassVar[int] = 256
    overflow: ClassVar[Overflow] = "wait"
    handlers: ClassVar[dict[type[Any], str]] = {}

    context: Context
    """Set before `started` is called."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.handlers = handler_table(cls)

    async def started(self) -> None:
        """Called before the first message. What it raises goes to whoever started the actor."""

    async def stopping(self, reason: StopReason) -> None:
        """Called at every end, however it came. Shielded from cancellation, until the child's `shutdown_s` has passed."""


@attrs.define(eq=False)
class Envelope:
    """A message on its way, and who waits for its answer."""

    message: Any
    reply: _Reply | None = None
    is_stop: bool = False


class _Reply:
    __slots__ = ("died", "event", "value", "wanted")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.value: Any = None
        self.died: ActorDied | None = None
        self.wanted = True


@attrs.frozen
class Context:
    """What a child knows of the system it runs in."""

    name: str
    path: str
    log: structlog.stdlib.BoundLogger
    system: Any
    ref: ActorRef[Any] | None = None
    supervisor: Any = None
    """Reference to the supervisor above, to start siblings at."""


_STOP = Envelope(None, is_stop=True)


class ActorRef(Generic[A]):
    """The address of an actor. It stays good over restarts; messages sent while the actor is being restarted wait."""

    def __init__(self, path: str, actor_class: type[Actor], events: Events) -> None:
        self.path = path
        self._class = actor_class
        self._events = events
        self._mailbox: Mailbox[Envelope] = Mailbox(actor_class.mailbox_capacity, actor_class.overflow)
        self._ended = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._waiting_on: ActorRef[Any] | None = None
        self.reason: StopReason | None = None
        self.processed = 0

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

    async def tell(self, message: Any) -> None:
        """Put a message into the mailbox; wait while it is full. A message to an ended actor becomes a dead letter.

        Cancelled while waiting: the message was not sent. Raises `NotHandled` if the actor takes no such message.
        """
        envelope = self._envelope(message)
        while not self._mailbox.is_closed and self._mailbox.is_full and self._mailbox.overflow == "wait":
            await self._mailbox.wait_for_room()
        self._put(envelope)
        await trio.lowlevel.checkpoint()

    def tell_nowait(self, message: Any) -> None:
        """Put a message into the mailbox now. Raises `MailboxFull`, and `NotHandled` as `tell` does."""
        self._put(self._envelope(message))

    async def ask(self, request: Request[R], *, timeout_s: float) -> R:
        """Send a request and wait for its answer.

        Raises `ActorDied` if the actor ends first, `AskTimeout` when the time is up (a request that still waits is then
        skipped), and `AskCycle` if the asked actor is waiting for the asker. Cancelled: as after a time-out.
        """
        asker = _current_actor.get(trio.lowlevel.current_task())
        if asker is not None:
            self._refuse_cycle(asker)
        reply = _Reply()
        envelope = self._envelope(request)
        envelope.reply = reply
        if asker is not None:
            asker._waiting_on = self
        try:
            with trio.move_on_after(timeout_s):
                while not self._mailbox.is_closed and self._mailbox.is_full and self._mailbox.overflow == "wait":
                    await self._mailbox.wait_for_room()
                self._put(envelope)
                await reply.event.wait()
        finally:
            reply.wanted = False
            if asker is not None:
                asker._waiting_on = None
        if not reply.event.is_set():
            raise AskTimeout(f"{self.path} did not answer {type(request).__name__} within {timeout_s:g} s.")
        if reply.died is not None:
            raise ActorDied(str(reply.died)) from reply.died.__cause__
        answer: R = reply.value
        return answer

    async def stop(self) -> None:
        """End the actor after its current message, and wait until it has ended. It is not started again."""
        self.stop_nowait()
        await self._ended.wait()

    def stop_nowait(self) -> None:
        """Ask the actor to end after its current message."""
        if not self._mailbox.is_closed:
            self._mailbox.put_control(_STOP)

    def cancel(self) -> None:
        """End the actor in the middle of whatever it does."""
        self.stop_nowait()
        if self._scope is not None:
            self._scope.cancel()

    async def monitor(self) -> StopReason:
        """Wait for the end of the actor, for good, and return why it came. Returns at once if it has ended."""
        await self._ended.wait()
        assert self.reason is not None
        return self.reason

    def _envelope(self, message: Any) -> Envelope:
        if type(message) not in self._class.handlers:
            raise NotHandled(f"{self._class.__name__} has no handler for {type(message).__name__}.")
        return Envelope(message)

    def _put(self, envelope: Envelope) -> None:
        if self._mailbox.is_closed:
            self._dead(envelope)
            return
        dropped = self._mailbox.put_nowait(envelope)
        if dropped is not None:
            self._dead(dropped)

    def _dead(self, envelope: Envelope) -> None:
        if envelope.is_stop:
            return
        self._events.emit("dead_letter", self.path, envelope.message)
        if envelope.reply is not None:
            self._fail(envelope.reply, self.reason)

    def _fail(self, reply: _Reply, reason: StopReason | None) -> None:
        reply.died = ActorDied(f"{self.path} ended before it answered ({reason or 'it was told to'}).")
        reply.died.__cause__ = None if reason is None else reason.error
        reply.event.set()

    def _refuse_cycle(self, asker: ActorRef[Any]) -> None:
        one: ActorRef[Any] | None = self
        while one is not None:
            if one is asker:
                raise AskCycle(f"{asker.path} asks {self.path}, which waits for {asker.path}.")
            one = one._waiting_on

    def _close(self, reason: StopReason) -> None:
        self.reason = reason
        for envelope in self._mailbox.close():
            self._dead(envelope)
        self._ended.set()


class _Current:
    """Which actor a task is, by task: unlike a context variable it is not inherited by tasks that an actor starts."""

    def __init__(self) -> None:
        self._by_task: dict[trio.lowlevel.Task, ActorRef[Any]] = {}

    def get(self, task: trio.lowlevel.Task) -> ActorRef[Any] | None:
        return self._by_task.get(task)

    def enter(self, task: trio.lowlevel.Task, ref: ActorRef[Any]) -> None:
        self._by_task[task] = ref

    def leave(self, task: trio.lowlevel.Task) -> None:
        self._by_task.pop(task, None)


_current_actor = _Current()


async def run_actor(actor: Actor, ref: ActorRef[Any], task_status: trio.TaskStatus[None]) -> None:
    """Run one life of an actor: start, messages, end. Raises what ended it, if that was an error."""
    task = trio.lowlevel.current_task()
    _current_actor.enter(task, ref)
    try:
        await actor.started()
        task_status.started()
        table = {message_class: getattr(actor, name) for message_class, name in actor.handlers.items()}
        while True:
            # Several messages per wake-up, taken one by one: what a crash leaves in the mailbox is handled by the next life.
            await ref._mailbox.wait()
            for _ in range(MESSAGES_PER_WAKE_UP):
                envelope = ref._mailbox.take()
                if envelope is None:
                    break
                if envelope.is_stop:
                    return
                await _handle(table, envelope, ref)
    finally:
        _current_actor.leave(task)


async def _handle(table: dict[type[Any], Any], envelope: Envelope, ref: ActorRef[Any]) -> None:
    reply = envelope.reply
    if reply is not None and not reply.wanted:
        return
    try:
        value = await table[type(envelope.message)](envelope.message)
    except BaseException as error:
        if reply is not None and not reply.event.is_set():
            ref._fail(reply, StopReason("error", error) if isinstance(error, Exception) else None)
        raise
    ref.processed += 1
    if reply is not None:
        reply.value = value
        reply.event.set()
