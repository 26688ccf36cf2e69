"""Read HTTP/1.1 answers from bytes, without doing any input or output.

Only what a client needs that sends one request at a time and takes the answer whole. Strict where laxness is dangerous
(framing) and bounded everywhere: a head, a chunk line or a body beyond its limit is an error, not a growing buffer.
"""

from __future__ import annotations

import zlib
from typing import Final

HEAD_BYTES_MAX: Final = 64 * 1024
CHUNK_LINE_BYTES_MAX: Final = 4 * 1024
BODY_BYTES_MAX: Final = 1024 * 1024 * 1024

_DIGITS: Final = frozenset(b"0123456789")
_HEX_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF")
# What RFC 9110 calls a token.
_NAME: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class MalformedAnswer(Exception):
    """The bytes are not an HTTP/1.1 answer, or break one of the limits."""


class TruncatedAnswer(Exception):
    """The connection ended in the middle of an answer."""


class AnswerReader:
    """Takes the bytes of one answer as they come: `feed` until `complete`.

    `status`, `headers` (names in lower case, repeated ones joined by commas) and `body()` are meaningful once complete.
    """

    def __init__(self, method: str, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self.status = 0
        self.http_version = ""
        self.headers: dict[str, str] = {}
        self.complete = False
        self.keep_alive = False
        self.started = False
        self._method = method
        self._body_bytes_max = body_bytes_max
        self._pending = bytearray()
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._step = self._head
        self._missing_bytes = 0
        self._ends_with_connection = False

    def feed(self, data: bytes) -> None:
        """Take more bytes. Raises `MalformedAnswer`."""
        if not data:
            return
        self.started = True
        if self._step == self._fixed_body and not self._pending and len(data) <= self._missing_bytes:
            # The common case, a large body of known length, goes without the copy through the buffer.
            self._take(data)
            self._missing_bytes -= len(data)
            self.complete = self._missing_bytes == 0
            return
        self._pending += data
        while not self.complete and self._step():
            pass
        if self.complete and self._pending:
            # Bytes nobody asked for: whatever they are, this connection's framing can no longer be trusted.
            self.keep_alive = False

    def end(self) -> None:
        """The connection has ended. Raises `TruncatedAnswer` unless that is how this answer says its end."""
        if self.complete:
            return
        if not self._ends_with_connection:
            raise TruncatedAnswer("the connection ended before the answer did")
        self.complete = True

    def body(self) -> bytes:
        """The whole body, with `Content-Encoding` gzip or deflate undone. Raises `MalformedAnswer`."""
        assert self.complete
        raw = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return unpacked(raw, self.headers.get("content-encoding"), self._body_bytes_max)

    # Each step works on `_pending` and returns whether it got further.

    def _head(self) -> bool:
        end = self._pending.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX + 4)
        if end < 0:
            if len(self._pending) > HEAD_BYTES_MAX:
                raise MalformedAnswer(f"the head of the answer is larger than {HEAD_BYTES_MAX} bytes")
            if not b"HTTP/1.".startswith(bytes(self._pending[:7])):
                raise MalformedAnswer("the answer does not begin like HTTP/1.1")
            return False
        lines = bytes(self._pending[:end]).split(b"\r\n")
        del self._pending[: end + 4]
        version, status = _status_line(lines[0])
        headers = _headers(lines[1:])
        if 100 <= status < 200:
            if status == 101:
                raise MalformedAnswer("the server switched protocols without being asked")
            return True
        self.status, self.http_version, self.headers = status, version, headers
        connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
        self.keep_alive = "keep-alive" in connection if version == "1.0" else "close" not in connection
        self._choose_body()
        return True

    def _choose_body(self) -> None:
        coding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if self._method == "HEAD" or self.status in (204, 304):
            self.complete = True
        elif coding is not None:
            if coding.strip().lower() != "chunked":
                raise MalformedAnswer(f"transfer encoding {coding!r} was not asked for")
            if length is not None:
                # Both at once is how answers are smuggled; read it, but trust the connection no further.
                self.keep_alive = False
            self._step = self._chunk_line
        elif length is not None:
            self._missing_bytes = _content_length(length)
            if self._missing_bytes > self._body_bytes_max:
                raise MalformedAnswer(f"the body is larger than {self._body_bytes_max} bytes")
            self._step = self._fixed_body
            self.complete = self._missing_bytes == 0
        else:
            self._ends_with_connection = True
            self.keep_alive = False
            self._step = self._endless_body

    def _take(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._body_bytes_max:
            raise MalformedAnswer(f"the body is larger than {self._body_bytes_max} bytes")
        self._parts.append(data)

    def _take_pending(self, size_bytes: int) -> None:
        self._take(bytes(self._pending[:size_bytes]))
        del self._pending[:size_bytes]

    def _fixed_body(self) -> bool:
        size_bytes = min(len(self._pending), self._missing_bytes)
        if size_bytes:
            self._take_pending(size_bytes)
            self._missing_bytes -= size_bytes
        self.complete = self._missing_bytes == 0
        return False

    def _endless_body(self) -> bool:
        if self._pending:
            self._take_pending(len(self._pending))
        return False

    def _line(self) -> bytes | None:
        end = self._pending.find(b"\r\n", 0, CHUNK_LINE_BYTES_MAX + 2)
        if end < 0:
            if len(self._pending) > CHUNK_LINE_BYTES_MAX:
                raise MalformedAnswer(f"a chunk line is longer than {CHUNK_LINE_BYTES_MAX} bytes")
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        return line

    def _chunk_line(self) -> bool:
        line = self._line()
        if line is None:
            return False
        size = line.partition(b";")[0].strip(b" \t")
        if not size or len(size) > 16 or not _HEX_DIGITS.issuperset(size):
            raise MalformedAnswer(f"{size[:20]!r} is not the size of a chunk")
        self._missing_bytes = int(size, 16)
        self._step = self._chunk if self._missing_bytes else self._trailers
        return True

    def _chunk(self) -> bool:
        size_bytes = min(len(self._pending), self._missing_bytes)
        if size_bytes:
            self._take_pending(size_bytes)
            self._missing_bytes -= size_bytes
        if self._missing_bytes or len(self._pending) < 2:
            return False
        if self._pending[:2] != b"\r\n":
            raise MalformedAnswer("a chunk is longer than it said")
        del self._pending[:2]
        self._step = self._chunk_line
        return True

    def _trailers(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self.complete = not line
        return True


def unpacked(raw: bytes, encoding: str | None, body_bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Undo a `Content-Encoding`: gzip, deflate or none. Raises `MalformedAnswer` for others, broken ones and bombs."""
    encoding = (encoding or "identity").strip().lower()
    if encoding == "identity" or not raw:
        return raw
    if encoding not in ("gzip", "deflate"):
        raise MalformedAnswer(f"content encoding {encoding!r} was not asked for")
    # 32 + MAX_WBITS recognises gzip and zlib by their headers.
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(raw, body_bytes_max)
    except zlib.error as exc:
        raise MalformedAnswer(f"the compressed body is broken ({exc})") from exc
    if unpacker.unconsumed_tail:
        raise MalformedAnswer(f"the body is larger than {body_bytes_max} bytes")
    if not unpacker.eof:
        raise MalformedAnswer("the compressed body ends too early")
    return plain


def _status_line(line: bytes) -> tuple[str, int]:
    version, _, rest = line.partition(b" ")
    status = rest[:3]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(status) < 3 or not _DIGITS.issuperset(status):
        raise MalformedAnswer(f"{line[:40]!r} is not a status line of HTTP/1.1")
    if rest[3:4] not in (b"", b" ") or status < b"100":
        raise MalformedAnswer(f"{line[:40]!r} is not a status line of HTTP/1.1")
    return version[5:].decode(), int(status)


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        raw_name, colon, value = line.partition(b":")
        if not colon or not raw_name or not _NAME.issuperset(raw_name):
            raise MalformedAnswer(f"{line[:40]!r} is not a header")
        name = raw_name.decode("ascii").lower()
        text = value.strip(b" \t").decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _content_length(text: str) -> int:
    # Repeated equal lengths are tolerated, as RFC 9110 allows; differing ones are an attack or a bug.
    lengths = {part.strip() for part in text.split(",")}
    length = lengths.pop()
    if lengths or not length or len(length) > 15 or not (length.isascii() and length.isdigit()):
        raise MalformedAnswer(f"{text[:40]!r} is not a content length")
    return int(length)
