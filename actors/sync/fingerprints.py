"""Short hashes by which a sync recognises what it has sent before. They name things and protect nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

from ... import __version__
from ...sources.source import ContentRef
from .encoding import plain

CODE_VERSION = f"{__version__}/2"
"""Raised when the same source document would be indexed differently than before."""


def hash64(data: bytes) -> int:
    """64 bits of a text that must not be confused with others: ids, partition keys."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def setup_fingerprint(**parts: Any) -> bytes:
    """What a document depends on besides the document: configuration, rules, pipeline, code. A change re-processes everything."""
    text = orjson.dumps(plain({**parts, "code": CODE_VERSION}), option=orjson.OPT_SORT_KEYS)
    return blake2b(text, digest_size=16).digest()


def content_part(content: ContentRef, timestamp: str | None) -> bytes | None:
    """What identifies the bytes of a document without reading them. None if nothing does: they are then always read again."""
    if content.version is None and timestamp is None:
        return None
    named: Mapping[str, Any] = {
        "name": content.name,
        "version": content.version,
        "size": content.size_bytes,
        "gives": content.gives,
    }
    return orjson.dumps(named)


class Fingerprinter:
    """Hashes documents under one setup.

    XXH3 takes a tenth of the time of a cryptographic hash. Its seed is a hash of the setup, and so of the connector's secrets:
    who writes documents cannot look for two that would be taken for the same.
    """

    __slots__ = ("_seed",)

    def __init__(self, setup: bytes) -> None:
        self._seed = hash64(setup)

    def of_all(self, lines: Sequence[bytes]) -> list[int]:
        """`of` each line."""
        seed = self._seed
        return [xxh3_64_intdigest(line, seed) or 1 for line in lines]

    def of(self, line: bytes, content: bytes = b"") -> int:
        """64 bits of a serialised document and what identifies its content. Never 0, which stands for unknown."""
        return xxh3_64_intdigest(b"%b\0%b" % (line, content) if content else line, self._seed) or 1
