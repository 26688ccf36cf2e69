"""Keeps the bytes of one file while they come in: in memory while they are few, in a file when they are many."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from ...runtime import blocking, new_id

MEMORY_BYTES_MAX = 1 * 2**20
"""Files up to this size never touch the disk on our side."""
_WRITE_BYTES = 1 * 2**20
_READ_BYTES = 64 * 1024
_PREFIX = "callboard-extraction-"


class Spool:
    """The bytes of one file, written once and read as often as needed. Leaving the `with` block removes them."""

    def __init__(self, folder: Path, extension: str, *, shared: bool = False) -> None:
        self.path: Path | None = None
        """The file on disk; None while everything is in memory."""
        self.size_bytes = 0
        self._folder, self._extension = folder, extension
        self._mode = 0o644 if shared else 0o600
        self._waiting = bytearray()
        self._digest = hashlib.sha256()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting = bytearray()
        if self._file is not None:
            self._file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        """SHA-256 of all bytes so far, in hexadecimal."""
        return self._digest.hexdigest()

    @property
    def content(self) -> bytes:
        """All bytes. Only while they are in memory."""
        assert self.path is None
        return bytes(self._waiting)

    async def write(self, chunk: bytes) -> None:
        """Append bytes. Cancelled: the spool is of no more use, and leaving its block removes it."""
        self.size_bytes += len(chunk)
        self._digest.update(chunk)
        self._waiting += chunk
        if len(self._waiting) > (MEMORY_BYTES_MAX if self.path is None else _WRITE_BYTES):
            await self._flush()

    async def finish(self) -> None:
        """Say that this was all: what goes to disk is there when this returns."""
        if self.path is not None:
            await self._flush()

    async def on_disk(self) -> Path:
        """Put everything into the file, however little it is, and return its path."""
        if self.path is None:
            await self._flush()
        assert self.path is not None
        return self.path

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Read everything from the start, in chunks of at most 64 KiB."""
        if self.path is None:
            for start in range(0, len(self._waiting), _READ_BYTES):
                yield bytes(self._waiting[start : start + _READ_BYTES])
            return
        with self.opened() as file:
            while chunk := await blocking(file.read, _READ_BYTES, abandon_on_cancel=False):
                yield chunk

    async def everything(self) -> bytes:
        """All bytes at once, wherever they are."""
        if self.path is None:
            return self.content
        return await blocking(self.path.read_bytes, abandon_on_cancel=False)

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the bytes for blocking reads."""
        if self.path is None:
            yield io.BytesIO(self._waiting)
            return
        with self.path.open("rb") as file:
            yield file

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        # Not abandoned when cancelled: the thread writes to a file that the caller is about to close.
        await blocking(self._append, waiting, abandon_on_cancel=False)

    def _append(self, waiting: bytearray) -> None:
        if self._file is None:
            self.path = self._folder / f"{new_id()}{self._extension}"
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode)
            self._file = os.fdopen(descriptor, "wb")
        self._file.write(waiting)
        self._file.flush()


@contextmanager
def spool_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder for spools, removed at the end. What processes that were killed have left behind is removed first.

    Private in the system's folder for such things; in `parent`, which is shared with a service, readable by everybody.
    """
    shared = parent is not None
    parent = parent or Path(tempfile.gettempdir())
    # Without /proc nobody can tell cheaply whether an owner lives, and a folder too many is the smaller evil.
    for old in parent.glob(f"{_PREFIX}*") if Path("/proc/self").exists() else ():
        owner = old.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and old.stat().st_uid == os.getuid():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    if shared:
        folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
