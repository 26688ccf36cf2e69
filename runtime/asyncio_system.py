"""A system of actors as seen from an asyncio program in the same thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from .asyncio_host import run_in_asyncio
from .lifecycle import RuntimeProblem
from .supervisor import Supervisor
from .system import System, open_system

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

T = TypeVar("T")


class AsyncioSystem:
    """Calls from asyncio into a system: `await actors.call(ref.ask, request)`. Made by `open_system_in_asyncio`."""

    def __init__(self, system: System, nursery: trio.Nursery) -> None:
        self.system = system
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._is_closing = trio.Event()

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        """Await a function of Trio's side, such as `ref.ask`; return what it returns, raise what it raises.

        Raises `RuntimeProblem` if the system has ended, or ends before the answer. Cancelled from asyncio: the call is
        cancelled on Trio's side, and this does not wait for it.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    value = await function(*args, **options)
                    if not done.done():
                        done.set_result(value)
            except Exception as error:  # noqa: BLE001 - raised at the caller
                if not done.done():
                    done.set_exception(error)
            finally:
                if not done.done():
                    done.set_exception(RuntimeProblem(f"The system {self.system.name} ended before it had answered."))

        def begin() -> None:
            if self._is_closing.is_set():
                if not done.done():
                    done.set_exception(RuntimeProblem(f"The system {self.system.name} has ended."))
            else:
                self._nursery.start_soon(run)

        try:
            self._token.run_sync_soon(begin)
        except trio.RunFinishedError:
            raise RuntimeProblem(f"The system {self.system.name} has ended.") from None
        try:
            return await done
        except asyncio.CancelledError:
            self._soon(scope.cancel)
            raise

    def _close(self) -> None:
        self._soon(self._is_closing.set)

    def _soon(self, function: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return


@asynccontextmanager
async def open_system_in_asyncio(
    name: str = "callboard",
    root: Supervisor | None = None,
    *,
    shutdown_s: float = 30.0,
    tracer: Tracer | None = None,
) -> AsyncIterator[AsyncioSystem]:
    """`open_system` for an asyncio program, such as a web application's life span.

    At the end of the block all actors are stopped, in order, within `shutdown_s`; also when the block is cancelled. Raises
    `StartFailed` from the start. If the system gives up in the meantime, calls raise `RuntimeProblem`, and the end of the block
    raises `RestartsExhausted`.
    """
    up: asyncio.Future[AsyncioSystem] = asyncio.get_running_loop().create_future()

    async def main() -> None:
        async with (
            open_system(name, root, shutdown_s=shutdown_s, tracer=tracer) as system,
            trio.open_nursery() as nursery,
        ):
            actors = AsyncioSystem(system, nursery)
            if not up.done():
                up.set_result(actors)
            try:
                await actors._is_closing.wait()
            finally:
                actors._is_closing.set()
                nursery.cancel_scope.cancel()

    running = asyncio.ensure_future(run_in_asyncio(main))
    try:
        either: set[asyncio.Future[Any]] = {up, running}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        running.cancel()
        await asyncio.wait({running})
        raise
    if not up.done():
        up.cancel()
        await running
    try:
        yield up.result()
    finally:
        up.result()._close()
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                # A second wish to end: everything is cancelled now.
                running.cancel()
    running.result()
