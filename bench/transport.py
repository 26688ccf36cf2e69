"""What a bulk request costs on our side, per transport: 500 documents of about 1 KB to a server that only answers.

    python bench/transport.py [REQUESTS] [ROUNDS]

The server is another process that reads each request and sends the answer Elasticsearch would send, filtered as the store asks.
The floor is the same exchange over a bare blocking socket. The best of several interleaved rounds counts.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import orjson
import trio

from callboard.protocol.store import Target, open_store

DOCUMENTS = 500
ANSWER = orjson.dumps(
    {"took": 7, "errors": False, "items": [{"index": {"result": "created", "status": 201}}] * DOCUMENTS}
)
BODY = b"".join(
    b'{"index":{"_id":"%d"}}\n' % number + orjson.dumps({"id": str(number), "body": "x" * 950}) + b"\n"
    for number in range(DOCUMENTS)
)


def serve() -> None:
    """Answer every request alike, one connection after the other."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    head = b"HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    answer = head % len(ANSWER) + ANSWER
    buffer = bytearray(1 << 20)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while True:
                got = connection.recv_into(buffer)
                if not got:
                    break
                end = buffer.find(b"\r\n\r\n", 0, got)
                while end < 0:
                    got += connection.recv_into(memoryview(buffer)[got:])
                    end = buffer.find(b"\r\n\r\n", 0, got)
                at = bytes(buffer[:end]).lower().index(b"content-length:") + 15
                missing = end + 4 + int(bytes(buffer[at:end]).split(b"\r\n")[0]) - got
                while missing > 0:
                    missing -= connection.recv_into(buffer)
                connection.sendall(answer)


def floor(port: int, requests: int) -> None:
    """The same exchange without any client."""
    head = b"POST /_bulk HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            connection.sendall(head)
            connection.sendall(BODY)
            answer = connection.recv(65536)
            while not answer.endswith(ANSWER[-20:]):
                answer += connection.recv(65536)
            orjson.loads(answer[answer.index(b"\r\n\r\n") + 4 :])


def through_store(transport: str) -> Callable[[int, int], None]:
    """Bulk requests through the store."""

    async def send(port: int, requests: int) -> None:
        async with open_store(Target(f"http://127.0.0.1:{port}", transport=transport), wait_s=None) as store:  # type: ignore[arg-type]
            for _ in range(requests):
                answer = await store.content.bulk(BODY, index="bench")
                assert len(answer.items) == DOCUMENTS

    return lambda port, requests: trio.run(send, port, requests)


def through_client(transport: str) -> Callable[[int, int], None]:
    """Bulk requests through the official client's own method, over the same node classes."""

    async def send(port: int, requests: int) -> None:
        async with open_store(Target(f"http://127.0.0.1:{port}", transport=transport), wait_s=None) as store:  # type: ignore[arg-type]
            operations = BODY.splitlines()
            for _ in range(requests):
                call: Awaitable[object] = store.client.bulk(index="bench", operations=operations)
                await call

    return lambda port, requests: trio.run(send, port, requests)


def main() -> None:
    """Run all rounds and print one table."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ways = {
        "floor: bare socket": floor,
        "store.content.bulk, lean": through_store("lean"),
        "store.content.bulk, httpx": through_store("httpx"),
        "client.bulk, lean": through_client("lean"),
        "client.bulk, httpx": through_client("httpx"),
    }
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        best: dict[str, tuple[float, float]] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                way(port, requests)
                took = (time.process_time() - cpu_s, time.perf_counter() - wall_s)
                best[name] = min(best.get(name, took), took)
    finally:
        server.kill()
        server.wait()
    print(
        f"Python {platform.python_version()}, trio {version('trio')}, httpx {version('httpx')}, "
        f"elasticsearch {version('elasticsearch')}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    print(
        f"{requests} requests of {DOCUMENTS} documents, {len(BODY):,} bytes each; best of {rounds} rounds by processor time"
    )
    print(f"{'way':28}{'us CPU per request':>20}{'us CPU per document':>21}{'documents/CPU s':>17}{'documents/s':>13}")
    documents = requests * DOCUMENTS
    for name, (cpu_s, wall_s) in best.items():
        print(
            f"{name:28}{cpu_s / requests * 1e6:20.0f}{cpu_s / documents * 1e6:21.2f}"
            f"{documents / cpu_s:17,.0f}{documents / wall_s:13,.0f}"
        )


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else main()
