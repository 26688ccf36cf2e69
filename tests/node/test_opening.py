"""Opening and closing a node: ports, folders, what is kept, and what a crash or a full disk leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest
import trio

from callboard.node import open_node
from callboard.node.storage.database import FILE_NAME, UnusableData
from callboard.protocol import PROTOCOL_VERSION
from callboard.runtime import simulated_seams


async def test_the_version_can_be_set():
    async with open_node() as node, httpx.AsyncClient(base_url=str(node.url)) as http:
        assert (await http.get("/")).json()["version"]["number"] == PROTOCOL_VERSION == node.version
    async with open_node(version="8.15.1") as node, httpx.AsyncClient(base_url=str(node.url)) as http:
        assert (await http.get("/")).json()["version"]["number"] == "8.15.1"


async def test_a_port_in_use_is_one_clear_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is in use") as caught:
            async with open_node(port=port):
                pass
    assert caught.value.errno == errno.EADDRINUSE


async def test_the_port_is_free_again_afterwards():
    async with open_node() as node:
        port = int(str(node.url).rpartition(":")[2])
    async with open_node(port=port) as node:
        assert node.url == f"http://127.0.0.1:{port}"


async def test_an_error_inside_comes_out_as_itself():
    with pytest.raises(ZeroDivisionError):
        async with open_node():
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with open_node(port=None):
            raise ZeroDivisionError


async def test_a_cancelled_node_closes_promptly():
    with trio.move_on_after(0.2) as scope:
        async with open_node():
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_node_in_a_simulation_repeats_itself(make_raw, autojump_clock):
    async def run() -> list[object]:
        with simulated_seams(7):
            async with open_node(port=None) as node:
                raw = make_raw(node.app)
                made = [(await raw("POST", "/a/_doc", {"n": n})).json for n in range(3)]
                return [*made, (await raw("GET", "/a")).json, (await raw("POST", "/_connector", {"name": "x"})).json]

    assert await run() == await run()


async def test_everything_is_kept(tmp_path: Path, make_raw):
    async with open_node(tmp_path, port=None) as node:
        raw = make_raw(node.app)
        await raw("PUT", "/a", {"mappings": {"properties": {"k": {"type": "keyword"}}}, "aliases": {"other": {}}})
        for number in range(3):
            await raw("PUT", f"/a/_doc/{number}", {"k": f"v{number}", "text": "some words", "n": number})
        await raw("DELETE", "/a/_doc/0")
        await raw("PUT", "/_ingest/pipeline/p", {"processors": []})
        await raw("PUT", "/_connector/_secret/s", {"value": "v"})
        before = (await raw("GET", "/a")).json
        identity = (await raw("GET", "/")).json["cluster_uuid"]
    async with open_node(tmp_path, port=None) as node:
        raw = make_raw(node.app)
        assert (await raw("GET", "/a")).json == before
        assert (await raw("GET", "/")).json["cluster_uuid"] == identity
        assert (await raw("GET", "/other/_search?q=words")).json["hits"]["total"]["value"] == 2
        assert (await raw("GET", "/_connector/_secret/s")).json["value"] == "v"
        assert (await raw("GET", "/_ingest/pipeline/p")).status == 200
        written = (await raw("PUT", "/a/_doc/9", {"n": 9, "new": 1})).json
        assert written["_seq_no"] == 4


async def test_searches_see_one_state_while_others_write(tmp_path: Path, make_raw):
    """Documents are replaced all the time; every search finds each of them exactly once, with its source."""
    async with open_node(tmp_path, port=None) as node:
        raw = make_raw(node.app)
        await raw("POST", "/a/_bulk", lines(0, 50))
        running = True

        async def replace() -> None:
            while running:
                assert (await raw("POST", "/a/_bulk", lines(0, 50))).json["errors"] is False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace)
            for _ in range(60):
                answer = (await raw("POST", "/a/_search?size=100", {"query": {"match": {"text": "number"}}})).json
                assert sorted(hit["_source"]["n"] for hit in answer["hits"]["hits"]) == list(range(50))
            running = False


async def test_without_a_folder_nothing_is_kept(make_raw):
    async with open_node(port=None) as node:
        await make_raw(node.app)("PUT", "/a")
    async with open_node(port=None) as node:
        assert (await make_raw(node.app)("HEAD", "/a")).status == 404


async def test_a_folder_belongs_to_one_node(tmp_path: Path):
    async with open_node(tmp_path, port=None):
        with pytest.raises(UnusableData, match="in use by another node"):
            async with open_node(tmp_path, port=None):
                pass
    async with open_node(tmp_path, port=None):
        pass


async def test_data_that_is_not_ours_is_refused(tmp_path: Path):
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, but long enough to be looked at twice" * 20)
    with pytest.raises(UnusableData, match="cannot use"):
        async with open_node(tmp_path, port=None):
            pass
    (tmp_path / FILE_NAME).unlink()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UnusableData, match="format 99"):
        async with open_node(tmp_path, port=None):
            pass


async def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(OSError, match="nowhere"):
        async with open_node(tmp_path / "nowhere", port=None):
            pass


_SERVE = """
import sys, pathlib, resource, trio
from callboard.node import open_node

async def main():
    if len(sys.argv) > 2:
        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    async with open_node(pathlib.Path(sys.argv[1])) as node:
        print(node.url, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def serve(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", _SERVE, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def lines(start: int, count: int, more: str = "") -> bytes:
    parts = []
    for number in range(start, start + count):
        parts += [b'{"index":{"_id":"%d"}}' % number, orjson.dumps({"n": number, "text": f"number {number} {more}"})]
    return b"\n".join(parts) + b"\n"


JSON = {"content-type": "application/x-ndjson"}


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, make_raw):
    """The process is killed while bulk requests are on their way; every acknowledged one is whole, every other all or nothing."""
    process, url = await trio.to_thread.run_sync(serve, str(tmp_path))
    acknowledged: list[int] = []
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http, trio.open_nursery() as nursery:

            async def write(first: int) -> None:
                for start in range(first, first + 20_000, 200):
                    try:
                        answer = await http.post("/a/_bulk", content=lines(start, 200), headers=JSON)
                    except httpx.TransportError:
                        return
                    assert answer.json()["errors"] is False
                    acknowledged.append(start)
                    if len(acknowledged) == 25:
                        os.kill(process.pid, signal.SIGKILL)

            nursery.start_soon(write, 0)
            nursery.start_soon(write, 100_000)
    finally:
        process.kill()
        await trio.to_thread.run_sync(process.wait)
        assert process.stdout is not None
        process.stdout.close()
    assert len(acknowledged) >= 25
    async with open_node(tmp_path, port=None) as node:
        raw = make_raw(node.app)
        for start in acknowledged:
            counted = await raw("POST", "/a/_count", {"query": {"range": {"n": {"gte": start, "lt": start + 200}}}})
            assert counted.json["count"] == 200
        total = (await raw("GET", "/a/_count")).json["count"]
        assert total % 200 == 0
        assert total >= 200 * len(acknowledged)
        found = await raw("POST", "/a/_count", {"query": {"match": {"text": "number"}}})
        assert found.json["count"] == total


async def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path):
    """The process may not write files beyond a size, which is how a full disk looks to it."""
    process, url = await trio.to_thread.run_sync(serve, str(tmp_path), str(3_000_000))
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            written = 0
            for start in range(0, 100_000, 200):
                answer = await http.post("/a/_bulk", content=lines(start, 200, "x" * 300), headers=JSON)
                if answer.status_code != 200:
                    break
                written += 200
            assert answer.status_code == 429
            error = answer.json()["error"]
            assert error["type"] == "cluster_block_exception"
            assert "disk is full" in error["reason"]
            assert written > 0
            assert (await http.get("/a/_count")).json()["count"] == written
            assert (await http.get("/a/_search?q=number")).json()["hits"]["total"]["value"] == min(written, 10_000)
    finally:
        process.kill()
        await trio.to_thread.run_sync(process.wait)
        assert process.stdout is not None
        process.stdout.close()
