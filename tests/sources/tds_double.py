"""A server that speaks as much of Microsoft's Tabular Data Stream (MS-TDS, version 7.4) as tests need, over SQLite.

It refuses what the real one refuses: wrong logins, unknown databases and tables, tables without rights. Written from the open
specification; tried with python-tds and FreeTDS.
"""

from __future__ import annotations

import re
import socketserver
import sqlite3
import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import attrs

PRELOGIN, LOGIN, BATCH, ATTENTION, TRANSACTION = 0x12, 0x10, 0x01, 0x06, 0x0E
_LONG = 0xFFFF

sqlite3.register_converter("bit", lambda raw: raw == b"1")
sqlite3.register_converter("decimal", lambda raw: Decimal(raw.decode()))
sqlite3.register_converter("uniqueidentifier", lambda raw: uuid.UUID(raw.decode()))
sqlite3.register_converter("datetime2", lambda raw: datetime.fromisoformat(raw.decode()))
sqlite3.register_converter("date", lambda raw: date.fromisoformat(raw.decode()))


@attrs.define
class Double:
    """What the server holds and how it fails."""

    user: str = "admin"
    password: str = "it's 100% @secret/"
    database: str = "xe"
    schema: str = "dbo"
    port: int = 0
    forbidden: set[str] = attrs.field(factory=set)
    """Tables that may be listed and not read."""
    hides_usage: bool = False
    cut_after_rows: int | None = None
    """Cut the connection once, after so many rows."""
    fails_next: tuple[int, str] | None = None
    """Answer the next statement that reads a table with this error."""
    stalls: threading.Event | None = None
    """While it is there and not set, statements that read tables wait."""
    statements: list[str] = attrs.field(factory=list)
    ended: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    """Released by every connection that ends."""
    _inner: sqlite3.Connection = attrs.field(
        factory=lambda: sqlite3.connect(
            ":memory:", check_same_thread=False, detect_types=sqlite3.PARSE_DECLTYPES, isolation_level=None
        )
    )
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        for name in (self.schema, "sys", "information_schema"):
            self._inner.execute(f"ATTACH ':memory:' AS \"{name}\"")
        for statement in (
            "CREATE TABLE information_schema.tables(TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE)",
            "CREATE TABLE information_schema.table_constraints(CONSTRAINT_SCHEMA, CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_TYPE)",
            "CREATE TABLE information_schema.key_column_usage(CONSTRAINT_SCHEMA, CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION)",
            "CREATE TABLE information_schema.columns(TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE)",
            "CREATE TABLE sys.dm_db_index_usage_stats(database_id, object_id, last_user_update datetime2)",
        ):
            self._inner.execute(statement)
        self._inner.create_function("DB_ID", 0, lambda: 7)
        self._inner.create_function("OBJECT_ID", 1, lambda name: name)

    def create(self, table: str, columns: dict[str, str], keys: tuple[str, ...] = (), rows: Any = ()) -> None:
        """Make a table with its place in the catalogue. Types are the server's, such as `nvarchar(20)` or `decimal(10,2)`."""
        spelt = ", ".join(f"{_quoted(column)} {kind}" for column, kind in columns.items())
        primary = f", PRIMARY KEY ({', '.join(map(_quoted, keys))})" if keys else ""
        self._inner.execute(f"CREATE TABLE {_quoted(self.schema)}.{_quoted(table)}({spelt}{primary})")
        self._inner.execute("INSERT INTO information_schema.tables VALUES (?, ?, 'BASE TABLE')", (self.schema, table))
        if keys:
            constraint = f"PK_{table}"
            self._inner.execute(
                "INSERT INTO information_schema.table_constraints VALUES (?, ?, ?, ?, 'PRIMARY KEY')",
                (self.schema, constraint, self.schema, table),
            )
        for place, key in enumerate(keys, start=1):
            self._inner.execute(
                "INSERT INTO information_schema.key_column_usage VALUES (?, ?, ?, ?, ?, ?)",
                (self.schema, f"PK_{table}", self.schema, table, key, place),
            )
        for column, kind in columns.items():
            base, _, rest = kind.partition("(")
            sizes = [int(one) for one in re.findall(r"\d+", rest)]
            length = sizes[0] if "char" in base or "binary" in base else None
            precision, scale = [*sizes, None, None][:2] if base in ("decimal", "numeric") else (None, None)
            self._inner.execute(
                "INSERT INTO information_schema.columns VALUES (?, ?, ?, ?, ?, ?, ?)",
                (self.schema, table, column, base, length, precision, scale),
            )
        self.insert(table, rows)

    def insert(self, table: str, rows: Any) -> None:
        for row in rows:
            marks = ", ".join("?" * len(row))
            self._inner.execute(
                f"INSERT INTO {_quoted(self.schema)}.{_quoted(table)} VALUES ({marks})",
                [str(value) if isinstance(value, Decimal | uuid.UUID | date) else value for value in row],
            )

    def was_written(self, table: str, when: datetime, database_id: int = 7) -> None:
        """Note in the usage statistics that a table was written to."""
        self._inner.execute(
            "INSERT INTO sys.dm_db_index_usage_stats VALUES (?, ?, ?)",
            (database_id, f'"{self.schema}"."{table}"', when.isoformat(" ")),
        )

    def answer(self, statement: str) -> tuple[list[str], list[Any]]:
        """Run a statement. Raises `_Refused` with the real server's number."""
        self.statements.append(statement)
        if statement.startswith("SET "):
            return [], []
        if self.hides_usage and "dm_db_index_usage_stats" in statement:
            raise _Refused(300, "VIEW SERVER STATE permission was denied on object 'server', database 'master'.")
        reads_table = f'"{self.schema}".' in statement.lower() and "dm_db" not in statement
        if reads_table:
            if self.stalls is not None:
                self.stalls.wait(30)
            if self.fails_next is not None:
                refused, self.fails_next = self.fails_next, None
                raise _Refused(*refused)
            for table in self.forbidden:
                if f'."{table}"' in statement:
                    raise _Refused(229, f"The SELECT permission was denied on the object '{table}'.")
        top = re.match(r"\s*SELECT TOP (\d+) ", statement)
        spelt = re.sub(r"\bN'", "'", statement)
        spelt = re.sub(r"(CAST\('(?:[^']|'')*') AS (?:uniqueidentifier|date)\)", r"\1 AS TEXT)", spelt)
        spelt = re.sub(r"CAST\(0x([0-9a-f]*) AS \w+\([^)]*\)\)", r"x'\1'", spelt)
        if top:
            spelt = spelt.replace(f"TOP {top[1]} ", "", 1) + f" LIMIT {top[1]}"
        with self._lock:
            try:
                cursor = self._inner.execute(spelt)
                columns, rows = [column[0] for column in cursor.description or ()], cursor.fetchall()
                if "MAX(last_user_update)" in statement:
                    # An aggregate has no declared type.
                    rows = [(row[0] and datetime.fromisoformat(row[0]),) for row in rows]
                return columns, rows
            except sqlite3.Error as error:
                if "no such table" in str(error):
                    raise _Refused(208, f"Invalid object name '{str(error).partition(': ')[2]}'.") from error
                raise _Refused(102, f"Incorrect syntax: {error}") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Refused(Exception):
    pass


@contextmanager
def running(double: Double) -> Iterator[Double]:
    """Serve on a free port of loopback."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                _converse(self.request, double)
            except (ConnectionError, EOFError, TimeoutError):
                pass
            finally:
                double.ended.release()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        double.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield double
        finally:
            if double.stalls is not None:
                double.stalls.set()
            server.shutdown()
            thread.join()


def _converse(connection: Any, double: Double) -> None:
    while True:
        kind, body = _received(connection)
        if kind == PRELOGIN:
            _send(connection, _prelogin())
        elif kind == LOGIN:
            _send(connection, _login(body, double))
        elif kind == ATTENTION:
            _send(connection, _done(0x20))
        elif kind == BATCH:
            skipped = int.from_bytes(body[:4], "little")
            statement = body[skipped:].decode("utf-16-le")
            try:
                columns, rows = double.answer(statement)
            except _Refused as refused:
                _send(connection, _error(*refused.args) + _done(0x02))
                continue
            if double.cut_after_rows is not None and len(rows) > double.cut_after_rows:
                cut, double.cut_after_rows = double.cut_after_rows, None
                _send(connection, _result(columns, rows, cut), is_last=False)
                connection.close()
                return
            _send(connection, _result(columns, rows) if columns else _done())
        else:
            _send(connection, _done())


def _received(connection: Any) -> tuple[int, bytes]:
    body = b""
    while True:
        head = _exactly(connection, 8)
        body += _exactly(connection, int.from_bytes(head[2:4], "big") - 8)
        if head[1] & 1:
            return head[0], body


def _exactly(connection: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _send(connection: Any, body: bytes, *, is_last: bool = True) -> None:
    pieces = [body[start : start + 4000] for start in range(0, len(body), 4000)] or [b""]
    for number, piece in enumerate(pieces, start=1):
        status = 1 if is_last and number == len(pieces) else 0
        connection.sendall(struct.pack(">BBHHBB", 4, status, len(piece) + 8, 0, number % 256, 0) + piece)


def _prelogin() -> bytes:
    options = [(0, b"\x10\x00\x07\xd0\x00\x00"), (1, b"\x02"), (2, b"\x00"), (3, b""), (4, b"\x00")]
    offset, heads, data = 5 * len(options) + 1, b"", b""
    for token, value in options:
        heads += struct.pack(">BHH", token, offset + len(data), len(value))
        data += value
    return heads + b"\xff" + data


def _login(body: bytes, double: Double) -> bytes:
    def text(place: int) -> str:
        offset, length = struct.unpack_from("<HH", body, 36 + 4 * place)
        raw = body[offset : offset + 2 * length]
        if place == 2:
            raw = bytes(((one ^ 0xA5) >> 4) | (((one ^ 0xA5) & 0x0F) << 4) for one in raw)
        return raw.decode("utf-16-le")

    user, password, database = text(1), text(2), text(8)
    if (user, password) != (double.user, double.password):
        return _error(18456, f"Login failed for user '{user}'.") + _done(0x02)
    if database != double.database:
        return (
            _error(4060, f'Cannot open database "{database}" requested by the login.')
            + _error(18456, f"Login failed for user '{user}'.")
            + _done(0x02)
        )
    name = "double".encode("utf-16-le")
    acknowledged = b"\x01" + b"\x74\x00\x00\x04" + bytes([len(name) // 2]) + name + b"\x10\x00\x00\x00"
    changes = _changed(1, database, "master") + _changed(4, "4096", "4096")
    return changes + b"\xad" + struct.pack("<H", len(acknowledged)) + acknowledged + _done()


def _changed(kind: int, new: str, old: str) -> bytes:
    body = bytes([kind]) + b"".join(bytes([len(one)]) + one.encode("utf-16-le") for one in (new, old))
    return b"\xe3" + struct.pack("<H", len(body)) + body


def _error(number: int, text: str) -> bytes:
    said = text.encode("utf-16-le")
    body = struct.pack("<iBBH", number, 1, 16, len(text)) + said + b"\x00" + b"\x00" + struct.pack("<i", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body


def _done(status: int = 0, count: int = 0) -> bytes:
    return struct.pack("<BHHQ", 0xFD, status | (0x10 if count else 0), 0, count)


def _result(columns: list[str], rows: list[Any], row_count: int | None = None) -> bytes:
    kinds = [next((type(row[place]) for row in rows if row[place] is not None), str) for place in range(len(columns))]
    out = bytearray(b"\x81" + struct.pack("<H", len(columns)))
    for name, kind in zip(columns, kinds, strict=True):
        out += struct.pack("<IH", 0, 1) + _TYPES[kind] + bytes([len(name)]) + name.encode("utf-16-le")
    for row in rows if row_count is None else rows[:row_count]:
        out += b"\xd1"
        for value, kind in zip(row, kinds, strict=True):
            out += _value(value, kind)
    if row_count is None:
        out += _done(count=len(rows))
    return bytes(out)


_COLLATION = b"\x09\x04\xd0\x00\x34"
_TYPES: dict[type, bytes] = {
    int: b"\x26\x08",
    float: b"\x6d\x08",
    bool: b"\x68\x01",
    Decimal: b"\x6a\x11\x26\x0a",
    uuid.UUID: b"\x24\x10",
    str: b"\xe7" + struct.pack("<H", 8000) + _COLLATION,
    bytes: b"\xa5" + struct.pack("<H", 8000),
    datetime: b"\x2a\x06",
    date: b"\x28",
}


def _value(value: Any, kind: type) -> bytes:
    if value is None:
        return struct.pack("<H", _LONG) if kind in (str, bytes) else b"\x00"
    if kind is int:
        return b"\x08" + struct.pack("<q", value)
    if kind is float:
        return b"\x08" + struct.pack("<d", value)
    if kind is bool:
        return b"\x01" + bytes([value])
    if kind is Decimal:
        scaled = int(value.scaleb(10))
        return b"\x11" + bytes([scaled >= 0]) + abs(scaled).to_bytes(16, "little")
    if kind is uuid.UUID:
        return b"\x10" + value.bytes_le
    if kind is datetime:
        midnight = value.replace(hour=0, minute=0, second=0, microsecond=0)
        ticks = int((value - midnight).total_seconds() * 1_000_000)
        return b"\x08" + ticks.to_bytes(5, "little") + (value.toordinal() - 1).to_bytes(3, "little")
    if kind is date:
        return b"\x03" + (value.toordinal() - 1).to_bytes(3, "little")
    raw = value.encode("utf-16-le") if isinstance(value, str) else value
    return struct.pack("<H", len(raw)) + raw
