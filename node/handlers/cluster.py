"""What the node says of itself: `GET /`, health, `_cat`, cluster settings, licence, `_xpack`."""

from __future__ import annotations

from typing import Any

from ...runtime import now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, invalid_request, not_built, resource_not_found
from ..http.messages import Request, Response
from ..http.routing import Route
from ..mapping.dates import to_ms
from ..storage.catalog import Index, Transaction
from .indices import measure
from .searching import INDICES

_SETTINGS = {"action.auto_create_index"}


async def info(engine: Engine, request: Request) -> Response:
    """GET `/`."""
    return Response(
        {
            "name": engine.node_name,
            "cluster_name": engine.cluster_name,
            "cluster_uuid": engine.cluster_uuid,
            "version": {
                "number": engine.version,
                "build_flavor": "default",
                "build_type": "callboard",
                "build_hash": "callboard",
                "build_date": "2026-01-01T00:00:00.000000000Z",
                "build_snapshot": False,
                "lucene_version": "0.0.0",
                "minimum_wire_compatibility_version": engine.version,
                "minimum_index_compatibility_version": engine.version,
            },
            "tagline": "You Know, for Search",
        }
    )


def _health_of(index: Index) -> str:
    return (
        "green"
        if index.settings.get("number_of_replicas", "1") == "0" or "auto_expand_replicas" in index.settings
        else "yellow"
    )


async def health(engine: Engine, request: Request) -> Response:
    """GET `_cluster/health`."""
    indices = (
        engine.indices(request, default_states="all")
        if "index" in request.arguments
        else list(engine.catalog.indices.values())
    )
    wanted = request.parameters.get("wait_for_status", "red")
    if wanted not in ("green", "yellow", "red"):
        raise illegal_argument(f"unknown cluster health status [{wanted}]")
    status = "yellow" if any(_health_of(index) == "yellow" for index in indices) else "green"
    met = wanted != "green" or status == "green"
    missing = sum(1 for index in indices if _health_of(index) == "yellow")
    shards = len(indices)
    body: dict[str, Any] = {
        "cluster_name": engine.cluster_name,
        "status": status,
        "timed_out": not met,
        "number_of_nodes": 1,
        "number_of_data_nodes": 1,
        "active_primary_shards": shards,
        "active_shards": shards,
        "relocating_shards": 0,
        "initializing_shards": 0,
        "unassigned_shards": missing,
        "unassigned_primary_shards": 0,
        "delayed_unassigned_shards": 0,
        "number_of_pending_tasks": 0,
        "number_of_in_flight_fetch": 0,
        "task_max_waiting_in_queue_millis": 0,
        "active_shards_percent_as_number": 100.0 * shards / (shards + missing) if shards else 100.0,
    }
    # A replica will never come to a single node, so waiting for it would only waste the asker's time.
    return Response(body, 200 if met else 408)


def _table(request: Request, columns: list[str], rows: list[dict[str, str]], default: list[str]) -> Response:
    chosen = request.names("h") or default
    unknown = [name for name in chosen if name not in columns]
    if unknown:
        raise illegal_argument(f"the column [{unknown[0]}] is not offered; there are [{', '.join(columns)}]")
    rows = _sorted(rows, request.names("s"), columns)
    wanted = request.parameters.get("format")
    if wanted == "json" or (wanted is None and "json" in request.headers.get("accept", "")):
        return Response([{name: row[name] for name in chosen} for row in rows])
    lines = [[row[name] for name in chosen] for row in rows]
    if request.flag("v"):
        lines.insert(0, list(chosen))
    widths = [max((len(line[at]) for line in lines), default=0) for at in range(len(chosen))]
    text = "".join(
        " ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
    return Response(text)


def _sorted(rows: list[dict[str, str]], by: list[str], columns: list[str]) -> list[dict[str, str]]:
    for key in reversed(by):
        name, _, order = key.partition(":")
        if name not in columns:
            raise illegal_argument(f"Unable to sort by unknown sort key `{name}`")
        rows = sorted(rows, key=lambda row: (row[name].isdigit(), row[name].zfill(20)), reverse=order == "desc")
    return rows


_CAT_INDICES = [
    "health",
    "status",
    "index",
    "uuid",
    "pri",
    "rep",
    "docs.count",
    "docs.deleted",
    "store.size",
    "pri.store.size",
    "dataset.size",
]


async def cat_indices(engine: Engine, request: Request) -> Response:
    """GET `_cat/indices`."""
    indices = engine.indices(request, default_states="open,closed")
    sizes = await engine.database.read(measure, indices)
    in_bytes = request.parameters.get("bytes") == "b"

    def size(index: Index) -> str:
        count = sizes[index.name].size_bytes
        return str(count) if in_bytes else _human(count)

    rows = [
        {
            "health": _health_of(index),
            "status": "close" if index.closed else "open",
            "index": index.name,
            "uuid": index.uuid,
            "pri": "1",
            "rep": str(index.settings.get("number_of_replicas", "1")),
            "docs.count": str(sizes[index.name].documents),
            "docs.deleted": "0",
            "store.size": size(index),
            "pri.store.size": size(index),
            "dataset.size": size(index),
        }
        for index in indices
    ]
    return _table(request, _CAT_INDICES, rows, _CAT_INDICES)


def _human(count: int) -> str:
    value = float(count)
    for unit in ("b", "kb", "mb", "gb"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "b" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}tb"


async def cat_health(engine: Engine, request: Request) -> Response:
    """GET `_cat/health`."""
    answer = await health(engine, request)
    body = answer.body
    moment = now()
    row = {
        "epoch": str(to_ms(moment) // 1000),
        "timestamp": moment.strftime("%H:%M:%S"),
        "cluster": body["cluster_name"],
        "status": body["status"],
        "node.total": "1",
        "node.data": "1",
        "shards": str(body["active_shards"]),
        "pri": str(body["active_primary_shards"]),
        "relo": "0",
        "init": "0",
        "unassign": str(body["unassigned_shards"]),
        "pending_tasks": "0",
        "max_task_wait_time": "-",
        "active_shards_percent": f"{body['active_shards_percent_as_number']:.1f}%",
    }
    return _table(request, list(row), [row], list(row))


async def cat_count(engine: Engine, request: Request) -> Response:
    """GET `_cat/count`."""
    indices = engine.indices(request)
    sizes = await engine.database.read(measure, indices)
    moment = now()
    total = sum(one.documents for one in sizes.values())
    row = {"epoch": str(to_ms(moment) // 1000), "timestamp": moment.strftime("%H:%M:%S"), "count": str(total)}
    return _table(request, list(row), [row], list(row))


async def cat_aliases(engine: Engine, request: Request) -> Response:
    """GET `_cat/aliases`."""
    rows = [
        {
            "alias": alias,
            "index": index.name,
            "filter": "*" if about.get("filter") else "-",
            "routing.index": "-",
            "routing.search": "-",
            "is_write_index": str(about.get("is_write_index", "-")).lower(),
        }
        for index in engine.catalog.indices.values()
        for alias, about in index.aliases.items()
    ]
    columns = ["alias", "index", "filter", "routing.index", "routing.search", "is_write_index"]
    return _table(request, columns, rows, columns)


async def get_cluster_settings(engine: Engine, request: Request) -> Response:
    """GET `_cluster/settings`."""
    return Response({"persistent": dict(engine.catalog.names("cluster").get("settings", {})), "transient": {}})


async def put_cluster_settings(engine: Engine, request: Request) -> Response:
    """PUT `_cluster/settings`: only what the node has."""
    body = request.required_json()
    unknown = body.keys() - {"persistent", "transient"}
    if unknown:
        raise illegal_argument(f"unknown key [{min(unknown)}]")
    if body.get("transient"):
        raise not_built("A transient cluster setting")
    changes = body.get("persistent") or {}
    if not isinstance(changes, dict):
        raise illegal_argument("[persistent] must be an object")
    if not changes:
        raise invalid_request("no settings to update")
    for name, value in changes.items():
        if name not in _SETTINGS:
            raise not_built(f"The cluster setting [{name}]")
        if value is not None and not isinstance(value, str | bool):
            raise illegal_argument(f"[{name}] must be text")

    def change(transaction: Transaction) -> dict[str, Any]:
        known = {**transaction.things["cluster"].get("settings", {}), **changes}
        kept = {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in known.items()
            if value is not None
        }
        transaction.put("cluster", "settings", kept)
        return kept

    await engine.database.write(change)
    return Response({"acknowledged": True, "persistent": changes, "transient": {}})


async def licence(engine: Engine, request: Request) -> Response:
    """GET `_license`: what the node was told to be; it has no features to unlock."""
    return Response(
        {
            "license": {
                "status": "active",
                "uid": engine.cluster_uuid,
                "type": engine.license_type,
                "issue_date": "2026-01-01T00:00:00.000Z",
                "issue_date_in_millis": 1_767_225_600_000,
                "max_nodes": 1000,
                "max_resource_units": None,
                "issued_to": engine.cluster_name,
                "issuer": "callboard",
                "start_date_in_millis": -1,
            }
        }
    )


async def xpack(engine: Engine, request: Request) -> Response:
    """GET `_xpack`: which of the licensed features are here."""
    security = engine.security is not None and engine.security.enabled
    features = {
        "enterprise_search": {"available": True, "enabled": True},
        "security": {"available": True, "enabled": security},
        **{
            name: {"available": False, "enabled": False}
            for name in ("ml", "ilm", "watcher", "transform", "sql", "eql", "esql", "graph", "ccr", "rollup")
        },
    }
    return Response(
        {
            "build": {"hash": "callboard", "date": "2026-01-01T00:00:00.000Z"},
            "license": {
                "uid": engine.cluster_uuid,
                "type": engine.license_type,
                "mode": engine.license_type,
                "status": "active",
            },
            "features": features,
            "tagline": "You know, for X",
        }
    )


async def no_data_streams(engine: Engine, request: Request) -> Response:
    """GET `_data_stream`: there are none, and none can be made."""
    name = request.arguments.get("name", "*")
    if "*" in name or name == "_all":
        return Response({"data_streams": []})
    raise ApiError(404, "index_not_found_exception", f"no such index [{name}]", index=name, index_uuid="_na_")


async def resolve_index(engine: Engine, request: Request) -> Response:
    """GET `_resolve/index/{name}`."""
    found = engine.indices(request, request.arguments["name"], default_states="open", closed=True)
    aliases: dict[str, list[str]] = {}
    for index in found:
        for alias in index.aliases:
            aliases.setdefault(alias, []).append(index.name)
    indices = []
    for index in found:
        attributes = ["closed" if index.closed else "open", *(["hidden"] if index.hidden else [])]
        entry: dict[str, Any] = {"name": index.name, "attributes": sorted(attributes)}
        indices.append(entry | ({"aliases": sorted(index.aliases)} if index.aliases else {}))
    listed = [{"name": alias, "indices": sorted(names)} for alias, names in sorted(aliases.items())]
    return Response({"indices": indices, "aliases": listed, "data_streams": []})


async def no_task(engine: Engine, request: Request) -> Response:
    """GET `_tasks/{id}`: every request is answered when it is done, so there are no tasks."""
    raise resource_not_found(f"task [{request.arguments['id']}] isn't running and hasn't stored its results")


_CAT = INDICES | frozenset(
    [
        "h",
        "s",
        "v",
        "bytes",
        "time",
        "help",
        "local",
        "master_timeout",
        "health",
        "pri",
        "include_unloaded_segments",
        "ts",
        "expand_wildcards",
    ]
)
_HEALTH = INDICES | frozenset(
    [
        "wait_for_status",
        "timeout",
        "master_timeout",
        "level",
        "local",
        "wait_for_active_shards",
        "wait_for_nodes",
        "wait_for_no_relocating_shards",
        "wait_for_no_initializing_shards",
        "wait_for_events",
        "return_200_for_cluster_health_timeout",
    ]
)
_TIMEOUTS = frozenset({"timeout", "master_timeout", "flat_settings", "include_defaults"})

ROUTES = (
    Route("GET", "/", info, "monitor"),
    Route("GET", "/_cluster/health", health, "monitor", _HEALTH),
    Route("GET", "/_cluster/health/{index}", health, "monitor", _HEALTH),
    Route("GET", "/_cluster/settings", get_cluster_settings, "monitor", _TIMEOUTS),
    Route("PUT", "/_cluster/settings", put_cluster_settings, "manage_cluster", _TIMEOUTS),
    Route("GET", "/_cat/indices", cat_indices, "monitor", _CAT),
    Route("GET", "/_cat/indices/{index}", cat_indices, "monitor", _CAT),
    Route("GET", "/_cat/health", cat_health, "monitor", _CAT),
    Route("GET", "/_cat/count", cat_count, "monitor", _CAT),
    Route("GET", "/_cat/count/{index}", cat_count, "monitor", _CAT),
    Route("GET", "/_cat/aliases", cat_aliases, "monitor", _CAT),
    Route("GET", "/_license", licence, "monitor", frozenset({"accept_enterprise", "local"})),
    Route("GET", "/_xpack", xpack, "monitor", frozenset({"categories", "accept_enterprise"})),
    Route("GET", "/_data_stream", no_data_streams, "view", INDICES | {"include_defaults", "verbose"}),
    Route("GET", "/_data_stream/{name}", no_data_streams, "view", INDICES | {"include_defaults", "verbose"}),
    Route("GET", "/_resolve/index/{name}", resolve_index, "view", INDICES),
    Route("GET", "/_tasks/{id}", no_task, "monitor", frozenset({"timeout", "wait_for_completion"})),
)
