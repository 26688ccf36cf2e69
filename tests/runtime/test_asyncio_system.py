"""A system opened from asyncio: calls, their cancellation, and both sides' ends. Also with asyncio on top of trio-asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from callboard.runtime import (
    Backoff,
    ChildSpec,
    RestartsExhausted,
    RuntimeProblem,
    StartFailed,
    Supervisor,
    open_system_in_asyncio,
)

from .conftest import Count, Crash, Note, Recorder, Recorders, Slow


def run(main: Any) -> None:
    # Not `asyncio.run`: once trio-asyncio is imported, which another test does, that is another loop.
    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_calls_return_and_raise_and_the_end_stops_all(recorders: Recorders) -> None:
    async def main() -> None:
        async with open_system_in_asyncio() as actors:
            ref = await actors.call(actors.system.spawn, recorders.spec("a", restart="temporary"))
            await actors.call(ref.tell, Note("one"))
            assert await actors.call(ref.ask, Count(), timeout_s=5) == 1
            with pytest.raises(StartFailed):
                await actors.call(actors.system.spawn, ChildSpec(name="b", start=lambda: 1 / 0))  # type: ignore[arg-type,return-value]
        assert recorders.diary == ["start a", "one", "stop a"]
        with pytest.raises(RuntimeProblem, match="has ended"):
            await actors.call(ref.tell, Note("late"))

    run(main)


def test_a_cancelled_call_ends_on_the_other_side_and_the_system_goes_on(recorders: Recorders) -> None:
    async def main() -> None:
        async with open_system_in_asyncio() as actors:
            ref = await actors.call(actors.system.spawn, recorders.spec("a"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(actors.call(ref.ask, Slow(0.2), timeout_s=60), 0.05)
            assert await actors.call(ref.ask, Count(), timeout_s=5) == 0
            waits = asyncio.ensure_future(actors.call(ref.ask, Slow(0.3), timeout_s=60))
            await asyncio.sleep(0.05)
        with pytest.raises(RuntimeProblem):
            await waits

    run(main)


def test_a_system_that_gives_up_is_raised_at_the_end_of_the_block(recorders: Recorders) -> None:
    async def main() -> None:
        spec = recorders.spec("a", backoff=Backoff(give_up_after=1))
        with pytest.raises(RestartsExhausted):  # noqa: PT012 - it is the block that raises
            async with open_system_in_asyncio(root=Supervisor([spec])) as actors:
                ref = actors.system.find("a")
                await actors.call(ref.tell, Crash())
                with pytest.raises(RuntimeProblem):
                    await actors.call(ref.ask, Count(), timeout_s=5)

    run(main)


def test_a_start_that_fails_is_raised_at_once() -> None:
    class Bad(Recorder):
        async def started(self) -> None:
            raise ValueError("no")

    async def main() -> None:
        with pytest.raises(StartFailed):
            async with open_system_in_asyncio(root=Supervisor([ChildSpec(name="a", start=lambda: Bad([]))])):
                raise AssertionError("not reached")

    run(main)


def test_a_cancelled_block_stops_all_in_order(recorders: Recorders) -> None:
    async def serve() -> None:
        async with open_system_in_asyncio(root=Supervisor([recorders.spec("a")])):
            await asyncio.sleep(60)

    async def main() -> None:
        serving = asyncio.ensure_future(serve())
        await asyncio.sleep(0.1)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    run(main)
    assert recorders.diary == ["start a", "stop a"]


BRIDGED = """
import asyncio
import trio, trio_asyncio
from callboard.runtime import open_system_in_asyncio, run_in_asyncio

async def program():
    await trio.sleep(0.01)
    return 5

async def host():
    assert await run_in_asyncio(program) == 5
    async with open_system_in_asyncio() as actors:
        assert await actors.call(program) == 5
    running = asyncio.ensure_future(run_in_asyncio(trio.sleep_forever))
    await asyncio.sleep(0.05)
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        print("ran")

asyncio.run(host())
"""


def test_it_works_once_trio_asyncio_has_been_imported() -> None:
    options = ["-W", "ignore"]
    done = subprocess.run([sys.executable, *options, "-c", BRIDGED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("ran\n", 0), done.stderr[-3000:]
