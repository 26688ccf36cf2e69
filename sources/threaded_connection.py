"""A connection of a blocking database driver, used from Trio: one thread at a time, and a thread that is left behind is ended."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import trio

from ..runtime import blocking
from .errors import SourceError

CLOSE_S: Final = 2.0


class ThreadedConnection(abc.ABC):
    """What sources need of a DB-API connection. Subclasses know the driver; the methods with an underscore run in threads.

    A cancelled call leaves its thread behind; closing the connection then cuts it, so that the thread and the server's
    statement end. Driver errors come out as `SourceError`.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self) -> None:
        self._inner: Any = None
        self._cursor: Any = None
        self._is_busy = False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold the connection open around the body; closed within `CLOSE_S` seconds, whatever happens."""
        try:
            await self._blocking(self._open)
            yield
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await blocking(self._cut if self._is_busy else self._close)

    async def rows(self, statement: str, bound: Any = None) -> tuple[list[str], list[Any]]:
        """Run a statement and return its columns and all of its rows."""
        found: tuple[list[str], list[Any]] = await self._blocking(self._rows, statement, bound)
        return found

    async def begin(self, statement: str) -> list[str]:
        """Start a statement whose rows are read one after the other, and return its columns."""
        columns: list[str] = await self._blocking(self._begin, statement)
        return columns

    async def next_rows(self, count: int) -> list[Any]:
        """Return up to `count` further rows of what was begun; nothing at its end."""
        rows: list[Any] = await self._blocking(lambda: list(self._cursor.fetchmany(count)))
        return rows

    async def _blocking(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._is_busy = True
        try:
            result = await blocking(function, *arguments)
        except self.driver_errors as error:
            self._is_busy = False
            raise self._translated(error) from error
        self._is_busy = False
        return result

    def _open(self) -> None:
        self._inner = self._connect()

    def _rows(self, statement: str, bound: Any) -> tuple[list[str], list[Any]]:
        with self._inner.cursor() as cursor:
            cursor.execute(*((statement,) if bound is None else (statement, bound)))
            return [column[0] for column in cursor.description or ()], list(cursor.fetchall())

    def _begin(self, statement: str) -> list[str]:
        self._cursor = self._inner.cursor()
        self._cursor.execute(statement)
        return [column[0] for column in self._cursor.description or ()]

    @abc.abstractmethod
    def _connect(self) -> Any:
        """Open a connection of the driver, ready for reading."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Close the connection, which nobody uses; it may not even have been opened."""

    @abc.abstractmethod
    def _cut(self) -> None:
        """End the connection under a thread that waits for it. Called in another thread."""

    @abc.abstractmethod
    def _translated(self, error: Exception) -> SourceError:
        """Say what a driver's error means."""
