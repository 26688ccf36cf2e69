"""The data path between actors: batches, bounded by count and by bytes, with an end that is said and checkpoints in band.

A channel that merely closes looks the same whether its producer finished or crashed, and a sync that takes the one for the
other deletes documents. So a stream ends only by `finish`; a sender that is left without it interrupts the stream, and the
receiver gets `Interrupted` once everything sent before has been handed out.

Checkpoints travel between batches. One counts as reached when every batch sent before it has been settled, in whatever order
parallel receivers settle theirs; `settled_checkpoint` is the last such.

Invariants: a batch is handed to exactly one receiver; sent = settled + in flight; bytes in flight are held in the budget, if
there is one, from `send` until `settle`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import attrs
import trio

from .budget import Grant, Holder
from .seams import current_faults

T = TypeVar("T")


class Interrupted(Exception):
    """A sender was left without saying that it had finished: what was received is not all there is."""


class StreamClosed(Exception):
    """Nobody receives any more, so nothing can be sent."""


@attrs.frozen
class End:
    """How a stream ended: every sender has finished. `checkpoint` is the last value given to `finish`."""

    batches: int
    items: int
    checkpoint: Any = None


@attrs.define(eq=False)
class _Checkpoint:
    """A place between batches."""

    value: Any


class Batch(Generic[T]):
    """Some items that travel together. Whoever received it settles it when they are dealt with."""

    __slots__ = ("_grant", "_stream", "is_settled", "items", "size_bytes")

    def __init__(self, stream: Stream[T], items: Sequence[T], size_bytes: int, grant: Grant | None) -> None:
        self.items = items
        self.size_bytes = size_bytes
        self._stream = stream
        self._grant = grant
        self.is_settled = False

    def __len__(self) -> int:
        return len(self.items)

    def settle(self, done: int | None = None, failed: int = 0) -> None:
        """Say that the batch is dealt with: `done` items went well (all that did not fail, if None). Never waits."""
        if self.is_settled:
            return
        stream = self._stream
        stream.items_done += len(self.items) - failed if done is None else done
        stream.items_failed += failed
        self.is_settled = True
        if self._grant is not None:
            self._grant.release()
        stream._advance()


class Batches(Generic[T]):
    """The batches of a stream, for `async for`, inside `async with stream.receiver()`."""

    __slots__ = ("_channel", "_stream")

    def __init__(self, stream: Stream[T], channel: trio.MemoryReceiveChannel[Batch[T]]) -> None:
        self._stream, self._channel = stream, channel

    def __aiter__(self) -> Batches[T]:
        return self

    async def __anext__(self) -> Batch[T]:
        faults = self._stream._faults
        try:
            if faults is None:
                return await self._channel.receive()
            received: Batch[T] = await faults.around(
                "receive", faults.path_here(), self._stream.name, self._channel.receive
            )
            return received
        except trio.EndOfChannel:
            pass
        if self._stream._unfinished is not None:
            raise Interrupted(f"The stream {self._stream.name!r} broke off: {self._stream._unfinished}.")
        raise StopAsyncIteration


class Stream(Generic[T]):
    """Batches on their way from any number of senders to any number of receivers.

    `batches_max` batches may wait to be received; a sender of one more waits. With a budget holder, a sender also waits until
    the bytes of its batch are free. The stream ends when as many `senders` as announced have finished.
    """

    def __init__(self, name: str, batches_max: int = 4, budget: Holder | None = None, senders: int = 1) -> None:
        if batches_max < 1 or senders < 1:
            raise ValueError(f"stream {name!r} needs room for at least one batch and at least one sender")
        self.name = name
        self._budget = budget
        self._faults = current_faults()
        self._send, self._receive = trio.open_memory_channel[Batch[T]](batches_max)
        self._marks: deque[Batch[T] | _Checkpoint] = deque()
        self._senders_to_come = senders
        self._senders = 0
        self._unfinished: str | None = None
        self._end_checkpoint: Any = None
        self.batches_sent = 0
        self.items_sent = 0
        self.items_done = 0
        self.items_failed = 0
        self.settled_checkpoint: Any = None
        """The value of the last checkpoint before which everything is settled; None before the first."""

    def __repr__(self) -> str:
        waiting = self._send.statistics().current_buffer_used
        return f"<Stream {self.name}: {self.items_sent} items sent, {self.items_done} done, {waiting} batches waiting>"

    @property
    def batches_waiting(self) -> int:
        """How many batches were sent and not yet received."""
        return self._send.statistics().current_buffer_used

    def sender(self) -> SenderContext[T]:
        """Open one end for sending, at most as often as there are senders."""
        return SenderContext(self)

    @asynccontextmanager
    async def receiver(self) -> AsyncIterator[Batches[T]]:
        """Open one end for receiving: an asynchronous iterator of batches that ends when the stream does.

        Iterating raises `Interrupted` if a sender was left without `finish`. When the last receiver is left, senders get
        `StreamClosed`. A cancelled iteration loses no batch.
        """
        channel = self._receive.clone() if self._receivers_opened else self._receive
        self._receivers_opened = True
        batches = Batches(self, channel)
        try:
            yield batches
        finally:
            if channel.statistics().open_receive_channels == 1:
                _forget(channel)
            channel.close()

    _receivers_opened = False

    @property
    def end(self) -> End | None:
        """How the stream ended; None while it has not, or if it was interrupted."""
        if self._senders or self._senders_to_come or self._unfinished is not None:
            return None
        return End(self.batches_sent, self.items_sent, self._end_checkpoint)

    def _advance(self) -> None:
        marks = self._marks
        while marks:
            first = marks[0]
            if type(first) is _Checkpoint:
                self.settled_checkpoint = first.value
            elif not first.is_settled:  # type: ignore[union-attr]
                return
            marks.popleft()


def _forget(channel: trio.MemoryReceiveChannel[Batch[T]]) -> None:
    """Give back the bytes of batches that nobody will receive. They stay unsettled, so that no checkpoint passes them."""
    try:
        while True:
            grant = channel.receive_nowait()._grant
            if grant is not None:
                grant.release()
    except (trio.WouldBlock, trio.EndOfChannel):
        return


class StreamSender(Generic[T]):
    """The sending end, inside `async with stream.sender()`."""

    __slots__ = ("_channel", "_is_finished", "_stream")

    def __init__(self, stream: Stream[T], channel: trio.MemorySendChannel[Batch[T]]) -> None:
        self._stream = stream
        self._channel = channel
        self._is_finished = False

    async def send(self, items: Sequence[T], size_bytes: int = 0, grant: Grant | None = None) -> None:
        """Send a batch; wait while the stream is full or the bytes are not free. Raises `StreamClosed`.

        Whoever holds the bytes already hands them over with `grant`: they go with the batch, and are released when it is settled or
        could not be sent. Cancelled while waiting: the batch was not sent.
        """
        self._assert_open()
        stream = self._stream
        try:
            if stream._faults is None:
                await self._send(items, size_bytes, grant)
            else:
                here = stream._faults.path_here()
                await stream._faults.around("send", here, stream.name, self._send, items, size_bytes, grant)
        except BaseException:
            if grant is not None:
                grant.release()
            raise

    async def _send(self, items: Sequence[T], size_bytes: int, grant: Grant | None) -> None:
        stream = self._stream
        if grant is None and stream._budget is not None:
            grant = await stream._budget.take(size_bytes)
        batch = Batch(stream, items, size_bytes, grant)
        # The place is taken before the batch can be received, so that a fast receiver never settles what is not there.
        stream._marks.append(batch)
        try:
            await self._channel.send(batch)
        except BaseException as error:
            stream._marks.remove(batch)
            stream._advance()
            if grant is not None:
                grant.release()
            if isinstance(error, trio.BrokenResourceError):
                raise StreamClosed(f"Nobody receives from the stream {stream.name!r} any more.") from None
            raise
        stream.batches_sent += 1
        stream.items_sent += len(items)

    async def checkpoint(self, value: Any) -> None:
        """Mark this place: once all before it is settled, `settled_checkpoint` becomes `value`. Never waits long."""
        self._assert_open()
        await trio.lowlevel.checkpoint()
        self._mark(value)

    async def finish(self, checkpoint: Any = None) -> None:
        """Say that this sender has sent all there is. Nothing can be sent afterwards."""
        self._assert_open()
        await trio.lowlevel.checkpoint()
        if checkpoint is not None:
            self._mark(checkpoint)
            self._stream._end_checkpoint = checkpoint
        self._is_finished = True

    def _mark(self, value: Any) -> None:
        self._stream._marks.append(_Checkpoint(value))
        self._stream._advance()

    def _assert_open(self) -> None:
        if self._is_finished:
            raise RuntimeError(f"this sender of the stream {self._stream.name!r} has finished")


class SenderContext(Generic[T]):
    """Opens and closes a `StreamSender`; notices when it is left without `finish`."""

    __slots__ = ("_channel", "_sender", "_stream")

    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream

    async def __aenter__(self) -> StreamSender[T]:
        stream = self._stream
        if not stream._senders_to_come:
            raise RuntimeError(f"the stream {stream.name!r} has all the senders it was made for")
        self._channel = stream._send.clone()
        stream._senders_to_come -= 1
        if not stream._senders_to_come:
            # From now on only the senders' own ends keep the channel open, so that the last to leave ends it.
            stream._send.close()
        stream._senders += 1
        self._sender = StreamSender(stream, self._channel)
        return self._sender

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        stream = self._stream
        stream._senders -= 1
        if not self._sender._is_finished and stream._unfinished is None:
            stream._unfinished = (
                "its sender stopped before the end" if kind is None else f"its sender ended by {kind.__name__}"
            )
        self._channel.close()
