"""The operations server as a child of the service."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import trio

from ...runtime import Context, Task
from ..extraction.serving import open_application
from ..service_state import ServiceState
from .app import OperationsApp
from .metrics import Metrics
from .throughput import Throughput

LAG_EVERY_S = 1.0


class OperationsRefused(Exception):
    """The server may not listen as it is told to."""


def check_address(host: str, token: str | None) -> None:
    """Raise `OperationsRefused` for an address that others reach, without a token."""
    try:
        is_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback and not token:
        raise OperationsRefused(
            f"callboard.operations.host is {host}, which others can reach. Set callboard.operations.token, or use 127.0.0.1."
        )


class OperationsTask(Task):
    """Serves for as long as it runs, and measures the throughput and how late the event loop wakes up."""

    def __init__(self, state: ServiceState, metrics: Metrics) -> None:
        self._state, self._metrics = state, metrics

    async def run(self, context: Context) -> None:
        """Serve. Raises `OSError` if the port cannot be had."""
        wanted = self._state.settings.callboard.operations
        speeds = Throughput()
        names = [*wanted.names, wanted.host]
        app: Any = OperationsApp(self._state, context.system, self._metrics, wanted.token, names=names, speeds=speeds)
        async with open_application(app, wanted.host, wanted.port) as url:
            self._state.operations_url = url
            context.log.info("operations.serves", url=url)
            while True:
                began_s = trio.current_time()
                await trio.sleep(LAG_EVERY_S)
                passed_s = trio.current_time() - began_s
                self._metrics.loop_lags_s.append(max(0.0, passed_s - LAG_EVERY_S))
                running: dict[str, str] = {job.id: job.connector.id for job in self._state.running.values()}
                speeds.sample(running, self._state.teller.runs, passed_s)
