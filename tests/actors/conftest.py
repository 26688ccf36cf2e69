"""A source whose contents, pages and misfortunes a test writes down."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from callboard.protocol.configuration import setting
from callboard.sources.source import (
    Checkpoint,
    ContentRef,
    Document,
    Features,
    Identity,
    Item,
    Partition,
    Source,
)


@attrs.frozen
class ScriptedConfig:
    name: str = setting(label="Name", default="scripted")


class ScriptedSource(Source[ScriptedConfig]):
    """Lists what `tables` say, page by page: partition -> list of items. An exception among them is raised there."""

    service_type = "scripted"
    name = "Scripted"
    Config = ScriptedConfig
    features = Features(resumable=True, incremental="skip_unchanged", document_level_security=True)

    def __init__(self, tables: dict[str, Sequence[Any]] | None = None, *, page: int = 100) -> None:
        super().__init__(ScriptedConfig())
        self.tables: dict[str, Sequence[Any]] = tables or {}
        self.page = page
        self.files: dict[str, bytes | Exception] = {}
        self.people: list[Identity] = []
        self.fetched: list[str] = []
        self.started_from: dict[str, Any] = {}
        self.read = 0

    async def ping(self) -> None:
        return None

    async def partitions(self, rules: Any = None) -> AsyncGenerator[Partition, None]:
        for key in self.tables:
            yield Partition(key)

    async def documents(self, partition: Partition, checkpoint: Any = None) -> AsyncGenerator[Item | list[Item], None]:
        self.started_from[partition.key] = checkpoint
        items = self.tables[partition.key]
        at = checkpoint or 0
        while at < len(items):
            page: list[Item] = []
            for item in items[at : at + self.page]:
                if isinstance(item, Exception):
                    yield page
                    raise item
                page.append(attrs.evolve(item, fields=dict(item.fields)) if isinstance(item, Document) else item)
            self.read += len(page)
            yield page
            at += self.page
            yield Checkpoint(at)

    async def identities(self) -> AsyncGenerator[list[Identity], None]:
        yield list(self.people)

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        self.fetched.append(content.name)
        found = self.files[content.name]
        if isinstance(found, Exception):
            raise found

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(found), 1000):
                yield found[at : at + 1000]

        yield chunks()


def rows(count: int, *, start: int = 0, **fields: Any) -> list[Document]:
    """Documents with ids `row-<n>`."""
    return [
        Document(f"row-{n}", {"number": n, **fields}, timestamp="2026-01-01T00:00:00Z")
        for n in range(start, start + count)
    ]
