"""Files made by real programs, a worker program that misbehaves on request, and a Tika to compare with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
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
    secret = 'pdf:writer_pdf_Export:{"EncryptFile":{"type":"boolean","value":"true"},"DocumentOpenPassword":{"type":"string","value":"x"}}'
    made["secret.pdf"] = _convert(made[".docx"], secret, folder / "secret", kind="pdf")
    return made


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
