"""A whole sync with files that crash or hang the engine: the others arrive, the bad ones are named, and nothing is lost."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from callboard.actors.configuration import read_mapping
from callboard.actors.configured import engine_settings
from callboard.actors.extraction import (
    ExtractionLimits,
    ExtractionSettings,
    Extractor,
    attachment_reader,
    open_extractor,
)
from callboard.actors.extraction.engines import Engine, File
from callboard.actors.extraction.extractor import DocumentExtractor
from callboard.actors.extraction.results import Extraction
from callboard.actors.extraction.spool import spool_folder
from callboard.actors.sync import (
    DEAD_LETTERS_INDEX,
    SyncReport,
    SyncSettings,
    list_dead_letters,
    replay_dead_letters,
    sync,
)
from callboard.actors.sync.dead_letters import DeadLetters
from callboard.node import open_node
from callboard.node.ingest.managed import DEFAULT_PIPELINE, PIPELINES
from callboard.protocol import Pipeline
from callboard.protocol.configuration import setting
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import new_id
from callboard.sources.source import ContentRef, Document, Item, Partition, Source

Settings = Callable[..., ExtractionSettings]
INDEX = "shelf"
FILES = int(os.environ.get("CALLBOARD_TEST_POISON_FILES", "2000"))
"""The full form of the test with poison has 10,000."""
QUICK = SyncSettings(bulk_documents_max=100, bulk_age_s_max=0.2)
REPEATING = attrs.evolve(QUICK, skip_unchanged=False)


@attrs.frozen
class ShelfConfig:
    name: str = setting(label="Name", default="shelf")


class Shelf(Source[ShelfConfig]):
    """Documents that are files, and a few that are not; what is in a file decides its version."""

    service_type = "shelf"
    name = "Shelf"
    Config = ShelfConfig
    content_concurrency = 8

    def __init__(self, files: dict[str, bytes], rows: int = 0) -> None:
        super().__init__(ShelfConfig())
        self.files, self.rows = files, rows
        self.fetched: list[str] = []
        self.more: dict[str, Any] = {}
        self.listed: dict[str, bytes] = {}
        """Listed and not to be had."""

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> AsyncIterator[Item | list[Item]]:
        yield [
            Document(
                name, {"title": name, **self.more}, "2026-01-01", content=ContentRef(name, version=str(hash(content)))
            )
            for name, content in {**self.files, **self.listed}.items()
        ]
        yield [Document(f"row-{number}", {"number": number}, "2026-01-01") for number in range(self.rows)]

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        self.fetched.append(content.name)

        async def chunks() -> AsyncIterator[bytes]:
            yield self.files[content.name]

        yield chunks()


class CountingEngine(Engine):
    """Hands files on to an engine and notes which; a name in `hanging` never comes back."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hanging: set[str] = set()
        self.hangs = trio.Event()

    async def read(self, file: File) -> Extraction:
        from callboard.actors.extraction import Status

        self.asked.append(file.name)
        if file.name in self.hanging:
            self.hangs.set()
            await trio.sleep_forever()
        return Extraction(Status.TEXT, (await file.spool.everything()).decode("latin-1"), engine=self.name)


@asynccontextmanager
async def counting(engine: CountingEngine, **settings: Any) -> AsyncIterator[DocumentExtractor]:
    with spool_folder() as folder:
        yield DocumentExtractor(engine, ExtractionSettings(engine="plain", **settings), folder)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as opened:
        yield opened


async def stored(store: Store) -> dict[str, dict[str, Any]]:
    await store.content.refresh(INDEX)
    found: dict[str, dict[str, Any]] = {}
    async with aclosing(store.content.existing(INDEX, fields=("*",))) as pages:
        async for page in pages:
            found |= dict(zip(page.ids, page.sources or (), strict=True))
    return found


async def run(store: Store, source: Shelf, extractor: Extractor) -> SyncReport:
    return await sync(source, store, index=INDEX, settings=QUICK, extractor=extractor)


async def letters_of(store: Store) -> dict[str, dict[str, Any]]:
    return {one["document_id"]: one async for one in list_dead_letters(store, index=INDEX)}


async def test_two_thousand_files_with_one_in_a_hundred_poisoned(store: Store, poison_settings: Settings) -> None:
    chance = random.Random(3)
    poisoned = {number: chance.choice(["CRASH", "HANG"]) for number in chance.sample(range(FILES), FILES // 100)}
    files = {f"{number}.pdf": f"%PDF-1.4 {poisoned.get(number, 'hello')} {number}".encode() for number in range(FILES)}
    source = Shelf(files, rows=50)
    async with open_extractor(poison_settings(seconds_max=0.5, workers=2)) as extractor:
        report = await run(store, source, extractor)
    assert (report.status, report.failed) == ("completed", FILES // 100)
    found = await stored(store)
    assert len(found) == FILES + 50
    for number in range(FILES):
        body = found[f"{number}.pdf"].get("body")
        assert body == (None if number in poisoned else f"%PDF-1.4 hello {number}")
    letters = await letters_of(store)
    assert set(letters) == {f"{number}.pdf" for number in poisoned}
    for number, order in poisoned.items():
        letter = letters[f"{number}.pdf"]
        assert letter["where"] == "quarantine"
        assert letter["why"].startswith(f"{number}.pdf: quarantined: ")
        assert ("longer than 0.5 s" if order == "HANG" else "crashed") in letter["why"]


async def test_an_extraction_that_fails_keeps_the_earlier_body(store: Store, poison_settings: Settings) -> None:
    source = Shelf({"a.pdf": b"%PDF-1.4 good a", "b.pdf": b"%PDF-1.4 good b", "c.pdf": b"%PDF-1.4 good c"})
    async with open_extractor(poison_settings(seconds_max=5.0)) as extractor:
        await run(store, source, extractor)
        source.files |= {"a.pdf": b"%PDF-1.4 CRASH", "b.pdf": b"%PDF-1.4 better b", "c.pdf": b"\x89PNG\r\n\x1a\n" * 9}
        report = await run(store, source, extractor)
        assert (report.status, report.failed) == ("completed", 1)
        bodies = {one: fields["body"] for one, fields in (await stored(store)).items()}
        assert bodies == {"a.pdf": "%PDF-1.4 good a", "b.pdf": "%PDF-1.4 better b", "c.pdf": "%PDF-1.4 good c"}
        # What killed the engine twice, or is of no use, is not tried again until it changes.
        source.fetched.clear()
        await run(store, source, extractor)
        assert source.fetched == []
        source.files["a.pdf"] = b"%PDF-1.4 mended a"
        await run(store, source, extractor)
    assert (await stored(store))["a.pdf"]["body"] == "%PDF-1.4 mended a"


async def test_a_quarantine_outlives_syncs_and_restarts_until_the_file_changes_or_is_replayed(
    store: Store, poison_settings: Settings
) -> None:
    source = Shelf({f"{name}.pdf": b"%PDF-1.4 CRASH " + name.encode() for name in "abcd"} | {"e.txt": b"fine"})

    async def again(source: Shelf) -> SyncReport:
        # An extractor of its own remembers nothing, as after a restart.
        source.fetched.clear()
        async with open_extractor(poison_settings(seconds_max=5.0)) as extractor:
            report = await sync(source, store, index=INDEX, settings=QUICK, extractor=extractor)
        assert report.status == "completed", report.error
        return report

    assert (await again(source)).failed == 4
    for _ in range(2):
        assert (await again(source)).failed == 0
        assert source.fetched == []
        letters = await letters_of(store)
        assert {(one["document_id"], one["where"]) for one in letters.values()} == {
            (f"{name}.pdf", "quarantine") for name in "abcd"
        }
    source.files["a.pdf"] = b"%PDF-1.4 mended"
    del source.files["b.pdf"]
    await again(source)
    assert source.fetched == ["a.pdf"]
    await store.content.refresh(DEAD_LETTERS_INDEX)
    assert set(await letters_of(store)) == {"c.pdf", "d.pdf"}
    assert (await stored(store))["a.pdf"]["body"] == "%PDF-1.4 mended"
    assert await replay_dead_letters(store, index=INDEX) == 2
    await store.content.refresh(DEAD_LETTERS_INDEX)
    assert (await again(source)).failed == 2
    assert sorted(source.fetched) == ["c.pdf", "d.pdf"]
    assert set(await letters_of(store)) == {"c.pdf", "d.pdf"}


async def removed_at_the_source(store: Store, index: str, extractor: Extractor) -> None:
    source = Shelf({"a.pdf": b"%PDF-1.4 good a", "b.pdf": b"%PDF-1.4 good b"})
    source.more = {"owner": "Ada", "room": {"floor": 2, "door": "left"}}
    await sync(source, store, index=index, settings=QUICK, extractor=extractor)
    source.files |= {"a.pdf": b"%PDF-1.4 CRASH", "b.pdf": b"\x89PNG\r\n\x1a\n" * 9}
    source.more = {"room": {"floor": 3}}
    report = await sync(source, store, index=index, settings=QUICK, extractor=extractor)
    assert (report.status, report.failed) == ("completed", 1)
    await store.content.refresh(index)
    told = await store.client.search(index=index, query={"match_all": {}})
    found = {hit["_id"]: hit["_source"] for hit in told["hits"]["hits"]}
    for name in ("a", "b"):
        fields = found[f"{name}.pdf"]
        assert fields["body"] == f"%PDF-1.4 good {name}"
        assert "owner" not in fields
        assert fields["room"] == {"floor": 3}
        assert not any(field.startswith("_extract") for field in fields)


async def test_fields_removed_at_the_source_go_although_the_earlier_body_stays(
    store: Store, poison_settings: Settings
) -> None:
    async with open_extractor(poison_settings(seconds_max=5.0)) as extractor:
        await removed_at_the_source(store, INDEX, extractor)


@pytest.mark.integration
async def test_fields_removed_at_the_source_go_in_elasticsearch_too(
    elasticsearch_url: str, poison_settings: Settings
) -> None:
    index = f"extraction-{new_id()}"
    async with open_store(Target(elasticsearch_url)) as real, open_extractor(poison_settings(seconds_max=5.0)) as reads:
        try:
            await removed_at_the_source(real, index, reads)
        finally:
            await real.content.delete_index(index)


async def test_unchanged_files_are_not_extracted_again(store: Store) -> None:
    engine = CountingEngine()
    source = Shelf({f"{number}.pdf": b"%%PDF-1.4 %d" % number for number in range(40)})
    async with counting(engine) as extractor:
        await run(store, source, extractor)
        assert len(engine.asked) == 40
        engine.asked.clear()
        source.files["7.pdf"] = b"%PDF-1.4 changed"
        report = await run(store, source, extractor)
    assert engine.asked == ["7.pdf"]
    assert (report.indexed, report.unchanged) == (1, 39)


async def test_text_over_the_limit_is_cut_and_flagged(store: Store) -> None:
    source = Shelf({"long.pdf": b"%PDF-1.4 " + b"x" * 5000, "long.txt": b"word " * 2000, "short.txt": b"word"})
    limits = ExtractionLimits(characters_max=1000)
    async with counting(CountingEngine(), limits=limits) as extractor:
        report = await run(store, source, extractor)
    assert (report.status, report.failed) == ("completed", 0)
    found = await stored(store)
    for name in ("long.pdf", "long.txt"):
        assert len(found[name]["body"]) in range(990, 1001)
        assert found[name]["_truncated_fields"] == ["body"]
    assert "_truncated_fields" not in found["short.txt"]


async def test_hanging_files_hold_up_only_downloads(store: Store) -> None:
    """While every worker hangs, documents without files and plain text arrive; afterwards the rest does."""
    engine = CountingEngine()
    files = {f"stuck-{number}.pdf": b"%PDF-1.4 stuck" for number in range(2)}
    files |= {f"{number}.txt": b"text %d" % number for number in range(100)}
    source = Shelf(files, rows=300)
    engine.hanging = {"stuck-0.pdf", "stuck-1.pdf"}
    async with counting(engine, workers=1) as extractor, trio.open_nursery() as nursery:
        nursery.start_soon(run, store, source, extractor)
        with trio.fail_after(20):
            await engine.hangs.wait()
            while True:
                await trio.sleep(0.05)
                arrived = set(await stored(store))
                if {f"row-{number}" for number in range(300)} | {f"{number}.txt" for number in range(100)} <= arrived:
                    break
        assert not {"stuck-0.pdf", "stuck-1.pdf"} & arrived
        nursery.cancel_scope.cancel()


async def test_the_bytes_of_all_files_together_stay_within_the_budget(store: Store) -> None:
    engine = CountingEngine()
    source = Shelf({f"{number}.pdf": b"%PDF-1.4 " + b"x" * 100_000 for number in range(60)})
    limits = ExtractionLimits(characters_max=200_000)
    async with counting(engine, workers=8, limits=limits, budget_bytes=4 * 2**20) as extractor:
        report = await run(store, source, extractor)
        budget = extractor.budget
        assert (budget.held_bytes, budget.waiting) == (0, 0)
        assert 0 < budget.peak_bytes <= 4 * 2**20
    assert (report.status, report.indexed, len(engine.asked)) == ("completed", 60, 60)


async def both_ways(
    source: Shelf, extractor: Extractor, settings: SyncSettings = QUICK
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """What a sync stores if the files travel as attachments, and if they are read here."""
    found: list[dict[str, dict[str, Any]]] = []
    for pipeline in (Pipeline(), Pipeline(extract_binary_content=False)):
        async with (
            open_node(port=None, attachment_reader=attachment_reader(extractor)) as node,
            open_store(Target(embedded=node.app)) as opened,
        ):
            report = await sync(source, opened, index=INDEX, settings=settings, extractor=extractor, pipeline=pipeline)
            assert report.status == "completed", report.error
            found.append(await stored(opened))
    return found[0], found[1]


async def test_the_pipeline_of_the_node_gives_the_same_body_for_the_whole_corpus(corpus: dict[str, Path]) -> None:
    files = {f"{number}-{path.name}": path.read_bytes() for number, path in enumerate(corpus.values())}
    secret = next(name for name in files if corpus["secret.pdf"].read_bytes() == files[name])
    more = [".eml", ".epub", ".ods", ".odp"]
    async with open_extractor(ExtractionSettings(engine="embedded", workers=2, more_extensions=more)) as extractor:
        piped, local = await both_ways(Shelf(files), extractor)
    assert not any(field.startswith("_attachment") for fields in piped.values() for field in fields)
    bodies = {name: fields.get("body") for name, fields in piped.items()}
    assert bodies == {name: fields.get("body") for name, fields in local.items()}
    assert {name for name, body in bodies.items() if not body} == {secret}
    assert "encrypted" in str(piped[secret]["_ingestion_errors"])


async def test_long_texts_are_as_long_both_ways(poison_settings: Settings) -> None:
    """The pipeline alone would cut at 100,000 characters."""
    files = {"long.txt": b"long words " * 50_000, "long.pdf": b"%PDF-1.4 " + b"long words " * 50_000}
    async with open_extractor(poison_settings(characters_max=300_000)) as extractor:
        settings = attrs.evolve(QUICK, attachment_characters_max=300_000)
        piped, local = await both_ways(Shelf(files), extractor, settings)
        for name in files:
            assert piped[name]["body"] == local[name]["body"]
            assert len(local[name]["body"]) in range(299_980, 300_001)
        by_itself, _ = await both_ways(Shelf(files), extractor, attrs.evolve(QUICK, attachment_characters_max=None))
    assert {len(fields["body"]) for fields in by_itself.values()} <= set(range(99_980, 100_001))


def test_one_setting_bounds_the_text_of_both_ways() -> None:
    settings = read_mapping({"callboard": {"text_extraction": {"characters": 4321}}}, {}).settings
    assert engine_settings(settings).attachment_characters_max == 4321
    assert SyncSettings().attachment_characters_max == ExtractionLimits().characters_max


@pytest.mark.integration
async def test_elasticsearch_takes_as_much_text_from_an_attachment(elasticsearch_url: str) -> None:
    name = f"extraction-{new_id()}"
    source = Shelf({"long.txt": b"long words " * 30_000, "short.txt": "Grüße aus Zürich".encode()})
    async with (
        open_extractor(ExtractionSettings(engine="plain")) as extractor,
        open_store(Target(elasticsearch_url)) as real,
    ):
        try:
            await real.client.ingest.put_pipeline(id=name, body=dict(PIPELINES[DEFAULT_PIPELINE]))
            bodies = []
            for way, extracts in (("piped", True), ("local", False)):
                index, pipeline = f"{name}-{way}", Pipeline(name=name, extract_binary_content=extracts)
                report = await sync(source, real, index=index, settings=QUICK, extractor=extractor, pipeline=pipeline)
                assert report.status == "completed", report.error
                await real.content.refresh(index)
                told = await real.client.search(index=index, query={"match_all": {}})
                bodies.append({hit["_id"]: hit["_source"] for hit in told["hits"]["hits"]})
            assert {one: fields["body"] for one, fields in bodies[0].items()} == {
                one: fields["body"] for one, fields in bodies[1].items()
            }
            assert len(bodies[0]["long.txt"]["body"]) == 329_999
            assert not any(field.startswith("_attachment") for fields in bodies[0].values() for field in fields)
        finally:
            for way in ("piped", "local"):
                await real.content.delete_index(f"{name}-{way}")
            await real.client.ingest.delete_pipeline(id=name)


async def test_mail_is_read_in_a_sync_once_its_extension_is_accepted(store: Store, corpus: dict[str, Path]) -> None:
    source = Shelf({"letter.eml": corpus[".eml"].read_bytes()})
    for more, expected in (((), None), ((".eml",), "naïve as they are")):
        settings = ExtractionSettings(engine="embedded", workers=1, more_extensions=more)
        async with open_extractor(settings) as extractor:
            report = await sync(source, store, index=INDEX, settings=REPEATING, extractor=extractor)
        assert (report.status, report.failed) == ("completed", 0)
        body = (await stored(store))["letter.eml"].get("body")
        assert body is None if expected is None else expected in body


async def test_cleaning_up_dead_letters_spares_the_quarantine(store: Store, poison_settings: Settings) -> None:
    source = Shelf({"poison.pdf": b"%PDF-1.4 CRASH"})
    source.listed = {"lost.txt": b"cannot be fetched"}
    async with open_extractor(poison_settings(seconds_max=5.0)) as extractor:
        await sync(source, store, index=INDEX, settings=QUICK, extractor=extractor)
    before = await letters_of(store)
    assert {one: letter["where"] for one, letter in before.items()} == {
        "poison.pdf": "quarantine",
        "lost.txt": "download",
    }
    # What a job does at its end, when nothing it read has failed.
    assert await DeadLetters(store, INDEX, job_id="the next").forget_resolved() == 1
    await store.content.refresh(DEAD_LETTERS_INDEX)
    assert await letters_of(store) == {"poison.pdf": before["poison.pdf"]}


class Unsized(Shelf):
    """Texts of unknown size; counts how many are read at once."""

    content_concurrency = 12
    reading = most = 0

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        self.reading += 1
        self.most = max(self.most, self.reading)

        async def chunks() -> AsyncIterator[bytes]:
            await trio.testing.wait_all_tasks_blocked(0.01)
            yield b"words"

        try:
            yield chunks()
        finally:
            self.reading -= 1


async def test_a_text_of_unknown_size_counts_as_a_mebibyte(store: Store) -> None:
    source = Unsized({f"{number}.txt": b"words" for number in range(12)})
    settings = attrs.evolve(QUICK, download_memory_size_bytes=12 * 2**20, download_size_bytes_max=None)
    async with open_extractor(ExtractionSettings(engine="plain")) as extractor:
        report = await sync(source, store, index=INDEX, settings=settings, extractor=extractor)
    assert (report.status, report.indexed) == ("completed", 12)
    # Three times a mebibyte each out of twelve.
    assert source.most == 4
