"""How fast the runtime is, beside the bare Trio primitive of the same shape, and Pykka where it is installed.

    python bench/runtime.py

Every figure is the best of several rounds in one process, in which the runtime and its floor take turns. All is CPU time, which
on an idle machine is the time that passes, and on a busy one is still true. The floors are what no actor on Trio can beat.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from callboard.runtime import Actor, Backoff, ChildSpec, Request, Stream, handles, open_system

BURST = 64
MESSAGES = 256_000
ASKS = 20_000
ITEMS = 1_000_000
IDLE = 10_000
RESTARTS = 1_000
ROUNDS = 7


@attrs.frozen
class Add:
    number: int


@attrs.frozen
class Total(Request[int]):
    pass


@attrs.frozen
class Fail:
    pass


class Adder(Actor):
    def __init__(self) -> None:
        self.total = 0

    @handles
    async def on_add(self, message: Add) -> None:
        self.total += 1

    @handles
    async def on_total(self, message: Total) -> int:
        return self.total

    @handles
    async def on_fail(self, message: Fail) -> None:
        raise ValueError


async def tells() -> float:
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=Adder))
        message = Add(1)
        began_s = time.process_time()
        for _ in range(MESSAGES // BURST):
            for _ in range(BURST):
                ref.tell_nowait(message)
            await trio.lowlevel.checkpoint()
        assert await ref.ask(Total(), timeout_s=60) == MESSAGES
        return MESSAGES / (time.process_time() - began_s)


async def tells_one_by_one() -> float:
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=Adder))
        message = Add(1)
        began_s = time.process_time()
        for _ in range(MESSAGES // 4):
            await ref.tell(message)
        await ref.ask(Total(), timeout_s=60)
        return MESSAGES / 4 / (time.process_time() - began_s)


async def drained_channel() -> float:
    send, receive = trio.open_memory_channel[Add](BURST * 64)
    done = 0

    async def drain() -> None:
        nonlocal done
        while done < MESSAGES:
            await receive.receive()
            done += 1
            try:
                while True:
                    receive.receive_nowait()
                    done += 1
            except trio.WouldBlock:
                continue

    message = Add(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        began_s = time.process_time()
        for _ in range(MESSAGES // BURST):
            for _ in range(BURST):
                send.send_nowait(message)
            await trio.lowlevel.checkpoint()
    return MESSAGES / (time.process_time() - began_s)


async def asks() -> float:
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=Adder))
        began_s = time.process_time()
        for _ in range(ASKS):
            await ref.ask(Total(), timeout_s=60)
        return ASKS / (time.process_time() - began_s)


async def event_round_trips() -> float:
    wanted: deque[trio.Event] = deque()
    wake = trio.Event()
    is_over = False

    async def answer() -> None:
        nonlocal wake
        while not is_over:
            await wake.wait()
            wake = trio.Event()
            while wanted:
                wanted.popleft().set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        began_s = time.process_time()
        for _ in range(ASKS):
            answered = trio.Event()
            wanted.append(answered)
            wake.set()
            with trio.move_on_after(60):
                await answered.wait()
        is_over = True
        nursery.cancel_scope.cancel()
    return ASKS / (time.process_time() - began_s)


async def streamed() -> float:
    stream: Stream[int] = Stream("s")
    batch = list(range(100))

    async def feed() -> None:
        async with stream.sender() as out:
            for _ in range(ITEMS // 100):
                await out.send(batch)
            await out.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        began_s = time.process_time()
        async with stream.receiver() as batches:
            async for received in batches:
                received.settle()
    return ITEMS / (time.process_time() - began_s)


async def batched_channel() -> float:
    send, receive = trio.open_memory_channel[list[int]](4)
    batch = list(range(100))

    async def feed() -> None:
        async with send:
            for _ in range(ITEMS // 100):
                await send.send(batch)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        began_s = time.process_time()
        async for _ in receive:
            pass
    return ITEMS / (time.process_time() - began_s)


async def idle() -> tuple[float, float]:
    """Megabytes of ten thousand idle actors, and seconds of CPU until they have stopped."""
    gc.collect()
    tracemalloc.start()
    async with open_system() as system:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(IDLE):
            await system.spawn(ChildSpec(name=str(number), start=Adder))
        gc.collect()
        size_mb = (tracemalloc.get_traced_memory()[0] - before) / 1e6
        tracemalloc.stop()
        began_s = time.process_time()
        await system.stop()
        return size_mb, time.process_time() - began_s


async def restarts() -> float:
    backoff = Backoff(first_s=0, give_up_after=RESTARTS + 1)
    async with open_system() as system:
        ref = await system.spawn(ChildSpec(name="a", start=Adder, backoff=backoff))
        began_s = time.process_time()
        for _ in range(RESTARTS):
            await ref.tell(Fail())
        await ref.ask(Total(), timeout_s=60)
        return (time.process_time() - began_s) / RESTARTS * 1000


def pykka_tells_and_asks() -> tuple[float, float] | None:
    try:
        import pykka
    except ImportError:
        return None

    class Pykka(pykka.ThreadingActor):
        total = 0

        def on_receive(self, message: Any) -> int:
            self.total += 1
            return self.total

    ref = Pykka.start()
    message = Add(1)
    began_s = time.process_time()
    for _ in range(MESSAGES // 4):
        ref.tell(message)
    ref.ask(message)
    tell = MESSAGES / 4 / (time.process_time() - began_s)
    began_s = time.process_time()
    for _ in range(ASKS // 4):
        ref.ask(message)
    ask = ASKS / 4 / (time.process_time() - began_s)
    ref.stop()
    return tell, ask


def best(*measures: Callable[[], Awaitable[float]] | None) -> list[float]:
    """The best of each, taken in turns."""
    rounds = [[trio.run(one) if one else 0.0 for one in measures] for _ in range(ROUNDS)]
    return [max(figures) for figures in zip(*rounds, strict=True)]


def main() -> None:
    gc.collect()
    gc.freeze()
    pykka = pykka_tells_and_asks() or (0.0, 0.0)
    rows: list[tuple[str, Callable[[], Awaitable[float]], Callable[[], Awaitable[float]] | None, float]] = [
        ("tell in bursts, a second", tells, drained_channel, pykka[0]),
        ("tell one by one, a second", tells_one_by_one, None, pykka[0]),
        ("ask, a second", asks, event_round_trips, pykka[1]),
        ("stream items in batches of 100, a second", streamed, batched_channel, 0.0),
    ]
    print(f"{'':42}{'runtime':>12}{'bare Trio':>12}{'of it':>8}{'Pykka':>12}{'times':>8}")
    for name, measure, floor, other in rows:
        ours, bare = best(measure, floor)
        share = f"{ours / bare:.0%}" if bare else "-"
        times = f"{ours / other:.1f}" if other else "-"
        print(f"{name:42}{ours:12,.0f}{bare:12,.0f}{share:>8}{other:12,.0f}{times:>8}")
    size_mb, _ = trio.run(idle)
    _, stop_s = min((trio.run(idle) for _ in range(2)), key=lambda figures: figures[1])
    print(f"{IDLE:,} idle actors: {size_mb:.1f} MB; stopped in {stop_s:.2f} s of CPU")
    print(f"restart of a crashed child: {trio.run(restarts):.3f} ms of CPU")


if __name__ == "__main__":
    main()
