"""Which engine the settings mean, what `config.yml` turns into, and the OCR hook."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.extraction import (
    ExtractionSettings,
    ExtractionUnavailable,
    Status,
    chosen_engine,
    configured_extraction,
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
