"""From the JSON of the query language to query values. Unknown queries and parameters are refused, never passed over. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from ..errors import ApiError, not_built, parsing
from . import query_string
from .tree import All, Best, Bool, Constant, Exists, Ids, Match, MultiMatch, Nothing, Pattern, Query, Range, Terms

DEPTH_MAX = 30
TERMS_MAX = 65_536
_LACKING = frozenset(
    [
        "nested",
        "has_child",
        "has_parent",
        "parent_id",
        "percolate",
        "script",
        "script_score",
        "function_score",
        "more_like_this",
        "fuzzy",
        "regexp",
        "intervals",
        "span_term",
        "span_near",
        "span_or",
        "span_not",
        "span_first",
        "span_multi",
        "span_containing",
        "span_within",
        "geo_distance",
        "geo_bounding_box",
        "geo_shape",
        "geo_polygon",
        "shape",
        "knn",
        "semantic",
        "sparse_vector",
        "text_expansion",
        "rank_feature",
        "distance_feature",
        "pinned",
        "rule",
        "weighted_tokens",
        "wrapper",
        "combined_fields",
        "boosting",
        "terms_set",
        "simple_query_string",
    ]
)
_NAMED = {"boost", "_name"}
_MATCH_KEYS = {
    "query",
    "operator",
    "minimum_should_match",
    "lenient",
    "analyzer",
    "zero_terms_query",
    "auto_generate_synonyms_phrase_query",
}
_FUZZY_KEYS = {
    "fuzziness",
    "prefix_length",
    "max_expansions",
    "fuzzy_transpositions",
    "fuzzy_rewrite",
    "cutoff_frequency",
}


def parse_query(body: Any, depth: int = 0) -> Query:
    """Read one query. Raises 400 for what is wrong and 501 for what this node lacks."""
    if depth > DEPTH_MAX:
        raise illegal(f"The query is nested more than {DEPTH_MAX} levels deep")
    if not isinstance(body, dict):
        raise parsing(f"[query] malformed, expected an object but found {_kind(body)}")
    if not body:
        raise illegal("query malformed, empty clause found")
    if len(body) > 1:
        raise parsing(f"[{next(iter(body))}] malformed query, expected [END_OBJECT] but found [FIELD_NAME]")
    ((name, inner),) = body.items()
    reader = _READERS.get(name)
    if reader is None:
        if name in _LACKING:
            raise not_built(f"The query [{name}]")
        raise parsing(f"unknown query [{name}]")
    if not isinstance(inner, dict):
        raise parsing(f"[{name}] query malformed, no start_object after query name")
    return reader(inner, depth)


def illegal(reason: str) -> ApiError:
    """Return the 400 for a query body that contradicts itself."""
    return ApiError(400, "illegal_argument_exception", reason)


def _kind(value: Any) -> str:
    return {dict: "START_OBJECT", list: "START_ARRAY", str: "VALUE_STRING", bool: "VALUE_BOOLEAN"}.get(
        type(value), "VALUE_NULL" if value is None else "VALUE_NUMBER"
    )


def only(name: str, body: dict[str, Any], known: set[str]) -> None:
    """Refuse parameters that the query does not have."""
    for key in body:
        if key not in known and key not in _NAMED:
            raise parsing(f"[{name}] query does not support [{key}]")


def boost(name: str, body: dict[str, Any]) -> float:
    """Return the boost of a query body."""
    return number(name, "boost", body.get("boost", 1.0))


def number(name: str, key: str, value: Any) -> float:
    """Return a number that is not negative. Raises 400."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise parsing(f"[{name}] [{key}] must be a number, not [{value}]") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise illegal(f"[{name}] [{key}] must be a number that is not negative, not [{value}]")
    return float(value)


def flag(name: str, key: str, body: dict[str, Any]) -> bool:
    """Return a flag of a query body; absent is false. Raises 400."""
    value = body.get(key, False)
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    raise parsing(f"[{name}] [{key}] must be true or false, not [{value}]")


def _field_of(name: str, body: dict[str, Any], shorthand: str) -> tuple[str, dict[str, Any]]:
    fields = [key for key in body if key not in _NAMED]
    if len(fields) != 1:
        raise parsing(f"[{name}] query needs exactly one field, found [{', '.join(fields)}]")
    value = body[fields[0]]
    outer = {key: body[key] for key in _NAMED if key in body}
    return fields[0], {**outer, **value} if isinstance(value, dict) else {**outer, shorthand: value}


def _match_all(body: dict[str, Any], depth: int) -> Query:
    only("match_all", body, set())
    return All(boost=boost("match_all", body))


def _match_none(body: dict[str, Any], depth: int) -> Query:
    only("match_none", body, set())
    return Nothing()


def _scalar(name: str, field: str, value: Any) -> Any:
    if isinstance(value, dict | list):
        raise parsing(f"[{name}] query does not support an object or array as the value of [{field}]")
    if value is None:
        raise illegal("value cannot be null")
    return value


def _term(body: dict[str, Any], depth: int) -> Query:
    field, inner = _field_of("term", body, "value")
    only("term", inner, {"value", "case_insensitive"})
    value = _scalar("term", field, inner.get("value"))
    weight = boost("term", inner)
    if field == "_id":
        return Ids(values=(str(value),), boost=weight)
    return Terms(field=field, values=(value,), ignore_case=flag("term", "case_insensitive", inner), boost=weight)


def _terms(body: dict[str, Any], depth: int) -> Query:
    fields = [key for key in body if key not in _NAMED]
    if len(fields) != 1:
        raise parsing("[terms] query requires exactly one field")
    values = body[fields[0]]
    if isinstance(values, dict):
        raise not_built("The terms lookup of [terms]")
    if not isinstance(values, list):
        raise parsing(f"[terms] query does not support [{fields[0]}] with a value that is no array")
    if len(values) > TERMS_MAX:
        raise illegal(
            f"The number of terms [{len(values)}] used in the Terms Query request has exceeded the allowed maximum of [{TERMS_MAX}]"
        )
    checked = tuple(_scalar("terms", fields[0], value) for value in values)
    if fields[0] == "_id":
        return Ids(values=tuple(str(value) for value in checked), boost=boost("terms", body))
    return Terms(field=fields[0], values=checked, boost=boost("terms", body))


def _range(body: dict[str, Any], depth: int) -> Query:
    field, inner = _field_of("range", body, "")
    bounds = {"gt", "gte", "lt", "lte"}
    if inner.get("time_zone") not in (None, "UTC", "Z", "+00:00"):
        raise not_built("[time_zone] of [range]")
    if "relation" in inner:
        raise not_built("[relation] of [range]")
    if str(inner.get("format", "strict_date_optional_time")).split("||")[0] not in (
        "strict_date_optional_time",
        "epoch_millis",
    ):
        raise not_built(f"[format: {inner['format']}] of [range]")
    only("range", inner, bounds | {"time_zone", "format"})
    for key in bounds & inner.keys():
        if isinstance(inner[key], dict | list):
            raise parsing(f"[range] query does not support an object or array as [{key}]")
    return Range(field=field, **{key: inner[key] for key in bounds & inner.keys()}, boost=boost("range", inner))


def _exists(body: dict[str, Any], depth: int) -> Query:
    only("exists", body, {"field"})
    return Exists(field=_text("exists", body, "field"), boost=boost("exists", body))


def _text(name: str, body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise parsing(f"[{name}] must be provided with a [{key}]")
    return value


def _ids(body: dict[str, Any], depth: int) -> Query:
    only("ids", body, {"values"})
    values = body.get("values")
    if isinstance(values, str | int):
        values = [values]
    if not isinstance(values, list) or not all(isinstance(doc_id, str | int) for doc_id in values):
        raise parsing("[ids] query requires [values], an array of document ids")
    return Ids(values=tuple(str(doc_id) for doc_id in values), boost=boost("ids", body))


def _pattern(name: str, key: str, prefix: bool) -> Callable[[dict[str, Any], int], Query]:
    def read(body: dict[str, Any], depth: int) -> Query:
        field, inner = _field_of(name, body, key)
        only(name, inner, {key, "wildcard", "value", "case_insensitive", "rewrite"})
        value = inner.get(key, inner.get("wildcard"))
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise illegal(f"[{name}] query on field [{field}] needs text as its value")
        text = str(value)
        return Pattern(
            field=field,
            pattern=query_string.escaped_pattern(text) + "*" if prefix else text,
            ignore_case=flag(name, "case_insensitive", inner),
            boost=boost(name, inner),
        )

    return read


def _every(name: str, body: dict[str, Any]) -> bool:
    operator = body.get("operator", "or")
    if not isinstance(operator, str) or operator.lower() not in ("or", "and"):
        raise illegal(f"[{name}] operator needs to be either OR or AND, but not [{operator}]")
    return operator.lower() == "and"


def should_match(name: str, body: dict[str, Any]) -> str | None:
    """Return `minimum_should_match` as text."""
    value = body.get("minimum_should_match")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise illegal(f"[{name}] minimum_should_match must be a number or text")
    return str(value)


def _refuse_fuzzy(name: str, body: dict[str, Any]) -> None:
    lacking = _FUZZY_KEYS & body.keys()
    if "fuzziness" in lacking and str(body["fuzziness"]) == "0":
        lacking.remove("fuzziness")
    if lacking & {"fuzziness", "cutoff_frequency"}:
        raise not_built(f"[{min(lacking)}] of [{name}]")
    if body.get("zero_terms_query", "none") != "none":
        raise not_built(f"[zero_terms_query] of [{name}]")
    if body.get("analyzer", "standard") not in ("standard", None):
        raise not_built(f"[analyzer] of [{name}]")


Kind = Literal["words", "phrase", "phrase_prefix", "words_prefix"]


def _match(name: str, kind: Kind) -> Callable[[dict[str, Any], int], Query]:
    def read(body: dict[str, Any], depth: int) -> Query:
        field, inner = _field_of(name, body, "query")
        _refuse_fuzzy(name, inner)
        if inner.get("slop", 0) not in (0, "0"):
            raise not_built(f"[slop] of [{name}]")
        only(name, inner, _MATCH_KEYS | _FUZZY_KEYS | ({"slop"} if "phrase" in kind else set()))
        return Match(
            field=field,
            text=_scalar(name, field, inner.get("query")),
            kind=kind,
            every=_every(name, inner),
            should_match=should_match(name, inner),
            lenient=flag(name, "lenient", inner),
            boost=boost(name, inner),
        )

    return read


_MULTI_KINDS: dict[str, Kind] = {
    "best_fields": "words",
    "most_fields": "words",
    "cross_fields": "words",
    "phrase": "phrase",
    "phrase_prefix": "phrase_prefix",
    "bool_prefix": "words_prefix",
}


def _fields(name: str, body: dict[str, Any]) -> tuple[str, ...]:
    fields = body.get("fields", [])
    if isinstance(fields, str):
        fields = [fields]
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise parsing(f"[{name}] query requires [fields] to be an array of texts")
    for field in fields:
        query_string.field_and_boost(field)
    return tuple(fields)


def _multi_match(body: dict[str, Any], depth: int) -> Query:
    name = "multi_match"
    _refuse_fuzzy(name, body)
    only(name, body, _MATCH_KEYS | _FUZZY_KEYS | {"fields", "type", "tie_breaker", "slop"})
    if body.get("slop", 0) != 0:
        raise not_built("[slop] of [multi_match]")
    kind = body.get("type", "best_fields")
    if not isinstance(kind, str) or kind not in _MULTI_KINDS:
        raise parsing(f"failed to parse [multi_match] query type [{kind}]. unknown type.")
    default_tie = 1.0 if kind in ("most_fields", "bool_prefix") else 0.0
    return MultiMatch(
        fields=_fields(name, body),
        text=_scalar(name, "query", body.get("query")),
        kind=_MULTI_KINDS[kind],
        every=_every(name, body),
        should_match=should_match(name, body),
        lenient=flag(name, "lenient", body),
        tie_breaker=number(name, "tie_breaker", body.get("tie_breaker", default_tie)),
        any_field=kind == "cross_fields",
        boost=boost(name, body),
    )


def _bool(body: dict[str, Any], depth: int) -> Query:
    only("bool", body, {"must", "filter", "should", "must_not", "minimum_should_match", "adjust_pure_negative"})

    def clauses(key: str) -> tuple[Query, ...]:
        value = body.get(key, [])
        return tuple(parse_query(one, depth + 1) for one in (value if isinstance(value, list) else [value]))

    return Bool(
        must=clauses("must"),
        filter=clauses("filter"),
        should=clauses("should"),
        must_not=clauses("must_not"),
        should_match=should_match("bool", body),
        boost=boost("bool", body),
    )


def _constant_score(body: dict[str, Any], depth: int) -> Query:
    only("constant_score", body, {"filter"})
    if "filter" not in body:
        raise parsing("[constant_score] requires a 'filter' element")
    return Constant(inner=parse_query(body["filter"], depth + 1), boost=boost("constant_score", body))


def _dis_max(body: dict[str, Any], depth: int) -> Query:
    only("dis_max", body, {"queries", "tie_breaker"})
    queries = body.get("queries")
    if not isinstance(queries, list) or not queries:
        raise parsing("[dis_max] requires 'queries' field with at least one clause")
    return Best(
        queries=tuple(parse_query(one, depth + 1) for one in queries),
        tie_breaker=number("dis_max", "tie_breaker", body.get("tie_breaker", 0.0)),
        boost=boost("dis_max", body),
    )


def _query_string(body: dict[str, Any], depth: int) -> Query:
    name = "query_string"
    _refuse_fuzzy(name, {key: value for key, value in body.items() if key != "fuzziness"})
    known = {
        "query",
        "fields",
        "default_field",
        "default_operator",
        "lenient",
        "minimum_should_match",
        "analyze_wildcard",
    }
    known |= {
        "allow_leading_wildcard",
        "tie_breaker",
        "type",
        "auto_generate_synonyms_phrase_query",
        "escape",
        "analyzer",
    }
    only(name, body, known)
    if body.get("type", "best_fields") != "best_fields" or flag(name, "escape", body):
        raise not_built("[type] and [escape] of [query_string]")
    fields = _fields(name, body)
    default = body.get("default_field")
    if default is not None:
        if fields or not isinstance(default, str):
            raise parsing("[query_string] cannot use [default_field] in conjunction with [fields]")
        fields = (default,)
    query = query_string.parse_query_string(
        _text(name, body, "query"),
        fields=fields or ("*",),
        every=_every(name, {"operator": body.get("default_operator", "or")}),
        lenient=flag(name, "lenient", body) or not fields or fields == ("*",),
        tie_breaker=number(name, "tie_breaker", body.get("tie_breaker", 0.0)),
        leading_wildcard=body.get("allow_leading_wildcard", True) is not False,
        should_match=should_match(name, body),
    )
    weight = boost(name, body)
    return query if weight == 1.0 else Bool(must=(query,), boost=weight)


_READERS: dict[str, Callable[[dict[str, Any], int], Query]] = {
    "match_all": _match_all,
    "match_none": _match_none,
    "term": _term,
    "terms": _terms,
    "range": _range,
    "exists": _exists,
    "ids": _ids,
    "prefix": _pattern("prefix", "value", prefix=True),
    "wildcard": _pattern("wildcard", "value", prefix=False),
    "match": _match("match", "words"),
    "match_phrase": _match("match_phrase", "phrase"),
    "match_phrase_prefix": _match("match_phrase_prefix", "phrase_prefix"),
    "match_bool_prefix": _match("match_bool_prefix", "words_prefix"),
    "multi_match": _multi_match,
    "bool": _bool,
    "constant_score": _constant_score,
    "dis_max": _dis_max,
    "query_string": _query_string,
}
