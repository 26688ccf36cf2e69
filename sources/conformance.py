"""What every source must keep to, as a pytest class: subclass it, and give it a fixture `subject`.

    class TestMine(SourceConformance):
        @pytest.fixture
        def subject(self):
            return Subject(lambda: Mine(MineConfig(...)), refused=lambda: Mine(MineConfig(password="wrong")), secrets=("wrong",))

The system behind the subject holds a few documents in a few pages, and nobody changes it while a test runs. The tests are
asynchronous and run under pytest-trio (`trio_mode = true`).
"""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final

import attrs
import orjson
import trio

from ..protocol.configuration import schema_of
from ..protocol.ids import document_id
from .errors import SourceError
from .source import JSON, Checkpoint, Document, Failure, Item, Partition, Source

LEAVE_S: Final = 1.0
"""How long a cancelled call may take to be gone."""
LISTING_S: Final = 60.0
CHECKPOINTS_MAX: Final = 12
"""Of longer listings only so many checkpoints are gone on from, evenly chosen."""
CANCELLED_AFTER_S: Final = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)


@attrs.frozen
class Subject:
    """A source to be tested, and what the tests may do to it."""

    open: Callable[[], Source[Any]]
    """Makes a source that works. Every test makes its own, most make several."""
    refused: Callable[[], Source[Any]] | None = None
    """Makes a source that the system refuses, or that asks for what is not there."""
    secrets: Sequence[str] = ()
    """Texts that no error, log or representation of either may hold."""
    cut: Callable[[], None] | None = None
    """Cuts the system off, for good, as far as sources made before and after are concerned."""
    rules: JSON = None
    """Advanced rules to list by; None lists without."""
    volatile_fields: Sequence[str] = ()
    """Fields that reading may change."""


@attrs.define
class _Listed:
    """One partition as it was listed."""

    partition: Partition
    items: list[Item] = attrs.field(factory=list)

    @property
    def documents(self) -> list[Document]:
        return [item for item in self.items if isinstance(item, Document)]


class SourceConformance:
    """The tests. A source without refusals, cuts or checkpoints passes those that are about them."""

    def test_configuration_describes_itself(self, subject: Subject) -> None:
        """The schema is plain data in which every field has a label, a kind and a place of its own."""
        schema = schema_of(subject.open().Config)
        assert schema, "a source without any setting cannot know what to read"
        assert json.loads(json.dumps(schema)) == schema
        for name, field in schema.items():
            assert field["label"].strip(), f"{name} has no label"
            assert field["type"] in {"str", "int", "bool", "list"}, f"{name} has the type {field['type']}"
            others = [one["field"] for one in field["depends_on"]]
            assert set(others) <= set(schema), f"{name} depends on fields that are not there: {others}"
        places = [field["order"] for field in schema.values()]
        assert len(set(places)) == len(places), f"two fields have the same place: {places}"

    def test_secrets_are_sensitive_and_in_no_representation(self, subject: Subject) -> None:
        """What holds a secret is marked as such, and neither configuration nor source shows it."""
        for source in _sources(subject):
            schema = schema_of(source.Config)
            for name, field in schema.items():
                if str(getattr(source.config, name)) in subject.secrets:
                    assert field["sensitive"], f"{name} holds a secret and is not sensitive"
            _assert_silent(subject, repr(source.config), str(source.config), repr(source))

    async def test_ping_and_validation_accept_what_works(self, subject: Subject) -> None:
        source = subject.open()
        with trio.fail_after(LISTING_S):
            async with source.session():
                await source.ping()
                await source.validate()
                assert not list(await source.validate_rules(subject.rules))

    async def test_refusals_say_why_and_hold_no_secret(self, subject: Subject) -> None:
        """Ping and validation raise a `SourceError` of one readable sentence or two; a listing never ends as if empty."""
        if subject.refused is None:
            return
        source = subject.refused()
        async with source.session():
            for call in (source.ping, source.validate):
                refusal: SourceError | None = None
                try:
                    with trio.fail_after(LISTING_S):
                        await call()
                except SourceError as error:
                    refusal = error
                if refusal is None:
                    assert call == source.ping, "validation accepts what the system refuses"
                else:
                    assert str(refusal).strip(), "an error without words"
                    _assert_silent(subject, *traceback.format_exception(refusal))

    async def test_documents_are_what_the_index_takes(self, subject: Subject) -> None:
        """Ids are texts and unique, fields are plain, partitions have keys of their own."""
        listed = await _listed(subject)
        keys = [one.partition.key for one in listed]
        assert len(set(keys)) == len(keys), f"two partitions have the same key: {keys}"
        assert any(one.documents for one in listed), "the subject has no document to test with"
        for one in listed:
            orjson.dumps(dict(one.partition.data))
            ids = [document_id(document.id) for document in one.documents]
            assert len(set(ids)) == len(ids), f"two documents of {one.partition.key} have the same id"
            for document in one.documents:
                assert isinstance(document.id, str), f"{document.id!r} is no text"
                assert document.id, "a document without id"
                assert document.operation == "index", "only changes delete and update"
                orjson.dumps(document.fields)
            for item in one.items:
                if isinstance(item, Checkpoint):
                    assert orjson.loads(orjson.dumps(item.value)) == item.value, "a checkpoint is not plain data"
                if isinstance(item, Failure):
                    assert item.what, f"a failure of nothing: {item}"
                    assert item.cause, f"a failure without cause: {item}"
                    _assert_silent(subject, item.cause)

    async def test_a_second_listing_is_the_same(self, subject: Subject) -> None:
        """Nothing changed, so ids and fields are those of the first time, partition by partition and in the same order."""
        first, second = await _listed(subject), await _listed(subject)
        assert _shown(first, subject) == _shown(second, subject)

    async def test_partitions_that_are_shared_are_listed_by_anybody(self, subject: Subject) -> None:
        """Where a source says that it is shareable: no id is in two partitions, and a partition is all that another needs."""
        if not subject.open().shareable or subject.rules is not None:
            return
        listed = await _listed(subject)
        ids = [document_id(document.id) for one in listed for document in one.documents]
        assert len(set(ids)) == len(ids), "two partitions hold the same document"
        other = subject.open()
        async with other.session():
            for one in listed:
                sent = attrs.evolve(one.partition, data=orjson.loads(orjson.dumps(dict(one.partition.data))))
                again = await _read(other, sent)
                assert _fields_of(again, subject) == _fields_of(one, subject), (
                    f"another process lists {one.partition.key} differently"
                )

    async def test_a_listing_goes_on_from_each_of_its_checkpoints(self, subject: Subject) -> None:
        """What was listed before a checkpoint and what is listed from it are the whole, nothing twice."""
        for one in await _listed(subject):
            places = [place for place, item in enumerate(one.items) if isinstance(item, Checkpoint)]
            for place in places[:: max(1, len(places) // CHECKPOINTS_MAX)]:
                checkpoint = one.items[place]
                assert isinstance(checkpoint, Checkpoint)
                rest = [item for item in one.items[place:] if isinstance(item, Document)]
                value = orjson.loads(orjson.dumps(checkpoint.value))
                again = await _listed_partition(subject.open(), one.partition, value)
                expected = [_fields(document, subject) for document in rest]
                assert [_fields(document, subject) for document in again.documents] == expected

    async def test_a_listing_may_be_left_after_any_page(self, subject: Subject) -> None:
        """Whoever stops reading is let go at once, and the source goes on working."""
        source = subject.open()
        async with source.session():
            for partition in await _partitions(source, subject):
                for pages in (1, 2):
                    await _leave_after(source, partition, pages)
            await source.ping()

    async def test_a_cancelled_listing_is_gone_within_a_second(self, subject: Subject) -> None:
        """Whenever the cancellation comes: nothing is waited for, and the same source lists completely afterwards."""
        source = subject.open()
        async with source.session():
            partition = (await _partitions(source, subject))[0]
            for delay_s in CANCELLED_AFTER_S:
                with trio.move_on_after(delay_s) as scope:
                    await _read(source, partition)
                late_s = trio.current_time() - scope.deadline
                assert not scope.cancelled_caught or late_s < LEAVE_S, f"took {late_s:.1f} s to leave"
            again = await _read(source, partition)
        assert _fields_of(again, subject) == _fields_of((await _listed(subject))[0], subject)

    async def test_a_system_that_goes_away_never_looks_like_a_short_listing(self, subject: Subject) -> None:
        """Cut off after its first page, or before: a listing raises, or names what it could not read."""
        if subject.cut is None:
            return
        whole = await _listed(subject)
        longest = max(whole, key=lambda one: len(one.items))
        source = subject.open()
        failures: list[Failure] = []
        documents: list[Document] = []
        try:
            with trio.fail_after(LISTING_S):
                async with source.session(), aclosing(source.documents(longest.partition)) as listing:
                    has_cut = False
                    async for found in listing:
                        for item in _flat(found):
                            failures += [item] if isinstance(item, Failure) else []
                            documents += [item] if isinstance(item, Document) else []
                        if not has_cut:
                            subject.cut()
                            has_cut = True
        except SourceError as error:
            _assert_silent(subject, *traceback.format_exception(error))
        else:
            # What had arrived already may well be all there is.
            is_whole = len(documents) == len(longest.documents)
            assert failures or is_whole, f"{len(documents)} of {len(longest.documents)} documents passed for the whole"
        try:
            async with source.session():
                partitions = await _partitions(source, subject)
                for partition in partitions:
                    await _read(source, partition)
        except SourceError as error:
            _assert_silent(subject, *traceback.format_exception(error))
        else:
            raise AssertionError(f"a system that is not there has {len(partitions)} partitions that can be listed")


def _sources(subject: Subject) -> list[Source[Any]]:
    return [make() for make in (subject.open, subject.refused) if make is not None]


def _flat(found: Item | Sequence[Item]) -> Sequence[Item]:
    return found if isinstance(found, list | tuple) else [found]  # type: ignore[list-item]  # one item is no sequence


async def _partitions(source: Source[Any], subject: Subject) -> list[Partition]:
    async with aclosing(source.partitions(subject.rules)) as partitions:
        return [partition async for partition in partitions]


async def _read(source: Source[Any], partition: Partition, checkpoint: JSON = None) -> _Listed:
    listed = _Listed(partition)
    async with aclosing(source.documents(partition, checkpoint)) as listing:
        async for found in listing:
            listed.items.extend(_flat(found))
    return listed


async def _listed_partition(source: Source[Any], partition: Partition, checkpoint: JSON) -> _Listed:
    with trio.fail_after(LISTING_S):
        async with source.session():
            return await _read(source, partition, checkpoint)


async def _listed(subject: Subject) -> list[_Listed]:
    source = subject.open()
    with trio.fail_after(LISTING_S):
        async with source.session():
            return [await _read(source, partition) for partition in await _partitions(source, subject)]


async def _leave_after(source: Source[Any], partition: Partition, pages: int) -> None:
    async with aclosing(source.documents(partition)) as listing:
        await _pages(listing, pages)
        started = trio.current_time()
    late_s = trio.current_time() - started
    assert late_s < LEAVE_S, f"took {late_s:.1f} s to leave after {pages} pages"


async def _pages(listing: AsyncIterator[Any], count: int) -> None:
    async for _ in listing:
        count -= 1
        if not count:
            return


def _fields(document: Document, subject: Subject) -> tuple[str, dict[str, JSON]]:
    return document.id, {name: value for name, value in document.fields.items() if name not in subject.volatile_fields}


def _fields_of(listed: _Listed, subject: Subject) -> list[tuple[str, dict[str, JSON]]]:
    return [_fields(document, subject) for document in listed.documents]


def _shown(listed: Iterable[_Listed], subject: Subject) -> list[tuple[str, Any]]:
    return [(one.partition.key, _fields_of(one, subject)) for one in listed]


def _assert_silent(subject: Subject, *texts: str) -> None:
    for text in texts:
        # Not in the message: a failing test must not print what it found.
        assert not any(secret in text for secret in subject.secrets), "a secret is shown"
