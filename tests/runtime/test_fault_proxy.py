"""Faults on the wire, before a server that remembers what really reached it; and that a proxy without rules is not noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from callboard.runtime.faults import FaultProxy, InvalidPlan, NetworkFaultPlan, open_fault_proxy, read_network_plan
from callboard.runtime.faults.flow import LAST, Close, Flow, Pass
from callboard.runtime.faults.network import (
    Corrupt,
    Cut,
    Delay,
    Drip,
    Effect,
    LoseResponse,
    Match,
    Refuse,
    Restart,
    Rule,
    Stall,
)

ANSWER = b"answer to "


class Server:
    """Answers every line."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        rest = b""
        try:
            while data := await stream.receive_some():
                rest += data
                while b"\n" in rest:
                    line, _, rest = rest.partition(b"\n")
                    self.lines.append(line)
                    await stream.send_all(ANSWER + line + b"\n")
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def proxied(*rules: Rule, seed: int = 0) -> AsyncIterator[tuple[FaultProxy, Server]]:
    server = Server()
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        async with open_fault_proxy("127.0.0.1", port, NetworkFaultPlan(rules, seed)) as proxy:
            with trio.fail_after(20):
                yield proxy, server
        nursery.cancel_scope.cancel()


async def asked(proxy: FaultProxy, *lines: bytes) -> bytes:
    """Everything that comes back on one connection until it ends; what was reset says so."""
    try:
        async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
            got = b""
            for line in lines:
                await stream.send_all(line + b"\n")
                while not got.endswith(b"\n") or got.count(b"\n") < lines.index(line) + 1:
                    data = await stream.receive_some()
                    if not data:
                        return got
                    got += data
            return got
    except trio.BrokenResourceError:
        return b"reset"


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not holds():  # noqa: ASYNC110 - what the kernel does tells nobody
            await trio.sleep(0.01)


def always(effect: Effect, match: Match | None = None, **conditions: Any) -> Rule:
    return Rule(effect=effect, match=match or Match(), **conditions)


async def test_without_rules_everything_passes_both_ways() -> None:
    async with proxied() as (proxy, server):
        line = b"x" * 300_000
        assert await asked(proxy, line, b"y") == ANSWER + line + b"\n" + ANSWER + b"y\n"
        assert server.lines == [line, b"y"]
        assert not proxy.happened


async def test_a_refused_connection_never_reaches_the_server_and_counts() -> None:
    async with proxied(always(Refuse(), skip=1, every=2)) as (proxy, server):
        got = [await asked(proxy, b"%d" % number) for number in range(4)]
        assert [one == b"reset" for one in got] == [False, True, False, True]
        assert server.lines == [b"0", b"2"]
        assert proxy.fired == {"0": 2}
        assert [(one.effect, one.connection) for one in proxy.happened] == [("refuse", 1), ("refuse", 3)]


@pytest.mark.parametrize(("direction", "reached"), [("response", [b"hello"]), ("request", [])])
async def test_a_connection_is_cut_after_n_bytes_in_either_direction(direction: str, reached: list[bytes]) -> None:
    async with proxied(always(Cut(after_bytes=4), Match(direction=direction))) as (proxy, server):
        assert await asked(proxy, b"hello") in ([ANSWER[:4]] if direction == "response" else [b"", b"reset"])
        assert server.lines == reached


async def test_bytes_drip() -> None:
    async with proxied(always(Drip(bytes_per_second=100), Match(direction="response"))) as (proxy, _):
        began_s = trio.current_time()
        assert await asked(proxy, b"x" * 20) == ANSWER + b"x" * 20 + b"\n"
        assert trio.current_time() - began_s >= 0.31


async def test_bytes_are_corrupted_and_a_seed_repeats_it() -> None:
    async def broken(seed: int) -> bytes:
        rule = always(Corrupt(after_bytes=2, bytes_replaced=3), Match(direction="request"))
        async with proxied(rule, seed=seed) as (proxy, server):
            await asked(proxy, b"hello, world")
            return server.lines[0]

    first = await broken(5)
    assert first[:2] == b"he"
    assert first[5:] == b", world"
    assert all(one != other for one, other in zip(first[2:5], b"llo", strict=True))
    assert first == await broken(5)
    assert first != await broken(6)


async def test_a_stall_lasts_until_the_client_leaves() -> None:
    async with proxied(always(Stall(after_bytes=3), Match(direction="response"))) as (proxy, server):
        with trio.move_on_after(0.3) as limit:
            await asked(proxy, b"hello")
        assert limit.cancelled_caught
        assert server.lines == [b"hello"]
        await until(lambda: not proxy.connections)


async def test_a_delay_holds_the_bytes_behind_a_pattern_once() -> None:
    async with proxied(always(Delay(seconds=0.3), Match(contains="slow", direction="request"))) as (proxy, _):
        began_s = trio.current_time()
        await asked(proxy, b"quick")
        assert trio.current_time() - began_s < 0.25
        await asked(proxy, b"slow", b"quick")
        assert trio.current_time() - began_s >= 0.3


@pytest.mark.parametrize("match", [Match(), Match(contains="order", direction="request")])
async def test_a_lost_response_was_really_done(match: Match) -> None:
    async with proxied(always(LoseResponse(), match)) as (proxy, server):
        assert await asked(proxy, b"order 1") in (b"", b"reset")
        assert server.lines == [b"order 1"]


async def test_a_pattern_is_found_across_pieces_and_counted() -> None:
    async with proxied(always(Cut(), Match(contains="two words", direction="request"), skip=1)) as (proxy, server):
        async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
            for part in (b"two words\ntwo", b" wor", b"ds after\n"):
                await stream.send_all(part)
                await trio.sleep(0.05)
            got = b""
            try:
                while data := await stream.receive_some():
                    got += data
            except trio.BrokenResourceError:
                pass
        assert server.lines == [b"two words"]


async def test_a_restart_drops_all_refuses_for_a_while_and_keeps_its_port() -> None:
    async with proxied() as (proxy, _):
        async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
            await stream.send_all(b"hello\n")
            await stream.receive_some()
            began_s = trio.current_time()
            proxy.restart(0.4)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert proxy.is_down
        with trio.socket.socket() as refused, pytest.raises(ConnectionRefusedError):
            await refused.connect((proxy.host, proxy.port))
        while True:
            try:
                assert await asked(proxy, b"again") == ANSWER + b"again\n"
                break
            except OSError:
                await trio.sleep(0.02)
        assert trio.current_time() - began_s >= 0.4


async def test_restarts_come_again_at_their_times() -> None:
    async with proxied(always(Restart(down_s=0.05), from_s=0.1, every_s=0.2, times=3)) as (proxy, _):
        await until(lambda: proxy.fired["0"] == 3)
        times = [one.at_s for one in proxy.happened]
        assert [round(at_s, 1) for at_s in times] == [0.1, 0.3, 0.5]
        await until(lambda: not proxy.is_down)
        assert await asked(proxy, b"up") == ANSWER + b"up\n"


async def test_an_empty_plan_heals() -> None:
    async with proxied(always(Refuse())) as (proxy, _):
        assert await asked(proxy, b"x") == b"reset"
        proxy.use(NetworkFaultPlan())
        assert await asked(proxy, b"x") == ANSWER + b"x\n"


async def test_a_server_that_is_not_there_resets() -> None:
    with trio.socket.socket() as nobody:
        await nobody.bind(("127.0.0.1", 0))
        async with open_fault_proxy("127.0.0.1", nobody.getsockname()[1]) as proxy:
            assert await asked(proxy, b"x") == b"reset"


async def test_what_the_client_does_not_read_is_not_read_from_the_server() -> None:
    sent = 0

    async def pour(stream: trio.SocketStream) -> None:
        nonlocal sent
        while True:
            await stream.send_all(b"x" * 65536)
            sent += 65536

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, pour, 0, host="127.0.0.1"))
        async with open_fault_proxy("127.0.0.1", listeners[0].socket.getsockname()[1]) as proxy:
            stream = await trio.open_tcp_stream(proxy.host, proxy.port)
            await trio.sleep(0.3)
            before = sent
            await trio.sleep(0.3)
            assert sent == before
            stream.socket.close()
        nursery.cancel_scope.cancel()


async def test_more_connections_than_it_holds_wait_for_their_turn() -> None:
    server = Server()
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
        )
        behind = listeners[0].socket.getsockname()[1]
        async with open_fault_proxy("127.0.0.1", behind, connections_max=2) as proxy:
            held = [await trio.open_tcp_stream(proxy.host, proxy.port) for _ in range(3)]
            for number, stream in enumerate(held):
                await stream.send_all(b"%d\n" % number)
            await until(lambda: len(server.lines) == 2)
            await trio.sleep(0.1)
            assert (proxy.connections, sorted(server.lines)) == (2, [b"0", b"1"])
            await held[0].aclose()
            await until(lambda: sorted(server.lines) == [b"0", b"1", b"2"])
            for stream in held:
                await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_cancelled_amid_everything_it_leaves_nothing_open() -> None:
    rules = [always(Drip(bytes_per_second=1), Match(direction="response")), always(Stall(after_bytes=1), skip=1)]
    async with proxied(*rules) as (proxy, _):
        with trio.move_on_after(0.3):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(asked, proxy, b"line %d" % number)
        await until(lambda: not proxy.connections)
        port = proxy.port
    with trio.socket.socket() as again:
        await again.bind(("127.0.0.1", port))


async def test_others_may_not_reach_it() -> None:
    with pytest.raises(ValueError, match="this machine only"):
        async with open_fault_proxy("127.0.0.1", 1, host="0.0.0.0"):
            pass


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_fault_proxy("127.0.0.1", 1):
            raise KeyError


effects = st.one_of(
    st.builds(lambda at: Cut(after_bytes=at), st.integers(0, 30)),
    st.builds(lambda at, count: Corrupt(after_bytes=at, bytes_replaced=count), st.integers(0, 30), st.integers(1, 5)),
)
rules = st.builds(
    lambda effect, contains: Rule(effect=effect, match=Match(contains=contains)),
    effects,
    st.sampled_from(["", "ab", "aa"]),
)


def flowed(pieces: list[bytes], given_rules: list[Rule]) -> tuple[bytes, bool]:
    flow, out = Flow(), b""
    for number, rule in enumerate(given_rules):
        if rule.match.contains:
            flow.seek(rule, Random(number), lambda: True)
        else:
            flow.place(rule, Random(number))
    for piece in pieces:
        for step in flow.feed(piece):
            if isinstance(step, Pass):
                out += step.data
            if isinstance(step, LAST):
                return out, isinstance(step, Close)
    return out, False


@given(
    st.lists(st.text("ab", min_size=1, max_size=12).map(str.encode), min_size=1, max_size=6),
    st.lists(rules, max_size=3),
)
def test_what_passes_does_not_depend_on_how_it_was_cut(pieces: list[bytes], given_rules: list[Rule]) -> None:
    assert flowed(pieces, given_rules) == flowed([b"".join(pieces)], given_rules)


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=6))
def test_without_rules_a_flow_changes_nothing(pieces: list[bytes]) -> None:
    assert flowed(pieces, []) == (b"".join(pieces), False)


def test_a_plan_is_read_from_plain_data() -> None:
    content = {
        "seed": 7,
        "rules": [
            {"chance": 0.1, "match": {"direction": "response"}, "do": {"cut": {"after_bytes": 200}}},
            {"match": {"contains": "_bulk"}, "every": 5, "do": "lose_response"},
            {"from_s": 60, "every_s": 300, "do": {"restart": {"down_s": 10}}},
        ],
    }
    assert read_network_plan(content) == NetworkFaultPlan(
        (
            Rule(effect=Cut(after_bytes=200), match=Match(direction="response"), chance=0.1),
            Rule(effect=LoseResponse(), match=Match(contains="_bulk"), every=5),
            Rule(effect=Restart(down_s=10), from_s=60, every_s=300),
        ),
        7,
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"do": "dripp"}, r"rules\[0\].do: unknown effect 'dripp'; did you mean 'drip'\?"),
        ({"do": "drip"}, "needs bytes_per_second"),
        ({"do": {"drip": {"bytes_per_second": 0}}}, "greater than 0"),
        ({"do": {"cut": {"after_bytes": -1}}}, "at least 0"),
        ({"do": "cut", "match": {"direction": "respons"}}, "did you mean 'response'"),
        ({"do": "cut", "match": {"point": "time"}}, "cut can happen at connection, bytes, not at time"),
        ({"do": "refuse", "match": {"contains": "x"}}, "refuse can happen at connection, not at bytes"),
        ({"do": "cut", "match": {"point": "bytes"}}, "needs `contains`"),
        ({"do": "cut", "match": {"point": "connection", "contains": "x"}}, "cannot be used at the point"),
        ({"do": "cut", "from_s": 5, "until_s": 50, "every_s": 10}, "must not be shorter"),
        ({"do": "cut", "every_s": 0}, "every_s must be greater"),
    ],
)
def test_a_bad_plan_says_what_is_wrong(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPlan, match=said):
        read_network_plan({"rules": [rule]})
