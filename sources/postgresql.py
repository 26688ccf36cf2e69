"""PostgreSQL: each table (or advanced rule) is a partition, each row a document.

The driver is asyncpg on an asyncio loop inside Trio: its Python types are those that existing indices were made of, and a
cancelled call cancels the statement on the server. Rows cross over a thousand at a time.

A table is read in one read-only snapshot by a cursor of the server, in the order of its primary key. A broken connection is
made anew and reading goes on behind the last key that was handed out.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar

import asyncpg
import attrs
import orjson
import trio

from ..protocol.configuration import greater_than, less_than, setting
from ..runtime import now
from .asyncio_loop import asyncio_loop
from .errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from .postgresql_calendar import READERS
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
from .source import JSON, Document, Failure, Features, Listing, Partition
from .tls import verifying_context

T = TypeVar("T")

CONNECT_S: Final = 30.0
FETCH_SIZE: Final = 50
"""As entered from the start in every connector; it never bounded what crossed the wire, so it does not now."""
CLOSE_S: Final = 2.0
# The driver raises its internal error, too, when a connection dies between the parts of an answer.
_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

_TABLES: Final = """
    SELECT table_name, table_type FROM information_schema.tables
    WHERE table_catalog = $1 AND table_schema = $2 ORDER BY table_name"""
_PRIMARY_KEY: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = $1::text::regclass AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place"""


@attrs.frozen
class PostgresConfig:
    """Which tables of which schema."""

    host: str = setting("Host", default="")
    port: int = setting("Port", display="numeric", validations=[greater_than(0), less_than(65536)])
    username: str = setting("Username", default="")
    password: str = setting("Password", default="", sensitive=True)
    database: str = setting("Database", default="")
    schema: str = setting("Schema", default="", tooltip="Often public.")
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
    ssl_enabled: bool = setting("Enable SSL verification", default=False)
    ssl_ca: str = setting("SSL certificate", default="", depends_on={"ssl_enabled": True})


class Postgres(RelationalSource[PostgresConfig]):
    """PostgreSQL: the rows of the tables of one schema."""

    service_type: ClassVar[str] = "postgresql"
    name: ClassVar[str] = "PostgreSQL"
    Config = PostgresConfig
    features = Features(advanced_rules=True, resumable=True)
    shareable = True

    _loop: Any = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with asyncio_loop() as loop:
            self._loop = loop
            loop.set_exception_handler(self._note_leftovers)
            try:
                yield
            finally:
                self._loop = None

    def _note_leftovers(self, loop: Any, context: dict[str, Any]) -> None:
        # The driver leaves the future of a connection that was cancelled while it was opened; nobody waits for that any
        # more. By default it would end the session, and with it all other partitions.
        if "never retrieved" in str(context.get("message")) and isinstance(context.get("exception"), _DRIVER_ERRORS):
            self.log.debug("source.leftover", why=str(context.get("exception")))
            return
        loop.default_exception_handler(context)

    async def ping(self) -> None:
        async with self._connection() as connection:
            await self._run(connection.fetchval("SELECT 1"))

    @property
    def namespace(self) -> str:
        return self.config.schema

    @property
    def place(self) -> str:
        return f"The schema {self.config.schema!r} has no table that {self.config.username!r} may see"

    async def tables(self) -> dict[str, str]:
        async with self._connection() as connection:
            rows = await self._run(connection.fetch(_TABLES, self.config.database, self.config.schema))
        return {row["table_name"]: row["table_type"] for row in rows}

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
        config = self.config
        relation = f"{quoted(config.schema)}.{quoted(table)}"
        async with self._connection() as connection:
            await self._run(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            keys = await self._run(connection.fetch(_PRIMARY_KEY, relation))
            if not keys:
                why = (
                    "The table has no primary key, so its rows have no ids. Give it one, or use a rule with id_columns."
                )
                yield [Failure("partition", table, why)], None
                return
            order = ", ".join(quoted(key["name"]) for key in keys)
            stamp = await self._newest_change(connection, [table])
            behind = ", ".join(f"${place}::text::{key['type']}" for place, key in enumerate(keys, start=1))
            where = f" WHERE ({order}) > ({behind})" if after is not None else ""
            query = f"SELECT * FROM {relation}{where} ORDER BY {order}"  # noqa: S608 - names are quoted, values bound
            rows = self._rows(connection, query, after or [])
            async with aclosing(rows):
                async for columns, page in rows:
                    places = [columns.index(key["name"]) for key in keys]
                    shape = self._shape((table,), columns, places, table)
                    documents: list[Document | Failure] = [*shape.documents(page, stamp or now().isoformat())]
                    yield documents, _resumable([page[-1][place] for place in places])

    async def _rule(self, partition: Partition) -> AsyncGenerator[Page, None]:
        rule = read_rules([partition.data["rule"]])[0]
        async with self._connection() as connection:
            await self._run(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            keys = list(rule.id_columns) or await self._keys_of(connection, rule)
            stamp = await self._newest_change(connection, rule.tables)
            rows = self._rows(connection, rule.query.rstrip().rstrip(";"), [])
            async with aclosing(rows):
                async for columns, page in rows:
                    lowered = [column.lower() for column in columns]
                    missing = [key for key in keys if key.lower() not in lowered]
                    if missing or not keys:
                        yield [Failure("partition", partition.title, keyless(missing))], None
                        return
                    shape = self._shape(
                        rule.tables, columns, [lowered.index(key.lower()) for key in keys], list(rule.tables)
                    )
                    yield [*shape.documents(page, stamp or now().isoformat())], None

    async def _keys_of(self, connection: Any, rule: Rule) -> list[str]:
        keys: list[str] = []
        for table in rule.tables:
            found = await self._run(connection.fetch(_PRIMARY_KEY, f"{quoted(self.config.schema)}.{quoted(table)}"))
            keys += [key["name"] for key in found]
        return keys

    def _shape(self, tables: tuple[str, ...], columns: Sequence[str], places: Sequence[int], table: JSON) -> RowShape:
        config = self.config
        return RowShape(
            tables=tables,
            names=column_names(columns, tables, config.schema),
            key_places=places,
            extra={"database": config.database, "schema": config.schema, "table": table},
            values=Values(_SPECIAL),
            id_prefix=f"{config.database}_{config.schema}_",
        )

    async def _newest_change(self, connection: Any, tables: Sequence[str]) -> str | None:
        """Return the newest commit to any of the tables, None if the server does not keep such times."""
        if await self._run(connection.fetchval("SHOW track_commit_timestamp")) != "on":
            return None
        found = []
        for table in tables:
            relation = f"{quoted(self.config.schema)}.{quoted(table)}"
            try:
                await self._run(connection.execute("SAVEPOINT newest"))
                # Far fewer transactions than rows: the time of each is looked up once.
                query = f"SELECT max(pg_xact_commit_timestamp(x)) FROM (SELECT DISTINCT xmin AS x FROM {relation}) AS all_of_them"  # noqa: S608 - quoted
                found.append(await self._run(connection.fetchval(query)))
            except (PermissionDenied, UnexpectedAnswer):
                # Views and foreign tables have no xmin: they have no time of change either. Nor may it be read by whom only
                # some columns were granted.
                await self._run(connection.execute("ROLLBACK TO SAVEPOINT newest"))
        times = [one for one in found if one is not None]
        return max(times).isoformat() if times else None

    async def _rows(
        self, connection: Any, query: str, arguments: Sequence[str]
    ) -> AsyncGenerator[tuple[list[str], list[Any]], None]:
        statement = await self._run(connection.prepare(query))
        columns = [attribute.name for attribute in statement.get_attributes()]
        cursor = await self._run(statement.cursor(*arguments))
        fetch_size = max(1, self.config.fetch_size)
        if fetch_size == FETCH_SIZE:
            fetch_size = PARTITION_ROWS_PER_PAGE
        ahead = _Ahead(cursor, fetch_size)
        try:
            while page := await self._run(ahead.page()):
                yield columns, page
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await self._loop.run_aio_coroutine(ahead.give_up())

    async def _run(self, call: Awaitable[T]) -> T:
        """Await asyncio's side of a call. Cancelled: the statement is cancelled on the server."""
        try:
            result: T = await self._loop.run_aio_coroutine(_awaited(call))
        except _DRIVER_ERRORS as error:
            raise self._translated(error) from error
        except (ValueError, OverflowError) as error:
            raise UnexpectedAnswer(
                f"A value in PostgreSQL at {self.config.host}:{self.config.port} cannot be read: {error}. Leave its column "
                "out, or cast it to text, by an advanced rule."
            ) from error
        finally:
            # Cancelled before asyncio's side began, the call was never awaited.
            if isinstance(call, Coroutine):
                call.close()
        return result

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        config = self.config
        tls: ssl.SSLContext | None = verifying_context(config.ssl_ca) if config.ssl_enabled else None
        connection = await self._run(
            asyncpg.connect(
                host=config.host,
                port=config.port,
                user=config.username,
                password=config.password,
                database=config.database,
                ssl=tls,
                timeout=CONNECT_S,
                server_settings={"application_name": "callboard"},
            )
        )
        try:
            for kind in ("json", "jsonb"):
                await self._run(
                    connection.set_type_codec(kind, encoder=_json_text, decoder=_read_json, schema="pg_catalog")
                )
            for kind, read in READERS.items():
                await self._run(
                    connection.set_type_codec(
                        kind, encoder=_never_sent, decoder=read, schema="pg_catalog", format="tuple"
                    )
                )
            yield connection
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await self._loop.run_aio_coroutine(_closed(connection))

    def _translated(self, error: BaseException) -> SourceError:
        config = self.config
        where = f"{config.host}:{config.port}"
        if not isinstance(error, asyncpg.PostgresError):
            if isinstance(error, ssl.SSLCertVerificationError):
                return ConfigurationError(f"The certificate of {where} is not trusted: {error.verify_message}.")
            return Transient(f"The connection to PostgreSQL at {where} failed: {str(error) or type(error).__name__}.")
        code = error.sqlstate or ""
        match code[:2]:
            case "28":
                return CredentialsError(f"PostgreSQL at {where} refuses the user {config.username!r}: {error}.")
            case "3D":
                return ConfigurationError(f"PostgreSQL at {where} has no database {config.database!r}.")
            case "08" | "40" | "53" | "57" | "58":
                return Transient(f"PostgreSQL at {where}: {error}.")
        match code:
            case "42501":
                return PermissionDenied(f"PostgreSQL at {where}: {error}. Grant SELECT to {config.username!r}.")
            case "42P01" | "3F000":
                return NotFound(f"PostgreSQL at {where}: {error}.")
        return UnexpectedAnswer(f"PostgreSQL at {where}: {error} (SQLSTATE {code}).")


async def _awaited(call: Awaitable[T]) -> T:
    return await call


class _Ahead:
    """Pages of a cursor, each asked for while the one before is worked on: the server need not wait for us, nor we for it."""

    def __init__(self, cursor: Any, fetch_size: int) -> None:
        self._cursor, self._fetch_size = cursor, fetch_size
        self._next: asyncio.Task[list[Any]] | None = None
        self._is_over = False

    async def page(self) -> list[Any]:
        """Return the next rows; none at the end."""
        rows = await (self._next or self._fetch())
        self._next = None
        if not self._is_over:
            self._next = asyncio.create_task(self._fetch())
            # Once around the loop, and the request is on its way.
            await asyncio.sleep(0)
        return rows

    async def _fetch(self) -> list[Any]:
        rows: list[Any] = []
        while len(rows) < PARTITION_ROWS_PER_PAGE and not self._is_over:
            fetched = await self._cursor.fetch(self._fetch_size)
            rows += fetched
            self._is_over = len(fetched) < self._fetch_size
        return rows

    async def give_up(self) -> None:
        """End what was asked for in vain. How it ended is of no interest any more."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
            self._next = None


async def _closed(connection: Any) -> None:
    try:
        await connection.close(timeout=CLOSE_S / 2)
    except _DRIVER_ERRORS:
        connection.terminate()


def _resumable(keys: Sequence[Any]) -> list[str] | None:
    """Write a key so that the server can read it again; None if it cannot be written exactly."""
    texts = [_key_text(key) for key in keys]
    return None if any(text is None for text in texts) else [text for text in texts if text is not None]


def _key_text(key: Any) -> str | None:
    if isinstance(key, bytes):
        return f"\\x{key.hex()}"
    if isinstance(key, asyncpg.BitString):
        return str(key.as_string()).replace(" ", "")
    if type(key) in (list, dict, tuple, asyncpg.Record, asyncpg.Range):
        return None
    if isinstance(key, timedelta):
        # A month is 30 days to the server when it compares, and months of a year are not to us.
        return None
    # The driver's limits stand for infinity; the server would read them as plain dates.
    if getattr(key, "year", None) in (1, 9999):
        return None
    return str(key)


def _read_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Numbers beyond a float are valid in the database.
        return json.loads(text)


def _never_sent(value: Any) -> Any:
    raise AssertionError(f"Keys are sent as text, but here is {value!r}.")


def _json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _points(points: Any) -> str:
    return "[" + ", ".join(_point(point) for point in points) + "]"


def _point(point: Any) -> str:
    return f"({point[0]}, {point[1]})"


def _range(value: Any) -> str:
    if value.isempty:
        return "empty"
    lower = "" if value.lower is None else value.lower
    upper = "" if value.upper is None else value.upper
    return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"


_SPECIAL: Final[dict[type[Any], Any]] = {
    asyncpg.Range: _range,
    asyncpg.BitString: lambda bits: bits.as_string(),
    asyncpg.Point: _point,
    asyncpg.Line: lambda line: f"({line[0]}, {line[1]}, {line[2]})",
    asyncpg.LineSegment: _points,
    asyncpg.Box: _points,
    asyncpg.Path: lambda path: f"{'closed' if path.is_closed else 'open'} {_points(path)}",
    asyncpg.Polygon: _points,
    asyncpg.Circle: lambda circle: f"({_point(circle[0])}, {circle[1]})",
}
