"""The progress display: what it says, and that it goes away."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from callboard.cli.progress import Counts, Lines, Live, Rates, progress_line
from callboard.cli.terminal import counted, in_bytes, in_seconds

COUNTS = Counts(
    listed=1300,
    indexed=1000,
    deleted=2,
    unchanged=200,
    failed=3,
    size_bytes=5_400_000,
    queued=95,
    waiting_on="the source",
)


def test_a_line_says_where_the_sync_stands() -> None:
    assert progress_line(COUNTS, seconds=12, rate=104.4, rate_bytes=450_000) == (
        "12.0 s: 1,205 documents, 5.4 MB, 104/s, 450.0 kB/s, 95 queued, 3 failed, waiting for the source"
    )


def test_rates_are_those_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.add(0, 0, 0) == (0, 0)
    assert rates.add(1, 1000, 10_000) == (1000, 10_000)
    for second in range(2, 10):
        latest = rates.add(second, 1000, 10_000)
    assert latest == (0, 0)


def test_lines_come_every_few_seconds_and_not_more_often(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for tenth in range(121):
        lines.show(Counts(indexed=tenth), tenth / 10)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["5.0 s", "10.0 s"]


def test_the_live_display_shows_counts_rate_queue_and_what_is_slow() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=100, force_terminal=False)
    console.print(Live("notes").drawn(COUNTS, seconds=12, rate=104.4, rate_bytes=450_000))
    shown = " ".join(screen.getvalue().split())
    for words in ("1,205 documents", "5.4 MB", "104 a second", "95 in the queue", "waiting for the source", "3 failed"):
        assert words in shown


@pytest.mark.parametrize(("size_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1400, "1.4 kB"), (2e12, "2.0 TB")])
def test_sizes_read_as_people_say_them(size_bytes: float, text: str) -> None:
    assert in_bytes(size_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.84, "0.8 s"), (125, "2 min 5 s"), (11520, "3 h 12 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert in_seconds(seconds) == text


def test_one_of_something_is_singular() -> None:
    assert (counted(1, "document"), counted(2345, "match", "matches")) == ("1 document", "2,345 matches")
