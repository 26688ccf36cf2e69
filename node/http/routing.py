"""From method and path to the function that answers, with what each route accepts. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import attrs

from ..errors import ApiError, not_built
from ..storage.names import check_index_name
from .messages import Request, Response

Handler: TypeAlias = Callable[[Any, Request], Awaitable[Response]]

EVERYWHERE = frozenset({"pretty", "human", "error_trace", "filter_path", "format", "source", "source_content_type"})

# Parts of Elasticsearch that are not here. A first segment that is neither here nor routed is nobody's.
LACKING = frozenset(
    [
        "_ml",
        "_ilm",
        "_slm",
        "_snapshot",
        "_transform",
        "_watcher",
        "_sql",
        "_query",
        "_eql",
        "_enrich",
        "_ccr",
        "_rollup",
        "_inference",
        "_application",
        "_query_rules",
        "_synonyms",
        "_scripts",
        "_render",
        "_msearch",
        "_termvectors",
        "_mtermvectors",
        "_nodes",
        "_tasks",
        "_reindex",
        "_field_caps",
        "_validate",
        "_rank_eval",
        "_async_search",
        "_esql",
        "_features",
        "_internal",
        "_autoscaling",
        "_migration",
        "_ssl",
        "_text_structure",
        "_searchable_snapshots",
        "_logstash",
        "_dangling",
        "_cluster",
        "_cat",
        "_security",
        "_ingest",
        "_connector",
        "_resolve",
        "_remote",
        "_health_report",
        "_profiling",
        "_fleet",
        "_analyze",
        "_cache",
        "_segments",
        "_recovery",
        "_shard_stores",
        "_upgrade",
        "_flush",
        "_forcemerge",
        "_split",
        "_shrink",
        "_clone",
        "_rollover",
        "_explain",
        "_disk_usage",
        "_field_usage_stats",
        "_search_shards",
        "_terms_enum",
        "_knn_search",
        "_block",
        "_unfreeze",
        "_mvt",
        "_lifecycle",
        "_search_template",
        "_license",
    ]
)


@attrs.frozen
class Route:
    """One entry of the table. In a template, `{name}` stands for one segment."""

    method: str
    template: str
    handler: Handler
    action: str
    """What one must be allowed to do; see `security/privileges.py`."""
    parameters: frozenset[str] = frozenset()


@attrs.define
class _Branch:
    literal: dict[str, _Branch] = attrs.Factory(dict)
    placeholder: _Branch | None = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = attrs.Factory(dict)


class Router:
    """Finds routes. Literal segments go before placeholders."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Branch()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        branch = self._root
        names: list[str] = []
        for segment in _segments(route.template):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                branch.placeholder = branch.placeholder or _Branch()
                branch = branch.placeholder
            else:
                branch = branch.literal.setdefault(segment, _Branch())
        assert route.method not in branch.routes, f"{route.method} {route.template} is routed twice"
        branch.routes[route.method] = (route, tuple(names))

    def find(self, method: str, segments: list[str], uri: str) -> tuple[Route, dict[str, str]]:
        """Return the route and its arguments. Raises 405 for another method, 501 for what is not built, 400 for the rest."""
        allowed: set[str] = set()
        for branch, values in _walk(self._root, segments, ()):
            entry = branch.routes.get(method) or (branch.routes.get("GET") if method == "HEAD" else None)
            if entry is not None:
                route, names = entry
                return route, dict(zip(names, values, strict=True))
            allowed |= branch.routes.keys()
        if any(segment in LACKING for segment in segments[:3]):
            raise not_built(f"[{method} {uri}]")
        if allowed:
            error = ApiError(
                405,
                "method_not_allowed",
                f"Incorrect HTTP method for uri [{uri}] and method [{method}], allowed: [{', '.join(sorted(allowed))}]",
            )
            error.headers["allow"] = ",".join(sorted(allowed))
            raise error
        if len(segments) == 1:
            check_index_name(segments[0])
        raise ApiError(400, "illegal_argument_exception", f"no handler found for uri [{uri}] and method [{method}]")


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


def _walk(branch: _Branch, segments: list[str], values: tuple[str, ...]) -> Iterable[tuple[_Branch, tuple[str, ...]]]:
    if not segments:
        if branch.routes:
            yield branch, values
        return
    head, rest = segments[0], segments[1:]
    inner = branch.literal.get(head)
    if inner is not None:
        yield from _walk(inner, rest, values)
    # A name never begins with `_`, except for "all indices".
    first_of_reserved = not values and head.startswith("_") and head != "_all"
    if branch.placeholder is not None and not (first_of_reserved and _is_root(branch)):
        yield from _walk(branch.placeholder, rest, (*values, head))


def _is_root(branch: _Branch) -> bool:
    return "_search" in branch.literal
