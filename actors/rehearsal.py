"""What a sync would do, without doing it: the source is listed and compared with the index, and nothing is written anywhere.

No content is fetched: whether a file has to be read again follows from what the source says about it.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import attrs

from ..protocol import Connector
from ..protocol import jobs as transitions
from ..protocol.store import NotFound, Store
from ..runtime import now
from ..sources.source import Document, Failure, Listing, Source, SourceContext
from .job import plan_of, rules_of, source_of
from .sync.deletions import Listed, judge_deletions, may_delete
from .sync.fingerprints import hash64
from .sync.known import Known
from .sync.ledger import Ledger, read_index
from .sync.plan import SyncPlan
from .sync.preparing import Preparer
from .sync.report import Counters
from .sync.settings import SyncSettings

PAGE_DOCUMENTS = 500
_TITLES = ("title", "name", "path", "subject", "url")
"""Fields that tell a person which document it is; the id does not always."""


@attrs.define
class Rehearsal:
    """What a sync would do. The samples are titles where there are any and ids where not, the first few of each kind; `failures` are sentences."""

    new: int = 0
    changed: int = 0
    deleted: int = 0
    unchanged: int = 0
    dropped: int = 0
    """Left out by sync rules."""
    failed: int = 0
    held_back: bool = False
    """The deletions would wait for a person's word."""
    new_samples: list[str] = attrs.field(factory=list)
    changed_samples: list[str] = attrs.field(factory=list)
    deleted_samples: list[str] = attrs.field(factory=list)
    failures: list[str] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)


async def rehearse(
    store: Store, connector: Connector, *, samples_max: int = 5, settings: SyncSettings | None = None
) -> Rehearsal:
    """List the source of a connector, which need not exist on the server, and say what a full sync of it would do now.

    Raises `TransitionRefused` and `JobFailed` for what no job could do either, `SourceError`, `StoreError`, `InvalidRules` and
    `InvalidConfiguration`.
    """
    features = connector.features
    context = SourceContext(document_level_security=bool(features and features.document_level_security_enabled))
    job = transitions.create(connector, now())
    source = source_of(job, context)
    rules = rules_of(job, source)
    async with source.session():
        await source.validate()
        await source.ping()
        plan, notes = await plan_of(store, job, source, rules)
        rehearsing = _Rehearsing(store, source, plan, settings or SyncSettings(), samples_max)
        rehearsing.told.notes += notes
        try:
            await rehearsing.run()
        finally:
            rehearsing.known.close()
    return rehearsing.told


class _Rehearsing:
    """One rehearsal. Used once."""

    def __init__(
        self, store: Store, source: Source[Any], plan: SyncPlan, settings: SyncSettings, samples_max: int
    ) -> None:
        self._store, self._source, self._plan, self._settings = store, source, plan, settings
        self._samples_max = samples_max
        self.known = Known(settings.known_memory_size_bytes)
        self.told = Rehearsal()
        self._counters = Counters()
        self._preparer = Preparer(plan, settings, self._counters, self.known, trust_stamps=False)
        self._titles: dict[str, str] = {}
        self._named: set[int] = set()
        self._holed: set[int] = set()

    async def run(self) -> None:
        await self._read_index()
        in_index = self.known.count
        async with aclosing(self._source.partitions(self._plan.advanced_rules)) as partitions:
            async for partition in partitions:
                key = hash64(partition.key.encode("utf-8", "surrogatepass"))
                self._named.add(key)
                await self._read(self._source.documents(partition), key)
        told, counters = self.told, self._counters
        told.unchanged, told.dropped = counters.unchanged, counters.filtered
        listed = Listed(closed=self._named - self._holed, named=self._named, all_named=True)
        gone = 0
        async with aclosing(self.known.unseen()) as pages:
            async for page in pages:
                for one, origin, _ in page:
                    if may_delete(origin, listed):
                        gone += 1
                        self._sample(told.deleted_samples, one)
        told.deleted += gone
        verdict = judge_deletions(gone, in_index, self._settings.deletions, confirmed=self._plan.deletions_confirmed)
        told.held_back = verdict.action == "hold_back"
        if verdict.why:
            told.notes.append(verdict.why)

    async def _read_index(self) -> None:
        ledger = Ledger(self._store, self._plan.index)
        try:
            await ledger.open()
        except NotFound:
            self.told.notes.append(f"the index {self._plan.index!r} does not exist yet")
            return
        entries = await ledger.load(self._settings.known_memory_size_bytes // 2) if ledger.is_stored else None
        try:
            pages = read_index(self._store, self._plan.index, self.known, entries, None, timestamps=False)
            async with aclosing(pages):
                async for _ in pages:
                    pass
        finally:
            if entries is not None:
                entries.close()

    async def _read(self, listing: Listing, partition: int) -> None:
        page: list[Document] = []
        async with aclosing(listing):
            async for found in listing:
                for item in found if isinstance(found, list | tuple) else (found,):
                    if isinstance(item, Failure):
                        await self._failure(item, partition)
                    elif isinstance(item, Document):
                        page.append(item)
                if len(page) >= PAGE_DOCUMENTS:
                    await self._compare(page)
                    page = []
        await self._compare(page)

    async def _failure(self, failure: Failure, partition: int) -> None:
        self.told.failed += 1
        self._sample(self.told.failures, f"{failure.what}: {failure.cause}")
        if failure.scope != "item" or failure.document_id is None:
            self._holed.add(partition)
            return
        found = await self.known.find([failure.document_id])
        if found.rows[0] >= 0:
            self.known.mark(found.rows[0])

    async def _compare(self, page: list[Document]) -> None:
        if not page:
            return
        prepared = await self._preparer.documents(page)
        for document in page:
            title = next((document.fields[name] for name in _TITLES if document.fields.get(name)), None)
            if title is not None and document.fields.get("id") is not None:
                self._titles[str(document.fields["id"])] = str(title)
        for refused in prepared.refused:
            self.told.failed += 1
            self._sample(self.told.failures, f"{refused.what}: {refused.why}")
        for operation in prepared.operations:
            self._count(operation.id, operation.kind, operation.is_new)
        for wanted in prepared.wanted:
            self._count(wanted.id, "index", wanted.row < 0)
        self._titles.clear()

    def _count(self, one: str, kind: str, is_new: bool) -> None:
        told = self.told
        if kind == "delete":
            told.deleted += 1
            self._sample(told.deleted_samples, one)
        elif is_new:
            told.new += 1
            self._sample(told.new_samples, one)
        else:
            told.changed += 1
            self._sample(told.changed_samples, one)

    def _sample(self, samples: list[str], one: str) -> None:
        if len(samples) < self._samples_max:
            samples.append(self._titles.get(one, one))
