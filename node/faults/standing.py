"""A server that only passes on, with faults, in front of one that nobody here wrote."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from urllib.parse import urlsplit

import attrs

from ...runtime.faults import FaultProxy, NetworkFaultPlan, open_fault_proxy
from ..http.serving import serving
from .forwarding import ForwardingApp
from .plan import ServerFaultPlan
from .server import FaultyApp


@asynccontextmanager
async def open_faulty_way(
    url: str,
    plan: ServerFaultPlan | None = None,
    network: NetworkFaultPlan | None = None,
    *,
    verify: ssl.SSLContext | bool = True,
) -> AsyncIterator[FaultyApp]:
    """Give the application that takes a client's requests to the server at `url` in this process: `Target(url, through=app)`.

    A connection that breaks, on the wire or by a rule, breaks for the client. Raises as `open_faulty_server`.
    """
    async with AsyncExitStack() as stack:
        by_way_of = None
        if network is not None:
            host, port = _address(url)
            proxy = await stack.enter_async_context(open_fault_proxy(host, port, network))
            by_way_of = (proxy.host, proxy.port)
        forwarding = await stack.enter_async_context(
            ForwardingApp.to(url, verify=verify, by_way_of=by_way_of, passes_cuts=True)
        )
        yield FaultyApp(forwarding, plan or ServerFaultPlan())


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not the URL of a server; write it like http://127.0.0.1:9200")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


@attrs.frozen
class FaultyServer:
    """Where to speak to instead of the server behind."""

    url: str
    proxy: FaultProxy
    """Injects what happens to connections."""
    app: FaultyApp | None
    """Injects what happens to requests; None if only bytes are passed on."""


@asynccontextmanager
async def open_faulty_server(
    url: str,
    plan: ServerFaultPlan | None = None,
    network: NetworkFaultPlan | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    verify: ssl.SSLContext | bool = True,
) -> AsyncIterator[FaultyServer]:
    """Stand in front of the server at `url` while the block runs, on an address of this machine.

    With `plan`, requests are read and passed on one by one, over HTTP without encryption on this side; `verify` says which
    certificates of the server are trusted. Without, only bytes pass, encrypted or not. Raises `ValueError` for a URL that
    names no server or an address that others reach, and `OSError` if the port cannot be had.
    """
    behind = _address(url)
    if plan is None:
        parts = urlsplit(url)
        async with open_fault_proxy(*behind, network, host=host, port=port) as proxy:
            yield FaultyServer(f"{parts.scheme}{proxy.url.removeprefix('http')}{parts.path}", proxy, None)
        return
    inside = socket.create_server(("127.0.0.1", 0))
    inside.setblocking(False)
    inside_port = inside.getsockname()[1]
    with closing(inside):
        async with (
            ForwardingApp.to(url, verify=verify) as forwarding,
            open_fault_proxy("127.0.0.1", inside_port, network, host=host, port=port) as proxy,
            serving(app := FaultyApp(forwarding, plan, front=proxy), inside),
        ):
            yield FaultyServer(proxy.url, proxy, app)
