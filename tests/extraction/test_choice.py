"""Which engine the settings mean, what `config.yml` turns into, and the OCR hook."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.extraction import (
    ExtractionLimits,
    ExtractionSettings,
    ExtractionUnavailable,
    Status,
    chosen_engine,
    configured_extraction,
    engine_choice,
    open_extractor,
)

from .conftest import chunks_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def configured(**own: object) -> ExtractionSettings:
    read = read_mapping(
        {
            "extraction_service": {"host": "http://localhost:8090", "timeout": 7, "use_file_pointers": True},
            "callboard": {"text_extraction": own},
        },
        {},
    )
    settings = read.settings
    return configured_extraction(settings.extraction_service, settings.callboard.text_extraction)


def test_what_an_operator_writes_is_what_the_extractor_gets() -> None:
    settings = configured(characters=5, seconds=3, workers=9, more_extensions=[".yaml"], memory_mib=300, size_mib=2)
    assert settings.service_url == "http://localhost:8090"
    assert (settings.service_timeout_s, settings.service_file_pointers) == (7, True)
    assert (settings.limits.characters_max, settings.limits.seconds_max, settings.workers) == (5, 3, 9)
    assert (settings.limits.memory_bytes_max, settings.limits.size_bytes_max) == (300 * 2**20, 2 * 2**20)
    assert tuple(settings.more_extensions) == (".yaml",)


def test_the_defaults_agree_on_both_sides() -> None:
    settings = Settings()
    assert (
        configured_extraction(settings.extraction_service, settings.callboard.text_extraction).limits
        == ExtractionSettings().limits
    )


def test_auto_takes_the_service_then_the_embedded_engine() -> None:
    assert chosen_engine(ExtractionSettings(service_url="http://x")) == "service"
    assert chosen_engine(ExtractionSettings(worker_command=["x"])) == "embedded"
    assert chosen_engine(ExtractionSettings(engine="plain", service_url="http://x")) == "plain"


def test_auto_without_the_package_takes_tika_if_fetched_else_plain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("callboard.actors.extraction.choice.find_spec", lambda name: None)
    monkeypatch.setattr("callboard.actors.extraction.tika.java_program", lambda: "/usr/bin/java")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert chosen_engine(ExtractionSettings()) == "plain"
    jar = tmp_path / "tika.jar"
    jar.touch()
    assert chosen_engine(ExtractionSettings(tika_jar=jar)) == "tika"
    with pytest.raises(ExtractionUnavailable, match="pip install"):
        chosen_engine(ExtractionSettings(engine="embedded"))


def test_tika_without_java_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callboard.actors.extraction.tika.java_program", lambda: None)
    with pytest.raises(ExtractionUnavailable, match="needs Java"):
        chosen_engine(ExtractionSettings(engine="tika"))


async def test_an_image_is_read_by_the_hook_and_unsupported_without_one() -> None:
    seen = []

    async def ocr(name: str, content: bytes) -> str:
        seen.append((name, content))
        return "written on the wall"

    settings = ExtractionSettings(engine="plain")
    async with open_extractor(settings, ocr=ocr) as extractor:
        found = await extractor.extract("a.png", chunks_of(PNG))
    async with open_extractor(settings) as extractor:
        without = await extractor.extract("a.png", chunks_of(PNG))
    assert (found.status, found.text, found.engine) == (Status.TEXT, "written on the wall", "ocr")
    assert seen == [("a.png", PNG)]
    assert without.status is Status.UNSUPPORTED


async def test_a_hook_that_fails_is_a_failed_extraction() -> None:
    async def ocr(name: str, content: bytes) -> str:
        raise RuntimeError("out of ink")

    async with open_extractor(ExtractionSettings(engine="plain"), ocr=ocr) as extractor:
        found = await extractor.extract("a.png", chunks_of(PNG))
    assert found.status is Status.FAILED
    assert "out of ink" in found.detail


async def test_the_hook_reads_a_pdf_in_which_no_text_was_found(
    poison_settings: Callable[..., ExtractionSettings],
) -> None:
    seen = []

    async def ocr(name: str, content: bytes) -> str:
        seen.append(name)
        return "  " if b"nothing" in content else "scanned words"

    async with open_extractor(poison_settings(), ocr=ocr) as extractor:
        scanned = await extractor.extract("scan.pdf", chunks_of(b"%PDF-1.4 BLANK"))
        bare = await extractor.extract("bare.pdf", chunks_of(b"%PDF-1.4 BLANK nothing"))
        written = await extractor.extract("text.pdf", chunks_of(b"%PDF-1.4 hello"))
    assert (scanned.status, scanned.text, scanned.engine) == (Status.TEXT, "scanned words", "ocr")
    assert (bare.status, bare.text) == (Status.EMPTY, "")
    assert (written.text, seen) == ("%PDF-1.4 hello", ["scan.pdf", "bare.pdf"])


async def test_a_hook_that_takes_too_long_is_given_up(
    poison_settings: Callable[..., ExtractionSettings], autojump_clock: trio.testing.MockClock
) -> None:
    async def ocr(name: str, content: bytes) -> str:
        await trio.sleep_forever()
        raise AssertionError

    async with open_extractor(ExtractionSettings(engine="plain"), ocr=ocr) as extractor:
        found = await extractor.extract("a.png", chunks_of(PNG))
    assert found.status is Status.TIMED_OUT


def test_the_choice_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("callboard.actors.extraction.choice.find_spec", lambda name: None)
    monkeypatch.setattr("callboard.actors.extraction.tika.java_program", lambda: "/usr/bin/java")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    bare = engine_choice(ExtractionSettings())
    assert (bare.engine, [state.name for state in bare.engines if state.is_there]) == ("plain", ["plain"])
    assert "pip install 'callboard[extraction]'" in bare.why
    ways = {state.name: state.why for state in bare.engines}
    assert "extraction_service.host" in ways["service"]
    assert "callboard extraction fetch-tika" in ways["tika"]
    jar = tmp_path / "tika.jar"
    jar.touch()
    fetched = engine_choice(ExtractionSettings(tika_jar=jar))
    assert (fetched.engine, str(jar) in fetched.why) == ("tika", True)
    asked = engine_choice(ExtractionSettings(engine="plain", service_url="http://x"))
    assert (asked.engine, "the settings ask for it" in asked.why) == ("plain", True)
    assert asked.why == "the settings ask for it, and it reads plain text, HTML and XML only"
    served = engine_choice(ExtractionSettings(service_url="http://x"))
    assert (served.engine, "http://x" in served.why) == ("service", True)


def test_nothing_is_fetched_by_choosing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the command fetches: without the file, every other way to Tika says how to get it."""
    monkeypatch.setattr("callboard.actors.extraction.tika.java_program", lambda: "/usr/bin/java")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(ExtractionUnavailable, match="callboard extraction fetch-tika"):
        chosen_engine(ExtractionSettings(engine="tika"))
    assert not list(tmp_path.iterdir())


OCR = "import sys; seen = open(sys.argv[1], 'rb').read(); {then}"


def seeing(then: str, **limits: Any) -> ExtractionSettings:
    command = (sys.executable, "-c", OCR.format(then=then), "{file}")
    return ExtractionSettings(engine="plain", ocr_command=command, limits=ExtractionLimits(**limits))


async def test_an_operator_can_name_the_program_that_sees() -> None:
    then = "print('Grüße', len(seen), sys.argv[1].endswith('.png'))"
    async with open_extractor(seeing(then)) as extractor:
        found = await extractor.extract("a.png", chunks_of(PNG))
    assert (found.status, found.text.strip(), found.engine) == (Status.TEXT, f"Grüße {len(PNG)} True", "ocr")


async def test_a_program_that_fails_babbles_or_hangs_costs_only_its_file() -> None:
    async with open_extractor(seeing("sys.exit('out of ink')")) as extractor:
        failed = await extractor.extract("a.png", chunks_of(PNG))
    assert (failed.status, "code 1: out of ink" in failed.detail) == (Status.FAILED, True)
    async with open_extractor(seeing("print('x' * 3_000_000)", characters_max=1000)) as extractor:
        babbled = await extractor.extract("a.png", chunks_of(PNG))
    assert (babbled.status, babbled.text) == (Status.TRUNCATED, "x" * 1000)
    async with open_extractor(seeing("import time; time.sleep(3600)", seconds_max=1)) as extractor:
        with trio.fail_after(10):
            hung = await extractor.extract("a.png", chunks_of(PNG))
    assert hung.status is Status.TIMED_OUT
    gone = ExtractionSettings(engine="plain", ocr_command=(str(Path(sys.executable).with_name("none")),))
    with pytest.raises(ExtractionUnavailable, match="ocr_command"):
        chosen_engine(gone)


def test_the_program_that_sees_comes_from_the_configuration() -> None:
    assert tuple(configured(ocr_command=["tesseract", "{file}", "stdout"]).ocr_command) == (
        "tesseract",
        "{file}",
        "stdout",
    )
