"""Run a Trio program, such as a system of actors, inside an asyncio program, in the same thread.

Trio runs as a guest: asyncio's loop stays in charge, and calls of either side into the other need no thread. From actors,
asyncio-only code is reached through the package trio-asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


async def run_in_asyncio(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await a Trio program from asyncio: return what it returns, raise what it raises.

    Cancelled from asyncio: the Trio program is cancelled, and this waits until it has cleaned up. Once trio-asyncio has been
    imported, `asyncio.run` runs asyncio's loop on top of a Trio loop; the program then runs in that one.
    """
    loop = asyncio.get_running_loop()
    bridge = sys.modules.get("trio_asyncio")
    if bridge is not None and isinstance(loop, bridge.BaseTrioEventLoop):
        over_trio: Any = loop
        result: T = await over_trio.trio_as_future(main, *args)
        return result
    done: asyncio.Future[T] = loop.create_future()
    scope = trio.CancelScope()

    async def guest() -> T:
        with scope:
            return await main(*args)
        raise asyncio.CancelledError

    def ended(result: outcome.Outcome[T]) -> None:
        if not isinstance(result, outcome.Error):
            done.set_result(result.unwrap())
        elif isinstance(result.error, asyncio.CancelledError):
            done.cancel()
        else:
            done.set_exception(result.error)

    trio.lowlevel.start_guest_run(
        guest,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=ended,
        host_uses_signal_set_wakeup_fd=True,
    )
    while True:
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if done.done():
                raise
            scope.cancel()
