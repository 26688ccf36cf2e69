"""Files made by real programs, a worker program that misbehaves on request, and a Tika to compare with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
import trio

from callboard.actors.extraction import ExtractionLimits, ExtractionSettings, ExtractionUnavailable
from callboard.actors.extraction.fetching import fetch_tika
from callboard.actors.extraction.tika import JAR_NAME, java_program

MARKDOWN = """---
title: The quarterly report
author: Jane Doe
lang: en
---

# Überschrift with umlauts

The quick brown fox jumps over the lazy dog. Ελληνικά, русский, 日本語, €.

| city    | inhabitants |
|---------|-------------|
| Zürich  | 443037      |
| Göteborg| 604829      |

- first point
- second point

A [link](https://example.org/) and *emphasis*.
"""
CSV = "city,inhabitants,share\nZürich,443037,0.25\nGöteborg,604829,0.75\nKraków,804237,1\n"

WORDS = (
    "Überschrift",
    "umlauts",
    "brown",
    "Ελληνικά",
    "русский",
    "日本語",
    "€",
    "Zürich",
    "443037",
    "Göteborg",
    "emphasis",
)
CAIRO = """
import cairo, sys
surface = cairo.PDFSurface(sys.argv[1], 400, 200)
context = cairo.Context(surface)
for line in ("Überschrift: Zürich, Göteborg, naïve €", "second page"):
    context.move_to(20, 40)
    context.show_text(line)
    context.show_page()
surface.finish()
"""
PROCESS = """<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:bpmndi="http://www.omg.org/spec/BPMN/20100524/DI"
 xmlns:dc="http://www.omg.org/spec/DD/20100524/DC" xmlns:di="http://www.omg.org/spec/DD/20100524/DI" id="d">
<process id="p"><startEvent id="s" name="Anfang in Zürich"/><task id="t" name="Check the thunder sheet"/>
<sequenceFlow id="f" sourceRef="s" targetRef="t"/></process>
<bpmndi:BPMNDiagram id="g"><bpmndi:BPMNPlane id="l" bpmnElement="p">
<bpmndi:BPMNShape id="s1" bpmnElement="s"><dc:Bounds x="100" y="100" width="36" height="36"/></bpmndi:BPMNShape>
<bpmndi:BPMNShape id="t1" bpmnElement="t"><dc:Bounds x="200" y="80" width="100" height="80"/></bpmndi:BPMNShape>
<bpmndi:BPMNEdge id="f1" bpmnElement="f"><di:waypoint x="136" y="118"/><di:waypoint x="200" y="118"/></bpmndi:BPMNEdge>
</bpmndi:BPMNPlane></bpmndi:BPMNDiagram></definitions>
"""
SAMPLES = Path(__file__).with_name("samples")
CELLS = ("Zürich", "443037", "Göteborg", "604829", "Kraków")


async def chunks_of(content: bytes, size_bytes: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size_bytes):
        yield content[start : start + size_bytes]


@pytest.fixture
def poison_settings() -> Callable[..., ExtractionSettings]:
    """Settings whose workers do what their files say."""

    def make(seconds_max: float = 10.0, workers: int = 2, **limits: int) -> ExtractionSettings:
        return ExtractionSettings(
            engine="embedded",
            workers=workers,
            limits=ExtractionLimits(seconds_max=seconds_max, **limits),
            worker_command=[sys.executable, str(Path(__file__).with_name("poison_engine.py"))],
        )

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, server_missing: Callable[[str, str], None]) -> dict[str, Path]:
    """One text and one table in every format that pandoc and LibreOffice write, by extension."""
    for program, packages in (
        ("pandoc", "pandoc"),
        ("soffice", "libreoffice-writer-nogui libreoffice-calc-nogui libreoffice-impress-nogui"),
    ):
        if shutil.which(program) is None:
            server_missing(f"`{program}`, which makes the files to read", f"sudo apt-get install {packages}")
    folder = tmp_path_factory.mktemp("corpus")
    made: dict[str, Path] = {}
    text, table = folder / "report.md", folder / "table.csv"
    text.write_text(MARKDOWN, encoding="utf-8")
    table.write_text(CSV, encoding="utf-8")
    made[".md"], made[".csv"] = text, table
    for kind in ("html", "epub", "pptx", "docx"):
        target = folder / "pandoc" / f"report.{kind}"
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["pandoc", "--standalone", text, "-o", target], check=True, capture_output=True)
        made[f".{kind}"] = target
    office = folder / "office"
    for kind in ("docx", "odt", "rtf", "doc", "pdf"):
        made[f"office.{kind}" if kind == "docx" else f".{kind}"] = _convert(made[".docx"], kind, office)
    for kind in ("xlsx", "xls", "ods"):
        made[f".{kind}"] = _convert(table, kind, office, "--infilter=CSV:44,34,76,1")
    for kind in ("ppt", "odp"):
        made[f".{kind}"] = _convert(made[".pptx"], kind, office)
    made["cairo.pdf"] = _draw_with_cairo(folder / "drawn.pdf", server_missing)
    made[".vsdx"] = _draw_for_visio(folder)
    made[".msg"] = _write_message(folder / "letter.msg")
    for kind in ("xlsm", "potx"):
        source, filter_ = {
            "xlsm": (made[".xlsx"], "xlsm:Calc MS Excel 2007 VBA XML"),
            "potx": (made[".pptx"], "potx:Impress MS PowerPoint 2007 XML Template"),
        }[kind]
        made[f".{kind}"] = _convert(source, filter_, office, kind=kind)
    made[".eml"] = _write_letter(folder / "letter.eml")
    made[".xlsb"] = SAMPLES / "table.xlsb"
    made |= {
        "excel.xlsb": SAMPLES / "testEXCEL.xlsb",
        "various.xlsb": SAMPLES / "testEXCEL_various.xlsb",
        "macro.xlsm": SAMPLES / "testEXCEL_macro.xlsm",
        ".vsd": SAMPLES / "testVISIO.vsd",
        ".vsdm": SAMPLES / "testVISIO.vsdm",
    }
    secret = 'pdf:writer_pdf_Export:{"EncryptFile":{"type":"boolean","value":"true"},"DocumentOpenPassword":{"type":"string","value":"x"}}'
    made["secret.pdf"] = _convert(made[".docx"], secret, folder / "secret", kind="pdf")
    return made


def _draw_with_cairo(target: Path, server_missing: Callable[[str, str], None]) -> Path:
    # Debian's own Python has the binding; a PDF of cairo names its glyphs in another way than one of LibreOffice.
    python = "/usr/bin/python3"
    found = subprocess.run([python, "-c", "import cairo"], capture_output=True, check=False)
    if found.returncode != 0:
        server_missing("cairo's binding for Python, which draws a PDF", "sudo apt-get install python3-cairo")
    subprocess.run([python, "-c", CAIRO, target], check=True, capture_output=True)
    return target


def _draw_for_visio(folder: Path) -> Path:
    from bpmn_to_vsdx import convert_file  # type: ignore[import-untyped]

    source = folder / "process.bpmn"
    source.write_text(PROCESS, encoding="utf-8")
    convert_file(str(source), str(folder))
    return folder / "process.vsdx"


def _write_message(target: Path) -> Path:
    from aspose.email_foss import msg  # type: ignore[import-untyped]

    message = msg.MapiMessage.create("Grüße aus Zürich", "The minutes are attached, naïve as they are. €")
    message.add_recipient("joe@example.org", display_name="Joe")
    message.save(str(target))
    return target


def _write_letter(target: Path) -> Path:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "jane@example.org", "joe@example.org", "Grüße aus Zürich"
    message["Date"] = "Tue, 24 Nov 2026 10:00:00 +0000"
    message.set_content("The minutes are attached, naïve as they are.", cte="base64")
    target.write_bytes(bytes(message))
    return target


def _convert(source: Path, filter_: str, folder: Path, *options: str, kind: str = "") -> Path:
    profile = f"-env:UserInstallation=file://{folder.parent / 'profile'}"
    subprocess.run(
        ["soffice", profile, "--headless", *options, "--convert-to", filter_, "--outdir", folder, source],
        check=True,
        capture_output=True,
        timeout=120,
    )
    made = folder / f"{source.stem}.{kind or filter_}"
    assert made.is_file(), f"LibreOffice did not make {made.name}"
    return made


@pytest.fixture(scope="session")
def tika_jar(server_missing: Callable[[str, str], None]) -> Path:
    """The Tika server, fetched once for all runs of the tests on this machine."""
    given = os.environ.get("CALLBOARD_TEST_TIKA_JAR")
    if given:
        return Path(given)
    if java_program() is None or shutil.which("mvn") is None:
        server_missing("Java and Maven", "sudo apt-get install default-jre-headless maven")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callboard-tests"
    try:
        return trio.run(fetch_tika, cache / JAR_NAME)
    except ExtractionUnavailable as unavailable:
        server_missing(f"Apache Tika ({unavailable})", "callboard extraction fetch-tika")
        raise
