"""Dead letters: every document that finally could not be read, extracted or indexed, kept where people look for it.

One letter per document and stage, in an index of its own in Elasticsearch. The same failure in the next sync is the same letter,
counted up; a full sync that completes removes the letters of its index that did not come back.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import attrs
import orjson
import trio

from ...protocol.store import NotFound, Store
from ...runtime import now
from .encoding import action_line
from .report import FAILURES_KEPT, Counters, FailedDocument

DEAD_LETTERS_INDEX = ".callboard-dead-letters"
SETTINGS = {"index": {"hidden": True, "number_of_shards": 1, "auto_expand_replicas": "0-1"}}
MAPPINGS: dict[str, Any] = {
    "dynamic": "false",
    "properties": {
        **{
            name: {"type": "keyword", "ignore_above": 1024}
            for name in ("index", "connector_id", "job_id", "what", "where", "document_id", "partition")
        },
        "first_seen": {"type": "date"},
        "last_seen": {"type": "date"},
        "times": {"type": "integer"},
        "why": {"type": "text"},
    },
}
WAITING_MAX = 200
"""Letters that wait in memory before they are written."""
WHY_LENGTH_MAX = 2_000


class DeadLetters:
    """The letters of one running job. Written in batches; the first few are also kept for the report."""

    def __init__(self, store: Store, index: str, connector_id: str = "", job_id: str = "") -> None:
        self._store = store
        self._index, self._connector_id, self._job_id = index, connector_id, job_id
        self._waiting: list[FailedDocument] = []
        self._is_ready = False
        self._lock = trio.Lock()
        self.first: list[FailedDocument] = []
        self.total = 0

    def add(self, letter: FailedDocument) -> None:
        """Take a letter; `flush` writes it."""
        self.total += 1
        if len(self.first) < FAILURES_KEPT:
            self.first.append(letter)
        self._waiting.append(letter)

    @property
    def wants_flush(self) -> bool:
        return len(self._waiting) >= WAITING_MAX

    async def flush(self) -> None:
        """Write what waits. Cancelled: letters that were not written wait on. Raises `StoreError`."""
        async with self._lock:
            while self._waiting:
                batch = self._waiting[:WAITING_MAX]
                await self._write(batch)
                del self._waiting[: len(batch)]

    async def _write(self, letters: Sequence[FailedDocument]) -> None:
        store = self._store
        if not self._is_ready:
            await store.content.ensure_index(DEAD_LETTERS_INDEX, settings=SETTINGS, mappings=MAPPINGS)
            self._is_ready = True
        by_id = {self._id(letter): letter for letter in letters}
        told = await store.client.mget(index=DEAD_LETTERS_INDEX, ids=list(by_id))
        before = {hit["_id"]: hit["_source"] for hit in told["docs"] if hit.get("found")}
        moment = now().isoformat()
        lines: list[bytes] = []
        for letter_id, letter in by_id.items():
            earlier = before.get(letter_id, {})
            document = {
                **attrs.asdict(letter),
                "why": letter.why[:WHY_LENGTH_MAX],
                "index": self._index,
                "connector_id": self._connector_id,
                "job_id": self._job_id,
                "first_seen": earlier.get("first_seen", moment),
                "last_seen": moment,
                "times": int(earlier.get("times", 0)) + (earlier.get("job_id") != self._job_id or not self._job_id),
            }
            lines += [action_line("index", letter_id), orjson.dumps(document), b"\n"]
        await store.content.bulk(b"".join(lines), index=DEAD_LETTERS_INDEX)

    def _id(self, letter: FailedDocument) -> str:
        named = orjson.dumps([self._index, letter.where, letter.document_id or letter.what, letter.partition])
        return hashlib.blake2b(named, digest_size=16).hexdigest()

    async def forget_resolved(self) -> int:
        """Remove the letters of this index that this job did not write; return how many. Raises `StoreError`."""
        query: dict[str, Any] = {
            "bool": {"filter": [{"term": {"index": self._index}}], "must_not": [{"term": {"job_id": self._job_id}}]}
        }
        try:
            await self._store.content.refresh(DEAD_LETTERS_INDEX)
            return await self._store.content.delete_by_query(DEAD_LETTERS_INDEX, query)
        except NotFound:
            return 0


async def list_dead_letters(
    store: Store, *, index: str | None = None, job_id: str | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the letters of an index or a job, as stored. Close it when stopping early."""
    filters = [{"term": {name: value}} for name, value in (("index", index), ("job_id", job_id)) if value is not None]
    pages = store.content.existing(
        DEAD_LETTERS_INDEX, fields=("*",), query={"bool": {"filter": filters}}, page_size=500
    )
    try:
        async with aclosing(pages):
            async for page in pages:
                for letter_id, source in zip(page.ids, page.sources or (), strict=True):
                    yield {"_id": letter_id, **source}
    except NotFound:
        return


def letter_of(counters: Counters, letters: DeadLetters, letter: FailedDocument) -> None:
    """Count a failure where it belongs, and keep its letter."""
    match letter.where:
        case "listing":
            counters.source_failures += 1
        case "download" | "extraction":
            counters.downloads_failed += 1
        case _:
            counters.failed_at_sink += 1
    letters.add(letter)
