"""The journal's index: entries are queued, folded, written in batches, read back, and removed when they are old.

The queue is bounded. When it is full, or Elasticsearch takes nothing for long, entries are dropped and counted, and the count is
written as soon as writing works again. Nothing that tells ever waits for the journal.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import attrs
import orjson
import structlog
import trio

from ...protocol.store import NotFound, Store, StoreError
from ...runtime import Context, Task, new_id, now
from .entry import KINDS, Entry, Happening, Level, read_entry
from .events import BatchesSettled, BulkAnswered, DeadLetter, PartitionClosed, PartitionOpened, Retried, Throttled
from .service_events import EntriesDropped, EntriesFolded

JOURNAL_INDEX = ".callboard-journal"
SETTINGS = {"index": {"hidden": True, "number_of_shards": 1, "auto_expand_replicas": "0-1"}}
MAPPINGS: dict[str, Any] = {
    "dynamic": "false",
    "properties": {
        **{
            name: {"type": "keyword", "ignore_above": 1024}
            for name in ("kind", "level", "connector_id", "job_id", "worker")
        },
        "at": {"type": "date"},
        "number": {"type": "long"},
        "text": {"type": "text"},
    },
}
QUEUED_MAX = 10_000
BATCH_MAX = 500
WRITE_EVERY_S = 1.0
FOLD_EVERY_S = 10.0
JOBS_MAX = 1_000
"""Of so many jobs at once, entries are folded; what is folded of the one heard of longest ago is then written."""
PER_KIND_MAX = 200
"""So many entries of a frequent kind one job gets; further ones are counted."""
LAST_WRITE_S = 2.0
TEXT_LENGTH_MAX = 2_000
PAGE = 1_000
ENTRIES_AT_ONCE_MAX = 10_000

FREQUENT: tuple[type[Happening], ...] = (Throttled, Retried, DeadLetter, PartitionOpened, PartitionClosed)
ENDS = frozenset({"job_completed", "job_failed", "job_suspended", "job_cancelled", "job_lost"})

log = structlog.get_logger(__name__)


@attrs.define
class _JobFold:
    """What of one job is not written entry by entry."""

    since_s: float
    latest: Entry
    settled: list[BulkAnswered] = attrs.field(factory=list)
    told: Counter[str] = attrs.field(factory=Counter)


@attrs.define(eq=False)
class Queue:
    """Takes entries at any pace, folds what is frequent, and holds what is to be written. Never waits."""

    queued_max: int = QUEUED_MAX
    dropped: int = 0
    """Over the whole life of the queue."""
    written: int = 0
    _unsaid: int = 0
    _waiting: deque[Entry] = attrs.field(factory=deque)
    _jobs: dict[str, _JobFold] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, entry: Entry) -> None:
        """Take an entry: queued, folded into another, or dropped and counted."""
        happening, job_id = entry.happening, entry.job_id
        if isinstance(happening, BulkAnswered):
            if happening.outcome != "failed":
                self._fold(entry).settled.append(happening)
            return
        if not happening.is_kept:
            return
        if job_id and isinstance(happening, FREQUENT):
            fold = self._fold(entry)
            fold.told[entry.kind] += 1
            if fold.told[entry.kind] > PER_KIND_MAX:
                return
        if job_id and entry.kind in ENDS:
            self._end(entry)
        self._put(entry)

    def _fold(self, entry: Entry) -> _JobFold:
        fold = self._jobs.pop(entry.job_id, None)
        if fold is None:
            if len(self._jobs) >= JOBS_MAX:
                # A job whose end nobody told of: its service died, or it was taken away.
                self._end(next(iter(self._jobs.values())).latest)
            fold = _JobFold(trio.current_time(), entry)
        self._jobs[entry.job_id] = fold
        fold.latest = entry
        return fold

    def _end(self, entry: Entry) -> None:
        fold = self._jobs.pop(entry.job_id, None)
        if fold is None:
            return
        self._unfold(fold)
        for kind, count in sorted(fold.told.items()):
            if count > PER_KIND_MAX:
                self._put(attrs.evolve(entry, happening=EntriesFolded(of=kind, count=count - PER_KIND_MAX)))

    def _unfold(self, fold: _JobFold) -> None:
        if not fold.settled:
            return
        settled, fold.settled = fold.settled, []
        happening = BatchesSettled(
            requests=len(settled),
            documents=sum(one.documents for one in settled),
            size_bytes=sum(one.size_bytes for one in settled),
            seconds=sum(one.seconds for one in settled),
            slowest_s=max(one.seconds for one in settled),
        )
        fold.since_s = trio.current_time()
        self._put(attrs.evolve(fold.latest, happening=happening))

    def _put(self, entry: Entry) -> None:
        if len(self._waiting) >= self.queued_max:
            self.dropped += 1
            self._unsaid += 1
            return
        self._waiting.append(entry)

    def take(self, *, is_last: bool = False) -> list[Entry]:
        """The next entries to write; they stay until `wrote`."""
        for fold in self._jobs.values():
            if is_last or trio.current_time() - fold.since_s >= FOLD_EVERY_S:
                self._unfold(fold)
        if self._unsaid and len(self._waiting) < self.queued_max:
            count, self._unsaid = self._unsaid, 0
            self._waiting.append(Entry(at=now(), happening=EntriesDropped(count=count)))
        return [self._waiting[at] for at in range(min(BATCH_MAX, len(self._waiting)))]

    def wrote(self, count: int) -> None:
        """The first `count` entries are written."""
        for _ in range(count):
            self._waiting.popleft()
        self.written += count


class JournalTask(Task):
    """Writes a queue into the index for as long as it runs. Cancelled: writes what is left, for at most two seconds."""

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store, self._queue = store, queue

    async def run(self, context: Context) -> None:
        """Write, for ever. A server that takes nothing is asked again after growing pauses."""
        pause_s = WRITE_EVERY_S
        try:
            while True:
                await trio.sleep(pause_s)
                try:
                    await self.flush()
                    pause_s = WRITE_EVERY_S
                except StoreError as exc:
                    context.log.warning("journal.not_written", waiting=len(self._queue), why=str(exc))
                    pause_s = min(pause_s * 2, 60.0)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WRITE_S):
                try:
                    await self.flush(is_last=True)
                except StoreError as exc:
                    context.log.warning("journal.not_written", waiting=len(self._queue), why=str(exc))

    async def flush(self, *, is_last: bool = False) -> None:
        """Write all that waits. Raises `StoreError`; what is not written waits on."""
        while entries := self._queue.take(is_last=is_last):
            await write_entries(self._store, entries)
            self._queue.wrote(len(entries))


async def write_entries(store: Store, entries: list[Entry]) -> None:
    """Write entries, in one request. Raises `StoreError`. Cancelled: they may or may not be written."""
    lines: list[bytes] = []
    for entry in entries:
        document = entry.as_document()
        document["text"] = document["text"][:TEXT_LENGTH_MAX]
        document["facts"] = {
            name: value[:TEXT_LENGTH_MAX] if isinstance(value, str) else value
            for name, value in document["facts"].items()
        }
        lines += [orjson.dumps({"index": {"_id": new_id()}}), b"\n", orjson.dumps(document), b"\n"]
    await store.content.ensure_index(JOURNAL_INDEX, settings=SETTINGS, mappings=MAPPINGS)
    await store.content.bulk(b"".join(lines), index=JOURNAL_INDEX)


async def read_journal(
    store: Store,
    *,
    job_id: str | None = None,
    connector_id: str | None = None,
    since: str | None = None,
    levels: Sequence[Level] = (),
    limit: int = PAGE,
) -> list[tuple[str, Entry]]:
    """The latest `limit` entries with their ids, oldest first; of a job, a connector or some levels if named. Raises `StoreError`."""
    assert limit <= ENTRIES_AT_ONCE_MAX
    try:
        told = await store.client.search(
            index=JOURNAL_INDEX,
            query=_query(job_id, connector_id, since, levels),
            sort=[{"at": "desc"}, {"number": "desc"}],
            size=limit,
        )
    except NotFound:
        return []
    found = [(str(hit["_id"]), read_entry(hit["_source"])) for hit in told["hits"]["hits"]]
    found.reverse()
    return found


def _query(job_id: str | None, connector_id: str | None, since: str | None, levels: Sequence[Level]) -> dict[str, Any]:
    wanted = (("job_id", job_id), ("connector_id", connector_id))
    terms: list[dict[str, Any]] = [{"term": {name: value}} for name, value in wanted if value]
    if levels:
        terms.append({"terms": {"level": list(levels)}})
    if since:
        terms.append({"range": {"at": {"gte": since}}})
    return {"bool": {"filter": terms}}


async def journal_pages(
    store: Store, *, job_id: str, since: str | None = None, page_size: int = PAGE
) -> AsyncGenerator[list[tuple[str, Entry]], None]:
    """Yield all entries of a job with their ids, oldest first, however many there are. Close it. Raises `StoreError`."""
    search = {"query": _query(job_id, None, since, ()), "sort": [{"at": "asc"}, {"number": "asc"}]}
    pages = store.content.search_pages(JOURNAL_INDEX, search, page_size=page_size)
    try:
        async with aclosing(pages):
            async for hits in pages:
                yield [(str(hit["_id"]), read_entry(hit["_source"])) for hit in hits]
    except NotFound:
        return


async def follow_journal(store: Store, job_id: str, *, every_s: float = 1.0) -> AsyncGenerator[list[Entry], None]:
    """Yield what is there of a job, then what comes, for ever. Entries that arrive late are not missed. Close it when done."""
    seen: dict[str, None] = {}
    since: str | None = None
    while True:
        pages = journal_pages(store, job_id=job_id, since=since)
        async with aclosing(pages):
            async for found in pages:
                fresh = [(entry_id, entry) for entry_id, entry in found if entry_id not in seen]
                seen |= dict.fromkeys(entry_id for entry_id, _ in fresh)
                while len(seen) > 5 * PAGE:
                    del seen[next(iter(seen))]
                if found:
                    since = (found[-1][1].at - timedelta(seconds=30)).isoformat()
                if fresh:
                    yield [entry for _, entry in fresh]
        await trio.sleep(every_s)


async def forget_old(store: Store, days: int) -> int:
    """Remove entries that are older; return how many. Raises `StoreError`."""
    before = (now() - timedelta(days=days)).isoformat()
    try:
        return await store.content.delete_by_query(JOURNAL_INDEX, {"range": {"at": {"lt": before}}})
    except NotFound:
        return 0


def journal_page() -> str:
    """The written list of events, as `docs/journal.md` has it."""
    rows = [
        f"| `{kind.kind}` | {kind.level} | {kind.when}{'' if kind.is_kept else ' Not kept one by one.'} | "
        f"{', '.join(f'`{one.name}`' for one in attrs.fields(kind))} |"
        for kind in KINDS.values()
    ]
    return _PAGE + "\n".join(rows) + "\n"


_PAGE = f"""# The journal

<!-- Made by `make docs` from the code itself; a test checks that it is fresh. -->

The service keeps what happens to connectors and jobs in the hidden index `{JOURNAL_INDEX}`. `callboard job log JOB` tells the story of one job,
`--follow` goes on as it happens, `--format json` prints one entry per line. Entries older than `callboard.journal.retention_days` are
removed hourly; `callboard.journal.enabled: false` keeps none.

Nothing waits for the journal: at most {QUEUED_MAX:,} entries wait to be written, further ones are dropped, counted in
`callboard_journal_dropped_total` and told by an entry `entries_dropped`. One job gets at most {PER_KIND_MAX} entries of a frequent kind; the rest is
told as a number when the job ends. Requests are summed up every {FOLD_EVERY_S:g} seconds.

Events are told for each page, request and part, never for each document. One takes 3 to 5 microseconds with the journal and the metrics
listening, which costs a sync of 200,000 small documents less than 2% of processor time (`bench/journal.py`).

Every entry has `at`, `kind`, `level`, `connector_id`, `job_id`, `worker`, `number` (order within one instant), `text` (the sentence)
and `facts`.

| Kind | Level | When | Facts |
|---|---|---|---|
"""
