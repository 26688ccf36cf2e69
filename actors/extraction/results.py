"""What an extraction may cost and what it says when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import attrs


class Status(Enum):
    """How an extraction ended. The value is what is written to documents, logs and JSON."""

    TEXT = "text"
    TRUNCATED = "truncated"
    """There was more text than the limit; what fits is there."""
    EMPTY = "empty"
    """The file was read and holds no text."""
    ENCRYPTED = "encrypted"
    CORRUPT = "corrupt"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    """More bytes than the limit, packed or unpacked."""
    TIMED_OUT = "timed_out"
    QUARANTINED = "quarantined"
    """It ended the engine, or kept it too long, twice; it is not tried again until it changes or is replayed."""
    FAILED = "failed"
    """The engine could not be asked, or answered in a way that says nothing about the file."""


@attrs.frozen
class Extraction:
    """The text of one file, or the reason why there is none."""

    status: Status
    text: str = ""
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    """What the file says of itself (title, author, content type ...), as far as the engine reads it."""
    detail: str = ""
    """One sentence for a person: what happened and, if something can be done, what."""
    engine: str = ""
    size_bytes: int = 0
    """Bytes received."""
    seconds: float = 0.0

    @property
    def is_readable(self) -> bool:
        """The file was understood: `text` (which may be empty) is what should be searchable now."""
        return self.status in _READABLE

    @property
    def keeps_earlier_text(self) -> bool:
        """Nothing is known about the file's text, so a text that was extracted earlier should stay."""
        return not self.is_readable

    @property
    def may_succeed_later(self) -> bool:
        """The failure is of the moment and not of the file."""
        return self.status in (Status.FAILED, Status.TIMED_OUT)


_READABLE = frozenset({Status.TEXT, Status.TRUNCATED, Status.EMPTY})


@attrs.frozen(kw_only=True)
class ExtractionLimits:
    """What one extraction may cost. Every limit ends in a status that names it, never in an exception."""

    size_bytes_max: int = attrs.field(default=100 * 2**20, validator=attrs.validators.ge(1))
    """Bytes taken from a file. A longer plain text is cut here; anything else cannot be read in part."""
    characters_max: int = attrs.field(default=1_000_000, validator=attrs.validators.ge(1))
    """Characters of text. At most three bytes each in nearly all texts, so that a document stays below 3 MiB."""
    seconds_max: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Time for the engine, per try. The download is not counted."""
    memory_bytes_max: int = attrs.field(default=768 * 2**20, validator=attrs.validators.ge(200 * 2**20))
    """Memory of one worker process."""
    unpacked_bytes_max: int = attrs.field(default=512 * 2**20, validator=attrs.validators.ge(1))
    """All that a zip-based file (docx, odt ...) announces to unpack to, files inside files included."""
    nesting_max: int = attrs.field(default=4, validator=attrs.validators.ge(0))
    """Packed files inside packed files, so deep."""
    entries_max: int = attrs.field(default=20_000, validator=attrs.validators.ge(1))
    """Entries of a zip-based file."""


@attrs.frozen
class DeadLetter:
    """A file that nothing could be read from, for whoever keeps the list."""

    name: str
    status: Status
    detail: str
    digest: str
    """SHA-256 of its bytes, in hexadecimal."""


def cut(text: str, characters_max: int) -> tuple[str, bool]:
    """Return at most so many characters, and whether some were left out. A surrogate never stands alone at the end."""
    if len(text) <= characters_max:
        return text, False
    return text[:characters_max], True
