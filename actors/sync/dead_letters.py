"""Dead letters: every document that finally could not be read, extracted or indexed, kept where people look for it.

One letter per document and stage, in an index of its own in Elasticsearch. The same failure in the next sync is the same letter,
counted up; a full sync that completes removes the letters of its index that did not come back.

A letter can be marked for replay: the next sync that lists the whole source then prepares its document anew, however unchanged
the document looks, and removes the letter if it does not come back.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import attrs
import orjson
import trio

from ...protocol.store import NotFound, Store
from ...runtime import now
from ..journal.events import DeadLetter
from ..journal.telling import tell
from ..secrets import hidden
from .content import QUARANTINE
from .encoding import action_line
from .report import FAILURES_KEPT, Counters, FailedDocument

DEAD_LETTERS_INDEX = ".callboard-dead-letters"
SETTINGS = {"index": {"hidden": True, "number_of_shards": 1, "auto_expand_replicas": "0-1"}}
MAPPINGS: dict[str, Any] = {
    "dynamic": "false",
    "properties": {
        **{
            name: {"type": "keyword", "ignore_above": 1024}
            for name in ("index", "connector_id", "job_id", "what", "where", "document_id", "partition", "replay")
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
ASKED = "asked"
"""What `replay` says in a letter whose document the next sync has to prepare anew."""
LETTERS_PAGE = 500
QUARANTINED_MAX = 100_000
"""Files in quarantine that a job keeps in mind; letters beyond that stay until somebody removes them."""


class DeadLetters:
    """The letters of one running job. Written in batches; the first few are also kept for the report."""

    def __init__(
        self, store: Store, index: str, connector_id: str = "", job_id: str = "", secrets: tuple[str, ...] = ()
    ) -> None:
        self._store = store
        self._index, self._connector_id, self._job_id = index, connector_id, job_id
        self._secrets = secrets
        self._waiting: list[FailedDocument] = []
        self._is_ready = False
        self._asked: list[str] = []
        self._quarantined: dict[str, str] = {}
        self._released: list[str] = []
        self._lock = trio.Lock()
        self.first: list[FailedDocument] = []
        self.total = 0

    def add(self, letter: FailedDocument) -> None:
        """Take a letter; `flush` writes it. What its reason quotes of the source's secrets is blanked out."""
        letter = attrs.evolve(letter, why=hidden(letter.why, self._secrets))
        self.total += 1
        if len(self.first) < FAILURES_KEPT:
            self.first.append(letter)
        if letter.where == QUARANTINE and letter.document_id is not None:
            self._quarantined.pop(letter.document_id, None)
        self._waiting.append(letter)
        tell(
            DeadLetter(
                what=letter.what,
                where=letter.where,
                why=letter.why,
                partition=letter.partition,
                document_id=letter.document_id,
            )
        )

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

    async def asked_for(self) -> AsyncGenerator[list[str], None]:
        """Yield, in pages, the ids of the documents that this sync has to prepare anew. Raises `StoreError`."""
        query = _both({"index": self._index, "replay": ASKED})
        pages = self._store.content.existing(
            DEAD_LETTERS_INDEX, fields=("document_id",), query=query, page_size=LETTERS_PAGE
        )
        try:
            async with aclosing(pages):
                async for page in pages:
                    self._asked += page.ids
                    yield [str(source["document_id"]) for source in page.sources or () if source.get("document_id")]
        except NotFound:
            return

    async def forget_replayed(self) -> int:
        """Remove the letters that `asked_for` told of and that did not come back; return how many. Raises `StoreError`."""
        removed = 0
        for start in range(0, len(self._asked), LETTERS_PAGE):
            told = await self._store.client.mget(
                index=DEAD_LETTERS_INDEX, ids=self._asked[start : start + LETTERS_PAGE], source_includes=["replay"]
            )
            # A letter that came back was written anew, without the mark.
            resolved = [
                hit["_id"] for hit in told["docs"] if hit.get("found") and hit["_source"].get("replay") == ASKED
            ]
            if resolved:
                lines = [action_line("delete", letter_id) for letter_id in resolved]
                await self._store.content.bulk(b"".join(lines), index=DEAD_LETTERS_INDEX)
                removed += len(resolved)
        self._asked = []
        return removed

    async def read_quarantine(self) -> None:
        """Learn which files of this index earlier syncs have put into quarantine. Raises `StoreError`."""
        query = _both({"index": self._index, "where": QUARANTINE})
        pages = self._store.content.existing(
            DEAD_LETTERS_INDEX, fields=("document_id",), query=query, page_size=LETTERS_PAGE
        )
        try:
            # What the sync before has only just written counts.
            await self._store.content.refresh(DEAD_LETTERS_INDEX)
            async with aclosing(pages):
                async for page in pages:
                    for letter_id, source in zip(page.ids, page.sources or (), strict=True):
                        if len(self._quarantined) < QUARANTINED_MAX:
                            self._quarantined[str(source.get("document_id"))] = letter_id
        except NotFound:
            return

    def was_read(self, document_id: str) -> None:
        """A file was read to a verdict: if it was in quarantine, it no longer is."""
        letter_id = self._quarantined.pop(document_id, None)
        if letter_id is not None:
            self._released.append(letter_id)

    async def forget_released(self) -> int:
        """Remove the letters of files that are out of quarantine, or out of the index; return how many. Raises `StoreError`."""
        waiting = list(self._quarantined.items())
        for start in range(0, len(waiting), LETTERS_PAGE):
            some = dict(waiting[start : start + LETTERS_PAGE])
            told = await self._store.client.mget(index=self._index, ids=list(some), source=False)
            self._released += [some[hit["_id"]] for hit in told["docs"] if not hit.get("found")]
        for start in range(0, len(self._released), LETTERS_PAGE):
            lines = [action_line("delete", letter_id) for letter_id in self._released[start : start + LETTERS_PAGE]]
            await self._store.content.bulk(b"".join(lines), index=DEAD_LETTERS_INDEX)
        removed, self._released, self._quarantined = len(self._released), [], {}
        return removed

    async def forget_resolved(self) -> int:
        """Remove the letters of this index that this job did not write; return how many. Raises `StoreError`."""
        query: dict[str, Any] = {
            "bool": {
                "filter": [{"term": {"index": self._index}}],
                # A file in quarantine is not read again while it is unchanged, so its letter does not come back by itself.
                "must_not": [{"term": {"job_id": self._job_id}}, {"term": {"where": QUARANTINE}}],
            }
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
    query = _both({"index": index, "job_id": job_id})
    pages = store.content.existing(DEAD_LETTERS_INDEX, fields=("*",), query=query, page_size=LETTERS_PAGE)
    try:
        async with aclosing(pages):
            async for page in pages:
                for letter_id, source in zip(page.ids, page.sources or (), strict=True):
                    yield {"_id": letter_id, **source}
    except NotFound:
        return


def _both(terms: Mapping[str, str | None]) -> dict[str, Any]:
    return {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items() if value is not None]}}


async def replay_dead_letters(store: Store, *, index: str | None = None, job_id: str | None = None) -> int:
    """Mark the letters of an index or a job, so that the next sync prepares their documents anew; return how many.

    A sync that only reads a source's changes leaves the marks to the next one that lists everything. Raises `StoreError`.
    Cancelled: some are marked; marking them again does no harm.
    """
    properties = {"replay": MAPPINGS["properties"]["replay"]}
    try:
        await store.client.indices.put_mapping(index=DEAD_LETTERS_INDEX, properties=properties)
    except NotFound:
        return 0
    marked = 0
    mark = b'{"doc":{"replay":%b}}\n' % orjson.dumps(ASKED)
    pages = store.content.existing(
        DEAD_LETTERS_INDEX, query=_both({"index": index, "job_id": job_id}), page_size=LETTERS_PAGE
    )
    async with aclosing(pages):
        async for page in pages:
            if page.ids:
                body = b"".join(action_line("update", letter_id) + mark for letter_id in page.ids)
                answer = await store.content.bulk(body, index=DEAD_LETTERS_INDEX)
                marked += sum(1 for item in answer.items if item["update"].get("status", 500) < 300)
    return marked


def letter_of(counters: Counters, letters: DeadLetters, letter: FailedDocument) -> None:
    """Count a failure where it belongs, and keep its letter."""
    match letter.where:
        case "listing":
            counters.source_failures += 1
        case "download" | "extraction" | "quarantine":
            counters.downloads_failed += 1
        case _:
            counters.failed_at_sink += 1
    letters.add(letter)
