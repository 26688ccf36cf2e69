"""Reading the content of documents: fetched with a limit, tried again, and turned into fields by one of two readers."""

from __future__ import annotations

import binascii
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol

import attrs
import structlog
import trio

from ...runtime import random
from ...sources.errors import SourceError, Throttled
from ...sources.source import ContentRef, Source
from ..extraction import base64_stream, is_accepted
from ..journal.events import Retried
from ..journal.events import Throttled as SourceThrottled
from ..journal.telling import tell
from .verdicts import pause_s

log = structlog.get_logger(__name__)

RETRY_AFTER_S_MAX = 300.0
QUARANTINE = "quarantine"
"""The stage of a file that ended the engine, or kept it too long, twice: it is not read again until it changes or is replayed."""


class ContentFailed(Exception):
    """The content of a document could not be read. `where` is the stage, `why` a sentence for people."""

    def __init__(self, where: str, why: str, *, permanent: bool = False) -> None:
        super().__init__(why)
        self.where, self.why = where, why
        self.permanent = permanent
        """The file itself is at fault, so that reading it again cannot help."""


class TooLarge(Exception):
    """More bytes than the limit."""


class NoText(Exception):
    """It is of a kind that no text can be read from: an archive, an image. Nothing has failed."""


class ContentReader(Protocol):
    """Turns the bytes of a file into fields of its document. Raises `ContentFailed`, `TooLarge` and `NoText`."""

    keeps_all: bool
    """The whole file ends up in the document, so that memory must be there for all of it."""

    def accepts(self, content: ContentRef) -> bool: ...

    async def read(self, content: ContentRef, chunks: AsyncIterator[bytes]) -> dict[str, Any]: ...

    def read_at_once(self, content: ContentRef, data: bytes) -> dict[str, Any] | None:
        """The fields, if they can be made of these bytes without waiting. Raises nothing."""
        ...


class AttachmentReader:
    """Sends files as they are: the ingest pipeline reads them out of `_attachment`."""

    keeps_all = True

    def __init__(self, accepts: Callable[[str], bool] = is_accepted) -> None:
        self._accepts = accepts

    def accepts(self, content: ContentRef) -> bool:
        return self._accepts(content.name)

    async def read(self, content: ContentRef, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        # Encoded as it comes, so that the bytes and their encoding are never both there in full.
        encoded = bytearray()
        async with aclosing(base64_stream(chunks)) as pieces:
            async for piece in pieces:
                encoded += piece
        return {"_attachment": encoded}

    def read_at_once(self, content: ContentRef, data: bytes) -> dict[str, Any] | None:
        return {"_attachment": bytearray(binascii.b2a_base64(data, newline=False))}


class TextReader:
    """Reads files here; their text becomes `body`. Works with whatever extracts like `actors.extraction`.

    The bytes pass through, within the extractor's own budget; what stays is text of limited length.
    """

    keeps_all = False

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor

    def accepts(self, content: ContentRef) -> bool:
        return bool(self._extractor.accepts(content.name))

    async def read(self, content: ContentRef, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        found = await self._extractor.extract(content.name, chunks, content.media_type)
        if found.status.value == "too_large":
            raise TooLarge(found.detail)
        if found.status.value == "unsupported":
            raise NoText(found.detail)
        if not found.is_readable:
            why = f"{content.name}: {found.status.value}"
            where = QUARANTINE if found.status.value == "quarantined" else "extraction"
            raise ContentFailed(
                where, f"{why}: {found.detail}" if found.detail else why, permanent=not found.may_succeed_later
            )
        fields: dict[str, Any] = {"body": found.text}
        if found.status.value == "truncated":
            fields["_truncated_fields"] = ["body"]
        return fields

    def read_at_once(self, content: ContentRef, data: bytes) -> dict[str, Any] | None:
        read = getattr(self._extractor, "extract_at_once", None)
        found = None if read is None else read(content.name, data, content.media_type)
        return None if found is None else {"body": found.text}


@attrs.frozen
class Fetched:
    """The fields that complete a document, and how many bytes were read for them."""

    fields: dict[str, Any]
    size_bytes: int


async def fetch(
    source: Source[Any], content: ContentRef, reader: ContentReader, *, size_bytes_max: int | None, tries_max: int
) -> Fetched:
    """Read the content of one document, trying again what may pass. Raises `ContentFailed`, `TooLarge` and `NoText`.

    Cancelled: the connection is closed, nothing is kept.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await _once(source, content, reader, size_bytes_max)
        except SourceError as exc:
            if not exc.retriable or attempt >= tries_max:
                raise ContentFailed("download", f"{type(exc).__name__}: {exc}") from exc
            asked_s = exc.retry_after_s if isinstance(exc, Throttled) else None
            pause = pause_s(attempt, random()) if asked_s is None else min(asked_s, RETRY_AFTER_S_MAX)
            if isinstance(exc, Throttled):
                told = asked_s is not None
                tell(SourceThrottled(by=source.name, status=exc.status, wait_s=pause, as_told=told))
            else:
                tell(Retried(what="download", attempt=attempt, wait_s=pause, why=str(exc), name=content.name))
            log.info("download.retry", name=content.name, attempt=attempt, after_s=round(pause, 2), why=str(exc))
            await trio.sleep(pause)
        except (ContentFailed, TooLarge, NoText):
            raise
        except Exception as exc:
            raise ContentFailed("download", f"{type(exc).__name__}: {exc}") from exc


async def _once(source: Source[Any], content: ContentRef, reader: ContentReader, size_bytes_max: int | None) -> Fetched:
    if content.gives == "fields":
        return Fetched(await source.fetch_fields(content), content.size_bytes or 0)
    meter = _Meter(size_bytes_max)
    async with source.fetch(content) as chunks:
        limited = meter.limited(chunks)
        async with aclosing(limited):
            fields = await reader.read(content, limited)
    return Fetched(fields, meter.size_bytes)


class _Meter:
    def __init__(self, size_bytes_max: int | None) -> None:
        self._size_bytes_max = size_bytes_max
        self.size_bytes = 0

    async def limited(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in chunks:
                self.size_bytes += len(chunk)
                if self._size_bytes_max is not None and self.size_bytes > self._size_bytes_max:
                    raise TooLarge(f"more than {self._size_bytes_max} bytes")
                yield chunk
        finally:
            # Many sources hand out a generator and leave it to whoever iterates to close it.
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
