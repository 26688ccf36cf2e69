"""`_security`: who am I, API keys, and what may I do."""

from __future__ import annotations

import base64
from typing import Any

from ...runtime import new_id, now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, invalid_request, resource_not_found
from ..http.messages import Request, Response
from ..http.routing import Route
from ..mapping.dates import to_ms
from ..security.guard import forbidden, key_hash
from ..security.privileges import BUILT_IN, FREE, Principal, read_roles, texts
from ..storage.catalog import Transaction
from ..storage.names import matches
from ..storage.snapshots import read_duration_s

_EVERYBODY = Principal("_anonymous", ("superuser",), (BUILT_IN["superuser"],))


def _who(request: Request) -> Principal:
    found: Principal | None = request.principal
    return found or _EVERYBODY


async def authenticate(engine: Engine, request: Request) -> Response:
    """GET `_security/_authenticate`."""
    who = _who(request)
    realm = {"name": "callboard", "type": "native" if engine.security.enabled else "__anonymous"}
    body: dict[str, Any] = {
        "username": who.name,
        "roles": list(who.role_names),
        "full_name": None,
        "email": None,
        "metadata": {},
        "enabled": True,
        "authentication_realm": realm,
        "lookup_realm": realm,
        "authentication_type": "realm" if engine.security.enabled else "anonymous",
    }
    if who.api_key is not None:
        body |= {"authentication_type": "api_key", "api_key": who.api_key}
    return Response(body)


async def create_key(engine: Engine, request: Request) -> Response:
    """POST or PUT `_security/api_key`."""
    body = request.required_json()
    unknown = body.keys() - {"name", "expiration", "role_descriptors", "metadata"}
    if unknown:
        raise ApiError(400, "x_content_parse_exception", f"[api_key_request] unknown field [{min(unknown)}]")
    name = body.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > 256 or name != name.strip() or name.startswith("_"):
        raise invalid_request(
            "api key name is required, at most 256 letters, may not begin or end with whitespace, nor begin with an underscore"
        )
    roles = {} if body.get("role_descriptors") is None else body["role_descriptors"]
    read_roles(roles)
    metadata = {} if body.get("metadata") is None else body["metadata"]
    if not isinstance(metadata, dict) or any(key.startswith("_") for key in metadata):
        raise invalid_request("API key metadata must be an object whose keys do not start with [_]")
    who = _who(request)
    if who.api_key is not None and roles and any(one for one in roles.values()):
        raise illegal_argument(
            "creating derived api keys requires an explicit role descriptor that is empty (has no privileges)"
        )
    moment = to_ms(now())
    expiration = body.get("expiration")
    if expiration is not None and not isinstance(expiration, str):
        raise illegal_argument("[expiration] must be text such as 1d")
    expires = None if expiration is None else moment + int(read_duration_s(expiration, "expiration") * 1000)
    key_id, key = new_id()[:20], new_id()[:22]
    stored = {
        "id": key_id,
        "name": name,
        "type": "rest",
        "creation": moment,
        "expiration": expires,
        "invalidated": False,
        "username": who.name,
        "realm": "callboard",
        "metadata": metadata,
        "role_descriptors": roles,
        "hash": key_hash(key),
    }
    await engine.database.write(lambda transaction: transaction.put("api_key", key_id, stored))
    encoded = base64.b64encode(f"{key_id}:{key}".encode()).decode()
    answer: dict[str, Any] = {"id": key_id, "name": name, "api_key": key, "encoded": encoded}
    return Response(answer if expires is None else {**answer, "expiration": expires})


def _visible(request: Request, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    who = _who(request)
    return keys if who.may("manage_api_key") else [key for key in keys if key["username"] == who.name]


async def get_keys(engine: Engine, request: Request) -> Response:
    """GET `_security/api_key`."""
    key_id, name = request.parameters.get("id"), request.parameters.get("name")
    held = _visible(request, list(engine.catalog.names("api_key").values()))
    found = [
        {key: value for key, value in one.items() if key != "hash" and value is not None}
        for one in held
        if (key_id is None or one["id"] == key_id)
        and (name is None or matches(name, one["name"]))
        and (not request.flag("active_only") or not one["invalidated"])
        and (not request.flag("owner") or one["username"] == _who(request).name)
        and request.parameters.get("username", one["username"]) == one["username"]
    ]
    if key_id is not None and not found:
        raise resource_not_found(f"api key with id [{key_id}] not found")
    return Response({"api_keys": found})


async def invalidate_keys(engine: Engine, request: Request) -> Response:
    """DELETE `_security/api_key`."""
    body = request.required_json()
    unknown = body.keys() - {"id", "ids", "name", "owner", "realm_name", "username"}
    if unknown:
        raise ApiError(400, "x_content_parse_exception", f"[invalidate_api_key] unknown field [{min(unknown)}]")
    ids = texts(body.get("ids", [body["id"]] if body.get("id") is not None else []), "ids")
    names = texts(body.get("name", []), "name")
    username = body.get("username", _who(request).name if body.get("owner") is True else None)
    if not ids and not names and username is None:
        raise invalid_request(
            "One of [api key id(s), api key name, username, realm name] must be specified if [owner] flag is false"
        )
    allowed = {one["id"] for one in _visible(request, list(engine.catalog.names("api_key").values()))}
    if ids and not set(ids) & engine.catalog.names("api_key").keys() <= allowed:
        raise forbidden(_who(request), "manage_own_api_key", None)

    def change(transaction: Transaction) -> tuple[list[str], list[str]]:
        now_, before = [], []
        for key_id, key in list(transaction.things["api_key"].items()):
            chosen = (
                (not ids or key_id in ids)
                and (not names or key["name"] in names)
                and username in (None, key["username"])
            )
            if not chosen or key_id not in allowed:
                continue
            if key["invalidated"]:
                before.append(key_id)
                continue
            now_.append(key_id)
            transaction.put("api_key", key_id, {**key, "invalidated": True})
        return now_, before

    gone, before = await engine.database.write(change)
    return Response({"invalidated_api_keys": gone, "previously_invalidated_api_keys": before, "error_count": 0})


async def has_privileges(engine: Engine, request: Request) -> Response:
    """GET or POST `_security/user/_has_privileges`."""
    body = request.required_json()
    unknown = body.keys() - {"cluster", "index", "application"}
    if unknown:
        raise illegal_argument(f"unexpected field [{min(unknown)}] in has_privileges")
    who = _who(request)
    cluster = {privilege: who.may(privilege) for privilege in texts(body.get("cluster", []), "cluster")}
    index: dict[str, dict[str, bool]] = {}
    entries = body.get("index", [])
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict):
            raise illegal_argument("[index] must be objects")
        for name in texts(entry.get("names"), "names"):
            for privilege in texts(entry.get("privileges"), "privileges"):
                index.setdefault(name, {})[privilege] = who.may_with(name, privilege)
    if body.get("application"):
        raise illegal_argument("application privileges are not defined on this node")
    every = all(cluster.values()) and all(granted for one in index.values() for granted in one.values())
    return Response(
        {"username": who.name, "has_all_requested": every, "cluster": cluster, "index": index, "application": {}}
    )


_KEYS = frozenset(
    {"id", "name", "owner", "realm_name", "username", "active_only", "with_limited_by", "with_profile_uid"}
)

ROUTES = (
    Route("GET", "/_security/_authenticate", authenticate, FREE),
    Route("POST", "/_security/api_key", create_key, "manage_own_api_key", frozenset({"refresh"})),
    Route("PUT", "/_security/api_key", create_key, "manage_own_api_key", frozenset({"refresh"})),
    Route("GET", "/_security/api_key", get_keys, FREE, _KEYS),
    Route("DELETE", "/_security/api_key", invalidate_keys, FREE),
    Route("GET", "/_security/user/_has_privileges", has_privileges, FREE),
    Route("POST", "/_security/user/_has_privileges", has_privileges, FREE),
)
