"""`_search`, `_count`, points in time and scrolls."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import orjson

from ...runtime import now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, invalid_request, not_built
from ..http.messages import Request, Response
from ..http.routing import Route
from ..query.highlight import highlight, wanted_words
from ..query.parse import parse_query
from ..query.request import SearchRequest, query_of_parameters, read_search
from ..query.tree import All
from ..security.guard import require
from ..storage.documents import PRIMARY_TERM
from ..storage.search import Found, Page, Target, count, fetch, order, search, shown_sort
from ..storage.snapshots import ScrollState, read_keep_alive_s
from .documents import source_filter

_SCROLL_HITS_MAX = 5_000_000


def shards(targets: Sequence[Any], *, skipped: bool = True) -> dict[str, int]:
    """Return the shard counts of an answer; every index is one shard."""
    counts = {"total": len(targets), "successful": len(targets)}
    return counts | ({"skipped": 0} if skipped else {}) | {"failed": 0}


def _search_request(request: Request) -> SearchRequest:
    body = dict(request.json())
    for name in ("from", "size"):
        if name in request.parameters:
            body[name] = request.integer(name)
    if "sort" in request.parameters:
        body["sort"] = [_sort_parameter(part) for part in request.names("sort")]
    for name in ("track_total_hits", "version", "seq_no_primary_term", "track_scores", "explain"):
        if name in request.parameters:
            value = request.parameters[name]
            body[name] = int(value) if value.lstrip("-").isdigit() and len(value) < 12 else request.flag(name)
    for name in ("routing", "stored_fields", "docvalue_fields", "suggest_field", "terminate_after"):
        if request.parameters.get(name):
            raise not_built(f"The parameter [{name}] of a search")
    if request.parameters.get("search_type", "query_then_fetch") not in ("query_then_fetch", "dfs_query_then_fetch"):
        raise illegal_argument(f"No search type for [{request.parameters['search_type']}]")
    found = read_search(body, scroll="scroll" in request.parameters)
    if any(name.startswith("_source") for name in request.parameters):
        found = attrs.evolve(found, source=source_filter(request, body.get("_source")))
    query = query_of_parameters(request.parameters)
    return found if query is None else attrs.evolve(found, query=query)


def _sort_parameter(text: str) -> Any:
    field, colon, order = text.rpartition(":")
    return {field: order} if colon and order in ("asc", "desc") else text


async def search_documents(engine: Engine, request: Request) -> Response:
    """GET or POST `_search`."""
    started = now()
    asked = _search_request(request)
    if asked.pit is None:
        # A point in time was allowed when it was opened, and nobody can guess its id.
        require(request.principal, "read", request.arguments.get("index"))
    total_as_number = request.flag("rest_total_hits_as_int")
    if "scroll" in request.parameters:
        return await _open_scroll(engine, request, asked, started)
    if asked.pit is not None:
        if "index" in request.arguments:
            raise invalid_request(
                "[indices] cannot be used with point in time. Do not specify any index with point in time."
            )
        keep_alive = None if asked.pit_keep_alive is None else read_keep_alive_s(asked.pit_keep_alive)
        context = await engine.snapshots.use(asked.pit, keep_alive)
        targets = context.targets
    else:
        await engine.snapshots.expire()
        targets = engine.targets(request)
        if any(key.field == "_shard_doc" for key in asked.sort):
            raise invalid_request("[_shard_doc] sort field cannot be used without [point in time]")
    page, hits = await engine.database.read(_search, targets, asked, started, asked.pit is not None)
    answer: dict[str, Any] = {} if asked.pit is None else {"pit_id": asked.pit}
    answer |= {"took": _took_ms(started), "timed_out": False, "_shards": shards(targets)}
    answer["hits"] = _outer(page, hits, total_as_number)
    return Response(answer)


def _took_ms(started: datetime) -> int:
    return int((now() - started).total_seconds() * 1000)


def _outer(page: Page, hits: list[dict[str, Any]], total_as_number: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if page.total is not None:
        relation = "eq" if page.is_exact else "gte"
        found["total"] = page.total if total_as_number else {"value": page.total, "relation": relation}
    return found | {"max_score": page.max_score, "hits": hits}


def _search(
    connection: sqlite3.Connection, targets: Sequence[Target], asked: SearchRequest, moment: datetime, in_pit: bool
) -> tuple[Page, list[dict[str, Any]]]:
    page = search(connection, targets, asked, moment, tie_break=in_pit)
    return page, _hits(page, asked)


def _hits(page: Page, asked: SearchRequest) -> list[dict[str, Any]]:
    words = wanted_words(asked.query) if asked.highlight else []
    shown = []
    for hit, document in zip(page.hits, page.documents, strict=True):
        one: dict[str, Any] = {"_index": hit.target.name, "_id": document.doc_id}
        if asked.version:
            one["_version"] = document.version
        if asked.seq_no:
            one["_seq_no"] = document.seq_no
            one["_primary_term"] = PRIMARY_TERM
        one["_score"] = hit.score
        if asked.source.is_whole:
            one["_source"] = orjson.Fragment(document.source)
        elif asked.source.wanted:
            one["_source"] = asked.source.apply(orjson.loads(document.source))
        if asked.highlight:
            marked = highlight(orjson.loads(document.source), hit.target.mapping, asked.highlight, words)
            if marked:
                one["highlight"] = marked
        if hit.sort:
            one["sort"] = shown_sort(hit)
        shown.append(one)
    return shown


async def count_documents(engine: Engine, request: Request) -> Response:
    """GET or POST `_count`."""
    await engine.snapshots.expire()
    body = request.json()
    unknown = body.keys() - {"query"}
    if unknown:
        raise ApiError(400, "parsing_exception", f"request does not support [{min(unknown)}]")
    for name in ("routing", "terminate_after", "min_score"):
        if request.parameters.get(name):
            raise not_built(f"The parameter [{name}] of a count")
    query = query_of_parameters(request.parameters) or (parse_query(body["query"]) if "query" in body else All())
    targets = engine.targets(request)
    found = await engine.database.read(count, targets, query, now())
    return Response({"count": found, "_shards": shards(targets)})


async def open_point_in_time(engine: Engine, request: Request) -> Response:
    """POST `{index}/_pit`."""
    if "keep_alive" not in request.parameters:
        raise invalid_request("[keep_alive] is not specified")
    keep_alive = read_keep_alive_s(request.parameters["keep_alive"])
    targets = engine.targets(request)
    body = request.json()
    unknown = body.keys() - {"index_filter"}
    if unknown:
        raise ApiError(400, "parsing_exception", f"unknown key [{min(unknown)}] for a point in time")
    if "index_filter" in body:
        query = parse_query(body["index_filter"])
        del query  # It may only spare indices work; leaving it out changes no answer.
    context = await engine.snapshots.open(targets, keep_alive)
    return Response({"id": context.context_id, "_shards": shards(targets)})


async def close_point_in_time(engine: Engine, request: Request) -> Response:
    """DELETE `_pit`."""
    body = request.required_json()
    name = body.get("id")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "parsing_exception", "[id] of the point in time is missing")
    closed = await engine.snapshots.close(name)
    return Response({"succeeded": True, "num_freed": 1 if closed else 0}, 200 if closed else 404)


async def _open_scroll(engine: Engine, request: Request, asked: SearchRequest, started: datetime) -> Response:
    keep_alive = read_keep_alive_s(request.parameters["scroll"])
    if asked.pit is not None:
        raise invalid_request("using [point in time] is not allowed in a scroll context")
    if asked.start > 0:
        raise invalid_request("using [from] is not allowed in a scroll context")
    if asked.size == 0:
        raise invalid_request("[size] cannot be [0] in a scroll context")
    targets = engine.targets(request)
    context = await engine.snapshots.open(targets, keep_alive)
    everything = attrs.evolve(asked, size=_SCROLL_HITS_MAX, start=0)
    try:
        places, docs, best = await engine.database.read(_decide, context.targets, everything, started)
    except ApiError:
        await engine.snapshots.close(context.context_id)
        raise
    context.scroll = ScrollState(places, docs, (asked, best))
    return await _scroll_page(engine, context.context_id, None, request, started)


def _decide(
    connection: sqlite3.Connection, targets: Sequence[Target], asked: SearchRequest, moment: datetime
) -> tuple[array[int], array[int], float | None]:
    """Decide all hits of a scroll at once, so that pages fit together whatever is written meanwhile."""
    hits, best = order(connection, targets, asked, moment)
    return array("H", (hit.target.place for hit in hits)), array("q", (hit.doc for hit in hits)), best


async def _scroll_page(
    engine: Engine, context_id: str, keep_alive_s: float | None, request: Request, started: datetime
) -> Response:
    context = await engine.snapshots.use(context_id, keep_alive_s)
    state = context.scroll
    if state is None:
        raise illegal_argument("this is a point in time, not a scroll")
    asked, best = state.request
    start, state.at = state.at, min(len(state.docs), state.at + asked.size)
    by_place = {target.place: target for target in context.targets}
    found = [
        Found(by_place[place], doc, None, ())
        for place, doc in zip(state.places[start : state.at], state.docs[start : state.at], strict=True)
    ]
    documents = await engine.database.read(fetch, found)
    page = Page(found, documents, len(state.docs), True, best)
    hits = _outer(page, _hits(page, asked), request.flag("rest_total_hits_as_int"))
    return Response(
        {
            "_scroll_id": context_id,
            "took": _took_ms(started),
            "timed_out": False,
            "_shards": shards(context.targets),
            "hits": hits,
        }
    )


async def next_scroll(engine: Engine, request: Request) -> Response:
    """GET or POST `_search/scroll`."""
    body = request.json()
    unknown = body.keys() - {"scroll_id", "scroll"}
    if unknown:
        raise illegal_argument(f"Unknown parameter [{min(unknown)}] in request body or parameter is of the wrong type")
    name = body.get("scroll_id", request.parameters.get("scroll_id", request.arguments.get("scroll_id")))
    if not isinstance(name, str) or not name:
        raise invalid_request("scrollId is missing")
    keep_alive = body.get("scroll", request.parameters.get("scroll"))
    if keep_alive is not None and not isinstance(keep_alive, str):
        raise illegal_argument("[scroll] must be text such as 1m")
    return await _scroll_page(
        engine, name, None if keep_alive is None else read_keep_alive_s(keep_alive), request, now()
    )


async def clear_scroll(engine: Engine, request: Request) -> Response:
    """DELETE `_search/scroll`."""
    names = request.json().get("scroll_id", request.arguments.get("scroll_id") or request.names("scroll_id"))
    listed = names.split(",") if isinstance(names, str) else names
    if not isinstance(listed, list) or not listed or not all(isinstance(one, str) for one in listed):
        raise invalid_request("no scroll ids specified")
    if listed == ["_all"]:
        freed = await engine.snapshots.close_all(scrolls=True)
        return Response({"succeeded": True, "num_freed": freed})
    closed = [await engine.snapshots.close(one) for one in listed]
    return Response({"succeeded": True, "num_freed": sum(closed)}, 200 if any(closed) else 404)


INDICES = frozenset(["expand_wildcards", "ignore_unavailable", "allow_no_indices", "ignore_throttled"])
QUERY = frozenset(["q", "df", "default_operator", "lenient", "analyzer", "analyze_wildcard"])
_SEARCH = (
    INDICES
    | QUERY
    | frozenset(
        [
            "from",
            "size",
            "sort",
            "_source",
            "_source_includes",
            "_source_excludes",
            "track_total_hits",
            "track_scores",
            "version",
            "seq_no_primary_term",
            "scroll",
            "preference",
            "routing",
            "request_cache",
            "batched_reduce_size",
            "pre_filter_shard_size",
            "max_concurrent_shard_requests",
            "typed_keys",
            "rest_total_hits_as_int",
            "timeout",
            "search_type",
            "allow_partial_search_results",
            "ccs_minimize_roundtrips",
            "explain",
            "stored_fields",
            "docvalue_fields",
            "terminate_after",
            "suggest_field",
            "suggest_mode",
            "suggest_size",
            "suggest_text",
            "stats",
        ]
    )
)
_COUNT = INDICES | QUERY | {"preference", "routing", "terminate_after", "min_score"}
_SCROLL = frozenset({"scroll", "scroll_id", "rest_total_hits_as_int"})

ROUTES = (
    *(
        Route(method, path, handler, "read", parameters)
        for method in ("GET", "POST")
        for path, handler, parameters in (
            ("/_search", search_documents, _SEARCH),
            ("/{index}/_search", search_documents, _SEARCH),
            ("/_count", count_documents, _COUNT),
            ("/{index}/_count", count_documents, _COUNT),
            ("/_search/scroll", next_scroll, _SCROLL),
            ("/_search/scroll/{scroll_id}", next_scroll, _SCROLL),
        )
    ),
    Route(
        "POST",
        "/{index}/_pit",
        open_point_in_time,
        "read",
        INDICES
        | {"keep_alive", "preference", "routing", "allow_partial_search_results", "max_concurrent_shard_requests"},
    ),
    Route("DELETE", "/_pit", close_point_in_time, "read"),
    Route("DELETE", "/_search/scroll", clear_scroll, "read", _SCROLL),
    Route("DELETE", "/_search/scroll/{scroll_id}", clear_scroll, "read", _SCROLL),
)
