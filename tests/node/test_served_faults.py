"""Faults of a node that listens, of a server that only passes on, and of an httpx transport: what clients really meet."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from trio.testing import MockClock

from callboard.node import Node, open_node
from callboard.node.faults import (
    ConnectionRefused,
    CutBody,
    Delay,
    Effect,
    FaultyApp,
    FaultyTransport,
    ForwardingApp,
    LoseResponse,
    Match,
    Refuse,
    Restart,
    Rule,
    ServerFaultPlan,
    StaleRead,
    Status,
    open_faulty_server,
    open_faulty_way,
)
from callboard.runtime.faults import NetworkFaultPlan, network


def plan(effect: Effect, path: str = "*", **conditions: Any) -> ServerFaultPlan:
    return ServerFaultPlan([Rule(effect=effect, match=Match(path=path), **conditions)])


def client_of(url: str | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url or "", timeout=20)


@asynccontextmanager
async def served(
    faults: ServerFaultPlan | None = None, *, data: Path | None = None, wire: NetworkFaultPlan | None = None
) -> AsyncIterator[tuple[Node, httpx.AsyncClient]]:
    async with open_node(data, faults=faults, network_faults=wire) as node, client_of(node.url) as client:
        yield node, client


@pytest.mark.parametrize(("effect", "was_done"), [(Refuse(), False), (LoseResponse(), True), (CutBody(), True)])
async def test_a_listening_node_really_cuts_connections(effect: Effect, was_done: bool) -> None:
    async with served(plan(effect, path="/books", times=1)) as (_, client):
        with pytest.raises(httpx.TransportError):
            await client.put("/books")
        assert (await client.head("/books")).status_code == (200 if was_done else 404)


async def test_a_listening_node_has_faults_on_the_wire() -> None:
    rule = network.Rule(
        effect=network.Cut(after_bytes=60), match=network.Match(direction="response", contains="HTTP/1.1"), times=1
    )
    async with served(wire=NetworkFaultPlan([rule])) as (node, client):
        with pytest.raises(httpx.TransportError):
            await client.get("/")
        assert (await client.get("/")).status_code == 200
        assert node.proxy is not None
        assert node.proxy.fired == {"0": 1}


async def started_again(client: httpx.AsyncClient) -> None:
    with trio.fail_after(20):
        while True:
            try:
                await client.get("/")
            except httpx.TransportError:
                await trio.sleep(0.02)
            else:
                return


async def opened_context(client: httpx.AsyncClient) -> dict[str, Any]:
    await client.put("/books/_doc/1?refresh=true", json={"title": "a"})
    pit = (await client.post("/books/_pit?keep_alive=1m")).json()["id"]
    return {"pit": {"id": pit, "keep_alive": "1m"}, "query": {"match_all": {}}}


@pytest.mark.parametrize(
    ("loses", "context", "document"), [("nothing", 200, 200), ("contexts", 404, 200), ("unsaved", 404, 404)]
)
async def test_a_restart_refuses_for_a_while_and_loses_what_it_should(loses: str, context: int, document: int) -> None:
    async with served(plan(Restart(down_s=0.3, loses=loses), path="/restart", times=1)) as (_, client):
        search = await opened_context(client)
        began_s = trio.current_time()
        with pytest.raises(httpx.TransportError):
            await client.get("/restart")
        with pytest.raises(httpx.ConnectError):
            await client.get("/")
        await started_again(client)
        assert trio.current_time() - began_s >= 0.3
        assert (await client.post("/_search", json=search)).status_code == context
        assert (await client.get("/books/_doc/1")).status_code == document
        if loses == "unsaved":
            # It is a new node, and as good as one.
            assert (await client.put("/books/_doc/2?refresh=true", json={"title": "b"})).status_code == 201


async def test_a_node_with_a_data_folder_has_saved_all(tmp_path: Path) -> None:
    faults = plan(Restart(down_s=0.1, loses="unsaved"), path="/restart", times=1)
    async with served(faults, data=tmp_path) as (_, client):
        await opened_context(client)
        with pytest.raises(httpx.TransportError):
            await client.get("/restart")
        await started_again(client)
        assert (await client.get("/books/_doc/1")).status_code == 200


async def test_what_is_under_way_at_a_restart_is_cut_and_in_process_too(autojump_clock: MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(10)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    app = FaultyApp(slow, plan(Restart(down_s=60), path="/restart", times=1))
    began_s = trio.current_time()
    cut: list[str] = []

    async def ask(client: httpx.AsyncClient, path: str, at_s: float) -> None:
        await trio.sleep_until(began_s + at_s)
        try:
            cut.append(f"{path} {(await client.get(path)).status_code}")
        except ConnectionRefused:
            cut.append(f"{path} refused")
        except ConnectionError:
            cut.append(f"{path} cut")

    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://n", timeout=None) as client,
        trio.open_nursery() as nursery,
    ):
        for path, at_s in (("/under-way", 0), ("/restart", 5), ("/down", 30), ("/up", 66)):
            nursery.start_soon(ask, client, path, at_s)
    assert sorted(cut) == ["/down refused", "/restart cut", "/under-way cut", "/up 200"]


async def test_a_server_in_front_passes_on_and_injects() -> None:
    faults = ServerFaultPlan(
        [
            Rule(effect=Status(status=429, retry_after_s=2), match=Match(path="/busy")),
            Rule(effect=LoseResponse(), match=Match(path="/lost"), times=1),
            Rule(effect=Restart(down_s=0.2), match=Match(path="/restart"), times=1),
            Rule(effect=StaleRead(), match=Match(path="/books/_doc/old"), skip=1),
        ]
    )
    async with (
        open_node() as node,
        open_faulty_server(node.url or "", faults) as front,
        client_of(front.url) as client,
        client_of(node.url) as past,
    ):
        assert (await client.get("/busy")).headers["retry-after"] == "2"
        with pytest.raises(httpx.TransportError):
            await client.put("/lost")
        assert (await past.head("/lost")).status_code == 200
        # An escaped slash is a part of the id.
        assert (await client.put("/books/_doc/a%2Fb%20c", json={"n": 1})).json()["_id"] == "a/b c"
        for number in (1, 2):
            await past.put("/books/_doc/old", json={"n": number})
            assert (await client.get("/books/_doc/old")).json()["_source"] == {"n": 1}
        search = await opened_context(client)
        assert (await client.post("/_search", json=search)).status_code == 200
        with pytest.raises(httpx.TransportError):
            await client.get("/restart")
        await started_again(client)
        assert (await client.post("/_search", json=search)).status_code == 404
        assert front.app is not None
        front.app.use(ServerFaultPlan())
        assert (await client.get("/busy")).status_code == 404


async def test_a_server_in_front_may_pass_bytes_only() -> None:
    wire = NetworkFaultPlan([network.Rule(effect=network.Refuse(), times=1)])
    async with open_node() as node, open_faulty_server(node.url or "", network=wire) as front:
        assert front.app is None
        async with client_of(front.url) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/")
            assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize(("url", "host"), [("localhost:9200", "127.0.0.1"), ("http://127.0.0.1:1", "0.0.0.0")])
async def test_a_server_in_front_says_what_it_cannot_do(url: str, host: str) -> None:
    with pytest.raises(ValueError, match=r"not the URL|this machine only"):
        async with open_faulty_server(url, ServerFaultPlan(), host=host):
            pass


async def test_a_request_that_is_too_large_is_refused_as_by_the_server() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    app = FaultyApp(never, ServerFaultPlan(), content_bytes_max=10)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://n") as client:
        assert (await client.post("/", content=b"x" * 11)).status_code == 413


@asynccontextmanager
async def encrypted(authority: trustme.CA) -> AsyncIterator[str]:
    """The URL of a server at https:// that says under which name it was asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        head = b""
        try:
            while data := await stream.receive_some():
                head += data
                while b"\r\n\r\n" in head:
                    asked, _, head = head.partition(b"\r\n\r\n")
                    name = next(line for line in asked.split(b"\r\n") if line.lower().startswith(b"host:"))
                    body = b'{"name": "%s"}' % name.partition(b":")[2].strip()
                    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners: list[Any] = await nursery.start(
            partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1", https_compatible=True)
        )
        yield f"https://localhost:{listeners[0].transport_listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_the_way_to_an_encrypted_server_may_be_faulty_and_its_certificate_still_counts() -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    wire = NetworkFaultPlan([network.Rule(effect=network.Cut(after_bytes=2000), times=1)])
    async with encrypted(authority) as url:
        async with open_faulty_way(url, network=wire, verify=trusting) as app:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://n") as client:
                names, cuts = set(), 0
                for _ in range(40):
                    try:
                        names.add((await client.get("/")).json()["name"])
                    except ConnectionError:
                        cuts += 1
                assert (names, cuts) == ({url.removeprefix("https://")}, 1)
        async with open_faulty_way(url, network=NetworkFaultPlan()) as app:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://n") as client:
                with pytest.raises(ConnectionRefusedError, match="certificate"):
                    await client.get("/")


async def test_a_server_in_front_speaks_encrypted_to_the_one_behind() -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    busy = plan(Status(status=503), times=1)
    async with (
        encrypted(authority) as url,
        open_faulty_server(url, busy, verify=trusting) as front,
        client_of(front.url) as client,
    ):
        assert [(await client.get("/")).status_code for _ in range(2)] == [503, 200]


def answering(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"path": request.url.path, "body": request.content.decode()})


@asynccontextmanager
async def through(faults: ServerFaultPlan, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = FaultyTransport(httpx.MockTransport(answering), faults)
    async with httpx.AsyncClient(transport=transport, base_url="http://n:9200", **options) as client:
        yield client


async def test_a_transport_injects_and_else_passes_on() -> None:
    async with through(plan(Status(status=503), times=1)) as client:
        assert (await client.post("/a?b=c", content=b"x")).status_code == 503
        assert (await client.post("/a?b=c", content=b"x")).json() == {"path": "/a", "body": "x"}


@pytest.mark.parametrize(
    ("effect", "error"),
    [
        (Refuse(), httpx.ConnectError),
        (LoseResponse(), httpx.ReadError),
        (CutBody(), httpx.ReadError),
        (Delay(seconds=60), httpx.ReadTimeout),
    ],
)
async def test_a_transport_fails_as_httpx_does(
    autojump_clock: MockClock, effect: Effect, error: type[Exception]
) -> None:
    async with through(plan(effect), timeout=30) as client:
        with pytest.raises(error):
            await client.get("/")


async def test_forwarding_says_when_the_server_behind_is_not_there() -> None:
    async with (
        ForwardingApp.to("http://127.0.0.1:1") as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://n") as client,
    ):
        assert (await client.get("/")).status_code == 502
