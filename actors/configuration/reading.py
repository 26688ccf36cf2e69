"""Read `config.yml`: nested and dotted keys, variables from the environment, defaults, and complaints a person can act on.

Facts: existing files mix `elasticsearch.host: x` with nested sections; later entries win, sections merge, scalars and lists
replace. `${VAR}`, `$VAR`, `${VAR|default}` and `$VAR|default` stand for environment variables, `$$` for a dollar sign, and an
undefined variable without a default is an error. An environment variable whose name is a dotted key fills that key if the
file does not. Every value is converted to the type of its key, wherever it came from.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from .settings import ConnectorSettings, Settings, described, options

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_.]*)(?:\|(?P<braced_default>[^}]*))?\}"
    r"|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)(?:\|(?P<bare_default>\S*))?)"
)
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_DEPRECATED_SINGLE_FORM = ("connector_id", "service_type")
_IGNORED = {
    "_meta": "it is a comment of other tools",
    "native_service_types": "it was renamed to `service.service_types`",
}


@attrs.frozen
class Complaint:
    """One thing about the file that a person should know."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


class ConfigurationProblem(Exception):
    """The configuration cannot be used; `complaints` has every reason."""

    def __init__(self, where: str, complaints: Iterable[Complaint], *, file_error: OSError | None = None) -> None:
        self.where = where
        self.file_error = file_error
        """Why the file could not even be read; None if it was read, and its content is the problem."""
        self.complaints = tuple(complaints)
        listed = "\n".join(f"  - {complaint}" for complaint in self.complaints)
        super().__init__(f"{where} cannot be used:\n{listed}")


@attrs.frozen
class ReadResult:
    """Settings that can be used, and what is odd about the file they came from."""

    settings: Settings
    warnings: tuple[Complaint, ...]


def read_file(path: Path, environment: Mapping[str, str]) -> ReadResult:
    """Read a file. Blocking. Raises `ConfigurationProblem` with every problem at once."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationProblem(
            str(path), [Complaint("", "the file does not exist; name another with --config-file")], file_error=error
        ) from None
    except OSError as error:
        reason = Complaint("", f"the file cannot be read: {error.strerror}")
        raise ConfigurationProblem(str(path), [reason], file_error=error) from error
    except UnicodeDecodeError as error:
        raise ConfigurationProblem(str(path), [Complaint("", "it is not UTF-8 text")]) from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationProblem(str(path), [Complaint("", f"it is not YAML: {_yaml_place(error)}")]) from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigurationProblem(str(path), [Complaint("", f"it must hold keys and values, not a {_kind(content)}")])
    return read_mapping(content, environment, where=str(path))


def read_mapping(
    content: Mapping[str, Any], environment: Mapping[str, str], *, where: str = "the configuration"
) -> ReadResult:
    """Turn the plain content of a file into settings. Raises `ConfigurationProblem` with every problem at once."""
    reading = _Reading(environment)
    nested = reading.nested(reading.substituted(content, ""))
    reading.fill_from_environment(nested)
    connectors = reading.connectors(nested)
    settings = reading.section(Settings, nested, "")
    if reading.errors:
        raise ConfigurationProblem(where, reading.errors)
    settings = attrs.evolve(settings, connectors=connectors)
    _check_between_keys(settings, reading)
    if reading.errors:
        raise ConfigurationProblem(where, reading.errors)
    return ReadResult(settings, tuple(reading.warnings))


def _check_between_keys(settings: Settings, reading: _Reading) -> None:
    elasticsearch = settings.elasticsearch
    if elasticsearch.api_key and (elasticsearch.username, elasticsearch.password) != ("elastic", "changeme"):
        reading.warn("elasticsearch.api_key", "is used, and the user and password beside it are not")
    if not re.match(r"https?://[^/\s]+", elasticsearch.host):
        reading.fail("elasticsearch.host", f"must be a URL such as https://localhost:9200, not {elasticsearch.host!r}")
    service = settings.service
    if service.worker_mode and not service.service_types:
        reading.fail("service.worker_mode", "is on, so `service.service_types` must name at least one service type")
    if service.service_types and not service.worker_mode:
        reading.warn("service.service_types", "has no effect unless `service.worker_mode` is true")
    operations = settings.callboard.operations
    if operations.enabled and operations.host not in ("127.0.0.1", "::1", "localhost") and not operations.token:
        reading.fail("callboard.operations.host", "is not loopback, so `callboard.operations.token` must be set")
    for service_type, target in settings.sources.items():
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", target):
            reading.fail(f"sources.{service_type}", f"must look like `package.module:ClassName`, not {target!r}")


class _Reading:
    """Collects what is wrong and what is odd while one file is read."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.errors: list[Complaint] = []
        self.warnings: list[Complaint] = []

    def fail(self, key: str, text: str) -> None:
        self.errors.append(Complaint(key, text))

    def warn(self, key: str, text: str) -> None:
        self.warnings.append(Complaint(key, text))

    def substituted(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {
                str(name): self.substituted(inner, f"{key}.{name}" if key else str(name))
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self.substituted(inner, f"{key}[{at}]") for at, inner in enumerate(value)]
        if isinstance(value, str) and "$" in value:
            return _VARIABLE.sub(lambda found: self._variable(found, key), value)
        return value

    def _variable(self, found: re.Match[str], key: str) -> str:
        if found["escaped"]:
            return "$"
        name = found["braced"] or found["bare"]
        default = found["braced_default"] if found["braced"] else found["bare_default"]
        value: str | None = self.environment.get(name, default)
        if value is None:
            self.fail(
                key, f"uses the environment variable {name}, which is not set; set it, or write ${{{name}|default}}"
            )
            return ""
        return value

    def nested(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Expand dotted keys; later entries merge over earlier ones."""
        merged: dict[str, Any] = {}
        for name, value in content.items():
            head, _, rest = name.partition(".")
            inner = (
                self.nested({rest: value})
                if rest
                else (self.nested(value) if isinstance(value, dict) and name != "sources" else value)
            )
            if isinstance(inner, dict) and isinstance(merged.get(head), dict):
                merged[head] = _merged(merged[head], inner)
            else:
                merged[head] = inner
        return merged

    def fill_from_environment(self, nested: dict[str, Any]) -> None:
        for key, _, _ in options():
            if key not in self.environment:
                continue
            *sections, name = key.split(".")
            place: Any = nested
            for section in sections:
                place = place.setdefault(section, {}) if isinstance(place, dict) else None
            if isinstance(place, dict):
                place.setdefault(name, self.environment[key])

    def connectors(self, nested: dict[str, Any]) -> tuple[ConnectorSettings, ...]:
        """Read the list, or the deprecated single form; ids are text and unique, the last one wins."""
        listed = nested.pop("connectors", None)
        single = {name: nested.pop(name) for name in _DEPRECATED_SINGLE_FORM if name in nested}
        if single and not listed:
            self.warn("connector_id", "is the old form; write a list under `connectors`")
            listed = [single]
        elif single:
            self.warn("connector_id", "is not looked at, since `connectors` has a list")
        if listed is None:
            return ()
        if not isinstance(listed, list):
            self.fail("connectors", f"must be a list, not a {_kind(listed)}")
            return ()
        found: dict[str, ConnectorSettings] = {}
        for at, entry in enumerate(listed):
            key = f"connectors[{at}]"
            if not isinstance(entry, dict):
                self.fail(key, f"must hold keys and values, not a {_kind(entry)}")
            elif not str(entry.get("connector_id") or "").strip():
                self.warn(key, "has no `connector_id` and is skipped")
            else:
                connector = self.section(
                    ConnectorSettings, {**entry, "connector_id": str(entry["connector_id"])}, f"{key}."
                )
                if connector.connector_id in found:
                    self.warn(key, f"names the connector {connector.connector_id!r} again; this entry wins")
                found[connector.connector_id] = connector
        return tuple(found.values())

    def section(self, cls: type[Any], content: Any, prefix: str) -> Any:
        if content is None:
            content = {}
        if not isinstance(content, dict):
            self.fail(prefix.rstrip("."), f"must hold keys and values, not a {_kind(content)}")
            return cls()
        known = {attribute.name: attribute for attribute in attrs.fields(attrs.resolve_types(cls))}
        values: dict[str, Any] = {}
        for name, value in content.items():
            key = f"{prefix}{name}"
            attribute = known.get(name)
            if attribute is None:
                self._unknown(key, name, list(known))
            elif isinstance(attribute.type, type) and attrs.has(attribute.type):
                values[name] = self.section(attribute.type, value, f"{key}.")
            else:
                self._value(key, value, attribute, values)
        return cls(**values)

    def _unknown(self, key: str, name: str, known: list[str]) -> None:
        if name in _IGNORED:
            self.warn(key, f"is not looked at: {_IGNORED[name]}")
            return
        everywhere = [dotted for dotted, _, _ in options()]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6) or difflib.get_close_matches(
            key, everywhere, n=1, cutoff=0.7
        )
        self.warn(key, "is not a known key" + (f"; did you mean `{near[0]}`?" if near else "; it is not looked at"))

    def _value(self, key: str, value: Any, attribute: attrs.Attribute[Any], values: dict[str, Any]) -> None:
        known = described(attribute)
        try:
            converted = _converted(value, attribute.type)
        except _Mismatch as mismatch:
            shown = "" if known.secret else f", not {value!r}"
            self.fail(key, f"must be {mismatch.wanted}{shown}")
            return
        if isinstance(converted, int | float) and not isinstance(converted, bool):
            if known.at_least is not None and converted < known.at_least:
                self.fail(key, f"must be at least {known.at_least:g}{_unit(known.unit)}, not {converted:g}")
                return
            if known.at_most is not None and converted > known.at_most:
                self.fail(key, f"must be at most {known.at_most:g}{_unit(known.unit)}, not {converted:g}")
                return
        if known.obsolete:
            self.warn(key, f"has no effect: {known.obsolete}")
        values[attribute.name] = converted


class _Mismatch(Exception):
    def __init__(self, wanted: str) -> None:
        super().__init__(wanted)
        self.wanted = wanted


def _converted(value: Any, wanted: Any) -> Any:
    """Convert one plain value to the type of its key, or raise `_Mismatch`."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "":
            return None
        return _converted(value, next(kind for kind in arguments if kind is not types.NoneType))
    if origin is typing.Literal:
        choice = next((choice for choice in arguments if str(value).lower() == choice.lower()), None)
        if choice is None:
            raise _Mismatch("one of " + ", ".join(arguments))
        return choice
    if origin is tuple:
        return _texts(value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _Mismatch("keys and values")
        return {str(name): _converted(inner, arguments[1]) for name, inner in value.items()}
    return _CONVERTERS[wanted](value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise _Mismatch("a list")
    return tuple(str(item) for item in value)


def _whole(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise _Mismatch("a whole number")
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Mismatch("a number")
    try:
        number = float(value)
    except ValueError:
        raise _Mismatch("a number") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise _Mismatch("a number")
    return number


def _flag(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise _Mismatch("true or false")


def _text(value: Any) -> str:
    if isinstance(value, dict | list) or value is None:
        raise _Mismatch("text")
    return str(value)


_CONVERTERS: dict[Any, Any] = {
    int: _whole,
    float: _number,
    bool: _flag,
    str: _text,
    Path: lambda value: Path(_text(value)),
}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _kind(value: Any) -> str:
    return {dict: "map", list: "list", str: "text", bool: "switch", int: "number", float: "number"}.get(
        type(value), type(value).__name__
    )


def _unit(unit: str | None) -> str:
    return f" {unit}" if unit else ""


def _yaml_place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else str(problem)
