"""Index templates, component templates and the older `_template`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..engine import Engine
from ..errors import ApiError, illegal_argument, index_not_found, invalid_request, not_built, resource_not_found
from ..http.messages import Request, Response
from ..http.routing import Handler, Route
from ..storage.catalog import Transaction
from ..storage.names import matches
from ..storage.settings import nested
from ..storage.templates import Blueprint, compose, matching_template, read_blueprint

_INDEX_KEYS = {
    "index_patterns",
    "template",
    "composed_of",
    "priority",
    "version",
    "_meta",
    "data_stream",
    "allow_auto_create",
}
_INDEX_KEYS |= {"ignore_missing_component_templates", "deprecated"}
_PARAMETERS = frozenset(
    {"master_timeout", "timeout", "create", "cause", "flat_settings", "local", "include_defaults", "order"}
)


def _patterns(body: dict[str, Any]) -> list[str]:
    patterns = body.get("index_patterns", [])
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list) or not listed or not all(isinstance(one, str) and one for one in listed):
        raise invalid_request("index patterns are missing")
    return listed


def _shown(template: dict[str, Any]) -> dict[str, Any]:
    """Return settings and aliases in the form in which the API shows them."""
    blueprint = read_blueprint(template)
    found: dict[str, Any] = {}
    if "settings" in template:
        found["settings"] = nested({f"index.{name}": value for name, value in blueprint.settings.items()})
    if "mappings" in template:
        found["mappings"] = blueprint.mappings
    if "aliases" in template:
        found["aliases"] = blueprint.aliases
    return found


def _read_index_template(body: dict[str, Any], transaction: Transaction, name: str) -> dict[str, Any]:
    unknown = body.keys() - _INDEX_KEYS
    if unknown:
        raise ApiError(400, "x_content_parse_exception", f"[index_template] unknown field [{min(unknown)}]")
    patterns = _patterns(body)
    if "data_stream" in body:
        raise not_built("A data stream template")
    read_blueprint(body.get("template") or {}, "index template")
    composed = body.get("composed_of", [])
    if not isinstance(composed, list) or not all(isinstance(one, str) for one in composed):
        raise illegal_argument("[composed_of] must be a list of names")
    ignored = body.get("ignore_missing_component_templates", [])
    missing = [one for one in composed if one not in transaction.things["component_template"] and one not in ignored]
    if missing:
        raise illegal_argument(f"index template [{name}] specifies component templates {missing} that do not exist")
    priority = body.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or priority < 0:
        raise illegal_argument("index template priority must be >= 0")
    for other, template in transaction.things["index_template"].items():
        same = set(patterns) & set(template["index_patterns"])
        if other != name and same and (template.get("priority") or 0) == priority:
            raise illegal_argument(
                f"index template [{name}] has index patterns {patterns} matching patterns from existing templates [{other}] with "
                f"patterns ({other} => {template['index_patterns']}) that have the same priority [{priority}], multiple index templates "
                "may not match during index creation, please use a different priority"
            )
    stored = {**body, "index_patterns": patterns, "composed_of": composed}
    if "template" in body:
        stored["template"] = _shown(body["template"] or {})
    return stored


def _read_component(body: dict[str, Any], transaction: Transaction, name: str) -> dict[str, Any]:
    unknown = body.keys() - {"template", "version", "_meta", "deprecated", "allow_auto_create"}
    if unknown:
        raise ApiError(400, "x_content_parse_exception", f"[component_template] unknown field [{min(unknown)}]")
    if not isinstance(body.get("template"), dict):
        raise ApiError(400, "x_content_parse_exception", "Required [template]")
    read_blueprint(body["template"], "component template")
    return {**body, "template": _shown(body["template"])}


def _read_legacy(body: dict[str, Any], transaction: Transaction, name: str) -> dict[str, Any]:
    unknown = body.keys() - {"index_patterns", "order", "version", "settings", "mappings", "aliases"}
    if unknown:
        raise illegal_argument(f"unknown key [{min(unknown)}] in the template ")
    order = body.get("order", 0)
    if isinstance(order, bool) or not isinstance(order, int):
        raise illegal_argument("[order] must be a number")
    inner = {
        "settings": body.get("settings") or {},
        "mappings": body.get("mappings") or {},
        "aliases": body.get("aliases") or {},
    }
    return {
        "order": order,
        **({"version": body["version"]} if "version" in body else {}),
        "index_patterns": _patterns(body),
        **_shown(inner),
    }


Read = Callable[[dict[str, Any], Transaction, str], dict[str, Any]]


def _put(kind: str, read: Read) -> Handler:
    async def put(engine: Engine, request: Request) -> Response:
        name, body = request.arguments["name"], request.required_json()
        if not name or any(letter in name for letter in ' ,#*\\/?"<>|') or name.startswith("_") or name.lower() != name:
            raise invalid_request(f"name [{name}] is not a legal name of a template")
        only_new = request.flag("create")

        def change(transaction: Transaction) -> None:
            if only_new and name in transaction.things[kind]:
                raise illegal_argument(f"{kind.replace('_', ' ')} [{name}] already exists")
            transaction.put(kind, name, read(body, transaction, name))

        await engine.database.write(change)
        return Response({"acknowledged": True})

    return put


def _chosen(engine: Engine, kind: str, request: Request) -> dict[str, Any]:
    asked = request.arguments.get("name")
    held = engine.catalog.names(kind)
    if asked is None:
        return dict(held)
    found = {name: body for name, body in held.items() if any(matches(one, name) for one in asked.split(","))}
    if not found and "*" not in asked:
        raise resource_not_found(f"{kind.replace('_', ' ')} matching [{asked}] not found")
    return found


def _get(kind: str) -> Callable[[Engine, Request], Awaitable[Response]]:
    async def get(engine: Engine, request: Request) -> Response:
        if kind == "template":
            asked = request.arguments.get("name", "*").split(",")
            held = {
                name: body
                for name, body in engine.catalog.names(kind).items()
                if any(matches(one, name) for one in asked)
            }
            # Elasticsearch answers so for its older templates: an empty body with 404.
            return Response(
                held, 200 if held or "name" not in request.arguments or "*" in request.arguments["name"] else 404
            )
        listed = [{"name": name, kind: body} for name, body in _chosen(engine, kind, request).items()]
        return Response({f"{kind}s": listed})

    return get


def _delete(kind: str) -> Handler:
    async def delete(engine: Engine, request: Request) -> Response:
        asked = request.arguments["name"].split(",")

        def change(transaction: Transaction) -> None:
            held = transaction.things[kind]
            gone = [name for name in held if any(matches(one, name) for one in asked)]
            missing = [one for one in asked if "*" not in one and one not in held]
            if missing:
                if kind == "template":
                    raise ApiError(404, "index_template_missing_exception", f"index_template [{missing[0]}] missing")
                raise resource_not_found(f"{','.join(missing)}")
            if kind == "component_template":
                used = [
                    (name, template)
                    for template, body in transaction.things["index_template"].items()
                    for name in gone
                    if name in body.get("composed_of", ())
                ]
                if used:
                    raise illegal_argument(
                        f"component templates [{used[0][0]}] cannot be removed as they are still in use by index templates [{used[0][1]}]"
                    )
            for name in gone:
                transaction.remove(kind, name)

        await engine.database.write(change)
        return Response({"acknowledged": True})

    return delete


async def simulate_index(engine: Engine, request: Request) -> Response:
    """POST `_index_template/_simulate_index/{name}`."""
    name = request.arguments["name"]
    if matching_template(name, engine.catalog.names("index_template")) is None:
        raise index_not_found(name)
    made = compose(name, Blueprint({}, {}, {}), engine.catalog.things)
    settings = nested({f"index.{key}": value for key, value in made.settings.items()})
    return Response(
        {"template": {"settings": settings, "mappings": made.mappings, "aliases": made.aliases}, "overlapping": []}
    )


def _routes(path: str, kind: str, read: Read) -> list[Route]:
    put, get = _put(kind, read), _get(kind)
    return [
        Route("PUT", f"{path}/{{name}}", put, "manage_templates", _PARAMETERS),
        Route("POST", f"{path}/{{name}}", put, "manage_templates", _PARAMETERS),
        Route("GET", path, get, "monitor", _PARAMETERS),
        Route("GET", f"{path}/{{name}}", get, "monitor", _PARAMETERS),
        Route("DELETE", f"{path}/{{name}}", _delete(kind), "manage_templates", _PARAMETERS),
    ]


ROUTES = (
    *_routes("/_index_template", "index_template", _read_index_template),
    *_routes("/_component_template", "component_template", _read_component),
    *_routes("/_template", "template", _read_legacy),
    Route("POST", "/_index_template/_simulate_index/{name}", simulate_index, "monitor", _PARAMETERS),
)
