"""Opening a node: its data, its application, and the port it listens on."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from ..protocol.versions import PROTOCOL_VERSION
from ..runtime import blocking, monotonic, new_id
from ..runtime.faults import FaultProxy, NetworkFaultPlan, open_fault_proxy
from .connectors import connector_api, job_api, secret_api
from .connectors.templates import INDEX_TEMPLATES
from .engine import AttachmentReader, Engine
from .faults import FaultyApp, ServerFaultPlan
from .handlers import aliases, bulk, by_query, cluster, documents, indices, ingest, searching, security, templates
from .http.application import Application
from .http.routing import Router
from .http.serving import SHUTDOWN_S, serving
from .ingest.managed import PIPELINES
from .security.guard import Guard, User
from .security.privileges import Role
from .storage.catalog import Transaction
from .storage.database import Database
from .storage.snapshots import Snapshots

CONTENT_BYTES_MAX = 100 * 1024 * 1024
INSIDE = "127.0.0.1"
"""Where a node with faults listens behind the proxy that cuts its connections."""
_BACKLOG = 128


class ExposedNode(ValueError):
    """A node without users was asked to listen where others can reach it."""


@attrs.frozen
class Node:
    """A running node."""

    url: str | None
    """Where it listens; None if it does not."""
    app: Any
    """The ASGI application, for use in this process through `httpx.ASGITransport`."""
    version: str
    faults: FaultyApp | None = None
    """What injects the faults of requests, if the node was opened with any."""
    proxy: FaultProxy | None = None
    """What injects the faults of connections, if it was opened with any and listens."""


@asynccontextmanager
async def open_node(
    data: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = 0,
    attachment_reader: AttachmentReader | None = None,
    version: str = PROTOCOL_VERSION,
    license_type: str = "trial",
    users: Sequence[User] = (),
    roles: Mapping[str, Role] | None = None,
    allow_exposed: bool = False,
    content_bytes_max: int = CONTENT_BYTES_MAX,
    faults: ServerFaultPlan | None = None,
    network_faults: NetworkFaultPlan | None = None,
) -> AsyncIterator[Node]:
    """Run a node while the context is open.

    `data` is a folder that keeps everything; without it, everything is in memory and gone at the end. `port` 0 takes any free port;
    None opens no port at all. `version` is what the node says it is, since services refuse an older server than themselves.
    With `users`, every request needs a name and password or an API key; without, everybody may do everything.
    `faults` makes it misbehave by rules, for rehearsals and tests; `network_faults` does so to the connections to its port.
    `attachment_reader` turns the bytes of a file into text for the `attachment` processor.

    Raises `OSError` if the port is in use or the folder cannot be used, and `ExposedNode` for an address that others can reach.
    """
    guard = Guard(users, roles)
    listener = None if port is None else _bound(host, port, allow_exposed or guard.enabled)
    try:
        database = await blocking(Database, data)
    except BaseException:
        if listener is not None:
            listener.close()
        raise
    engine = Engine(
        database=database,
        snapshots=Snapshots(database),
        version=version,
        node_name="callboard",
        cluster_name="callboard",
        cluster_uuid="",
        started_s=monotonic(),
        license_type=license_type,
        attachment_reader=attachment_reader,
        security=guard,
    )
    try:
        engine.cluster_uuid = await database.write(_first_run)
        app: Any = Application(Router(_routes()), engine, guard, content_bytes_max)
        faulty = None
        if faults is not None or network_faults is not None:
            app = faulty = FaultyApp(
                app,
                faults or ServerFaultPlan(),
                content_bytes_max=content_bytes_max,
                on_restart=partial(_lose, engine),
            )
        if listener is None:
            yield Node(None, app, version, faulty)
        elif faulty is None:
            listener.listen(_BACKLOG)
            async with serving(app, listener) as url:
                yield Node(url, app, version)
        else:
            async with _cuttable(faulty, listener, network_faults) as (url, proxy):
                yield Node(url, app, version, faulty, proxy)
    finally:
        if listener is not None:
            listener.close()
        with trio.CancelScope(deadline=trio.current_time() + SHUTDOWN_S, shield=True):
            await engine.database.aclose()


@asynccontextmanager
async def _cuttable(
    app: FaultyApp, listener: socket.socket, plan: NetworkFaultPlan | None
) -> AsyncIterator[tuple[str, FaultProxy]]:
    """Serve where connections can be cut and refused: an HTTP server alone can only answer with an error."""
    inside = _bound(INSIDE, 0, allow_exposed=False)
    inside.listen(_BACKLOG)
    port = inside.getsockname()[1]
    async with serving(app, inside), open_fault_proxy(INSIDE, port, plan, listener=listener) as proxy:
        app.front = proxy
        yield proxy.url, proxy


async def _lose(engine: Engine, loses: str) -> None:
    """Forget what a server forgets that is started again."""
    await engine.snapshots.close_all(scrolls=True)
    await engine.snapshots.close_all(scrolls=False)
    if loses != "unsaved" or not engine.database.in_memory:
        # What a node with a data folder has answered, it has saved.
        return
    before, fresh = engine.database, await blocking(Database, None)
    engine.database, engine.snapshots = fresh, Snapshots(fresh)
    engine.cluster_uuid = await fresh.write(_first_run)
    await before.retire()


def _routes() -> list[Any]:
    families = (
        cluster,
        indices,
        aliases,
        templates,
        documents,
        bulk,
        searching,
        by_query,
        ingest,
        security,
        connector_api,
        job_api,
        secret_api,
    )
    return [route for family in families for route in family.ROUTES]


def _first_run(transaction: Transaction) -> str:
    """Install what Elasticsearch brings along, and give the cluster its id."""
    for name, body in PIPELINES.items():
        if name not in transaction.things["pipeline"]:
            transaction.put("pipeline", name, body)
    for name, body in INDEX_TEMPLATES.items():
        if name not in transaction.things["index_template"]:
            transaction.put("index_template", name, body)
    known = transaction.things["cluster"].get("identity")
    if known is None:
        known = {"uuid": new_id()[:22]}
        transaction.put("cluster", "identity", known)
    return str(known["uuid"])


def _bound(host: str, port: int, allow_exposed: bool) -> socket.socket:
    if not allow_exposed and not _is_loopback(host):
        raise ExposedNode(
            f"The node has no users, so everybody who reaches {host} could read and change everything. Use 127.0.0.1, give the node "
            "users, or allow it explicitly."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                errno.EADDRINUSE, f"port {port} on {host} is in use; choose another one, or 0 for any free one"
            ) from error
        raise
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
