"""A deployment as a file: what connectors there shall be, and what has to change to get there. Pure functions.

    connectors:
      - id: theatre-notes
        service_type: dir
        index_name: notes
        name: Notes of the theatre
        configuration: {directory: /srv/notes, pattern: "**/*"}
        scheduling: {full: {enabled: true, interval: 0 0 2 * * ?}}

What a file does not mention stays as it is. A secret is written as `${NAME}` and taken from the environment when the file is
applied; an export leaves secrets out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from .exits import Exit
from .failures import CommandFailed
from .settings import check_fields, values_of, with_values

if TYPE_CHECKING:
    from ..protocol.documents import Connector

_TEXTS = ("name", "description", "index_name", "language")
_KEYS = {"id", "service_type", "is_native", "configuration", "scheduling", "pipeline", *_TEXTS}
_SCHEDULES = ("full", "incremental", "access_control")
_PIPELINE = {"name", "extract_binary_content", "reduce_whitespace", "run_ml_inference"}


@attrs.frozen
class Wanted:
    """One connector as a file wants it."""

    id: str
    service_type: str
    fields: Mapping[str, Any]
    """Whatever else the file says, by the names of the connector document."""
    secret_fields: frozenset[str] = frozenset()
    """Settings whose value came from the environment: their values are never shown."""


@attrs.frozen
class Change:
    """One connector that is not as it shall be."""

    id: str
    kind: str
    """`create`, `change` or `delete`."""
    lines: tuple[str, ...]
    """The difference, for a person: `field: old -> new`."""
    wanted: Wanted | None


def read_deployment(document: Any, environment: Mapping[str, str]) -> list[Wanted]:
    """Read a parsed file. Raises `CommandFailed` that names the connector and the key for whatever cannot be meant."""
    if not isinstance(document, dict) or not isinstance(document.get("connectors"), list):
        raise _wrong("it must hold a list named connectors")
    strangers = set(document) - {"connectors"}
    if strangers:
        raise _wrong(f"{min(map(str, strangers))!r} is unknown; only connectors is expected")
    wanted = [_read_entry(number, entry, environment) for number, entry in enumerate(document["connectors"], start=1)]
    ids = [each.id for each in wanted]
    for each in ids:
        if ids.count(each) > 1:
            raise _wrong(f"the connector {each!r} stands in it twice")
    return wanted


def _read_entry(number: int, entry: Any, environment: Mapping[str, str]) -> Wanted:
    where = f"connector {number}"
    if not isinstance(entry, dict):
        raise _wrong(f"{where} must be an object")
    for key in ("id", "service_type"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise _wrong(f"{where} has no {key}")
    where = f"connector {entry['id']!r}"
    strangers = set(entry) - _KEYS
    if strangers:
        raise _wrong(f"{where} has the unknown key {min(map(str, strangers))!r}; known are {', '.join(sorted(_KEYS))}")
    fields = {key: value for key, value in entry.items() if key not in {"id", "service_type"}}
    for key in _TEXTS:
        if not isinstance(fields.get(key, ""), str | None):
            raise _wrong(f"{where}: {key} must be text")
    if not isinstance(fields.get("is_native", False), bool):
        raise _wrong(f"{where}: is_native must be true or false")
    for key, allowed in {"configuration": None, "scheduling": set(_SCHEDULES), "pipeline": _PIPELINE}.items():
        value = fields.get(key, {})
        if not isinstance(value, dict):
            raise _wrong(f"{where}: {key} must be an object")
        if allowed is not None and set(value) - allowed:
            raise _wrong(f"{where}: {key} has the unknown key {min(map(str, set(value) - allowed))!r}")
    for kind, schedule in fields.get("scheduling", {}).items():
        if not isinstance(schedule, dict) or set(schedule) - {"enabled", "interval"}:
            raise _wrong(f"{where}: the schedule {kind} holds enabled and interval, and nothing else")
    secret: set[str] = set()
    if "configuration" in fields:
        configuration = {}
        for name, value in fields["configuration"].items():
            configuration[name] = _filled(value, environment, f"{where}: {name}")
            if configuration[name] != value:
                secret.add(name)
        fields["configuration"] = configuration
    return Wanted(entry["id"], entry["service_type"], fields, frozenset(secret))


def _filled(value: Any, environment: Mapping[str, str], where: str) -> Any:
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise _wrong(f"{where} needs the environment variable {name}, which is not set")
        return environment[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", look_up, value)


def _wrong(what: str) -> CommandFailed:
    return CommandFailed(f"The file cannot be applied: {what}.", code=Exit.USAGE)


def apply_to(
    wanted: Wanted, connector: Connector, described: Callable[[str, Mapping[str, Any]], dict[str, Any]]
) -> Connector:
    """The connector as the file wants it. `described` gives a stored configuration with all fields of its source.

    Raises `CommandFailed` for what cannot be changed, `InvalidIndexName`, and a usage error for a field the source does not have.
    """
    from ..protocol import connectors as transitions

    fields = wanted.fields
    if connector.service_type != wanted.service_type:
        raise _wrong(
            f"connector {wanted.id!r} is of the source {connector.service_type!r} and cannot become {wanted.service_type!r}; "
            "delete it first"
        )
    changed = connector
    if "is_native" in fields and fields["is_native"] != connector.is_native:
        changed = transitions.change_native(changed, fields["is_native"])
    if "index_name" in fields and fields["index_name"] != connector.index_name:
        changed = transitions.change_index_name(changed, fields["index_name"])
    plain = {key: fields[key] for key in ("name", "description", "language") if key in fields}
    changed = attrs.evolve(changed, **plain)
    if "configuration" in fields:
        configuration = described(wanted.service_type, connector.configuration)
        check_fields(wanted.service_type, configuration, fields["configuration"])
        configuration = with_values(configuration, fields["configuration"])
        if values_of(configuration) != values_of(connector.configuration):
            changed = transitions.configured(changed, configuration)
    for kind, schedule in fields.get("scheduling", {}).items():
        present = getattr(changed.scheduling, kind)
        scheduling = attrs.evolve(changed.scheduling, **{kind: attrs.evolve(present, **schedule)})
        changed = attrs.evolve(changed, scheduling=scheduling)
    if fields.get("pipeline"):
        from ..protocol.documents import Pipeline

        changed = attrs.evolve(changed, pipeline=attrs.evolve(changed.pipeline or Pipeline(), **fields["pipeline"]))
    return changed


def difference(before: Connector | None, after: Connector, secret_fields: frozenset[str]) -> tuple[str, ...]:
    """What differs, line by line, with secret settings as stars."""
    old = {} if before is None else _shown(before, secret_fields, hide=False)
    new = _shown(after, secret_fields, hide=False)
    masked_old = {} if before is None else _shown(before, secret_fields, hide=True)
    masked_new = _shown(after, secret_fields, hide=True)
    lines = []
    for key in new:
        if old.get(key) != new[key] and (before is not None or new[key] not in (None, "", [])):
            arrow = f"{_text(masked_old.get(key))} -> " if before is not None else ""
            lines.append(f"{key}: {arrow}{_text(masked_new[key])}")
    return tuple(lines)


def _text(value: Any) -> str:
    return "nothing" if value in (None, "") else str(value)


def _shown(connector: Connector, secret_fields: frozenset[str], *, hide: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"service_type": connector.service_type, "is_native": connector.is_native}
    facts |= {key: getattr(connector, key) for key in _TEXTS}
    for name, value in values_of(connector.configuration).items():
        entry = connector.configuration[name]
        secret = name in secret_fields or (isinstance(entry, Mapping) and entry.get("sensitive"))
        facts[f"configuration.{name}"] = "***" if hide and secret and value not in (None, "") else value
    for kind in _SCHEDULES:
        schedule = getattr(connector.scheduling, kind)
        facts[f"scheduling.{kind}"] = f"{'on' if schedule.enabled else 'off'}, {schedule.interval}"
    if connector.pipeline is not None:
        facts |= {f"pipeline.{key}": getattr(connector.pipeline, key) for key in sorted(_PIPELINE)}
    return facts


def exported(connectors: Sequence[Connector]) -> dict[str, Any]:
    """The file that describes these connectors, without their secrets."""
    return {"connectors": [_exported(connector) for connector in connectors]}


def _exported(connector: Connector) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": connector.id, "service_type": connector.service_type}
    entry |= {key: getattr(connector, key) for key in _TEXTS if getattr(connector, key)}
    if connector.is_native:
        entry["is_native"] = True
    values = {
        name: value
        for name, value in values_of(connector.configuration).items()
        if not (isinstance(connector.configuration[name], Mapping) and connector.configuration[name].get("sensitive"))
    }
    if values:
        entry["configuration"] = values
    entry["scheduling"] = {
        kind: {"enabled": schedule.enabled, "interval": schedule.interval}
        for kind in _SCHEDULES
        for schedule in [getattr(connector.scheduling, kind)]
    }
    if connector.pipeline is not None:
        entry["pipeline"] = {key: getattr(connector.pipeline, key) for key in sorted(_PIPELINE)}
    return entry
