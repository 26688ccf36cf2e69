"""Both sides of `_attachment`: bytes to standard base64 as they stream by, and back from bytes to text for the node."""

from __future__ import annotations

import binascii
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from .extractor import Extractor

_ENCODED_AT_ONCE_BYTES = 3 * 16 * 1024


async def base64_stream(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Encode a stream piece by piece: standard alphabet, no line breaks, padding only at the very end.

    Pieces come in multiples of three bytes, so that joining them gives the encoding of the whole. Needs memory for two chunks.
    The caller closes `chunks`.
    """
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= _ENCODED_AT_ONCE_BYTES:
            whole = len(waiting) - len(waiting) % 3
            yield binascii.b2a_base64(waiting[:whole], newline=False)
            del waiting[:whole]
    if waiting:
        yield binascii.b2a_base64(waiting, newline=False)


def base64_size_bytes(size_bytes: int) -> int:
    """How long the encoding of so many bytes is."""
    return (size_bytes + 2) // 3 * 4


def attachment_reader(extractor: Extractor) -> Callable[[bytes, str | None], Awaitable[str]]:
    """What the node's attachment processor calls: the bytes and perhaps a file name, to the text.

    Raises `AttachmentUnreadable` where the processor of Elasticsearch fails too, so that the reason reaches the document.
    """

    async def read(content: bytes, name: str | None) -> str:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield content

        async with aclosing(chunks()) as whole:
            found = await extractor.extract(name or "", whole)
        if not found.is_readable:
            raise AttachmentUnreadable(f"{found.status.value}: {found.detail}")
        return found.text

    return read


class AttachmentUnreadable(ValueError):
    """The bytes of an attachment could not be turned into text. A `ValueError`, as what reads a bad value raises."""
