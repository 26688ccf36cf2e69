"""The configuration of a source: one attrs class, and everything else derived from it.

    @attrs.frozen
    class LibraryConfig:
        host: str = setting("Host", tooltip="Name or address of the server.")
        port: int = setting("Port", default=5432, validations=[greater_than(0), less_than(65536)])
        password: str = setting("Password", sensitive=True)
        tables: list[str] = setting("Tables", default="*", display="textarea")
        page_size: int = setting("Rows per page", default=50, required=False, advanced=True)
        use_tls: bool = setting("Use TLS", default=False)
        ca: str = setting("Certificate", depends_on={"use_tls": True})

`schema_of` gives the schema for the connector document, `read_configuration` the typed object from a stored configuration, and
`upkeep` brings an existing configuration up to date without losing a value.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import attrs

from .configuration_values import (
    DISPLAYS,
    ConfigurationField,
    FieldProblem,
    InvalidConfiguration,
    is_empty,
    masked,
    read_fields,
    read_values,
    redact,
    secrets_in,
)
from .wire import JSON, Source, same

__all__ = [
    "ConfigurationField",
    "FieldProblem",
    "InvalidConfiguration",
    "Upkeep",
    "configuration_of",
    "greater_than",
    "included_in",
    "less_than",
    "list_type",
    "masked",
    "read_configuration",
    "read_fields",
    "redact",
    "regex",
    "schema_of",
    "secrets_in",
    "setting",
    "upkeep",
]

ConfigT = TypeVar("ConfigT")
Validation = Mapping[str, Any]

_KEY: Final = "callboard.setting"


@attrs.frozen
class _Setting:
    label: str
    default: Any
    default_value: Any
    tooltip: str | None
    display: str | None
    required: bool
    sensitive: bool
    depends_on: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, str], ...]
    order: int | None
    ui_restrictions: tuple[str, ...]
    validations: tuple[Validation, ...]
    placeholder: str | None
    category: str | None


def setting(
    label: str,
    *,
    default: Any = attrs.NOTHING,
    default_value: Any = attrs.NOTHING,
    tooltip: str | None = None,
    display: str | None = None,
    required: bool = True,
    sensitive: bool = False,
    depends_on: Mapping[str, Any] | None = None,
    options: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    order: int | None = None,
    advanced: bool = False,
    ui_restrictions: Sequence[str] = (),
    validations: Sequence[Validation] = (),
    placeholder: str | None = None,
    category: str | None = None,
) -> Any:
    """Describe one field of a configuration class; the field's annotation gives its type.

    `default` is entered from the start; in a field that is not required it is also what counts when the field is left empty,
    unless `default_value` says otherwise. `depends_on` maps other fields to the values under which this one is shown.
    `options` are value -> label, for a dropdown. `order` is the place on the page, by default that in the class. Lists are
    given as Python lists or as text separated by commas.
    """
    described = _Setting(
        label=label,
        default=default,
        default_value=default_value,
        tooltip=tooltip,
        display=display,
        required=required,
        sensitive=sensitive,
        depends_on=tuple((depends_on or {}).items()),
        options=tuple(options.items() if isinstance(options, Mapping) else options),
        order=order,
        ui_restrictions=("advanced", *ui_restrictions) if advanced else tuple(ui_restrictions),
        validations=tuple(validations),
        placeholder=placeholder,
        category=category,
    )
    # One made in a program has to name what a person would have to enter, and gets the same defaults for the rest.
    must_be_given = required and default is attrs.NOTHING and not depends_on
    fallback: Any = attrs.NOTHING if must_be_given else _Unset()
    return attrs.field(
        default=fallback, kw_only=True, repr=not sensitive, metadata={_KEY: described}, converter=_SETTLE
    )


@attrs.frozen
class _Unset:
    """Stands in for a default until the class, and with it the field's type, is known."""


def _settle(value: Any, config: Any, field: attrs.Attribute[Any]) -> Any:
    if not isinstance(value, _Unset):
        return value
    resolved = getattr(attrs.fields(attrs.resolve_types(type(config))), field.name)
    return _default_of(resolved)


_SETTLE: Final[Any] = attrs.Converter(_settle, takes_self=True, takes_field=True)  # type: ignore[misc,unused-ignore]


def less_than(limit: float) -> Validation:
    return {"type": "less_than", "constraint": limit}


def greater_than(limit: float) -> Validation:
    return {"type": "greater_than", "constraint": limit}


def list_type(kind: Literal["str", "int"]) -> Validation:
    return {"type": "list_type", "constraint": kind}


def included_in(*allowed: JSON) -> Validation:
    return {"type": "included_in", "constraint": list(allowed)}


def regex(pattern: str) -> Validation:
    """The whole value has to match."""
    return {"type": "regex", "constraint": pattern}


def schema_of(config_class: type[Any]) -> dict[str, dict[str, JSON]]:
    """Write the schema that a connector document gets: all fields with all properties, filled with their first values.

    Raises `TypeError` for a class that cannot work: a dependency on no field, an unknown display, a type that cannot travel.
    """
    fields = _settings_of(config_class)
    schema: dict[str, dict[str, JSON]] = {}
    for position, (field, described) in enumerate(fields, start=1):
        where = f"{config_class.__name__}.{field.name}"
        strangers = [other for other, _ in described.depends_on if other not in {one.name for one, _ in fields}]
        if strangers:
            raise TypeError(f"{where} depends on {strangers[0]!r}, which is no field of the class")
        display = described.display or _display(field, described)
        if display not in DISPLAYS:
            raise TypeError(f"{where} has the display {display!r}; there are only {', '.join(DISPLAYS)}")
        kind = _wire_type(field.type)
        if kind is None:
            raise TypeError(
                f"{where} has the type {field.type!r}; a setting is a str, int, bool, list, Literal or Enum"
            )
        entry: dict[str, JSON] = {
            "default_value": _stored_form(
                _first(described.default_value, None if described.required else described.default)
            ),
            "depends_on": [{"field": other, "value": value} for other, value in described.depends_on],
            "display": display,
            "label": described.label,
            "options": [{"label": label, "value": value} for value, label in described.options],
            "order": described.order or position,
            "required": described.required,
            "sensitive": described.sensitive,
            "tooltip": described.tooltip,
            "type": kind,
            "ui_restrictions": list(described.ui_restrictions),
            "validations": [dict(validation) for validation in _validations(field, described)],
            "value": _first_value(kind, described),
        }
        entry |= {
            key: value
            for key, value in (("category", described.category), ("placeholder", described.placeholder))
            if value is not None
        }
        schema[field.name] = entry
    return schema


def read_configuration(config_class: type[ConfigT], stored: Source) -> ConfigT:
    """Make the typed configuration from a stored one; its entries may be field objects or plain values.

    Only values are taken from what is stored; what they mean is said by the class. A class may have a method `complaints` that
    checks fields against each other and yields pairs of field name and complaint.
    Raises `InvalidConfiguration` that lists all problems.
    """
    schema = schema_of(config_class)
    values = read_values(schema, stored)
    problems: list[FieldProblem] = []
    given: dict[str, Any] = {}
    for field, described in _settings_of(config_class):
        value = values[field.name]
        if is_empty(value) and not _takes_none(field.type):
            given[field.name] = _default_of(field)
            continue
        try:
            given[field.name] = _typed(value, field.type)
        except ValueError as reason:
            given[field.name] = _default_of(field)
            if _is_shown(described, values):
                problems.append(FieldProblem(field.name, described.label, str(reason)))
    if problems:
        raise InvalidConfiguration(problems)
    config = config_class(**given)
    complain = getattr(config, "complaints", None)
    if complain is not None:
        labels = {field.name: described.label for field, described in _settings_of(config_class)}
        problems = [FieldProblem(name, labels.get(name, name), complaint) for name, complaint in complain()]
        if problems:
            raise InvalidConfiguration(problems)
    return config


def configuration_of(config: Any) -> dict[str, dict[str, JSON]]:
    """Write a typed configuration as a connector document holds it: the schema with these values."""
    schema = schema_of(type(config))
    for name, entry in schema.items():
        entry["value"] = _stored_form(getattr(config, name))
    return schema


@attrs.frozen
class Upkeep:
    """An existing configuration brought up to date with the class of its source."""

    configuration: dict[str, JSON] = attrs.field(repr=False)
    added: tuple[str, ...]
    """Fields that were missing."""
    refreshed: tuple[str, ...]
    """Fields whose description has changed. Their values have not."""
    is_first: bool
    """There was no configuration at all: a person has to enter one, and the status becomes `needs_configuration`."""

    @property
    def is_needed(self) -> bool:
        return bool(self.added or self.refreshed)


def upkeep(stored: Source, config_class: type[Any]) -> Upkeep:
    """Add what is missing from a stored configuration and refresh the descriptions that differ.

    No value is changed or lost, whatever it is; fields and properties that the class does not know are kept.
    """
    schema = schema_of(config_class)
    configuration: dict[str, JSON] = copy.deepcopy(dict(stored))
    added: list[str] = []
    refreshed: list[str] = []
    for name, wanted in schema.items():
        if name not in configuration:
            configuration[name] = wanted
            added.append(name)
            continue
        present = configuration[name]
        entry = dict(present) if isinstance(present, Mapping) else {"value": present}
        updated = {**entry, **{key: value for key, value in wanted.items() if key != "value" or "value" not in entry}}
        if not same(updated, present):
            configuration[name] = updated
            refreshed.append(name)
    return Upkeep(configuration, tuple(added), tuple(refreshed), is_first=not stored)


# From annotations to the four types that travel


def _settings_of(config_class: type[Any]) -> list[tuple[attrs.Attribute[Any], _Setting]]:
    fields = attrs.fields(attrs.resolve_types(config_class))
    return [(field, field.metadata[_KEY]) for field in fields if _KEY in field.metadata]


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        others = [one for one in get_args(kind) if one is not type(None)]
        return others[0] if len(others) == 1 else None
    return kind


def _takes_none(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


_LISTS: Final[tuple[Any, ...]] = (list, tuple, set, frozenset)


def _wire_type(kind: Any) -> str | None:
    kind = _without_none(kind)
    if get_origin(kind) is Literal or _is_enum(kind):
        return "str"
    if (get_origin(kind) or kind) in (*_LISTS, Sequence):
        return "list"
    return kind.__name__ if kind in (str, int, bool) else None


def _typed(value: Any, kind: Any) -> Any:
    """Narrow a converted value to the annotation. Raises `ValueError` with the complaint."""
    if value is None:
        return None
    kind = _without_none(kind)
    choices = _choices(kind)
    if choices:
        if str(value) not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return kind(value) if _is_enum(kind) else value
    container = get_origin(kind) or kind
    if container not in (*_LISTS, Sequence):
        return value
    items = value if isinstance(value, list) else [value]
    if int in get_args(kind):
        try:
            items = [int(item) for item in items]
        except (ValueError, TypeError):
            raise ValueError("must be a list of whole numbers") from None
    elif str in get_args(kind):
        items = [str(item) for item in items]
    return container(items) if container in _LISTS else tuple(items)


def _choices(kind: Any) -> list[str]:
    kind = _without_none(kind)
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return [str(member.value) for member in kind] if _is_enum(kind) else []


def _default_of(field: attrs.Attribute[Any]) -> Any:
    """The typed value of a field that nobody has filled in."""
    described: _Setting = field.metadata[_KEY]
    given = _first(described.default_value, described.default)
    if given is attrs.NOTHING or given is None:
        return None if _takes_none(field.type) else _nothing_of(field.type)
    if isinstance(given, str) and _wire_type(field.type) == "list":
        given = [item.strip() for item in given.split(",") if item.strip()]
    return _typed(given.value if isinstance(given, Enum) else given, field.type)


def _nothing_of(kind: Any) -> Any:
    choices = _choices(kind)
    if choices:
        return _typed(choices[0], kind)
    container = get_origin(kind) or kind
    return () if container is Sequence else container()


def _display(field: attrs.Attribute[Any], described: _Setting) -> str:
    if described.options or _choices(field.type):
        return "dropdown"
    return {"int": "numeric", "bool": "toggle", "list": "textarea"}.get(_wire_type(field.type) or "", "text")


def _validations(field: attrs.Attribute[Any], described: _Setting) -> tuple[Validation, ...]:
    choices = _choices(field.type)
    return described.validations or ((included_in(*choices),) if choices else ())


def _first(*candidates: Any) -> Any:
    return next((one for one in candidates if one is not attrs.NOTHING), attrs.NOTHING)


def _first_value(kind: str, described: _Setting) -> JSON:
    if described.default is not attrs.NOTHING and (described.required or kind == "bool"):
        return _stored_form(described.default)
    return "" if described.required and kind in ("str", "list") else None


def _stored_form(value: Any) -> JSON:
    """As it is stored: the API takes no lists as values, so that they travel as text separated by commas."""
    if value is attrs.NOTHING:
        return None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return ",".join(map(str, items))
    return value


def _is_shown(described: _Setting, values: Mapping[str, Any]) -> bool:
    return all(values.get(other) == wanted for other, wanted in described.depends_on)
