"""What a rehearsal tells is what the sync then does, for every kind of sync; and the rehearsal writes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, ClassVar

import attrs
import pytest

from callboard.actors.job import run_job
from callboard.actors.job_plan import JobFailed
from callboard.actors.rehearsal import Rehearsal, rehearse
from callboard.actors.sync.report import SyncReport
from callboard.node import open_node
from callboard.protocol.documents import Connector, JobType
from callboard.protocol.store import Store, Target, open_store
from callboard.sources.scripted import ScriptedSource
from callboard.sources.source import Checkpoint, Document, Failure, Features, Identity, Item


def note(number: int, text: str = "the wind machine", timestamp: str = "2026-01-01T00:00:00Z") -> Document:
    return Document(f"note-{number}", {"title": f"Note {number}", "text": text}, timestamp=timestamp)


def person(name: str, *groups: str) -> Identity:
    return Identity(name, {"name": name}, [f"user:{name}", *(f"group:{group}" for group in groups)])


class Feed(ScriptedSource):
    """Tells its changes itself."""

    features: ClassVar[Features] = Features(incremental="delta")
    told: ClassVar[list[Document | Failure]] = []

    async def changes(self, cursor: Any, rules: Any = None) -> AsyncGenerator[Item, None]:
        for one in self.told:
            yield attrs.evolve(one, fields=dict(one.fields)) if isinstance(one, Document) else one
        yield Checkpoint({"at": 2})


@attrs.define
class Stage:
    """A connector on a node, whose source lists what the test puts here."""

    store: Store
    connector: Connector
    kind: type[ScriptedSource] = ScriptedSource
    documents: list[Document] = attrs.field(factory=list)
    people: list[Identity] = attrs.field(factory=list)

    def source(self, *_: Any) -> ScriptedSource:
        return self.kind({"all": self.documents}, people=self.people)

    async def rehearse(self, job_type: JobType) -> Rehearsal:
        return await rehearse(self.store, await self.current(), job_type=job_type, make_source=self.source)

    async def sync(self, job_type: JobType) -> SyncReport:
        job = await self.store.jobs.create(await self.current(), job_type)
        report = await run_job(self.store, job, make_source=self.source)
        assert report.status == "completed", report.error
        return report

    async def current(self) -> Connector:
        return await self.store.connectors.get(self.connector.id)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as store:
        await store.ensure_indices()
        connector = await store.connectors.create(index_name="notes", name="Notes", service_type="scripted")
        yield Stage(store, connector, documents=[note(1), note(2), note(3)], people=[person("ines", "stage")])


def counts(told: Rehearsal) -> tuple[int, int, int, int]:
    return told.new, told.changed, told.deleted, told.unchanged


async def test_an_incremental_sync_is_rehearsed_by_timestamps(stage: Stage) -> None:
    await stage.sync(JobType.FULL)
    changed = note(1, "mended", "2026-02-02T00:00:00Z")
    stage.documents = [changed, note(2, "not seen: the time is the same"), note(4)]
    told = await stage.rehearse(JobType.INCREMENTAL)
    assert counts(told) == (1, 1, 1, 1)
    assert (told.new_samples, told.changed_samples, told.deleted_samples) == (["Note 4"], ["Note 1"], ["note-3"])
    done = await stage.sync(JobType.INCREMENTAL)
    assert (done.indexed, done.deleted, done.unchanged) == (2, 1, 1)


async def test_an_access_control_sync_is_rehearsed_person_by_person(stage: Stage) -> None:
    first = await stage.rehearse(JobType.ACCESS_CONTROL)
    assert (counts(first), first.new_samples) == ((1, 0, 0, 0), ["ines"])
    assert not await stage.store.client.indices.exists(index=".search-acl-filter-notes")
    stage.people = [person("ines", "stage"), person("otto"), person("mara")]
    await stage.sync(JobType.ACCESS_CONTROL)
    stage.people = [person("ines"), person("mara"), person("abel")]
    told = await stage.rehearse(JobType.ACCESS_CONTROL)
    assert counts(told) == (1, 1, 1, 1)
    assert (told.new_samples, told.changed_samples, told.deleted_samples) == (["abel"], ["ines"], ["otto"])
    done = await stage.sync(JobType.ACCESS_CONTROL)
    assert (done.indexed, done.deleted, done.unchanged) == (2, 1, 1)


async def test_a_change_feed_is_rehearsed_as_it_tells_the_changes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.sync(JobType.FULL)
    stage.kind = Feed
    gone = attrs.evolve(note(3), operation="delete")
    never_here = attrs.evolve(note(9), operation="delete")
    told_changes = [note(1, "mended"), note(4), gone, never_here, Failure("item", "note-2", "locked", "note-2")]
    monkeypatch.setattr(Feed, "told", told_changes)
    told = await stage.rehearse(JobType.INCREMENTAL)
    assert counts(told) == (1, 1, 1, 0)
    assert (told.failed, told.failures) == (1, ["note-2: locked"])
    done = await stage.sync(JobType.INCREMENTAL)
    # The engine does not look whether a document is there before it deletes it, and counts both.
    assert (done.indexed, done.deleted) == (2, 2)


@pytest.mark.parametrize(
    ("job_type", "words"),
    [(JobType.INCREMENTAL, "no incremental sync"), (JobType.ACCESS_CONTROL, "no document-level security")],
)
async def test_what_the_source_cannot_do_cannot_be_rehearsed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, job_type: JobType, words: str
) -> None:
    monkeypatch.setattr(ScriptedSource, "features", Features())
    with pytest.raises(JobFailed, match=words):
        await stage.rehearse(job_type)


async def test_a_rehearsal_writes_nothing(stage: Stage) -> None:
    await stage.sync(JobType.FULL)
    stage.documents = [note(7)]

    async def written() -> Any:
        found = await stage.store.client.search(index="*,.*", size=1000, seq_no_primary_term=True)
        return sorted((hit["_index"], hit["_id"], hit["_seq_no"]) for hit in found.body["hits"]["hits"])

    before = await written()
    assert before
    for job_type in JobType:
        await stage.rehearse(job_type)
    assert await written() == before
