"""The SQLite database: one writer, a few readers, and the catalog that belongs to them.

Every change is one transaction in a worker thread, made by one writer at a time. A database in a file has readers of its own, which
see the last committed state and wait for nobody (write-ahead log); one in memory has a single connection, which all take in turn.
"""

from __future__ import annotations

import errno
import fcntl
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import IO, Concatenate, ParamSpec, TypeVar

import trio

from ...runtime import blocking
from ..errors import ApiError, disk_full
from . import schema
from .catalog import Catalog, Transaction, load

P = ParamSpec("P")
R = TypeVar("R")

READERS = 3
CACHE_KIB = 32_768
BUSY_TIMEOUT_S = 10.0
FILE_NAME = "node.sqlite"
LOCK_NAME = "node.lock"
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class UnusableData(OSError):
    """A data folder that holds something else, or is in use by another node."""


class Database:
    """Open it with `open_database`; use it with `write` and `read`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._readers: list[sqlite3.Connection] = []
        self._lock = None if folder is None else _lock(folder)
        self._connections: list[sqlite3.Connection] = []
        try:
            self._writer = self._opened()
            _prepare(self._writer, folder)
            self.catalog: Catalog = load(self._writer)
        except sqlite3.Error as error:
            self._close()
            raise UnusableData(f"cannot use the node's data in {str(folder)!r}: {error}") from error
        except BaseException:
            self._close()
            raise
        self._writing = trio.Lock()
        self.snapshots: dict[int, int] = {}
        """Index number to the number of snapshots open on it; while there are any, dead documents are kept."""
        self._reading = trio.Lock() if folder is None else trio.CapacityLimiter(READERS)

    @property
    def in_memory(self) -> bool:
        """Say whether everything is gone when the node stops."""
        return self._folder is None

    async def write(self, change: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `change(transaction, ...)` in a worker thread and commit; whatever it raises undoes all of it.

        Raises `ApiError` 429 if the disk is full. Cancelled while it waits for its turn: nothing has happened; once begun, it is
        finished first.
        """
        async with self._writing:
            return await blocking(lambda: self._change(change, *args, **kwargs), abandon_on_cancel=False)

    def _change(self, change: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(connection, self.catalog, self.snapshots)
            result = change(transaction, *args, **kwargs)
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and (error.sqlite_errorcode & 0xFF) in _FULL:
                raise disk_full(str(error)) from error
            raise
        self.catalog = transaction.catalog()
        return result

    async def read(
        self, query: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run `query(connection, ...)` on the last committed state, in a worker thread. Cancelled: it is finished first."""
        try:
            if self._folder is None:
                async with self._writing:
                    return await blocking(lambda: query(self._writer, *args, **kwargs), abandon_on_cancel=False)
            async with self._reading:
                reader = self._readers.pop() if self._readers else await blocking(self._opened, abandon_on_cancel=False)
                try:
                    return await blocking(lambda: _steadily(reader, query, *args, **kwargs), abandon_on_cancel=False)
                finally:
                    self._readers.append(reader)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                # The index was deleted after it was looked up.
                raise ApiError(404, "index_not_found_exception", "no such index: it was deleted meanwhile") from error
            raise

    async def aclose(self) -> None:
        """Close all connections. To be called when no request is running any more."""
        await blocking(self._close, abandon_on_cancel=False)

    async def retire(self) -> None:
        """Close a database in memory once nobody is at work in it. Whoever comes later gets an error."""
        async with self._writing:
            await self.aclose()

    def _opened(self) -> sqlite3.Connection:
        connection = _connect(self._folder)
        self._connections.append(connection)
        return connection

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()
        if self._lock is not None:
            self._lock.close()


def _steadily(
    reader: sqlite3.Connection,
    query: Callable[Concatenate[sqlite3.Connection, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Run a query of several statements on one state of the data, whatever is committed meanwhile."""
    reader.execute("BEGIN")
    try:
        return query(reader, *args, **kwargs)
    finally:
        if reader.in_transaction:
            reader.execute("COMMIT")


def _lock(folder: Path) -> IO[bytes]:
    """Take the folder for this node alone: two would not see each other's indices. The lock ends with the process."""
    held = (folder / LOCK_NAME).open("ab")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise UnusableData(
            errno.EBUSY,
            f"the data folder {str(folder)!r} is in use by another node; stop that one or choose another folder",
        ) from error
    return held


def _connect(folder: Path | None) -> sqlite3.Connection:
    target = ":memory:" if folder is None else str(folder / FILE_NAME)
    connection = sqlite3.connect(
        target, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S, cached_statements=512
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, folder: Path | None) -> None:
    if folder is not None:
        connection.execute("PRAGMA journal_mode = WAL")
        # Each acknowledged request is on the disk, as with Elasticsearch's own default durability.
        connection.execute("PRAGMA synchronous = FULL")
    else:
        connection.execute("PRAGMA journal_mode = MEMORY")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, schema.VERSION):
        raise UnusableData(
            f"the data in {str(folder)!r} has format {version}, this version reads {schema.VERSION}; use another folder"
        )
    connection.execute("BEGIN IMMEDIATE")
    for statement in schema.ALWAYS:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {schema.VERSION}")
    _purge_dead(connection)
    connection.execute("COMMIT")


def _purge_dead(connection: sqlite3.Connection) -> None:
    """Remove what only the snapshots of an earlier run could see."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for (number,) in connection.execute("SELECT number FROM counters").fetchall():
        texts = [
            name
            for name in tables
            if name.startswith(f"texts_{number}_") and name.removeprefix(f"texts_{number}_").isdigit()
        ]
        purge(connection, number, texts)


def purge(connection: sqlite3.Connection, number: int, text_tables: list[str]) -> None:
    """Remove the dead documents of one index."""
    dead = f"SELECT doc FROM docs_{number} WHERE died IS NOT NULL"
    connection.execute(f"DELETE FROM terms_{number} WHERE doc IN ({dead})")
    for table in text_tables:
        connection.execute(f"DELETE FROM {table} WHERE rowid IN ({dead})")
    connection.execute(f"DELETE FROM docs_{number} WHERE died IS NOT NULL")
