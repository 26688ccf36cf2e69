"""Ask for the settings of a source, one after the other, as its schema describes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Set
from typing import Any

import click

from .settings import as_stored


def ask_settings(configuration: Mapping[str, Any], *, answered: Set[str], config_class: type[Any]) -> dict[str, Any]:
    """Ask for every setting that is not answered yet and applies, in the schema's order; Ctrl-C stops without a trace.

    A setting that depends on others is asked only if they have the values it depends on. Secret ones are not shown while they are
    typed. An answer that the configuration class does not take is told why and asked for again. What is meant for experts keeps
    its first value; `--set` changes it.
    """
    entered = copy.deepcopy(dict(configuration))
    fields = sorted(entered.items(), key=lambda item: item[1].get("order") or 0)
    for name, field in fields:
        advanced = "advanced" in (field.get("ui_restrictions") or [])
        if name not in answered and not advanced and applies(field, entered):
            before = field.get("value")
            field["value"] = _ask(field, before)
            while complaint := _complaint(name, entered, config_class):
                click.echo(complaint, err=True)
                field["value"] = _ask(field, before)
    return entered


def applies(field: Mapping[str, Any], configuration: Mapping[str, Any]) -> bool:
    """Whether all that a field depends on is as it has to be."""
    return all(
        configuration.get(dependency["field"], {}).get("value") == dependency["value"]
        for dependency in field.get("depends_on") or []
    )


def _complaint(name: str, entered: Mapping[str, Any], config_class: type[Any]) -> str:
    """What the configuration class says against the value of one field; the others may still be missing."""
    from ..protocol.configuration import InvalidConfiguration, read_configuration

    try:
        read_configuration(config_class, entered)
    except InvalidConfiguration as invalid:
        return "; ".join(f"{one.label} {one.complaint}." for one in invalid.problems if one.field == name)
    return ""


def _ask(field: Mapping[str, Any], present: Any) -> Any:
    label = field["label"]
    if field.get("tooltip"):
        click.secho(field["tooltip"], dim=True, err=True)
    optional = not field.get("required", True)
    if field["type"] == "bool":
        return click.confirm(label, default=bool(present), err=True)
    options = [str(option["value"]) for option in field.get("options") or []]
    kind: Any = click.Choice(options) if options else None
    default = present if present not in (None, "", []) else field.get("default_value")
    if isinstance(default, list | tuple):
        default = ", ".join(map(str, default))
    if default in (None, "") and optional:
        default = ""
    while True:
        answer = click.prompt(
            label,
            default=default if default is None or not field.get("sensitive") else "",
            hide_input=bool(field.get("sensitive")),
            show_default=default not in (None, ""),
            type=kind,
            err=True,
        )
        value = as_stored(field, str(answer))
        if field["type"] != "int" or isinstance(value, int) or (optional and answer == ""):
            return value
        click.echo("That is not a whole number.", err=True)
