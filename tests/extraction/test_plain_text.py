"""Plain text is cut at the limit, in bounded memory, and no more of a stream is read than that takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import aclosing

from callboard.actors.extraction import ExtractionLimits, ExtractionSettings, Status, open_extractor

from .conftest import chunks_of

PLAIN = ExtractionSettings(engine="plain")


async def test_text_is_cut_at_the_limit_and_flagged() -> None:
    settings = ExtractionSettings(engine="plain", limits=ExtractionLimits(characters_max=100))
    async with open_extractor(settings) as extractor:
        found = await extractor.extract("a.txt", chunks_of("ä".encode() * 101, 7))
        fits = await extractor.extract("a.txt", chunks_of("ä".encode() * 100, 7))
    assert (found.status, found.text) == (Status.TRUNCATED, "ä" * 100)
    assert "100" in found.detail
    assert (fits.status, fits.text) == (Status.TEXT, "ä" * 100)


async def test_gigabytes_of_text_cost_no_more_than_the_limit() -> None:
    sent_bytes = 0

    async def gigabytes() -> AsyncGenerator[bytes, None]:
        nonlocal sent_bytes
        for _ in range(4 * 16 * 1024):
            sent_bytes += 65536
            yield b"one line of a very long log file" * 2048

    async with open_extractor(PLAIN) as extractor:
        tracemalloc.start()
        async with aclosing(gigabytes()) as chunks:
            found = await extractor.extract("huge.log", chunks)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found.status is Status.TRUNCATED
    assert len(found.text) == 1_000_000
    assert sent_bytes < 2_000_000
    assert peak_bytes < 16_000_000


async def test_a_text_beyond_the_byte_limit_keeps_its_beginning() -> None:
    settings = ExtractionSettings(engine="plain", limits=ExtractionLimits(size_bytes_max=1000))
    async with open_extractor(settings) as extractor:
        found = await extractor.extract("a.txt", chunks_of(b"x" * 5000, 300))
    assert found.status is Status.TRUNCATED
    assert found.text == "x" * 1000


async def test_anything_else_beyond_the_byte_limit_is_too_large_and_not_read_on() -> None:
    sent = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        yield b"%PDF-1.4"
        while True:
            sent += 1
            yield b"x" * 1000

    settings = ExtractionSettings(engine="plain", limits=ExtractionLimits(size_bytes_max=20_000))
    async with open_extractor(settings) as extractor, aclosing(endless()) as chunks:
        found = await extractor.extract("a.pdf", chunks)
    assert found.status is Status.TOO_LARGE
    assert "20,000" in found.detail
    assert sent <= 20


async def test_empty_and_blank_files_are_empty() -> None:
    async with open_extractor(PLAIN) as extractor:
        for content in (b"", b" \n\t\n", b"\xef\xbb\xbf"):
            found = await extractor.extract("a.txt", chunks_of(content))
            assert (found.status, found.text) == (Status.EMPTY, ""), content
            assert not found.keeps_earlier_text


async def test_without_an_engine_office_files_say_what_to_install() -> None:
    async with open_extractor(PLAIN) as extractor:
        found = await extractor.extract("a.pdf", chunks_of(b"%PDF-1.4 ..."))
    assert found.status is Status.UNSUPPORTED
    assert "pip install" in found.detail
    assert found.keeps_earlier_text


async def test_without_an_engine_markup_is_read_as_a_person_would() -> None:
    page = (
        '<html><head><meta charset="iso-8859-1"><title>A &amp; B</title><style>p {}</style></head>'
        "<body><p>caf\xe9</p><script>var x</script><ul><li>one<li>two</ul></body></html>"
    ).encode("latin-1")
    async with open_extractor(PLAIN) as extractor:
        found = await extractor.extract("a.html", chunks_of(page))
    assert found.text.split() == ["A", "&", "B", "café", "one", "two"]
    assert found.metadata["dc:title"] == "A & B"


async def test_what_the_stream_raises_comes_out() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"x" * 10
        raise ConnectionResetError("gone")

    async with open_extractor(PLAIN) as extractor:
        try:
            await extractor.extract("a.txt", broken())
        except ConnectionResetError as error:
            assert str(error) == "gone"
        else:
            raise AssertionError("the error was swallowed")
