"""Index settings: which are known, how they are written, and which only Elasticsearch can honour. Pure."""

from __future__ import annotations

from typing import Any

from ..errors import ApiError, illegal_argument, not_built

# Accepted and shown again. Those of shards, replicas, caches, merging and durability change nothing on a node that has one file.
_KNOWN = frozenset(
    [
        "number_of_shards",
        "number_of_replicas",
        "refresh_interval",
        "auto_expand_replicas",
        "hidden",
        "codec",
        "priority",
        "default_pipeline",
        "final_pipeline",
        "max_result_window",
        "max_inner_result_window",
        "max_rescore_window",
        "max_docvalue_fields_search",
        "max_script_fields",
        "max_ngram_diff",
        "max_shingle_diff",
        "max_refresh_listeners",
        "max_terms_count",
        "max_regex_length",
        "number_of_routing_shards",
        "requests.cache.enable",
        "gc_deletes",
        "blocks.write",
        "blocks.read_only",
        "blocks.read_only_allow_delete",
        "blocks.metadata",
        "blocks.read",
        "mapping.total_fields.limit",
        "mapping.depth.limit",
        "mapping.nested_fields.limit",
        "mapping.nested_objects.limit",
        "mapping.field_name_length.limit",
        "mapping.coerce",
        "mapping.ignore_malformed",
        "highlight.max_analyzed_offset",
        "write.wait_for_active_shards",
        "query.default_field",
        "shard.check_on_startup",
        "load_fixed_bitset_filters_eagerly",
        "format",
        "mapper.dynamic",
    ]
)
_KNOWN_GROUPS = (
    "translog.",
    "merge.",
    "routing.",
    "unassigned.",
    "search.",
    "indexing.",
    "store.",
    "soft_deletes.",
    "lifecycle.",
)
_FIXED = frozenset({"number_of_shards", "codec", "number_of_routing_shards", "shard.check_on_startup"})
_ANALYSIS = "analysis."
_WINDOW = "10000"


def flatten(body: Any) -> dict[str, Any]:
    """Return settings flat and without the prefix `index.`, whichever way they were written. Raises 400 or 501."""
    if not isinstance(body, dict):
        raise illegal_argument("settings must be an object")
    found: dict[str, Any] = {}
    _flatten("", body, found, 0)
    checked: dict[str, Any] = {}
    for name, value in found.items():
        short = name.removeprefix("index.")
        _check(short, value)
        if isinstance(value, bool):
            value = str(value).lower()
        checked[short] = value if value is None or isinstance(value, list) else str(value)
    return checked


def _flatten(prefix: str, body: dict[str, Any], found: dict[str, Any], depth: int) -> None:
    if depth > 20:
        raise illegal_argument("settings are nested too deeply")
    for name, value in body.items():
        if isinstance(value, dict):
            _flatten(f"{prefix}{name}.", value, found, depth + 1)
        else:
            found[prefix + name] = value


def _check(name: str, value: Any) -> None:
    if name.startswith((_ANALYSIS, "sort.", "similarity.", "time_series.", "mode", "query.parse", "mapping.source")):
        raise not_built(f"The index setting [index.{name}]")
    if name not in _KNOWN and not name.startswith(_KNOWN_GROUPS):
        raise illegal_argument(
            f"unknown setting [index.{name}] please check that any required plugins are installed, or check the breaking changes "
            "documentation for removed settings"
        )
    if name == "max_result_window" and value not in (None, int(_WINDOW), _WINDOW):
        raise not_built("A [index.max_result_window] other than 10000")
    if name == "number_of_shards" and value is not None:
        _whole(name, value, 1, 1024)
    if name == "number_of_replicas" and value is not None:
        _whole(name, value, 0, 1000)
    if name == "mapping.total_fields.limit" and value is not None:
        _whole(name, value, 0, 1_000_000)
    is_flag = name.startswith("blocks.") or name == "hidden"
    if is_flag and value not in (None, True, False, "true", "false"):
        raise illegal_argument(
            f"Failed to parse value [{value}] for setting [index.{name}] as only [true] or [false] are allowed."
        )


def _whole(name: str, value: Any, low: int, high: int) -> None:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise illegal_argument(f"Failed to parse value [{value}] for setting [index.{name}]") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise illegal_argument(
            f"Failed to parse value [{value}] for setting [index.{name}] must be >= {low} and <= {high}"
        )


def changed(current: dict[str, Any], changes: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of an open index after an update; null takes one back to its default. Raises 400."""
    fixed = {key for key in _FIXED & changes.keys() if changes[key] != current.get(key)}
    if fixed:
        raise illegal_argument(f"Can't update non dynamic settings [[index.{min(fixed)}]] for open indices [[{name}]]")
    merged = {**current, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Return flat settings as nested objects, as the API shows them."""
    root: dict[str, Any] = {}
    for name in sorted(settings):
        *path, leaf = name.split(".")
        at = root
        for part in path:
            inner = at.setdefault(part, {})
            if not isinstance(inner, dict):
                # `a` and `a.b` at once: the longer one keeps its dots.
                at, leaf = root, name
                break
            at = inner
        at[leaf] = settings[name]
    return root


def write_block(settings: dict[str, Any], index: str) -> ApiError | None:
    """Return the refusal if an index takes no writes now."""
    for name, number, status, why in (
        ("blocks.read_only_allow_delete", 12, 429, "TOO_MANY_REQUESTS/12/index [read-only / allow delete (api)]"),
        ("blocks.read_only", 5, 403, "FORBIDDEN/5/index read-only (api)"),
        ("blocks.write", 8, 403, "FORBIDDEN/8/index write (api)"),
    ):
        if str(settings.get(name, "false")).lower() == "true":
            assert number
            return ApiError(status, "cluster_block_exception", f"index [{index}] blocked by: [{why}];", index=index)
    return None
