"""How fast a source asks, at hosts that tell their limit, that refuse with a time, and that only refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from callboard.sources.errors import Throttled
from callboard.sources.http import HttpSettings, Quota, Retries, TokenBucket, open_http, quota_of, shared_bucket
from callboard.sources.waiting import Wait, heard_by

EPOCH_S = 1_800_000_000.0


class Host:
    """Grants so many requests in each window of so many seconds, and counts what is asked."""

    def __init__(self, limit: int, window_s: float, headers: Callable[[int, float], dict[str, str]]) -> None:
        self.limit, self.window_s, self.headers = limit, window_s, headers
        self.window, self.used = -1, 0
        self.granted, self.refused = 0, 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(0.05)
        moment_s = trio.current_time()
        window = int(moment_s // self.window_s)
        if window != self.window:
            self.window, self.used = window, 0
        left_s = (window + 1) * self.window_s - moment_s
        self.used += 1
        headers = self.headers(max(0, self.limit - self.used), left_s)
        if self.used > self.limit:
            self.refused += 1
            return httpx.Response(429, headers=headers)
        self.granted += 1
        return httpx.Response(200, json={}, headers=headers)


async def use(host: Host, seconds: float, tasks: int = 8, settings: HttpSettings | None = None) -> None:
    """Ask as fast as one may, with so many tasks, for so long."""
    settings = settings or HttpSettings(base_url="http://host", name="Host", retries=Retries(attempts=1000))
    with trio.move_on_after(seconds):
        async with (
            open_http(settings, transport=httpx.MockTransport(host)) as http,
            trio.open_nursery() as nursery,
        ):

            async def ask() -> None:
                while True:
                    await http.send("GET", "/page")

            for _ in range(tasks):
                nursery.start_soon(ask)


async def test_a_limit_that_is_told_is_used_up_and_never_tripped(autojump_clock: MockClock) -> None:
    def told(remaining: int, left_s: float) -> dict[str, str]:
        return {
            "x-ratelimit-limit": "600",
            "x-ratelimit-remaining": str(remaining),
            "x-ratelimit-reset": f"{left_s:.3f}",
        }

    host = Host(600, 60.0, told)
    await use(host, 600)
    assert host.refused == 0
    assert host.granted >= 0.9 * 6000


async def test_a_limit_that_is_told_only_by_refusing_is_tripped_once(autojump_clock: MockClock) -> None:
    host = Host(600, 60.0, lambda remaining, left_s: {} if remaining else {"retry-after": f"{math.ceil(left_s)}"})
    await use(host, 300)
    # Once, but for those that were under way with the one that was refused first.
    assert 1 <= host.refused <= 8
    assert host.granted >= 0.9 * 5 * 600


async def test_a_rate_that_is_only_refused_is_found(autojump_clock: MockClock) -> None:
    host = Host(20, 1.0, lambda remaining, left_s: {})
    await use(host, 300)
    assert host.granted >= 0.9 * 20 * 300
    assert host.refused <= 0.03 * host.granted


async def test_connectors_of_one_account_share_its_limit(autojump_clock: MockClock) -> None:
    host = Host(600, 60.0, lambda remaining, left_s: {} if remaining else {"retry-after": f"{math.ceil(left_s)}"})
    settings = HttpSettings(base_url="http://host", name="Host", account="stage", retries=Retries(attempts=1000))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use, host, 300, 4, settings)
    assert 1 <= host.refused <= 12
    assert host.granted >= 0.9 * 5 * 600


async def test_another_account_is_not_held_back(autojump_clock: MockClock) -> None:
    one, same, other = shared_bucket("host", "a"), shared_bucket("host", "a"), shared_bucket("host", "b")
    assert one is same
    one.throttled(60)
    started = trio.current_time()
    await other.take()
    assert trio.current_time() == started
    await same.take()
    assert trio.current_time() - started >= 60


async def test_a_refusal_of_what_was_under_way_already_says_nothing_new(autojump_clock: MockClock) -> None:
    bucket = TokenBucket()
    times = [await bucket.take() for _ in range(10)]
    await trio.sleep(1)
    bucket.throttled(2, times[0])
    rate = bucket.per_second
    bucket.throttled(2, times[1])
    assert bucket.per_second == rate


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "1800000030"}, Quota(5, 30.0)),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "30", "x-ratelimit-limit": "50"}, Quota(5, 30.0, 50)),
        ({"ratelimit-remaining": "5", "ratelimit-reset": "30", "ratelimit-limit": "50, 50;w=60"}, Quota(5, 30.0, 50)),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "2027-01-15T08:00:30Z"}, Quota(5, 30.0)),
        (
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1", "x-ratelimit-resource": "graphql"},
            Quota(0, 1.0, None, "graphql"),
        ),
        ({"x-ratelimit-remaining": "5"}, None),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": "30"}, None),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "nan"}, None),
        ({}, None),
    ],
)
def test_quotas_are_read_in_every_form(headers: dict[str, str], expected: Quota | None) -> None:
    assert quota_of(headers, EPOCH_S) == expected


@given(st.dictionaries(st.sampled_from(["x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-limit"]), st.text()))
def test_nonsense_in_headers_is_no_quota_and_no_error(headers: dict[str, str]) -> None:
    quota = quota_of(headers, EPOCH_S)
    assert quota is None or (quota.remaining >= 0 and math.isfinite(quota.left_s))


@pytest.mark.parametrize("remaining", ["\u00b2", "9" * 5000, "-1", "none", ""])
def test_a_quota_that_is_no_number_is_passed_over(remaining: str) -> None:
    assert quota_of({"x-ratelimit-remaining": remaining, "x-ratelimit-reset": "5"}, EPOCH_S) is None


@pytest.mark.parametrize(
    ("reset", "left_s"),
    [(str(int(EPOCH_S + 20) * 1000), 20.0), ("99999999999", 3600.0), ("9" * 17, 3600.0), ("9999-12-31", 3600.0)],
)
def test_no_reset_closes_a_host_for_longer_than_an_hour(reset: str, left_s: float) -> None:
    quota = quota_of({"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}, EPOCH_S)
    assert quota is not None
    assert quota.left_s == left_s


@pytest.mark.parametrize("after", ["Mon, 01 Jan 99999 00:00:00 GMT", "\u00b2", "nan", ""])
async def test_a_refusal_with_a_nonsensical_time_is_a_refusal(autojump_clock: MockClock, after: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"retry-after": after.encode(), "x-ratelimit-reset": "\u00b2".encode()})

    settings = HttpSettings(base_url="http://host", name="Host", retries=Retries(attempts=2))
    async with open_http(settings, transport=httpx.MockTransport(refuse)) as http:
        with pytest.raises(Throttled):
            await http.send("GET", "/page")


async def test_a_quota_of_zero_for_ever_is_told_before_every_long_wait(autojump_clock: MockClock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": "99999999999"})

    waits: list[Wait] = []
    settings = HttpSettings(base_url="http://host", name="Host")
    async with open_http(settings, transport=httpx.MockTransport(answer)) as http:
        with heard_by(waits.append):
            for _ in range(3):
                await http.send("GET", "/page")
    assert [(one.by, round(one.wait_s), one.is_busy) for one in waits] == [("Host", 3600, True)] * 2
    assert trio.current_time() >= 7200
