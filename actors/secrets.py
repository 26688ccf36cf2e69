"""What a connector's configuration holds that nobody must read elsewhere: found in it, and blanked out of whatever a source says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

HIDDEN = "********"
SIZE_MIN = 4
"""Blanking out anything shorter would spoil every sentence and protect nothing."""
_NAMES = re.compile(r"secret|password|passphrase|token|api_?key|private_?key|credential", re.IGNORECASE)
_IN_URL = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^/\s:@]*:)(?P<password>[^/\s@]+)(?=@)", re.IGNORECASE)

T = TypeVar("T")


def secrets_of(configuration: Mapping[str, Any]) -> tuple[str, ...]:
    """Every secret in a stored configuration, longest first: sensitive fields, fields named like one, passwords in URLs."""
    found: set[str] = set()
    for name, field in configuration.items():
        value, is_sensitive = field, False
        if isinstance(field, Mapping):
            value, is_sensitive = field.get("value"), bool(field.get("sensitive"))
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                continue
            if is_sensitive or _NAMES.search(str(name)):
                found |= {text, *(line.strip() for line in text.splitlines())}
            found |= {match["password"] for match in _IN_URL.finditer(text)}
    return tuple(sorted((one for one in found if len(one) >= SIZE_MIN), key=len, reverse=True))


def without_url_passwords(text: str) -> str:
    """The text with the passwords of all URLs in it blanked out."""
    return _IN_URL.sub(rf"\g<before>{HIDDEN}", text)


def url_passwords(text: str) -> tuple[str, ...]:
    """The passwords in the URLs of a text."""
    return tuple(match["password"] for match in _IN_URL.finditer(text))


def hidden(value: T, secrets: tuple[str, ...]) -> T:
    """The same value, text or record, however deep, without any of the secrets."""
    if not secrets:
        return value
    result: Any = _hidden(value, secrets)
    return result  # type: ignore[no-any-return]


def _hidden(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        if type(value) is str:
            for secret in secrets:
                value = value.replace(secret, HIDDEN)
        return value
    if attrs.has(type(value)):
        before = {one.name: getattr(value, one.name) for one in attrs.fields(type(value)) if one.init}
        changed = {name: _hidden(one, secrets) for name, one in before.items()}
        changed = {name: one for name, one in changed.items() if one is not before[name] and one != before[name]}
        return attrs.evolve(value, **changed) if changed else value
    if type(value) in (tuple, list):
        return type(value)(_hidden(one, secrets) for one in value)
    if type(value) is dict:
        return {name: _hidden(one, secrets) for name, one in value.items()}
    return value
