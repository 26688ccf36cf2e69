"""Field types: what values a field takes and how each is indexed."""

from __future__ import annotations

import math
import re
from typing import Any

import attrs

from ..errors import ApiError, illegal_argument, not_built
from .dates import InvalidDate, read_date

INTEGERS = {"long": 63, "integer": 31, "short": 15, "byte": 7}
FLOATS = {"double": 1.7976931348623157e308, "float": 3.4028234663852886e38, "half_float": 65504.0}
NUMBERS = INTEGERS.keys() | FLOATS.keys()
TYPES = frozenset({"text", "keyword", "boolean", "date", "binary", "object"}) | NUMBERS
LACKING = frozenset(
    [
        "nested",
        "join",
        "percolator",
        "flattened",
        "ip",
        "geo_point",
        "geo_shape",
        "point",
        "shape",
        "dense_vector",
        "sparse_vector",
        "semantic_text",
        "completion",
        "search_as_you_type",
        "match_only_text",
        "wildcard",
        "constant_keyword",
        "version",
        "unsigned_long",
        "scaled_float",
        "date_nanos",
        "alias",
        "token_count",
        "rank_feature",
        "rank_features",
        "histogram",
        "aggregate_metric_double",
        "integer_range",
        "long_range",
        "float_range",
        "double_range",
        "date_range",
        "ip_range",
        "annotated_text",
        "murmur3",
        "passthrough",
        "counted_keyword",
    ]
)
_PARAMETERS = {
    "text": {"analyzer", "search_analyzer", "search_quote_analyzer", "norms", "index_options", "fielddata", "store"}
    | {"term_vector", "position_increment_gap", "similarity", "index_prefixes", "index_phrases"},
    "keyword": {"ignore_above", "doc_values", "norms", "null_value", "store", "index_options", "eager_global_ordinals"}
    | {"split_queries_on_whitespace", "similarity"},
    "date": {"format", "doc_values", "ignore_malformed", "null_value", "store"},
    "boolean": {"doc_values", "null_value", "store", "ignore_malformed"},
    "binary": {"doc_values", "store"},
    **{kind: {"coerce", "doc_values", "ignore_malformed", "null_value", "store"} for kind in NUMBERS},
}
_EVERYWHERE = {"type", "fields", "index", "copy_to", "meta", "boost"}
_ANALYZERS = {"standard", "default"}
_DATE_FORMATS = {"strict_date_optional_time", "date_optional_time", "epoch_millis", "strict_date_optional_time_nanos"}
_TERM_BYTES_MAX = 32_766
_INT_TEXT = re.compile(r"[+-]?\d+")


@attrs.define(eq=False)
class Field:
    """One indexed field or sub-field. `number` is its key in the index's tables and is never given twice."""

    path: str
    type: str
    number: int
    source_path: str
    """Where its values stand in a document: a sub-field's parent, else its own path."""
    parameters: dict[str, Any]
    text_slot: int | None = None
    """Place among the index's text columns, for analysed text."""
    ignore_above: int = 2_147_483_647
    searched: bool = True
    ignore_malformed: bool = False
    null_value: Any = None
    subfields: list[Field] = attrs.Factory(list)

    @property
    def is_number(self) -> bool:
        """Say whether values are numbers."""
        return self.type in NUMBERS


class Malformed(ValueError):
    """A value that its field cannot take."""


def check_type(path: str, spec: dict[str, Any]) -> str:
    """Return the field's type. Raises 400 for unknown types and parameters, 501 for what only Elasticsearch has."""
    kind = spec.get("type", "object")
    if not isinstance(kind, str) or kind not in TYPES:
        if kind in LACKING:
            raise not_built(f"The mapping type [{kind}] (field [{path}])")
        raise mapper_parsing(f"The mapper type [{kind}] declared on field [{path}] does not exist.")
    if kind == "object":
        return kind
    unknown = spec.keys() - _PARAMETERS[kind] - _EVERYWHERE
    if unknown & {"normalizer", "time_series_dimension", "time_series_metric", "script", "on_script_error", "locale"}:
        raise not_built(f"The mapping parameter [{min(unknown)}] (field [{path}])")
    if unknown:
        raise mapper_parsing(f"unknown parameter [{min(unknown)}] on mapper [{path}] of type [{kind}]")
    if spec.get("copy_to"):
        raise not_built(f"The mapping parameter [copy_to] (field [{path}])")
    if kind == "date" and str(spec.get("format") or "epoch_millis").split("||")[0] not in _DATE_FORMATS:
        raise not_built(f"The date format [{spec['format']}] (field [{path}])")
    for name in ("analyzer", "search_analyzer", "search_quote_analyzer"):
        if str(spec.get(name, "standard")) not in _ANALYZERS:
            raise not_built(f"The analyzer [{spec[name]}] (field [{path}])")
    above = spec.get("ignore_above", 1)
    if isinstance(above, bool) or not isinstance(above, int) or above < 1:
        raise mapper_parsing(f"Failed to parse mapping: [ignore_above] on field [{path}] must be a positive integer")
    return kind


def make_field(path: str, spec: dict[str, Any], number: int, source_path: str, text_slot: int | None) -> Field:
    """Make a field of a checked specification."""
    return Field(
        path=path,
        type=spec["type"],
        number=number,
        source_path=source_path,
        parameters={name: value for name, value in spec.items() if name != "fields"},
        text_slot=text_slot,
        ignore_above=spec.get("ignore_above", 2_147_483_647),
        searched=spec.get("index", True) is not False,
        ignore_malformed=spec.get("ignore_malformed", False) is True,
        null_value=spec.get("null_value"),
    )


def mapper_parsing(reason: str) -> ApiError:
    """Return the 400 for a mapping that is wrong."""
    return ApiError(400, "mapper_parsing_exception", reason)


def index_value(field: Field, value: Any) -> Any:
    """Return what the term index holds for one value (text, int or float). Raises `Malformed` with the reason."""
    kind = field.type
    if kind in ("keyword", "text"):
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        raise Malformed(f"Can't get text on a {_token(value)}")
    if kind in INTEGERS:
        return _integer(kind, value)
    if kind in FLOATS:
        return _float(kind, value)
    if kind == "boolean":
        if isinstance(value, bool):
            return int(value)
        if value in ("true", "false", ""):
            return int(value == "true")
        raise Malformed(f"Failed to parse value [{_shown(value)}] as only [true] or [false] are allowed.")
    if kind == "date":
        try:
            return read_date(value)
        except InvalidDate as error:
            raise Malformed(str(error)) from error
    raise Malformed(f"a field of type [{kind}] is not indexed")


def _integer(kind: str, value: Any) -> int:
    if isinstance(value, str):
        if not value.strip():
            raise Malformed("cannot parse empty String")
        try:
            number = int(value) if _INT_TEXT.fullmatch(value) else math.trunc(float(value))
        except (ValueError, OverflowError):
            raise Malformed(f'For input string: "{_shown(value)}"') from None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"Current token ({_token(value)}) not numeric, can not use numeric value accessors")
    else:
        number = math.trunc(value)
    limit = 1 << INTEGERS[kind]
    if not -limit <= number < limit:
        raise Malformed(f"Value [{_shown(value)}] is out of range for a {kind}")
    return number


def _float(kind: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Malformed(f"Current token ({_token(value)}) not numeric, can not use numeric value accessors")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Malformed(f'For input string: "{_shown(value)}"') from None
    if not math.isfinite(number) or abs(number) > FLOATS[kind]:
        raise Malformed(f"[{kind}] supports only finite values, but got [{_shown(value)}]")
    return number


def _token(value: Any) -> str:
    match value:
        case dict():
            return "START_OBJECT"
        case list():
            return "START_ARRAY"
        case bool():
            return f"VALUE_{str(value).upper()}"
        case None:
            return "VALUE_NULL"
    return "VALUE_STRING" if isinstance(value, str) else "VALUE_NUMBER"


def _shown(value: Any) -> str:
    return str(value)[:200]


def query_value(field: Field, value: Any) -> Any:
    """Return what a term query on the field looks for. Raises 400 for a value the field cannot hold."""
    if isinstance(value, dict | list) or value is None:
        raise illegal_argument(f"a query on field [{field.path}] needs a single value, not {_token(value)}")
    try:
        if field.type in INTEGERS and not isinstance(value, bool):
            # A fraction equals no integer; as a float it is compared as such and finds nothing.
            number = float(value)
            return _integer(field.type, value) if number == math.trunc(number) else number
        return index_value(field, value)
    except (Malformed, ValueError, OverflowError) as error:
        raise query_shard_error(f"failed to create query: {error}") from error


def query_shard_error(reason: str) -> ApiError:
    """Return the 400 for a query that does not suit the fields it names."""
    return ApiError(400, "query_shard_exception", reason)


def too_long_for_a_term(value: str) -> bool:
    """Say whether Elasticsearch would refuse this text as a single term."""
    return len(value) > _TERM_BYTES_MAX // 4 and len(value.encode("utf-8", "surrogatepass")) > _TERM_BYTES_MAX
