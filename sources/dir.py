"""A folder of the machine that Callboard runs on.

Every file whose path matches the pattern is a document; folders are not. Files are found by a walk in the order of their names,
so that an interrupted listing goes on where it was. Each folder at the top is a partition of its own, and the files beside them
are one more: what cannot be read in one of them spoils only its own deletions.

Links to folders are not followed, so that the walk ends. A link to a file is a document like the file; one that leads out of the
folder, a name that is no text, an unreadable folder: each is reported and the walk goes on.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import md5
from typing import Any, ClassVar, Final

import attrs
import trio

from ..protocol.configuration import setting
from ..runtime import blocking
from .errors import ConfigurationError, NotFound, PermissionDenied, SourceError, Transient
from .glob_pattern import InvalidPattern, compile_pattern
from .source import JSON, Checkpoint, ContentRef, Document, Failure, Features, Item, Listing, Partition, Source

PAGE_FILES: Final = 500
READ_SIZE_BYTES: Final = 262_144
TOP_FOLDERS_MAX: Final = 500
"""A root with more folders than this is one partition: partitions are kept in memory, folders are not."""
_WALKERS: Final = 4

_FILES_AT_TOP: Final = "."
_WHOLE_TREE: Final = "all"


@attrs.frozen
class DirectoryConfig:
    """Which files of which folder."""

    directory: str = setting(
        "Directory path", default=os.environ.get("SYSTEM_DIR", ""), tooltip="Folder on the machine that runs Callboard."
    )
    pattern: str = setting(
        "File glob-like pattern", default="**/*.*", tooltip="Which files, relative to the folder; **/* takes all."
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with the fields, apart from whether the folder is there."""
        try:
            compile_pattern(self.pattern)
        except InvalidPattern as error:
            yield "pattern", str(error)
        if "\0" in self.directory:
            yield "directory", "contains a character that no path can have"


class Directory(Source[DirectoryConfig]):
    """A folder of this machine: every file is a document."""

    service_type: ClassVar[str] = "dir"
    name: ClassVar[str] = "System Directory"
    Config = DirectoryConfig
    features = Features(resumable=True)
    shareable = True
    small_content_bytes_max: ClassVar[int] = 65_536

    def __init__(self, config: DirectoryConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self._root = os.path.abspath(os.path.expanduser(config.directory))  # noqa: PTH100, PTH111 - ids are made of this text
        self._limiter = trio.CapacityLimiter(_WALKERS)

    async def ping(self) -> None:
        """Return if the folder is there and can be listed."""
        await blocking(_check_root, self._root, limiter=self._limiter)

    async def validate(self) -> None:
        await self.ping()

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        folders = await blocking(_top_folders, self._root, limiter=self._limiter)
        if folders is None:
            yield Partition(_WHOLE_TREE, {"below": None}, title=self._root)
            return
        yield Partition(_FILES_AT_TOP, {"below": "."}, title=f"files directly in {self._root}")
        for folder in folders:
            yield Partition(f"{folder}/", {"below": folder}, title=folder)

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        walk = _Walk(self._root, partition.data.get("below"), self.config.pattern, checkpoint)
        before = await blocking(_check_root, self._root, limiter=self._limiter)
        while True:
            # Cancelled: a thread that hangs on a dead disk is left behind with the walk, which nobody uses any more.
            page, is_over = await blocking(walk.next_page, limiter=self._limiter)
            if page:
                yield page
            if is_over:
                break
            yield Checkpoint(walk.at)
        after = await blocking(_check_root, self._root, limiter=self._limiter)
        if before != after:
            raise Transient(f"The folder {self._root} was exchanged while it was read. Sync again.")

    def fetch(self, content: ContentRef) -> Any:
        return self._opened(str(content.data["path"]))

    async def fetch_small(self, contents: Sequence[ContentRef]) -> list[bytes | None]:
        """Read many files in one thread, whose way there and back costs more than a small file."""
        paths = [str(content.data["path"]) for content in contents]
        return await blocking(_read_small, paths, self.small_content_bytes_max, limiter=self._limiter)

    @asynccontextmanager
    async def _opened(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        file = _File(path)
        chunks = self._chunks(file)
        try:
            yield chunks
        finally:
            await chunks.aclose()
            file.close()

    async def _chunks(self, file: _File) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                chunk = await blocking(file.read, limiter=self._limiter)
            except OSError as error:
                raise _translated(error, file.path) from error
            if not chunk:
                return
            yield chunk


class _File:
    """A file that is read by threads which may be left behind: the last one to touch the descriptor closes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_reading = False

    def read(self) -> bytes:
        """Return the next bytes, none at the end. Opens the file at the first call. Blocking."""
        with self._lock:
            if self._is_closed:
                return b""
            self._is_reading = True
        try:
            if self._descriptor is None:
                self._descriptor = _open(self.path)
            return os.read(self._descriptor, READ_SIZE_BYTES)
        finally:
            with self._lock:
                self._is_reading = False
                self._release_if_unused()

    def close(self) -> None:
        """Close the file, or let the thread that reads it do so. Never waits for a disk."""
        with self._lock:
            self._is_closed = True
            self._release_if_unused()

    def _release_if_unused(self) -> None:
        if not self._is_closed or self._is_reading:
            return
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


@attrs.define
class _Folder:
    """One folder on the way from the root to where the walk is."""

    path: str
    names: tuple[str, ...]
    entries: list[os.DirEntry[str]]
    identity: tuple[int, int]


class _Walk:
    """Finds files in the order of their names. Blocking; used by one thread at a time."""

    def __init__(self, root: str, below: str | None, pattern: str, checkpoint: JSON) -> None:
        self._root = root
        self._below = below
        self._matches = compile_pattern(pattern)
        self._after = tuple(checkpoint) if checkpoint else ()
        self.at: list[str] = list(self._after)
        """Names from the root to the last file that was handed out: what a checkpoint is."""
        self._open: list[_Folder] | None = None
        self._found: list[Item] = []

    def next_page(self) -> tuple[list[Item], bool]:
        """Return the next files, and whether they were the last. Raises `SourceError` if the start cannot be read."""
        if self._open is None:
            self._open = [self._enter_start()] if self._start_exists() else []
        self._found = []
        while self._open and len(self._found) < PAGE_FILES:
            folder = self._open[-1]
            if not folder.entries:
                self._open.pop()
                continue
            self._visit(folder, folder.entries.pop())
        return self._found, not self._open

    def _start_exists(self) -> bool:
        start = self._start()
        # A top folder that has gone since it was named has no files; the root itself was checked.
        return start == self._root or os.path.isdir(start)  # noqa: PTH112 - the walk is made of texts and descriptors

    def _start(self) -> str:
        return self._root if self._below in (None, ".") else os.path.join(self._root, str(self._below))  # noqa: PTH118

    def _enter_start(self) -> _Folder:
        names = () if self._below in (None, ".") else (str(self._below),)
        try:
            return self._listed(self._start(), names)
        except OSError as error:
            raise _translated(error, self._start()) from error

    def _listed(self, path: str, names: tuple[str, ...]) -> _Folder:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        status = os.stat(path)  # noqa: PTH116
        return _Folder(path, names, entries, (status.st_dev, status.st_ino))

    def _visit(self, folder: _Folder, entry: os.DirEntry[str]) -> None:
        names = (*folder.names, entry.name)
        is_before = names <= self._after
        try:
            if entry.is_dir(follow_symlinks=False):
                is_on_the_way = names == self._after[: len(names)]
                if self._below != "." and (not is_before or is_on_the_way):
                    self._descend(entry, names)
            elif not is_before and self._matches(names) and entry.is_file():
                document = self._document(entry, names)
                self._found.append(document)
                if isinstance(document, Document):
                    self.at = list(names)
        except FileNotFoundError:
            # Gone between listing and looking: as if it had never been listed.
            return
        except OSError as error:
            self._found.append(Failure("item", _shown(entry.path), _why(error), document_id=_id_of(entry.path)))

    def _descend(self, entry: os.DirEntry[str], names: tuple[str, ...]) -> None:
        assert self._open is not None
        try:
            folder = self._listed(entry.path, names)
        except FileNotFoundError:
            return
        except OSError as error:
            self._found.append(Failure("container", _shown(entry.path), _why(error)))
            return
        if any(folder.identity == ancestor.identity for ancestor in self._open):
            self._found.append(Failure("container", _shown(entry.path), "The folder is mounted inside itself."))
            return
        self._open.append(folder)

    def _document(self, entry: os.DirEntry[str], names: Sequence[str]) -> Document | Failure:
        path = entry.path
        document_id = _id_of(path)
        if not _is_text(path):
            cause = "The name of the file is not UTF-8 text, so it cannot be a document."
            return Failure("item", _shown(path), cause, document_id=document_id)
        if entry.is_symlink() and not _is_inside(os.path.realpath(path), os.path.realpath(self._root)):
            return Failure("item", path, "The link leads to a file outside of the folder.", document_id=document_id)
        status = entry.stat()
        modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
        fields: dict[str, JSON] = {
            "path": path,
            "last_modified_time": modified,
            "inode_protection_mode": status.st_mode,
            "inode_number": status.st_ino,
            "device_inode_reside": status.st_dev,
            "number_of_links": status.st_nlink,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "ctime": status.st_ctime,
            "last_access_time": status.st_atime,
            "size": status.st_size,
        }
        content = ContentRef(
            name=names[-1],
            data={"path": path},
            size_bytes=status.st_size,
            version=f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}",
        )
        return Document(document_id, fields, timestamp=modified, content=content)


def _check_root(root: str) -> tuple[int, int]:
    """Return what identifies the folder on this machine, after making sure that it can be listed."""
    if not root:
        raise ConfigurationError("The setting `directory` is empty. Name the folder whose files shall be indexed.")
    try:
        status = os.stat(root)  # noqa: PTH116
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigurationError(f"{root} is a file, not a folder. Name the folder it lies in.")
        with os.scandir(root):
            return status.st_dev, status.st_ino
    except OSError as error:
        raise _translated(error, root) from error


def _top_folders(root: str) -> list[str] | None:
    """Name the folders directly below the root, in order; None if they are too many, or not all of them have names."""
    _check_root(root)
    names: list[str] = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name)
                    if len(names) > TOP_FOLDERS_MAX or not _is_text(entry.name):
                        return None
    except OSError as error:
        raise _translated(error, root) from error
    return sorted(names)


def _open(path: str) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # Reading must not change the access time, which is a field of the document; only the owner may ask for that.
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)


def _read_small(paths: Sequence[str], size_bytes_max: int) -> list[bytes | None]:
    """The bytes of each file; None for one that cannot be read here, or that has grown beyond the limit."""
    contents: list[bytes | None] = []
    for path in paths:
        try:
            descriptor = _open(path)
            try:
                content = os.read(descriptor, size_bytes_max + 1)
                # A short read is no end of the file.
                while len(content) <= size_bytes_max and (more := os.read(descriptor, size_bytes_max + 1)):
                    content += more
            finally:
                os.close(descriptor)
        except OSError:
            contents.append(None)
        else:
            contents.append(content if len(content) <= size_bytes_max else None)
    return contents


def _id_of(path: str) -> str:
    # A name that is no text never becomes a document; with an id it is one failed item and hides no other document.
    return md5(os.fsencode(path), usedforsecurity=False).hexdigest()


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()


def _is_inside(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def _why(error: OSError) -> str:
    return f"It cannot be read: {error.strerror or error}."


def _translated(error: OSError, path: str) -> SourceError:
    shown = _shown(path)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound(f"{shown} does not exist. Check the path, and that its disk is mounted.")
        case errno.EACCES | errno.EPERM:
            return PermissionDenied(f"{shown} may not be read by this user. Give it the right, or run as another user.")
        case _:
            return Transient(f"{shown} cannot be read: {error.strerror or error}.")
