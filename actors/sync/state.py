"""What a job must not forget when its process dies: how far each partition is, what was listed, which deletions wait.

Everything is written in pieces of bounded size to one hidden index; no field ever grows with the number of documents or the
size of a cursor. A partition's head is written after its pieces, so that a crash in between leaves the previous state whole.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Protocol

import attrs
import orjson
import structlog

from ...protocol.store import NotFound, Store, StoreError
from ...runtime import new_id, now
from ..journal.entry import Entry
from ..journal.events import DeletionsConfirmed
from ..journal.keeping import write_entries
from .encoding import action_line, plain
from .segments import PartitionCounts, PartitionProgress

log = structlog.get_logger(__name__)

STATE_INDEX = ".callboard-sync-state"
SETTINGS = {"index": {"hidden": True, "number_of_shards": 1, "auto_expand_replicas": "0-1"}}
MAPPINGS: dict[str, Any] = {
    "dynamic": "false",
    "properties": {
        **{
            name: {"type": "keyword"}
            for name in ("kind", "job_id", "partition", "version", "index", "held_id", "lease", "epoch")
        },
        "number": {"type": "long"},
    },
}
PIECE_LENGTH = 256 * 1024
REQUEST_SIZE_BYTES = 4 * 2**20
SEEN_PIECE = 20_000
HELD_PIECE = 2_000


@attrs.frozen
class ResumedPartition:
    """Where a partition of an earlier run of the same job stands."""

    key: str
    checkpoint: Any
    is_closed: bool
    """It was listed to its end and settled: nothing of it has to be read again."""
    counts: PartitionCounts


def _key(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def head_key(job_id: str, key: str) -> str:
    """The state document of one partition of a job."""
    return _key(job_id, key)


class Leases(Protocol):
    """The leases on the partitions of a shared job: `lease_keeping.Leases`."""

    async def open(self) -> None: ...

    def document(self, head_id: str) -> dict[str, Any]: ...

    async def write(self, heads: Sequence[tuple[str, dict[str, Any]]]) -> set[str]: ...


class JobState:
    """The persisted state of one job. Raises `StoreError`."""

    def __init__(self, store: Store, job_id: str, leases: Leases | None = None) -> None:
        self._store = store
        self._job_id = job_id
        self._leases = leases
        """Where several services share the job: heads are then written only while their leases hold."""
        self._versions: dict[str, str] = {}
        self._seen: dict[str, int] = {}
        """Per partition: how many ids its persisted pieces hold."""

    async def open(self) -> None:
        """Make the index if it is not there."""
        await self._store.content.ensure_index(STATE_INDEX, settings=SETTINGS, mappings=MAPPINGS)
        if self._leases is not None:
            await self._leases.open()

    async def save(self, partition: PartitionProgress, *, is_closed: bool) -> None:
        """Persist the settled checkpoint of a partition, with what was listed before it."""
        await self.save_all({partition: is_closed})

    async def save_all(
        self,
        partitions: Mapping[PartitionProgress, bool],
        first: Callable[[], Awaitable[None]] | None = None,
        more: Mapping[PartitionProgress, Mapping[str, Any]] | None = None,
    ) -> set[PartitionProgress]:
        """Persist the settled checkpoints of partitions, each with what was listed before it; True for those that are closed.

        What is persisted is what was settled when this was called. `first` is awaited before anything is written; `more` joins
        the heads. Returns the partitions of a shared job whose leases were lost, of which nothing is persisted. Failed or
        cancelled: nothing counts as persisted, and the next call writes all of it again.
        """
        taken = {partition: partition.take_seen() for partition in partitions}
        documents: list[tuple[str, dict[str, Any]]] = []
        heads: list[tuple[str, dict[str, Any]]] = []
        outdated: dict[str, str] = {}
        try:
            for partition, is_closed in partitions.items():
                pieces, (key, head) = self._documents(partition, taken[partition], is_closed=is_closed)
                documents += pieces
                heads.append((key, {**head, **(more or {}).get(partition, {})}))
                if head["pieces"] and key in self._versions and self._versions[key] != head["version"]:
                    outdated[key] = self._versions[key]
            if first is not None:
                await first()
            if documents:
                await self._write(documents)
            lost = await self._write_heads(heads)
        except BaseException:
            # A closed partition without the ids that were listed in it would look as if it had become empty.
            for partition, seen in taken.items():
                partition.unpersisted_seen = seen + partition.unpersisted_seen
                partition.has_new_checkpoint = True
            raise
        for key, document in heads:
            if key not in lost:
                self._seen[key], self._versions[key] = document["seen"], document["version"]
        # What a lost partition had is now its new holder's.
        versions = [version for key, version in outdated.items() if key not in lost]
        if versions:
            await self._delete({"bool": {"filter": [{"term": {"kind": "piece"}}, {"terms": {"version": versions}}]}})
        return {partition for partition in partitions if head_key(self._job_id, partition.key) in lost}

    async def _write_heads(self, heads: Sequence[tuple[str, dict[str, Any]]]) -> set[str]:
        if self._leases is not None:
            return await self._leases.write(heads)
        await self._write(heads)
        return set()

    def _documents(
        self, partition: PartitionProgress, seen: array[int], *, is_closed: bool
    ) -> tuple[list[tuple[str, dict[str, Any]]], tuple[str, dict[str, Any]]]:
        """What a partition's state is made of: pieces, and the head that is written after them."""
        key = head_key(self._job_id, partition.key)
        lease = self._leases.document(key) if self._leases is not None else {}
        if lease and not partition.has_new_checkpoint and not seen:
            # Only the lease is renewed: a large cursor is not written again for that.
            return [], (key, {**lease, "closed": is_closed, "at": now().isoformat()})
        checkpoint, counts = partition.settled_checkpoint, attrs.asdict(partition.settled_counts)
        partition.has_new_checkpoint = False
        version = new_id()
        text = orjson.dumps(plain(checkpoint)).decode()
        parts = [text[at : at + PIECE_LENGTH] for at in range(0, len(text), PIECE_LENGTH)]
        common = {"job_id": self._job_id, "partition": key, "version": version}
        stored = self._seen.get(key, 0)
        pieces: list[tuple[str, dict[str, Any]]] = []
        for at in range(0, len(seen), SEEN_PIECE):
            piece = {"kind": "seen", "job_id": self._job_id, "partition": key, "number": stored + at}
            pieces.append((new_id(), {**piece, **_packed(seen[at : at + SEEN_PIECE])}))
        if len(parts) > 1:
            pieces += [
                (f"{key}-{version}-{number}", {"kind": "piece", **common, "number": number, "data": part})
                for number, part in enumerate(parts)
            ]
        head = {
            **lease,
            "kind": "partition",
            **common,
            "key": partition.key,
            "closed": is_closed,
            "counts": counts,
            "seen": stored + len(seen),
            "pieces": len(parts) if len(parts) > 1 else 0,
            "checkpoint": text if len(parts) == 1 else None,
            "at": now().isoformat(),
        }
        return pieces, (key, head)

    async def load(self) -> dict[str, ResumedPartition]:
        """Read where the partitions stand, by key. Nothing for a job that starts.

        A partition whose pieces are not all there is left out and so starts over: what it had listed would count as gone.
        """
        found: dict[str, ResumedPartition] = {}
        ranges = await self._ranges()
        async for source in self._of_job("partition"):
            resumed = await self._resumed(source, ranges)
            if resumed is not None:
                found[source["key"]] = resumed
        return found

    async def take_up(self, head: dict[str, Any]) -> ResumedPartition | None:
        """Read where one partition stands, of which `head` was read. None if it has to start over."""
        ranges = await self._ranges(head["partition"]) if head["seen"] else {}
        return await self._resumed(head, ranges)

    async def unproven(self, heads: Sequence[Mapping[str, Any]]) -> set[str]:
        """The keys of those partitions of which it is not known any more what was listed in them."""
        ranges = await self._ranges()
        return {head["key"] for head in heads if not covers(ranges.get(head["partition"], []), head["seen"])}

    async def _ranges(self, partition: str | None = None) -> dict[str, list[tuple[int, int]]]:
        """Which of the listed ids are kept, by partition."""
        ranges: dict[str, list[tuple[int, int]]] = {}
        async for source in self._of_job("seen", ("partition", "number", "count"), partition):
            ranges.setdefault(source["partition"], []).append((source["number"], source["number"] + source["count"]))
        return ranges

    async def _resumed(
        self, head: dict[str, Any], ranges: Mapping[str, list[tuple[int, int]]]
    ) -> ResumedPartition | None:
        key = head["partition"]
        if not covers(ranges.get(key, []), head["seen"]):
            return None
        text = head.get("checkpoint")
        if head.get("pieces"):
            text = await self._joined(head)
            if text is None:
                return None
        self._seen[key], self._versions[key] = head["seen"], head["version"]
        return ResumedPartition(
            head["key"], orjson.loads(text or "null"), bool(head["closed"]), PartitionCounts(**head["counts"])
        )

    async def _joined(self, head: dict[str, Any]) -> str | None:
        query = {"bool": {"filter": [{"term": {"kind": "piece"}}, {"term": {"version": head["version"]}}]}}
        pieces = {source["number"]: source["data"] async for source in self._found(query)}
        if len(pieces) != head["pieces"]:
            return None
        return "".join(pieces[number] for number in range(len(pieces)))

    async def seen(self) -> AsyncGenerator[array[int], None]:
        """Yield hashes of the ids that earlier runs of this job had listed before their checkpoints."""
        async for source in self._of_job("seen"):
            yield _unpacked(source)

    async def plan_deletions(self, count: int) -> None:
        """Note how many documents this job deletes in all."""
        await self._write([(self._deletions_key, {"kind": "deletions", "job_id": self._job_id, "count": count})])

    async def planned_deletions(self) -> int:
        """How many documents an earlier run of this job was about to delete."""
        try:
            told = await self._store.client.get(index=STATE_INDEX, id=self._deletions_key)
        except NotFound:
            return 0
        return int(told["_source"]["count"])

    @property
    def _deletions_key(self) -> str:
        return _key(self._job_id, "deletions")

    async def forget(self) -> None:
        """Remove everything about this job but the deletions it holds back."""
        # Heads first: a head without its pieces would be believed.
        for kinds in (["partition"], ["piece", "seen", "deletions"]):
            await self._delete({"bool": {"filter": [{"terms": {"kind": kinds}}, {"term": {"job_id": self._job_id}}]}})

    async def _of_job(
        self, kind: str, fields: Sequence[str] = ("*",), partition: str | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        filters = [{"term": {"kind": kind}}, {"term": {"job_id": self._job_id}}]
        if partition is not None:
            filters.append({"term": {"partition": partition}})
        query = {"bool": {"filter": filters}}
        async for source in self._found(query, fields):
            yield source

    async def _found(
        self, query: dict[str, Any], fields: Sequence[str] = ("*",)
    ) -> AsyncGenerator[dict[str, Any], None]:
        async for source in found_in_state(self._store, query, fields):
            yield source

    async def _write(self, documents: Sequence[tuple[str, dict[str, Any]]]) -> None:
        await write_state(self._store, documents)

    async def _delete(self, query: dict[str, Any]) -> None:
        try:
            await self._store.content.refresh(STATE_INDEX)
            await self._store.content.delete_by_query(STATE_INDEX, query)
        except NotFound:
            return


async def write_state(store: Store, documents: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Write documents to the state index. Raises `StoreError`; a refusal of a single one raises `StateNotWritten`."""
    lines = [action_line("index", key) + orjson.dumps(document) + b"\n" for key, document in documents]
    while lines:
        size_bytes = count = 0
        while count < len(lines) and (not count or size_bytes + len(lines[count]) <= REQUEST_SIZE_BYTES):
            size_bytes += len(lines[count])
            count += 1
        answer = await store.content.bulk(b"".join(lines[:count]), index=STATE_INDEX)
        if answer.has_errors:
            refused = [item for item in answer.items if "error" in item["index"]]
            raise StateNotWritten(f"Elasticsearch refused to keep the state of a job: {refused[0]}")
        del lines[:count]


class StateNotWritten(Exception):
    """A part of a job's state could not be written, so that the job could not go on from here."""


def covers(ranges: Sequence[tuple[int, int]], end: int) -> bool:
    """Tell whether these ranges, which may overlap, leave no hole between 0 and `end`."""
    reached = 0
    for start, stop in sorted(ranges):
        if start > reached:
            break
        reached = max(reached, stop)
    return reached >= end


async def found_in_state(
    store: Store, query: dict[str, Any], fields: Sequence[str] = ("*",)
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the documents of the state index that match; none if there is no such index."""
    pages = store.content.existing(STATE_INDEX, fields=fields, query=query, page_size=20)
    try:
        async with aclosing(pages):
            async for page in pages:
                for source in page.sources or ():
                    yield source
    except NotFound:
        return


def _packed(hashes: array[int]) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(hashes.tobytes(), 1)).decode("ascii")
    return {"count": len(hashes), "data": data}


def _unpacked(source: dict[str, Any]) -> array[int]:
    hashes = array("Q")
    hashes.frombytes(zlib.decompress(base64.b64decode(source["data"])))
    return hashes


@attrs.frozen
class HeldBack:
    """Deletions of one index that wait."""

    held_id: str
    index: str
    job_id: str
    connector_id: str
    count: int
    digest: str
    """The same for the same set of documents, in whatever order."""
    state: Literal["waiting", "confirmed"]


def held_key(index: str) -> str:
    """The state document under which an index's held-back deletions are kept."""
    return _key("held", index)


async def read_held(store: Store, index: str) -> HeldBack | None:
    """Read which deletions of an index wait, if any."""
    try:
        told = await store.client.get(index=STATE_INDEX, id=held_key(index))
    except NotFound:
        return None
    return _held(told["_source"])


def _held(source: dict[str, Any]) -> HeldBack:
    names = ("held_id", "index", "job_id", "connector_id", "count", "digest", "state")
    return HeldBack(**{name: source[name] for name in names})


async def write_held(store: Store, held: HeldBack, pages: AsyncGenerator[list[tuple[str, int]], None]) -> None:
    """Keep deletions, listed as (id, sequence number), in the place of those kept before. Raises `StoreError`."""
    await store.content.ensure_index(STATE_INDEX, settings=SETTINGS, mappings=MAPPINGS)
    number = 0
    async with aclosing(pages):
        async for page in pages:
            for start in range(0, len(page), HELD_PIECE):
                piece = {
                    "kind": "held_ids",
                    "held_id": held.held_id,
                    "number": number,
                    "ids": page[start : start + HELD_PIECE],
                }
                await write_state(store, [(f"{held.held_id}-{number}", piece)])
                number += 1
    await write_state(store, [(held_key(held.index), {"kind": "held", **attrs.asdict(held), "at": now().isoformat()})])
    await _forget_held_ids(store, held.index, keep=held.held_id)


async def _forget_held_ids(store: Store, index: str, keep: str = "") -> None:
    known = {source["held_id"] async for source in found_in_state(store, {"term": {"kind": "held"}})} | {keep}
    query: dict[str, Any] = {
        "bool": {"filter": [{"term": {"kind": "held_ids"}}], "must_not": [{"terms": {"held_id": sorted(known)}}]}
    }
    await store.content.refresh(STATE_INDEX)
    await store.content.delete_by_query(STATE_INDEX, query)


async def forget_held(store: Store, index: str) -> None:
    """Drop what was held back for an index: a later sync has decided anew."""
    try:
        await store.client.delete(index=STATE_INDEX, id=held_key(index), refresh=True)
    except NotFound:
        return
    await _forget_held_ids(store, index)


async def confirmed_for(store: Store, index: str) -> bool:
    """Tell whether a person has confirmed the deletions that are held back for an index."""
    held = await read_held(store, index)
    return held is not None and held.state == "confirmed"


@attrs.frozen
class Confirmed:
    """What came of confirming held-back deletions."""

    deleted: int
    changed_since: int
    """Documents that were written again since they were held back, and so were kept."""


async def confirm_deletions(store: Store, job_id: str) -> Confirmed:
    """Carry out the deletions that a job has held back. Raises `NotFound` if it holds none back, and `StoreError`.

    A document that was written again since is kept. Cancelled: some are deleted; the rest can be confirmed again.
    """
    held = [
        _held(source)
        async for source in found_in_state(
            store, {"bool": {"filter": [{"term": {"kind": "held"}}, {"term": {"job_id": job_id}}]}}
        )
    ]
    if not held:
        raise NotFound(f"Job {job_id!r} holds no deletions back.", status=404)
    record = held[0]
    query = {"bool": {"filter": [{"term": {"kind": "held_ids"}}, {"term": {"held_id": record.held_id}}]}}
    deleted = kept = 0
    async for source in found_in_state(store, query):
        numbers = dict(source["ids"])
        told = await store.client.mget(index=record.index, ids=list(numbers), source=False)
        lines = []
        for hit in told["docs"]:
            if not hit.get("found"):
                continue
            if hit["_seq_no"] != numbers[hit["_id"]]:
                kept += 1
                continue
            guard = {"_id": hit["_id"], "if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}
            lines.append(orjson.dumps({"delete": guard}) + b"\n")
        if lines:
            answer = await store.content.bulk(b"".join(lines), index=record.index)
            gone = sum(1 for item in answer.items if item["delete"].get("status") in (200, 404))
            deleted += gone
            kept += len(lines) - gone
    await store.content.refresh(record.index)
    await forget_held(store, record.index)
    happening = DeletionsConfirmed(deleted=deleted, changed_since=kept)
    entry = Entry(at=now(), happening=happening, connector_id=record.connector_id, job_id=job_id)
    try:
        await write_entries(store, [entry])
    except StoreError as exc:
        log.warning("journal.not_written", job=job_id, why=str(exc))
    return Confirmed(deleted, kept)
