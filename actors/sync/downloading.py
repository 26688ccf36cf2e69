"""Reading the content of documents that have changed: a bounded pool, a budget of bytes, and no failure without a name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
import trio

from ...runtime import monotonic
from ...runtime.budget import Grant, Holder
from ...runtime.stream import Stream, StreamSender
from ...sources.errors import SourceError
from ...sources.source import ContentRef
from ..journal.events import ContentRead
from ..journal.telling import is_told, tell
from .batches import batches
from .content import QUARANTINE, AttachmentReader, ContentFailed, ContentReader, NoText, TextReader, TooLarge, fetch
from .dead_letters import letter_of
from .encoding import TRUNCATED
from .operations import Operation, Operations
from .preparing import Preparer
from .report import (
    FailedDocument,
)
from .wanting import SMALL_FILES_AT_ONCE, Download
from .work import Work

log = structlog.get_logger(__name__)

LITTLE_SIZE_BYTES: Final = 2**20
"""What is taken for the size of text or fields of which nothing is known."""


class Downloads:
    """Reads content and hands the finished documents to the sink."""

    def __init__(self, work: Work, preparer: Preparer) -> None:
        self._work, self._preparer = work, preparer

    async def run(self, wanted: Stream[Download], out: Stream[Operations]) -> None:
        """Read everything that is wanted, until the stream ends."""
        workers = self._work.settings.downloads_max or max(1, self._work.source.content_concurrency)
        memory = self._work.download_bytes
        assert memory is not None
        async with self._reader() as reader, out.sender() as sender:
            async with trio.open_nursery() as nursery, wanted.receiver() as downloads:
                limit = trio.Semaphore(workers)
                async for batch in downloads:
                    small, others = self._sorted_by_size(batch.items, reader)
                    for group in small:
                        await limit.acquire()
                        nursery.start_soon(self._download_small, group, reader, memory, sender, limit, nursery)
                    for one in others:
                        await limit.acquire()
                        nursery.start_soon(self._download, one, reader, memory, sender, limit)
                    batch.settle()
            await sender.finish()

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[ContentReader]:
        if not self._work.plan.text_locally:
            # The same names as if the files were read here.
            own = getattr(self._work.extractor, "accepts", None)
            yield AttachmentReader() if own is None else AttachmentReader(own)
            return
        if self._work.extractor is not None:
            yield TextReader(self._work.extractor)
            return
        from ..extraction import ExtractionSettings, open_extractor

        # Opened with the first file: a sync without content pays nothing for it.
        async with _Lazily(lambda: open_extractor(ExtractionSettings())) as extractor:
            yield TextReader(extractor)

    def _sorted_by_size(
        self, items: Sequence[Download], reader: ContentReader
    ) -> tuple[list[list[Download]], list[Download]]:
        """Groups of small files, each of one segment, and the files that are read one by one."""
        size_max, limit = self._work.source.small_content_bytes_max, self._work.settings.download_size_bytes_max
        if limit is not None:
            size_max = min(size_max, limit)
        groups: list[list[Download]] = []
        others: list[Download] = []
        for one in items:
            content = one.wanted.content
            size_bytes = content.size_bytes
            if size_bytes is None or size_bytes > size_max or content.gives != "bytes" or not reader.accepts(content):
                others.append(one)
            elif groups and groups[-1][0].segment is one.segment and len(groups[-1]) < SMALL_FILES_AT_ONCE:
                groups[-1].append(one)
            else:
                groups.append([one])
        return groups, others

    async def _download_small(
        self,
        group: list[Download],
        reader: ContentReader,
        memory: Holder,
        sender: StreamSender[Operations],
        limit: trio.Semaphore,
        nursery: trio.Nursery,
    ) -> None:
        """Read a group of small files in one go; those that need more than that are read one by one."""
        counters = self._work.counters
        left: list[Download] = []
        done: list[Download] = []
        operations: list[Operation] = []
        size_bytes = 0
        try:
            async with await memory.take(3 * sum(one.wanted.content.size_bytes or 0 for one in group)) as held:
                try:
                    contents = await self._work.source.fetch_small([one.wanted.content for one in group])
                except SourceError:
                    contents = [None] * len(group)
                for one, data in zip(group, contents, strict=True):
                    more = None if data is None else reader.read_at_once(one.wanted.content, data)
                    if data is None or more is None:
                        left.append(one)
                        continue
                    operation = self._preparer.completed(one.wanted, more, failed=False)
                    operations.append(operation)
                    size_bytes += len(operation.payload)
                    done.append(one)
                    self._work.letters.was_read(one.wanted.id)
                    counters.downloaded += 1
                    counters.downloaded_bytes += len(data)
                if operations:
                    first = group[0]
                    for part, part_bytes in batches(
                        operations,
                        size_bytes,
                        self._work.settings.bulk_documents_max,
                        self._work.settings.bulk_size_bytes_max,
                    ):
                        # Handed on, not taken anew: whoever waits for bytes must not hold any.
                        sent = [Operations(first.partition, first.segment, part, part_bytes)]
                        await sender.send(sent, part_bytes, held.part(part_bytes))
        finally:
            limit.release()
            self._work.downloading.difference_update(one.wanted.id for one in done)
            self._work.download_ended.unpark_all()
        for one in left:
            await limit.acquire()
            nursery.start_soon(self._download, one, reader, memory, sender, limit)

    async def _download(
        self,
        one: Download,
        reader: ContentReader,
        memory: Holder,
        sender: StreamSender[Operations],
        limit: trio.Semaphore,
    ) -> None:
        wanted, counters, settings = one.wanted, self._work.counters, self._work.settings
        content, size_max = wanted.content, settings.download_size_bytes_max
        more: dict[str, Any] | None = None
        failed = keeps_text = False
        began_s, before = monotonic(), counters.downloads_too_large
        held: Grant | None = None
        try:
            if content.gives == "bytes" and not reader.accepts(content):
                pass
            elif size_max is not None and content.size_bytes is not None and content.size_bytes > size_max:
                counters.downloads_too_large += 1
                keeps_text = True
            else:
                # Held until the document is made: the bytes and what is made of them; its payload until it is answered.
                held = await memory.take(self._memory_of(content, reader))
                try:
                    fetched = await fetch(
                        self._work.source,
                        content,
                        reader,
                        size_bytes_max=size_max,
                        tries_max=settings.download_tries_max,
                    )
                except TooLarge:
                    counters.downloads_too_large += 1
                    keeps_text = True
                    self._work.letters.was_read(wanted.id)
                except NoText as exc:
                    keeps_text = True
                    self._work.letters.was_read(wanted.id)
                    log.info("download.no_text", id=wanted.id, name=content.name, why=str(exc))
                except ContentFailed as exc:
                    # Poison is not tried again for the same file: it would cost two workers in every sync.
                    keeps_text = exc.where == QUARANTINE
                    failed = not keeps_text
                    if exc.where == "extraction":
                        self._work.letters.was_read(wanted.id)
                    letter = FailedDocument(wanted.id, exc.where, exc.why, one.partition.key, wanted.id)
                    letter_of(counters, self._work.letters, letter)
                    one.segment.counts.failed += 1
                    log.warning("download.failed", id=wanted.id, name=content.name, why=exc.why)
                else:
                    more = fetched.fields
                    self._work.letters.was_read(wanted.id)
                    counters.downloaded += 1
                    counters.downloaded_bytes += fetched.size_bytes
            if is_told():
                large = counters.downloads_too_large > before
                outcome = "failed" if failed else "ok" if more is not None else "too_large" if large else "no_text"
                size_read = content.size_bytes or 0
                took_s = monotonic() - began_s
                tell(ContentRead(name=content.name, size_bytes=size_read, seconds=took_s, outcome=outcome))
            earlier = None
            if (failed or keeps_text) and wanted.row >= 0 and wanted.operation == "index" and content.gives == "bytes":
                earlier = await self._earlier_text(wanted.id)
            operation = self._preparer.completed(wanted, more, failed=failed, keeps_text=keeps_text, earlier=earlier)
            size_bytes = len(operation.payload)
            sent = [Operations(one.partition, one.segment, [operation], size_bytes)]
            await sender.send(sent, size_bytes, held.part(size_bytes) if held is not None else None)
        finally:
            if held is not None:
                held.release()
            limit.release()
            self._work.downloading.discard(wanted.id)
            self._work.download_ended.unpark_all()

    def _memory_of(self, content: ContentRef, reader: ContentReader) -> int:
        """Bytes that reading this content may need: three times its size, or the most that it may have if nobody says."""
        settings = self._work.settings
        if content.size_bytes is not None:
            return 3 * content.size_bytes
        size_max = settings.download_size_bytes_max
        if content.gives == "bytes" and reader.keeps_all:
            return settings.download_memory_size_bytes if size_max is None else 3 * size_max
        return 3 * (LITTLE_SIZE_BYTES if size_max is None else min(size_max, LITTLE_SIZE_BYTES))

    async def _earlier_text(self, document_id: str) -> dict[str, Any]:
        """The text that a document of the index has from its file; nothing if it has none. Raises `StoreError`."""
        told = await self._work.store.client.mget(
            index=self._work.plan.index, ids=[document_id], source_includes=["body", TRUNCATED]
        )
        found: dict[str, Any] = next((hit["_source"] for hit in told["docs"] if hit.get("found")), {})
        if "body" not in found:
            return {}
        flagged = "body" in found.get(TRUNCATED, ())
        return {"body": found["body"], **({TRUNCATED: ["body"]} if flagged else {})}


class _Lazily:
    """An extractor that is opened at its first use, and closed with the block."""

    def __init__(self, open_it: Callable[[], Any]) -> None:
        self._open_it = open_it
        self._context: Any = None
        self._opened: Any = None
        self._lock = trio.Lock()

    async def __aenter__(self) -> _Lazily:
        return self

    async def __aexit__(self, *details: Any) -> None:
        if self._context is not None:
            await self._context.__aexit__(*details)

    def accepts(self, name: str) -> bool:
        from ..extraction import is_accepted

        return is_accepted(name)

    def extract_at_once(self, name: str, content: bytes, media_type: str | None = None) -> Any:
        from ..extraction import ExtractionLimits
        from ..extraction.extractor import read_at_once

        return read_at_once(name, content, ExtractionLimits(), media_type)

    async def extract(self, name: str, chunks: AsyncIterator[bytes], media_type: str | None = None) -> Any:
        async with self._lock:
            if self._opened is None:
                context = self._open_it()
                self._opened = await context.__aenter__()
                self._context = context
        return await self._opened.extract(name, chunks, media_type)
