"""Reading the bodies of connector requests: strict about keys and types, with errors that name the field. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...protocol import Cron, InvalidCron, JobStatus
from ..errors import ApiError, invalid_request
from ..mapping.dates import InvalidDate, read_date
from ..storage.names import check_index_name

DISPLAYS = ("text", "textbox", "textarea", "numeric", "toggle", "dropdown")
FIELD_TYPES = ("str", "int", "bool", "list")
VALIDATIONS = ("less_than", "greater_than", "list_type", "included_in", "regex")
POLICIES = ("include", "exclude")
OPERATORS = ("contains", "ends_with", "equals", ">", "<", "regex", "starts_with")
STATES = ("edited", "valid", "invalid")
FEATURES = ("document_level_security", "incremental_sync", "native_connector_api_keys", "sync_rules")
KINDS = ("full", "incremental", "access_control")

Body = dict[str, Any]


def wrong(reason: str) -> ApiError:
    """Return the 400 for a body that has the wrong shape."""
    return ApiError(400, "x_content_parse_exception", f"[1:1] {reason}")


def only(body: Body, known: Iterable[str], what: str) -> None:
    """Refuse unknown keys."""
    unknown = body.keys() - set(known)
    if unknown:
        raise wrong(f"[{what}] unknown field [{min(unknown)}]")


def required(body: Body, name: str, what: str) -> Any:
    """Return a value that must be there (it may be null)."""
    if name not in body:
        raise wrong(f"Required [{name}] is missing in [{what}]")
    return body[name]


def text(body: Body, name: str, what: str, *, nullable: bool = True) -> str | None:
    """Return a text, or None where it is absent or null."""
    value = body.get(name)
    if value is None and (nullable or name not in body):
        return None
    if not isinstance(value, str):
        raise wrong(f"[{what}] [{name}] must be text, not {_kind(value)}")
    return value


def flag(body: Body, name: str, what: str) -> bool:
    """Return a flag that must be there."""
    value = required(body, name, what)
    if not isinstance(value, bool):
        raise wrong(f"[{what}] [{name}] must be true or false, not {_kind(value)}")
    return value


def mapping(value: Any, what: str) -> Body:
    """Return an object. Raises 400 for anything else."""
    if not isinstance(value, dict):
        raise wrong(f"[{what}] must be an object, not {_kind(value)}")
    return value


def listed(value: Any, what: str) -> list[Any]:
    """Return a list. Raises 400 for anything else."""
    if not isinstance(value, list):
        raise wrong(f"[{what}] must be an array, not {_kind(value)}")
    return value


def date(value: Any, what: str) -> Any:
    """Return a date as it was given. Raises 400 if it is none."""
    try:
        read_date(value)
    except InvalidDate as error:
        raise wrong(f"[{what}] {error}") from error
    return value


def choice(value: Any, choices: Iterable[str], what: str) -> str:
    """Return one of a closed set of words. Raises 400 naming them."""
    known = tuple(choices)
    if not isinstance(value, str) or value.lower() not in known:
        raise wrong(f"[{what}] [{value}] is not one of {', '.join(known)}")
    return value.lower()


def count(body: Body, name: str, what: str) -> int:
    """Return a whole number that is not negative. Raises 400."""
    value = required(body, name, what)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(f"[{what}] [{name}] must be a whole number, not {_kind(value)}")
    if value < 0:
        raise invalid_request(f"[{name}] cannot be negative")
    return value


def _kind(value: Any) -> str:
    return {dict: "an object", list: "an array", str: "a text", bool: "a flag", type(None): "null"}.get(
        type(value), "a number"
    )


def index_name(name: str, *, native: bool) -> None:
    """Raise 400 unless a connector may have this content index."""
    check_index_name(name)
    if native and not name.startswith("content-"):
        raise invalid_request(f"Index [{name}] of an Elastic-managed connector must start with the prefix [content-]")


def configuration(value: Any) -> Body:
    """Check a configuration: field objects of which only the label is demanded."""
    for name, field in mapping(value, "configuration").items():
        _field(name, mapping(field, f"configuration.{name}"))
    return dict(value)


def _field(name: str, field: Body) -> None:
    what = f"configuration.{name}"
    if not isinstance(required(field, "label", what), str):
        raise wrong(f"[{what}] [label] must be text")
    for key in ("tooltip", "category", "placeholder"):
        text(field, key, what)
    for key in ("sensitive", "required"):
        if field.get(key) is not None:
            flag(field, key, what)
    order = field.get("order")
    if order is not None and (isinstance(order, bool) or not isinstance(order, int)):
        raise wrong(f"[{what}] [order] must be a whole number")
    if field.get("display") is not None:
        choice(field["display"], DISPLAYS, f"{what}.display")
    if field.get("type") is not None:
        choice(field["type"], FIELD_TYPES, f"{what}.type")
    for key in ("value", "default_value"):
        scalar(field.get(key), f"{what}.{key}")
    for restriction in listed(field.get("ui_restrictions") or [], f"{what}.ui_restrictions"):
        if not isinstance(restriction, str):
            raise wrong(f"[{what}] [ui_restrictions] must be texts")
    for key, keys in (("options", ("label", "value")), ("depends_on", ("field", "value"))):
        for entry in listed(field.get(key) or [], f"{what}.{key}"):
            for part in keys:
                required(mapping(entry, f"{what}.{key}"), part, f"{what}.{key}")
    for entry in listed(field.get("validations") or [], f"{what}.validations"):
        choice(
            required(mapping(entry, f"{what}.validations"), "type", f"{what}.validations"),
            VALIDATIONS,
            f"{what}.validations",
        )
        required(entry, "constraint", f"{what}.validations")


def scalar(value: Any, what: str) -> Any:
    """Return a configuration value. Lists are refused as Elasticsearch refuses them; they travel as text with commas."""
    if isinstance(value, list):
        raise wrong(f"[{what}] must not be an array; write a list as text with commas")
    return value


def scheduling(value: Any) -> Body:
    """Check schedules: at least one, each with a flag and a cron expression."""
    body = mapping(value, "scheduling")
    only(body, KINDS, "scheduling")
    given = {name: mapping(one, f"scheduling.{name}") for name, one in body.items() if one is not None}
    if not given:
        raise invalid_request(
            "[scheduling] object needs to define at least one schedule type: [full | incremental | access_control]"
        )
    for name, one in given.items():
        flag(one, "enabled", f"scheduling.{name}")
        interval = required(one, "interval", f"scheduling.{name}")
        if not isinstance(interval, str):
            raise wrong(f"[scheduling.{name}] [interval] must be text")
        try:
            Cron.parse(interval)
        except InvalidCron as error:
            raise invalid_request(f"invalid cron expression [{interval}] of [scheduling.{name}]: {error}") from error
    return given


def pipeline(value: Any) -> Body:
    """Check a pipeline: all four settings."""
    body = mapping(value, "pipeline")
    only(body, ("name", "extract_binary_content", "reduce_whitespace", "run_ml_inference"), "pipeline")
    if not isinstance(required(body, "name", "pipeline"), str):
        raise wrong("[pipeline] [name] must be text")
    for name in ("extract_binary_content", "reduce_whitespace", "run_ml_inference"):
        flag(body, name, "pipeline")
    return body


def features(value: Any) -> Body:
    """Check features: flags, each as `{"enabled": ...}`."""
    body = mapping(value, "features")
    only(body, FEATURES, "features")
    for name, one in body.items():
        if one is None:
            continue
        inner = mapping(one, f"features.{name}")
        if name == "sync_rules":
            only(inner, ("basic", "advanced"), "features.sync_rules")
            for part, about in inner.items():
                flag(mapping(about, f"features.sync_rules.{part}"), "enabled", f"features.sync_rules.{part}")
        else:
            flag(inner, "enabled", f"features.{name}")
    return {name: one for name, one in body.items() if one is not None}


def filtering(value: Any) -> list[Body]:
    """Check whole filtering entries. The domain is always DEFAULT."""
    entries = []
    for at, one in enumerate(listed(value, "filtering")):
        entry = mapping(one, f"filtering[{at}]")
        checked: Body = {"domain": "DEFAULT"}
        for part in ("active", "draft"):
            what = f"filtering[{at}].{part}"
            rules_set = mapping(required(entry, part, f"filtering[{at}]"), what)
            for name in ("advanced_snippet", "rules", "validation"):
                required(rules_set, name, what)
            advanced_snippet(rules_set["advanced_snippet"], f"{what}.advanced_snippet")
            rules(rules_set["rules"], f"{what}.rules")
            validation(rules_set["validation"], f"{what}.validation")
            checked[part] = rules_set
        entries.append(checked)
    if not entries:
        raise invalid_request("[filtering] list cannot be empty")
    return entries


def advanced_snippet(value: Any, what: str) -> Body:
    """Check advanced rules: an object or array as their value."""
    body = mapping(value, what)
    inner = required(body, "value", what)
    if not isinstance(inner, dict | list):
        raise wrong(f"[{what}] [value] must be an object or an array, not {_kind(inner)}")
    _stamps(body, what)
    return body


def _stamps(body: Body, what: str) -> None:
    for name in ("created_at", "updated_at"):
        if body.get(name) is not None:
            date(body[name], f"{what}.{name}")


def rules(value: Any, what: str) -> list[Body]:
    """Check basic rules."""
    for at, one in enumerate(listed(value, what)):
        where = f"{what}[{at}]"
        rule = mapping(one, where)
        for name in ("id", "field", "value"):
            if not isinstance(required(rule, name, where), str):
                raise wrong(f"[{where}] [{name}] must be text")
        order = required(rule, "order", where)
        if isinstance(order, bool) or not isinstance(order, int):
            raise wrong(f"[{where}] [order] must be a whole number")
        choice(required(rule, "policy", where), POLICIES, f"{where}.policy")
        choice(required(rule, "rule", where), OPERATORS, f"{where}.rule")
        _stamps(rule, where)
    return list(value)


def validation(value: Any, what: str = "validation") -> Body:
    """Check the result of a validation."""
    body = mapping(value, what)
    only(body, ("state", "errors"), what)
    choice(required(body, "state", what), STATES, f"{what}.state")
    for at, one in enumerate(listed(required(body, "errors", what), f"{what}.errors")):
        error = mapping(one, f"{what}.errors[{at}]")
        for name in ("ids", "messages"):
            texts = listed(required(error, name, f"{what}.errors[{at}]"), f"{what}.errors[{at}].{name}")
            if not all(isinstance(part, str) for part in texts):
                raise wrong(f"[{what}.errors[{at}].{name}] must be texts")
    return body


_SYNC_TEXTS = ("last_access_control_sync_error", "last_sync_error")
_SYNC_DATES = (
    "last_access_control_sync_scheduled_at",
    "last_incremental_sync_scheduled_at",
    "last_seen",
    "last_sync_scheduled_at",
    "last_synced",
)
_SYNC_STATUSES = ("last_access_control_sync_status", "last_sync_status")
_SYNC_COUNTS = ("last_deleted_document_count", "last_indexed_document_count")


def last_sync(body: Body) -> Body:
    """Check what a service says of its last sync; only what is given is changed."""
    what = "last_sync"
    only(body, (*_SYNC_TEXTS, *_SYNC_DATES, *_SYNC_STATUSES, *_SYNC_COUNTS, "sync_cursor"), what)
    for name in _SYNC_TEXTS:
        text(body, name, what)
    for name in _SYNC_DATES:
        if body.get(name) is not None:
            date(body[name], f"{what}.{name}")
    for name in _SYNC_STATUSES:
        if body.get(name) is not None:
            choice(body[name], [status.value for status in JobStatus], f"{what}.{name}")
    for name in _SYNC_COUNTS:
        if body.get(name) is not None:
            count(body, name, what)
    if body.get("sync_cursor") is not None:
        mapping(body["sync_cursor"], f"{what}.sync_cursor")
    return body
