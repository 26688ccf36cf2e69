"""From what a person types (`--set FIELD=VALUE`) to the configuration of a connector. Pure functions."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import click

Stored = dict[str, Any]
"""A configuration as a connector document holds it: field name -> what is known about the field, and its value."""


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Read `FIELD=VALUE` texts. Raises a usage error for one without an equals sign or a field given twice."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            # The text is not shown whole: it may be a password whose field was forgotten.
            raise click.UsageError("--set takes FIELD=VALUE, such as --set directory=/home/ines/notes")
        if name in values:
            raise click.UsageError(f"The field {name!r} is set twice.")
        values[name] = value
    return values


def check_fields(service_type: str, schema: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise a usage error that names the nearest field, if a name is none of the source's fields."""
    for name in names:
        if name not in schema:
            close = difflib.get_close_matches(name, schema, n=1, cutoff=0.5)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(
                f"The source {service_type!r} has no field {name!r}.{meant} It has: {', '.join(schema) or 'none'}."
            )


def with_values(configuration: Mapping[str, Any], values: Mapping[str, Any]) -> Stored:
    """The configuration with these values entered. Texts become the type that a field says it has."""
    entered: Stored = copy.deepcopy(dict(configuration))
    for name, value in values.items():
        entered[name] = {**entered[name], "value": as_stored(entered[name], value)}
    return entered


def as_stored(field: Mapping[str, Any], value: Any) -> Any:
    """A typed text as the field's type is stored; a text that cannot be one is left for the checks that follow."""
    if not isinstance(value, str):
        return value
    match field.get("type"):
        case "bool":
            return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(
                value.strip().lower(), value
            )
        case "int":
            try:
                return int(value)
            except ValueError:
                return value
        case _:
            return value


def values_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Only the entered values of a configuration, by field name."""
    return {name: entry.get("value") if isinstance(entry, Mapping) else entry for name, entry in configuration.items()}
