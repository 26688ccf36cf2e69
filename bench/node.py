"""How fast the built-in node takes documents and answers searches, inside this process and without sockets.

    python bench/node.py [DOCUMENTS] [--data]

Prints microseconds per document for bulk requests of 500 (wall and processor time) and milliseconds per search; with `--data` on disk,
else in memory. The floor is the same bulk without the node: parsing its lines.
"""

from __future__ import annotations

import os
import platform
import random
import resource
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import orjson
import trio

from callboard.node import open_node
from callboard.node.handlers.bulk import parse_bulk

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
]
BATCH = 500
SEARCHES = {
    "term, one hit": {"query": {"term": {"tag.keyword": "one of a kind"}}},
    "term, many hits": {"query": {"term": {"tag.keyword": "alpha"}}},
    "match": {"query": {"match": {"title": "alpha"}}},
    "bool, match and filter": {
        "query": {"bool": {"must": [{"match": {"title": "alpha beta"}}], "filter": [{"range": {"n": {"lt": 1000}}}]}}
    },
    "query_string over all fields": {"query": {"query_string": {"query": "alpha AND beta"}}},
    "match_all": {},
    "match_all, sorted by number": {"sort": [{"n": "desc"}]},
    "match_all, sorted by keyword": {"sort": [{"tag.keyword": "asc"}]},
}


def small(number: int, chance: random.Random) -> dict[str, object]:
    return {"title": " ".join(chance.choices(WORDS, k=4)), "n": number, "when": "2024-01-02T03:04:05Z"}


def medium(number: int, chance: random.Random) -> dict[str, object]:
    return {
        **small(number, chance),
        "body": " ".join(chance.choices(WORDS, k=60)),
        "tag": "one of a kind" if number == 77 else chance.choice(WORDS),
        "path": f"/some/folder/{number}.txt",
        "_allow_access_control": ["user:a", "group:b"],
    }


def batches(make, count: int) -> list[bytes]:
    chance = random.Random(1)
    lines = [b'{"index":{"_id":"%d"}}\n' % n + orjson.dumps(make(n, chance)) + b"\n" for n in range(count)]
    return [b"".join(lines[at : at + BATCH]) for at in range(0, count, BATCH)]


async def ask(app, target: str, body: bytes) -> dict:
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict] = []

    async def receive() -> dict:
        return messages.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": target,
        "raw_path": target.encode(),
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return orjson.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def line(name: str, count: int, wall_s: float, cpu_s: float) -> None:
    print(f"{name:<34} {wall_s / count * 1e6:10.1f} {cpu_s / count * 1e6:10.1f}")


async def measure(folder: Path | None, count: int) -> None:
    async with open_node(folder, port=None) as node:
        print(f"{'bulk requests of 500':<34} {'wall us':>10} {'cpu us':>10}   per document")
        for name, make in (("small", small), ("medium", medium)):
            bodies = batches(make, count)
            wall, cpu = time.perf_counter(), time.process_time()
            for body in bodies:
                parse_bulk(body, name, None, False)
            line(f"{name}: parsing only (floor)", count, time.perf_counter() - wall, time.process_time() - cpu)
            for what in ("new", "replaced"):
                wall, cpu = time.perf_counter(), time.process_time()
                for body in bodies:
                    answer = await ask(node.app, f"/{name}/_bulk", body)
                    assert answer["errors"] is False
                line(f"{name}: {what}", count, time.perf_counter() - wall, time.process_time() - cpu)
        print(f"{'searches over ' + str(count):<34} {'ms':>10}")
        for name, body in SEARCHES.items():
            taken = []
            for _ in range(3):
                started = time.perf_counter()
                await ask(node.app, "/medium/_search", orjson.dumps(body))
                taken.append(time.perf_counter() - started)
            print(f"{name:<34} {min(taken) * 1e3:10.1f}")


def main() -> None:
    numbers = [argument for argument in sys.argv[1:] if argument.isdigit()]
    count = int(numbers[0]) if numbers else 20_000
    on_disk = "--data" in sys.argv
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, "
        f"{count} documents {'on disk' if on_disk else 'in memory'}"
    )
    with tempfile.TemporaryDirectory() as folder:
        trio.run(measure, Path(folder) if on_disk else None, count)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
