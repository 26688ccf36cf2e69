"""Indices: create, get, delete, exists, mappings, settings, open and close, refresh, statistics."""

from __future__ import annotations

import sqlite3
from typing import Any

import attrs

from ...runtime import now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, index_not_found, not_built
from ..http.messages import Request, Response
from ..http.routing import Route
from ..mapping.fields import mapper_parsing
from ..mapping.mapping import TOTAL_FIELDS_MAX
from ..storage.catalog import Index, Transaction
from ..storage.creation import create_index
from ..storage.names import matches
from ..storage.settings import changed, flatten, nested
from ..storage.templates import read_blueprint
from .searching import INDICES, shards

TIMEOUTS = frozenset({"timeout", "master_timeout", "wait_for_active_shards"})
CREATED_VERSION = "9050000"


async def create(engine: Engine, request: Request) -> Response:
    """PUT `{index}`."""
    name = request.arguments["index"]
    blueprint = read_blueprint(request.json())
    await engine.database.write(create_index, name, blueprint, now())
    return Response({"acknowledged": True, "shards_acknowledged": True, "index": name})


def shown_settings(index: Index) -> dict[str, Any]:
    """Return the settings of an index, with those that the node gave it."""
    given = {
        **index.settings,
        "uuid": index.uuid,
        "provided_name": index.name,
        "creation_date": str(index.created_ms),
        "version.created": CREATED_VERSION,
    }
    if index.closed:
        given["verified_before_close"] = "true"
    return given


def _shown(index: Index, features: set[str], *, flat: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "aliases" in features:
        found["aliases"] = index.aliases
    if "mappings" in features:
        found["mappings"] = index.mapping.tree
    if "settings" in features:
        settings = {f"index.{name}": value for name, value in shown_settings(index).items()}
        found["settings"] = settings if flat else nested(settings)
    return found


async def get(engine: Engine, request: Request) -> Response:
    """GET or HEAD `{index}`."""
    features = {"aliases", "mappings", "settings"}
    asked = request.names("features")
    if asked and not set(asked) <= features:
        raise illegal_argument(f"No endpoint found for features [{request.parameters['features']}]")
    found = engine.indices(request, allow_no_indices=True, closed=True)
    if not found and request.method == "HEAD":
        raise index_not_found(request.arguments["index"])
    flat = request.flag("flat_settings")
    return Response({index.name: _shown(index, set(asked) or features, flat=flat) for index in found})


async def delete(engine: Engine, request: Request) -> Response:
    """DELETE `{index}`."""
    expression = request.arguments["index"]
    if "*" in expression or expression == "_all":
        raise illegal_argument("Wildcard expressions or all indices are not allowed")
    for name in expression.split(","):
        behind = engine.catalog.indices_of_alias(name)
        if behind and not request.flag("ignore_unavailable"):
            raise illegal_argument(
                f"The provided expression [{name}] matches an alias, specify the corresponding concrete indices instead."
            )
    names = [index.name for index in engine.indices(request, closed=True) if index.name in expression.split(",")]

    def change(transaction: Transaction) -> None:
        for name in names:
            if name in transaction.indices:
                transaction.remove_index(name)

    await engine.database.write(change)
    return Response({"acknowledged": True})


async def get_mapping(engine: Engine, request: Request) -> Response:
    """GET `{index}/_mapping`."""
    found = engine.indices(request, closed=True)
    return Response({index.name: {"mappings": index.mapping.tree} for index in found})


async def get_field_mapping(engine: Engine, request: Request) -> Response:
    """GET `{index}/_mapping/field/{fields}`."""
    patterns = request.arguments["fields"].split(",")
    answer = {}
    for index in engine.indices(request, closed=True):
        answer[index.name] = {
            "mappings": {
                path: {
                    "full_name": path,
                    "mapping": {path.rpartition(".")[2]: _specification(field.type, field.parameters)},
                }
                for path, field in index.mapping.fields.items()
                if any(matches(pattern, path) for pattern in patterns)
            }
        }
    return Response(answer)


def _specification(kind: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, **parameters}


async def put_mapping(engine: Engine, request: Request) -> Response:
    """PUT `{index}/_mapping`."""
    body = request.required_json()
    if not body:
        raise mapper_parsing("a mapping update must not be empty")
    names = [index.name for index in engine.indices(request, allow_no_indices=False)]

    def change(transaction: Transaction) -> None:
        for name in names:
            index = transaction.index(name)
            limit = int(index.settings.get("mapping.total_fields.limit", TOTAL_FIELDS_MAX))
            transaction.put_index(attrs.evolve(index, mapping=index.mapping.merged(body, limit)))

    await engine.database.write(change)
    return Response({"acknowledged": True})


async def get_settings(engine: Engine, request: Request) -> Response:
    """GET `{index}/_settings`."""
    patterns = request.arguments.get("name", "_all").split(",")
    flat = request.flag("flat_settings")
    answer = {}
    for index in engine.indices(request, closed=True):
        settings = {
            f"index.{name}": value
            for name, value in shown_settings(index).items()
            if any(pattern in ("_all", "*") or matches(pattern, f"index.{name}") for pattern in patterns)
        }
        if settings:
            answer[index.name] = {"settings": settings if flat else nested(settings)}
    return Response(answer)


async def put_settings(engine: Engine, request: Request) -> Response:
    """PUT `{index}/_settings`."""
    body = request.required_json()
    inner = body.get("settings", body) if set(body) == {"settings"} else body
    changes = flatten(inner)
    if not changes:
        raise ApiError(400, "action_request_validation_exception", "Validation Failed: 1: no settings to update;")
    names = [index.name for index in engine.indices(request, allow_no_indices=False, closed=True)]
    preserve = request.flag("preserve_existing")

    def change(transaction: Transaction) -> None:
        for name in names:
            index = transaction.index(name)
            wanted = {key: value for key, value in changes.items() if not (preserve and key in index.settings)}
            transaction.put_index(attrs.evolve(index, settings=changed(index.settings, wanted, name)))

    await engine.database.write(change)
    return Response({"acknowledged": True})


async def _set_closed(engine: Engine, request: Request, closed: bool) -> dict[str, Any]:
    names = [index.name for index in engine.indices(request, allow_no_indices=False, closed=True)]

    def change(transaction: Transaction) -> None:
        for name in names:
            transaction.put_index(attrs.evolve(transaction.index(name), closed=closed))

    await engine.database.write(change)
    return {name: {"closed": True} for name in names}


async def close(engine: Engine, request: Request) -> Response:
    """POST `{index}/_close`."""
    closed = await _set_closed(engine, request, True)
    return Response({"acknowledged": True, "shards_acknowledged": True, "indices": closed})


async def open_(engine: Engine, request: Request) -> Response:
    """POST `{index}/_open`."""
    await _set_closed(engine, request, False)
    return Response({"acknowledged": True, "shards_acknowledged": True})


async def refresh(engine: Engine, request: Request) -> Response:
    """POST `_refresh`: writes are seen at once, so there is nothing to wait for."""
    return Response({"_shards": shards(engine.indices(request), skipped=False)})


async def flush(engine: Engine, request: Request) -> Response:
    """POST `_flush`, `_forcemerge`, `_cache/clear`: what is acknowledged is on the disk already."""
    return Response({"_shards": shards(engine.indices(request), skipped=False)})


@attrs.frozen
class Size:
    """How much an index holds."""

    documents: int
    size_bytes: int


def measure(connection: sqlite3.Connection, indices: list[Index]) -> dict[str, Size]:
    """Count the documents of each index and the bytes of their sources."""
    found = {}
    for index in indices:
        documents, size = connection.execute(
            f"SELECT count(*), coalesce(sum(length(source)), 0) FROM docs_{index.number} WHERE died IS NULL"
        ).fetchone()
        found[index.name] = Size(documents, size)
    return found


async def stats(engine: Engine, request: Request) -> Response:
    """GET `_stats`: documents and the size of their sources; nothing else is counted."""
    metrics = request.arguments.get("metric", "_all").split(",")
    lacking = set(metrics) - {"_all", "docs", "store"}
    if lacking:
        raise not_built(f"The statistic [{min(lacking)}]")
    indices = engine.indices(request)
    sizes = await engine.database.read(measure, indices)

    def part(documents: int, size: int) -> dict[str, Any]:
        whole = {
            "docs": {"count": documents, "deleted": 0, "total_size_in_bytes": size},
            "store": {"size_in_bytes": size},
        }
        return {name: value for name, value in whole.items() if "_all" in metrics or name in metrics}

    total = part(sum(one.documents for one in sizes.values()), sum(one.size_bytes for one in sizes.values()))
    each = {
        index.name: {
            "uuid": index.uuid,
            "health": "yellow" if index.settings.get("number_of_replicas", "1") != "0" else "green",
            "status": "open",
            "primaries": part(sizes[index.name].documents, sizes[index.name].size_bytes),
            "total": part(sizes[index.name].documents, sizes[index.name].size_bytes),
        }
        for index in indices
    }
    return Response(
        {"_shards": shards(indices, skipped=False), "_all": {"primaries": total, "total": total}, "indices": each}
    )


_LOCAL = INDICES | TIMEOUTS | {"local", "flat_settings", "include_defaults", "features", "include_type_name"}
_MAPPING = INDICES | TIMEOUTS | {"write_index_only", "local"}
_FLUSH = INDICES | {
    "force",
    "wait_if_ongoing",
    "max_num_segments",
    "only_expunge_deletes",
    "flush",
    "wait_for_completion",
}
_FLUSH |= {"fielddata", "fields", "query", "request"}

ROUTES = (
    Route("PUT", "/{index}", create, "create_index", TIMEOUTS),
    Route("GET", "/{index}", get, "view", _LOCAL),
    Route("DELETE", "/{index}", delete, "delete_index", INDICES | TIMEOUTS),
    Route("GET", "/_mapping", get_mapping, "view", _LOCAL),
    Route("GET", "/{index}/_mapping", get_mapping, "view", _LOCAL),
    Route("GET", "/{index}/_mapping/field/{fields}", get_field_mapping, "view", _LOCAL),
    Route("PUT", "/{index}/_mapping", put_mapping, "manage", _MAPPING),
    Route("POST", "/{index}/_mapping", put_mapping, "manage", _MAPPING),
    Route("GET", "/_settings", get_settings, "view", _LOCAL),
    Route("GET", "/{index}/_settings", get_settings, "view", _LOCAL),
    Route("GET", "/{index}/_settings/{name}", get_settings, "view", _LOCAL),
    Route("PUT", "/_settings", put_settings, "manage", _LOCAL | {"preserve_existing", "reopen"}),
    Route("PUT", "/{index}/_settings", put_settings, "manage", _LOCAL | {"preserve_existing", "reopen"}),
    Route("POST", "/{index}/_close", close, "manage", INDICES | TIMEOUTS),
    Route("POST", "/{index}/_open", open_, "manage", INDICES | TIMEOUTS),
    *(
        Route(method, path, refresh, "maintain", INDICES)
        for method in ("GET", "POST")
        for path in ("/_refresh", "/{index}/_refresh")
    ),
    *(
        Route(method, prefix + path, flush, "maintain", _FLUSH)
        for method, path in (
            ("POST", "/_flush"),
            ("GET", "/_flush"),
            ("POST", "/_forcemerge"),
            ("POST", "/_cache/clear"),
        )
        for prefix in ("", "/{index}")
    ),
    *(
        Route(
            "GET",
            path,
            stats,
            "monitor_index",
            INDICES | {"level", "forbid_closed_indices", "include_segment_file_sizes", "include_unloaded_segments"},
        )
        for path in ("/_stats", "/_stats/{metric}", "/{index}/_stats", "/{index}/_stats/{metric}")
    ),
)
