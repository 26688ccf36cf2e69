"""Which encoding a plain text is in, and its decoding piece by piece.

The order of evidence: a byte order mark, valid UTF-8, the zero bytes of UTF-16 and UTF-32, what the sender declared, a
statistical guess where there is enough to count, and at last Windows-1252, which has a character for nearly every byte.
Valid UTF-8 stands above the declaration: text in a legacy encoding is practically never valid UTF-8 by accident, while
declarations are often wrong.
"""

from __future__ import annotations

import codecs
from email.message import Message

SAMPLE_BYTES = 64 * 1024
"""So much of a text's beginning decides its encoding."""
_GUESSABLE_BYTES_MIN = 8
"""Fewer bytes outside ASCII say nothing statistically."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_LATIN_IN_USE = ["cp1252", "cp1250", "iso8859_2", "cp1254"]
_LATIN = frozenset(
    [
        "cp1252",
        "cp1250",
        "cp1254",
        "cp1257",
        "cp1258",
        "cp437",
        "cp850",
        "cp852",
        "cp858",
        "hp_roman8",
        "latin_1",
        "mac_iceland",
        "mac_latin2",
        "mac_roman",
        "mac_turkish",
        "iso8859_2",
        "iso8859_3",
        "iso8859_4",
        "iso8859_9",
        "iso8859_10",
        "iso8859_13",
        "iso8859_14",
        "iso8859_15",
        "iso8859_16",
    ]
)


def _as_western(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are wrong in the chosen encoding as Windows-1252: a stray byte in UTF-8 text is mostly that."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("callboard.western", _as_western)


def detect(sample: bytes, declared: str | None = None, *, complete: bool = False) -> str | None:
    """Name the encoding of a text by its beginning; None if these bytes are no text at all.

    `complete` says that the sample is the whole text, so that a character cut at its end counts as an error. May take some
    tens of milliseconds; call it in a thread.
    """
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding
    if b"\0" in sample:
        return _wide(sample)
    if _is_utf8(sample, complete):
        return "utf-8"
    if declared is not None and _decodes(sample, declared):
        return declared
    return _legacy(sample)


def declared_charset(media_type: str | None) -> str | None:
    """The charset parameter of a media type, as Python's name of it; None if absent or unknown."""
    if not media_type:
        return None
    message = Message()
    message["content-type"] = media_type
    charset = message.get_content_charset()
    if charset is None:
        return None
    try:
        return codecs.lookup(charset).name
    except LookupError:
        return None


def decoder(encoding: str) -> codecs.IncrementalDecoder:
    """A decoder that never fails: what is wrong in the encoding is read as Windows-1252."""
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "callboard.western"
    return codecs.getincrementaldecoder(encoding)(errors)


def _is_utf8(sample: bytes, complete: bool) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(sample, final=complete)
    except UnicodeDecodeError:
        return False
    return True


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)("strict").decode(sample)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def _wide(sample: bytes) -> str | None:
    """UTF-32 or UTF-16 without a mark, by where the zero bytes stand; None if it is neither."""
    even, odd = sample[0::2], sample[1::2]
    pairs = len(odd)
    if pairs < 2:
        return None
    zeros_even, zeros_odd = even.count(0) / pairs, odd.count(0) / pairs
    for name in ("utf-32-le", "utf-32-be"):
        # Four bytes must name one of a million characters out of four thousand million: validity alone is proof.
        if len(sample) >= 8 and _is_clean(sample, name):
            return name
    little = zeros_odd > 0.2 and zeros_even < 0.05
    big = zeros_even > 0.2 and zeros_odd < 0.05
    for name, likely in (("utf-16-le", little), ("utf-16-be", big)):
        if likely and _is_clean(sample, name):
            return name
    return None


def _is_clean(sample: bytes, encoding: str) -> bool:
    """It decodes, and holds almost no control characters."""
    try:
        text = codecs.getincrementaldecoder(encoding)("strict").decode(sample)
    except UnicodeDecodeError:
        return False
    odd = sum(
        1 for character in text if (character < " " and character not in "\t\n\r\f\v\x1b") or character > "\uffff"
    )
    return odd <= len(text) // 50


def _legacy(sample: bytes) -> str | None:
    controls = sum(sample.count(code) for code in range(32) if code not in b"\t\n\r\f\v\x1b\b\x1a")
    if controls > len(sample) // 50 + 1:
        return None
    outside_ascii = sum(1 for code in sample if code > 127)
    if outside_ascii < _GUESSABLE_BYTES_MIN:
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(_without_ascii_runs(sample)).best() or from_bytes(sample).best()
    if best is None:
        return "cp1252"
    if best.encoding not in _LATIN:
        return best.encoding
    # The many relatives of Windows-1252 differ in few characters, and the rare ones win as often as the common ones unless
    # the field is narrowed to those that people used.
    narrow = from_bytes(_without_ascii_runs(sample), cp_isolation=_LATIN_IN_USE, threshold=0.5).best()
    if narrow is None or "cp1252" in narrow.could_be_from_charset:
        return "cp1252"
    return narrow.encoding


def _without_ascii_runs(sample: bytes) -> bytes:
    """A shorter sample with the lines that say something, because guessing takes time per byte."""
    lines = [line for line in sample.splitlines(keepends=True) if not line.isascii()]
    return b"".join(lines)[:8192] or sample[:8192]
