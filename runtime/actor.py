"""Actors: one class, one mailbox, one message at a time.

An actor is a task in its supervisor's nursery. Its handlers run one after the other; an exception in one ends the actor and is
seen by its supervisor, whoever asked gets `ActorDied`. `stop` ends it after the current message, `cancel` in the middle of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

import attrs
import structlog
import trio

from .events import Events
from .handle import Handle
from .lifecycle import ActorDied, AskCycle, AskTimeout, ChildSpec, MailboxFull, NotHandled, StopReason
from .mailbox import Mailbox, Overflow
from .messages import Request, handler_table
from .timers import Timers

A = TypeVar("A", bound="Actor", covariant=True)
R = TypeVar("R")

MESSAGES_PER_WAKE_UP: Final = 64


class Actor:
    """Override `started` and `stopping`, and write handlers marked with `@handles`."""

    mailbox_capacity: ClassVar[int] = 256
    overflow: ClassVar[Overflow] = "wait"
    slow_handler_s: ClassVar[float] = 1.0
    """A message that takes longer emits the event `slow_handler`."""
    handlers: ClassVar[dict[type[Any], str]] = {}
    _methods: ClassVar[dict[type[Any], Callable[..., Awaitable[Any]]]] = {}

    context: Context
    """Set before `started` is called."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.handlers = handler_table(cls)
        cls._methods = {message_class: getattr(cls, name) for message_class, name in cls.handlers.items()}

    async def started(self) -> None:
        """Called before the first message. What it raises goes to whoever started the actor."""

    async def stopping(self, reason: StopReason) -> None:
        """Called at every end, however it came. Shielded from cancellation, until the child's `shutdown_s` has passed."""


class _Asked:
    """A request on its way, and who waits for its answer. What is only told travels without an envelope."""

    __slots__ = ("asker", "died", "is_answered", "message", "scope", "value", "wanted")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.asker: trio.lowlevel.Task | None = None
        """The task to wake, once it sleeps."""
        self.is_answered = False
        self.value: Any = None
        self.died: ActorDied | None = None
        self.wanted = True
        self.scope: trio.CancelScope | None = None
        """Around the handler that works on it, if that is to end with the asker's wish."""

    def answer(self) -> None:
        self.is_answered = True
        asker, self.asker = self.asker, None
        if asker is not None:
            trio.lowlevel.reschedule(asker)

    def give_up(self, _: object) -> trio.lowlevel.Abort:
        """The asker's time is up, or it is cancelled."""
        self.asker = None
        return trio.lowlevel.Abort.SUCCEEDED


@attrs.frozen
class Context:
    """What a child knows of the system it runs in."""

    name: str
    path: str
    system: Any
    ref: ActorRef[Any] | None = None
    supervisor: Any = None
    """Reference to the supervisor above, to start siblings at."""
    timers: Timers = attrs.field(factory=lambda: Timers(frozenset()))
    """Messages to oneself, later. They end with this life of the actor."""

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """A log whose lines carry the path."""
        logger: structlog.stdlib.BoundLogger = structlog.get_logger().bind(actor=self.path)
        return logger

    async def spawn(self, spec: ChildSpec) -> Any:
        """Start a sibling: a child of the same supervisor. Raises `StartFailed` and `NameTaken`."""
        return await self.supervisor.start_child(spec)

    def finish(self) -> None:
        """End this actor normally, after the current message: a `permanent` one is started again, others are not."""
        if self.ref is not None:
            self.ref._mailbox.put_control(_FINISH)


_STOP: Final = object()
_FINISH: Final = object()


class ActorRef(Handle, Generic[A]):
    """The address of an actor. It stays good over restarts; messages sent while the actor is being restarted wait."""

    __slots__ = ("_class", "_events", "_handlers", "_mailbox", "_waiting_on", "busy_s", "processed")

    def __init__(self, path: str, actor_class: type[Actor], events: Events) -> None:
        super().__init__(path)
        self._class = actor_class
        self._handlers = actor_class.handlers
        self._events = events
        self._mailbox: Mailbox[Any] = Mailbox(actor_class.mailbox_capacity, actor_class.overflow)
        self._waiting_on: ActorRef[Any] | None = None
        self.processed = 0
        self.busy_s = 0.0

    async def tell(self, message: Any) -> None:
        """Put a message into the mailbox; wait while it is full. A message to an ended actor becomes a dead letter.

        Cancelled: the message was not sent. Raises `NotHandled` if the actor takes no such message, and `MailboxFull` if
        overflow is `fail`, or if an actor would wait for itself.
        """
        self._assert_handled(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = await self._wait_for_room()
        self._put(message)
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def tell_nowait(self, message: Any) -> None:
        """Put a message into the mailbox now. Raises `MailboxFull`, and `NotHandled` as `tell` does."""
        if type(message) not in self._handlers:
            self._assert_handled(message)
        mailbox = self._mailbox
        data = mailbox.data
        if len(data) < mailbox.room:
            # The common case without a further call: this is what a burst of messages is made of.
            data.append(message)
            if mailbox._receiver is not None:
                mailbox._wake_receiver()
            return
        self._put(message)

    async def ask(self, request: Request[R], *, timeout_s: float) -> R:
        """Send a request and wait for its answer.

        Raises `ActorDied` if the actor ends first, `AskTimeout` when the time is up, and `AskCycle` if the asked actor is
        waiting for the asker. Cancelled: as after a time-out. A request that still waits is then skipped; one that is being
        handled goes on, unless its class says `cancel_with_asker`.
        """
        if type(request) not in self._handlers:
            self._assert_handled(request)
        task = trio.lowlevel.current_task()
        asker = _current_actor.get(task)
        if asker is not None:
            self._refuse_cycle(asker)
            asker._waiting_on = self
        asked = _Asked(request)
        try:
            with trio.move_on_after(timeout_s):
                if len(self._mailbox.data) >= self._mailbox.room:
                    await self._wait_for_room()
                self._put(asked)
                if asked.is_answered:
                    await trio.lowlevel.checkpoint()
                else:
                    asked.asker = task
                    await trio.lowlevel.wait_task_rescheduled(asked.give_up)
        finally:
            asked.wanted = False
            if asked.scope is not None:
                asked.scope.cancel()
            if asker is not None:
                asker._waiting_on = None
        if not asked.is_answered:
            raise AskTimeout(f"{self.path} did not answer {type(request).__name__} within {timeout_s:g} s.")
        if asked.died is not None:
            raise ActorDied(str(asked.died)) from asked.died.__cause__
        answer: R = asked.value
        return answer

    async def stop(self) -> None:
        """As `Handle.stop`. Raises `AskCycle` inside a handler of this very actor, which would wait for itself."""
        if _current_actor.get(trio.lowlevel.current_task()) is self:
            raise AskCycle(f"{self.path} waits for its own end. Use `context.finish()` or `stop_nowait()`.")
        await super().stop()

    async def _wait_for_room(self) -> bool:
        """Wait until a message may be put, at once and without another checkpoint; tell whether that took a wait."""
        mailbox, waited = self._mailbox, False
        while mailbox.overflow == "wait" and mailbox.is_full and not mailbox.is_closed:
            if _current_actor.get(trio.lowlevel.current_task()) is self:
                raise MailboxFull(
                    f"{self.path} waits for room in its own mailbox, which holds {mailbox.capacity} messages."
                )
            await mailbox.wait_for_room()
            waited = True
        return waited

    def _assert_handled(self, message: Any) -> None:
        if type(message) not in self._handlers:
            raise NotHandled(f"{self._class.__name__} has no handler for {type(message).__name__}.")

    def _put(self, envelope: Any) -> None:
        mailbox = self._mailbox
        if mailbox.is_closed:
            self._dead(envelope)
            return
        try:
            dropped = mailbox.put_nowait(envelope)
        except MailboxFull as full:
            raise MailboxFull(f"{self.path}: {full}") from None
        if dropped is not None:
            self._dead(dropped, "it was dropped for newer messages")

    def _dead(self, envelope: Any, why: str | None = None) -> None:
        if envelope is _STOP or envelope is _FINISH:
            return
        if not isinstance(envelope, _Asked):
            self._events.emit("dead_letter", self.path, envelope)
        elif envelope.wanted:
            self._events.emit("dead_letter", self.path, envelope.message)
            self._fail(envelope, self.reason, why)

    def _fail(self, asked: _Asked, reason: StopReason | None, why: str | None = None) -> None:
        ended = f"it ended ({'it was cancelled' if reason is None else reason})"
        asked.died = ActorDied(f"{self.path} did not answer: {why or ended}.")
        asked.died.__cause__ = None if reason is None else reason.error
        asked.answer()

    def _refuse_cycle(self, asker: ActorRef[Any]) -> None:
        one: ActorRef[Any] | None = self
        while one is not None:
            if one is asker:
                raise AskCycle(f"{asker.path} asks {self.path}, which waits for {asker.path}.")
            one = one._waiting_on

    def _halt(self, deadline_s: float = float("inf")) -> None:
        if not self._mailbox.is_closed:
            self._mailbox.put_control(_STOP)

    def _close(self, reason: StopReason) -> None:
        self.reason = reason
        for envelope in self._mailbox.close():
            self._dead(envelope)
        super()._close(reason)


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


async def run_actor(actor: Actor, ref: ActorRef[Any], task_status: trio.TaskStatus[None]) -> bool:
    """Run one life of an actor: start, messages, end. Raises what ended it, if that was an error.

    Returns whether it was told to stop; False if it has finished of its own accord.
    """
    task = trio.lowlevel.current_task()
    _current_actor.enter(task, ref)
    mailbox, timers = ref._mailbox, actor.context.timers
    clock, slow_s = trio.lowlevel.current_clock().current_time, actor.slow_handler_s
    # A wish to stop belongs to the life it was said to.
    mailbox.clear_control()
    try:
        telemetry = actor.context.system.telemetry
        if telemetry is None:
            methods = actor._methods
            await actor.started()
        else:
            methods = telemetry.methods(actor, ref)
            await telemetry.start(actor, ref)
        task_status.started()
        while True:
            if timers._heap:
                with trio.move_on_at(timers.next_s()):
                    await mailbox.wait()
            elif mailbox.data or mailbox.control:
                await trio.lowlevel.checkpoint()
            else:
                # As `mailbox.wait`, without its frame: most of many actors sleep here.
                mailbox._receiver = task
                await trio.lowlevel.wait_task_rescheduled(mailbox.give_up_waiting)
            began_s = clock()
            waiting = len(mailbox.data)
            if waiting > mailbox.peak:
                mailbox.peak = waiting
            while timers._heap and not mailbox.control and (due := timers.take_due(began_s)) is not None:
                await methods[type(due)](actor, due)
                ref.processed += 1
                now_s = clock()
                if now_s - began_s > slow_s:
                    _report_slow(due, ref, now_s - began_s)
                ref.busy_s += now_s - began_s
                began_s = now_s
            # Several messages per wake-up, taken one by one: what a crash leaves in the mailbox is handled by the next life.
            for _ in range(MESSAGES_PER_WAKE_UP):
                message = mailbox.take()
                if message is None:
                    break
                if message is _STOP or message is _FINISH:
                    return message is _STOP
                if type(message) is _Asked:
                    await _answer(actor, methods, message, ref)
                else:
                    await methods[type(message)](actor, message)
                now_s = clock()
                if now_s - began_s > slow_s:
                    _report_slow(message, ref, now_s - began_s)
                ref.processed += 1
                ref.busy_s += now_s - began_s
                began_s = now_s
    finally:
        _current_actor.leave(task)


def _report_slow(message: Any, ref: ActorRef[Any], took_s: float) -> None:
    told = message.message if type(message) is _Asked else message
    ref._events.emit("slow_handler", ref.path, (type(told).__name__, took_s))


async def _answer(
    actor: Actor, methods: dict[type[Any], Callable[..., Awaitable[Any]]], asked: _Asked, ref: ActorRef[Any]
) -> None:
    if not asked.wanted:
        return
    message = asked.message
    try:
        if message.cancel_with_asker:
            with trio.CancelScope() as asked.scope:
                asked.value = await methods[type(message)](actor, message)
            asked.scope = None
        else:
            asked.value = await methods[type(message)](actor, message)
    except BaseException as error:
        ref._fail(asked, StopReason("error", error) if isinstance(error, Exception) else None)
        raise
    asked.answer()
