"""The HTTP toolkit against a scripted transport, under virtual time: nobody really waits."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from callboard.sources.errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Throttled,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.http import (
    Cursor,
    HttpClient,
    HttpSettings,
    NextLink,
    OAuthClientCredentials,
    Offset,
    PageNumber,
    RepeatedPage,
    Retries,
    ShortListing,
    TokenBucket,
    linked,
    open_http,
)

Script = Callable[[httpx.Request], httpx.Response]
ONCE = Retries(attempts=1)


@asynccontextmanager
async def client(
    *answers: httpx.Response | Exception | Script, auth: httpx.Auth | None = None, **settings: Any
) -> AsyncIterator[tuple[HttpClient, list[httpx.Request]]]:
    asked: list[httpx.Request] = []
    script = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    chosen = HttpSettings(base_url="http://wiki", name="The wiki", **settings)
    async with open_http(chosen, auth=auth, transport=httpx.MockTransport(handle)) as opened:
        yield opened, asked


def ok(content: Any = None) -> httpx.Response:
    return httpx.Response(200, json={"fine": True} if content is None else content)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UnexpectedAnswer),
        (401, CredentialsError),
        (403, PermissionDenied),
        (404, NotFound),
        (410, NotFound),
        (429, Throttled),
        (500, Transient),
        (503, Transient),
    ],
)
async def test_each_status_is_one_kind_of_error_and_says_where(status: int, kind: type[SourceError]) -> None:
    async with client(httpx.Response(status, text="no luck"), retries=ONCE) as (http, _):
        with pytest.raises(kind, match=r"The wiki answered GET /pages with \d+ \(no luck\)") as caught:
            await http.json("GET", "/pages?token=secret")
    assert "secret" not in str(caught.value)


async def test_what_may_work_again_is_tried_again_with_growing_pauses(autojump_clock: MockClock) -> None:
    async with client(httpx.Response(500), httpx.ConnectError("refused"), httpx.Response(502), ok()) as (http, asked):
        assert await http.json("GET", "/a") == {"fine": True}
    assert len(asked) == 4


async def test_what_cannot_work_is_tried_once() -> None:
    async with client(httpx.Response(403)) as (http, asked):
        with pytest.raises(PermissionDenied):
            await http.json("GET", "/a")
    assert len(asked) == 1


async def test_tries_end(autojump_clock: MockClock) -> None:
    async with client(httpx.Response(500), retries=Retries(attempts=3)) as (http, asked):
        with pytest.raises(Transient):
            await http.json("GET", "/a")
    assert len(asked) == 3


@pytest.mark.parametrize("header", ["7", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_retry_after_is_kept_to_the_second(autojump_clock: MockClock, header: str) -> None:
    async with client(httpx.Response(429, headers={"retry-after": header}), ok()) as (http, _):
        started = trio.current_time()
        await http.json("GET", "/a")
    waited = trio.current_time() - started
    assert waited == pytest.approx(7, abs=0.1) if header == "7" else waited < 1


async def test_everybody_at_a_throttled_host_waits(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(per_second=10, burst=1)
    bucket.throttled(5)
    times: list[float] = []

    async def ask() -> None:
        await bucket.take()
        times.append(trio.current_time())

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert times[0] - started == pytest.approx(5, abs=0.3)
    assert times[2] - times[1] == pytest.approx(0.2, abs=0.05)


async def test_a_bucket_lets_its_rate_through(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(per_second=20, burst=5)
    started = trio.current_time()
    for _ in range(105):
        await bucket.take()
    assert trio.current_time() - started == pytest.approx(5, abs=0.1)


async def test_a_body_that_breaks_off_raises_and_is_not_begun_anew() -> None:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"half"
            raise httpx.ReadError("cut")

    async with client(lambda _: httpx.Response(200, stream=Broken())) as (http, asked):
        with pytest.raises(Transient, match="cannot be reached"):
            await read_all(http)
    assert len(asked) == 1


async def read_all(http: HttpClient) -> bytes:
    async with http.stream("GET", "/file") as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_something_else_than_json_is_said() -> None:
    async with client(httpx.Response(200, text="<html>")) as (http, _):
        with pytest.raises(UnexpectedAnswer, match="something else than JSON"):
            await http.json("GET", "/a")


def tokens(*values: str, lasts_s: int = 3600) -> Script:
    left = list(values)

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(200, json={"access_token": left.pop(0), "expires_in": lasts_s})
        good = request.headers["authorization"] == "Bearer good"
        return ok() if good else httpx.Response(401)

    return handle


async def test_a_token_is_fetched_once_for_many() -> None:
    auth = OAuthClientCredentials("http://wiki/token", "me", "secret")
    async with client(tokens("good"), auth=auth) as (http, asked), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(http.json, "GET", "/a")
    assert [request.url.path for request in asked].count("/token") == 1


async def test_a_token_that_is_refused_is_fetched_anew_once() -> None:
    auth = OAuthClientCredentials("http://wiki/token", "me", "secret")
    async with client(tokens("stale", "good"), auth=auth) as (http, _):
        assert await http.json("GET", "/a") == {"fine": True}
    async with client(
        tokens("stale", "stale", "good"), auth=OAuthClientCredentials("http://wiki/token", "me", "s")
    ) as (http, _):
        with pytest.raises(CredentialsError):
            await http.json("GET", "/a")


async def test_a_token_is_fetched_anew_before_it_expires(autojump_clock: MockClock) -> None:
    auth = OAuthClientCredentials("http://wiki/token", "me", "secret")
    async with client(tokens("good", "good", lasts_s=120), auth=auth) as (http, asked):
        await http.json("GET", "/a")
        await trio.sleep(61)
        await http.json("GET", "/a")
    assert [request.url.path for request in asked].count("/token") == 2


async def test_a_refused_client_is_a_credentials_error_without_the_secret() -> None:
    auth = OAuthClientCredentials("http://wiki/token", "me", "canary")
    async with client(httpx.Response(400), auth=auth) as (http, _):
        with pytest.raises(CredentialsError, match="wiki does not accept") as caught:
            await http.json("GET", "/a")
    assert "canary" not in str(caught.value)


def test_offsets_go_on_to_the_total_and_notice_a_short_listing() -> None:
    pager = Offset("startAt", "maxResults", 50, total="total")
    second = pager.after(pager.first(), {"total": 60}, 50)
    assert second == {"startAt": 50, "maxResults": 50}
    assert pager.after(second, {"total": 60}, 10) is None
    with pytest.raises(ShortListing, match="after 50 of 60"):
        pager.after(second, {"total": 60}, 0)


def test_pages_end_with_an_empty_one_even_if_the_server_gives_less() -> None:
    pager = PageNumber(size=100)
    second = pager.after(pager.first(), None, 30)
    assert second == {"page": 2, "per_page": 100}
    assert pager.after(second, None, 0) is None


def test_a_cursor_that_comes_twice_is_an_error() -> None:
    pager = Cursor("cursor", "meta.next", {"limit": 5})
    second = pager.after(pager.first(), {"meta": {"next": "x"}}, 5)
    assert second == {"limit": 5, "cursor": "x"}
    assert pager.after(second, {"meta": {}}, 5) is None
    with pytest.raises(RepeatedPage):
        pager.after(second, {"meta": {"next": "x"}}, 5)


def test_links_are_found_and_never_followed_in_a_circle() -> None:
    headers = httpx.Headers({"link": '<http://a/?p=1>; rel="prev", <http://a/?p=3,4>; rel="next last"; title="x"'})
    assert linked(headers) == "http://a/?p=3,4"
    assert linked(headers, "first") is None
    assert linked(httpx.Headers()) is None
    pager = NextLink("@odata.nextLink")
    assert pager.after({"@odata.nextLink": "http://a"}) == "http://a"
    assert pager.after({}) is None
    with pytest.raises(RepeatedPage):
        pager.after({"@odata.nextLink": "http://a"})


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (httpx.Response(403, headers={"retry-after": "7", "x-ratelimit-remaining": "50"}), 7),
        (httpx.Response(403, content=b"You have exceeded a secondary rate limit"), 60),
    ],
)
async def test_limits_on_bursts_that_come_as_403_are_waited_for(
    answer: httpx.Response, wait_s: float, autojump_clock: MockClock
) -> None:
    before_s = trio.current_time()
    async with client(answer, httpx.Response(200, json={})) as (opened, asked):
        await opened.json("GET", "/x")
    assert len(asked) == 2
    assert trio.current_time() - before_s == pytest.approx(wait_s, abs=1)


async def test_an_untrusted_certificate_names_the_setting_and_is_not_tried_again() -> None:
    lost = httpx.ConnectError("no")
    lost.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    async with client(lost, verify_setting="verify_certificates") as (opened, asked):
        with pytest.raises(ConfigurationError, match="'verify_certificates'"):
            await opened.json("GET", "/x")
    assert len(asked) == 1
