"""What a sync of many objects costs beside a bare listing of them with the same library, and how much of a known limit is used.

    python bench/object_stores.py [OBJECTS] [ROUNDS]      by default 100000 objects, 3 rounds

A store that speaks Amazon's protocol runs in another process and has its pages ready, so that it is never what is waited for; the
sink is that of `bench/sync.py`, in a third. The floor asks for the same pages one after the other through httpx, signed by
botocore and read by the same parser, and counts the keys. A sync makes documents of them, compares, sends and remembers them, and
lists ten folders side by side. The best round counts. The throttled store allows so many requests a second, and says so.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

BESIDE = Path(__file__).parent
INDEX = "bench-sync"
BUCKET = "bench"
FOLDERS = 10
PAGE = 1000
LIMIT = 40
"""Requests a second of the throttled store."""
PAGE_THROTTLED = 10
"""Small, so that the limit is what is waited for."""


def store(objects: int, limit: int) -> None:
    """Serve listings of one bucket; with a limit, refuse what is above it in any one second and tell what is left."""
    import trio

    each = objects // FOLDERS
    bodies: dict[tuple[str, int, int], bytes] = {}

    def entry(folder: str, number: int) -> str:
        return (
            f"<Contents><Key>{quote(folder, safe='')}object-{number:08}.pdf</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{1000 + number % 1000}</Size><StorageClass>GLACIER</StorageClass>"
            "<Owner><ID>1</ID><DisplayName>stage</DisplayName></Owner></Contents>"
        )

    def page(prefix: str, start: int, size: int) -> bytes:
        if (prefix, start, size) not in bodies:
            end = min(start + size, each)
            more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < each else ""
            inner = "".join(entry(prefix, number) for number in range(start, end))
            bodies[prefix, start, size] = (
                "<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
                f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{inner}</ListBucketResult>"
            ).encode()
        return bodies[prefix, start, size]

    names = [f"folder-{number}/" for number in range(FOLDERS)]
    for name in names:
        for start in range(0, each, PAGE):
            page(name, start, PAGE)
    tops = "".join(f"<CommonPrefixes><Prefix>{quote(name, safe='')}</Prefix></CommonPrefixes>" for name in names)
    top = f"<ListBucketResult><IsTruncated>false</IsTruncated>{tops}</ListBucketResult>".encode()
    window, used = -1, 0

    def answer(target: str) -> tuple[str, bytes]:
        nonlocal window, used
        head = ""
        if limit:
            moment_s = trio.current_time()
            if int(moment_s) != window:
                window, used = int(moment_s), 0
            used += 1
            left_s = window + 1 - moment_s
            head = f"x-ratelimit-limit: {limit}\r\nx-ratelimit-remaining: {max(0, limit - used)}\r\nx-ratelimit-reset: {left_s:.4f}\r\n"
            if used > limit:
                counts["refused"] += 1
                return f"429 Too Many Requests\r\n{head}", b""
            counts["granted"] += 1
        query = parse_qs(urlsplit(target).query, keep_blank_values=True)
        if "location" in query:
            return f"200 OK\r\n{head}", b"<LocationConstraint/>"
        if "delimiter" in query:
            return f"200 OK\r\n{head}", top
        prefix, token = query.get("prefix", [""])[0], query.get("continuation-token", ["0"])[0]
        return f"200 OK\r\n{head}", page(prefix, int(token), int(query["max-keys"][0])) if prefix else top

    counts = {"granted": 0, "refused": 0}

    async def serve(stream: trio.SocketStream) -> None:
        buffer = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in buffer:
                    try:
                        more = await stream.receive_some(65536)
                    except trio.BrokenResourceError:
                        return
                    if not more:
                        return
                    buffer += more
                request, _, buffer = buffer.partition(b"\r\n\r\n")
                target = request.split(b" ", 2)[1].decode()
                if target == "/counts":
                    status, body = "200 OK\r\n", f"{counts['granted']} {counts['refused']}".encode()
                else:
                    status, body = answer(target)
                await stream.send_all(f"HTTP/1.1 {status}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def run() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        print(listeners[0].socket.getsockname()[1], flush=True)
        await trio.serve_listeners(serve, listeners)

    trio.run(run)


def floor(port: int) -> int:
    """List the bucket page by page and count the keys."""
    import httpx
    import trio

    from callboard.sources.s3 import _Signer
    from callboard.sources.xml_answers import parsed, text

    async def run() -> int:
        count = 0
        async with httpx.AsyncClient(auth=_Signer("key", "secret")) as client:
            for number in range(FOLDERS):
                query = {"list-type": "2", "max-keys": str(PAGE), "prefix": f"folder-{number}/", "encoding-type": "url"}
                token: str | None = "0"
                while token is not None:
                    asked = {**query, "continuation-token": token}
                    told = await client.get(f"http://127.0.0.1:{port}/{BUCKET}", params=asked)
                    page = parsed(told.content, "S3")
                    count += len([text(entry, "Key") for entry in page.iter("Contents")])
                    token = text(page, "NextContinuationToken")
        return count

    return trio.run(run)


def ours(port: int, sink_port: int, *, fresh: bool, page: int = PAGE) -> int:
    """Sync the bucket; return how many objects there were."""
    import trio

    from callboard.actors.sync import sync
    from callboard.protocol.store import Target, open_store
    from callboard.sources.s3 import S3, S3Config

    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"

    async def run() -> int:
        async with open_store(Target(f"http://127.0.0.1:{sink_port}")) as store:
            if fresh:
                await store.content.delete_index(INDEX)
                await store.content.delete_index(f".callboard-ledger-{INDEX}")
            source = S3(
                S3Config(buckets=[BUCKET], aws_access_key_id="key", aws_secret_access_key="secret", page_size=page)
            )
            report = await sync(source, store, index=INDEX)
            assert report.status == "completed", report.error
            return report.indexed + report.unchanged

    return trio.run(run)


def one_way(way: str, port: int, sink_port: int) -> None:
    started, before = time.perf_counter(), time.process_time()
    match way:
        case "floor":
            count = floor(port)
        case "throttled":
            count = ours(port, sink_port, fresh=True, page=PAGE_THROTTLED)
        case _:
            count = ours(port, sink_port, fresh=way == "first")
    took, cpu = time.perf_counter() - started, time.process_time() - before
    print(count, took, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _started(*command: str) -> tuple[subprocess.Popen[str], int]:
    server = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def _measured(way: str, port: int, sink_port: int) -> tuple[int, float, float, float]:
    command = [sys.executable, __file__, "--way", way, str(port), str(sink_port)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(told[0]), float(told[1]), float(told[2]), float(told[3])


def speed(objects: int, rounds: int) -> None:
    server, port = _started(__file__, "--store", str(objects), "0")
    sink, sink_port = _started(str(BESIDE / "sync.py"), "--sink", "0", "0.0")
    ways = {"floor": "floor: bare listing", "first": "first sync", "again": "sync again, nothing changed"}
    best: dict[str, tuple[int, float, float, float]] = {}
    try:
        for _ in range(rounds):
            for way in ways:
                one = _measured(way, port, sink_port)
                assert one[0] == objects // FOLDERS * FOLDERS, one
                best[way] = min(best.get(way, one), one, key=lambda each: each[1])
    finally:
        server.kill()
        sink.kill()
    print(f"{objects:,} objects; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'way':30}{'objects/s':>12}{'of the floor':>14}{'objects/CPU s':>15}{'peak MB':>9}")
    for way, title in ways.items():
        count, took, cpu, peak = best[way]
        share = best["floor"][1] / took
        print(f"{title:30}{count / took:>12,.0f}{share:>14.0%}{count / cpu:>15,.0f}{peak:>9.0f}")


def throttled(objects: int) -> None:
    import urllib.request

    server, port = _started(__file__, "--store", str(objects), str(LIMIT))
    sink, sink_port = _started(str(BESIDE / "sync.py"), "--sink", "0", "0.0")
    try:
        _, took, _, _ = _measured("throttled", port, sink_port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts") as told:
            granted, refused = map(int, told.read().split())
    finally:
        server.kill()
        sink.kill()
    print(
        f"throttled to {LIMIT} requests/s: {granted} granted in {took:.1f} s, {granted / took / LIMIT:.0%} of the limit, "
        f"{refused} refused"
    )


def main() -> None:
    match sys.argv[1:]:
        case ["--store", objects, limit]:
            store(int(objects), int(limit))
        case ["--way", way, port, sink_port]:
            one_way(way, int(port), int(sink_port))
        case arguments:
            objects = int(arguments[0]) if arguments else 100_000
            rounds = int(arguments[1]) if len(arguments) > 1 else 3
            speed(10_000, rounds)
            if objects != 10_000:
                speed(objects, rounds)
            throttled(LIMIT * PAGE_THROTTLED * 20)


if __name__ == "__main__":
    main()
