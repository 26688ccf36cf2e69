"""What connects the runtime to the world: simulation, processes, signals, asyncio, and the detector of stalls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
import trio
import trio_asyncio

from callboard.runtime import (
    ChildSpec,
    Stream,
    WorkerCrashed,
    WorkerTimeout,
    blocking,
    handles,
    monotonic,
    new_id,
    now,
    open_system,
    random,
    run_in_asyncio,
    run_simulated,
    watch_for_stalls,
    worker_process,
)

from .conftest import Count, Crash, Note, Recorder, Recorders


async def _busy_program() -> list[Any]:
    """Crashes, pauses, timers, streams, ids and threads: all that chance and scheduling have a hand in."""
    seen: list[Any] = [now(), new_id()]
    diary: list[Any] = []
    async with open_system() as system, trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = False
        with system.events.calling(lambda event: seen.append((event.kind, event.path, event.at_s))):
            refs = [
                await system.spawn(ChildSpec(name=f"a{number}", start=lambda: Recorder(diary))) for number in range(4)
            ]

            async def talk(number: int) -> None:
                for step in range(20):
                    message = Crash(str(step)) if random().random() < 0.1 else Note(f"{number}.{step}")
                    await refs[random().randrange(4)].tell(message)
                    await trio.sleep(random().random())

            stream: Stream[int] = Stream("s")

            async def feed() -> None:
                async with stream.sender() as out:
                    for step in range(30):
                        await out.send([step])
                    await out.finish()

            async def eat(number: int) -> None:
                async with stream.receiver() as batches:
                    async for batch in batches:
                        seen.append((number, batch.items[0], await blocking(len, "abc")))
                        batch.settle()

            async with trio.open_nursery() as talkers:
                for number in range(5):
                    talkers.start_soon(talk, number)
                    talkers.start_soon(eat, number)
                talkers.start_soon(feed)
            await trio.sleep(60)
    return [*seen, *diary, monotonic()]


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_replays_exactly(seed: int) -> None:
    first, second = (run_simulated(_busy_program, seed=seed) for _ in range(2))
    assert first == second
    assert len(first) > 150


def test_another_seed_is_another_run() -> None:
    assert run_simulated(_busy_program, seed=1) != run_simulated(_busy_program, seed=2)


def test_simulated_time_is_one_clock() -> None:
    async def main() -> timedelta:
        before = now()
        await trio.sleep(86_400)
        return now() - before

    began_s = time.monotonic()
    assert run_simulated(main, seed=0) == timedelta(days=1)
    assert time.monotonic() - began_s < 5


async def test_a_worker_process_returns_or_raises() -> None:
    assert await worker_process(sum, [1, 2, 3], timeout_s=30) == 6
    assert await worker_process(os.getpid, timeout_s=30) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        await worker_process(int, "x", timeout_s=30)


async def test_a_worker_process_is_killed_when_its_time_is_up_and_its_death_is_told() -> None:
    began_s = trio.current_time()
    with pytest.raises(WorkerTimeout, match=r"sleep did not return within 0\.5 s"):
        await worker_process(time.sleep, 60, timeout_s=0.5)
    with pytest.raises(WorkerCrashed, match="ended with code 3"):
        await worker_process(os._exit, 3, timeout_s=30)
    with trio.move_on_after(0.5) as scope:
        await worker_process(time.sleep, 60, timeout_s=50)
    assert scope.cancelled_caught
    assert trio.current_time() - began_s < 20


DAEMON = """
import sys, trio
from callboard.runtime import Actor, ChildSpec, obey_signals, open_system

class Slow(Actor):
    async def stopping(self, reason):
        print("stopping", flush=True)
        await trio.sleep(float(sys.argv[1]))
        print("clean", flush=True)

async def main():
    async with open_system() as system, obey_signals(system, graceful_s=60):
        await system.spawn(ChildSpec(name="a", start=Slow, shutdown_s=float(sys.argv[2])))
        print("ready", flush=True)
        await system.root.monitor()
        print("ended", flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_stops_in_order_at_the_first_signal(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", DAEMON, "0.1", "5"], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
        daemon.send_signal(number)
        out = [line.strip() for line in daemon.stdout if not line.startswith("20")]
        assert daemon.wait(20) == 0
    assert out == ["stopping", "clean", "ended"]


HANGING = (
    DAEMON.replace(
        "async def stopping(self, reason):",
        "async def started(self):\n        self.context.timers.after(0, N())\n    @handles\n    async def on_n(self, message: N) -> None:",
    )
    .replace("Actor, ChildSpec", "Actor, handles, ChildSpec")
    .replace("class Slow", "import attrs\n@attrs.frozen\nclass N: pass\n\nclass Slow")
    .replace('print("stopping"', 'print("busy"')
)


def test_a_second_signal_cancels_everything() -> None:
    with subprocess.Popen([sys.executable, "-c", HANGING, "100", "90"], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert sorted(daemon.stdout.readline() for _ in range(2)) == ["busy\n", "ready\n"]
        began_s = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        assert "stop in order" in daemon.stdout.readline()
        daemon.send_signal(signal.SIGTERM)
        out = daemon.stdout.read()
        assert daemon.wait(20) == 0
    assert out.splitlines()[-1] == "ended"
    assert "clean" not in out
    assert time.monotonic() - began_s < 15


def in_asyncio(main: Any) -> Any:
    """As `asyncio.run`, which trio-asyncio changes once it is imported."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main)


def test_a_system_runs_inside_an_asyncio_program(recorders: Recorders) -> None:
    async def actors() -> int:
        async with open_system() as system:
            ref = await system.spawn(recorders.spec("a"))
            await ref.tell(Note("from asyncio"))
            return int(await ref.ask(Count(), timeout_s=5))

    async def host() -> tuple[int, str]:
        other = asyncio.create_task(asyncio.sleep(0.01, "asyncio went on"))
        return await run_in_asyncio(actors), await other

    assert in_asyncio(host()) == (1, "asyncio went on")
    assert recorders.diary == ["start a", "from asyncio", "stop a"]


def test_asyncio_may_cancel_it_and_gets_its_errors(recorders: Recorders) -> None:
    async def forever() -> None:
        async with open_system() as system:
            await system.spawn(recorders.spec("a"))
            await trio.sleep_forever()

    async def broken() -> None:
        raise LookupError("inside")

    async def host() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_in_asyncio(forever), 0.2)
        with pytest.raises(LookupError, match="inside"):
            await run_in_asyncio(broken)

    in_asyncio(host())
    assert recorders.diary == ["start a", "stop a"]


async def test_asyncio_code_runs_inside_an_actor() -> None:
    class Bridge(Recorder):
        async def started(self) -> None:
            async with trio_asyncio.open_loop():
                self.diary.append(await trio_asyncio.aio_as_trio(asyncio.sleep)(0, "from an asyncio library"))

    diary: list[Any] = []
    async with open_system() as system:
        await system.spawn(ChildSpec(name="a", start=lambda: Bridge(diary)))
    assert diary == ["from an asyncio library", "stop"]


async def test_who_blocks_the_loop_is_named() -> None:
    class Blocks(Recorder):
        async def started(self) -> None:
            self.context.timers.after(0.05, Crash())

        @handles
        async def on_crash(self, message: Crash) -> None:
            time.sleep(0.6)  # noqa: ASYNC251 - what is to be found

    async with open_system() as system, watch_for_stalls(system, longer_than_s=0.15):
        with system.events.listen() as events, trio.fail_after(10):
            await system.spawn(ChildSpec(name="a", start=lambda: Blocks([])))
            async for event in events:
                if event.kind == "stalled":
                    break
    assert event.path == "callboard/a"
    assert "time.sleep(0.6)" in event.detail
