"""The cells of an xlsb, whose sheets are binary records, for where the engine cannot read them or would pass over some.

Tika knows the long form of a cell only. Programs other than Excel also write the short form, which leaves out the column; all of
their cells but the first of each row would be missing, and nothing would say so. Numbers come as they are stored, dates too.

It runs in the worker process, so it imports nothing but the standard library.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any

_WORKBOOK, _STRINGS = "xl/workbook.bin", "xl/sharedStrings.bin"
_SHEET = r"xl/worksheets/sheet(\d+)\.bin"
_LOOKED_AT_BYTES = 256 * 1024
"""Short cells follow the first of a row, so that the beginning of a sheet tells."""
_RECORD_BYTES_MAX = 16 * 2**20

_ROW, _SHARED_STRING, _SHEET_NAME = 0, 19, 156
_LONG_HEAD_BYTES, _SHORT_HEAD_BYTES = 8, 4
_LONG = {2: "packed", 3: "error", 4: "flag", 5: "real", 6: "text", 7: "shared", 62: "rich"}
_LONG |= {8: "text", 9: "real", 10: "flag", 11: "error"}
_SHORT = {13: "packed", 14: "error", 15: "flag", 16: "real", 17: "text", 18: "shared"}
_ERRORS = {0: "#NULL!", 7: "#DIV/0!", 15: "#VALUE!", 23: "#REF!", 29: "#NAME?", 36: "#NUM!", 42: "#N/A"}


def engine_loses_cells(file: str | IO[bytes]) -> bool:
    """Whether the file of this path, or this open one, is an xlsb with short cells."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            return _WORKBOOK in names and any(_has_short_cells(archive, name) for _, name in _sheets(names))
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError):
        return False


def binary_cells(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    """The sheets of an xlsb, row by row, each with its name before it. Raises `ValueError` if they are broken."""
    shared: list[str] = []
    if _STRINGS in names:
        with archive.open(_STRINGS) as part:
            shared = [_wide(content, 1) for kind, content in _records(part) if kind == _SHARED_STRING]
    titles: list[str] = []
    with archive.open(_WORKBOOK) as part:
        for kind, content in _records(part):
            if kind == _SHEET_NAME:
                # Before the name stand two numbers and the id of the part, which has a length of its own.
                (characters,) = _unpacked("<I", content, 8)
                titles.append(_wide(content, 12 + 2 * characters))
    for number, name in _sheets(names):
        yield (titles[number - 1] if 0 < number <= len(titles) else "") + "\n"
        with archive.open(name) as part:
            yield from _rows(part, shared)


def _rows(part: IO[bytes], shared: list[str]) -> Iterator[str]:
    values: list[str] = []
    for kind, content in _records(part):
        if kind == _ROW:
            if values:
                yield "\t" + "\t".join(values) + "\n"
            values = []
        elif kind in _LONG:
            values.append(_value(_LONG[kind], content, _LONG_HEAD_BYTES, shared))
        elif kind in _SHORT:
            values.append(_value(_SHORT[kind], content, _SHORT_HEAD_BYTES, shared))
    if values:
        yield "\t" + "\t".join(values) + "\n"


def _value(kind: str, content: bytes, at: int, shared: list[str]) -> str:
    match kind:
        case "packed":
            return _shown(_packed_number(_unpacked("<I", content, at)[0]))
        case "flag":
            return "TRUE" if _unpacked("<B", content, at)[0] else "FALSE"
        case "real":
            return _shown(_unpacked("<d", content, at)[0])
        case "text":
            return _wide(content, at)
        case "shared":
            index = _unpacked("<I", content, at)[0]
            return shared[index] if index < len(shared) else ""
        case "error":
            return _ERRORS.get(_unpacked("<B", content, at)[0], "")
        case _:
            return _wide(content, at + 1)


def _packed_number(packed: int) -> float:
    """A number in 30 bits: the upper half of a real one or a whole one, and perhaps a hundredth of it."""
    if packed & 2:
        number = float((packed >> 2) - (1 << 30 if packed >> 31 else 0))
    else:
        (number,) = struct.unpack("<d", struct.pack("<Q", (packed & ~3) << 32))
    return number / 100 if packed & 1 else number


def _shown(number: float) -> str:
    return str(int(number)) if number.is_integer() and abs(number) < 1e21 else repr(number)


def _wide(content: bytes, at: int) -> str:
    (characters,) = _unpacked("<I", content, at)
    return content[at + 4 : at + 4 + 2 * characters].decode("utf-16-le", "replace")


def _unpacked(form: str, content: bytes, at: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, content, at)
    except struct.error as error:
        raise ValueError(f"a record of the sheet is too short: {error}") from error


def _sheets(names: list[str]) -> list[tuple[int, str]]:
    found = [(re.fullmatch(_SHEET, name), name) for name in names]
    return sorted((int(match.group(1)), name) for match, name in found if match)


def _has_short_cells(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as part:
        for kind, _ in _records(part, _LOOKED_AT_BYTES):
            if kind in _SHORT:
                return True
    return False


def _records(part: IO[bytes], size_bytes_max: int | None = None) -> Iterator[tuple[int, bytes]]:
    read_bytes = 0
    while size_bytes_max is None or read_bytes < size_bytes_max:
        head = part.read(1)
        if not head:
            return
        kind = head[0]
        if kind & 0x80:
            kind = kind & 0x7F | _byte(part) << 7
        size_bytes = shift = 0
        while True:
            one = _byte(part)
            size_bytes |= (one & 0x7F) << shift
            shift += 7
            if not one & 0x80 or shift == 28:
                break
        if size_bytes > _RECORD_BYTES_MAX:
            raise ValueError(f"a record of the sheet claims {size_bytes:,} bytes")
        content = part.read(size_bytes)
        if len(content) < size_bytes:
            raise ValueError("a sheet ends in the middle of a record")
        read_bytes += 2 + size_bytes
        yield kind, content


def _byte(part: IO[bytes]) -> int:
    one = part.read(1)
    if not one:
        raise ValueError("a sheet ends in the middle of a record")
    return one[0]
