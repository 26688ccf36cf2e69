"""An ASGI application on a port."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

SHUTDOWN_S = 5.0


@asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncIterator[str]:
    """Serve an application on a listening socket while the block runs, and give its URL. Closes the socket."""
    from hypercorn.config import Config
    from hypercorn.trio import serve

    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = Config()
    # Hypercorn owns the socket from here on and closes it.
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.keep_alive_timeout = 300
    config.graceful_timeout = 1
    config.include_server_header = False
    stop = trio.Event()
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(app, config, shutdown_trigger=stop.wait))
        try:
            yield url
        except BaseException as error:  # noqa: BLE001 - raised again below
            # Kept aside so that what went wrong inside comes out as itself, not as a group of one.
            failure = error
        stop.set()
        nursery.cancel_scope.deadline = trio.current_time() + SHUTDOWN_S
    if failure is not None:
        raise failure
