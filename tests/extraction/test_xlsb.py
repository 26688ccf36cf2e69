"""The cells of binary sheets: every form of a cell, and nothing but one kind of error for what is broken."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.extraction.office_open_xml import NotReadable, read_office_open_xml
from callboard.actors.extraction.xlsb import binary_cells, engine_loses_cells

from .conftest import SAMPLES


def record(kind: int, content: bytes) -> bytes:
    head = bytes([kind]) if kind < 128 else bytes([kind & 0x7F | 0x80, kind >> 7])
    size = len(content)
    sized = b""
    while True:
        sized += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return head + sized + content


def wide(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")


def workbook(sheet: bytes, name: str = "Cities") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr("xl/workbook.bin", record(156, struct.pack("<II", 0, 1) + wide("rId1") + wide(name)))
        archive.writestr(
            "xl/sharedStrings.bin", record(19, b"\0" + wide("Zürich")) + record(19, b"\0" + wide("x" * 90))
        )
        archive.writestr("xl/worksheets/sheet1.bin", sheet)
    return target.getvalue()


def cells(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return "".join(binary_cells(archive, archive.namelist()))


LONG, SHORT = bytes(8), bytes(4)
WHOLE, HUNDREDTH = 443037 << 2 | 2, (12345 << 2 | 3)
NEGATIVE = (-7 << 2 | 2) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (2, struct.pack("<I", WHOLE), "443037"),
        (2, struct.pack("<I", HUNDREDTH), "123.45"),
        (2, struct.pack("<I", NEGATIVE), "-7"),
        (2, struct.pack("<d", 0.25)[4:], "0.25"),
        (3, b"\x07", "#DIV/0!"),
        (4, b"\x01", "TRUE"),
        (5, struct.pack("<d", 1234567890123456.0), "1234567890123456"),
        (6, wide("Göteborg"), "Göteborg"),
        (7, struct.pack("<I", 0), "Zürich"),
        (7, struct.pack("<I", 99), ""),
        (8, wide("of a formula"), "of a formula"),
        (9, struct.pack("<d", 0.5), "0.5"),
        (10, b"\0", "FALSE"),
        (11, b"\x2a", "#N/A"),
        (62, b"\0" + wide("rich"), "rich"),
    ],
)
def test_each_form_of_a_cell_is_shown(kind: int, value: bytes, shown: str) -> None:
    assert cells(workbook(record(0, bytes(17)) + record(kind, LONG + value))) == f"Cities\n\t{shown}\n"
    if kind in range(2, 8):
        assert cells(workbook(record(kind + 11, SHORT + value))) == f"Cities\n\t{shown}\n"


def test_rows_are_lines_and_what_is_no_cell_is_passed_over() -> None:
    row, cell = record(0, bytes(17)), record(7, LONG + struct.pack("<I", 0))
    other = record(400, bytes(300))
    assert (
        cells(workbook(other + row + cell + cell + other + row + row + cell)) == "Cities\n\tZürich\tZürich\n\tZürich\n"
    )


def test_only_a_table_with_short_cells_is_kept_from_the_engine() -> None:
    assert engine_loses_cells(str(SAMPLES / "table.xlsb"))
    assert not engine_loses_cells(str(SAMPLES / "testEXCEL.xlsb"))
    assert not engine_loses_cells(str(SAMPLES / "testEXCEL_macro.xlsm"))
    assert not engine_loses_cells(__file__)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_whatever_is_in_a_sheet_it_is_read_or_refused(noise: bytes, at: int, value: int) -> None:
    sheet = bytearray(
        record(0, bytes(17)) + record(13, SHORT + struct.pack("<I", WHOLE)) + record(17, SHORT + wide("a"))
    )
    sheet[at % len(sheet)] = value
    for content in (bytes(sheet), noise, bytes(sheet) + noise):
        try:
            cells(workbook(content))
        except ValueError as error:
            assert "sheet" in str(error)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_table_is_not_readable(tmp_path: Path, share: float) -> None:
    content = (SAMPLES / "table.xlsb").read_bytes()
    broken = tmp_path / "broken.xlsb"
    broken.write_bytes(content[: int(share * len(content))])
    assert not engine_loses_cells(str(broken))
    with pytest.raises(NotReadable):
        read_office_open_xml(str(broken), 1000, binary_cells)
