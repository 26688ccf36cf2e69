"""Aliases: `_aliases`, `_alias`."""

from __future__ import annotations

from typing import Any

import attrs

from ..engine import Engine
from ..errors import ApiError, illegal_argument, invalid_request
from ..http.messages import Request, Response
from ..http.routing import Route
from ..query.parse import parse_query
from ..storage.catalog import Transaction
from ..storage.creation import check_aliases
from ..storage.names import Expansion, check_alias_name, matches, resolve
from ..storage.templates import read_alias
from .indices import TIMEOUTS
from .searching import INDICES

_OPEN = Expansion(hidden=True, closed=True, allow_no_indices=False)
_ACTION_KEYS = {"index", "indices", "alias", "aliases", "must_exist", "filter", "is_write_index", "is_hidden"}
_ACTION_KEYS |= {"routing", "index_routing", "search_routing"}


def _listed(action: dict[str, Any], one: str, many: str) -> list[str]:
    value = action.get(one, action.get(many, []))
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(name, str) and name for name in listed):
        raise illegal_argument(f"[{one}] must be a text or a list of texts")
    return listed


async def update_aliases(engine: Engine, request: Request) -> Response:
    """POST `_aliases`: all of the actions, or none."""
    body = request.required_json()
    actions = body.get("actions")
    if not isinstance(actions, list) or not actions:
        raise invalid_request("Must specify at least one alias action")
    read = [_read(action) for action in actions]

    def change(transaction: Transaction) -> None:
        for kind, action in read:
            _apply(transaction, kind, action)

    await engine.database.write(change)
    return Response({"acknowledged": True, "errors": False})


def _read(action: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(action, dict) or len(action) != 1:
        raise illegal_argument("an alias action is an object with one of [add], [remove], [remove_index]")
    ((kind, about),) = action.items()
    if kind not in ("add", "remove", "remove_index") or not isinstance(about, dict):
        raise ApiError(400, "x_content_parse_exception", f"[alias_action] unknown field [{kind}]")
    unknown = about.keys() - _ACTION_KEYS
    if unknown:
        raise ApiError(400, "x_content_parse_exception", f"[{kind}] unknown field [{min(unknown)}]")
    if not _listed(about, "index", "indices"):
        raise illegal_argument("One of [index] or [indices] is required")
    if kind != "remove_index" and not _listed(about, "alias", "aliases"):
        raise illegal_argument("One of [alias] or [aliases] is required")
    return kind, about


def _apply(transaction: Transaction, kind: str, action: dict[str, Any]) -> None:
    names = sorted(resolve(",".join(_listed(action, "index", "indices")), transaction.indices, _OPEN))
    if kind == "remove_index":
        for name in names:
            transaction.remove_index(name)
        return
    aliases = _listed(action, "alias", "aliases")
    if kind == "add":
        about = read_alias(
            {
                key: value
                for key, value in action.items()
                if key not in ("index", "indices", "alias", "aliases", "must_exist")
            }
        )
        for name in names:
            add_aliases(transaction, name, dict.fromkeys(aliases, about))
        return
    removed = _remove(transaction, names, aliases)
    if not removed and action.get("must_exist") is not False:
        raise ApiError(404, "aliases_not_found_exception", f"aliases [{','.join(aliases)}] missing")


def add_aliases(transaction: Transaction, name: str, aliases: dict[str, dict[str, Any]]) -> None:
    """Give an index aliases. Raises 400."""
    for alias in aliases:
        check_alias_name(alias)
    check_aliases(transaction, aliases, "")
    index = transaction.index(name)
    for alias, about in aliases.items():
        if about.get("is_write_index") is True:
            others = [
                one.name
                for one in transaction.indices.values()
                if one.name != name and one.aliases.get(alias, {}).get("is_write_index") is True
            ]
            if others:
                raise ApiError(
                    400,
                    "illegal_state_exception",
                    f"alias [{alias}] has more than one write index [{','.join(sorted([*others, name]))}]",
                )
    transaction.put_index(attrs.evolve(index, aliases={**index.aliases, **aliases}))


def _remove(transaction: Transaction, names: list[str], patterns: list[str]) -> bool:
    removed = False
    for name in names:
        index = transaction.index(name)
        kept = {
            alias: about
            for alias, about in index.aliases.items()
            if not any(p == "_all" or matches(p, alias) for p in patterns)
        }
        if len(kept) < len(index.aliases):
            removed = True
            transaction.put_index(attrs.evolve(index, aliases=kept))
    return removed


async def put_alias(engine: Engine, request: Request) -> Response:
    """PUT `{index}/_alias/{name}`."""
    about = read_alias(request.json())
    if about.get("filter"):
        parse_query(about["filter"])
    names = [index.name for index in engine.indices(request, closed=True, allow_no_indices=False)]

    def change(transaction: Transaction) -> None:
        for name in names:
            add_aliases(transaction, name, {request.arguments["name"]: about})

    await engine.database.write(change)
    return Response({"acknowledged": True})


async def delete_alias(engine: Engine, request: Request) -> Response:
    """DELETE `{index}/_alias/{name}`."""
    names = [index.name for index in engine.indices(request, closed=True)]
    patterns = request.arguments["name"].split(",")

    def change(transaction: Transaction) -> None:
        if not _remove(transaction, names, patterns):
            raise ApiError(404, "aliases_not_found_exception", f"aliases [{','.join(patterns)}] missing")

    await engine.database.write(change)
    return Response({"acknowledged": True})


async def get_alias(engine: Engine, request: Request) -> Response:
    """GET or HEAD `_alias`: what is missing is said beside what was found."""
    patterns = request.arguments["name"].split(",") if "name" in request.arguments else None
    found: dict[str, Any] = {}
    seen: set[str] = set()
    indices = (
        engine.indices(request, closed=True) if "index" in request.arguments else list(engine.catalog.indices.values())
    )
    for index in sorted(indices, key=lambda one: one.name):
        hits = {
            alias: about
            for alias, about in index.aliases.items()
            if patterns is None or any(one in ("_all", "*") or matches(one, alias) for one in patterns)
        }
        seen |= hits.keys()
        if hits or patterns is None:
            found[index.name] = {"aliases": hits}
    missing = sorted(one for one in patterns or () if "*" not in one and one != "_all" and one not in seen)
    if missing:
        word = "alias" if len(missing) == 1 else "aliases"
        return Response({"error": f"{word} [{','.join(missing)}] missing", "status": 404, **found}, 404)
    return Response(found)


_PUT = TIMEOUTS | INDICES

ROUTES = (
    Route("POST", "/_aliases", update_aliases, "manage", TIMEOUTS),
    *(
        Route(method, f"/{{index}}/{word}/{{name}}", put_alias, "manage", _PUT)
        for method in ("PUT", "POST")
        for word in ("_alias", "_aliases")
    ),
    Route("DELETE", "/{index}/_alias/{name}", delete_alias, "manage", _PUT),
    Route("DELETE", "/{index}/_aliases/{name}", delete_alias, "manage", _PUT),
    *(
        Route("GET", path, get_alias, "view", INDICES | {"local", "master_timeout"})
        for path in ("/_alias", "/_aliases", "/_alias/{name}", "/{index}/_alias", "/{index}/_alias/{name}")
    ),
)
