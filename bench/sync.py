"""What a sync costs on our side, beside a bare loop that does the same with nothing in between.

    python bench/sync.py [DOCUMENTS] [ROUNDS]
    python bench/sync.py --memory [DOCUMENTS]       peak memory over so many existing ids, beside 10,000
    python bench/sync.py --slow [DOCUMENTS] [S]     peak memory of a first sync into a sink that answers after so many seconds
    python bench/sync.py --jobs [N]                 time and memory of so many jobs with nothing to do, one after the other
    python bench/sync.py --elasticsearch URL [DOCUMENTS]    against a real server

The sink is another process: it parses every `_bulk`, remembers the ids, and answers searches over them, so that a second sync
finds what the first one wrote. The floor makes the same documents of about 1 KB, serialises them with orjson and posts them
over two kept-alive connections, reading each answer. The best of several interleaved rounds by processor time counts.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import trio

from callboard.actors.sync import SyncReport, SyncSettings, sync
from callboard.protocol.store import Target, open_store
from callboard.sources.source import Document, Features, Partition, Source

TEXT = "The thunder sheet hangs upstage of the fly floor and is struck on cue forty-one. " * 11
PAGE = 500
INDEX = "bench-sync"


class Synthetic(Source[None]):
    """Documents made on the spot, in pages."""

    service_type = "synthetic"
    name = "Synthetic"
    features = Features(incremental="skip_unchanged")

    def __init__(self, count: int, partitions: int = 1) -> None:
        super().__init__(None)
        self.count, self.parts = count, partitions

    async def ping(self) -> None:
        return None

    async def partitions(self, rules: Any = None) -> AsyncGenerator[Partition, None]:
        for part in range(self.parts):
            yield Partition(str(part))

    async def documents(self, partition: Partition, checkpoint: Any = None) -> AsyncGenerator[list[Document], None]:
        each = self.count // self.parts
        first = int(partition.key) * each
        for start in range(first, first + each, PAGE):
            yield [
                Document(f"document-{n:09}", {"title": f"Cue {n}", "number": n, "body": TEXT}, "2026-01-01T00:00:00Z")
                for n in range(start, min(start + PAGE, first + each))
            ]


def null_sink(existing: int, answer_after_s: float = 0.0) -> None:
    """Serve `_bulk`, searches over the ids it has seen, and whatever else a sync asks, from one process."""

    ids: list[str] = [f"document-{n:09}" for n in range(existing)]
    seq: dict[str, int] = dict.fromkeys(ids, 0)
    docs: dict[str, dict[str, Any]] = {}
    made = {INDEX} if existing else set()

    def bulk(path: str, body: bytes) -> bytes:
        lines = body.split(b"\n")
        items = []
        at = 0
        index = path.split("/")[1]
        while at < len(lines) - 1:
            action = orjson.loads(lines[at])
            operation, told = next(iter(action.items()))
            one = told["_id"]
            if operation != "delete":
                document = orjson.loads(lines[at + 1])
                at += 1
                if index != INDEX:
                    docs.setdefault(index, {})[one] = document
            at += 1
            if index == INDEX:
                new = one not in seq
                seq[one] = seq.get(one, 0) + 1 if not new else 0
                items.append(
                    {
                        operation: {
                            "status": 201 if new else 200,
                            "result": "created" if new else "updated",
                            "_seq_no": seq[one],
                        }
                    }
                )
            else:
                items.append({operation: {"status": 201, "result": "created", "_seq_no": 0}})
        return orjson.dumps({"took": 1, "errors": False, "items": items})

    def search(body: dict[str, Any], index: str | None) -> bytes:
        index = index or body["pit"]["id"]
        size = body["size"]
        start = body.get("search_after", [0])[0]
        if index != INDEX:
            found = list(docs.get(index, {}).items())
            term = [f["term"] for f in body.get("query", {}).get("bool", {}).get("filter", [])]
            found = [(k, d) for k, d in found if all(d.get(n) == v for t in term for n, v in t.items())]
            hits = [{"_id": k, "_seq_no": 0, "_source": d, "sort": [n + 1]} for n, (k, d) in enumerate(found)][
                start : start + size
            ]
        else:
            keys = pages_of(INDEX)[start : start + size]
            told = {"_source": {"_timestamp": "2026-01-01T00:00:00Z"}} if body.get("_source", True) else {}
            hits = [{"_id": one, "_seq_no": seq[one], "sort": [start + n + 1], **told} for n, one in enumerate(keys)]
        return orjson.dumps({"_shards": {"failed": 0}, "timed_out": False, "pit_id": index, "hits": {"hits": hits}})

    cached: dict[str, list[str]] = {}

    def pages_of(index: str) -> list[str]:
        if index not in cached or len(cached[index]) != len(seq):
            cached[index] = list(seq)
        return cached[index]

    def answer(method: str, target: str, body: bytes) -> tuple[int, bytes]:
        path = target.partition("?")[0]
        index = path.split("/")[1] if path.count("/") else ""
        if path.endswith("/_bulk"):
            return 200, bulk(path, body)
        if path.endswith("/_search"):
            return 200, search(orjson.loads(body), index if index != "_search" else None)
        if path.endswith("/_pit") or path == "/_pit":
            return 200, orjson.dumps({"id": index, "succeeded": True})
        if path.endswith("/_count"):
            return 200, orjson.dumps({"count": len(seq), "_shards": {"failed": 0}})
        if "/_settings" in path:
            return 200, orjson.dumps({index: {"settings": {"index.uuid": "bench"}}})
        if "/_doc/" in path:
            one = path.split("/")[-1]
            if method == "GET":
                found = docs.get(index, {}).get(one)
                return (
                    (200, orjson.dumps({"_id": one, "found": True, "_source": found, "_seq_no": 0, "_primary_term": 1}))
                    if found
                    else (404, b'{"found":false}')
                )
            docs.setdefault(index, {})[one] = orjson.loads(body)
            return 201, b'{"result":"created"}'
        if method == "HEAD":
            return (200 if index in made else 404), b""
        if method == "PUT":
            made.add(index)
        if method == "DELETE" and path.count("/") == 1:
            docs.pop(index, None)
            if index == INDEX:
                seq.clear()
            made.discard(index)
        if path == "/":
            return 200, b'{"version":{"number":"9.5.0","build_flavor":"default"},"cluster_name":"null"}'
        return 200, b'{"acknowledged":true,"deleted":0,"_shards":{"failed":0}}'

    async def serve(stream: trio.SocketStream) -> None:
        buffer = bytearray()
        while True:
            end = buffer.find(b"\r\n\r\n")
            while end < 0:
                more = await stream.receive_some(1 << 20)
                if not more:
                    return
                buffer += more
                end = buffer.find(b"\r\n\r\n")
            head = bytes(buffer[:end])
            low = head.lower()
            at = low.find(b"content-length:")
            size = int(low[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            while len(buffer) < end + 4 + size:
                more = await stream.receive_some(1 << 20)
                if not more:
                    return
                buffer += more
            body = bytes(buffer[end + 4 : end + 4 + size])
            del buffer[: end + 4 + size]
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            status, told = answer(method, target, body)
            if answer_after_s and "/_bulk" in target:
                await trio.sleep(answer_after_s)
            sent = b"" if method == "HEAD" else told
            await stream.send_all(
                b"HTTP/1.1 %d OK\r\nX-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % (status, len(sent))
                + sent
            )

    async def run() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        print(listeners[0].socket.getsockname()[1], flush=True)
        await trio.serve_listeners(_quiet(serve), listeners)

    gc.freeze()
    trio.run(run)


def _quiet(handler: Any) -> Any:
    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await handler(stream)
        except trio.BrokenResourceError:
            return

    return handle


def floor(port: int, count: int) -> None:
    """Make the documents, serialise them, post them over two connections."""

    async def half(start: int, end: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        stream.setsockopt(6, 1, 1)
        for first in range(start, end, PAGE):
            parts = []
            for n in range(first, min(first + PAGE, end)):
                one = f"document-{n:09}"
                fields = {
                    "title": f"Cue {n}",
                    "number": n,
                    "body": TEXT,
                    "id": one,
                    "_timestamp": "2026-01-01T00:00:00Z",
                }
                parts.append(b'{"index":{"_id":"%s"}}\n' % one.encode())
                parts.append(orjson.dumps(fields))
                parts.append(b"\n")
            body = b"".join(parts)
            await stream.send_all(
                b"POST /%s/_bulk HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (INDEX.encode(), len(body))
            )
            await stream.send_all(body)
            got = bytearray(await stream.receive_some(1 << 20))
            while (end_of_head := got.find(b"\r\n\r\n")) < 0:
                got += await stream.receive_some(1 << 20)
            size = int(bytes(got[:end_of_head]).lower().split(b"content-length:")[1].split(b"\r\n")[0])
            while len(got) < end_of_head + 4 + size:
                got += await stream.receive_some(1 << 20)
            orjson.loads(got[end_of_head + 4 :])
        await stream.aclose()

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(half, 0, count // 2)
            nursery.start_soon(half, count // 2, count)

    trio.run(both)


def httpx_floor(port: int, count: int) -> None:
    """The same through two plain httpx clients."""
    import httpx

    async def half(start: int, end: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for first in range(start, end, PAGE):
                parts = []
                for n in range(first, min(first + PAGE, end)):
                    one = f"document-{n:09}"
                    fields = {
                        "title": f"Cue {n}",
                        "number": n,
                        "body": TEXT,
                        "id": one,
                        "_timestamp": "2026-01-01T00:00:00Z",
                    }
                    parts += [b'{"index":{"_id":"%s"}}\n' % one.encode(), orjson.dumps(fields), b"\n"]
                orjson.loads((await client.post(f"/{INDEX}/_bulk", content=b"".join(parts))).content)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(half, 0, count // 2)
            nursery.start_soon(half, count // 2, count)

    trio.run(both)


def one_sync(url: str, count: int, *, fresh: bool = False, kind: Any = "full", **settings: Any) -> SyncReport:
    async def main() -> SyncReport:
        async with open_store(Target(url)) as store:
            if fresh:
                await store.content.delete_index(INDEX)
                await store.content.delete_index(f".callboard-ledger-{INDEX}")
            return await sync(Synthetic(count), store, index=INDEX, kind=kind, settings=SyncSettings(**settings))

    report = trio.run(main)
    assert report.status == "completed", report.error
    return report


def _sink(existing: int = 0, answer_after_s: float = 0.0) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, __file__, "--sink", str(existing), str(answer_after_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def speed(count: int, rounds: int) -> None:
    server, port = _sink()
    url = f"http://127.0.0.1:{port}"
    ways: dict[str, Any] = {
        "floor: bare sockets": lambda: floor(port, count),
        "floor: plain httpx": lambda: httpx_floor(port, count),
        "full, first": lambda: one_sync(url, count, fresh=True),
        "full, again, nothing skipped": lambda: one_sync(url, count, skip_unchanged=False),
        "full, again, unchanged": lambda: one_sync(url, count),
        "incremental, unchanged": lambda: one_sync(url, count, kind="incremental"),
        "empty": lambda: one_sync(url, 0, kind="incremental", fresh=True),
    }
    best: dict[str, tuple[float, float]] = {}
    try:
        for _ in range(rounds):
            for name, way in ways.items():
                gc.collect()
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                way()
                took = (time.process_time() - cpu_s, time.perf_counter() - wall_s)
                best[name] = min(best.get(name, took), took)
    finally:
        server.kill()
        server.wait()
    _machine()
    print(f"{count:,} documents of about 1 KB; best of {rounds} rounds by processor time")
    print(
        f"{'way':32}{'CPU s':>8}{'wall s':>8}{'documents/CPU s':>17}{'documents/s':>13}{'of sockets, CPU':>17}{'of httpx, CPU':>15}{'of httpx, wall':>15}"
    )
    sockets_cpu_s = best["floor: bare sockets"][0]
    httpx_cpu_s, httpx_wall_s = best["floor: plain httpx"]
    for name, (cpu_s, wall_s) in best.items():
        print(
            f"{name:32}{cpu_s:8.2f}{wall_s:8.2f}{count / cpu_s:17,.0f}{count / wall_s:13,.0f}{sockets_cpu_s / cpu_s:17.0%}{httpx_cpu_s / cpu_s:15.0%}{httpx_wall_s / wall_s:15.0%}"
        )


def memory(count: int) -> None:
    _machine()
    peaks = {}
    for existing in (10_000, count):
        server, port = _sink(existing)
        try:
            told = subprocess.run(
                [sys.executable, __file__, "--peak", str(port), str(existing)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        finally:
            server.kill()
            server.wait()
        peaks[existing], seconds = (float(part) for part in told.split())
        print(f"{existing:>12,} existing ids: peak {peaks[existing]:7.1f} MiB, {seconds:.1f} s")
    print(f"difference: {peaks[count] - peaks[10_000]:.1f} MiB")


def slow(count: int, answer_after_s: float) -> None:
    """Peak memory while the sink takes its time, beside one that answers at once."""
    _machine()
    peaks = []
    for seconds in (0.0, answer_after_s):
        server, port = _sink(answer_after_s=seconds)
        try:
            command = [sys.executable, __file__, "--peak", str(port), str(count)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        finally:
            server.kill()
            server.wait()
        peak, took_s = (float(part) for part in told.split())
        peaks.append(peak)
        print(f"{count:,} new documents, answers after {seconds:.0f} s: peak {peak:7.1f} MiB, {took_s:.1f} s")
    print(f"difference: {peaks[1] - peaks[0]:.1f} MiB")


def jobs(count: int) -> None:
    """Jobs with nothing to do, from claim to end, over the built-in node in this process."""
    from callboard import node
    from callboard.actors.sync import run_job

    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def main() -> None:
        async with (
            node.open_node(port=None) as opened,
            open_store(Target(embedded=opened.app)) as store,
        ):
            await store.connectors.create("bench", index_name=INDEX, service_type="synthetic")
            times: list[float] = []
            before = 0.0
            for number in range(count + 20):
                if number == 20:
                    before = resident_mib()
                job = await store.jobs.create(await store.connectors.get("bench"))
                started_s = time.perf_counter()
                report = await run_job(store, job.id, make_source=lambda *_: Synthetic(0))
                times.append(time.perf_counter() - started_s)
                assert report.status == "completed", report.error
            grown = resident_mib() - before
            print(
                f"an empty job: {sorted(times[20:])[count // 2]:.3f} s (median of {count}), slowest {max(times[20:]):.3f} s"
            )
            print(f"memory after {count} jobs: {grown:+.1f} MiB, the node's job documents included")

    _machine()
    trio.run(main)


def real(url: str, count: int) -> None:
    _machine()
    pids = [
        int(p.name)
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and b"org.elasticsearch" in (p / "cmdline").read_bytes()
    ]

    def server_cpu_s() -> float:
        ticks = 0
        for pid in pids:
            parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(parts[11]) + int(parts[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    for name, options in {"full, first": {"fresh": True}, "full, again, unchanged": {}}.items():
        wall_s, cpu_s, server_s = time.perf_counter(), time.process_time(), server_cpu_s()
        report = one_sync(url, count, **options)  # type: ignore[arg-type]
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        print(
            f"{name:28}{count / wall_s:10,.0f} documents/s; our CPU {cpu_s:.2f} s, server CPU {server_cpu_s() - server_s:.2f} s, "
            f"{report.counters.requests} requests"
        )

    async def clean() -> None:
        async with open_store(Target(url)) as store:
            await store.content.delete_index(INDEX)
            await store.content.delete_index(f".callboard-ledger-{INDEX}")

    trio.run(clean)


def _machine() -> None:
    print(
        f"Python {platform.python_version()}, trio {version('trio')}, orjson {version('orjson')}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def main() -> None:
    match sys.argv[1:]:
        case ["--sink", existing, *rest]:
            null_sink(int(existing), float(rest[0]) if rest else 0.0)
        case ["--peak", port, count]:
            started = time.perf_counter()
            one_sync(f"http://127.0.0.1:{port}", int(count), kind="incremental")
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - started)
        case ["--memory", *rest]:
            memory(int(rest[0]) if rest else 1_000_000)
        case ["--slow", *rest]:
            slow(int(rest[0]) if rest else 20_000, float(rest[1]) if len(rest) > 1 else 2.0)
        case ["--jobs", *rest]:
            jobs(int(rest[0]) if rest else 100)
        case ["--elasticsearch", url, *rest]:
            real(url, int(rest[0]) if rest else 20_000)
        case rest:
            speed(int(rest[0]) if rest else 100_000, int(rest[1]) if len(rest) > 1 else 3)


if __name__ == "__main__":
    main()
