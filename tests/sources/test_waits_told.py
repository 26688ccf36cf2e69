"""Whoever runs a source hears how long it is made to wait, and why."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import structlog
import trio.testing

from callboard.sources.errors import Throttled, Transient
from callboard.sources.http import HttpSettings, open_http
from callboard.sources.relational_reading import read_pages
from callboard.sources.source import Document
from callboard.sources.waiting import Wait, heard_by, tell_wait


async def waits_of(*answers: tuple[int, dict[str, str]]) -> list[Wait]:
    left, heard = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        status, headers = left.pop(0) if left else (200, {})
        return httpx.Response(status, headers=headers, json={})

    settings = HttpSettings(base_url="https://wiki.example", name="Wiki")
    with heard_by(heard.append):
        async with open_http(settings, transport=httpx.MockTransport(answer)) as client:
            await client.json("GET", "/pages?token=secret")
    return heard


@pytest.mark.parametrize(
    ("status", "headers", "as_told"),
    [
        (429, {"retry-after": "40"}, True),
        (429, {}, False),
        (503, {"retry-after": "7"}, True),
        (403, {"retry-after": "5"}, True),
    ],
)
async def test_a_busy_system_is_told_with_its_word(
    autojump_clock: trio.testing.MockClock, status: int, headers: dict[str, str], as_told: bool
) -> None:
    (wait,) = await waits_of((status, headers))
    assert (wait.by, wait.is_busy, wait.status, wait.as_told) == ("Wiki", True, status, as_told)
    if as_told:
        assert wait.wait_s == float(headers["retry-after"])


async def test_other_failures_are_told_with_the_pause_and_without_secrets(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began_s = trio.current_time()
    first, second = await waits_of((502, {}), (500, {}))
    assert [first.attempt, second.attempt] == [1, 2]
    assert not first.is_busy
    assert "502" in first.why
    assert "secret" not in first.why
    assert trio.current_time() - began_s == pytest.approx(first.wait_s + second.wait_s)


async def test_a_system_that_is_given_up_on_makes_nobody_wait_once_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Wait] = []
    transport = httpx.MockTransport(lambda request: httpx.Response(429, headers={"retry-after": "1"}))
    with heard_by(heard.append):
        async with open_http(HttpSettings(base_url="https://wiki.example", name="Wiki"), transport=transport) as client:
            with pytest.raises(Throttled):
                await client.json("GET", "/pages")
    assert len(heard) == 4, "five tries have four waits between them"


async def test_a_database_that_breaks_off_is_told(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[Wait] = []
    troubles = [Transient("The connection was cut."), Transient("It was cut again.")]

    async def pages(after: Any) -> AsyncGenerator[Any, None]:
        if troubles:
            raise troubles.pop(0)
        yield [Document("a", {})], None

    with heard_by(heard.append):
        listing = read_pages(
            pages, after=None, checkpoint_of=str, attempts=3, partition="public.plays", log=structlog.get_logger()
        )
        found = [item async for item in listing]
    assert len(found) == 1
    assert [(wait.attempt, wait.name, wait.is_busy) for wait in heard] == [
        (1, "public.plays", False),
        (2, "public.plays", False),
    ]


def test_nobody_need_listen() -> None:
    tell_wait("Wiki", Transient("gone"), wait_s=1.0, attempt=1)


async def test_tasks_below_are_heard_and_others_are_not() -> None:
    heard: list[Wait] = []

    async def work() -> None:
        tell_wait("Wiki", Throttled("slow", 2.0, 429), wait_s=2.0, attempt=1)

    async with trio.open_nursery() as outside:
        with heard_by(heard.append):
            async with trio.open_nursery() as below:
                below.start_soon(work)
        assert len(heard) == 1
        outside.start_soon(work)
    assert len(heard) == 1
