"""Looks into zip-based files before an engine unpacks them: what are they, and would they burst?

Only lists of contents are read, and packed files inside packed files as far as the nesting limit; those are unpacked to a temporary
file, within the limit of what a file may unpack to. Sizes in a list may lie; then the memory limit of the worker process is what holds.
"""

from __future__ import annotations

import errno
import lzma
import shutil
import tempfile
import zipfile
import zlib
from typing import IO, Literal, TypeAlias

import attrs

from .results import ExtractionLimits, Status

Contents: TypeAlias = Literal["office_open_xml", "open_document", "epub", "archive"]

_INNER_MEMORY_BYTES = 8 * 2**20
"""Of a packed file inside a packed file so much lies in memory, the rest on the disk."""
_PIECE_BYTES = 1 << 20
_SMALLEST_ZIP_BYTES = 22
_ZIP = b"PK\x03\x04"
_DOUBTFUL_RATIO = 1000
"""XML packs to a tenth or a fiftieth; ten thousandfold is made by somebody."""
_RATIO_COUNTS_FROM_BYTES = 64 * 2**20


@attrs.frozen
class Inspection:
    """What is in a zip-based file, and whether it may be given to an engine."""

    contents: Contents
    refused: Status | None = None
    detail: str = ""


@attrs.define
class _Tally:
    unpacked_bytes: int = 0
    entries: int = 0


class _Refused(Exception):
    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def inspect_zip(file: IO[bytes], size_bytes: int, limits: ExtractionLimits) -> Inspection:
    """Look into an open file that begins like a zip. Blocks for as long as its lists of contents take; call it in a thread."""
    contents: Contents = "archive"
    try:
        with zipfile.ZipFile(file) as archive:
            contents = _contents(archive)
            _look(archive, limits, _Tally(), depth=0, packed_bytes=size_bytes)
    except _Refused as refused:
        return Inspection(contents, refused.status, refused.detail)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        ValueError,
        OSError,
        EOFError,
        NotImplementedError,
    ) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return Inspection(contents, Status.FAILED, "There is no room for temporary files; make some.")
        return Inspection(contents, Status.CORRUPT, f"It begins like a zip file and cannot be read as one: {error}.")
    return Inspection(contents)


def _contents(archive: zipfile.ZipFile) -> Contents:
    names = set(archive.namelist())
    if "[Content_Types].xml" in names or "[content_types].xml" in names:
        return "office_open_xml"
    if "mimetype" in names:
        with archive.open("mimetype") as entry:
            media_type = entry.read(200)
        if media_type.startswith(b"application/vnd.oasis.opendocument"):
            return "open_document"
        if media_type.startswith(b"application/epub"):
            return "epub"
    if "content.xml" in names and "META-INF/manifest.xml" in names:
        return "open_document"
    return "archive"


def _look(archive: zipfile.ZipFile, limits: ExtractionLimits, tally: _Tally, *, depth: int, packed_bytes: int) -> None:
    if depth > limits.nesting_max:
        raise _Refused(Status.TOO_LARGE, f"Files are packed into each other more than {limits.nesting_max} deep.")
    entries = archive.infolist()
    tally.entries += len(entries)
    if tally.entries > limits.entries_max:
        raise _Refused(Status.TOO_LARGE, f"It holds more than {limits.entries_max:,} packed files.")
    unpacked_bytes = sum(entry.file_size for entry in entries)
    tally.unpacked_bytes += unpacked_bytes
    if tally.unpacked_bytes > limits.unpacked_bytes_max:
        raise _Refused(Status.TOO_LARGE, f"It unpacks to more than the limit of {limits.unpacked_bytes_max:,} bytes.")
    if unpacked_bytes > _RATIO_COUNTS_FROM_BYTES and unpacked_bytes > _DOUBTFUL_RATIO * max(1, packed_bytes):
        raise _Refused(Status.TOO_LARGE, f"It unpacks to {unpacked_bytes // max(1, packed_bytes):,} times its size.")
    if any(entry.flag_bits & 1 for entry in entries):
        raise _Refused(Status.ENCRYPTED, "It is protected by a password.")
    for entry in entries:
        # By content and not by name: an engine looks into whatever is packed, and names lie.
        if entry.file_size >= _SMALLEST_ZIP_BYTES and not entry.is_dir():
            _look_into(archive, entry, limits, tally, depth)


def _look_into(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ExtractionLimits, tally: _Tally, depth: int
) -> None:
    """Look into an entry that is packed itself. One that is broken is not unpacked by an engine either."""
    try:
        with archive.open(entry) as packed:
            head = packed.read(len(_ZIP))
            if head != _ZIP:
                return
            with tempfile.SpooledTemporaryFile(_INNER_MEMORY_BYTES) as inner:
                inner.write(head)
                # The list says how many bytes there are, and no more are given; their sum is within the limit.
                shutil.copyfileobj(packed, inner, _PIECE_BYTES)
                with zipfile.ZipFile(inner) as deeper:
                    _look(deeper, limits, tally, depth=depth + 1, packed_bytes=entry.file_size)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError):
        return
