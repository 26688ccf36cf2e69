"""Every encoding is read as what it is, in whatever pieces it comes."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from callboard.actors.extraction import ExtractionLimits, Status
from callboard.actors.extraction.charsets import declared_charset, detect
from callboard.actors.extraction.plain_text import read_plain_text

from .conftest import chunks_of

GERMAN = "Die Würde des Menschen ist unantastbar. Sie zu achten und zu schützen ist Verpflichtung. „Zitat“ – 5 €\n"
RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.\n"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\n"
CHINESE = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。\n"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n"
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.\n"
CZECH = "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím.\n"

POLISH = "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem.\n"
TURKISH = "Tüm insanlar özgür, onurlu ve haklar bakımından eşit olarak doğarlar. Akıl ve vicdan sahibidirler.\n"
ITALIAN = (
    "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti: perché così può più è là, già di qua.\n" * 3
)

LEGACY = [
    ("cp1252", GERMAN),
    ("cp1251", RUSSIAN),
    ("koi8_r", RUSSIAN),
    ("shift_jis", JAPANESE),
    ("gb18030", CHINESE),
    ("euc_kr", KOREAN),
    ("cp1253", GREEK),
    ("cp1250", CZECH),
    ("iso8859_2", POLISH * 3),
    ("cp1254", TURKISH),
    ("cp1252", ITALIAN),
]


async def read(content: bytes, media_type: str | None = None, piece_bytes: int = 4096) -> str:
    first, rest = content[:piece_bytes], content[piece_bytes:]
    found = await read_plain_text(
        first, chunks_of(rest, piece_bytes), ExtractionLimits(), media_type, complete=not rest
    )
    assert found.is_readable, found
    return found.text


@pytest.mark.parametrize(
    ("encoding", "text"), LEGACY, ids=[f"{encoding}-{number}" for number, (encoding, _) in enumerate(LEGACY)]
)
async def test_a_legacy_encoding_is_told_by_its_letters(encoding: str, text: str) -> None:
    assert await read(text.encode(encoding)) == text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("text", [GERMAN, CZECH * 3, "plain ascii, and long enough to see where the zeros stand\n"])
async def test_unicode_is_read_with_and_without_a_mark(encoding: str, text: str) -> None:
    assert await read(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "utf-32-be"])
async def test_unicode_without_a_single_latin_letter_is_read(encoding: str) -> None:
    assert await read((RUSSIAN * 3).encode(encoding)) == RUSSIAN * 3


@pytest.mark.parametrize("word", ["café", "naïve", "Straße", "déjà vu, très", "5 €", "“quoted”"])
async def test_a_short_western_text_is_windows_1252(word: str) -> None:
    assert await read(word.encode("cp1252")) == word


async def test_latin_1_amid_much_ascii_is_read() -> None:
    text = "nothing to see here\n" * 500 + "café\n"
    assert await read(text.encode("latin-1")) == text


async def test_a_stray_byte_in_utf_8_spoils_only_itself() -> None:
    content = "über\n".encode() * 40_000 + b"caf\xe9\n" + "über\n".encode()
    text = await read(content)
    assert text == "über\n" * 40_000 + "café\nüber\n"


async def test_the_declared_charset_decides_what_statistics_cannot() -> None:
    assert await read("żółw".encode("iso8859_2"), "text/plain; charset=ISO-8859-2") == "żółw"


async def test_a_declaration_that_is_wrong_is_not_believed() -> None:
    assert await read(GERMAN.encode(), "text/plain; charset=iso-8859-1") == GERMAN


def test_an_unknown_charset_is_no_declaration() -> None:
    assert declared_charset("text/plain; charset=klingon-1") is None
    assert declared_charset("text/plain; charset=UTF8") == "utf-8"
    assert declared_charset(None) is None


def test_bytes_that_are_no_text_have_no_encoding() -> None:
    assert detect(bytes(range(256)) * 8) is None
    assert detect(codecs.BOM_UTF8 + b"x") == "utf-8-sig"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), st.integers(1, 7))
@example("€", 1)
async def test_utf_8_survives_any_cutting(text: str, piece_bytes: int) -> None:
    content = text.encode()
    found = await read_plain_text(content[:64], chunks_of(content[64:], piece_bytes), ExtractionLimits())
    if found.status is Status.TEXT and found.metadata["Content-Encoding"] == "utf-8":
        assert found.text == text


@given(st.binary(max_size=2000), st.integers(1, 100))
async def test_no_bytes_raise(content: bytes, piece_bytes: int) -> None:
    found = await read_plain_text(content[:100], chunks_of(content[100:], piece_bytes), ExtractionLimits())
    found.text.encode("utf-8")
