"""Files made by real programs give their text, whole or broken, and the same text as Apache Tika's."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from callboard.actors.extraction import (
    Extraction,
    ExtractionLimits,
    ExtractionSettings,
    Extractor,
    Status,
    open_extractor,
)

from .conftest import CELLS, WORDS, chunks_of

TEXTS = [
    ".docx",
    "office.docx",
    ".odt",
    ".rtf",
    ".doc",
    ".pdf",
    ".html",
    ".epub",
    ".pptx",
    ".potx",
    ".ppt",
    ".odp",
    ".md",
]
TABLES = [".xlsx", ".xlsm", ".xls", ".ods", ".csv"]
# A PDF holds glyphs: on a machine without a font for these, LibreOffice prints the same empty box for each.
UNPRINTABLE = {"日本語"}
LIMITS = ExtractionLimits(seconds_max=30)


@pytest.fixture
async def embedded() -> AsyncIterator[Extractor]:
    async with open_extractor(ExtractionSettings(engine="embedded", workers=1, limits=LIMITS)) as extractor:
        yield extractor


async def read(extractor: Extractor, path: Path, content: bytes | None = None) -> Extraction:
    return await extractor.extract(path.name, chunks_of(path.read_bytes() if content is None else content))  # noqa: ASYNC240


def words(text: str) -> list[str]:
    return re.findall(r"\w+|€", text)


def without_unprintable(found: list[str]) -> list[str]:
    return [word for word in found if not set(word) <= set("".join(UNPRINTABLE))]


async def test_every_format_of_real_programs_gives_its_words(embedded: Extractor, corpus: dict[str, Path]) -> None:
    for kind in TEXTS + TABLES:
        found = await read(embedded, corpus[kind])
        assert found.status is Status.TEXT, (kind, found.detail)
        expected = [word for word in (CELLS if kind in TABLES else WORDS) if kind != ".pdf" or word not in UNPRINTABLE]
        missing = [word for word in expected if word not in found.text]
        assert not missing, (kind, missing, found.text)


async def test_a_name_that_lies_or_says_nothing_does_not_matter(embedded: Extractor, corpus: dict[str, Path]) -> None:
    for kind in ("office.docx", ".pdf", ".doc", ".rtf", ".xlsx"):
        content = corpus[kind].read_bytes()
        for name in ("nothing", "wrong.txt"):
            found = await embedded.extract(name, chunks_of(content))
            assert found.status is Status.TEXT, (kind, name, found.detail)
            assert "Zürich" in found.text


async def test_the_documents_own_properties_are_kept(embedded: Extractor, corpus: dict[str, Path]) -> None:
    for kind in (".docx", "office.docx", ".pdf", ".odt"):
        found = await read(embedded, corpus[kind])
        assert found.metadata.get("dc:title") == "The quarterly report", kind
        assert found.metadata.get("dc:creator") == "Jane Doe", kind


async def test_a_password_is_reported(embedded: Extractor, corpus: dict[str, Path]) -> None:
    found = await read(embedded, corpus["secret.pdf"])
    assert found.status is Status.ENCRYPTED
    assert found.keeps_earlier_text


@pytest.mark.parametrize("kind", ["plain", "html", "alternative", "attached", "forwarded", "latin-1"])
async def test_mail_is_read(embedded: Extractor, kind: str) -> None:
    found = await embedded.extract("mail.eml", chunks_of(_mail(kind)))
    assert found.status is Status.TEXT, found.detail
    assert "naïve as they are" in found.text
    assert any("Grüße aus Zürich" in value for value in found.metadata.values())
    assert "<p>" not in found.text


def _mail(kind: str) -> bytes:
    message, sentence = EmailMessage(), "The minutes are attached, naïve as they are."
    message["From"], message["To"], message["Subject"] = "jane@example.org", "joe@example.org", "Grüße aus Zürich"
    match kind:
        case "html":
            message.set_content(f"<html><body><p>{sentence}</p></body></html>", subtype="html")
        case "latin-1":
            message.set_content(sentence, charset="iso-8859-1", cte="quoted-printable")
        case _:
            message.set_content(sentence, cte="base64")
    if kind == "alternative":
        message.add_alternative(f"<html><body><p>{sentence}</p></body></html>", subtype="html")
    elif kind == "attached":
        message.add_attachment(b"\x89PNG\r\n\x1a\n", maintype="image", subtype="png", filename="Bild.png")
    elif kind == "forwarded":
        outer = EmailMessage()
        outer["From"], outer["To"], outer["Subject"] = "joe@example.org", "jane@example.org", "WG: Grüße aus Zürich"
        outer.set_content("See below.")
        outer.add_attachment(message)
        message = outer
    return bytes(message)


DRAWN = {
    "cairo.pdf": ("Überschrift", "Zürich", "Göteborg", "naïve", "€", "second page"),
    ".vsdx": ("Anfang in Zürich", "Check the thunder sheet"),
    ".msg": ("Grüße aus Zürich", "joe@example.org", "naïve as they are", "€"),
    "excel.xlsb": ("This is an example spreadsheet", "Sheet3"),
    "macro.xlsm": ("This is a blank worksheet", "a macro is about to be created"),
    ".vsd": ("I am a test view", "Some random text, on a page"),
    ".vsdm": ("This is a test.", "Nothing fancy."),
}
# Tika passes over cells of one and fails on the other; they are read by their records.
BEYOND_TIKA = {
    ".xlsb": ("Cities", *CELLS, "0.25", "804237"),
    "various.xlsb": ("This is a string", "13.1211231321", "tika_link", "#NAME?", "merchant1"),
}


async def test_drawings_letters_and_binary_tables_are_read(embedded: Extractor, corpus: dict[str, Path]) -> None:
    for kind, expected in (DRAWN | BEYOND_TIKA).items():
        found = await read(embedded, corpus[kind])
        assert found.status is Status.TEXT, (kind, found.detail)
        missing = [word for word in expected if word not in found.text]
        assert not missing, (kind, missing, found.text)


async def test_truncated_files_end_in_a_status_and_spare_the_engine(
    embedded: Extractor, corpus: dict[str, Path]
) -> None:
    for kind, path in corpus.items():
        content = path.read_bytes()
        for share in (0.02, 0.3, 0.7, 0.98):
            found = await read(embedded, path, content[: int(share * len(content))])
            # Of a drawing or a letter cut short, little is left that says what it was.
            fitting = {Status.TEXT, Status.EMPTY, Status.CORRUPT, Status.ENCRYPTED}
            assert found.status in fitting, (kind, share, found)
    assert (await read(embedded, corpus[".pdf"])).status is Status.TEXT


@pytest.mark.parametrize("seed", range(3))
async def test_fuzzed_files_end_in_a_status_and_spare_the_engine(
    embedded: Extractor, corpus: dict[str, Path], seed: int
) -> None:
    chance = random.Random(seed)
    for kind, path in corpus.items():
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 20, 500])):
            content[chance.randrange(len(content))] = chance.randrange(256)
        found = await read(embedded, path, bytes(content))
        assert found.is_readable or found.detail, (kind, found)
    assert (await read(embedded, corpus[".pdf"])).status is Status.TEXT


async def test_a_docx_of_a_million_paragraphs_gives_its_beginning_in_bounded_memory(
    corpus: dict[str, Path], tmp_path: Path
) -> None:
    content = _long_docx(corpus["office.docx"], tmp_path / "long.docx", 1_000_000)
    limits = ExtractionLimits(memory_bytes_max=400 * 2**20, seconds_max=30, characters_max=50_000)
    async with open_extractor(ExtractionSettings(engine="embedded", workers=1, limits=limits)) as extractor:
        found = await extractor.extract("long.docx", chunks_of(content))
    assert found.status is Status.TRUNCATED, found.detail
    assert found.text.startswith("again and again")


def _long_docx(sample: Path, target: Path, paragraphs: int) -> bytes:
    import zipfile

    with zipfile.ZipFile(sample) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            part = source.read(name)
            if name == "word/document.xml":
                at = part.index(b"<w:body>") + len(b"<w:body>")
                part = part[:at] + b"<w:p><w:r><w:t>again and again</w:t></w:r></w:p>" * paragraphs + part[at:]
            archive.writestr(name, part)
    return target.read_bytes()


async def test_the_text_is_that_of_tika(corpus: dict[str, Path], tika_jar: Path) -> None:
    """Word for word, after leaving out what only Tika's HTTP face adds: the title before the text, page footers of tables."""
    with_tika = ExtractionSettings(engine="tika", tika_jar=tika_jar, workers=1, limits=LIMITS)
    with_embedded = ExtractionSettings(engine="embedded", workers=1, limits=LIMITS)
    async with open_extractor(with_tika) as tika, open_extractor(with_embedded) as embedded:
        for kind in [*TEXTS, *TABLES, *DRAWN]:
            theirs, ours = await read(tika, corpus[kind]), await read(embedded, corpus[kind])
            assert theirs.status is ours.status is Status.TEXT, (kind, theirs.detail, ours.detail)
            theirs_words, ours_words = words(theirs.text), words(ours.text)
            title = words(theirs.metadata.get("dc:title", ""))
            has_title = bool(title) and theirs_words[: len(title)] == title
            if has_title and (theirs_words[len(title) : 2 * len(title)] == title or ours_words[: len(title)] != title):
                theirs_words = theirs_words[len(title) :]
            if kind in (*TABLES, "excel.xlsb", "macro.xlsm"):
                theirs_words = theirs_words[: len(ours_words)]
            if kind in (".docx", ".epub", ".pptx", ".potx", ".ppt", ".odp"):
                # The docx of pandoc is read by our own reader; in the others newer versions of Tika repeat titles and add a
                # table of contents. All words must be there, whatever their order.
                assert not Counter(ours_words) - Counter(theirs_words), kind
                assert set(ours_words) >= set(theirs_words) - {"EPUB", "nav", "xhtml"}, kind
                continue
            if kind == ".pdf":
                theirs_words, ours_words = without_unprintable(theirs_words), without_unprintable(ours_words)
            assert theirs_words == ours_words, kind


async def test_tika_reports_passwords_and_corruption_and_survives(corpus: dict[str, Path], tika_jar: Path) -> None:
    settings = ExtractionSettings(engine="tika", tika_jar=tika_jar, workers=1, limits=LIMITS)
    async with open_extractor(settings) as tika:
        assert (await read(tika, corpus["secret.pdf"])).status is Status.ENCRYPTED
        # Cells that it leaves out are flagged.
        table = await read(tika, corpus[".xlsb"])
        assert (table.status, "443037" in table.text, "cells" in table.detail) == (Status.TRUNCATED, False, True)
        assert (await read(tika, corpus["excel.xlsb"])).status is Status.TEXT
        assert (await read(tika, corpus[".pdf"], b"%PDF-1.4\nrubbish")).status is Status.CORRUPT
        assert (await read(tika, corpus[".pdf"])).status is Status.TEXT
