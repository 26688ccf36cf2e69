"""Serving the extraction service on a port: hypercorn on Trio, on a socket of our own so that the port is known."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from .extractor import Extractor
from .service_app import ServiceApplication

_BACKLOG = 128
_SHUTDOWN_S = 3.0


@asynccontextmanager
async def open_application(application: Any, host: str, port: int) -> AsyncIterator[str]:
    """Serve an ASGI application while the context is open, and give the URL. Raises `OSError` if the port cannot be had."""
    from hypercorn.config import Config
    from hypercorn.trio import serve

    listener = _listen(host, port)
    at = listener.getsockname()
    url = f"http://[{at[0]}]:{at[1]}" if ":" in at[0] else f"http://{at[0]}:{at[1]}"
    config = Config()
    # Hypercorn owns the socket from here on and closes it.
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 1
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    stop = trio.Event()
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(application, config, shutdown_trigger=stop.wait, mode="asgi"))
        try:
            yield url
        except BaseException as error:  # noqa: BLE001 - raised again below
            # Kept aside so that what went wrong inside comes out as itself, not as a group of one.
            failure = error
        stop.set()
        nursery.cancel_scope.deadline = trio.current_time() + _SHUTDOWN_S
    if failure is not None:
        raise failure


@asynccontextmanager
async def open_extraction_service(
    extractor: Extractor, host: str = "127.0.0.1", port: int = 0, shared_folder: Path | None = None
) -> AsyncIterator[str]:
    """Serve the extractor while the context is open, and give the URL. Raises `OSError` if the port cannot be had."""
    async with open_application(ServiceApplication(extractor, shared_folder), host, port) as url:
        yield url


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
