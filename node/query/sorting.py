"""The order of hits: what a `sort` asks for, and the SQL that gives it. Pure."""

from __future__ import annotations

import math
from typing import Any

import attrs

from ..errors import ApiError, illegal_argument, not_built, parsing
from ..mapping.fields import FLOATS, Field
from ..mapping.mapping import Mapping
from .plan import Planner

_LONG_MAX = 9_223_372_036_854_775_807
INDEX_SHIFT = 40
"""`_shard_doc` of a search over several indices: the index's place above, the document's number below."""


@attrs.frozen
class SortKey:
    """One criterion. `field` may be `_score`, `_doc` and `_shard_doc`."""

    field: str
    descending: bool = False
    missing: Any = "_last"
    mode: str | None = None
    unmapped_type: str | None = None

    @property
    def is_special(self) -> bool:
        """Say whether it is no field of a document."""
        return self.field in ("_score", "_doc", "_shard_doc")


def read_sort(value: Any) -> tuple[SortKey, ...]:
    """Read the `sort` member of a body. Raises 400 or 501."""
    if value is None:
        return ()
    return tuple(_key(one) for one in (value if isinstance(value, list) else [value]))


def _key(value: Any) -> SortKey:
    if isinstance(value, str):
        return SortKey(value, descending=value == "_score")
    if not isinstance(value, dict) or len(value) != 1:
        raise parsing("[sort] takes names of fields and objects with one field each")
    ((field, how),) = value.items()
    if field in ("_script", "_geo_distance"):
        raise not_built(f"The sort [{field}]")
    if isinstance(how, str):
        return SortKey(field, descending=_order(how))
    if not isinstance(how, dict):
        raise parsing(f"[sort] on [{field}] must be an order or an object")
    for name in how:
        if name in ("nested", "numeric_type"):
            raise not_built(f"[{name}] of the sort on [{field}]")
        if name not in ("order", "missing", "mode", "unmapped_type", "format"):
            raise parsing(f"[field_sort] unknown field [{name}]")
    if how.get("format", "epoch_millis") != "epoch_millis" and how.get("format") != "strict_date_optional_time_nanos":
        raise not_built(f"[format: {how['format']}] of the sort on [{field}]")
    if how.get("format") == "strict_date_optional_time_nanos":
        raise not_built("[format: strict_date_optional_time_nanos] of a sort")
    mode = how.get("mode")
    if mode not in (None, "min", "max"):
        raise not_built(f"[mode: {mode}] of the sort on [{field}]")
    missing = how.get("missing", "_last")
    if isinstance(missing, dict | list):
        raise parsing(f"[missing] of the sort on [{field}] must be a single value")
    default = "desc" if field == "_score" else "asc"
    return SortKey(field, _order(how.get("order", default)), missing, mode, how.get("unmapped_type"))


def _order(text: Any) -> bool:
    if not isinstance(text, str) or text.lower() not in ("asc", "desc"):
        raise illegal_argument(f"No enum constant for the order [{text}]; it is asc or desc")
    return text.lower() == "desc"


@attrs.frozen
class Column:
    """One criterion as SQL. `nulls_first` is None where there is always a value."""

    expression: str
    descending: bool
    nulls_first: bool | None = None
    is_float: bool = False

    def order(self) -> str:
        """Return its part of ORDER BY."""
        direction = " DESC" if self.descending else ""
        if self.nulls_first is None:
            return f"{self.expression}{direction}"
        nulls = "IS NOT NULL" if self.nulls_first else "IS NULL"
        return f"({self.expression} {nulls}), {self.expression}{direction}"

    def after(self, planner: Planner, value: Any) -> tuple[str, str]:
        """Return the conditions "comes later than this value" and "equals it"."""
        if value is None:
            return ("0" if not self.nulls_first else f"{self.expression} IS NOT NULL", f"{self.expression} IS NULL")
        bound = planner.parameter(value)
        operator = "<" if self.descending else ">"
        later = f"{self.expression} {operator} {bound}"
        if self.nulls_first is False:
            later = f"({later} OR {self.expression} IS NULL)"
        return later, f"{self.expression} = {bound}"


def column(key: SortKey, planner: Planner, score: str, index_place: int) -> Column:
    """Return a criterion as SQL on one index. Raises 400 for a field that cannot be sorted by."""
    if key.field == "_score":
        return Column(score, key.descending, is_float=True)
    if key.field in ("_doc", "_shard_doc"):
        base = index_place << INDEX_SHIFT
        return Column(f"(d.doc + {base})" if base else "d.doc", key.descending)
    if key.field in ("_id", "_index", "_seq_no", "_version"):
        if key.field == "_seq_no":
            return Column("d.seq_no", key.descending)
        raise illegal_argument(
            f"Fielddata access on the {key.field} field is disallowed; sort by a keyword field, or by [_shard_doc] in a point in time"
        )
    field = planner.mapping.fields.get(key.field)
    if field is None:
        if key.unmapped_type is None:
            raise ApiError(400, "query_shard_exception", f"No mapping found for [{key.field}] in order to sort on")
        return _unmapped(key, planner)
    if field.type in ("text", "binary"):
        raise illegal_argument(
            f"Fielddata is disabled on [{key.field}]. {field.type.capitalize()} fields are not optimised for operations that require "
            "per-document field data like aggregations and sorting, so these operations are disabled by default. "
            "Please use a keyword field instead."
        )
    chosen = key.mode or ("max" if key.descending else "min")
    value = f"(SELECT {chosen}(value) FROM terms_{planner.number} WHERE doc = d.doc AND field = {field.number})"
    return _with_missing(key, planner, value, field.type)


def _unmapped(key: SortKey, planner: Planner) -> Column:
    kind = key.unmapped_type or "keyword"
    return _with_missing(key, planner, "NULL", kind)


def _with_missing(key: SortKey, planner: Planner, value: str, kind: str) -> Column:
    first = key.missing == "_first"
    if key.missing not in ("_first", "_last"):
        return Column(f"coalesce({value}, {planner.parameter(key.missing)})", key.descending, is_float=kind in FLOATS)
    if kind == "keyword":
        return Column(value, key.descending, nulls_first=first)
    low = first != key.descending
    if kind in FLOATS:
        return Column(f"coalesce({value}, {'-9e999' if low else '9e999'})", key.descending, is_float=True)
    return Column(f"coalesce({value}, {-_LONG_MAX - 1 if low else _LONG_MAX})", key.descending)


def shown(value: Any) -> Any:
    """Return a sort value as JSON can hold it."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def read_after(keys: tuple[SortKey, ...], value: Any, mapping: Mapping) -> list[Any]:
    """Return the values of `search_after` in the units of the columns. Raises 400."""
    found = []
    for key, one in zip(keys, value, strict=False):
        if isinstance(one, dict | list):
            raise parsing(f"[search_after] does not take an object or array for [{key.field}]")
        field = mapping.fields.get(key.field)
        if one in ("Infinity", "-Infinity"):
            found.append(float(one.replace("Infinity", "inf")))
        elif key.is_special or field is None or one is None:
            if key.is_special and (isinstance(one, bool | str) or one is None):
                raise illegal_argument(f"Failed to parse search_after value for field [{key.field}]")
            found.append(one)
        else:
            found.append(_after_value(field, one))
    return found


def _after_value(field: Field, value: Any) -> Any:
    from ..mapping.fields import Malformed, index_value

    if field.type in ("date", "boolean") and isinstance(value, int):
        return int(value)
    if isinstance(value, int) and abs(value) >= _LONG_MAX:
        return max(-_LONG_MAX - 1, min(_LONG_MAX, value))
    try:
        return index_value(field, value)
    except Malformed as error:
        raise illegal_argument(f"Failed to parse search_after value for field [{field.path}]: {error}") from error
