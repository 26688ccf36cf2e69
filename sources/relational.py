"""What relational databases have in common: which tables, how columns and rows are named, and what advanced rules may say.

Ids and field names are those of existing indices, letter by letter: a changed id would delete and index everything anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import md5
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from itertools import repeat
from math import isfinite
from typing import Any, Final
from uuid import UUID

import attrs

from .source import JSON, AdvancedRulesProblem, Document, Partition

PARTITION_ROWS_PER_PAGE: Final = 1000
"""Rows that are handed on together, however many the driver fetches at a time."""

_RULE_KEYS: Final = frozenset({"tables", "query", "id_columns"})


@attrs.frozen
class Rule:
    """One advanced rule: a query of the user's own, and what its rows are called."""

    tables: tuple[str, ...]
    query: str
    id_columns: tuple[str, ...] = ()

    @property
    def partition(self) -> Partition:
        digest = md5(self.query.encode(), usedforsecurity=False).hexdigest()[:12]
        names = ",".join(sorted(self.tables))
        data = {"tables": list(self.tables), "query": self.query, "id_columns": list(self.id_columns)}
        return Partition(f"rule/{names}/{digest}", {"rule": data}, title=f"rule over {names}")


def wants_all_tables(tables: Sequence[str] | str) -> bool:
    """Tell whether a setting means every table: `*` and nothing else."""
    return tables == "*" or list(tables) == ["*"]


def named_tables(tables: Sequence[str] | str) -> list[str]:
    """Return the names in a setting, in order and without doubles."""
    names = [name.strip() for name in tables.split(",")] if isinstance(tables, str) else list(tables)
    return list(dict.fromkeys(name for name in names if name))


def quoted(name: str, mark: str = '"') -> str:
    """Write an identifier so that no character of it can mean anything."""
    return f"{mark}{name.replace(mark, mark * 2)}{mark}"


def column_names(columns: Iterable[str], tables: Sequence[str], schema: str | None = None) -> list[str]:
    """Name the fields of a table's or rule's columns: schema and sorted tables before them, in small letters.

    Two columns that would be one field get numbers, from the second on, so that none is lost.
    """
    prefix = f"{schema.strip()}_" if schema and schema.strip() else ""
    if tables:
        prefix += "_".join(sorted(tables)) + "_"
    names: list[str] = []
    for column in columns:
        wanted = name = f"{prefix}{column}".lower()
        number = 1
        while name in names:
            number += 1
            name = f"{wanted}_{number}"
        names.append(name)
    return names


def row_id(tables: Sequence[str], keys: Iterable[Any], prefix: str = "") -> str:
    """Make a row's id from its key values as the driver gave them. Missing parts are left out, zero is not."""
    return f"{prefix}{'_'.join(sorted(tables))}_{'_'.join(str(key) for key in keys if key is not None)}"


def read_rules(rules: JSON) -> list[Rule]:
    """Read advanced rules that `rule_problems` has nothing against."""
    return [Rule(tuple(rule["tables"]), rule["query"], tuple(rule.get("id_columns") or ())) for rule in rules or ()]


def rule_problems(rules: JSON, existing: Iterable[str]) -> list[AdvancedRulesProblem]:
    """Say what is wrong with advanced rules: their form, and tables that are not there."""
    if not rules:
        return []
    if not isinstance(rules, list):
        return [AdvancedRulesProblem("Advanced rules are a list of objects with tables and query.")]
    said = [problem for place, rule in enumerate(rules) for problem in _form_problems(place, rule)]
    if said:
        return [AdvancedRulesProblem(text) for text in said]
    missing = sorted({str(name) for rule in rules for name in rule["tables"]} - set(existing))
    return (
        [AdvancedRulesProblem(f"There are no tables {', '.join(missing)}, or they may not be seen.")] if missing else []
    )


def _form_problems(place: int, rule: JSON) -> Iterable[str]:
    where = f"Rule {place + 1}"
    if not isinstance(rule, Mapping):
        yield f"{where} is not an object."
        return
    if strangers := sorted(set(rule) - _RULE_KEYS):
        yield f"{where} has {', '.join(map(repr, strangers))}; a rule has only tables, query and id_columns."
    for key, is_required in (("tables", True), ("id_columns", False)):
        if (key in rule or is_required) and not _is_names(rule.get(key)):
            yield f"{where}: {key} is not a list with at least one name."
    if not isinstance(rule.get("query"), str) or not rule["query"].strip():
        yield f"{where}: query is not a text of at least one character."


def _is_names(value: JSON) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)


class Values:
    """Turns what a driver gives into what JSON can say. Knows every type: a strange one becomes text and is counted."""

    def __init__(self, special: Mapping[type[Any], Callable[[Any], JSON]] | None = None) -> None:
        self._converters: dict[type[Any], Callable[[Any], JSON] | None] = {**_CONVERTERS, **(special or {})}
        self.strangers: dict[str, int] = {}
        """How often each unknown type was met."""

    def learn(self, special: Mapping[type[Any], Callable[[Any], JSON]]) -> None:
        """Add types, or replace what is done with them; for converters that need this object themselves."""
        self._converters.update(special)

    def plain(self, value: Any) -> JSON:
        """Convert one value. Lists and mappings are converted inside, too."""
        kind = type(value)
        try:
            convert = self._converters[kind]
        except KeyError:
            return self._other(value)
        return value if convert is None else convert(value)

    def plain_column(self, column: Sequence[Any]) -> Sequence[JSON]:
        """Convert the values of one column."""
        kinds = set(map(type, column))
        if kinds <= _AS_THEY_ARE:
            return column
        if len(kinds) == 1:
            [kind] = kinds
            if kind is Decimal and self._converters[kind] is _decimal:
                numbers = list(map(float, column))
                return numbers if all(map(isfinite, numbers)) else list(map(_finite, numbers))
            if (convert := self._converters.get(kind)) is not None:
                return list(map(convert, column))
        return list(map(self.plain, column))

    def _other(self, value: Any) -> JSON:
        if isinstance(value, Mapping) or hasattr(value, "keys"):
            return {str(key): self.plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(one) for one in value]
        if isinstance(value, set | frozenset):
            return sorted((self.plain(one) for one in value), key=str)
        if hasattr(value, "isoformat"):
            return value.isoformat()
        name = type(value).__qualname__
        self.strangers[name] = self.strangers.get(name, 0) + 1
        return str(value)


def duration(value: timedelta) -> str:
    """Write a time span as an ISO 8601 duration of days and seconds."""
    sign, span = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = (
        f"{span.seconds}.{span.microseconds:06d}".rstrip("0").rstrip(".") if span.microseconds else str(span.seconds)
    )
    days = f"{span.days}D" if span.days else ""
    return f"{sign}P{days}" + (f"T{seconds}S" if seconds != "0" or not days else "")


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _decimal(value: Decimal) -> float | None:
    number = float(value)
    return number if isfinite(number) else None


def _text(value: bytes) -> str:
    return bytes(value).decode("utf-8", errors="ignore")


_AS_THEY_ARE: Final = frozenset({int, str, bool, type(None)})
_CONVERTERS: Final[Mapping[type[Any], Callable[[Any], JSON] | None]] = {
    **dict.fromkeys((type(None), bool, int, str), None),
    float: _finite,
    Decimal: _decimal,
    timedelta: duration,
    **{kind: kind.isoformat for kind in (datetime, date, time)},
    **dict.fromkeys((bytes, bytearray, memoryview), _text),
    **dict.fromkeys((UUID, IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network), str),
}


@attrs.frozen
class RowShape:
    """How the rows of one table or rule become documents. Made once, used for every row."""

    tables: tuple[str, ...]
    names: Sequence[str]
    """Field names, in the order of the columns."""
    key_places: Sequence[int]
    """Where the key columns are, in the order in which they make up the id."""
    extra: Mapping[str, JSON]
    """Fields that every row has, such as the name of the table; they win over columns."""
    values: Values
    id_prefix: str = ""
    join_keys: Callable[[Sequence[Sequence[Any]]], Iterable[str]] | None = None
    """Makes the ends of the ids from the columns of the keys; by default their values with `_` between them."""

    def documents(self, rows: Sequence[Sequence[Any]], timestamp: str) -> list[Document]:
        """Make a document of each row of a page.

        Column by column, for in a column nearly all values are of one type: what to do with them is asked once.
        """
        columns = list(zip(*rows, strict=True))
        prefix = row_id(self.tables, (), self.id_prefix)
        ids = (self.join_keys or _joined)([columns[place] for place in self.key_places])
        # Whole columns at a time, and nothing per row that C does not loop over: this is where the time of a listing goes.
        plain = [
            self.values.plain_column(column)
            for name, column in zip(self.names, columns, strict=True)
            if name not in self.extra
        ]
        names = (*(name for name in self.names if name not in self.extra), *self.extra)
        whole = zip(*plain, *map(repeat, self.extra.values()), strict=False) if plain else repeat(self.extra.values())
        fields = map(dict, map(zip, repeat(names), whole))
        return list(map(Document, map(prefix.__add__, ids), fields, repeat(timestamp)))


def _joined(keys: Sequence[Sequence[Any]]) -> Iterable[str]:
    if any(None in column for column in keys):
        return ["_".join([str(value) for value in row if value is not None]) for row in zip(*keys, strict=True)]
    if len(keys) == 1:
        return map(str, keys[0])
    return map("_".join, zip(*(map(str, column) for column in keys), strict=True))
