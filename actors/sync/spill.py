"""A table on disk for what does not fit in memory: a nameless SQLite database that vanishes with its connection.

SQLite keeps it in a page cache of bounded size and writes the rest to an unlinked temporary file. It holds nothing that a crash
could lose: whatever is in it can be read from Elasticsearch again, so journal and flushing are off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import trio

from ...runtime import blocking

CACHE_SIZE_KIB = 12 * 1024
PARAMETERS_MAX = 500


class Spill:
    """One temporary database. Any number of tasks may use it; they take turns."""

    def __init__(self, schema: str) -> None:
        # Loaded when it is needed: a service may be idle for days.
        import sqlite3

        # One connection may travel between worker threads, because the lock lets only one use it at a time.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{CACHE_SIZE_KIB};"
            f"PRAGMA temp_store=FILE; {schema}"
        )
        self._lock = trio.Lock()

    async def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for many rows, in one transaction. Cancelled: waits for the transaction."""
        async with self._lock:
            await blocking(self._write, statement, rows, abandon_on_cancel=False)

    def _write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")

    async def read(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query. Cancelled: waits for the query."""
        async with self._lock:
            return await blocking(self._read, query, parameters, abandon_on_cancel=False)

    def _read(self, query: str, parameters: Sequence[Any]) -> list[Any]:
        return self._connection.execute(query, parameters).fetchall()

    async def read_in(self, query: str, keys: Sequence[Any]) -> list[Any]:
        """Run a query that ends in `IN` for any number of keys."""
        found: list[Any] = []
        for start in range(0, len(keys), PARAMETERS_MAX):
            part = keys[start : start + PARAMETERS_MAX]
            found += await self.read(f"{query} ({','.join('?' * len(part))})", part)
        return found

    def close(self) -> None:
        """Forget everything. Harmless when done twice."""
        self._connection.close()
