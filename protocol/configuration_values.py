"""What a person has entered, judged by a schema: conversions, dependencies, validations, masking.

A schema maps field names to field objects, as they stand in a connector's `configuration`; the stored configuration has the
same shape, with values. Here nothing is known of the classes that schemas come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from .wire import JSON, Stored, kind_of, read

MASK: Final = "********"
TYPES: Final = ("str", "int", "bool", "list")
DISPLAYS: Final = ("text", "textbox", "textarea", "numeric", "toggle", "dropdown")
VALIDATIONS: Final = ("less_than", "greater_than", "list_type", "included_in", "regex")

_TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "off", "0"})
_SECRET_NAME: Final = re.compile(
    r"passw|secret|token|credential|private|api_?key|access_?key|passphrase", re.IGNORECASE
)


@attrs.frozen(kw_only=True)
class ConfigurationField(Stored):
    """One entry of a configuration as it is stored: a value and what is known about it."""

    category: str | None = None
    default_value: JSON = attrs.field(default=None, repr=False)
    depends_on: tuple[dict[str, Any], ...] = ()
    display: str = "text"
    label: str = ""
    options: tuple[dict[str, Any], ...] = ()
    order: int = 1
    placeholder: str | None = None
    required: bool = True
    sensitive: bool = False
    tooltip: str | None = None
    type: str = "str"
    ui_restrictions: tuple[str, ...] = ()
    validations: tuple[dict[str, Any], ...] = ()
    value: JSON = attrs.field(default="", repr=False)


@attrs.frozen
class FieldProblem:
    """One reason why a configuration cannot be used."""

    field: str
    label: str
    complaint: str
    """Goes on after the field's name: `must be less than 10`."""
    value: JSON = attrs.field(default=None, repr=False)
    """What was entered; always None for a sensitive field. Never part of a text."""

    def __str__(self) -> str:
        return f"{self.label} ({self.field}) {self.complaint}"


class InvalidConfiguration(ValueError):
    """The entered values cannot be used. `problems` lists every reason."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(map(str, problems))
        super().__init__(f"The configuration cannot be used: {listed}. Correct it and save it again.")


class _Unconvertible(Exception):
    def __init__(self, complaint: str) -> None:
        self.complaint = complaint


def read_field(name: str, stored: JSON) -> ConfigurationField:
    """Read one entry. A plain value stands for a text field with this value. Raises `InvalidDocument`."""
    entry = stored if isinstance(stored, Mapping) else {"value": stored}
    field = read(ConfigurationField, entry, f"The configuration field {name!r}")
    return field if field.label else attrs.evolve(field, label=name.upper())


def read_fields(stored: Mapping[str, JSON]) -> dict[str, ConfigurationField]:
    """Read all entries of a configuration, in the order in which people see them. Raises `InvalidDocument`."""
    fields = {name: read_field(name, entry) for name, entry in stored.items()}
    return dict(sorted(fields.items(), key=lambda item: item[1].order))


def is_empty(value: JSON) -> bool:
    """Tell whether a value counts as not entered: null, empty text, or a list of nothing but those."""
    if isinstance(value, list | tuple):
        return all(item is None or item == "" for item in value)
    return value is None or (isinstance(value, str) and value == "")


def value_in(stored: JSON) -> JSON:
    """The entered value of a stored entry, which may be a field object or a plain value."""
    return stored.get("value") if isinstance(stored, Mapping) else stored


def read_values(schema: Mapping[str, JSON], stored: Mapping[str, JSON]) -> dict[str, Any]:
    """Convert what is stored into values of the types that the schema names, one for each of its fields.

    A field that is hidden because it depends on another is converted if it can be, and not checked. Entries that the schema
    does not know are passed over. Raises `InvalidConfiguration` with all problems at once.
    """
    fields = {name: read_field(name, entry) for name, entry in schema.items()}
    problems: list[FieldProblem] = []
    values: dict[str, Any] = {}
    unconverted: dict[str, _Unconvertible] = {}
    for name, field in fields.items():
        try:
            values[name] = convert(effective(field, stored.get(name, field.value)), field.type)
        except _Unconvertible as reason:
            unconverted[name] = reason
            values[name] = convert(None, field.type)
    for name, field in fields.items():
        hidden, complaint = _hidden(field, fields, values, unconverted)
        if complaint is None and not hidden:
            failure = unconverted.get(name)
            complaints = [failure.complaint] if failure else list(_complaints(field, values[name]))
        else:
            complaints = [complaint] if complaint else []
        entered = None if _is_sensitive(name, field.sensitive) else value_in(stored.get(name))
        problems += [FieldProblem(name, field.label, complaint, entered) for complaint in complaints]
    if problems:
        raise InvalidConfiguration(problems)
    return values


def effective(field: ConfigurationField, stored: JSON) -> JSON:
    """The value that counts: what was entered, or the default of a field that may be left empty."""
    entered = value_in(stored)
    if not field.required and is_empty(entered):
        return field.default_value
    return entered


def convert(value: JSON, kind: str) -> Any:
    """Convert a stored value to the type a schema names. An unknown type is left as it is."""
    match kind:
        case "str":
            return _to_text(value)
        case "int":
            return _to_int(value)
        case "bool":
            return _to_bool(value)
        case "list":
            return _to_list(value)
        case _:
            return value


def _to_text(value: JSON) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case list() | tuple() if all(isinstance(item, str) for item in value):
            return ",".join(value)
    raise _Unconvertible(f"must be a text, but is {kind_of(value)}")


def _to_int(value: JSON) -> int | None:
    if is_empty(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}(\.0*)?\s*", value, re.ASCII):
        return int(value.strip().split(".")[0])
    raise _Unconvertible(f"must be a whole number, but is {kind_of(value)}")


def _to_bool(value: JSON) -> bool | None:
    if is_empty(value):
        return None
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise _Unconvertible("must be true or false")


def _to_list(value: JSON) -> list[Any]:
    match value:
        case None:
            return []
        case str():
            return [item.strip() for item in value.split(",") if item.strip()]
        case bool() | Mapping():
            raise _Unconvertible(f"must be a list or text separated by commas, but is {kind_of(value)}")
        case list() | tuple():
            trimmed = [item.strip() if isinstance(item, str) else item for item in value]
            return [item for item in trimmed if not is_empty(item)]
        case _:
            return [value]


def _hidden(
    field: ConfigurationField,
    fields: Mapping[str, ConfigurationField],
    values: Mapping[str, Any],
    unconverted: Mapping[str, _Unconvertible],
) -> tuple[bool, str | None]:
    """Whether the field is out of sight, and what is wrong with what it depends on."""
    for dependency in field.depends_on:
        other = dependency.get("field")
        if not isinstance(other, str) or other not in fields:
            return True, f"depends on the setting {other!r}, which does not exist"
        if other in unconverted:
            return True, None
        try:
            wanted = convert(dependency.get("value"), fields[other].type)
        except _Unconvertible:
            return True, None
        if values[other] != wanted:
            return True, None
    return False, None


def _complaints(field: ConfigurationField, value: Any) -> Iterable[str]:
    if is_empty(value):
        # Without a value there is nothing to validate: it is either missing or not needed.
        if field.required:
            yield "needs a value"
        return
    for validation in field.validations:
        check = _CHECKS.get(str(validation.get("type")))
        complaint = check(value, validation.get("constraint")) if check else None
        if complaint:
            yield complaint


def _less_than(value: Any, limit: Any) -> str | None:
    return None if _numbers(value, limit) and value < limit else f"must be less than {limit}"


def _greater_than(value: Any, limit: Any) -> str | None:
    return None if _numbers(value, limit) and value > limit else f"must be greater than {limit}"


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _list_type(value: Any, kind: Any) -> str | None:
    items = value if isinstance(value, list) else None
    # Lists are entered as text, so that whole numbers in them arrive as text.
    if items is not None and all(isinstance(item, str) if kind == "str" else _is_int_like(item) for item in items):
        return None
    return f"must be a list of {'texts' if kind == 'str' else 'whole numbers'}"


def _is_int_like(item: Any) -> bool:
    try:
        return _to_int(item) is not None
    except _Unconvertible:
        return False


def _included_in(value: Any, allowed: Any) -> str | None:
    choices = allowed if isinstance(allowed, list | tuple) else [allowed]
    items = value if isinstance(value, list) else [value]
    texts = {str(choice) for choice in choices if not isinstance(choice, bool)}
    if all(item in choices or str(item) in texts for item in items):
        return None
    return "must be one of " + ", ".join(map(str, choices))


def _regex(value: Any, pattern: Any) -> str | None:
    try:
        matches = isinstance(value, str) and re.fullmatch(pattern, value) is not None
    except (re.error, TypeError):
        return f"cannot be checked, because its schema has the regular expression {pattern!r}, which is not valid"
    return None if matches else f"must match the regular expression {pattern}"


_CHECKS: Final[Mapping[str, Callable[[Any, Any], str | None]]] = {
    "less_than": _less_than,
    "greater_than": _greater_than,
    "list_type": _list_type,
    "included_in": _included_in,
    "regex": _regex,
}
assert tuple(_CHECKS) == VALIDATIONS


def _is_sensitive(name: str, flag: JSON) -> bool:
    return bool(flag is True or flag == "true" or _SECRET_NAME.search(name))


def masked(stored: Mapping[str, JSON]) -> dict[str, JSON]:
    """Copy a configuration for people's eyes: secret values, also as defaults, are replaced by stars.

    Secret is what its entry calls sensitive, and for good measure what is called like a secret. Empty values stay visible,
    so that one can see that they are missing.
    """
    shown: dict[str, JSON] = {}
    for name, entry in stored.items():
        if not isinstance(entry, Mapping):
            shown[name] = MASK if _is_sensitive(name, None) and not is_empty(entry) else entry
            continue
        hides = _is_sensitive(name, entry.get("sensitive"))
        shown[name] = {
            key: MASK if hides and key in ("value", "default_value") and not is_empty(value) else value
            for key, value in entry.items()
        }
    return shown


def secrets_in(stored: Mapping[str, JSON]) -> frozenset[str]:
    """Collect the secret texts of a configuration, for `redact`. Those below four characters would redact ordinary words."""
    found: set[str] = set()
    for name, entry in stored.items():
        flag = entry.get("sensitive") if isinstance(entry, Mapping) else None
        if _is_sensitive(name, flag):
            found.update(_texts_in(value_in(entry)))
    return frozenset(text for text in found if len(text) >= 4)


def _texts_in(value: JSON) -> Iterable[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts_in(inner)
    elif isinstance(value, str):
        yield value
        # A driver's message may quote one line of a key, never all of it.
        yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= 16)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in a text, such as the message of a driver, by stars."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
