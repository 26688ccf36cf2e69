"""What BSON says, as JSON can say it. Known values stay as existing indices have them; none of any other type is refused or lost."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any, Final

from bson import json_util
from bson.binary import UUID_SUBTYPE, Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from .relational import Values
from .source import JSON

_EXTENDED: Final = frozenset({"$binary", "$date", "$numberDecimal", "$numberLong", "$oid", "$timestamp", "$uuid"})


class DateOutOfRange(ValueError):
    """A date before the year 1 or after 9999, which the settings do not allow."""


def values_reader(allow_far_dates: bool) -> Values:
    """Make the converter of BSON values. Unless `allow_far_dates`, dates beyond the calendar raise `DateOutOfRange`."""
    values = Values()

    def far(value: DatetimeMS) -> int:
        if not allow_far_dates:
            raise DateOutOfRange(f"{int(value)} ms from 1970")
        return int(value)

    def mapping(value: Mapping[str, Any]) -> dict[str, JSON]:
        return {name: values.plain(one) for name, one in value.items()}

    def listing(value: list[Any]) -> list[JSON]:
        return [values.plain(one) for one in value]

    def reference(value: DBRef) -> dict[str, JSON]:
        return mapping(value.as_doc())

    special: dict[type[Any], Callable[[Any], JSON]] = {
        ObjectId: str,
        Int64: int,
        Decimal128: _decimal,
        DatetimeMS: far,
        datetime: _date,
        DBRef: reference,
        dict: mapping,
        list: listing,
        Binary: _binary,
        bytes: _base64,
        Code: _code,
        Regex: _regex,
        Timestamp: _timestamp,
        MinKey: lambda _: "MinKey",
        MaxKey: lambda _: "MaxKey",
    }
    values.learn(special)
    return values


def extended(value: JSON) -> Any:
    """Read a rule's value: `{"$oid": ...}`, `{"$date": ...}` and their like mean what they mean in the vendor's own tools.

    Raises `ValueError` if such a value cannot be read.
    """
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)) in _EXTENDED:
            try:
                return json_util.object_hook(value, json_util.JSONOptions(tz_aware=True))
            except (BSONError, TypeError, ValueError, ArithmeticError) as error:
                raise ValueError(f"{next(iter(value))} cannot be read: {error}") from error
        return {name: extended(one) for name, one in value.items()}
    if isinstance(value, list):
        return [extended(one) for one in value]
    return value


def _date(value: datetime) -> str:
    return value.isoformat()


def _decimal(value: Decimal128) -> float | None:
    number = float(value.to_decimal())
    return number if isfinite(number) else None


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _binary(value: Binary) -> str:
    # The old subtype 3 does not say in which order its bytes stand; a URI with uuidRepresentation does.
    return str(value.as_uuid()) if value.subtype == UUID_SUBTYPE and len(value) == 16 else _base64(value)


def _code(value: Code) -> str:
    return str(value)


def _regex(value: Regex[Any]) -> str:
    pattern = value.pattern.decode("utf-8", errors="replace") if isinstance(value.pattern, bytes) else value.pattern
    flags = "".join(letter for letter, flag in _FLAGS.items() if value.flags & flag)
    return f"/{pattern}/{flags}"


def _timestamp(value: Timestamp) -> str:
    return f"{value.as_datetime().replace(tzinfo=None).isoformat()}#{value.inc}"


_FLAGS: Final = {"i": 2, "l": 4, "m": 8, "s": 16, "u": 32, "x": 64}
