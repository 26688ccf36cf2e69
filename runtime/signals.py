"""How a daemon obeys signals: in order at the first, at once at the second."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

if TYPE_CHECKING:
    from .system import System


@asynccontextmanager
async def obey_signals(
    system: System,
    *,
    graceful_s: float = 30.0,
    signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
) -> AsyncIterator[None]:
    """Stop the system in order at the first signal, within `graceful_s`, and cancel everything at the second.

    The block is left when the system has ended: wait in it with `await system.root.monitor()`. While it runs, SIGINT raises no
    `KeyboardInterrupt`. Works in the main thread only, as all of Python's signal handling.
    """
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, system, received, graceful_s)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


async def _obey(system: System, received: AsyncIterator[int], graceful_s: float) -> None:
    log = structlog.get_logger()
    is_stopping = False
    async with trio.open_nursery() as nursery:
        async for number in received:
            name = signal.Signals(number).name
            if is_stopping:
                log.warning("cancel everything at the second signal", signal=name)
                nursery.start_soon(system.kill)
                return
            log.info("stop in order; a second signal cancels everything", signal=name, graceful_s=graceful_s)
            is_stopping = True
            nursery.start_soon(system.stop, graceful_s)
