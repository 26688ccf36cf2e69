"""Names decide what is downloaded, contents decide how it is read."""

from __future__ import annotations

import pytest

from callboard.actors.extraction import DEFAULT_EXTENSIONS, extension_of, is_accepted
from callboard.actors.extraction.recognition import Kind, recognise


@pytest.mark.parametrize("extension", sorted(DEFAULT_EXTENSIONS))
def test_each_of_the_31_extensions_is_accepted_in_any_case(extension: str) -> None:
    assert is_accepted(f"folder.d/name{extension}")
    assert is_accepted(f"NAME{extension.upper()}")


@pytest.mark.parametrize(
    "name", ["", "README", "a.exe", "a.zip", "docx", "a.pdf.gz", "folder.pdf/file", "a.pdf ", "a."]
)
def test_other_names_are_refused(name: str) -> None:
    assert not is_accepted(name)


@pytest.mark.parametrize("written", ["yaml", ".yaml", "*.yaml", " .YAML "])
def test_a_setting_accepts_more(written: str) -> None:
    assert is_accepted("compose.YAML", [written])
    assert is_accepted("a.txt", [written])


def test_the_extension_is_that_of_the_last_part() -> None:
    assert extension_of("a.b/c.Tar.GZ") == ".gz"
    assert extension_of("C:\\files\\Letter.DOC") == ".doc"
    assert extension_of(".bashrc") == ".bashrc"


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"", "a.pdf", Kind.EMPTY),
        (b"%PDF-1.7", "a.txt", Kind.PDF),
        (b"\n\n%PDF-1.7", "a", Kind.PDF),
        (b"PK\x03\x04rest", "a.txt", Kind.ZIP),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.doc", Kind.COMPOUND),
        (b"{\\rtf1\\ansi}", "a.doc", Kind.RTF),
        (b"\x89PNG\r\n\x1a\n", "a.pdf", Kind.IMAGE),
        (b"\x1f\x8b\x08", "a.txt", Kind.ARCHIVE),
        (b"\x7fELF\x02", "a.sh", Kind.PROGRAM),
        (b"hello", "a.pdf", Kind.TEXT),
        (b"<!DOCTYPE html><p>x", "", Kind.MARKUP),
        (b"<html>x", "note.md", Kind.TEXT),
        (b"<p>x", "a.html", Kind.MARKUP),
        (b"\0\1\2\3" * 40, "a.txt", Kind.OTHER),
        ("grüße".encode("utf-16"), "a.txt", Kind.TEXT),
    ],
)
def test_contents_outrank_names(head: bytes, name: str, kind: Kind) -> None:
    assert recognise(head, name) is kind


LETTER = b"Received: from a by b;\r\n Tue, 24 Nov 2026\r\nFrom: jane@example.org\r\nSubject: hello\r\nX-Spam: no\r\n\r\nwords"


def test_a_letter_without_a_name_is_known_by_its_headers() -> None:
    assert recognise(LETTER) is Kind.OTHER
    assert recognise(LETTER.replace(b"\r\n", b"\n")) is Kind.OTHER
    assert recognise(LETTER, "note.txt") is Kind.TEXT
    assert recognise(b"Note: a list\nFrom: here\nTo: there\nwords") is Kind.TEXT
    assert recognise(b"From: me\nand so on") is Kind.TEXT
