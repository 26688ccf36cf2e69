"""A double of python-oracledb's connections over SQLite: refuses what the server refuses, with its numbers."""

from __future__ import annotations

import re
import sqlite3
import threading
from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs
import oracledb


class _About:
    def __init__(self, code: int, text: str) -> None:
        self.code, self.full_code, self.message = code, f"ORA-{code:05d}", f"ORA-{code:05d}: {text}"

    def __str__(self) -> str:
        return self.message


def refused(code: int, text: str) -> oracledb.DatabaseError:
    return oracledb.DatabaseError(_About(code, text))


sqlite3.register_converter("oracle_number", lambda raw: Decimal(raw.decode()))
sqlite3.register_converter("oracle_date", lambda raw: datetime.fromisoformat(raw.decode()))


@attrs.define
class Double:
    """What the server holds and how it fails. `connect` takes the place of the driver's."""

    user: str = "SHOP"
    password: str = "p@ss/w:rd"
    services: tuple[str, ...] = ("FREE",)
    fails_next: tuple[int, str] | None = None
    """Fails the next statement that reads a table's rows."""
    fails_after: int = 0
    forgets_times: bool = False
    stalls: threading.Event | None = None
    cancelled: threading.Event = attrs.field(factory=threading.Event)
    connected_with: list[dict[str, Any]] = attrs.field(factory=list)
    statements: list[str] = attrs.field(factory=list)
    still_open: int = 0
    inner: sqlite3.Connection = attrs.field(
        factory=lambda: sqlite3.connect(
            ":memory:", check_same_thread=False, detect_types=sqlite3.PARSE_DECLTYPES, isolation_level=None
        )
    )
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        for statement in (
            "CREATE TABLE DUAL(x)",
            "INSERT INTO DUAL VALUES (1)",
            "CREATE TABLE ALL_TABLES(OWNER, TABLE_NAME)",
            "CREATE TABLE ALL_CONSTRAINTS(OWNER, CONSTRAINT_NAME, CONSTRAINT_TYPE, TABLE_NAME)",
            "CREATE TABLE ALL_CONS_COLUMNS(OWNER, CONSTRAINT_NAME, TABLE_NAME, COLUMN_NAME, POSITION)",
            "CREATE TABLE ALL_TAB_COLUMNS(OWNER, TABLE_NAME, COLUMN_NAME, DATA_TYPE)",
        ):
            self.inner.execute(statement)

    def create(self, table: str, columns: dict[str, str], keys: tuple[str, ...] = (), rows: Any = ()) -> None:
        """Make a table with its place in the catalogue; columns have the server's types."""
        spelt = ", ".join(f"{_quoted(name)} {_SPELT.get(kind, 'text')}" for name, kind in columns.items())
        primary = f", PRIMARY KEY ({', '.join(map(_quoted, keys))})" if keys else ""
        self.inner.execute(f"CREATE TABLE {_quoted(table)}({spelt}{primary})")
        self.inner.execute("INSERT INTO ALL_TABLES VALUES (?, ?)", (self.user, table))
        if keys:
            self.inner.execute("INSERT INTO ALL_CONSTRAINTS VALUES (?, ?, 'P', ?)", (self.user, f"PK {table}", table))
        for place, key in enumerate(keys, start=1):
            self.inner.execute(
                "INSERT INTO ALL_CONS_COLUMNS VALUES (?, ?, ?, ?, ?)", (self.user, f"PK {table}", table, key, place)
            )
        for name, kind in columns.items():
            self.inner.execute("INSERT INTO ALL_TAB_COLUMNS VALUES (?, ?, ?, ?)", (self.user, table, name, kind))
        for row in rows:
            marks = ", ".join("?" * len(row))
            self.inner.execute(f"INSERT INTO {_quoted(table)} VALUES ({marks})", [_kept(value) for value in row])

    def connect(self, **given: Any) -> _Connection:
        self.connected_with.append(given)
        database = given.get("sid") or given.get("service_name")
        if database not in self.services:
            raise refused(12514, "TNS:listener does not currently know of service requested")
        if (given["user"].upper(), given["password"]) != (self.user, self.password):
            raise refused(1017, "invalid username/password; logon denied")
        self.still_open += 1
        return _Connection(self)


class _Connection:
    def __init__(self, double: Double) -> None:
        self._double = double
        self.call_timeout = 0
        self.outputtypehandler: Any = None

    def cursor(self) -> _Cursor:
        return _Cursor(self._double)

    def close(self) -> None:
        self._double.still_open -= 1

    def cancel(self) -> None:
        self._double.cancelled.set()


class _Cursor:
    description: Any = None

    def __init__(self, double: Double) -> None:
        self._double = double
        self._rows: list[Any] = []

    def __enter__(self) -> _Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str, bound: Any = None) -> None:
        double = self._double
        double.statements.append(statement)
        if statement.startswith("ALTER SESSION"):
            return
        if "SCN_TO_TIMESTAMP" in statement:
            if double.forgets_times:
                raise refused(8181, "specified number is not a valid system change number")
            self.description, self._rows = [("T",)], [(datetime(2024, 5, 6, 7, 8, 9),)]
            return
        if "SELECT *" in statement:
            if double.stalls is not None:
                double.stalls.set()
                double.cancelled.wait(20)
                raise refused(1013, "user requested cancel of current operation")
            if double.fails_next is not None:
                if double.fails_after == 0:
                    failure, double.fails_next = double.fails_next, None
                    raise refused(*failure)
                double.fails_after -= 1
        spelt = re.sub(r"FETCH FIRST (\d+) ROWS ONLY", r"LIMIT \1", statement)
        with double.lock:
            try:
                cursor = double.inner.execute(spelt, {name: _kept(value) for name, value in (bound or {}).items()})
            except sqlite3.OperationalError as error:
                raise refused(942, "table or view does not exist") from error
            self._rows = cursor.fetchall()
        self.description = cursor.description

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def fetchmany(self, count: int) -> list[Any]:
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows


_SPELT = {
    "NUMBER": "integer",
    "NUMBER(9,2)": "oracle_number",
    "DATE": "oracle_date",
    "TIMESTAMP(9)": "oracle_date",
    "RAW": "blob",
}


def _kept(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value.isoformat() if isinstance(value, datetime) else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
