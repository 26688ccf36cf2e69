"""What is in the index already: which documents, from which partition, in which version, and which of them were listed.

Small indices live in a dict; beyond a number of bytes everything moves to a temporary table on disk, so that memory stays flat
however many documents there are. Per document only a byte remains in memory: whether it was listed.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from operator import itemgetter
from typing import Protocol

import attrs

from ...sources.source import Document
from .fingerprints import hash64
from .spill import Spill

ENTRY_SIZE_BYTES = 220
"""What a document costs in the dict beside the bytes of its id, measured on CPython 3.11."""
UNSEEN_PAGE = 2_000

_SCHEMA = "CREATE TABLE known (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, print, stamp, part, seq)"


def signed(value: int) -> int:
    """SQLite's integers have a sign."""
    return value - (1 << 64) if value >= 1 << 63 else value


def unsigned(value: int) -> int:
    return value + (1 << 64) if value < 0 else value


class Finder(Protocol):
    """The ledger's entries: (sequence number, fingerprint, partition) per id hash."""

    async def find(self, hashes: Sequence[int]) -> list[tuple[int, int, int]]: ...


@attrs.define
class Found:
    """What is known of some ids: lists of equal length. Row -1: not in the index."""

    rows: list[int]
    fingerprints: list[int]
    """As of the last sync that wrote them; 0 if unknown."""
    stamps: list[int]
    """In-process hash of `_timestamp` as stored; 0 where there is none."""


def stamp_of(timestamp: object, access: object = None) -> int:
    """A number that two documents share only if their timestamps are the same text (or by a chance of one in 2^64).

    With an access list, as it stands in the document, only if that names the same principals as well: rights are given and
    taken without anybody touching the document.
    """
    if timestamp is None:
        return 0
    if access is None:
        return hash(str(timestamp)) or 1
    principals = access if isinstance(access, list | tuple | set | frozenset) else (access,)
    return hash((str(timestamp), frozenset(map(str, principals)))) or 1


class Known:
    """The table of one sync. Build it with `add`, then ask and mark; close it at the end."""

    def __init__(self, memory_size_bytes: int) -> None:
        self._memory_size_bytes = memory_size_bytes
        self._used_bytes = 0
        self._rows: dict[str, int] = {}
        self._prints = array("Q")
        self._stamps = array("q")
        self._parts = array("Q")
        self._seqs = array("q")
        self._spill: Spill | None = None
        self._seen = bytearray()
        self.count = 0

    @property
    def is_spilled(self) -> bool:
        return self._spill is not None

    async def add(
        self,
        ids: Sequence[str],
        seq_nos: Sequence[int],
        stamps: Sequence[int],
        fingerprints: Sequence[int],
        partitions: Sequence[int],
    ) -> None:
        """Add documents of the index, each once. A partition of 0 is unknown."""
        start = self.count
        self.count += len(ids)
        self._seen.extend(bytes(len(ids)))
        if self._spill is None:
            rows = self._rows
            rows.update(zip(ids, range(start, self.count), strict=True))
            assert len(rows) == self.count, "the index listed a document twice"
            self._prints.extend(fingerprints)
            self._stamps.extend(stamps)
            self._parts.extend(partitions)
            self._seqs.extend(seq_nos)
            self._used_bytes += ENTRY_SIZE_BYTES * len(ids) + sum(map(len, ids))
            if self._used_bytes > self._memory_size_bytes:
                await self._move_to_disk()
            return
        await self._insert(start, ids, fingerprints, stamps, partitions, seq_nos)

    async def _move_to_disk(self) -> None:
        self._spill = Spill(_SCHEMA)
        ids = list(self._rows)
        self._rows = {}
        for start in range(0, len(ids), 20_000):
            end = start + 20_000
            await self._insert(
                start,
                ids[start:end],
                self._prints[start:end],
                self._stamps[start:end],
                self._parts[start:end],
                self._seqs[start:end],
            )
        self._prints, self._parts = array("Q"), array("Q")
        self._stamps, self._seqs = array("q"), array("q")

    async def _insert(
        self,
        start: int,
        ids: Sequence[str],
        fingerprints: Sequence[int],
        stamps: Sequence[int],
        partitions: Sequence[int],
        seq_nos: Sequence[int],
    ) -> None:
        assert self._spill is not None
        columns = zip(
            range(start, start + len(ids)),
            ids,
            map(signed, fingerprints),
            stamps,
            map(signed, partitions),
            seq_nos,
            strict=True,
        )
        await self._spill.write("INSERT INTO known VALUES (?,?,?,?,?,?)", list(columns))

    def find_nowait(self, ids: Sequence[str]) -> Found:
        """What is known of these ids, while all is in memory."""
        get = self._rows.get
        rows = [get(one, -1) for one in ids]
        prints, stamps = self._prints, self._stamps
        return Found(
            rows,
            [prints[row] if row >= 0 else 0 for row in rows],
            [stamps[row] if row >= 0 else 0 for row in rows],
        )

    async def find(self, ids: Sequence[str]) -> Found:
        """What is known of these ids."""
        if self._spill is None:
            return self.find_nowait(ids)
        told = await self._spill.read_in("SELECT id, row, print, stamp FROM known WHERE id IN", list(ids))
        by_id = {one: (row, unsigned(fingerprint), stamp) for one, row, fingerprint, stamp in told}
        nothing = (-1, 0, 0)
        triples = [by_id.get(one, nothing) for one in ids]
        return Found([each[0] for each in triples], [each[1] for each in triples], [each[2] for each in triples])

    def mark(self, row: int) -> bool:
        """Note that a document was listed; tell whether it had been before."""
        seen = self._seen
        if seen[row]:
            return True
        seen[row] = 1
        return False

    def mark_rows(self, rows: Sequence[int]) -> int:
        """Note that the documents in these rows were listed (-1: in none); return how many had been before."""
        seen, before = self._seen, 0
        for row in rows:
            if row >= 0:
                before += seen[row]
                seen[row] = 1
        return before

    async def mark_listed(self, listed: Finder) -> None:
        """Note that the documents were listed whose id hashes are in `listed`, by whoever that was."""
        start = 0
        async with aclosing(self.entries()) as pages:
            async for page in pages:
                found = await listed.find([hash64(one.encode("utf-8", "surrogatepass")) for one, _, _, _ in page])
                self.mark_rows([row for row, each in enumerate(found, start) if each[0] >= 0])
                start += len(page)

    async def forget_versions(self, ids: Sequence[str]) -> int:
        """Make these documents look changed, whatever the source says of them; return how many of them are known."""
        rows = [row for row in (await self.find(ids)).rows if row >= 0]
        if self._spill is None:
            for row in rows:
                self._prints[row] = self._stamps[row] = 0
        else:
            await self._spill.write("UPDATE known SET print = 0, stamp = 0 WHERE row = ?", [(row,) for row in rows])
        return len(rows)

    def mark_unchanged(self, documents: Sequence[Document]) -> tuple[Sequence[Document], int]:
        """Mark the documents whose timestamp is the stored one; return the others, and how many were marked before.

        Only while all is in memory. This is all that happens to most documents of an incremental sync.
        """
        if (again := self._mark_all_unchanged(documents)) is not None:
            return (), again
        get, stamps, seen = self._rows.get, self._stamps, self._seen
        others: list[Document] = []
        duplicates = 0
        for document in documents:
            timestamp = document.timestamp
            row = get(document.id)
            if (
                row is None
                or timestamp is None
                or document.operation != "index"
                or stamps[row] != (hash(timestamp) or 1)
            ):
                others.append(document)
                continue
            duplicates += seen[row]
            seen[row] = 1
        return others, duplicates

    def _mark_all_unchanged(self, documents: Sequence[Document]) -> int | None:
        """The same for a page in which nothing has changed, at the speed of C loops; None if something may have."""
        if len(documents) < 2:
            return None
        get = self._rows.get
        rows = [get(document.id, -1) for document in documents]
        if min(rows) < 0:
            return None
        rows_of, timestamps = itemgetter(*rows), [document.timestamp for document in documents]
        # An empty text hashes to what stands for no timestamp.
        if not all(timestamps) or rows_of(self._stamps) != tuple(map(hash, timestamps)):
            return None
        if {document.operation for document in documents} != {"index"}:
            return None
        first, count = rows[0], len(rows)
        if rows == list(range(first, first + count)):
            duplicates = sum(self._seen[first : first + count])
            self._seen[first : first + count] = b"\1" * count
            return duplicates
        return self.mark_rows(rows)

    async def unseen(self) -> AsyncGenerator[list[tuple[str, int, int]], None]:
        """Yield the ids that were not listed, each with its partition (0: unknown) and sequence number, in pages."""
        seen = self._seen
        if 0 not in seen:
            return
        if self._spill is None:
            page: list[tuple[str, int, int]] = []
            for one, row in self._rows.items():
                if not seen[row]:
                    page.append((one, self._parts[row], self._seqs[row]))
                    if len(page) == UNSEEN_PAGE:
                        yield page
                        page = []
            if page:
                yield page
            return
        for start in range(0, self.count, UNSEEN_PAGE):
            rows = [row for row in range(start, min(start + UNSEEN_PAGE, self.count)) if not seen[row]]
            if rows:
                told = await self._spill.read_in("SELECT id, part, seq FROM known WHERE row IN", rows)
                yield [(one, unsigned(part), seq) for one, part, seq in told]

    async def entries(self) -> AsyncGenerator[list[tuple[str, int, int, int]], None]:
        """Yield (id, sequence number, fingerprint, partition) of everything, in pages."""
        page_size = 20_000
        if self._spill is None:
            ids = list(self._rows)
            for start in range(0, len(ids), page_size):
                rows = range(start, min(start + page_size, len(ids)))
                yield [(ids[row], self._seqs[row], self._prints[row], self._parts[row]) for row in rows]
            return
        for start in range(0, self.count, page_size):
            told = await self._spill.read(
                "SELECT id, seq, print, part FROM known WHERE row >= ? AND row < ? ORDER BY row",
                (start, start + page_size),
            )
            yield [(one, seq, unsigned(fingerprint), unsigned(part)) for one, seq, fingerprint, part in told]

    async def join_partitions(self, entries: Finder) -> None:
        """Learn from the ledger which partition each document came from."""
        start = 0
        async with aclosing(self.entries()) as pages:
            async for page in pages:
                found = await entries.find([hash64(one.encode("utf-8", "surrogatepass")) for one, _, _, _ in page])
                parts = [each[2] for each in found]
                if self._spill is None:
                    self._parts[start : start + len(parts)] = array("Q", parts)
                else:
                    rows = zip(map(signed, parts), range(start, start + len(parts)), strict=True)
                    await self._spill.write("UPDATE known SET part = ? WHERE row = ?", list(rows))
                start += len(page)

    def close(self) -> None:
        """Forget everything, on disk too."""
        self._rows = {}
        if self._spill is not None:
            self._spill.close()
