"""A large file on its way into `_attachment` needs memory for its encoding and for the request, and files wait for each other."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from callboard.actors.sync import SyncSettings, sync
from callboard.node import open_node
from callboard.protocol import Pipeline
from callboard.protocol.store import Target, open_store
from callboard.sources.source import ContentRef, Document, Source

MIB = 2**20
PIECE_BYTES = 65536


@attrs.frozen
class NoConfig:
    """Nothing to set."""


class Large(Source[NoConfig]):
    """Files that are made while they are read."""

    service_type = "large"
    name = "Large"
    Config = NoConfig
    content_concurrency = 8

    def __init__(self, files: int, size_bytes: int) -> None:
        super().__init__(NoConfig())
        self.files, self.size_bytes = files, size_bytes

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Any, checkpoint: Any = None) -> Any:
        yield [
            Document(str(number), {}, content=ContentRef(f"{number}.pdf", {"seed": number}, self.size_bytes))
            for number in range(self.files)
        ]

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        yield pieces(content.data["seed"], self.size_bytes)


async def pieces(seed: int, size_bytes: int) -> AsyncIterator[bytes]:
    chance = random.Random(seed)
    for start in range(0, size_bytes, PIECE_BYTES):
        yield chance.randbytes(min(PIECE_BYTES, size_bytes - start))


class Taking:
    """A node that notes attachments by their hash and keeps none of them."""

    def __init__(self, app: Any) -> None:
        self._behind = app
        self.hashes: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope.get("path", "").endswith("_bulk"):
            await self._behind(scope, receive, send)
            return
        assert b"content-encoding" not in dict(scope["headers"]), dict(scope["headers"])
        body = b""
        while True:
            message = await receive()
            body = message.get("body", b"") if not body else body + message.get("body", b"")
            if not message.get("more_body"):
                break
        kept = {"type": "http.request", "body": self._without(body)}
        del message, body
        scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]

        async def again() -> Any:
            return kept

        await self._behind(scope, again, send)

    def _without(self, body: bytes) -> bytes:
        def note(found: re.Match[bytes]) -> bytes:
            start, end = found.span(1)
            digest = hashlib.sha256()
            for at in range(start, end, 4 * PIECE_BYTES):
                digest.update(base64.b64decode(body[at : min(end, at + 4 * PIECE_BYTES)], validate=True))
            self.hashes.append(digest.hexdigest())
            return b""

        return re.sub(rb',"_attachment":"([A-Za-z0-9+/]*={0,2})"', note, body)


async def peak_of(files: int, size_bytes: int, memory_bytes: int) -> int:
    settings = SyncSettings(download_size_bytes_max=None, download_memory_size_bytes=memory_bytes)
    source = Large(files, size_bytes)
    async with open_node(port=None) as node:
        taking = Taking(node.app)
        async with open_store(Target(embedded=taking)) as store:
            # The first sync makes indices and imports modules; that is a price of the process and not of a file.
            await sync(Large(1, 1), store, index="warm", pipeline=Pipeline())
            taking.hashes.clear()
            tracemalloc.start()
            try:
                report = await sync(source, store, index="large", settings=settings, pipeline=Pipeline())
                peak_bytes = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert (report.status, report.indexed) == ("completed", files), report.error
    expected = []
    for number in range(files):
        digest = hashlib.sha256()
        async for piece in pieces(number, size_bytes):
            digest.update(piece)
        expected.append(digest.hexdigest())
    assert sorted(taking.hashes) == sorted(expected)
    return peak_bytes


@pytest.mark.parametrize("size_mib", [12, 36])
async def test_a_large_file_needs_less_than_three_times_its_size(size_mib: int) -> None:
    peak_bytes = await peak_of(1, size_mib * MIB, 256 * MIB)
    assert peak_bytes < 3 * size_mib * MIB + 4 * MIB


async def test_many_files_need_no_more_than_the_budget_lets_be_on_their_way() -> None:
    peak_bytes = await peak_of(24, 3 * MIB, 20 * MIB)
    # Two at a time have room to be read; what was read waits in the queue to the sink, which has a bound of its own.
    assert peak_bytes < 20 * MIB + 25 * MIB
