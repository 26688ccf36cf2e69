"""How much of the memory for downloads an attachment may take whose size nobody knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import callboard
from callboard.actors.sync.settings import MIB, SyncSettings
from callboard.node import open_node
from callboard.protocol import Pipeline
from callboard.protocol.configuration import setting
from callboard.protocol.store import Target
from callboard.sources.source import ContentRef, Document, Source

FILES = 6


@attrs.frozen
class ShelfConfig:
    knows_sizes: bool = setting("Knows sizes", default=False)


class Shelf(Source[ShelfConfig]):
    """Files of a few bytes each; counts how many are read at once."""

    service_type = "shelf"
    name = "Shelf"
    Config = ShelfConfig
    reading = 0
    most = 0
    expected = 1

    def __init__(self, config: ShelfConfig) -> None:
        super().__init__(config)
        self.together = trio.Event()

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Any, checkpoint: Any = None) -> Any:
        size_bytes = 5 if self.config.knows_sizes else None
        for number in range(FILES):
            content = ContentRef(name=f"{number}.txt", size_bytes=size_bytes)
            yield [Document(str(number), {}, content=content)]

    def fetch(self, content: ContentRef) -> Any:
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[AsyncIterator[bytes]]:
        self.reading += 1
        self.most = max(self.most, self.reading)
        if self.reading == self.expected:
            self.together.set()
        try:
            yield self._chunks()
        finally:
            self.reading -= 1

    async def _chunks(self) -> AsyncIterator[bytes]:
        await self.together.wait()
        # Whoever else may begin has begun then.
        await trio.testing.wait_all_tasks_blocked()
        yield b"words"


@pytest.mark.parametrize(
    ("knows_sizes", "size_max", "most"), [(False, 4 * MIB, 1), (False, None, 1), (True, 4 * MIB, FILES)]
)
async def test_a_file_of_unknown_size_takes_the_room_that_it_may_need(
    knows_sizes: bool, size_max: int | None, most: int
) -> None:
    settings = SyncSettings(
        download_memory_size_bytes=12 * MIB, download_size_bytes_max=size_max, downloads_max=FILES, download_tries_max=1
    )
    shelf = Shelf(ShelfConfig(knows_sizes=knows_sizes))
    shelf.expected = most
    with trio.fail_after(30):
        report = await _synced(shelf, settings)
    assert (report.status, report.indexed) == ("completed", FILES)
    assert shelf.most == most


async def _synced(shelf: Shelf, settings: SyncSettings) -> Any:
    async with open_node(port=None, attachment_reader=_words) as node:
        target = Target(embedded=node.app)
        return await callboard.sync(shelf, target, index="shelf", settings=settings, pipeline=Pipeline())


async def _words(data: bytes, name: str | None) -> str:
    return data.decode()
