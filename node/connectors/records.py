"""Connector and job documents in their indices: read, changed and listed inside one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
import orjson

from ...protocol.indices import CONNECTORS_ALIAS, CONNECTORS_INDEX, JOBS_ALIAS, JOBS_INDEX
from ..errors import ApiError, resource_not_found
from ..handlers.updating import dumped, merged, same_kinds
from ..query.request import SearchRequest
from ..query.sorting import SortKey
from ..query.tree import Query
from ..storage.catalog import Catalog, Transaction
from ..storage.creation import index_for_write
from ..storage.documents import IndexWriter
from ..storage.search import Target, matching, search

Source = dict[str, Any]


@attrs.frozen
class Kind:
    """One kind of record."""

    alias: str
    index: str
    word: str
    sort: SortKey


CONNECTORS = Kind(CONNECTORS_ALIAS, CONNECTORS_INDEX, "connector", SortKey("index_name", unmapped_type="keyword"))
JOBS = Kind(JOBS_ALIAS, JOBS_INDEX, "connector sync job", SortKey("created_at", descending=True, unmapped_type="date"))


def missing(kind: Kind, record_id: str) -> ApiError:
    """Return the 404 for a record that is not there."""
    return resource_not_found(f"{kind.word} with id [{record_id}] was not found")


class Records:
    """The records of one kind, in a transaction. Every change is seen by the next request."""

    def __init__(self, transaction: Transaction, kind: Kind, moment: datetime) -> None:
        self._transaction = transaction
        self._kind = kind
        self._moment = moment
        self._writer: IndexWriter | None = None

    @property
    def _open(self) -> IndexWriter:
        if self._writer is None:
            self._writer = IndexWriter(
                self._transaction, index_for_write(self._transaction, self._kind.alias, self._moment)
            )
        return self._writer

    def find(self, record_id: str, *, deleted: bool = False) -> Source | None:
        """Return a record, or None. Those that are softly deleted only count with `deleted`."""
        if target(self._transaction.catalog(), self._kind) is None:
            return None
        source = self._open.source(record_id)
        if source is None:
            return None
        found: Source = orjson.loads(source)
        return None if found.get("deleted") is True and not deleted else found

    def get(self, record_id: str, *, deleted: bool = False) -> Source:
        """Return a record. Raises 404."""
        found = self.find(record_id, deleted=deleted)
        if found is None:
            raise missing(self._kind, record_id)
        return found

    def put(self, record_id: str, source: Source) -> str:
        """Write a record and return `created` or `updated`."""
        written = self._open.put(record_id, dumped(source), source)
        self._open.flush()
        return written.result

    def change(self, record_id: str, how: Callable[[Source], Source], *, deleted: bool = True) -> str:
        """Change a record and return `updated`, or `noop` if it stays what it was. Raises 404."""
        old = self.get(record_id, deleted=deleted)
        new = how(old)
        if new == old and same_kinds(new, old):
            return "noop"
        self.put(record_id, new)
        return "updated"

    def merge(self, record_id: str, part: Source, *, deleted: bool = True) -> str:
        """Lay a part over a record; objects are merged."""
        return self.change(record_id, lambda old: merged(old, part), deleted=deleted)

    def delete(self, record_id: str) -> None:
        """Remove a record."""
        self._open.delete(record_id)
        self._open.flush()

    def matching(self, query: Query) -> list[str]:
        """Return the ids of the records that a query finds."""
        place = target(self._transaction.catalog(), self._kind)
        if place is None:
            return []
        return [record_id for _, record_id, _ in matching(self._transaction.connection, place, query, self._moment)]


def target(catalog: Catalog, kind: Kind) -> Target | None:
    """Return where the records of a kind are, or None as long as there are none."""
    index = catalog.indices.get(kind.index)
    if index is None:
        behind = catalog.indices_of_alias(kind.alias)
        index = behind[0] if behind else None
    return None if index is None else Target(index.name, index.number, index.mapping)


def read(connection: sqlite3.Connection, place: Target | None, kind: Kind, record_id: str, *, deleted: bool) -> Source:
    """Return a record as the API shows it. Raises 404."""
    row = None
    if place is not None:
        row = connection.execute(
            f"SELECT source FROM docs_{place.number} WHERE id = ? AND died IS NULL", (record_id,)
        ).fetchone()
    if row is None:
        raise missing(kind, record_id)
    source: Source = orjson.loads(row[0])
    if source.get("deleted") is True and not deleted:
        raise missing(kind, record_id)
    return shown(record_id, source)


def shown(record_id: str, source: Source) -> Source:
    """Return a record as the API shows it: with its id, and without what is null."""
    return {"id": record_id, **{name: value for name, value in source.items() if value is not None}}


def list_records(
    connection: sqlite3.Connection,
    place: Target | None,
    kind: Kind,
    query: Query,
    start: int,
    size: int,
    moment: datetime,
) -> dict[str, Any]:
    """Return a page of records and how many there are in all."""
    if place is None:
        return {"count": 0, "results": []}
    asked = SearchRequest(query=query, start=start, size=size, sort=(kind.sort,), total_limit=None)
    page = search(connection, [place], asked, moment, tie_break=False)
    results = [shown(document.doc_id, orjson.loads(document.source)) for document in page.documents]
    return {"count": page.total, "results": results}
