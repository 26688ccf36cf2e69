"""How the service logs: lines for people, or the Elastic Common Schema for Filebeat; a level for each part; never a secret.

Everything goes to standard error. Values of settings that are secret are replaced wherever they appear in a line.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs
import structlog

if TYPE_CHECKING:
    from ..actors.configuration import Settings

SECRET_SIZE_MIN = 4
"""Replacing anything shorter would spoil every line and protect nothing."""
HIDDEN = "********"
_LABELS = {"job": "sync_job_id", "connector": "connector_id", "index": "index_name", "service_type": "service_type"}
_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "exception": 40, "critical": 50}
_TRANSPORT = ("elastic_transport", "elastic_transport.transport", "elasticsearch")
_QUIET = ("httpx", "httpcore", "hpack", "asyncio", "urllib3")

Event = MutableMapping[str, Any]


def configure_logging(
    settings: Settings,
    *,
    level: str | None = None,
    as_ecs: bool = False,
    more_secrets: Callable[[], Iterable[str]] = tuple,
) -> None:
    """Make this process log as the settings say; `level` goes before `service.log_level`. May be called again.

    `more_secrets` gives what must not be logged beside the secrets of the settings; it is asked for at each line.
    """
    chosen = logging.getLevelName(level or settings.service.log_level)
    levels = {
        name.removeprefix("callboard."): logging.getLevelName(value)
        for name, value in settings.callboard.log_levels.items()
    }
    hide = _hider(secrets_of(settings), more_secrets)
    render: Callable[..., Any] = _as_ecs() if as_ecs else _as_line
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _Levels(chosen, levels),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_traceback(chosen <= logging.DEBUG),
            render,
            lambda _logger, _name, line: hide(str(line)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min([chosen, *levels.values()])),
        logger_factory=_Factory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Foreign(as_ecs, hide))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(max(chosen, logging.INFO))
    transport = logging.getLevelName(settings.elasticsearch.log_level.upper())
    for name in _TRANSPORT:
        logging.getLogger(name).setLevel(transport if isinstance(transport, int) else logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(chosen, logging.WARNING))


def secrets_of(section: Any) -> tuple[str, ...]:
    """Every secret value in the settings, longest first."""
    found: set[str] = set()
    _collect(section, found)
    return tuple(sorted((one for one in found if len(one) >= SECRET_SIZE_MIN), key=len, reverse=True))


def _collect(section: Any, found: set[str]) -> None:
    from ..actors.configuration.settings import described
    from ..actors.secrets import url_passwords

    for attribute in attrs.fields(type(section)):
        value = getattr(section, attribute.name)
        if described(attribute).secret:
            found.update(map(str, value.values()) if isinstance(value, Mapping) else [str(value)] if value else [])
        elif isinstance(value, str):
            found.update(url_passwords(value))
        elif attrs.has(type(value)):
            _collect(value, found)
        elif isinstance(value, tuple):
            for item in value:
                if attrs.has(type(item)):
                    _collect(item, found)


def _hider(secrets: tuple[str, ...], more: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    def hide(line: str) -> str:
        for secret in _shapes((*secrets, *more())):
            line = line.replace(secret, HIDDEN)
        return line

    return hide


@lru_cache(maxsize=4)
def _shapes(secrets: tuple[str, ...]) -> tuple[str, ...]:
    # In JSON a secret with quotes looks different.
    return tuple(sorted({*secrets, *(json.dumps(secret)[1:-1] for secret in secrets)}, key=len, reverse=True))


class _Factory:
    """Loggers that know the name of their part, and look for standard error at each line."""

    def __call__(self, *names: Any) -> _Logger:
        return _Logger(str(names[0]) if names else "callboard")


class _Logger(structlog.PrintLogger):
    def __init__(self, name: str) -> None:
        super().__init__(sys.stderr)
        self.name = name


class _Levels:
    """Drops lines below the level of their part; the longest name that fits decides."""

    def __init__(self, default: int, levels: Mapping[str, int]) -> None:
        self._default, self._levels = default, sorted(levels.items(), key=lambda item: -len(item[0]))

    def __call__(self, logger: Any, name: str, event: Event) -> Event:
        part = getattr(logger, "name", "callboard")
        if part == "callboard" and "actor" in event:
            part = "callboard.actors"
        event["part"] = part
        if _NUMBERS.get(name, 20) < self._wanted(part.removeprefix("callboard.")):
            raise structlog.DropEvent
        return event

    def _wanted(self, part: str) -> int:
        for name, level in self._levels:
            if part == name or part.startswith(f"{name}."):
                return level
        return self._default


def _with_traceback(wanted: bool) -> Callable[[Any, str, Event], Event]:
    def process(_logger: Any, _name: str, event: Event) -> Event:
        if not wanted:
            event.pop("exc_info", None)
            return event
        done: Event = structlog.processors.format_exc_info(_logger, _name, event)
        return done

    return process


def _as_line(_logger: Any, _name: str, event: Event) -> str:
    moment, level = str(event.pop("timestamp"))[11:19], event.pop("level").upper()
    text, trace = event.pop("event"), event.pop("exception", None)
    event.pop("part", None)
    rest = " ".join(f"{key}={_shown(value)}" for key, value in event.items())
    colour = {"WARNING": 33, "ERROR": 31, "CRITICAL": 31, "DEBUG": 2}.get(level)
    head = f"[{moment}][{level}]"
    if colour and sys.stderr.isatty():
        head = f"\x1b[{colour}m{head}\x1b[0m"
    line = f"{head} {text}{' ' if rest else ''}{rest}"
    # A log line is one line, whatever a source or a server puts into it.
    return "".join(letter if letter.isprintable() or letter == "\x1b" else " " for letter in line) + (
        f"\n{trace}" if trace else ""
    )


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text or "=" in text else text


def _as_ecs() -> Callable[[Any, str, Event], str]:
    from .. import __version__

    def process(_logger: Any, _name: str, event: Event) -> str:
        return _ecs_line(event, __version__)

    return process


def _ecs_line(event: Event, version: str) -> str:
    told: dict[str, Any] = {
        "@timestamp": event.pop("timestamp"),
        "log.level": event.pop("level"),
        "message": event.pop("event"),
        "ecs.version": "8.11.0",
        "service.type": "connectors-python",
        "service.name": "callboard",
        "service.version": version,
        "log.logger": event.pop("part", "callboard"),
    }
    if trace := event.pop("exception", None):
        told["error.stack_trace"] = trace
    for key, value in event.items():
        if key in _LABELS:
            told[f"labels.{_LABELS[key]}"] = str(value)
        else:
            told[f"callboard.{key}"] = value if isinstance(value, int | float | bool) else str(value)
    if "callboard.text" in told or "callboard.why" in told:
        told["message"] = f"{told['message']}: {told.get('callboard.text') or told['callboard.why']}"
    return json.dumps(told, ensure_ascii=False, default=str)


class _Foreign(logging.Formatter):
    """Lines of other libraries, in the same form."""

    def __init__(self, as_ecs: bool, hide: Callable[[str], str]) -> None:
        super().__init__()
        self._as_ecs, self._hide = as_ecs, hide

    def format(self, record: logging.LogRecord) -> str:
        from datetime import UTC, datetime

        from .. import __version__

        event: Event = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "part": record.name,
        }
        line = _ecs_line(event, __version__) if self._as_ecs else _as_line(None, "", event)
        return self._hide(line)
