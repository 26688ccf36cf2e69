"""Oracle Database: each table of the user's own schema is a partition, each row a document.

The driver is python-oracledb in worker threads, in its thin mode unless an Oracle home is set. A table is read page by page in the
order of its primary key, each page whole before it is handed on, so that no cursor grows too old for the server's undo. When a
call is cancelled, its statement is broken off at the server.
"""

from __future__ import annotations

import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any, ClassVar, Final

import attrs
import oracledb

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
    Values,
    column_names,
    named_tables,
    quoted,
    wants_all_tables,
)
from .relational_reading import Page, read_pages
from .source import JSON, Failure, Features, Listing, Partition, Source
from .threaded_connection import ThreadedConnection

CONNECT_S: Final = 30
STATEMENT_S: Final = 3600
"""A call that gives nothing for so long is taken for dead."""
FETCH_SIZE: Final = 50
"""As entered from the start in every connector; so few rows a page would only cost time."""

_TABLES: Final = "SELECT TABLE_NAME FROM ALL_TABLES WHERE OWNER = :owner ORDER BY TABLE_NAME"
_KEYS: Final = """
    SELECT k.COLUMN_NAME, c.DATA_TYPE FROM ALL_CONSTRAINTS t
    JOIN ALL_CONS_COLUMNS k ON k.OWNER = t.OWNER AND k.CONSTRAINT_NAME = t.CONSTRAINT_NAME
    JOIN ALL_TAB_COLUMNS c ON c.OWNER = k.OWNER AND c.TABLE_NAME = k.TABLE_NAME AND c.COLUMN_NAME = k.COLUMN_NAME
    WHERE t.CONSTRAINT_TYPE = 'P' AND t.OWNER = :owner AND t.TABLE_NAME = :name ORDER BY k.POSITION"""
# Pages are compared and sorted alike only by the bytes of texts.
_SESSION: Final = "ALTER SESSION SET NLS_SORT = BINARY NLS_COMP = BINARY"

_NO_KEY: Final = "The table has no primary key, so its rows have no ids. Give it one."
_PAGED: Final = frozenset({"CHAR", "DATE", "NCHAR", "NUMBER", "NVARCHAR2", "RAW", "VARCHAR2"})
"""Types whose values come and go without loss. Tables with keys of others (time stamps have nine digits) are read in one go."""


@attrs.frozen
class OracleConfig:
    """Which tables of which user."""

    host: str = setting("Host", default="")
    port: int = setting("Port", display="numeric", validations=[greater_than(0), less_than(65536)])
    username: str = setting("Username", default="", tooltip="Owns the tables.")
    password: str = setting("Password", default="", sensitive=True)
    connection_source: str = setting(
        "Connection Source",
        default="sid",
        display="dropdown",
        options={"sid": "SID", "service_name": "Service Name"},
        tooltip="Pluggable databases have service names.",
    )
    sid: str = setting("SID", default="", depends_on={"connection_source": "sid"})
    service_name: str = setting("Service Name", default="", depends_on={"connection_source": "service_name"})
    tables: list[str] = setting(
        "Tables, separated by commas", default="*", display="textarea", tooltip="* takes all the user owns."
    )
    fetch_size: int = setting(
        "Rows per fetch", default_value=FETCH_SIZE, required=False, advanced=True, display="numeric"
    )
    retry_count: int = setting(
        "Attempts per request", default_value=3, required=False, advanced=True, display="numeric"
    )
    oracle_protocol: str = setting(
        "Protocol",
        default="TCP",
        default_value="TCP",
        display="dropdown",
        advanced=True,
        options={"TCP": "TCP", "TCPS": "TCPS"},
    )
    oracle_home: str = setting(
        "Oracle home",
        default="",
        default_value="",
        required=False,
        advanced=True,
        tooltip="Folder of Oracle's client libraries; only for what needs them.",
    )
    wallet_configuration_path: str = setting(
        "Wallet folder", default_value="", required=False, advanced=True, tooltip="With ewallet.pem, or sqlnet.ora."
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say which choices there are, and that SYS is none."""
        if self.connection_source not in ("sid", "service_name"):
            yield "connection_source", "must be sid or service_name"
        if self.oracle_protocol not in ("TCP", "TCPS"):
            yield "oracle_protocol", "must be TCP or TCPS"
        if self.username.lower() == "sys":
            yield "username", "is SYS, whose tables are the server's own; enter another user"

    @property
    def database(self) -> str:
        """What ids and documents call the database: the SID or service name as it was entered."""
        return self.sid if self.connection_source == "sid" else self.service_name


class Oracle(Source[OracleConfig]):
    """Oracle Database: the rows of the tables that one user owns."""

    service_type: ClassVar[str] = "oracle"
    name: ClassVar[str] = "Oracle Database"
    Config = OracleConfig
    features = Features(resumable=True)
    shareable = True

    async def ping(self) -> None:
        async with self._connection() as connection:
            await connection.rows("SELECT 1 FROM DUAL")

    async def validate(self) -> None:
        """Make sure that the user owns the tables that are named."""
        async with self._connection() as connection:
            present = await self._tables(connection)
        self._refuse_none(present)
        missing = [name for name in self._wanted() if _stored_name(name, present) is None]
        if missing:
            raise ConfigurationError(
                f"The user {self.config.username!r} owns no tables {', '.join(missing)}. Names stand without the owner."
            )

    def _wanted(self) -> list[str]:
        return [] if wants_all_tables(self.config.tables) else named_tables(self.config.tables)

    def _refuse_none(self, present: Sequence[str]) -> None:
        # Rights that were withdrawn look like tables that are gone; a sync would empty the index.
        if not present:
            raise ConfigurationError(f"The user {self.config.username!r} owns no tables in {self.config.database!r}.")

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        async with self._connection() as connection:
            present = await self._tables(connection)
        self._refuse_none(present)
        names = [_stored_name(name, present) or name for name in self._wanted()] or present
        for name in dict.fromkeys(names):
            yield Partition(f"{self.config.username.upper()}.{name}", {"table": name}, title=name)

    def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        return read_pages(
            lambda after: self._table(partition.data["table"], after),
            after=None if checkpoint is None else _key_of(checkpoint),
            checkpoint_of=_checkpoint_of,
            attempts=self.config.retry_count,
            partition=partition.key,
            log=self.log,
        )

    async def _table(self, table: str, after: list[Any] | None) -> AsyncGenerator[Page, None]:
        relation = quoted(table)
        size = max(1, self.config.fetch_size)
        size = PARTITION_ROWS_PER_PAGE if size == FETCH_SIZE else size
        async with self._connection() as connection:
            _, found = await connection.rows(_KEYS, {"owner": self.config.username.upper(), "name": table})
            if not found:
                # A table that is not there has no key either; that is another matter.
                await connection.rows(f"SELECT 1 FROM {relation} FETCH FIRST 1 ROWS ONLY")  # noqa: S608 - quoted
                yield [Failure("partition", table, _NO_KEY)], None
                return
            keys = [name for name, _ in found]
            stamp = await self._newest_change(connection, relation)
            if not all(kind in _PAGED for _, kind in found):
                columns = await connection.begin(f"SELECT * FROM {relation}")  # noqa: S608 - quoted
                shape = self._shape(table, columns, keys)
                while rows := await connection.next_rows(size):
                    yield [*shape.documents(rows, stamp or now().isoformat())], None
                return
            order = ", ".join(map(quoted, keys))
            while True:
                where, bound = _behind(keys, after)
                page = f"SELECT * FROM {relation}{where} ORDER BY {order} FETCH FIRST {size} ROWS ONLY"  # noqa: S608
                columns, rows = await connection.rows(page, bound)
                if rows:
                    last = [rows[-1][columns.index(name)] for name in keys]
                    if last == after:
                        raise UnexpectedAnswer(
                            f"The table {table} gives the same rows again; its key cannot be compared."
                        )
                    after = last
                    shape = self._shape(table, columns, keys)
                    yield [*shape.documents(rows, stamp or now().isoformat())], after
                if len(rows) < size:
                    return

    async def _newest_change(self, connection: _Connection, relation: str) -> str | None:
        """Return when the newest row was written; None if the server no longer knows."""
        try:
            _, [[newest]] = await connection.rows(
                f"SELECT SCN_TO_TIMESTAMP(MAX(ORA_ROWSCN)) FROM {relation}"  # noqa: S608 - quoted
            )
        except UnexpectedAnswer:
            # The server remembers the times of some days only, and of no external or nested table.
            return None
        return None if newest is None else newest.isoformat()

    async def _tables(self, connection: _Connection) -> list[str]:
        _, rows = await connection.rows(_TABLES, {"owner": self.config.username.upper()})
        return [row[0] for row in rows]

    def _shape(self, table: str, columns: list[str], keys: Sequence[str]) -> RowShape:
        database = self.config.database
        return RowShape(
            tables=(table,),
            names=column_names(columns, (table,)),
            key_places=[columns.index(name) for name in keys],
            extra={"Database": database, "Table": table},
            values=Values(_SPECIAL),
            id_prefix=f"{database}_",
            join_keys=self._joined,
        )

    def _joined(self, keys: Sequence[Sequence[Any]]) -> Iterable[str]:
        # Existing ids leave out a zero, so (7, 0) and (0, 7) are one document. Changing that would index everything anew.
        if any(0 in column for column in keys):
            self.log.warning("source.zero_in_key", why="A zero in a primary key is no part of the document's id.")
        return ["".join([f"{value}_" for value in row if value]) for row in zip(*keys, strict=True)]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        connection = _Connection(self.config)
        async with connection.opened():
            yield connection


class _Connection(ThreadedConnection):
    """A connection whose statement is broken off when its caller is gone."""

    driver_errors = (oracledb.Error, OSError, ValueError, TypeError)

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        self._config = config

    def _connect(self) -> Any:
        config = self._config
        wallet = config.wallet_configuration_path or None
        if config.oracle_home:
            # Once for the whole process; asked for otherwise a second time, the driver refuses.
            oracledb.init_oracle_client(lib_dir=str(PurePath(config.oracle_home) / "lib"), config_dir=wallet)
        inner = oracledb.connect(
            user=config.username,
            password=config.password,
            host=config.host,
            port=config.port,
            protocol=config.oracle_protocol.lower(),
            tcp_connect_timeout=CONNECT_S,
            config_dir=wallet,
            wallet_location=wallet,
            **{config.connection_source: config.database},
        )
        inner.call_timeout = STATEMENT_S * 1000
        inner.outputtypehandler = _fetched_as
        with inner.cursor() as cursor:
            cursor.execute(_SESSION)
        return inner

    def _close(self) -> None:
        if self._inner is not None:
            # It may have been closed by the server.
            with suppress(oracledb.Error):
                self._inner.close()

    def _cut(self) -> None:
        if self._inner is not None:
            with suppress(oracledb.Error):
                self._inner.cancel()

    def _translated(self, error: Exception) -> SourceError:
        return _translated(error, self._config)


def _fetched_as(cursor: Any, about: Any) -> Any:
    """Have large objects come as texts and bytes, and numbers exactly."""
    kind = _LARGE.get(about.type_code)
    if kind is not None:
        return cursor.var(kind, arraysize=cursor.arraysize)
    if about.type_code is oracledb.DB_TYPE_NUMBER:
        return cursor.var(oracledb.DB_TYPE_VARCHAR, arraysize=cursor.arraysize, outconverter=_number)
    return None


_LARGE: Final[Mapping[Any, Any]] = {
    oracledb.DB_TYPE_CLOB: oracledb.DB_TYPE_LONG,
    oracledb.DB_TYPE_NCLOB: oracledb.DB_TYPE_LONG_NVARCHAR,
    oracledb.DB_TYPE_BLOB: oracledb.DB_TYPE_LONG_RAW,
}


def _number(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:
        return Decimal(text)


def _months(value: Any) -> str:
    sign = "-" if value.years < 0 or value.months < 0 else ""
    return f"{sign}P{abs(value.years)}Y{abs(value.months)}M"


_SPECIAL: Final[Mapping[type[Any], Any]] = {oracledb.IntervalYM: _months, array.array: list}


def _stored_name(name: str, present: Sequence[str]) -> str | None:
    return next((spelt for spelt in (name, name.upper()) if spelt in present), None)


def _behind(keys: Sequence[str], after: Sequence[Any] | None) -> tuple[str, dict[str, Any]]:
    """Write the condition for rows behind a key, spelt out, for the server cannot compare rows of values."""
    if after is None:
        return "", {}
    cases = [
        " AND ".join(
            [*(f"{quoted(name)} = :k{equal}" for equal, name in enumerate(keys[:place])), f"{quoted(key)} > :k{place}"]
        )
        for place, key in enumerate(keys)
    ]
    return f" WHERE ({') OR ('.join(cases)})", {f"k{place}": value for place, value in enumerate(after)}


def _checkpoint_of(key: Sequence[Any]) -> list[list[str]] | None:
    """Write a key as plain data; None if it has a value that could not be read again exactly."""
    written = []
    for value in key:
        if isinstance(value, bytes):
            written.append(["bytes", value.hex()])
        elif isinstance(value, datetime):
            written.append(["datetime", value.isoformat()])
        elif type(value) in (int, str, Decimal):
            written.append([type(value).__name__, str(value)])
        else:
            return None
    return written


_READERS: Final[Mapping[str, Any]] = {
    "int": int,
    "Decimal": Decimal,
    "bytes": bytes.fromhex,
    "datetime": datetime.fromisoformat,
    "str": str,
}


def _key_of(checkpoint: JSON) -> list[Any]:
    return [_READERS[kind](text) for kind, text in checkpoint]


_PASSING: Final = frozenset(
    {
        28,
        1012,
        1013,
        1033,
        1034,
        1089,
        1090,
        1092,
        1555,
        2396,
        3113,
        3114,
        3135,
        12170,
        12528,
        12537,
        12541,
        12547,
        12571,
    }
)
"""Sessions that were killed or lost, servers that start, stop or do not listen, and undo that was too old."""
_PASSING_DRIVER: Final = frozenset({"DPY-1001", "DPY-4011", "DPY-4024", "DPY-6000", "DPY-6005"})


def _translated(error: Exception, config: OracleConfig) -> SourceError:
    where = f"Oracle at {config.host}:{config.port}"
    about = error.args[0] if error.args else None
    number, code = getattr(about, "code", 0), getattr(about, "full_code", "") or ""
    text = str(getattr(about, "message", "") or error).strip().partition("\n")[0].rstrip(".")
    if number in (1005, 1017, 28000, 28001):
        return CredentialsError(f"{where} refuses the user {config.username!r}: {text}.")
    if number in (12505, 12514) or code in ("DPY-6001", "DPY-6003"):
        kind = "SID" if config.connection_source == "sid" else "service"
        return ConfigurationError(f"{where} knows no {kind} {config.database!r}. Check it, and the connection source.")
    if number == 1031:
        return PermissionDenied(f"{where}: {text}. Grant {config.username!r} CREATE SESSION and SELECT.")
    if number == 942:
        return NotFound(f"{where}: {text}.")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return ConfigurationError(f"The certificate of {config.host}:{config.port} is not trusted: {text}.")
    if number in _PASSING or code in _PASSING_DRIVER or isinstance(error, OSError):
        return Transient(f"{where}: {text}.")
    if code.startswith(("DPI-", "DPY-2", "DPY-3", "DPY-4")):
        return ConfigurationError(f"{where} cannot be used with these settings: {text}.")
    return UnexpectedAnswer(f"{where}: {text}.")
