"""What a file is: by its name for the gate, by its first bytes for the way it goes.

Names decide whether a file is worth downloading at all; contents decide how it is read, because names lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import PurePosixPath

DEFAULT_EXTENSIONS = frozenset(
    [
        ".txt",
        ".py",
        ".rst",
        ".html",
        ".markdown",
        ".json",
        ".xml",
        ".csv",
        ".md",
        ".ppt",
        ".rtf",
        ".docx",
        ".odt",
        ".xls",
        ".xlsx",
        ".rb",
        ".paper",
        ".sh",
        ".pptx",
        ".pdf",
        ".doc",
        ".aspx",
        ".xlsb",
        ".xlsm",
        ".tsv",
        ".svg",
        ".msg",
        ".potx",
        ".vsd",
        ".vsdx",
        ".vsdm",
    ]
)
"""The 31 extensions that are accepted unless a setting adds more."""
assert len(DEFAULT_EXTENSIONS) == 31

HEAD_BYTES = 8192
"""So many bytes are enough to recognise a file."""


class Kind(Enum):
    """How a file is read."""

    EMPTY = "empty"
    TEXT = "text"
    MARKUP = "markup"
    PDF = "pdf"
    RTF = "rtf"
    COMPOUND = "compound"
    """The container of old Office files, mail and Visio; encrypted new ones too."""
    ZIP = "zip"
    """Office Open XML, OpenDocument, EPUB, or a bare archive: its list of contents tells."""
    ARCHIVE = "archive"
    IMAGE = "image"
    MEDIA = "media"
    PROGRAM = "program"
    OTHER = "other"


_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind.COMPOUND),
    (b"{\\rtf", Kind.RTF),
    (b"\x1f\x8b", Kind.ARCHIVE),
    (b"BZh", Kind.ARCHIVE),
    (b"\xfd7zXZ\x00", Kind.ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", Kind.ARCHIVE),
    (b"Rar!\x1a\x07", Kind.ARCHIVE),
    (b"\x28\xb5\x2f\xfd", Kind.ARCHIVE),
    (b"\x89PNG\r\n\x1a\n", Kind.IMAGE),
    (b"\xff\xd8\xff", Kind.IMAGE),
    (b"GIF87a", Kind.IMAGE),
    (b"GIF89a", Kind.IMAGE),
    (b"II*\x00", Kind.IMAGE),
    (b"MM\x00*", Kind.IMAGE),
    (b"ID3", Kind.MEDIA),
    (b"OggS", Kind.MEDIA),
    (b"fLaC", Kind.MEDIA),
    (b"\x1aE\xdf\xa3", Kind.MEDIA),
    (b"\x7fELF", Kind.PROGRAM),
    (b"SQLite format 3\x00", Kind.OTHER),
)

_MARKUP_EXTENSIONS = frozenset({".html", ".htm", ".xhtml", ".xml", ".svg", ".aspx", ".rss", ".atom"})
_MARKUP_START = re.compile(rb"\s*(?:<\?xml\b|<!doctype\s+html\b|<html\b|<svg\b)", re.IGNORECASE)
# Extensions whose text is shown as written, even where it begins like markup (a template, a note about HTML).
_PROSE_EXTENSIONS = frozenset(
    {".txt", ".md", ".markdown", ".rst", ".py", ".rb", ".sh", ".csv", ".tsv", ".json", ".paper"}
)
_MAIL_EXTENSIONS = frozenset({".eml", ".mbox", ".mht", ".mhtml"})
_MAIL_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]{1,60}):[ \t]?[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*\r?\n")
_TELLING_HEADERS = frozenset({b"from", b"to", b"subject", b"date", b"message-id", b"mime-version", b"received"})
_EXTENSION = re.compile(r"\.[a-z0-9]{1,16}\Z")


def extension_of(name: str) -> str:
    """The extension in lower case with its dot, from the last dot of the file name; empty if there is none."""
    last = PurePosixPath(name.replace("\\", "/")).name
    found = _EXTENSION.search(last.lower())
    return found.group() if found else ""


def is_accepted(name: str, more_extensions: Iterable[str] = ()) -> bool:
    """Whether a file of this name is worth downloading; compared without regard to case."""
    extension = extension_of(name)
    if not extension:
        return False
    return extension in DEFAULT_EXTENSIONS or extension in {normal_extension(more) for more in more_extensions}


def normal_extension(written: str) -> str:
    """`YAML`, `.yaml` and `*.yaml` all mean `.yaml`."""
    return "." + written.strip().lower().lstrip("*").lstrip(".")


def recognise(head: bytes, name: str = "") -> Kind:
    """Say what a file is by its first bytes (`HEAD_BYTES` are enough); its name only tells kinds of text apart.

    `Kind.TEXT` means that nothing speaks against text; the encoding is another question.
    """
    if not head:
        return Kind.EMPTY
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if b"%PDF-" in head[:1024]:
        return Kind.PDF
    if head[4:8] == b"ftyp" or (head.startswith(b"RIFF") and head[8:12] in (b"WAVE", b"AVI ")):
        return Kind.MEDIA
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Kind.IMAGE
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return Kind.IMAGE
    extension = extension_of(name)
    if extension in _MARKUP_EXTENSIONS:
        return Kind.MARKUP
    if extension in _MAIL_EXTENSIONS or (not extension and _is_mail(head)):
        return Kind.OTHER
    if extension not in _PROSE_EXTENSIONS and _MARKUP_START.match(head.removeprefix(b"\xef\xbb\xbf")):
        return Kind.MARKUP
    if not _may_be_text(head):
        return Kind.OTHER
    return Kind.TEXT


def _is_mail(head: bytes) -> bool:
    """Whether it begins with the headers of a letter, at least three of which every letter has."""
    seen: set[bytes] = set()
    at = 0
    while found := _MAIL_HEADER.match(head, at):
        seen.add(found.group(1).lower())
        at = found.end()
    return len(seen & _TELLING_HEADERS) >= 3


_CONTROLS = bytes(range(9))


def _may_be_text(head: bytes) -> bool:
    from .charsets import detect

    if b"\0" not in head and len(head.translate(None, _CONTROLS)) == len(head):
        return True
    return detect(head) is not None
