"""Packed files that would burst, nest or lie are refused before an engine unpacks them."""

from __future__ import annotations

import errno
import io
import random
import struct
import zipfile
from collections.abc import Mapping

import pytest

from callboard.actors.extraction import ExtractionLimits, ExtractionSettings, Status, open_extractor
from callboard.actors.extraction.archives import Inspection, inspect_zip

from .conftest import chunks_of

TYPES = "[Content_Types].xml"


def packed(entries: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target.getvalue()


def inspect(content: bytes, **limits: int) -> Inspection:
    return inspect_zip(io.BytesIO(content), len(content), ExtractionLimits(**limits))


def test_a_harmless_file_passes_and_is_named() -> None:
    assert inspect(packed({TYPES: b"<x/>", "word/document.xml": b"<x/>"})) == Inspection("office_open_xml")
    assert inspect(packed({"mimetype": b"application/vnd.oasis.opendocument.text"})).contents == "open_document"
    assert inspect(packed({"mimetype": b"application/epub+zip"})).contents == "epub"
    assert inspect(packed({"a.txt": b"x"})).contents == "archive"


def test_what_unpacks_beyond_the_limit_is_too_large() -> None:
    found = inspect(packed({TYPES: b"", "word/document.xml": bytes(2_000_000)}), unpacked_bytes_max=1_000_000)
    assert found.refused is Status.TOO_LARGE
    assert "1,000,000" in found.detail


def test_many_small_entries_count_together() -> None:
    found = inspect(packed({f"{number}.xml": bytes(2_000) for number in range(600)}), unpacked_bytes_max=1_000_000)
    assert found.refused is Status.TOO_LARGE


def test_a_thousandfold_file_is_too_large_below_the_limit() -> None:
    content = packed({TYPES: b"", "word/document.xml": bytes(100 * 2**20)})
    assert inspect(content).refused is Status.TOO_LARGE


def test_nesting_has_an_end() -> None:
    content = packed({"a.txt": b"x"})
    for depth in range(8):
        content = packed({f"{depth}.zip": content, TYPES: b""})
    assert inspect(content).refused is Status.TOO_LARGE
    assert "deep" in inspect(content).detail
    assert inspect(content, nesting_max=8).refused is None


def test_a_bomb_inside_a_file_inside_is_found() -> None:
    bomb = packed({"zeros": bytes(30 * 2**20)})
    content = packed({TYPES: b"", **{f"word/embeddings/{number}.zip": bomb for number in range(20)}})
    assert len(content) < 1_000_000
    assert inspect(content, unpacked_bytes_max=100 * 2**20).refused is Status.TOO_LARGE


@pytest.mark.parametrize(
    "name", ["table.xlsb", "drawing.vsdm", "slides.ppsx", "letter.dotx", "picture.png", "oleObject1.bin"]
)
def test_what_is_packed_inside_is_found_by_its_content(name: str) -> None:
    bomb = packed({"zeros": bytes(30 * 2**20)})
    content = packed({TYPES: b"", f"word/embeddings/{name}": bomb})
    assert inspect(content, unpacked_bytes_max=20 * 2**20).refused is Status.TOO_LARGE
    assert inspect(content).refused is None


def test_a_packed_file_inside_may_be_large_and_is_looked_into_all_the_same() -> None:
    bomb = stored({"filling": random.Random(7).randbytes(40 * 2**20), **packed_bombs(3)})
    content = stored({TYPES: b"", "word/embeddings/large.docx": bomb})
    assert inspect(content, unpacked_bytes_max=120 * 2**20).refused is Status.TOO_LARGE
    assert inspect(content).refused is None
    harmless = stored({TYPES: b"", "word/embeddings/large.docx": stored({"filling": bytes(40 * 2**20)})})
    assert inspect(harmless, unpacked_bytes_max=120 * 2**20).refused is None


def packed_bombs(count: int) -> dict[str, bytes]:
    return {f"{number}.zip": packed({"zeros": bytes(30 * 2**20)}) for number in range(count)}


def stored(entries: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target.getvalue()


def test_a_packed_file_inside_that_is_broken_leaves_the_rest_readable() -> None:
    inner = packed({"a.xml": bytes(range(256)) * 40})
    for broken in (inner[: len(inner) // 2], b"PK\x03\x04" + bytes(100)):
        content = packed({TYPES: b"", "word/embeddings/broken.docx": broken})
        assert inspect(content) == Inspection("office_open_xml")
    content = bytearray(packed({TYPES: b"", "word/embeddings/broken.docx": inner}))
    at = content.index(b"word/embeddings/broken.docx") + 40
    content[at : at + 8] = b"\xff" * 8
    assert inspect(bytes(content)).refused in (None, Status.CORRUPT)


def test_no_room_for_temporary_files_is_not_the_files_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda size: Full())
    found = inspect(packed({TYPES: b"", "word/embeddings/a.docx": packed({"a.xml": b"x" * 100})}))
    assert found.refused is Status.FAILED
    assert "room" in found.detail


def test_a_password_is_seen() -> None:
    content = bytearray(packed({TYPES: b"x" * 100}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(mark) + offset
        struct.pack_into("<H", content, at, 1)
    assert inspect(bytes(content)).refused is Status.ENCRYPTED


@pytest.mark.parametrize("kept", [4, 10, 100, 0.5, 0.99])
def test_a_truncated_file_is_corrupt(kept: float) -> None:
    content = packed({TYPES: b"x", "word/document.xml": bytes(range(256)) * 40})
    length = int(kept if kept >= 1 else kept * len(content))
    assert inspect(content[:length]).refused is Status.CORRUPT


async def test_the_extractor_refuses_before_any_worker_is_started() -> None:
    settings = ExtractionSettings(engine="embedded", worker_command=["/does/not/exist"])
    bomb = packed({TYPES: b"", "word/document.xml": bytes(100 * 2**20)})
    async with open_extractor(settings) as extractor:
        found = await extractor.extract("a.docx", chunks_of(bomb))
        archive = await extractor.extract("a.zip", chunks_of(packed({"a.txt": b"x"})))
        engine = await extractor.extract("a.docx", chunks_of(packed({TYPES: b"", "word/document.xml": b"<x/>"})))
    assert found.status is Status.TOO_LARGE
    assert archive.status is Status.UNSUPPORTED
    assert engine.status is Status.FAILED
    assert "cannot be started" in engine.detail
