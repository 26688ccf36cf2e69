"""Writing documents of one index inside a transaction: operations are decided one by one and written to the tables in batches."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import attrs
import orjson

from ..errors import ApiError, document_missing, version_conflict
from ..mapping.documents import Indexed, index_document
from ..mapping.mapping import TOTAL_FIELDS_MAX, Mapping
from .catalog import Index, Transaction
from .schema import TEXT_COLUMNS

PRIMARY_TERM = 1
ID_BYTES_MAX = 512
_LEVELS_MAX = 64
_IDEOGRAPHS = re.compile(r"([\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


@attrs.define
class Standing:
    """A live document as it stands: in the table, or in this batch."""

    doc: int
    seq_no: int
    version: int
    source: bytes | None


@attrs.frozen
class Written:
    """What became of one operation."""

    result: str
    version: int
    seq_no: int


_by_value = itemgetter(1, 2)


def words(text: str) -> str:
    """Return text in which every ideograph is a word of its own, as the standard analyser has it."""
    return text if text.isascii() else _IDEOGRAPHS.sub(r" \1 ", text)


class IndexWriter:
    """Applies operations to one index. `flush` must follow; until then nothing is in the tables."""

    def __init__(self, transaction: Transaction, index: Index) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self.index = index
        self.mapping: Mapping = index.mapping
        self._seq_no = index.seq_no
        self._clock = index.clock
        self._standing: dict[str, Standing | None] = {}
        self._new: dict[int, tuple[str, Indexed]] = {}
        self._dead: list[int] = []
        limit = index.settings.get("mapping.total_fields.limit", TOTAL_FIELDS_MAX)
        self._fields_max = int(limit)

    def look_up(self, ids: Iterable[str], *, sources: bool) -> None:
        """Read in one query how these documents stand; what is not looked up ahead is read one by one."""
        wanted = [doc_id for doc_id in ids if doc_id not in self._standing]
        if not wanted:
            return
        for doc_id in wanted:
            self._standing[doc_id] = None
        column = "source" if sources else "NULL"
        for doc_id, *rest in self._connection.execute(
            f"SELECT id, doc, seq_no, version, {column} FROM docs_{self.index.number} "
            "WHERE died IS NULL AND id IN (SELECT value FROM json_each(?))",
            (orjson.dumps(wanted).decode(),),
        ):
            self._standing[doc_id] = Standing(*rest)

    def standing(self, doc_id: str) -> Standing | None:
        """Return how a document stands now."""
        if doc_id not in self._standing:
            self.look_up([doc_id], sources=False)
        return self._standing[doc_id]

    def source(self, doc_id: str) -> bytes | None:
        """Return a document as it stands now, or None."""
        found = self.standing(doc_id)
        if found is None:
            return None
        if found.source is None:
            (found.source,) = self._connection.execute(
                f"SELECT source FROM docs_{self.index.number} WHERE doc = ?",
                (found.doc,),
            ).fetchone()
        return found.source

    def put(
        self,
        doc_id: str,
        source: bytes,
        content: dict[str, Any],
        *,
        create: bool = False,
        if_seq_no: int | None = None,
        if_primary_term: int | None = None,
    ) -> Written:
        """Index a document, replacing the one with its id. Raises 409 or 400; then nothing has changed."""
        found = self._standing[doc_id] if doc_id in self._standing else self.standing(doc_id)
        if create and found is not None:
            raise version_conflict(
                doc_id, f"document already exists (current version [{found.version}])", self.index.name, self.index.uuid
            )
        if if_seq_no is not None:
            self._check(doc_id, found, if_seq_no, if_primary_term)
        indexed = self._index(doc_id, content)
        if found is not None:
            self._kill(found)
        doc, self._clock = self._clock, self._clock + 1
        seq_no, self._seq_no = self._seq_no, self._seq_no + 1
        version = 1 if found is None else found.version + 1
        self._new[doc] = (doc_id, indexed)
        self._standing[doc_id] = Standing(doc, seq_no, version, source)
        return Written("created" if found is None else "updated", version, seq_no)

    def delete(self, doc_id: str, *, if_seq_no: int | None = None, if_primary_term: int | None = None) -> Written:
        """Delete a document; `not_found` if there is none. Raises 409."""
        found = self.standing(doc_id)
        if if_seq_no is not None:
            self._check(doc_id, found, if_seq_no, if_primary_term)
        seq_no, self._seq_no = self._seq_no, self._seq_no + 1
        if found is None:
            return Written("not_found", 1, seq_no)
        self._kill(found)
        self._standing[doc_id] = None
        return Written("deleted", found.version + 1, seq_no)

    def require(self, doc_id: str) -> Standing:
        """Return how a document stands. Raises 404 `document_missing_exception`."""
        found = self.standing(doc_id)
        if found is None:
            raise document_missing(doc_id, self.index.name, self.index.uuid)
        return found

    def check(self, doc_id: str, if_seq_no: int, if_primary_term: int | None) -> None:
        """Raise 409 unless the document stands at this sequence number."""
        self._check(doc_id, self.standing(doc_id), if_seq_no, if_primary_term)

    def _check(self, doc_id: str, found: Standing | None, if_seq_no: int, if_primary_term: int | None) -> None:
        if found is None:
            raise version_conflict(
                doc_id,
                f"required seqNo [{if_seq_no}], primary term [{if_primary_term}]. but no document was found",
                self.index.name,
                self.index.uuid,
            )
        if found.seq_no != if_seq_no or if_primary_term not in (None, PRIMARY_TERM):
            raise version_conflict(
                doc_id,
                f"required seqNo [{if_seq_no}], primary term [{if_primary_term}]. current document has seqNo "
                f"[{found.seq_no}] and primary term [{PRIMARY_TERM}]",
                self.index.name,
                self.index.uuid,
            )

    def _index(self, doc_id: str, content: dict[str, Any]) -> Indexed:
        mapping = self.mapping
        for _ in range(_LEVELS_MAX):
            indexed = index_document(mapping, self._clock, doc_id, content)
            if indexed.additions is None:
                self.mapping = mapping
                return indexed
            try:
                mapping = mapping.merged({"properties": indexed.additions}, self._fields_max)
            except ApiError as error:
                if error.status == 400:
                    raise ApiError(400, "document_parsing_exception", f"[1:1] {error.reason}", cause=error) from error
                raise
        raise ApiError(400, "document_parsing_exception", f"the mapping of document [{doc_id}] does not settle")

    def _kill(self, standing: Standing) -> None:
        if self._new.pop(standing.doc, None) is None:
            self._dead.append(standing.doc)

    def flush(self) -> None:
        """Write everything decided so far to the tables."""
        index, connection = self.index, self._connection
        if self.mapping is not index.mapping:
            self._transaction.put_index(attrs.evolve(self._transaction.indices[index.name], mapping=self.mapping))
        if self._dead:
            self._bury()
        if self._new:
            self._insert()
        if self._seq_no != index.seq_no or self._clock != index.clock:
            self._transaction.count(index, self._seq_no, self._clock)
        self.index = self._transaction.indices[index.name]
        self._new, self._dead = {}, []
        assert connection.in_transaction

    def _bury(self) -> None:
        number, dead = self.index.number, [(doc,) for doc in self._dead]
        if self._transaction.snapshot_clocks.get(number):
            died, self._clock = self._clock, self._clock + 1
            self._connection.executemany(
                f"UPDATE docs_{number} SET died = {died} WHERE doc = ?",
                dead,
            )
            return
        self._connection.executemany(f"DELETE FROM docs_{number} WHERE doc = ?", dead)
        self._connection.executemany(f"DELETE FROM terms_{number} WHERE doc = ?", dead)
        for table in range(self._transaction.indices[self.index.name].text_tables):
            self._connection.executemany(f"DELETE FROM texts_{number}_{table} WHERE rowid = ?", dead)

    def _insert(self) -> None:
        number = self.index.number
        rows = []
        terms: list[tuple[int, int, Any]] = []
        used = [0] * self._transaction.indices[self.index.name].text_tables
        for slot in range(len(self.mapping.text_slots)):
            used[slot // TEXT_COLUMNS] += 1
        texts: dict[int, list[list[Any]]] = {}
        for doc, (doc_id, indexed) in self._new.items():
            standing = self._standing[doc_id]
            assert standing is not None
            rows.append((doc, doc_id, standing.seq_no, standing.version, standing.source))
            terms += indexed.terms
            by_table: dict[int, list[Any]] = {}
            for slot, text in indexed.texts.items():
                table, column = divmod(slot, TEXT_COLUMNS)
                row = by_table.get(table)
                if row is None:
                    row = by_table[table] = [doc, *[None] * used[table]]
                row[column + 1] = words(text)
            for table, row in by_table.items():
                texts.setdefault(table, []).append(row)
        # In the order of the index that is searched: SQLite then finds most of its pages still at hand.
        terms.sort(key=_by_value)
        try:
            self._connection.executemany(
                f"INSERT INTO docs_{number}(doc, id, seq_no, version, source) VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            self._connection.executemany(
                f"INSERT OR IGNORE INTO terms_{number}(doc, field, value) VALUES (?, ?, ?)",
                terms,
            )
            for table, filled in texts.items():
                marks = ", ".join("?" * (used[table] + 1))
                columns = ", ".join(f"c{column}" for column in range(used[table]))
                self._connection.executemany(
                    f"INSERT INTO texts_{number}_{table}(rowid, {columns}) VALUES ({marks})",
                    filled,
                )
        except sqlite3.DataError as error:
            raise ApiError(
                413, "illegal_argument_exception", f"a document is too large for the node: {error}"
            ) from error
