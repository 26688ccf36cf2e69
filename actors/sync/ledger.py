"""The memory of a connector's index: which version of which document a sync put there, from which partition.

It lives beside the content index in a hidden index of its own, so that documents look exactly as without it: packed runs of
some thousand entries, appended as Elasticsearch accepts documents. An entry holds only if the index still has the document under
the very sequence number that was answered then; so a lost, stale or half-written ledger, or another program writing to the
index, only means that documents are sent again. Of several entries for one document the one with the highest sequence number
holds: a document never leaves its shard.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zlib
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import attrs
import orjson

from ...protocol import ALLOW_ACCESS_CONTROL
from ...protocol.store import NotFound, Store
from ...runtime import new_id
from .encoding import action_line
from .fingerprints import hash64
from .known import Known, signed, stamp_of, unsigned
from .spill import Spill

LEDGER_PREFIX = ".callboard-ledger-"
RUN_ENTRIES = 5_000
LOAD_PAGE = 20
SETTINGS = {"index": {"hidden": True, "number_of_shards": 1, "auto_expand_replicas": "0-1"}}
MAPPINGS = {"dynamic": "false", "properties": {"kind": {"type": "keyword"}, "generation": {"type": "keyword"}}}
ENTRY_SIZE_BYTES = 140
_HEAD = "head"
_NAME_SIZE_BYTES_MAX = 255


def ledger_index(index: str) -> str:
    """Name the ledger of an index."""
    name = LEDGER_PREFIX + index.lstrip(".")
    if len(name.encode()) <= _NAME_SIZE_BYTES_MAX:
        return name
    return LEDGER_PREFIX + hashlib.blake2b(index.encode(), digest_size=20).hexdigest()


@attrs.define
class Run:
    """Entries in columns: id hash, sequence number, fingerprint, partition."""

    ids: array[int] = attrs.field(factory=lambda: array("Q"))
    seq_nos: array[int] = attrs.field(factory=lambda: array("q"))
    fingerprints: array[int] = attrs.field(factory=lambda: array("Q"))
    partitions: array[int] = attrs.field(factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, id_hash: int, seq_no: int, fingerprint: int, partition: int) -> None:
        self.ids.append(id_hash)
        self.seq_nos.append(seq_no)
        self.fingerprints.append(fingerprint)
        self.partitions.append(partition)

    def packed(self) -> str:
        """Text for a field: the columns one after the other, compressed."""
        columns = [self.ids, self.seq_nos, self.fingerprints, self.partitions]
        data = b"".join(_little(column).tobytes() for column in columns)
        return base64.b64encode(zlib.compress(data, 1)).decode("ascii")

    @classmethod
    def unpacked(cls, text: str, count: int) -> Run:
        """Read what `packed` wrote. Raises `ValueError` if it is something else."""
        try:
            data = zlib.decompress(base64.b64decode(text, validate=True))
        except zlib.error as exc:
            raise ValueError(f"not a run: {exc}") from exc
        if len(data) != 32 * count:
            raise ValueError(f"a run of {count} entries has {len(data)} bytes instead of {32 * count}")
        columns = []
        for at, kind in enumerate("QqQQ"):
            column = array(kind)
            column.frombytes(data[at * 8 * count : (at + 1) * 8 * count])
            columns.append(_little(column))
        return cls(*columns)


def _little(column: array[int]) -> array[int]:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


class Entries:
    """Entries by id hash, the newest of each; in memory while few, on disk beyond."""

    def __init__(self, memory_size_bytes: int) -> None:
        self._entries_max = max(1000, memory_size_bytes // ENTRY_SIZE_BYTES)
        self._places: dict[int, int] = {}
        self._run = Run()
        self._spill: Spill | None = None

    async def add(self, run: Run) -> None:
        """Take in a run."""
        if self._spill is None and len(self._run) + len(run) <= self._entries_max:
            places, mine = self._places, self._run
            for id_hash, seq_no, fingerprint, partition in zip(
                run.ids, run.seq_nos, run.fingerprints, run.partitions, strict=True
            ):
                place = places.get(id_hash)
                if place is None:
                    places[id_hash] = len(mine.ids)
                    mine.add(id_hash, seq_no, fingerprint, partition)
                elif mine.seq_nos[place] < seq_no:
                    mine.seq_nos[place] = seq_no
                    mine.fingerprints[place] = fingerprint
                    mine.partitions[place] = partition
            return
        if self._spill is None:
            self._spill = Spill("CREATE TABLE entry (hash INTEGER PRIMARY KEY, seq, print, part)")
            before, self._run, self._places = self._run, Run(), {}
            await self._insert(before)
        await self._insert(run)

    async def _insert(self, run: Run) -> None:
        assert self._spill is not None
        rows = list(
            zip(
                map(signed, run.ids),
                run.seq_nos,
                map(signed, run.fingerprints),
                map(signed, run.partitions),
                strict=True,
            )
        )
        await self._spill.write(
            "INSERT INTO entry VALUES (?,?,?,?) ON CONFLICT (hash) DO UPDATE SET "
            "seq = excluded.seq, print = excluded.print, part = excluded.part WHERE excluded.seq > seq",
            rows,
        )

    async def find(self, hashes: Sequence[int]) -> list[tuple[int, int, int]]:
        """(sequence number, fingerprint, partition) per id hash; (-1, 0, 0) where there is no entry."""
        nothing = (-1, 0, 0)
        if self._spill is None:
            run, get = self._run, self._places.get
            seq_nos, prints, parts = run.seq_nos, run.fingerprints, run.partitions
            places = [get(one) for one in hashes]
            return [nothing if place is None else (seq_nos[place], prints[place], parts[place]) for place in places]
        told = await self._spill.read_in(
            "SELECT hash, seq, print, part FROM entry WHERE hash IN", [signed(one) for one in hashes]
        )
        by_hash = {unsigned(one): (seq, unsigned(fingerprint), unsigned(part)) for one, seq, fingerprint, part in told}
        return [by_hash.get(one, nothing) for one in hashes]

    def close(self) -> None:
        self._places, self._run = {}, Run()
        if self._spill is not None:
            self._spill.close()


@attrs.frozen
class Head:
    """What holds for the whole ledger."""

    index_uuid: str
    setup: str
    """Fingerprint of the setup under which the last completed full sync ran; empty before the first."""
    generation: str


class Ledger:
    """The ledger of one index, as one running sync uses it."""

    def __init__(self, store: Store, index: str, content_store: Store | None = None) -> None:
        self._store, self._content_store = store, content_store or store
        self.name = ledger_index(index)
        self._index = index
        self.head: Head | None = None
        self.entries_stored = 0
        self._open = Run()
        self._uuid = ""
        self.is_stored = False
        """There is a ledger of this content index already."""

    async def open(self) -> None:
        """Read the head. Without one, or if the content index is another one than it was, a new ledger begins."""
        self._uuid = await self._index_uuid()
        try:
            told = await self._store.client.get(index=self.name, id=_HEAD)
        except NotFound:
            told = None
        source: dict[str, Any] = told["_source"] if told is not None else {}
        if source and source.get("index_uuid") == self._uuid:
            self.head = Head(self._uuid, str(source.get("setup", "")), str(source["generation"]))
            self.is_stored = True
            return
        self.head = Head(self._uuid, "", new_id())

    async def make(self) -> None:
        """Write the head of a new ledger, usually at the moment it has something to hold. Nothing if it is stored already."""
        assert self.head is not None
        if self.is_stored:
            return
        await self._store.content.ensure_index(self.name, settings=SETTINGS, mappings=MAPPINGS)
        await self._begin(self.head.generation, self.head.setup)
        self.is_stored = True

    async def _index_uuid(self) -> str:
        told = await self._content_store.client.indices.get_settings(
            index=self._index, name="index.uuid", flat_settings=True
        )
        uuids = sorted(
            str(each.get("settings", {}).get("index.uuid") or each.get("settings", {}).get("index", {}).get("uuid", ""))
            for each in told.values()
        )
        return ",".join(uuids)

    async def _begin(self, generation: str, setup: str) -> None:
        self.head = Head(self._uuid, setup, generation)
        await self._write_head()
        others: dict[str, Any] = {
            "bool": {"filter": [{"term": {"kind": "run"}}], "must_not": [{"term": {"generation": generation}}]}
        }
        await self._store.content.refresh(self.name)
        await self._store.content.delete_by_query(self.name, others)

    async def _write_head(self) -> None:
        assert self.head is not None
        document = {"kind": _HEAD, **attrs.asdict(self.head)}
        await self._store.client.index(index=self.name, id=_HEAD, document=document)

    async def load(self, memory_size_bytes: int) -> Entries:
        """Read all entries. The caller closes them."""
        assert self.head is not None
        entries = Entries(memory_size_bytes)
        if not self.is_stored:
            return entries
        query: dict[str, Any] = {
            "bool": {"filter": [{"term": {"kind": "run"}}, {"term": {"generation": self.head.generation}}]}
        }
        pages = self._store.content.existing(self.name, fields=("count", "data"), query=query, page_size=LOAD_PAGE)
        self.entries_stored = 0
        async with aclosing(pages):
            async for page in pages:
                for source in page.sources or ():
                    run = Run.unpacked(source["data"], source["count"])
                    self.entries_stored += len(run)
                    await entries.add(run)
        return entries

    def note(self, ids: Sequence[str], seq_nos: Sequence[int], fingerprints: Sequence[int], partition: int) -> None:
        """Remember accepted documents until the next `flush`. Those without a fingerprint still say where they came from."""
        run = self._open
        run.ids.extend([hash64(one.encode("utf-8", "surrogatepass")) for one in ids])
        run.seq_nos.extend(seq_nos)
        run.fingerprints.extend(fingerprints)
        run.partitions.extend([partition] * len(ids))

    @property
    def is_full(self) -> bool:
        """There is enough for a run."""
        return len(self._open) >= RUN_ENTRIES

    async def flush(self) -> None:
        """Write what was noted. Cancelled or failed: it is noted no more, and those documents will be sent again."""
        run, self._open = self._open, Run()
        if len(run):
            await self._write_run(run)

    async def _write_run(self, run: Run) -> None:
        assert self.head is not None
        if not self.is_stored:
            await self.make()
        document = {"kind": "run", "generation": self.head.generation, "count": len(run), "data": run.packed()}
        body = action_line("index", new_id()) + orjson.dumps(document) + b"\n"
        answer = await self._store.content.bulk(body, index=self.name)
        if not answer.has_errors:
            self.entries_stored += len(run)

    async def completed(self, setup: str) -> None:
        """Note the setup under which everything in the index was made."""
        assert self.head is not None
        if self.head.setup != setup and self.is_stored:
            self.head = attrs.evolve(self.head, setup=setup)
            await self._write_head()

    def wants_compaction(self, documents: int) -> bool:
        """Most of it is about documents that are gone or were written again since."""
        return self.entries_stored > 2 * documents + 2 * RUN_ENTRIES

    async def compact(self, known: Known) -> None:
        """Write a new generation that holds what `known` has, then drop the old one."""
        assert self.head is not None
        setup, generation = self.head.setup, new_id()
        old, self.head = self.head, attrs.evolve(self.head, generation=generation)
        self.entries_stored = 0
        pages = known.entries()
        try:
            async with aclosing(pages):
                async for page in pages:
                    for start in range(0, len(page), RUN_ENTRIES):
                        run = Run()
                        for one, seq_no, fingerprint, partition in page[start : start + RUN_ENTRIES]:
                            if partition:
                                run.add(hash64(one.encode("utf-8", "surrogatepass")), seq_no, fingerprint, partition)
                        if len(run):
                            await self._write_run(run)
        except BaseException:
            self.head = old
            raise
        await self._begin(generation, setup)


async def read_index(
    store: Store,
    index: str,
    known: Known,
    entries: Entries | None,
    seen: Entries | None,
    *,
    timestamps: bool,
    access_lists: bool = False,
) -> AsyncGenerator[int, None]:
    """Fill `known` from the index, joined with the ledger's entries if given. Yields the number of documents so far.

    What is in `seen` counts as listed already. With `access_lists` a document is the same only if they are the same, too.
    """
    fields = (ALLOW_ACCESS_CONTROL,) if access_lists else ()
    pages = store.content.existing(index, fields=fields, timestamps=timestamps)
    async with aclosing(pages):
        async for page in pages:
            ids, seq_nos = page.ids, page.seq_nos
            if not timestamps:
                stamps = [0] * len(ids)
            elif page.sources is not None:
                stamps = [
                    stamp_of(one, source.get(ALLOW_ACCESS_CONTROL))
                    for one, source in zip(page.timestamps, page.sources, strict=True)
                ]
            else:
                # Written out for texts, which nearly all of them are.
                stamps = [hash(one) or 1 if one.__class__ is str else stamp_of(one) for one in page.timestamps]
            if entries is None:
                prints = parts = [0] * len(ids)
            else:
                found = await entries.find([hash64(one.encode("utf-8", "surrogatepass")) for one in ids])
                prints = [each[1] if each[0] == seq_no else 0 for each, seq_no in zip(found, seq_nos, strict=True)]
                # Where a document came from still holds when somebody else has changed it since.
                parts = [each[2] for each in found]
            first = known.count
            await known.add(ids, seq_nos, stamps, prints, parts)
            if seen is not None:
                listed = await seen.find([hash64(one.encode("utf-8", "surrogatepass")) for one in ids])
                for row, each in enumerate(listed, first):
                    if each[0] >= 0:
                        known.mark(row)
            yield known.count
