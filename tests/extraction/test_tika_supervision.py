"""The Tika server is started, watched and replaced; files that hang or end it are found out, the others arrive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from callboard.actors.extraction import (
    Extraction,
    ExtractionLimits,
    ExtractionSettings,
    Extractor,
    Status,
    open_extractor,
)

from .conftest import chunks_of


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], ExtractionSettings]:
    """Settings whose `java` is a program that only pretends."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("pretended_tika.py")} "$@"\n')
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    jar = tmp_path / "tika.jar"
    jar.touch()

    def make(seconds_max: float) -> ExtractionSettings:
        limits = ExtractionLimits(seconds_max=seconds_max)
        return ExtractionSettings(engine="tika", tika_jar=jar, workers=3, limits=limits)

    return make


async def give(extractor: Extractor, order: str) -> Extraction:
    return await extractor.extract("a b.pdf", chunks_of(b"%PDF-1.4 " + order.encode()))


async def test_text_and_properties_come_back(pretended: Callable[[float], ExtractionSettings]) -> None:
    async with open_extractor(pretended(20)) as extractor:
        found = await give(extractor, "hello")
    assert (found.status, found.text) == (Status.TEXT, "%PDF-1.4 hello")
    assert found.metadata["name"] == "attachment; filename*=UTF-8''a%20b.pdf"


@pytest.mark.parametrize("order", ["HANG", "CRASH"])
async def test_poison_is_found_out_and_the_innocent_arrive(
    pretended: Callable[[float], ExtractionSettings], order: str
) -> None:
    found: dict[str, Extraction] = {}

    async def one(extractor: Extractor, what: str) -> None:
        found[what] = await give(extractor, what)

    async with open_extractor(pretended(3)) as extractor:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for what in ("one", order, "two", "three", "four", "five"):
                    nursery.start_soon(one, extractor, what)
        assert [letter.name for letter in extractor.dead_letters] == ["a b.pdf"]
        assert (await give(extractor, order)).status is Status.QUARANTINED
    assert found.pop(order).status is Status.QUARANTINED
    assert {what: one.status for what, one in found.items()} == dict.fromkeys(found, Status.TEXT)


async def test_a_java_that_cannot_run_the_server_fails_in_one_sentence(
    pretended: Callable[[float], ExtractionSettings], tmp_path: Path
) -> None:
    settings = pretended(5)
    _break(tmp_path / "bin" / "java")
    async with open_extractor(settings) as extractor:
        found = await give(extractor, "hello")
    assert found.status is Status.FAILED
    assert "does not start" in found.detail
    assert found.keeps_earlier_text


def _break(program: Path) -> None:
    program.write_text("#!/bin/sh\nexit 1\n")
