"""Faults in front of a server: the application behind is a scripted one that remembers what really reached it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from callboard.node.faults import (
    Corrupt,
    CutBody,
    Delay,
    Drip,
    Effect,
    FailItems,
    FaultyApp,
    ForwardingApp,
    InvalidPlan,
    LoseResponse,
    Match,
    Refuse,
    Rule,
    ServerFaultPlan,
    StaleRead,
    Status,
    read_plan,
)
from callboard.node.faults.forwarding import read_body
from callboard.node.faults.server import ConnectionCut


class Recorder:
    """Answers every request with its number, and bulk requests as Elasticsearch would."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        self.bodies.append(body)
        content: Any = {"number": len(self.bodies)}
        if scope["path"].endswith("/_bulk"):
            actions = [orjson.loads(line) for line in body.splitlines() if line.startswith(b'{"index"')]
            items = [{"index": {"_id": action["index"]["_id"], "status": 201}} for action in actions]
            content = {"took": 1, "errors": False, "items": items}
        text = orjson.dumps(content)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


Faulty = Callable[..., Any]


@asynccontextmanager
async def faulty(*rules: Rule, seed: int = 0) -> AsyncIterator[tuple[httpx.AsyncClient, Recorder, FaultyApp]]:
    behind = Recorder()
    app = FaultyApp(behind, ServerFaultPlan(rules, seed))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://node") as client:
        yield client, behind, app


def always(effect: Effect, **conditions: Any) -> Rule:
    return Rule(effect=effect, **conditions)


async def test_without_rules_everything_passes() -> None:
    async with faulty() as (client, behind, _):
        assert (await client.post("/a", content=b"x")).json() == {"number": 1}
        assert behind.bodies == [b"x"]


async def test_a_refused_request_never_reaches_the_server() -> None:
    async with faulty(always(Refuse())) as (client, behind, _):
        with pytest.raises(ConnectionCut):
            await client.get("/a")
        assert behind.bodies == []


async def test_a_lost_response_was_really_done() -> None:
    async with faulty(always(LoseResponse())) as (client, behind, _):
        with pytest.raises(ConnectionCut):
            await client.put("/a", content=b"x")
        assert behind.bodies == [b"x"]


async def test_an_error_status_carries_its_retry_after() -> None:
    async with faulty(always(Status(status=429, retry_after_s=2))) as (client, behind, _):
        answer = await client.get("/a")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert answer.headers["x-elastic-product"] == "Elasticsearch"
        assert behind.bodies == []


async def test_a_cut_body_ends_early() -> None:
    async with faulty(always(CutBody(after_bytes=3))) as (client, behind, _):
        with pytest.raises(ConnectionCut):
            await client.get("/a")
        assert len(behind.bodies) == 1


async def test_a_corrupt_body_keeps_its_length() -> None:
    async with faulty(always(Corrupt(bytes_replaced=2), times=1)) as (client, _, _):
        broken, whole = await client.get("/a"), await client.get("/a")
        assert len(broken.content) == len(whole.content)
        assert b"\x00\x00" in broken.content


async def test_a_stale_read_answers_what_was_answered_before() -> None:
    async with faulty(always(StaleRead(), skip=1)) as (client, behind, _):
        assert (await client.get("/a")).json() == {"number": 1}
        assert (await client.get("/a")).json() == {"number": 1}
        assert (await client.get("/b")).json() == {"number": 2}
        assert len(behind.bodies) == 2


async def test_delay_and_drip_take_their_time(autojump_clock: MockClock) -> None:
    async with faulty(always(Delay(seconds=5)), always(Drip(bytes_per_second=2))) as (client, _, _):
        started = trio.current_time()
        answer = await client.get("/a")
        assert answer.json() == {"number": 1}
        assert trio.current_time() - started == pytest.approx(5 + len(answer.content) / 2)


BULK = b"".join(b'{"index": {"_index": "i", "_id": "%d"}}\n{"a": %d}\n' % (number, number) for number in range(6))


async def test_failed_items_stand_in_their_places_and_are_not_done() -> None:
    async with faulty(always(FailItems(status=429, ids=("1", "4")))) as (client, behind, _):
        answer = (await client.post("/_bulk", content=BULK)).json()
        outcomes = [(item["index"]["_id"], item["index"]["status"]) for item in answer["items"]]
        assert outcomes == [("0", 201), ("1", 429), ("2", 201), ("3", 201), ("4", 429), ("5", 201)]
        assert answer["errors"] is True
        assert b'"_id": "1"' not in behind.bodies[0]


async def test_when_all_items_fail_the_server_is_not_asked() -> None:
    async with faulty(always(FailItems(status=503))) as (client, behind, _):
        answer = (await client.post("/_bulk", content=BULK)).json()
        assert len(answer["items"]) == 6
        assert behind.bodies == []


async def test_a_share_of_items_fails_and_a_seed_repeats_it() -> None:
    async def failed(seed: int) -> list[str]:
        async with faulty(always(FailItems(status=429, share=0.5)), seed=seed) as (client, _, _):
            items = (await client.post("/_bulk", content=BULK * 20)).json()["items"]
        return [item["index"]["_id"] for item in items if item["index"]["status"] == 429]

    assert 30 < len(await failed(1)) < 90
    assert await failed(1) == await failed(1)
    assert await failed(1) != await failed(2)


async def test_rules_can_be_about_some_requests_only() -> None:
    rule = always(Status(status=503), match=Match(path="/x/*", method="PUT", body_contains="poison"))
    async with faulty(rule) as (client, _, _):
        assert (await client.put("/x/1", content=b"poison")).status_code == 503
        assert (await client.put("/x/1", content=b"bread")).status_code == 200
        assert (await client.post("/x/1", content=b"poison")).status_code == 200
        assert (await client.put("/y/1", content=b"poison")).status_code == 200


async def test_skip_every_and_times_count() -> None:
    async with faulty(always(Status(status=503), skip=1, every=2, times=2)) as (client, _, app):
        answers = [(await client.get("/a")).status_code for _ in range(8)]
        assert answers == [200, 503, 200, 503, 200, 200, 200, 200]
        assert app.firing.fired == [2]


async def test_a_rule_has_its_time(autojump_clock: MockClock) -> None:
    async with faulty(always(Status(status=503), from_s=10, until_s=20)) as (client, _, _):
        assert (await client.get("/a")).status_code == 200
        await trio.sleep(10)
        assert (await client.get("/a")).status_code == 503
        await trio.sleep(10)
        assert (await client.get("/a")).status_code == 200


async def test_a_plan_can_be_exchanged_and_healed() -> None:
    async with faulty(always(Status(status=503))) as (client, _, app):
        assert (await client.get("/a")).status_code == 503
        app.use(ServerFaultPlan())
        assert (await client.get("/a")).status_code == 200


async def test_forwarding_gives_the_other_servers_answer() -> None:
    behind = Recorder()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=behind), base_url="http://real") as inner:
        app = ForwardingApp(inner)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://front") as client:
            answer = await client.post("/a?pretty", content=b"x")
    assert answer.json() == {"number": 1}
    assert behind.bodies == [b"x"]


def test_a_plan_is_read_from_plain_data() -> None:
    plan = read_plan(
        {
            "seed": 7,
            "rules": [
                {"match": {"path": "*/_bulk"}, "chance": 0.2, "do": {"status": {"status": 429, "retry_after_s": 1}}},
                {"every": 10, "do": "lose_response"},
            ],
        }
    )
    assert plan.seed == 7
    assert plan.rules[0] == Rule(effect=Status(status=429, retry_after_s=1), match=Match(path="*/_bulk"), chance=0.2)
    assert plan.rules[1] == Rule(effect=LoseResponse(), every=10)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([], "a map with the keys"),
        ({"rules": []}, "at least one rule"),
        ({"rules": [{"do": "explode"}]}, "rules[0].do: unknown effect 'explode'; known are corrupt, cut_body"),
        ({"rules": [{"do": "stale_reed"}]}, "rules[0].do: unknown effect 'stale_reed'; did you mean 'stale_read'?"),
        ({"rules": [{"do": {"restart": {"down_s": 0}}}]}, "rules[0].do.restart: down_s must be greater than 0"),
        ({"rules": [{"do": {"restart": {"down_s": 1, "loses": "unsafed"}}}]}, "did you mean 'unsaved'"),
        ({"rules": [{"do": {"drip": {"bytes_per_second": 0}}}]}, "greater than 0"),
        ({"rules": [{"do": {"fail_items": {"status": 400, "ids": "one"}}}]}, "must be a list of texts"),
        ({"rules": [{}]}, "rules[0] needs the key `do`"),
        ({"rules": [{"do": {"status": {}}}]}, "rules[0].do.status needs status"),
        ({"rules": [{"do": {"status": {"status": 200}}}]}, "from 400 to 599"),
        ({"rules": [{"do": "refuse", "chance": 2}]}, "between 0 and 1"),
        ({"rules": [{"do": "refuse", "every": 0}]}, "`every` must be at least 1"),
        ({"rules": [{"do": "refuse", "evry": 2}]}, "rules[0]: unknown key 'evry'; did you mean 'every'?"),
        ({"rules": [{"do": {"delay": {"seconds": "long"}}}]}, "rules[0].do.delay.seconds must be a number"),
        ({"rules": [{"do": "refuse", "match": {"path": "x", "host": "y"}}]}, "rules[0].match: unknown key 'host'"),
        ({"seed": "x", "rules": [{"do": "refuse"}]}, "seed must be a whole number"),
    ],
)
def test_a_wrong_plan_says_which_rule_and_why(content: Any, part: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        read_plan(content)
    assert part in str(caught.value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["do", "match", "status", "path", "delay", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"rules": st.lists(st.dictionaries(st.sampled_from(["do", "match", "chance", "every"]), plain), max_size=3)}
    )
    | plain
)
def test_any_data_is_a_plan_or_an_invalid_one(content: Any) -> None:
    try:
        plan = read_plan(content)
    except InvalidPlan:
        return
    assert plan.rules
