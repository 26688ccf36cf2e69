"""What the store makes of answers, silence and noise; the server is a script and time is virtual."""

from __future__ import annotations

import ssl
import warnings
from typing import Any

import pytest
import trio
from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, TlsError

from callboard.protocol.store import (
    Conflict,
    Forbidden,
    NotElasticsearch,
    NotFound,
    NotSupported,
    Refused,
    Retrying,
    RetryPolicy,
    StoreError,
    Target,
    TimedOut,
    TooLarge,
    TooManyRequests,
    Unauthorised,
    Unavailable,
    Unreachable,
    UntrustedCertificate,
    open_store,
)

from .conftest import HELLO, PRODUCT, Answer, ScriptedServer

SAID = {"error": {"type": "some_exception", "reason": "the reason"}, "status": 400}


def refused(reason: str = "the reason", kind: str = "some_exception") -> dict[str, Any]:
    return {"error": {"type": kind, "reason": reason}}


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        (400, SAID, Refused, "the reason"),
        (
            400,
            {"error": "no handler found for uri [/x] and method [GET]", "status": 400},
            NotSupported,
            "does not have",
        ),
        (401, SAID, Unauthorised, "API key, user and password"),
        (403, refused("action is unauthorized"), Forbidden, "may not do GET /_cat/indices .* action is unauthorized"),
        (404, refused("no such index [x]", "index_not_found_exception"), NotFound, "no such index"),
        (409, SAID, Conflict, "wrote first"),
        (413, "", TooLarge, "smaller batches"),
        (500, SAID, Refused, "500"),
        (501, SAID, NotSupported, "does not have"),
    ],
)
async def test_each_refusal_has_its_error_and_is_said_once(
    server: ScriptedServer, status: int, body: Any, expected: type[StoreError], words: str
) -> None:
    server.answers(Answer(status, body))
    async with open_store(server.target(), wait_s=None) as store:
        with pytest.raises(expected, match=words) as caught:
            await store.client.cat.indices(format="json")
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "expected"), [(429, TooManyRequests), (502, Unavailable), (503, Unavailable), (504, Unavailable)]
)
async def test_an_overloaded_server_is_asked_until_patience_ends(
    server: ScriptedServer, autojump_clock: object, status: int, expected: type[StoreError]
) -> None:
    server.answers(Answer(status, refused("too busy")))
    async with open_store(server.target(), wait_s=None) as store:
        with pytest.raises(expected, match="too busy"):
            await store.client.count(index="x")
    assert len(server.asked) > 5
    assert trio.current_time() <= 60


async def test_it_is_asked_again_no_sooner_than_it_said(server: ScriptedServer, autojump_clock: object) -> None:
    busy = Answer(429, refused(), {**PRODUCT, "retry-after": "17"})
    server.answers(busy, busy, Answer(200, {"count": 3, "_shards": {"failed": 0}}))
    told: list[Retrying] = []
    async with open_store(server.target(), wait_s=None, on_retry=told.append) as store:
        assert await store.content.count("x") == 3
    gaps = [later.at_s - earlier.at_s for earlier, later in zip(server.asked, server.asked[1:], strict=False)]
    assert all(17 <= gap < 18 for gap in gaps)
    assert [(each.attempt, each.why) for each in told] == [(1, "HTTP status 429"), (2, "HTTP status 429")]


async def test_bulk_requests_obey_the_same_policy(server: ScriptedServer, autojump_clock: object) -> None:
    lost = Answer(body=NoConnection("cut"))
    server.answers(lost, Answer(503), Answer(200, {"took": 1, "errors": False, "items": [{"index": {"status": 201}}]}))
    async with open_store(server.target(), wait_s=None) as store:
        answer = await store.content.bulk(b'{"index":{}}\n{}\n', index="x y", pipeline="p")
        assert answer.items == [{"index": {"status": 201}}]
        server.answers(Answer(503))
        with pytest.raises(Unavailable):
            await store.content.bulk(b"", index="x", policy=RetryPolicy(patience_s=0))
    assert len(server.asked) == 4
    assert server.asked[0].path == "/x y/_bulk"
    assert "pipeline=p" in server.asked[0].query
    assert server.asked[0].headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize("failure", [NoConnection("cut"), ConnectionTimeout("slow")])
async def test_missing_answers_are_asked_for_again(
    server: ScriptedServer, autojump_clock: object, failure: Exception
) -> None:
    server.answers(Answer(body=failure), Answer(body=failure), Answer(200, HELLO))
    async with open_store(server.target(), wait_s=None) as store:
        assert (await store.client.info())["cluster_name"] == "scripted"


async def test_nothing_is_tried_again_when_the_caller_says_so(server: ScriptedServer) -> None:
    server.answers(Answer(503))
    async with open_store(server.target(), wait_s=None) as store:
        with pytest.raises(Unavailable):
            await store.client.options(max_retries=0).info()
    assert len(server.asked) == 1


async def test_a_server_that_hangs_times_out(server: ScriptedServer, autojump_clock: object) -> None:
    server.answers(Answer(200, HELLO, delay_s=1000))
    target = server.target(request_timeout_s=5, retries=RetryPolicy(patience_s=0))
    async with open_store(target, wait_s=None) as store:
        with pytest.raises(TimedOut, match="no answer to GET / in time"):
            await store.client.info()
    assert trio.current_time() == pytest.approx(5)


async def test_tls_trouble_is_final_and_says_what_to_do(server: ScriptedServer) -> None:
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"
    server.answers(Answer(body=TlsError("tls", errors=(untrusted,))))
    async with open_store(server.target(), wait_s=None) as store:
        with pytest.raises(UntrustedCertificate, match=r"self-signed certificate.*ca_certs"):
            await store.client.info()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>It works!</html>", {"content-type": "text/html"}),
        Answer(404, b"<html>Not found</html>", {"content-type": "text/html"}),
        Answer(200, {"hello": "world"}, {}),
        Answer(200, b"not json at all", dict(PRODUCT)),
        Answer(200, {"version": "9"}, dict(PRODUCT)),
        Answer(302, b"", {"location": "/login"}),
    ],
)
async def test_what_is_not_elasticsearch_is_said_so_at_once(server: ScriptedServer, answer: Answer) -> None:
    server.answers(answer)
    with pytest.raises(NotElasticsearch, match="embedded node"):
        async with open_store(server.target(), wait_s=60):
            raise AssertionError
    assert len(server.asked) == 1


async def test_a_bulk_answer_of_something_else_is_not_taken_for_success(server: ScriptedServer) -> None:
    server.answers(Answer(200, {"items": []}, {}))
    async with open_store(server.target(), wait_s=None) as store:
        with pytest.raises(NotElasticsearch):
            await store.content.bulk(b"", index="x")


async def test_opening_waits_for_a_server_that_is_starting(server: ScriptedServer, autojump_clock: object) -> None:
    down = Answer(body=NoConnection("refused"))
    server.answers(down, Answer(503), down, Answer(200, HELLO))
    async with open_store(server.target(), wait_s=60) as store:
        assert store.server is not None
        assert store.server.version == "9.5.3"
    assert [round(each.at_s) for each in server.asked] == [0, 1, 3, 7]


async def test_opening_gives_up_when_time_is_up(server: ScriptedServer, autojump_clock: object) -> None:
    server.answers(Answer(body=NoConnection("refused")))
    with pytest.raises(Unreachable):
        async with open_store(server.target(), wait_s=20):
            raise AssertionError
    assert trio.current_time() == pytest.approx(20)


async def test_opening_does_not_wait_for_what_waiting_cannot_cure(
    server: ScriptedServer, autojump_clock: object
) -> None:
    server.answers(Answer(401, refused("unable to authenticate user [ada]")))
    with pytest.raises(Unauthorised):
        async with open_store(server.target(), wait_s=60):
            raise AssertionError
    assert trio.current_time() == 0


async def test_credentials_that_may_not_ask_for_the_version_can_still_work(server: ScriptedServer) -> None:
    server.answers(Answer(403, refused()))
    async with open_store(server.target()) as store:
        assert store.server is None


async def test_secrets_never_get_into_an_error(server: ScriptedServer) -> None:
    server.answers(Answer(400, refused("you sent aWQ6dG9wc2VjcmV0 and topsecret and hunter2hunter2")))
    target = server.target(api_key="id:topsecret", username="ada", password="hunter2hunter2")
    async with open_store(target, wait_s=None) as store:
        for call in (store.client.info(), store.content.bulk(b"", index="x"), store.client.options().info()):
            with pytest.raises(Refused) as caught:
                await call
            for secret in ("aWQ6dG9wc2VjcmV0", "topsecret", "hunter2"):
                assert secret not in str(caught.value)
                assert secret not in repr(caught.value)


async def test_every_request_says_who_asks_and_in_which_format(server: ScriptedServer) -> None:
    server.answers(Answer(200, {"took": 1, "errors": False, "items": [], "count": 0, "_shards": {"failed": 0}}))
    async with open_store(server.target(role="service", api_key="abcd"), wait_s=None) as store:
        await store.client.index(index="x", document={"a": 1})
        await store.client.bulk(operations=[{"delete": {"_id": "1"}}], index="x")
        await store.content.bulk(b"", index="x")
        await store.content.count("x")
    for asked in server.asked:
        assert asked.headers["x-elastic-product-origin"] == "connectors"
        assert asked.headers["user-agent"].startswith("callboard-")
        assert asked.headers["user-agent"].endswith("/service")
        assert asked.headers["authorization"] == "ApiKey abcd"
        # Versioned media types would be refused by a server of another major version.
        assert asked.headers["accept"] == "application/json"
        assert asked.headers.get("content-type", "application/json") in ("application/json", "application/x-ndjson")


async def test_warnings_of_the_server_do_not_become_ours(server: ScriptedServer) -> None:
    server.answers(Answer(200, HELLO, {**PRODUCT, "warning": '299 Elasticsearch-9 "this is deprecated"'}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with open_store(server.target()) as store:
            assert store.server is not None


async def test_a_cancelled_call_ends_at_once(server: ScriptedServer, autojump_clock: object) -> None:
    server.answers(Answer(503))
    async with open_store(server.target(), wait_s=None) as store:
        with trio.move_on_after(0.1) as scope:
            await store.client.info()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(0.1)


async def test_an_httpx_transport_can_be_embedded_too(server: ScriptedServer) -> None:
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["x-elastic-product-origin"] == "connectors"
        return httpx.Response(200, json=HELLO, headers=PRODUCT)

    server.answers(Answer(200, HELLO))
    for transport in (httpx.ASGITransport(server), httpx.MockTransport(answer)):
        async with open_store(Target(embedded=transport)) as store:
            assert store.server is not None
            assert store.server.cluster_name == "scripted"


@pytest.mark.parametrize(
    "greeting",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP\r\nContent-Type: text/html\r\n\r\n<html>files</html>",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nnot found",
        b"\x15\x03\x03\x00\x02\x02\x46",
    ],
)
@pytest.mark.parametrize("transport", ["lean", "httpx"])
async def test_another_kind_of_server_is_known_for_what_it_is(greeting: bytes, transport: Any) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(greeting)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        target = Target(f"http://127.0.0.1:{port}", transport=transport, retries=RetryPolicy(patience_s=0))
        expected = NotElasticsearch if transport == "lean" else (NotElasticsearch, Unreachable)
        with pytest.raises(expected, match=f"127.0.0.1:{port}"):
            async with open_store(target):
                raise AssertionError
        nursery.cancel_scope.cancel()
