"""A search request as a value: everything a body and the parameters of `_search` may ask for. Pure."""

from __future__ import annotations

from typing import Any

import attrs

from ..errors import ApiError, illegal_argument, invalid_request, not_built, parsing
from .highlight import FieldHighlight, read_highlight
from .parse import parse_query
from .query_string import parse_query_string
from .sorting import SortKey, read_sort
from .source import SourceFilter, read_source_filter
from .tree import All, Query

WINDOW_MAX = 10_000
TOTAL_DEFAULT = 10_000
_LACKING = frozenset(
    [
        "aggs",
        "aggregations",
        "knn",
        "suggest",
        "rescore",
        "collapse",
        "script_fields",
        "runtime_mappings",
        "fields",
        "docvalue_fields",
        "stored_fields",
        "profile",
        "explain",
        "indices_boost",
        "slice",
        "terminate_after",
        "rank",
        "retriever",
        "ext",
        "sub_searches",
    ]
)
_KNOWN = frozenset(
    [
        "query",
        "post_filter",
        "from",
        "size",
        "sort",
        "search_after",
        "_source",
        "track_total_hits",
        "track_scores",
        "highlight",
        "version",
        "seq_no_primary_term",
        "min_score",
        "pit",
        "timeout",
        "stats",
    ]
)
_HARMLESS = {
    "explain": False,
    "profile": False,
    "terminate_after": 0,
    "stored_fields": [],
    "docvalue_fields": [],
    "fields": [],
}


@attrs.frozen(kw_only=True)
class SearchRequest:
    """What is looked for and how it is shown."""

    query: Query = All()
    post_filter: Query | None = None
    start: int = 0
    size: int = 10
    sort: tuple[SortKey, ...] = ()
    after: tuple[Any, ...] | None = None
    source: SourceFilter = SourceFilter()
    total_limit: int | None = TOTAL_DEFAULT
    """Count hits up to here; None counts all, 0 none."""
    highlight: tuple[FieldHighlight, ...] = ()
    version: bool = False
    seq_no: bool = False
    min_score: float | None = None
    track_scores: bool = False
    pit: str | None = None
    pit_keep_alive: str | None = None


def read_search(body: dict[str, Any], *, scroll: bool = False) -> SearchRequest:
    """Read the body of `_search`. Raises 400 or 501."""
    for name, value in body.items():
        if name in _LACKING and not (name in _HARMLESS and value == _HARMLESS[name]):
            raise not_built(f"[{name}] in a search")
        if name not in _KNOWN and name not in _LACKING:
            raise parsing(f"unknown key [{name}] for a {_token(value)} in [{name}].")
    start, size = _whole(body, "from", 0), _whole(body, "size", 10)
    if start + size > WINDOW_MAX:
        raise illegal_argument(
            f"Result window is too large, from + size must be less than or equal to: [{WINDOW_MAX}] but was [{start + size}]. See the scroll "
            "api for a more efficient way to request large data sets. This limit can be set by changing the [index.max_result_window] "
            "index level setting."
        )
    sort = read_sort(body.get("sort"))
    after = body.get("search_after")
    if after is not None:
        if not isinstance(after, list) or not after:
            raise parsing("[search_after] must be an array with at least one value")
        if start > 0:
            raise invalid_request("`from` parameter must be set to 0 when `search_after` is used")
        if scroll:
            raise invalid_request("`search_after` cannot be used in a scroll context")
    pit, keep_alive = _pit(body.get("pit"))
    return SearchRequest(
        query=parse_query(body["query"]) if body.get("query") is not None else All(),
        post_filter=parse_query(body["post_filter"]) if body.get("post_filter") is not None else None,
        start=start,
        size=size,
        sort=sort,
        after=tuple(after) if after is not None else None,
        source=read_source_filter(body.get("_source")),
        total_limit=_total(body.get("track_total_hits", TOTAL_DEFAULT), scroll),
        highlight=read_highlight(body.get("highlight")),
        version=body.get("version") is True,
        seq_no=body.get("seq_no_primary_term") is True,
        min_score=_score(body.get("min_score")),
        track_scores=body.get("track_scores") is True,
        pit=pit,
        pit_keep_alive=keep_alive,
    )


def _token(value: Any) -> str:
    return {dict: "START_OBJECT", list: "START_ARRAY", str: "VALUE_STRING", bool: "VALUE_BOOLEAN"}.get(
        type(value), "VALUE_NULL" if value is None else "VALUE_NUMBER"
    )


def _whole(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name, default)
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise parsing(f"[{name}] must be a number")
    if value < 0:
        raise illegal_argument(f"[{name}] parameter cannot be negative, found [{value}]")
    return value


def _score(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise parsing("[min_score] must be a number")
    return float(value)


def _total(value: Any, scroll: bool) -> int | None:
    if value in ("true", "false"):
        value = value == "true"
    if scroll and value is not True and value != TOTAL_DEFAULT:
        raise invalid_request("disabling [track_total_hits] is not allowed in a scroll context")
    if value is True or scroll:
        return None
    if value is False:
        return 0
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or value < -1:
        raise illegal_argument(f"[track_total_hits] parameter must be positive or equals to -1, got {value}")
    return None if value == -1 else value


def _pit(value: Any) -> tuple[str | None, str | None]:
    if value is None:
        return None, None
    if not isinstance(value, dict) or not isinstance(value.get("id"), str) or not value["id"]:
        raise parsing("[pit] needs an [id]")
    unknown = value.keys() - {"id", "keep_alive"}
    if unknown:
        raise parsing(f"[pit] unknown field [{min(unknown)}]")
    keep_alive = value.get("keep_alive")
    if keep_alive is not None and not isinstance(keep_alive, str):
        raise parsing("[pit] [keep_alive] must be text such as 1m")
    return value["id"], keep_alive


def query_of_parameters(parameters: dict[str, str]) -> Query | None:
    """Return the query of `?q=` and its companions, or None. Raises 400."""
    if "q" not in parameters:
        return None
    if not parameters["q"].strip():
        return All()
    fields = (parameters["df"],) if "df" in parameters else ("*",)
    operator = parameters.get("default_operator", "or").lower()
    if operator not in ("and", "or"):
        raise ApiError(
            400, "illegal_argument_exception", f"Unsupported defaultOperator [{operator}], can either be [OR] or [AND]"
        )
    return parse_query_string(
        parameters["q"],
        fields=fields,
        every=operator == "and",
        lenient=fields == ("*",) or parameters.get("lenient") == "true",
    )
