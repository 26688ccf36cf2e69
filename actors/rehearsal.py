"""What a sync would do, without doing it: the source is listed and compared with the index, and nothing is written anywhere.

No content is fetched: whether a file has to be read again follows from what the source says about it.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import attrs

from ..protocol import Connector
from ..protocol import jobs as transitions
from ..protocol.documents import JobType
from ..protocol.ids import InvalidDocumentId, document_id
from ..protocol.store import NotFound, Store
from ..runtime import now
from ..sources.source import Document, Failure, Identity, Listing, Source, SourceContext
from .job import MakeSource
from .job_plan import JobFailed, plan_of, rules_of, source_of
from .sync.deletions import Listed, judge_deletions, may_delete
from .sync.fingerprints import hash64
from .sync.handing_on import identity_as_written
from .sync.known import Known
from .sync.ledger import Ledger, read_index
from .sync.plan import SyncPlan
from .sync.preparing import Prepared, Preparer
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
    store: Store,
    connector: Connector,
    *,
    job_type: JobType = JobType.FULL,
    samples_max: int = 5,
    settings: SyncSettings | None = None,
    make_source: MakeSource = source_of,
) -> Rehearsal:
    """List the source of a connector, which need not exist on the server, and say what a sync of it would do now.

    Raises `TransitionRefused` and `JobFailed` for what no job could do either, `SourceError`, `StoreError`, `InvalidRules` and
    `InvalidConfiguration`.
    """
    features = connector.features
    context = SourceContext(document_level_security=bool(features and features.document_level_security_enabled))
    job = transitions.create(connector, now(), job_type=job_type)
    if job_type is JobType.INCREMENTAL:
        # As whoever claims a job would write it there.
        job = attrs.evolve(job, connector=attrs.evolve(job.connector, sync_cursor=connector.sync_cursor))
    source = make_source(job, context)
    _refuse_impossible(job_type, source)
    rules = rules_of(job, source)
    async with source.session():
        if not await source.changed():
            return Rehearsal(notes=["the source says that nothing has changed, so that nothing would be read"])
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


def _refuse_impossible(job_type: JobType, source: Source[Any]) -> None:
    if job_type is JobType.INCREMENTAL and source.features.incremental == "none":
        raise JobFailed(f"The source {source.service_type!r} has no incremental sync. Run a full one.")
    if job_type is JobType.ACCESS_CONTROL and not source.features.document_level_security:
        raise JobFailed(f"The source {source.service_type!r} has no document-level security.")


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
        self._preparer: Preparer
        self._titles: dict[str, str] = {}
        self._named: set[int] = set()
        self._holed: set[int] = set()

    async def run(self) -> None:
        follows_changes = self._plan.kind == "incremental" and self._source.features.incremental == "delta"
        trust_stamps = await self._read_index()
        # A source that tells its changes is believed: what it names is sent, whatever the index has.
        known = None if follows_changes else self.known
        self._preparer = Preparer(
            self._plan,
            self._settings,
            self._counters,
            known,
            trust_stamps=trust_stamps and not follows_changes,
            compare_access=self._source.features.document_level_security,
        )
        if follows_changes:
            await self._read(self._source.changes(self._plan.cursor, self._plan.advanced_rules), 0)
        elif self._plan.kind == "access_control":
            await self._read_identities()
        else:
            await self._read_partitions()
        self.told.unchanged, self.told.dropped = self._counters.unchanged, self._counters.filtered
        if not follows_changes:
            await self._judge_what_is_gone()

    async def _read_partitions(self) -> None:
        async with aclosing(self._source.partitions(self._plan.advanced_rules)) as partitions:
            async for partition in partitions:
                key = hash64(partition.key.encode("utf-8", "surrogatepass"))
                self._named.add(key)
                await self._read(self._source.documents(partition), key)

    async def _read_identities(self) -> None:
        key = hash64(b"identities")
        self._named.add(key)
        async with aclosing(self._source.identities()) as listing:
            async for found in listing:
                items = found if isinstance(found, list | tuple) else (found,)
                for item in items:
                    if isinstance(item, Failure):
                        await self._failure(item, key)
                await self._compare_identities([item for item in items if isinstance(item, Identity)])

    async def _judge_what_is_gone(self) -> None:
        told = self.told
        listed = Listed(closed=self._named - self._holed, named=self._named, all_named=True)
        gone = 0
        async with aclosing(self.known.unseen()) as pages:
            async for page in pages:
                for one, origin, _ in page:
                    if may_delete(origin, listed):
                        gone += 1
                        self._sample(told.deleted_samples, one)
        told.deleted += gone
        verdict = judge_deletions(
            gone, self.known.count, self._settings.deletions, confirmed=self._plan.deletions_confirmed
        )
        told.held_back = verdict.action == "hold_back"
        if verdict.why:
            told.notes.append(verdict.why)

    async def _read_index(self) -> bool:
        """Learn what is in the index. Tell whether equal timestamps prove that a document is unchanged."""
        plan, settings = self._plan, self._settings
        ledger = Ledger(self._store, plan.index)
        try:
            await ledger.open()
        except NotFound:
            self.told.notes.append(f"the index {plan.index!r} does not exist yet")
            return False
        assert ledger.head is not None
        by_stamp = (
            plan.kind == "incremental" and settings.skip_unchanged and ledger.head.setup in ("", plan.setup.hex())
        )
        entries = None
        if ledger.is_stored and not by_stamp:
            entries = await ledger.load(settings.known_memory_size_bytes // 2)
        try:
            pages = read_index(
                self._store,
                plan.index,
                self.known,
                entries,
                None,
                timestamps=by_stamp or plan.kind == "access_control",
                access_lists=by_stamp and self._source.features.document_level_security,
            )
            async with aclosing(pages):
                async for _ in pages:
                    pass
        finally:
            if entries is not None:
                entries.close()
        return by_stamp

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
        await self._tell(prepared)

    async def _compare_identities(self, found: list[Identity]) -> None:
        usable: list[Identity] = []
        written: list[tuple[str, dict[str, object]]] = []
        for identity in found:
            try:
                one = document_id(identity.id)
            except InvalidDocumentId as refused:
                self.told.failed += 1
                self._sample(self.told.failures, f"{str(identity.fields)[:80]}: {refused}")
                continue
            usable.append(identity)
            written.append((one, identity_as_written(identity, one)))
        if written:
            await self._tell(await self._preparer.identities(usable, written))

    async def _tell(self, prepared: Prepared) -> None:
        """Count and sample what would be sent."""
        for refused in prepared.refused:
            self.told.failed += 1
            self._sample(self.told.failures, f"{refused.what}: {refused.why}")
        sent = [(operation.id, operation.kind) for operation in prepared.operations]
        sent += [(wanted.id, "index") for wanted in prepared.wanted]
        found = await self.known.find([one for one, _ in sent])
        for (one, kind), row in zip(sent, found.rows, strict=True):
            # A change feed tells deletions of documents, too, that were never here.
            if kind != "delete" or row >= 0:
                self._count(one, kind, row < 0)
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
