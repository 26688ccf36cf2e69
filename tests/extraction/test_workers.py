"""Files that hang, crash or swallow memory cost their own worker and nothing else."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from callboard.actors.extraction import Extraction, ExtractionSettings, Extractor, Status, open_extractor

from .conftest import chunks_of

Settings = Callable[..., ExtractionSettings]


async def give(extractor: Extractor, order: str, name: str = "a.pdf") -> Extraction:
    return await extractor.extract(name, chunks_of(b"%PDF-1.4 " + order.encode()))


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # A zombie would be a process that nobody reaped.
    return True


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_file_goes_to_a_worker_with_its_extension_and_comes_back(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings()) as extractor:
        found = await give(extractor, "hello", "folder/Report.PDF")
    assert (found.status, found.text, found.engine) == (Status.TEXT, "%PDF-1.4 hello", "embedded")
    assert found.metadata == {"suffix": ".pdf"}
    assert found.size_bytes == len(b"%PDF-1.4 hello")


async def test_a_large_file_goes_by_way_of_the_disk_and_leaves_nothing(
    poison_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = b"%PDF-1.4 hello " + b"x" * 3_000_000
    async with open_extractor(poison_settings(characters_max=5_000_000)) as extractor:
        found = await extractor.extract("a.pdf", chunks_of(content))
        assert found.text == content.decode()
        assert not files_below(tmp_path)
    assert not entries(tmp_path)


async def test_a_worker_is_used_again_and_ends_with_the_extractor(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings(workers=1)) as extractor:
        first, second = await give(extractor, "WHO"), await give(extractor, "WHO 2")
        assert first.text == second.text
        assert is_alive(int(first.text))
    assert not is_alive(int(first.text))


@pytest.mark.parametrize("order", ["HANG", "CRASH", "NONSENSE"])
async def test_poison_is_quarantined_after_the_second_try_and_named(poison_settings: Settings, order: str) -> None:
    async with open_extractor(poison_settings(seconds_max=1.0, memory_bytes_max=220 * 2**20)) as extractor:
        found = await give(extractor, order, "bad.pdf")
        assert (found.status, found.text) == (Status.QUARANTINED, "")
        assert found.keeps_earlier_text
        [letter] = extractor.dead_letters
        assert letter.name == "bad.pdf"
        assert letter.detail in found.detail
        with trio.fail_after(0.5):
            again = await give(extractor, order, "other-name.pdf")
        assert again.status is Status.QUARANTINED
        assert len(extractor.dead_letters) == 1
        assert (await give(extractor, "hello")).status is Status.TEXT


async def test_a_file_that_wants_more_memory_than_the_limit_is_too_large(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings(memory_bytes_max=220 * 2**20)) as extractor:
        found = await give(extractor, "HOG")
        assert found.status is Status.TOO_LARGE
        assert "memory" in found.detail
        assert (await give(extractor, "hello")).status is Status.TEXT


async def test_a_crash_that_does_not_come_again_is_forgiven(poison_settings: Settings, tmp_path: Path) -> None:
    async with open_extractor(poison_settings()) as extractor:
        found = await give(extractor, f"CRASH-ONCE {tmp_path / 'mark'}")
        assert found.status is Status.TEXT
        assert not extractor.dead_letters


async def test_a_worker_that_was_killed_while_idle_is_replaced(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings(workers=1)) as extractor:
        first = await give(extractor, "WHO")
        os.kill(int(first.text), signal.SIGKILL)
        second = await give(extractor, "WHO 2")
    assert second.status is Status.TEXT
    assert second.text != first.text


async def test_a_cancelled_extraction_kills_its_worker_at_once(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings(workers=1)) as extractor:
        who = int((await give(extractor, "WHO")).text)
        with trio.move_on_after(0.3) as scope:
            await give(extractor, "HANG")
        assert scope.cancelled_caught
        assert not is_alive(who)
        assert (await give(extractor, "hello")).status is Status.TEXT


async def test_what_an_engine_has_started_ends_with_it(poison_settings: Settings, tmp_path: Path) -> None:
    noted = tmp_path / "children"
    async with open_extractor(poison_settings(seconds_max=2.0, workers=1)) as extractor:
        assert (await give(extractor, f"CHILD {noted}")).status is Status.QUARANTINED
    children = [int(line) for line in noted.read_text().split()]
    assert len(children) == 2
    with trio.fail_after(10):
        # Nobody but the kernel's first process reaps them.
        while any(is_running(child) for child in children):  # noqa: ASYNC110 - a process of somebody else tells nobody
            await trio.sleep(0.05)


def is_running(process_id: int) -> bool:
    """Whether a process is there and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_hanging_file_does_not_hold_up_the_others(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings(workers=2)) as extractor, trio.open_nursery() as nursery:
        nursery.start_soon(give, extractor, "HANG")
        with trio.fail_after(5):
            for number in range(50):
                assert (await give(extractor, f"hello {number}")).status is Status.TEXT
            text = await extractor.extract("a.txt", chunks_of(b"plain"))
            assert text.status is Status.TEXT
        nursery.cancel_scope.cancel()


async def test_what_the_engine_gives_too_much_is_cut_and_blank_text_is_empty(poison_settings: Settings) -> None:
    async with open_extractor(poison_settings(characters_max=1000)) as extractor:
        long, blank = await give(extractor, "LONG"), await give(extractor, "BLANK")
    assert (long.status, len(long.text)) == (Status.TRUNCATED, 1000)
    assert (blank.status, blank.text) == (Status.EMPTY, "")


async def test_ten_thousand_files_with_a_hundred_poisoned_ones_all_arrive(poison_settings: Settings) -> None:
    chance = random.Random(7)
    poisoned = {
        number: chance.choice(["CRASH", "CRASH", "CRASH", "HANG"]) for number in chance.sample(range(10_000), 100)
    }
    found: dict[int, Extraction] = {}
    waiting = iter(range(10_000))

    async def worker(extractor: Extractor) -> None:
        for number in waiting:
            order = poisoned.get(number, "hello")
            found[number] = await give(extractor, f"{order} {number}", f"{number}.pdf")

    async with open_extractor(poison_settings(seconds_max=0.4, workers=4)) as extractor:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(worker, extractor)
        letters = extractor.dead_letters
    assert len(found) == 10_000
    assert {number for number, one in found.items() if one.status is Status.QUARANTINED} == set(poisoned)
    assert {letter.name for letter in letters} == {f"{number}.pdf" for number in poisoned}
    assert all(one.text == f"%PDF-1.4 hello {number}" for number, one in found.items() if number not in poisoned)
