"""The store: everything Callboard says to Elasticsearch, in one value."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .client import ServerInfo, StoreClient, Wire, open_wire
from .connectors import Connectors
from .content import ContentIndices
from .jobs import Jobs
from .preparation import ensure_indices
from .rights import Rights
from .target import Target
from .transport import Retrying


class Store:
    """An open connection to Elasticsearch. Made by `open_store`; any number of tasks may use it at once."""

    def __init__(self, wire: Wire, server: ServerInfo | None) -> None:
        self.target = wire.target
        self.server = server
        """Who answers. None if nobody was asked, or if these credentials may not know."""
        self.connectors = Connectors(wire)
        self.jobs = Jobs(wire)
        self.content = ContentIndices(wire)
        self.rights = Rights(wire)
        self._wire = wire

    @property
    def client(self) -> StoreClient:
        """The official client, for everything the store does not wrap. Its errors are `StoreError`s."""
        return self._wire.client

    async def ensure_indices(self) -> tuple[str, ...]:
        """Create the connector and job indices that are missing and return their names."""
        return await ensure_indices(self._wire)


@asynccontextmanager
async def open_store(
    target: Target,
    *,
    wait_s: float | None = 0.0,
    wait_first_s: float = 1.0,
    wait_factor: float = 2.0,
    on_retry: Callable[[Retrying], None] | None = None,
) -> AsyncIterator[Store]:
    """Open the store and make sure that it is Elasticsearch that answers there.

    `wait_s` is how long to wait for a server that is not up yet; None asks nothing, so that opening never fails. Pauses
    between the questions grow from `wait_first_s` by `wait_factor`. `on_retry`
    is told before each pause of a call that is tried again. Raises `StoreError` with a line that says what to do.
    Cancelled or left: connections are closed, work on the server goes on.
    """
    async with open_wire(target, on_retry) as wire:
        server = None
        if wait_s is not None:
            server = await wire.wait_until_ready(wait_s, first_s=wait_first_s, factor=wait_factor)
        yield Store(wire, server)
