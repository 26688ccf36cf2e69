"""Documents as bytes: serialised once, measured as bytes, and every value of every driver gets some form.

`orjson` does the common case in one call. What it refuses (numbers beyond 64 bits, keys that are not text, lone surrogates) is
rebuilt in plain values and tried again, so that one odd value never costs a document, let alone a sync.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

import orjson

OPTIONS = orjson.OPT_NAIVE_UTC
_DEPTH_MAX = 200
_INT_MAX = 2**64
_INT_MIN = -(2**63)


class Encoder:
    """Serialises documents and counts those with values that had to be written as text."""

    def __init__(self) -> None:
        self.converted = 0
        self._unknown = False

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """One line of JSON. Never raises for a value; a value JSON has no form for becomes text."""
        self._unknown = False
        try:
            line = orjson.dumps(fields, self._default, OPTIONS)
        except (orjson.JSONEncodeError, RecursionError):
            self._unknown = True
            line = orjson.dumps(plain(fields), None, OPTIONS)
        if self._unknown:
            self.converted += 1
        return line

    def encode_all(self, documents: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """A line for each, as `encode` makes it."""
        dumps, default = orjson.dumps, self._default
        self._unknown = False
        try:
            lines = [dumps(fields, default, OPTIONS) for fields in documents]
        except (orjson.JSONEncodeError, RecursionError):
            self._unknown = True
        # If one of them is odd, each alone tells which.
        return [self.encode(fields) for fields in documents] if self._unknown else lines

    def _default(self, value: Any) -> Any:
        known, form = _form(value)
        if not known:
            self._unknown = True
        return form


def _form(value: Any) -> tuple[bool, Any]:
    """What a value that orjson does not know becomes, and whether that form is the expected one."""
    match value:
        case Decimal():
            return True, _number(value)
        case set() | frozenset():
            return True, sorted(value, key=repr)
        case bytes() | bytearray() | memoryview():
            return True, base64.b64encode(value).decode("ascii")
        case dt.timedelta():
            return True, value.total_seconds()
        case Enum():
            return True, value.value
        case Mapping():
            return True, dict(value)
        case _ if hasattr(value, "isoformat"):
            return True, value.isoformat()
        case str() | int() | float() | list() | tuple():
            # Subclasses that orjson refuses.
            return True, _base(value)
        case _:
            return False, str(value)


def _number(value: Decimal) -> Any:
    """A decimal keeps its digits: a whole one is an integer, one a float holds exactly is a float, else it is text."""
    if not value.is_finite():
        return None
    if value == value.to_integral_value() and abs(value) < _INT_MAX // 2:
        return int(value)
    nearest = float(value)
    return nearest if Decimal(repr(nearest)) == value else str(value)


def _base(value: object) -> Any:
    kinds: tuple[Any, ...] = (str, int, float, list, tuple)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    raise AssertionError(f"{type(value)} is no plain kind")


def plain(value: Any, depth: int = 0) -> Any:
    """Rebuild a value of anything in what JSON can say."""
    if depth > _DEPTH_MAX:
        return "(nested too deeply)"
    match value:
        case None | bool():
            return value
        case str():
            return str(value).encode("utf-8", "replace").decode("utf-8")
        case int():
            return int(value) if _INT_MIN <= value < _INT_MAX else str(value)
        case float():
            return float(value)
        case Mapping():
            return {_key(key): plain(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner, depth + 1) for inner in value]
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case _:
            _known, form = _form(value)
            return plain(form, depth + 1)


def _key(key: Any) -> str:
    text = key if isinstance(key, str) else "null" if key is None else str(key)
    return text.encode("utf-8", "replace").decode("utf-8")


def action_line(operation: str, document_id: str) -> bytes:
    """The line before a document in a bulk request."""
    return b'{"%s":{"_id":%s}}\n' % (operation.encode("ascii"), orjson.dumps(document_id))


def with_member(line: bytes, name: str, value: Any) -> bytes:
    """Add a member to an object that is serialised already; it must not have one of that name."""
    member = orjson.dumps(name) + b":" + orjson.dumps(value)
    return line[:-1] + (b"," if len(line) > 2 else b"") + member + b"}"


TRUNCATED = "_truncated_fields"


def truncated(fields: Mapping[str, Any], size_bytes: int, size_bytes_max: int) -> dict[str, Any] | None:
    """Cut the longest top-level texts of a document until it fits, and name them in `_truncated_fields`.

    None if texts alone do not make it small enough.
    """
    cut = dict(fields)
    names: list[str] = []
    excess = size_bytes - size_bytes_max + 64
    texts = {
        name: value for name, value in fields.items() if isinstance(value, str) and name not in ("id", "_timestamp")
    }
    for name, text in sorted(texts.items(), key=lambda each: len(each[1]), reverse=True):
        if excess <= 0:
            break
        encoded = orjson.dumps(text)
        excess += len(name) + 8
        keep_bytes = max(0, len(encoded) - 2 - excess)
        # Escapes make characters longer than they look: what is kept is measured, not guessed.
        kept = _prefix(text, keep_bytes)
        excess -= len(encoded) - len(orjson.dumps(kept))
        cut[name] = kept
        names.append(name)
    if excess > 0:
        return None
    cut[TRUNCATED] = sorted(names)
    return cut


def _prefix(text: str, size_bytes: int) -> str:
    """The longest start of a text that takes at most so many bytes in JSON."""
    low, high = 0, min(len(text), size_bytes)
    while low < high:
        middle = (low + high + 1) // 2
        if len(orjson.dumps(text[:middle])) - 2 <= size_bytes:
            low = middle
        else:
            high = middle - 1
    return text[:low]
