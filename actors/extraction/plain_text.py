"""Reads plain text in this process: the right encoding, and never more of a stream than the limit asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ...runtime import blocking
from .charsets import SAMPLE_BYTES, declared_charset, decoder, detect
from .results import Extraction, ExtractionLimits, Status

ENGINE = "plain"


async def read_plain_text(
    sample: bytes,
    rest: AsyncIterator[bytes],
    limits: ExtractionLimits,
    media_type: str | None = None,
    *,
    complete: bool = False,
) -> Extraction:
    """Decode a text whose beginning is `sample` and whose other bytes are in `rest`; stop reading when the limit is reached.

    `complete` says that nothing follows the sample. Needs memory for the text and one chunk, however long the stream is.
    Cancelled: the text so far is dropped; the caller closes the stream.
    """
    declared = declared_charset(media_type)
    head = sample[:SAMPLE_BYTES]
    ends_here = complete and len(head) == len(sample)
    if head.isascii() and b"\0" not in head:
        encoding: str | None = "utf-8"
    else:
        encoding = await blocking(lambda: detect(head, declared, complete=ends_here))
    if encoding is None:
        return Extraction(
            Status.UNSUPPORTED, detail="It is named like a text and is none.", engine=ENGINE, size_bytes=len(sample)
        )
    decode = decoder(encoding).decode
    pieces: list[str] = []
    characters = 0
    size_bytes = 0

    def take(chunk: bytes, final: bool = False) -> bool:
        """Decode one chunk; False if that was enough."""
        nonlocal characters, size_bytes
        room_bytes = limits.size_bytes_max - size_bytes
        piece = decode(chunk[:room_bytes], final)
        size_bytes += min(len(chunk), room_bytes)
        pieces.append(piece)
        characters += len(piece)
        return characters <= limits.characters_max and len(chunk) <= room_bytes

    enough = not take(sample)
    if not enough:
        async for chunk in rest:
            if not take(chunk):
                enough = True
                break
    if not enough:
        take(b"", True)
    text = "".join(pieces)
    truncated = enough or len(text) > limits.characters_max
    text = _tidy(text[: limits.characters_max])
    metadata = {"Content-Encoding": encoding.removesuffix("-sig")}
    if truncated:
        detail = f"Only the first {len(text):,} characters are kept; the limit is the setting `characters`."
        return Extraction(Status.TRUNCATED, text, metadata, detail, ENGINE, size_bytes)
    if not text.strip():
        return Extraction(Status.EMPTY, "", metadata, "", ENGINE, size_bytes)
    return Extraction(Status.TEXT, text, metadata, "", ENGINE, size_bytes)


def read_small_text(content: bytes, limits: ExtractionLimits, media_type: str | None = None) -> Extraction | None:
    """Decode a whole text that is ASCII or UTF-8 beyond doubt, without waiting; None if it needs a closer look."""
    if (
        b"\0" in content
        or content.startswith(b"\xef\xbb\xbf")
        or len(content) > min(SAMPLE_BYTES, limits.size_bytes_max)
    ):
        return None
    if not content.isascii() and (b"\x1b" in content or declared_charset(media_type) is not None):
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if len(text) > limits.characters_max:
        return None
    metadata = {"Content-Encoding": "utf-8"}
    status = Status.TEXT if text.strip() else Status.EMPTY
    return Extraction(status, text if status is Status.TEXT else "", metadata, "", ENGINE, len(content))


def _tidy(text: str) -> str:
    """Without NUL characters, which no index searches, and without lone surrogates, which no JSON writer takes."""
    if "\0" in text:
        text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
