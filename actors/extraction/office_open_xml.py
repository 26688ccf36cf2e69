"""The text of docx, xlsx, pptx and vsdx by their XML alone: what is tried when the engine cannot read one.

The ahead-of-time compiled engine lacks a part of its schemas and fails on every docx that has a comments part and on drawings,
and it needs gigabytes for long documents. This reader streams, needs next to no memory, and keeps order and breaks but no more of the layout.

It runs in the worker process, so it imports nothing but the standard library.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from typing import TypeAlias
from xml.etree.ElementTree import Element, ParseError, iterparse

OWN_READER = "office_open_xml"
"""The engine that is named in what this reader gives."""

_DOCUMENT_PARTS = (
    r"word/header\d*\.xml",
    r"word/document\d*\.xml",
    r"word/footnotes\.xml",
    r"word/endnotes\.xml",
    r"word/comments\.xml",
    r"word/footer\d*\.xml",
)
_SLIDE_PARTS = (r"ppt/slides/slide\d+\.xml", r"ppt/notesSlides/notesSlide\d+\.xml", r"ppt/comments/.*\.xml")
_PAGE_PARTS = r"visio/pages/page\d+\.xml"
_FATAL_PARTS = frozenset({"word/comments.xml", "visio/document.xml"})
_CORE = "docProps/core.xml"


class NotReadable(Exception):
    """The file is no Office Open XML file that this reader knows."""


def is_office_open_xml(path: str) -> bool:
    """Whether a file is one of these, whatever it is called."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "[content_types].xml" in {name.lower() for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def engine_fails_on(path: str) -> bool:
    """Whether this is a docx with a comments part, or a drawing, which the engine fails on, at the price of itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not _FATAL_PARTS.isdisjoint(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


BinaryCells: TypeAlias = Callable[[zipfile.ZipFile, list[str]], Iterator[str]]


def read_office_open_xml(path: str, characters_max: int, binary_cells: BinaryCells) -> tuple[str, dict[str, str]]:
    """Return at most about `characters_max` characters of text, and the core properties. Raises `NotReadable`.

    `binary_cells` reads the sheets of an xlsb (`xlsb.py`).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.startswith("word/") for name in names):
                pieces = _paragraphs(archive, names, _DOCUMENT_PARTS)
            elif any(name.startswith("ppt/") for name in names):
                pieces = _paragraphs(archive, names, _SLIDE_PARTS)
            elif "xl/workbook.bin" in names:
                pieces = binary_cells(archive, names)
            elif any(name.startswith("xl/") for name in names):
                pieces = _cells(archive, names)
            elif any(name.startswith("visio/") for name in names):
                pieces = _shapes(archive, names)
            else:
                raise NotReadable("It has neither text, nor slides, nor sheets, nor drawings.")
            return _taken(pieces, characters_max), _properties(archive, names)
    except (zipfile.BadZipFile, ParseError, OSError, EOFError, KeyError, RuntimeError, ValueError) as error:
        raise NotReadable(str(error)) from error
    except NotImplementedError as error:
        raise NotReadable(str(error)) from error


def _taken(pieces: Iterator[str], characters_max: int) -> str:
    taken: list[str] = []
    characters = 0
    for piece in pieces:
        taken.append(piece)
        characters += len(piece)
        if characters > characters_max:
            break
    return "".join(taken)


def _paragraphs(archive: zipfile.ZipFile, names: list[str], patterns: tuple[str, ...]) -> Iterator[str]:
    for pattern in patterns:
        for name in sorted((name for name in names if re.fullmatch(pattern, name)), key=_number):
            yield from _runs(archive, name)


def _runs(archive: zipfile.ZipFile, name: str) -> Iterator[str]:
    deleted = 0
    stack: list[Element] = []
    with archive.open(name) as part:
        for event, element in iterparse(part, events=("start", "end")):  # noqa: S314 - expat bounds entities
            tag = element.tag.rpartition("}")[2]
            if event == "start":
                stack.append(element)
                deleted += tag in ("del", "moveFrom")
                continue
            stack.pop()
            if tag in ("del", "moveFrom"):
                deleted -= 1
            elif tag == "t" and not deleted:
                yield element.text or ""
            elif tag == "tab" and stack and _is(stack[-1], "r"):
                yield "\t"
            elif tag in ("br", "cr", "p", "tr"):
                yield "\n"
            elif tag == "tc":
                yield "\t"
            element.clear()
            if stack and tag in ("p", "tr", "tbl", "comment", "footnote", "sp"):
                # Cleared children would still be listed in their parent, and a body can have millions.
                parent = stack[-1]
                parent.remove(element)
    yield "\n"


def _is(element: Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def _cells(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    shared: list[str] = []
    if "xl/sharedStrings.xml" in names:
        shared = list(_elements(archive, "xl/sharedStrings.xml", "si", _all_text))
    titles = dict(enumerate(_sheet_names(archive, names), start=1))
    for name in sorted((name for name in names if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)), key=_number):
        yield titles.get(_number(name)[0], "") + "\n"
        yield from _elements(archive, name, "row", lambda row: _row(row, shared))


def _shapes(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    for name in sorted((name for name in names if re.fullmatch(_PAGE_PARTS, name)), key=_number):
        yield from _elements(archive, name, "Text", lambda text: "".join(text.itertext()).strip() + "\n")


def _row(row: Element, shared: list[str]) -> str:
    values = []
    for cell in row:
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            values.append(_all_text(cell))
            continue
        value = next((child.text or "" for child in cell if _is(child, "v")), "")
        if kind == "s" and value.isdigit():
            values.append(shared[int(value)] if int(value) < len(shared) else "")
        else:
            values.append(value)
    return "\t" + "\t".join(values) + "\n"


def _sheet_names(archive: zipfile.ZipFile, names: list[str]) -> list[str]:
    if "xl/workbook.xml" not in names:
        return []
    return list(_elements(archive, "xl/workbook.xml", "sheet", lambda sheet: str(sheet.get("name", ""))))


def _elements(archive: zipfile.ZipFile, name: str, wanted: str, read: Callable[[Element], str]) -> Iterator[str]:
    """Read every element of one name, dropping each when it is done."""
    stack: list[Element] = []
    with archive.open(name) as part:
        for event, element in iterparse(part, events=("start", "end")):  # noqa: S314 - expat bounds entities
            if event == "start":
                stack.append(element)
                continue
            stack.pop()
            if _is(element, wanted):
                yield read(element)
                element.clear()
                if stack:
                    stack[-1].remove(element)


def _all_text(element: Element) -> str:
    return "".join(child.text or "" for child in element.iter() if _is(child, "t"))


def _properties(archive: zipfile.ZipFile, names: list[str]) -> dict[str, str]:
    if _CORE not in names:
        return {}
    prefixes = {
        "http://purl.org/dc/elements/1.1/": "dc:",
        "http://purl.org/dc/terms/": "dcterms:",
        "http://schemas.openxmlformats.org/package/2006/metadata/core-properties": "cp:",
    }
    found = {}
    with archive.open(_CORE) as part:
        for _, element in iterparse(part):  # noqa: S314 - expat bounds entities
            namespace, _, tag = element.tag[1:].partition("}")
            if namespace in prefixes and element.text and element.text.strip():
                found[prefixes[namespace] + tag] = element.text.strip()
    return found


def _number(name: str) -> tuple[int, str]:
    digits = re.search(r"(\d+)\.xml\Z", name)
    return (int(digits.group(1)) if digits else 0), name
