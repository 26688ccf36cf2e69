"""Microsoft SQL Server: each table (or advanced rule) is a partition, each row a document.

The driver is python-tds in worker threads. A table is read page by page in the order of its primary key, each page a statement of
its own that is whole before it is handed on, so that a slow index never keeps a statement or its locks open. When a call is
cancelled its connection is cut, which ends the statement at the server and the thread here.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date
from decimal import Decimal
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar, Final
from uuid import UUID

import attrs
import OpenSSL.SSL
import pytds

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
from .relational import (
    PARTITION_ROWS_PER_PAGE,
    RowShape,
    Rule,
    Values,
    column_names,
    quoted,
    read_rules,
)
from .relational_reading import Page, read_pages
from .relational_source import RelationalSource, keyless
from .source import JSON, Failure, Features, Listing, Partition
from .threaded_connection import ThreadedConnection
from .tls import pem

CONNECT_S: Final = 30
STATEMENT_S: Final = 3600
"""A statement that gives nothing for so long is taken for dead."""
FETCH_SIZE: Final = 50
"""As entered from the start in every connector; so few rows a page would only cost time."""

_TABLES: Final = (
    "SELECT TABLE_NAME, TABLE_TYPE FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME"
)
_KEYS: Final = """
    SELECT k.COLUMN_NAME, c.DATA_TYPE, c.CHARACTER_MAXIMUM_LENGTH, c.NUMERIC_PRECISION, c.NUMERIC_SCALE
    FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS t
    JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE k ON k.CONSTRAINT_SCHEMA = t.CONSTRAINT_SCHEMA
      AND k.CONSTRAINT_NAME = t.CONSTRAINT_NAME AND k.TABLE_NAME = t.TABLE_NAME
    JOIN INFORMATION_SCHEMA.COLUMNS c ON c.TABLE_SCHEMA = k.TABLE_SCHEMA AND c.TABLE_NAME = k.TABLE_NAME
      AND c.COLUMN_NAME = k.COLUMN_NAME
    WHERE t.CONSTRAINT_TYPE = 'PRIMARY KEY' AND t.TABLE_SCHEMA = {schema} AND t.TABLE_NAME = {table}
    ORDER BY k.ORDINAL_POSITION"""
# Without the database, the number of a table in another one could give its time.
_NEWEST: Final = (
    "SELECT MAX(last_user_update) FROM sys.dm_db_index_usage_stats WHERE database_id = DB_ID() "
    "AND object_id = OBJECT_ID({relation})"
)
_SESSION: Final = "SET QUOTED_IDENTIFIER ON"
_PASSED_OVER: Final = {("msdb", "sysutility_ucp_configuration_internal")}

_NO_KEY: Final = "The table has no primary key, so its rows have no ids. Give it one, or use a rule with id_columns."
_WHOLE: Final = frozenset(
    {"bigint", "bit", "date", "int", "smallint", "tinyint", "uniqueidentifier", "money", "smallmoney"}
)
_SIZED: Final = frozenset({"binary", "char", "nchar", "nvarchar", "varbinary", "varchar"})
_SCALED: Final = frozenset({"decimal", "numeric"})
"""Types whose values can be written so that the server reads them again exactly. Tables with keys of others, such as datetime2
with its seven digits, are read in one go."""


@attrs.frozen
class SQLServerConfig:
    """Which tables of which schema."""

    host: str = setting("Host", default="")
    port: int = setting("Port", display="numeric", validations=[greater_than(0), less_than(65536)])
    username: str = setting("Username", default="")
    password: str = setting("Password", default="", sensitive=True)
    database: str = setting("Database", default="")
    tables: list[str] = setting(
        "Tables, separated by commas",
        default="*",
        display="textarea",
        tooltip="* takes all. Unused under advanced rules.",
    )
    fetch_size: int = setting(
        "Rows per fetch", default_value=FETCH_SIZE, required=False, advanced=True, display="numeric"
    )
    retry_count: int = setting(
        "Attempts per request", default_value=3, required=False, advanced=True, display="numeric"
    )
    schema: str = setting("Schema", default="", tooltip="Often dbo.")
    ssl_enabled: bool = setting("Enable SSL verification", default=False)
    ssl_ca: str = setting("SSL certificate", default="", depends_on={"ssl_enabled": True})
    validate_host: bool = setting("Validate host", default=False, tooltip="Compare its name with the certificate's.")


class SQLServer(RelationalSource[SQLServerConfig]):
    """Microsoft SQL Server: the rows of the tables of one schema."""

    service_type: ClassVar[str] = "mssql"
    name: ClassVar[str] = "Microsoft SQL Server"
    Config = SQLServerConfig
    features = Features(advanced_rules=True, resumable=True)
    shareable = True

    async def ping(self) -> None:
        async with self._connection() as connection:
            await connection.rows("SELECT 1")

    @property
    def namespace(self) -> str:
        return self.config.schema

    @property
    def place(self) -> str:
        return f"The schema {self.config.schema!r} has no table that {self.config.username!r} may see"

    async def tables(self) -> dict[str, str]:
        async with self._connection() as connection:
            _, rows = await connection.rows(_TABLES.format(schema=_literal(self.config.schema)))
        return {name: kind for name, kind in rows if (self.config.database, name) not in _PASSED_OVER}

    def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        table = partition.data.get("table")
        return read_pages(
            lambda after: self._rule(partition) if table is None else self._table(table, after),
            after=checkpoint,
            checkpoint_of=lambda key: key,
            attempts=self.config.retry_count,
            partition=partition.key,
            log=self.log,
        )

    async def _table(self, table: str, after: list[str] | None) -> AsyncGenerator[Page, None]:
        relation = f"{quoted(self.config.schema)}.{quoted(table)}"
        async with self._connection() as connection:
            keys = await self._keys(connection, table)
            if not keys:
                # A table that is not there has no key either; that is another matter.
                await connection.rows(f"SELECT TOP 1 1 FROM {relation}")  # noqa: S608 - quoted
                yield [Failure("partition", table, _NO_KEY)], None
                return
            stamp = await self._newest_change(connection, [table])
            # Ids have their key values in the order of the columns' names, as existing ids have.
            id_order = sorted(key.name for key in keys)
            if not all(key.can_be_written for key in keys):
                columns = await connection.begin(f"SELECT * FROM {relation}")  # noqa: S608 - quoted
                shape = self._shape((table,), columns, [columns.index(name) for name in id_order], table)
                while rows := await connection.next_rows(self._page_rows):
                    yield [*shape.documents(rows, stamp or now().isoformat())], None
                return
            order = ", ".join(quoted(key.name) for key in keys)
            while True:
                where = _behind(keys, after)
                page = f"SELECT TOP {self._page_rows} * FROM {relation}{where} ORDER BY {order}"  # noqa: S608 - quoted
                columns, rows = await connection.rows(page)
                if rows:
                    shape = self._shape((table,), columns, [columns.index(name) for name in id_order], table)
                    last = [_key_text(rows[-1][columns.index(key.name)]) for key in keys]
                    if last == after:
                        raise UnexpectedAnswer(
                            f"The table {table} gives the same rows again; its key cannot be compared."
                        )
                    after = last
                    yield [*shape.documents(rows, stamp or now().isoformat())], after
                if len(rows) < self._page_rows:
                    return

    async def _rule(self, partition: Partition) -> AsyncGenerator[Page, None]:
        rule = read_rules([partition.data["rule"]])[0]
        async with self._connection() as connection:
            keys = list(rule.id_columns) or await self._keys_of(connection, rule)
            stamp = await self._newest_change(connection, rule.tables)
            columns = await connection.begin(rule.query.strip().rstrip(";"))
            lowered = [column.lower() for column in columns]
            missing = [key for key in keys if key.lower() not in lowered]
            if missing or not keys:
                yield [Failure("partition", partition.title, keyless(missing))], None
                return
            places = [lowered.index(key.lower()) for key in keys]
            shape = self._shape(rule.tables, columns, places, list(rule.tables))
            while rows := await connection.next_rows(self._page_rows):
                yield [*shape.documents(rows, stamp or now().isoformat())], None

    @property
    def _page_rows(self) -> int:
        size = max(1, self.config.fetch_size)
        return PARTITION_ROWS_PER_PAGE if size == FETCH_SIZE else size

    async def _keys(self, connection: _Connection, table: str) -> list[_KeyColumn]:
        statement = _KEYS.format(schema=_literal(self.config.schema), table=_literal(table))
        _, rows = await connection.rows(statement)
        return [_KeyColumn(*row) for row in rows]

    async def _keys_of(self, connection: _Connection, rule: Rule) -> list[str]:
        return sorted({key.name for table in rule.tables for key in await self._keys(connection, table)})

    async def _newest_change(self, connection: _Connection, tables: Sequence[str]) -> str | None:
        """Return when a table was last written to; None if the server forgot it, or may not say."""
        times = []
        for table in tables:
            relation = f"{quoted(self.config.schema)}.{quoted(table)}"
            try:
                _, rows = await connection.rows(_NEWEST.format(relation=_literal(relation)))
            except PermissionDenied:
                return None
            times += [row[0] for row in rows if row[0] is not None]
        return max(times).isoformat() if times else None

    def _shape(self, tables: tuple[str, ...], columns: list[str], places: Sequence[int], table: JSON) -> RowShape:
        config = self.config
        return RowShape(
            tables=tables,
            names=column_names(columns, tables, config.schema),
            key_places=places,
            extra={"database": config.database, "schema": config.schema, "table": table},
            values=Values(),
            id_prefix=f"{config.database}_{config.schema}_",
        )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        connection = _Connection(self.config)
        async with connection.opened():
            yield connection


@attrs.frozen
class _KeyColumn:
    name: str
    kind: str
    length: int | None
    precision: int | None
    scale: int | None

    @property
    def can_be_written(self) -> bool:
        return self.kind in _WHOLE | _SIZED | _SCALED

    @property
    def full_type(self) -> str:
        if self.kind in _SIZED:
            return f"{self.kind}({self.length if self.length and self.length > 0 else 'max'})"
        return f"{self.kind}({self.precision},{self.scale})" if self.kind in _SCALED else self.kind

    def written(self, text: str) -> str:
        """Write a value as the server's own type, so that its index is used."""
        value = text if self.kind in ("binary", "varbinary") else _literal(text)
        return f"CAST({value} AS {self.full_type})"


class _Connection(ThreadedConnection):
    """A connection whose socket is ours, so that it can be cut."""

    driver_errors = (pytds.Error, OpenSSL.SSL.Error, OSError, ValueError)

    def __init__(self, config: SQLServerConfig) -> None:
        super().__init__()
        self._config = config
        self._socket: socket.socket | None = None

    def _connect(self) -> Any:
        config = self._config
        self._socket = socket.create_connection((config.host, config.port), timeout=CONNECT_S)
        with NamedTemporaryFile("w", suffix=".pem") as file:
            # The driver reads only files, and only while it connects.
            file.write(pem(config.ssl_ca))
            file.flush()
            inner = pytds.connect(
                dsn=config.host,
                port=config.port,
                database=config.database,
                user=config.username,
                password=config.password,
                sock=self._socket,
                login_timeout=CONNECT_S,
                timeout=STATEMENT_S,
                autocommit=True,
                appname="callboard",
                cafile=file.name if config.ssl_enabled else None,
                validate_host=config.validate_host,
                disable_connect_retry=True,
            )
        with inner.cursor() as cursor:
            cursor.execute(_SESSION)
        return inner

    def _close(self) -> None:
        # Cut, too, while rows of a statement are left: the driver would read them all first.
        if self._cursor is None and self._inner is not None:
            self._inner.close()
        self._cut()

    def _cut(self) -> None:
        if self._socket is not None:
            # It may have been cut already.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _translated(self, error: Exception) -> SourceError:
        return _translated(error, self._config)


def _behind(keys: Sequence[_KeyColumn], after: Sequence[str] | None) -> str:
    """Write the condition for rows behind a key, spelt out, for the server cannot compare rows of values."""
    if after is None:
        return ""
    cases = []
    for place, key in enumerate(keys):
        equal = [f"{quoted(one.name)} = {one.written(text)}" for one, text in zip(keys[:place], after, strict=False)]
        cases.append(" AND ".join([*equal, f"{quoted(key.name)} > {key.written(after[place])}"]))
    return f" WHERE ({') OR ('.join(cases)})"


def _literal(text: str) -> str:
    """Write a text so that no character of it can mean anything."""
    return "N'" + text.replace("'", "''") + "'"


def _key_text(value: Any) -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | str | Decimal | UUID | date):
        return str(value)
    raise UnexpectedAnswer(f"The driver gave a key as {type(value).__name__}, which cannot be compared.")


_PASSING: Final = frozenset(
    {
        64,
        233,
        1204,
        1205,
        1222,
        3960,
        4221,
        10053,
        10054,
        10060,
        10928,
        10929,
        40143,
        40197,
        40501,
        40613,
        49918,
        49919,
        49920,
    }
)
"""Deadlocks, lock time-outs, snapshots that were overtaken, throttling and moving databases."""


def _translated(error: Exception, config: SQLServerConfig) -> SourceError:
    where = f"SQL Server at {config.host}:{config.port}"
    number = getattr(error, "number", 0)
    text = (getattr(error, "text", "") or str(error) or type(error).__name__).strip().rstrip(".")
    if isinstance(error, OpenSSL.SSL.Error) or "Certificate does not match" in text:
        return ConfigurationError(
            f"The certificate of {config.host}:{config.port} is not trusted: {text}. Enter its authority in ssl_ca, or "
            "switch validate_host off if only its name differs."
        )
    match number:
        case 18456 if "Cannot open database" not in str(error):
            return CredentialsError(f"{where} refuses the user {config.username!r}: {text}.")
        case 18456 | 4060:
            return ConfigurationError(f"{where} has no database {config.database!r} that {config.username!r} may open.")
        case 229 | 230 | 297 | 300 | 371:
            return PermissionDenied(f"{where}: {text}. Grant SELECT to {config.username!r}.")
        case 208:
            return NotFound(f"{where}: {text}.")
    if number in _PASSING or isinstance(
        error, OSError | pytds.ClosedConnectionError | pytds.TimeoutError | pytds.InterfaceError
    ):
        return Transient(f"{where}: {text}.")
    if "does not support encryption" in text or "requires encryption" in text.lower():
        return ConfigurationError(f"{where}: {text}. Change ssl_enabled.")
    return UnexpectedAnswer(f"{where}: {text}{f' (error {number})' if number else ''}.")
