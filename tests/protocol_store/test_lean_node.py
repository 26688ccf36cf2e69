"""The lean node against servers that behave, misbehave, hang and hang up: each is a script over a real loopback socket."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, HttpHeaders, NodeConfig, TlsError

from callboard.protocol.store.lean_node import JOINED_BYTES_MAX, LeanNode
from callboard.protocol.store.retries import Failing
from callboard.protocol.store.translation import failing

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[[trio.SocketStream], Awaitable[None]]


async def request_of(stream: trio.SocketStream) -> tuple[bytes, bytes] | None:
    """Read one request: its head and its body. None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += await stream.receive_some()
    return head, body


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, script, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def node_at(port: int, **options: object) -> AsyncIterator[LeanNode]:
    node = LeanNode(NodeConfig("http", "127.0.0.1", port, **options))  # type: ignore[arg-type]
    try:
        yield node
    finally:
        await node.close()


async def test_connections_are_kept_and_reused() -> None:
    connections = 0

    async def script(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        while await request_of(stream):
            await stream.send_all(OK)

    async with serving(script) as port, node_at(port) as node:
        for _ in range(5):
            answer = await node.perform_request("GET", "/")
            assert (answer.meta.status, answer.body) == (200, b"ok")
    assert connections == 1


async def test_a_connection_the_server_closed_meanwhile_is_not_used() -> None:
    connections = 0

    async def script(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await request_of(stream)
        await stream.send_all(OK)

    async with serving(script) as port, node_at(port) as node:
        for _ in range(3):
            assert (await node.perform_request("GET", "/")).body == b"ok"
            await trio.sleep(0.05)
    assert connections == 3


@pytest.mark.parametrize("size_bytes", [0, 10, JOINED_BYTES_MAX, JOINED_BYTES_MAX + 1, 3_000_000])
async def test_requests_arrive_whole(size_bytes: int) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def script(stream: trio.SocketStream) -> None:
        while request := await request_of(stream):
            seen.append(request)
            await stream.send_all(OK)

    body = b"x" * size_bytes
    async with serving(script) as port, node_at(port, path_prefix="/es", headers={"x-own": "1"}) as node:
        await node.perform_request("POST", "/a%20b/_bulk?q=1", body=body, headers=HttpHeaders({"x-each": "2"}))
    head, got = seen[0]
    assert head.startswith(b"POST /es/a%20b/_bulk?q=1 HTTP/1.1\r\n")
    assert b"\r\nx-own: 1\r\n" in head
    assert b"\r\nx-each: 2" in head
    assert f"host: 127.0.0.1:{port}".encode() in head
    assert got == body


async def test_bodies_are_packed_on_request() -> None:
    async def script(stream: trio.SocketStream) -> None:
        request = await request_of(stream)
        assert request is not None
        head, body = request
        assert b"content-encoding: gzip" in head
        assert b"accept-encoding: gzip" in head
        packed = gzip.compress(gzip.decompress(body) * 2)
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed
        )

    async with serving(script) as port, node_at(port, http_compress=True) as node:
        assert (await node.perform_request("POST", "/", body=b"echo")).body == b"echoecho"


async def test_a_server_that_refuses_a_large_body_early_is_heard() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        # Reading on, slowly, as netty does, keeps the answer from being lost to a reset.
        with trio.move_on_after(0.3):
            async for _ in stream:
                await trio.sleep(0.01)

    async with serving(script) as port, node_at(port) as node:
        answer = await node.perform_request("POST", "/_bulk", body=b"x" * 20_000_000)
    assert answer.meta.status == 413


async def test_a_refused_connection_says_so() -> None:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with node_at(port) as node:
        with pytest.raises(NoConnection) as caught:
            await node.perform_request("GET", "/")
    assert failing(caught.value) is Failing.REFUSED


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", OK[:-1], b"SSH-2.0-OpenSSH\r\n"])
async def test_an_answer_that_breaks_off_or_makes_no_sense_is_an_error(answer: bytes) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await request_of(stream)
        await stream.send_all(answer)

    async with serving(script) as port, node_at(port) as node:
        with pytest.raises(NoConnection):
            await node.perform_request("GET", "/")
        assert not node._idle


async def test_a_silent_server_times_out(autojump_clock: object) -> None:
    async def never(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    # Under virtual time the clock jumps once every task waits, the sockets included.
    async with serving(never) as port, node_at(port, request_timeout=30) as node:
        began_s = trio.current_time()
        with pytest.raises(ConnectionTimeout):
            await node.perform_request("GET", "/")
        with pytest.raises(ConnectionTimeout):
            await node.perform_request("GET", "/", request_timeout=5)
        assert trio.current_time() - began_s == pytest.approx(35, abs=1)


async def test_a_cancelled_request_closes_its_connection_and_frees_its_slot() -> None:
    closed = trio.Event()
    hang = True

    async def script(stream: trio.SocketStream) -> None:
        while await request_of(stream):
            if not hang:
                await stream.send_all(OK)
        closed.set()

    async with serving(script) as port, node_at(port, connections_per_node=1) as node:
        with trio.move_on_after(0.1):
            await node.perform_request("GET", "/")
        with trio.fail_after(5):
            await closed.wait()
        hang = False
        assert (await node.perform_request("GET", "/")).body == b"ok"


async def test_at_most_so_many_connections_are_open_at_once() -> None:
    open_now = open_most = 0

    async def script(stream: trio.SocketStream) -> None:
        nonlocal open_now, open_most
        open_now += 1
        open_most = max(open_most, open_now)
        try:
            while await request_of(stream):
                await trio.sleep(0.01)
                await stream.send_all(OK)
        finally:
            open_now -= 1

    async with serving(script) as port, node_at(port, connections_per_node=3) as node, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(node.perform_request, "GET", "/")
    assert open_most == 3


@pytest.mark.parametrize("target", ["/a b", "/a\r\nx: y", "/\x00"])
async def test_nothing_can_be_smuggled_into_a_head(target: str) -> None:
    async with node_at(1) as node:
        with pytest.raises(ValueError, match="request target"):
            await node.perform_request("GET", target)
        with pytest.raises(ValueError, match="header"):
            await node.perform_request("GET", "/", headers=HttpHeaders({"x-a": "b\r\nc: d"}))


async def test_speaking_tls_to_a_plain_server_is_a_tls_error() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async with serving(script) as port:
        node = LeanNode(NodeConfig("https", "127.0.0.1", port, ssl_context=ssl.create_default_context()))
        with pytest.raises(TlsError):
            await node.perform_request("GET", "/")
