"""A service inside a program that runs on asyncio: it has a thread and a Trio loop of its own, which end with the block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from .service_state import ServiceEvent

if TYPE_CHECKING:
    from .configuration import Settings
    from .service import Service

T = TypeVar("T")

OpenOnTrio = Callable[..., AbstractAsyncContextManager["Service"]]


class HostedService:
    """What a program on asyncio holds: the same questions and orders as `Service`, safe to use from its own thread."""

    def __init__(self) -> None:
        self._began: Future[Service] = Future()
        self._over: Future[None] = Future()
        self._leave: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def _service(self) -> Service:
        return self._began.result(0)

    def running(self) -> tuple[str, ...]:
        """The ids of the jobs that run here now."""
        return self._service.running()

    def connectors(self) -> tuple[str, ...]:
        """The ids of the connectors that the service looks after now."""
        return self._service.connectors()

    def why_waiting(self, job_id: str) -> str | None:
        """Say why a pending job does not start; None if it does not wait here."""
        return self._service.why_waiting(job_id)

    def why_not_scheduled(self, connector_id: str) -> str | None:
        """Say why a connector's schedules make no job; None if nothing hinders them."""
        return self._service.why_not_scheduled(connector_id)

    async def look_now(self) -> None:
        """Look at all connectors and jobs at once."""
        await self._there(self._service.look_now)

    async def reload(self, wanted: Settings) -> tuple[str, ...]:
        """Take over what may change in a running service; returns the keys that differ and need a restart."""
        return await self._there(lambda: self._service.reload(wanted))

    async def stop(self) -> bool:
        """Suspend what runs, within `callboard.shutdown_seconds`. Returns whether everything was in time."""
        done: Future[bool] = Future()

        async def stop() -> None:
            try:
                done.set_result(await self._service.stop())
            except BaseException:
                done.set_exception(RuntimeError("The service ended while it was stopped."))
                raise

        await self._there(lambda: trio.lowlevel.spawn_system_task(stop))
        return await asyncio.wrap_future(done)

    async def wait(self) -> None:
        """Wait until the service ends by itself. Raises why, if a part of it could not go on."""
        await asyncio.shield(asyncio.wrap_future(self._over))

    async def _there(self, call: Callable[[], T]) -> T:
        """Call a function in the service's own loop."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(call())
            except Exception as exc:  # noqa: BLE001 - handed to whoever asked
                done.set_exception(exc)

        assert self._token is not None
        self._token.run_sync_soon(run)
        return await asyncio.wrap_future(done)

    async def _run(self, opened: AbstractAsyncContextManager[Service]) -> None:
        self._token, self._leave = trio.lowlevel.current_trio_token(), trio.Event()
        async with opened as service, trio.open_nursery() as nursery:
            self._began.set_result(service)

            async def watch() -> None:
                await service.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await self._leave.wait()
            nursery.cancel_scope.cancel()

    def _thread(self, opened: AbstractAsyncContextManager[Service]) -> None:
        try:
            trio.run(self._run, opened)
        except BaseException as exc:  # noqa: BLE001 - handed to the program that hosts the service
            if not self._began.done():
                self._began.set_exception(exc)
            self._over.set_exception(exc)
        else:
            self._over.set_result(None)

    def _end(self) -> None:
        if self._token is not None and self._leave is not None and not self._over.done():
            self._token.run_sync_soon(self._leave.set)


@asynccontextmanager
async def host(
    open_on_trio: OpenOnTrio, on_event: Callable[[ServiceEvent], None] | None, **arguments: Any
) -> AsyncIterator[HostedService]:
    """Run a service in a thread while the block runs. Raises what `open_service` raises. Events arrive in asyncio's loop."""
    loop = asyncio.get_running_loop()

    def hand_over(event: ServiceEvent) -> None:
        if on_event is not None and not loop.is_closed():
            loop.call_soon_threadsafe(on_event, event)

    hosted = HostedService()
    opened = open_on_trio(on_event=hand_over if on_event else None, **arguments)
    thread = threading.Thread(target=hosted._thread, args=(opened,), name="callboard service", daemon=True)
    thread.start()
    try:
        await asyncio.shield(asyncio.wrap_future(hosted._began))
        yield hosted
    finally:
        hosted._end()
        await asyncio.wait([asyncio.wrap_future(hosted._over)])
    hosted._over.result(0)
