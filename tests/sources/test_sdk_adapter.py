"""Data sources written for `connectors_sdk` run as they are. The stand-in package has the public interface of that one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from callboard.protocol.configuration import read_configuration, schema_of
from callboard.sources.errors import ConfigurationError, SourceError
from callboard.sources.sdk_adapter import adapt
from callboard.sources.source import Checkpoint, Document, Identity, Partition, Source


@pytest.fixture(autouse=True)
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "sdk_standin"))
    for name in ("library_source", "connectors_sdk", "connectors_sdk.source"):
        sys.modules.pop(name, None)
    import library_source  # type: ignore[import-not-found,unused-ignore]

    events: list[str] = library_source.EVENTS
    yield events
    for name in ("library_source", "connectors_sdk", "connectors_sdk.source"):
        sys.modules.pop(name, None)


def make(class_name: str = "LibrarySource", **values: Any) -> Source[Any]:
    source_class = adapt("library", f"library_source:{class_name}")
    stored = schema_of(source_class.Config)
    for name, value in {"password": "secret", **values}.items():
        stored[name]["value"] = value
    return source_class(read_configuration(source_class.Config, stored))


async def listed(source: Source[Any], rules: Any = None) -> list[Document]:
    found: list[Document] = []
    async with aclosing(source.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(source.documents(partition)) as documents:
                async for batch in documents:
                    assert isinstance(batch, list)
                    found.extend(item for item in batch if isinstance(item, Document))
    return found


def test_the_class_tells_its_features_and_settings() -> None:
    adapted = adapt("library", "library_source:LibrarySource")
    assert (adapted.service_type, adapted.name) == ("library", "Library")
    assert adapted.features.advanced_rules
    assert adapted.features.document_level_security
    assert adapted.features.incremental == "delta"
    schema = schema_of(adapted.Config)
    assert list(schema) == ["shelves", "password", "rooms", "strict"]
    assert schema["password"]["sensitive"] is True
    assert schema["shelves"]["value"] == 3


async def test_documents_come_in_batches_with_their_content_for_later(standin: list[str]) -> None:
    source = make(shelves=5)
    async with source.session():
        await source.ping()
        await source.validate()
        assert await source.changed()
        documents = await listed(source)
        assert [document.id for document in documents] == ["0", "1", "2", "3", "4"]
        assert documents[0].content is None
        content = documents[1].content
        assert content is not None
        assert await source.fetch_fields(content) == {"_attachment": "aGVsbG8="}
    assert standin == ["generator closed", "closed"]
    assert source.content_concurrency == 3


async def test_advanced_rules_reach_the_source_and_its_validators() -> None:
    source = make(shelves=1)
    async with source.session():
        assert (await listed(source, [{"shelf": 1}]))[0].fields["rules"] == [{"shelf": 1}]
        assert await source.validate_rules([]) == []
        (problem,) = await source.validate_rules("x")
        assert problem.message == "rules must be a list"


async def test_a_change_feed_ends_with_its_cursor() -> None:
    source = make()
    async with source.session():
        items: list[Any] = []
        async for batch in source.changes({"seen": 4}):
            items.extend(batch if isinstance(batch, list) else [batch])
    assert [(item.id, item.operation) for item in items[:2]] == [("new", "index"), ("old", "delete")]
    assert items[2] == Checkpoint({"seen": 5})


async def test_identities_keep_their_own_document() -> None:
    source = make()
    async with source.session():
        batches = [batch async for batch in source.identities()]
    ((identity,),) = batches  # type: ignore[misc]
    assert isinstance(identity, Identity)
    assert identity.access == ["email:ann@x"]
    assert identity.document is not None
    assert identity.document["identity"] == {"email": "ann@x"}


async def test_a_cancelled_listing_closes_the_generator_at_once(standin: list[str]) -> None:
    source = make("SleepySource")
    async with source.session():
        started = trio.current_time()
        with trio.move_on_after(0.5) as scope:
            await listed(source)
        assert scope.cancelled_caught
        assert trio.current_time() - started < 2
        assert "generator closed" in standin


async def test_one_document_crosses_without_waiting_for_a_full_batch() -> None:
    source = make("SleepySource")
    async with source.session(), aclosing(source.documents(Partition(key="all"))) as listing:
        with trio.fail_after(5):
            batch = await anext(listing)
    assert isinstance(batch, list)
    assert [item.id for item in batch if isinstance(item, Document)] == ["1"]


@pytest.mark.parametrize(
    ("password", "kind", "part"),
    [("down", SourceError, "the library is closed"), ("wrong", ConfigurationError, "not accepted")],
)
async def test_errors_of_the_source_are_told(password: str, kind: type[Exception], part: str) -> None:
    source = make(password=password)
    async with source.session():
        with pytest.raises(kind, match=part):
            await (source.validate() if password == "wrong" else source.ping())


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("no_such_module:X", "cannot be imported"),
        ("library_source:Nope", "has no class 'Nope'"),
        ("library_source:WithoutPing", "has no ping"),
    ],
)
def test_an_entry_that_cannot_work_says_why(target: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        adapt("library", target)
