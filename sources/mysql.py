"""MySQL and MariaDB: each table (or advanced rule) is a partition, each row a document.

The driver is PyMySQL in worker threads, which is faster than its asyncio relatives. A table is read page by page in the order of
its primary key, each page whole before it is handed on, so that a slow reader never holds up the server. When a call is
cancelled, its connection is killed at the server, which ends the thread as well.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar, Final

import attrs
import pymysql
from pymysql.cursors import SSCursor

from ..protocol.configuration import greater_than, less_than, setting
from ..runtime import now
from .errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from .relational import RowShape, Rule, Values, quoted, read_rules
from .relational_reading import Page, read_pages
from .relational_source import RelationalSource, keyless
from .source import JSON, Failure, Features, Listing, Partition
from .threaded_connection import ThreadedConnection
from .tls import verifying_context

CONNECT_S: Final = 30
STATEMENT_S: Final = 3600
"""A statement that gives nothing for so long is taken for dead."""

_TABLES: Final = (
    "SELECT TABLE_NAME, TABLE_TYPE FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME"
)
_KEYS: Final = """
    SELECT c.COLUMN_NAME, c.DATA_TYPE, s.SEQ_IN_INDEX FROM INFORMATION_SCHEMA.COLUMNS c
    LEFT JOIN INFORMATION_SCHEMA.STATISTICS s ON s.TABLE_SCHEMA = c.TABLE_SCHEMA AND s.TABLE_NAME = c.TABLE_NAME
      AND s.COLUMN_NAME = c.COLUMN_NAME AND s.INDEX_NAME = 'PRIMARY'
    WHERE c.TABLE_SCHEMA = %s AND c.TABLE_NAME = %s AND c.COLUMN_KEY = 'PRI' ORDER BY c.ORDINAL_POSITION"""
_NEWEST: Final = "SELECT UPDATE_TIME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"

_NO_KEY: Final = "The table has no primary key, so its rows have no ids. Give it one, or use a rule with id_columns."
_NOT_PAGED: Final = frozenset({"bit", "enum", "float", "set", "time", "timestamp"})
"""Types whose values, bound as parameters, compare otherwise than the server sorts them: enums and sets as text, floats rounded,
timestamps twice in the hour when clocks are put back. Keys of these types would skip rows; their tables are read in one go."""


@attrs.frozen
class MySQLConfig:
    """Which tables of which database."""

    host: str = setting("Host", default="")
    port: int = setting("Port", display="numeric", validations=[greater_than(0), less_than(65536)])
    user: str = setting("Username", default="")
    password: str = setting("Password", default="", sensitive=True)
    database: str = setting("Database", default="")
    tables: list[str] = setting(
        "Tables, separated by commas",
        default="*",
        display="textarea",
        tooltip="* takes all. Unused under advanced rules.",
    )
    ssl_enabled: bool = setting("Enable SSL", default=False)
    ssl_ca: str = setting("SSL certificate", default="", depends_on={"ssl_enabled": True})
    fetch_size: int = setting("Rows per page", default_value=5000, required=False, advanced=True, display="numeric")
    retry_count: int = setting(
        "Attempts per request", default_value=3, required=False, advanced=True, display="numeric"
    )


class MySQL(RelationalSource[MySQLConfig]):
    """MySQL and MariaDB: the rows of the tables of one database."""

    service_type: ClassVar[str] = "mysql"
    name: ClassVar[str] = "MySQL"
    Config = MySQLConfig
    features = Features(advanced_rules=True, resumable=True)
    shareable = True

    async def ping(self) -> None:
        async with self._connection() as connection:
            await connection.rows("SELECT 1")

    async def validate(self) -> None:
        """Make sure that every table that is named can be read."""
        names = await self.wanted_tables()
        unreadable = []
        async with self._connection() as connection:
            for name in names:
                try:
                    await connection.rows(f"SELECT 1 FROM {self._relation(name)} LIMIT 1")  # noqa: S608 - quoted
                except (NotFound, PermissionDenied, UnexpectedAnswer):
                    unreadable.append(name)
        if unreadable:
            raise ConfigurationError(
                f"In the database {self.config.database!r}, {self.config.user!r} cannot read the tables "
                f"{', '.join(unreadable)}. Check the names, and grant SELECT."
            )

    @property
    def namespace(self) -> str:
        return self.config.database

    @property
    def place(self) -> str:
        return f"The database {self.config.database!r} has no table that {self.config.user!r} may see"

    async def tables(self) -> dict[str, str]:
        async with self._connection() as connection:
            _, rows = await connection.rows(_TABLES, (self.config.database,))
        return dict(rows)

    def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        table = partition.data.get("table")
        return read_pages(
            lambda after: self._rule(partition) if table is None else self._table(table, after),
            after=None if checkpoint is None else _key_of(checkpoint),
            checkpoint_of=_checkpoint_of,
            attempts=self.config.retry_count,
            partition=partition.key,
            log=self.log,
        )

    async def _table(self, table: str, after: list[Any] | None) -> AsyncGenerator[Page, None]:
        size = max(1, self.config.fetch_size)
        async with self._connection() as connection:
            _, keys = await connection.rows(_KEYS, (self.config.database, table))
            if not keys:
                # A table that is not there has no key either; that is another matter.
                await connection.rows(f"SELECT 1 FROM {self._relation(table)} LIMIT 1")  # noqa: S608 - quoted
                yield [Failure("partition", table, _NO_KEY)], None
                return
            in_index_order = [key[0] for key in sorted(keys, key=lambda key: key[2] or 0)]
            order = ", ".join(_named(name) for name in in_index_order)
            relation = f"{_named(self.config.database)}.{_named(table)}"
            stamp = await self._newest_change(connection, [table])
            if any(key[1] in _NOT_PAGED for key in keys):
                columns = await connection.begin(f"SELECT * FROM {self._relation(table)}")  # noqa: S608 - quoted
                shape = self._shape((table,), columns, [columns.index(key[0]) for key in keys], table)
                while rows := await connection.next_rows(size):
                    yield [*shape.documents(rows, stamp or now().isoformat())], None
                return
            await connection.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            while True:
                where, bound = _behind(in_index_order, after)
                query = f"SELECT * FROM {relation}{where} ORDER BY {order} LIMIT {size}"  # noqa: S608 - quoted
                columns, rows = await connection.rows(query, bound)
                if rows:
                    shape = self._shape((table,), columns, [columns.index(key[0]) for key in keys], table)
                    last = [rows[-1][columns.index(name)] for name in in_index_order]
                    if last == after:
                        raise UnexpectedAnswer(
                            f"The table {table} gives the same rows again; its key cannot be compared."
                        )
                    after = last
                    yield [*shape.documents(rows, stamp or now().isoformat())], after
                if len(rows) < size:
                    return

    async def _rule(self, partition: Partition) -> AsyncGenerator[Page, None]:
        rule = read_rules([partition.data["rule"]])[0]
        async with self._connection() as connection:
            keys = list(rule.id_columns) or await self._keys_of(connection, rule)
            stamp = await self._newest_change(connection, rule.tables)
            columns = await connection.begin(rule.query.strip().rstrip(";"))
            missing = [key for key in keys if key not in columns]
            if missing or not keys:
                yield [Failure("partition", partition.title, keyless(missing))], None
                return
            shape = self._shape(rule.tables, columns, [columns.index(key) for key in keys], list(rule.tables))
            while rows := await connection.next_rows(max(1, self.config.fetch_size)):
                yield [*shape.documents(rows, stamp or now().isoformat())], None

    async def _keys_of(self, connection: _Connection, rule: Rule) -> list[str]:
        names: set[str] = set()
        for table in rule.tables:
            _, keys = await connection.rows(_KEYS, (self.config.database, table))
            names |= {key[0] for key in keys}
        return sorted(names)

    async def _newest_change(self, connection: _Connection, tables: Sequence[str]) -> str | None:
        times = []
        for table in tables:
            _, rows = await connection.rows(_NEWEST, (self.config.database, table))
            times += [row[0] for row in rows if row[0] is not None]
        return max(times).isoformat() if times else None

    def _relation(self, table: str) -> str:
        return f"{quoted(self.config.database, '`')}.{quoted(table, '`')}"

    def _shape(self, tables: tuple[str, ...], columns: list[str], places: Sequence[int], table: JSON) -> RowShape:
        return RowShape(tables, columns, places, {"Table": table}, Values())

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        connection = _Connection(self.config)
        async with connection.opened():
            yield connection


class _Connection(ThreadedConnection):
    """A connection that is ended by killing it at the server."""

    driver_errors = (pymysql.MySQLError, OSError, ValueError)

    def __init__(self, config: MySQLConfig) -> None:
        super().__init__()
        self._config = config

    def _connect(self) -> Any:
        config = self._config
        return pymysql.connect(
            host=config.host,
            port=config.port,
            user=config.user,
            password=config.password,
            database=config.database,
            charset="utf8mb4",
            connect_timeout=CONNECT_S,
            read_timeout=STATEMENT_S,
            ssl=verifying_context(config.ssl_ca) if config.ssl_enabled else None,
            program_name="callboard",
            # Holds beyond the transaction, which a statement could end.
            init_command="SET SESSION TRANSACTION READ ONLY",
        )

    def _begin(self, statement: str) -> list[str]:
        with self._inner.cursor() as cursor:
            # Rows wait at the server while the index is slow; by default it gives up on such a reader after a minute.
            cursor.execute(f"SET SESSION net_write_timeout = {STATEMENT_S}")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        self._cursor = self._inner.cursor(SSCursor)
        self._cursor.execute(statement)
        return [column[0] for column in self._cursor.description or ()]

    def _close(self) -> None:
        if self._inner is None:
            return
        # Without closing its cursor first: that would read a long result to its end, and so would its finalizer later.
        self._inner._force_close()
        if self._cursor is not None:
            if self._cursor._result is not None:
                self._cursor._result.unbuffered_active = False
            self._cursor.connection = None

    def _cut(self) -> None:
        if self._inner is None:
            return
        try:
            second = self._connect()
            try:
                with second.cursor() as cursor:
                    cursor.execute(f"KILL {int(self._inner.thread_id())}")
            finally:
                second.close()
        except (pymysql.MySQLError, OSError):
            self._close()

    def _translated(self, error: Exception) -> SourceError:
        return _translated(error, self._config)


def _behind(keys: Sequence[str], after: Sequence[Any] | None) -> tuple[str, list[Any]]:
    """Write the condition for rows behind a key, spelt out: older servers do not use an index for `(a, b) > (x, y)`."""
    if after is None:
        return "", []
    cases: list[str] = []
    bound: list[Any] = []
    for place, key in enumerate(keys):
        equal = [f"{_named(name)} = %s" for name in keys[:place]]
        cases.append(" AND ".join([*equal, f"{_named(key)} > %s"]))
        bound += after[: place + 1]
    return f" WHERE ({') OR ('.join(cases)})", bound


def _named(name: str) -> str:
    """Write an identifier inside a statement with bound values, where a percent sign is written twice."""
    return quoted(name, "`").replace("%", "%%")


def _checkpoint_of(key: Sequence[Any]) -> list[list[str]] | None:
    """Write a key as plain data; None if it has a value that could not be read again exactly."""
    written = []
    for value in key:
        if isinstance(value, bytes):
            written.append(["bytes", value.hex()])
        elif type(value) in (int, str, Decimal) or isinstance(value, date):
            written.append([type(value).__name__, str(value)])
        else:
            return None
    return written


def _key_of(checkpoint: JSON) -> list[Any]:
    read: dict[str, Callable[[str], Any]] = {"int": int, "Decimal": Decimal, "bytes": bytes.fromhex}
    return [read.get(kind, str)(text) for kind, text in checkpoint]


def _translated(error: Exception, config: MySQLConfig) -> SourceError:
    where = f"{config.host}:{config.port}"
    if not isinstance(error, pymysql.MySQLError):
        return Transient(f"The connection to MySQL at {where} failed: {error}.")
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = error.args[1] if len(error.args) > 1 else str(error)
    match code:
        case 1045 | 1698:
            return CredentialsError(f"MySQL at {where} refuses the user {config.user!r}: {text}.")
        case 1044 | 1049:
            return ConfigurationError(
                f"MySQL at {where} has no database {config.database!r} that {config.user!r} may use."
            )
        case 1142 | 1143 | 1227:
            return PermissionDenied(f"MySQL at {where}: {text}. Grant SELECT to {config.user!r}.")
        case 1146:
            return NotFound(f"MySQL at {where}: {text}.")
        case 0 | 1040 | 1053 | 1205 | 1213 | 1317 | 1927 | 2003 | 2006 | 2013 | 2014 | 4031:
            if "CERTIFICATE_VERIFY_FAILED" in str(text):
                return ConfigurationError(f"The certificate of {where} is not trusted: {text}.")
            return Transient(f"MySQL at {where}: {text}.")
    return UnexpectedAnswer(f"MySQL at {where}: {text} (error {code}).")
