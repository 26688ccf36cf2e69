"""Small files are read many at once, and say just what they say when each is read alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.extraction import ExtractionLimits, ExtractionSettings, open_extractor
from callboard.actors.sync import list_dead_letters, sync
from callboard.node import open_node
from callboard.protocol.store import Store, Target, open_store
from callboard.sources.dir import Directory, DirectoryConfig
from callboard.sources.source import ContentRef

from .conftest import chunks_of

INDEX = "small"
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")),
    st.text(st.characters(max_codepoint=127), max_size=300).map(str.encode),
    st.text(max_size=60).map(lambda text: text.encode("utf-16", "replace")),
    st.text(max_size=60).map(lambda text: text.encode("utf-8-sig", "replace")),
)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as opened:
        yield opened


@given(CONTENTS, st.sampled_from(["a.txt", "a.csv", "a.html", "a.py", "a"]), st.sampled_from([None, "text/plain"]))
async def test_at_once_or_streamed_is_the_same(content: bytes, name: str, media_type: str | None) -> None:
    settings = ExtractionSettings(engine="plain", limits=ExtractionLimits(characters_max=200))
    async with open_extractor(settings) as extractor:
        at_once = extractor.extract_at_once(name, content, media_type)
        streamed = await extractor.extract(name, chunks_of(content), media_type)
    if at_once is not None:
        said = (at_once.status, at_once.text, at_once.metadata, at_once.size_bytes)
        assert said == (streamed.status, streamed.text, streamed.metadata, streamed.size_bytes)


async def test_plain_texts_take_the_short_way() -> None:
    async with open_extractor(ExtractionSettings(engine="plain")) as extractor:
        for content in (b"plain words", "Grüße aus Zürich 日本語".encode(), b"  \n "):
            assert extractor.extract_at_once("a.txt", content) is not None
        for content in (b"%PDF-1.4", b"PK\3\4", "Grüße".encode("cp1252"), b"a\0b", b"x" * 70_000):
            assert extractor.extract_at_once("a.txt", content) is None


async def test_a_source_gives_many_files_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "grown.txt").write_bytes(b"x" * 70_000)
    (tmp_path / "folder.txt").mkdir()
    source = Directory(DirectoryConfig(directory=str(tmp_path)))
    names = ["a.txt", "gone.txt", "empty.txt", "grown.txt", "folder.txt"]
    contents = [ContentRef(name, {"path": str(tmp_path / name)}) for name in names]
    assert await source.fetch_small(contents) == [b"alpha", None, b"", None, None]


class Careless(Directory):
    """Some files vanish, or grow, between being listed and being read."""

    async def fetch_small(self, contents: Any) -> list[bytes | None]:
        for content in contents:
            path = Path(content.data["path"])
            if content.name.startswith("gone"):
                path.unlink()  # noqa: ASYNC240
            elif content.name.startswith("grown"):
                path.write_text("more " * 20_000)  # noqa: ASYNC240
        return await super().fetch_small(contents)


async def test_every_file_arrives_whichever_way_it_takes(tmp_path: Path, store: Store) -> None:
    expected: dict[str, str | None] = {}
    for number in range(150):
        (tmp_path / f"text-{number}.txt").write_text(f"text {number}")
        expected[f"text-{number}.txt"] = f"text {number}"
    (tmp_path / "old.txt").write_bytes("Grüße aus Göteborg, schöne".encode("cp1252"))
    (tmp_path / "page.html").write_text("<p>seen <b>by people</b></p>")
    (tmp_path / "large.txt").write_text("word " * 30_000)
    (tmp_path / "gone.txt").write_text("soon gone")
    (tmp_path / "grown.txt").write_text("soon more")
    (tmp_path / "empty.txt").write_text("")
    expected |= {
        "old.txt": "Grüße aus Göteborg, schöne",
        "large.txt": ("word " * 30_000).strip(),
        "gone.txt": None,
        "grown.txt": ("more " * 20_000).strip(),
        "empty.txt": None,
    }
    source = Careless(DirectoryConfig(directory=str(tmp_path)))
    async with open_extractor(ExtractionSettings(engine="plain")) as extractor:
        report = await sync(source, store, index=INDEX, extractor=extractor)
    assert (report.status, report.failed) == ("completed", 1)
    await store.content.refresh(INDEX)
    told = await store.client.search(index=INDEX, size=1000, query={"match_all": {}})
    bodies = {Path(hit["_source"]["path"]).name: hit["_source"].get("body") for hit in told["hits"]["hits"]}
    assert "by people" in bodies.pop("page.html")
    assert {name: (body or "").strip() or None for name, body in bodies.items()} == expected
    letters = [one async for one in list_dead_letters(store, index=INDEX)]
    assert [one["where"] for one in letters] == ["download"]
    assert "gone.txt" in letters[0]["why"]
