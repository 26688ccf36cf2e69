"""Templates: what a new index gets from them. Pure."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from typing import Any

import attrs

from ..errors import ApiError, illegal_argument, not_built
from ..mapping.tree import Tree, merge, normalise_root
from .names import check_alias_name, matches
from .settings import flatten

_BODY_KEYS = {"settings", "mappings", "aliases"}


@attrs.frozen
class Blueprint:
    """What a new index is made of."""

    settings: dict[str, Any]
    mappings: Tree
    aliases: dict[str, dict[str, Any]]


def read_blueprint(body: Any, what: str = "create index") -> Blueprint:
    """Read `settings`, `mappings` and `aliases`. Raises 400 or 501."""
    if not isinstance(body, dict):
        raise illegal_argument(f"[{what}] expects an object")
    unknown = body.keys() - _BODY_KEYS
    if unknown & {"lifecycle", "data_stream_options"}:
        raise not_built(f"[{min(unknown)}] of a template")
    if unknown:
        raise ApiError(400, "parse_exception", f"unknown key [{min(unknown)}] for {what}")
    return Blueprint(
        settings=flatten(body.get("settings") or {}),
        mappings=normalise_root(body.get("mappings") or {}),
        aliases=read_aliases(body.get("aliases") or {}),
    )


def read_aliases(body: Any) -> dict[str, dict[str, Any]]:
    """Read the aliases of an index or template. Raises 400."""
    if not isinstance(body, dict):
        raise illegal_argument("aliases must be an object")
    found = {}
    for name, about in body.items():
        check_alias_name(name)
        found[name] = read_alias(about)
    return found


def read_alias(about: Any) -> dict[str, Any]:
    """Read what is said of one alias. Raises 400 or 501."""
    if about is None:
        return {}
    if not isinstance(about, dict):
        raise illegal_argument("an alias must be an object")
    for key in about:
        if key in ("routing", "index_routing", "search_routing"):
            raise not_built("Routing of aliases")
        if key not in ("filter", "is_write_index", "is_hidden"):
            raise illegal_argument(f"Unknown field [{key}] in alias")
    return {key: value for key, value in about.items() if value is not None}


def _patterns(body: MappingOf[str, Any]) -> list[str]:
    patterns = body.get("index_patterns", [])
    return [patterns] if isinstance(patterns, str) else list(patterns)


def matching_template(name: str, templates: MappingOf[str, Any]) -> tuple[str, Any] | None:
    """Return the index template of the highest priority that is for this name."""
    fitting = [
        (template.get("priority") or 0, found, template)
        for found, template in templates.items()
        if any(matches(pattern, name) for pattern in _patterns(template))
    ]
    if not fitting:
        return None
    _, found, template = max(fitting, key=lambda one: one[0])
    return found, template


def compose(name: str, asked: Blueprint, things: MappingOf[str, MappingOf[str, Any]]) -> Blueprint:
    """Return what a new index is made of: component templates, then the index template, then the request."""
    layers: list[Blueprint] = []
    hit = matching_template(name, things["index_template"])
    if hit is not None:
        _, template = hit
        if "data_stream" in template:
            raise not_built(f"A data stream (the template for [{name}] asks for one)")
        layers += [
            read_blueprint(things["component_template"][one]["template"])
            for one in template.get("composed_of", ())
            if one in things["component_template"]
        ]
        layers.append(read_blueprint(template.get("template") or {}))
    else:
        legacy = [
            (template.get("order") or 0, found, template)
            for found, template in things["template"].items()
            if any(matches(pattern, name) for pattern in _patterns(template))
        ]
        for _, _, template in sorted(legacy, key=lambda one: (one[0], one[1])):
            layers.append(read_blueprint({key: template[key] for key in _BODY_KEYS if key in template}))
    layers.append(asked)
    settings: dict[str, Any] = {}
    mappings: Tree = {}
    aliases: dict[str, dict[str, Any]] = {}
    for layer in layers:
        settings |= layer.settings
        mappings = merge(mappings, layer.mappings)
        aliases |= layer.aliases
    aliases = {alias.replace("{index}", name): about for alias, about in aliases.items()}
    settings.setdefault("number_of_shards", "1")
    settings.setdefault("number_of_replicas", "1")
    return Blueprint({key: value for key, value in settings.items() if value is not None}, mappings, aliases)
