"""The leases of one shared job in Elasticsearch, as one of those who work on it sees and keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson
import structlog
import trio

from ...protocol.store import Conflict, Forbidden, NotFound, Store
from ...runtime import new_id, random
from .encoding import action_line
from .leases import Lease, State, named, taken
from .segments import PartitionCounts
from .state import (
    MAPPINGS,
    STATE_INDEX,
    StateNotWritten,
    found_in_state,
    head_key,
)
from .verdicts import pause_s

LEASES_SHOWN = 200
"""Leases of one look, unless more than these are held."""
LEASES_SHOWN_MAX = 10_000
NAMES_WRITTEN = 500
WRITE_TRIES = 5
"""Our own writes whose answers were lost make conflicts; more of them in a row than this mean that something is wrong."""
_FIELDS = ("key", "lease", "epoch", "setup", "by_owner")
_TABLE_FIELDS = (
    *_FIELDS, "partition", "closed", "counts", "seen", "worker", "data", "title", "outcome", "why", "containers_failed",
    "all_counts", "failures",
)  # fmt: skip

log = structlog.get_logger(__name__)


@attrs.define
class _Held:
    """A lease held here: the version under which the next write must find it, and what stands in it."""

    seq_no: int
    primary_term: int
    document: dict[str, Any]


class Leases:
    """What `JobState` and `Sharing` use. Every method raises `StoreError`."""

    def __init__(self, store: Store, job_id: str, *, setup: str, worker: str, is_owner: bool) -> None:
        self._store, self._job_id = store, job_id
        self.setup, self.worker, self.is_owner = setup, worker, is_owner
        self._held: dict[str, _Held] = {}
        self._shown = LEASES_SHOWN

    @property
    def epochs(self) -> frozenset[str]:
        """Of the leases held here."""
        return frozenset(held.document["epoch"] for held in self._held.values())

    def document(self, head_id: str) -> dict[str, Any]:
        """What stands in a lease that is held here."""
        return self._held[head_id].document

    async def open(self) -> None:
        """Make the fields of leases searchable, also in an index that was made before there were any."""
        names = ("lease", "epoch")
        properties = {name: MAPPINGS["properties"][name] for name in names}
        try:
            await self._store.client.indices.put_mapping(index=STATE_INDEX, properties=properties)
        except Forbidden:
            # An index of this version has them; of an older one, nothing would be found, and the job say so.
            log.info("leases.mapping_forbidden", index=STATE_INDEX)

    async def table(self) -> list[dict[str, Any]]:
        """What all leases of the job say now, but for their checkpoints, which may be large."""
        return [source async for source in found_in_state(self._store, _of_job(self._job_id), _TABLE_FIELDS)]

    async def name(
        self, partitions: Sequence[tuple[str, Mapping[str, Any], str]], heads: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Offer partitions (key, data, title) to whoever works on the job. `heads` are those that an earlier run has left."""
        fresh: list[bytes] = []
        for key, data, title in partitions:
            head_id = head_key(self._job_id, key)
            if key in heads:
                if named(heads[key], data=data, title=title, setup=self.setup) != heads[key]:
                    await self._reopen(head_id, data, title)
                continue
            head = {
                "kind": "partition", "job_id": self._job_id, "partition": head_id, "version": new_id(), "key": key,
                "closed": False, "counts": attrs.asdict(PartitionCounts()), "seen": 0, "pieces": 0, "checkpoint": "null",
            }  # fmt: skip
            document = named(head, data=data, title=title, setup=self.setup)
            fresh += [action_line("create", head_id), orjson.dumps(document), b"\n"]
        for start in range(0, len(fresh), 3 * NAMES_WRITTEN):
            answer = await self._store.content.bulk(
                b"".join(fresh[start : start + 3 * NAMES_WRITTEN]), index=STATE_INDEX
            )
            # What is there already was made by our own first attempt, whose answer was lost.
            refused = [item for item in answer.items if "error" in item["create"] and item["create"]["status"] != 409]
            if refused:
                raise StateNotWritten(f"Elasticsearch refused to keep the state of a job: {refused[0]}")

    async def _reopen(self, head_id: str, data: Mapping[str, Any], title: str) -> None:
        for _ in range(WRITE_TRIES):
            try:
                told = await self._store.client.get(index=STATE_INDEX, id=head_id)
            except NotFound:
                break
            document = named(told["_source"], data=data, title=title, setup=self.setup)
            guard = {"if_seq_no": told["_seq_no"], "if_primary_term": told["_primary_term"]}
            try:
                await self._store.client.index(index=STATE_INDEX, id=head_id, document=document, **guard)
            except Conflict:
                # A helper of the earlier owner works on it, or our own attempt has succeeded: looked at again.
                continue
            return
        log.info("lease.not_reopened", partition=title)

    async def drop(self, keys: Sequence[str]) -> None:
        """Remove partitions that the source does not have any more. Whoever held one has lost it."""
        if keys:
            lines = [action_line("delete", head_key(self._job_id, key)) for key in keys]
            await self._store.content.bulk(b"".join(lines), index=STATE_INDEX)

    async def look(self) -> list[Lease]:
        """The leases that are not over: all that are held, then some of the free ones, as they are now."""
        await self._store.content.refresh(STATE_INDEX)
        while True:
            told = await self._store.client.search(
                index=STATE_INDEX,
                query=_of_job(self._job_id, {"terms": {"lease": ["free", "held"]}}),
                sort=[{"lease": {"order": "desc", "unmapped_type": "keyword"}}],
                size=self._shown,
                source_includes=list(_FIELDS),
                seq_no_primary_term=True,
                allow_partial_search_results=False,
            )
            leases = [_lease(hit) for hit in told["hits"]["hits"]]
            if len(leases) < self._shown or leases[-1].state == "free" or self._shown == LEASES_SHOWN_MAX:
                return leases
            self._shown = min(2 * self._shown, LEASES_SHOWN_MAX)

    async def take(self, lease: Lease) -> dict[str, Any] | None:
        """Take a lease; returns its document, or None if somebody was faster. Cancelled: it may be taken until it runs out."""
        epoch = new_id()
        try:
            told = await self._store.client.get(index=STATE_INDEX, id=lease.id)
        except NotFound:
            return None
        document = taken(
            told["_source"],
            lease.seq_no,
            told["_seq_no"],
            epoch=epoch,
            worker=self.worker,
            setup=self.setup,
            by_owner=self.is_owner,
        )
        if document is None:
            return None
        guard = {"if_seq_no": told["_seq_no"], "if_primary_term": told["_primary_term"]}
        try:
            answer = await self._store.client.index(index=STATE_INDEX, id=lease.id, document=document, **guard)
        except Conflict:
            told = await self._store.client.get(index=STATE_INDEX, id=lease.id)
            if told["_source"].get("epoch") != epoch:
                return None
            answer = told
        except NotFound:
            return None
        self._held[lease.id] = _Held(answer["_seq_no"], answer["_primary_term"], document)
        return document

    async def write(self, heads: Sequence[tuple[str, dict[str, Any]]]) -> set[str]:
        """Write heads of leases that are held here, which also renews them; returns the ids of those that were lost.

        One that is given back or ended with it is not held any more. Failed or cancelled: each is written or not, never half,
        and the next call finds out which.
        """
        todo = dict(heads)
        lost: set[str] = set()
        is_busy = False
        for tries in range(WRITE_TRIES):
            if not todo:
                break
            if is_busy:
                await trio.sleep(pause_s(tries, random()))
                is_busy = False
            lines: list[bytes] = []
            for head_id, document in todo.items():
                held = self._held[head_id]
                guard = {"_id": head_id, "if_seq_no": held.seq_no, "if_primary_term": held.primary_term}
                lines += [orjson.dumps({"index": guard}), b"\n", orjson.dumps(document), b"\n"]
            answer = await self._store.content.bulk(b"".join(lines), index=STATE_INDEX)
            again: dict[str, dict[str, Any]] = {}
            for (head_id, document), item in zip(todo.items(), answer.items, strict=True):
                told = item["index"]
                if "error" not in told:
                    self._wrote(head_id, told["_seq_no"], document)
                elif told["status"] in (404, 409):
                    match await self._is_still_held(head_id, document):
                        case "yes":
                            again[head_id] = document
                        case "no":
                            lost.add(head_id)
                            del self._held[head_id]
                elif told["status"] == 429:
                    again[head_id], is_busy = document, True
                else:
                    raise StateNotWritten(f"Elasticsearch refused to keep the state of a job: {told}")
            todo = again
        if todo:
            raise StateNotWritten(
                f"The leases of {len(todo)} partitions could not be written in {WRITE_TRIES} attempts."
            )
        return lost

    def _wrote(self, head_id: str, seq_no: int, document: dict[str, Any]) -> None:
        if document["lease"] == "held":
            held = self._held[head_id]
            held.seq_no, held.document = seq_no, document
        else:
            del self._held[head_id]

    async def _is_still_held(self, head_id: str, document: Mapping[str, Any]) -> str:
        """Look at a lease after a conflict: `yes`, `no`, or `written` if it was our own write that came first."""
        held = self._held[head_id]
        try:
            told = await self._store.client.get(index=STATE_INDEX, id=head_id)
        except NotFound:
            return "no"
        source = told["_source"]
        if source.get("version") == document["version"] and source.get("lease") == document["lease"] != "held":
            # It was ended or given back by our first attempt, whose answer was lost.
            del self._held[head_id]
            return "written"
        if source.get("epoch") != held.document["epoch"]:
            return "no"
        held.seq_no, held.primary_term = told["_seq_no"], told["_primary_term"]
        return "yes"

    def forget(self, head_id: str) -> None:
        """Hold a lease no more, without writing anything."""
        self._held.pop(head_id, None)


def _of_job(job_id: str, *more: Mapping[str, Any]) -> dict[str, Any]:
    return {"bool": {"filter": [{"term": {"kind": "partition"}}, {"term": {"job_id": job_id}}, *more]}}


def _lease(hit: Mapping[str, Any]) -> Lease:
    source = hit["_source"]
    state: State = source["lease"]
    return Lease(
        hit["_id"],
        source["key"],
        hit["_seq_no"],
        state,
        source.get("epoch", ""),
        source.get("setup", ""),
        bool(source.get("by_owner")),
    )


async def shared_jobs(store: Store, job_ids: Sequence[str]) -> list[str]:
    """Say which of these jobs have partitions that wait for somebody to list them. Raises `StoreError`."""
    found: list[str] = []
    for job_id in job_ids:
        query = _of_job(job_id, {"term": {"lease": "free"}})
        try:
            if await store.content.count(STATE_INDEX, query, refresh=True):
                found.append(job_id)
        except NotFound:
            return []
    return found
