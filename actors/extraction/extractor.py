"""The extractor: takes the bytes of a file as they come, and gives its text or the reason why there is none.

The way of a file: the first bytes say what it is. Plain text is decoded as it streams by, and reading stops at the limit. All else
is spooled up to the limit, looked into if it is packed, and handed to the engine that the settings chose.

The bytes of all files that are on their way, whichever job they belong to, come out of one byte budget of the runtime. A caller
reads in its own task: bytes stream in, which a mailbox cannot carry, and the caller is the download that has to be slowed down. A
worker is a process, whose restart is decided by what the file has done; the engine as a whole is, in a service, a supervised child
(`pool.py`). Embedded use opens the same extractor without a system.
"""

from __future__ import annotations

import abc
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

import attrs
import trio

from ...runtime import Budget, blocking, monotonic
from .archives import Inspection, inspect_zip
from .choice import EngineName, ExtractionUnavailable, chosen_engine
from .engines import Engine, File, NoEngine
from .ocr import OcrFailed, OcrHook, command_hook
from .office_open_xml import OWN_READER
from .plain_text import read_plain_text, read_small_text
from .recognition import HEAD_BYTES, Kind, extension_of, is_accepted, recognise
from .results import DeadLetter, Extraction, ExtractionLimits, Status, cut
from .spool import MEMORY_BYTES_MAX, Spool, spool_folder
from .xlsb import engine_loses_cells

_BYTES_OF_A_CHARACTER = 4
_OCR_BYTES_MAX = 32 * 2**20

_LOST_CELLS = "Its cells are in a form that this engine passes over in part; the embedded engine reads them all."

_UNREADABLE = {
    Kind.ARCHIVE: "It is an archive; archives are not opened.",
    Kind.IMAGE: "It is an image, and no OCR hook is set.",
    Kind.MEDIA: "It is sound or video.",
    Kind.PROGRAM: "It is a program.",
}


@attrs.frozen(kw_only=True)
class ExtractionSettings:
    """How files become text."""

    engine: EngineName = "auto"
    """`auto`: the service if its URL is set, else the embedded engine if installed, else Tika if fetched, else plain text only."""
    limits: ExtractionLimits = attrs.field(factory=ExtractionLimits)
    workers: int = attrs.field(factory=lambda: max(1, min(4, os.cpu_count() or 1)), validator=attrs.validators.ge(1))
    """Files that are read at the same time."""
    budget_bytes: int = attrs.field(default=96 * 2**20, validator=attrs.validators.ge(1))
    """Memory of this process for the bytes and texts of all files on their way. More downloads than fit wait."""
    more_extensions: Sequence[str] = ()
    """Accepted beside the 31 that are accepted anyway, such as `.yaml`."""
    service_url: str | None = None
    service_timeout_s: float = 30.0
    service_file_pointers: bool = False
    """Pass a path on a shared volume instead of the bytes."""
    service_chunk_size_bytes: int = 65536
    shared_folder: Path = Path("/app/files")
    """Where files lie when paths are passed; the same path on both sides."""
    tika_jar: Path | None = None
    """The Tika server; by default the one that `callboard extraction fetch-tika` has fetched."""
    ocr_command: Sequence[str] = ()
    """The program that sees text in images, and in PDFs without text; `{file}` stands for the path. None if empty."""
    worker_command: Sequence[str] | None = None
    """The program of a worker, in place of the embedded engine's."""


class Extractor(abc.ABC):
    """From the bytes of a file to its text."""

    @abc.abstractmethod
    async def extract(self, name: str, chunks: AsyncIterator[bytes], media_type: str | None = None) -> Extraction:
        """Read one file. `media_type` is what its sender declared; its charset is heard, its type is only believed if true.

        The caller closes `chunks` (`contextlib.aclosing`), which need not be read to their end.
        Whatever is wrong with the file, the engine or its limits is said by the status; what is raised comes out of `chunks`.
        May be called by many tasks at once; the engine has its own bound.
        Cancelled: the engine's work on the file is stopped, and nothing of it is left.
        """

    def extract_at_once(self, name: str, content: bytes, media_type: str | None = None) -> Extraction | None:
        """Read a small file without waiting; None if it is not plainly a text, and `extract` has to be asked."""
        return None

    @abc.abstractmethod
    def accepts(self, name: str) -> bool:
        """Whether a file of this name is worth downloading."""

    @property
    @abc.abstractmethod
    def engine_name(self) -> str:
        """Who reads what is not plain text."""

    def release_quarantine(self) -> None:
        """Let files that were put into quarantine be tried again: somebody asked for it."""
        return

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The last files that were put into quarantine, oldest first."""
        return ()


class DocumentExtractor(Extractor):
    """Recognises, guards and cuts, in front of one engine."""

    def __init__(self, engine: Engine, settings: ExtractionSettings, folder: Path, ocr: OcrHook | None = None) -> None:
        self._engine, self._limits, self._folder, self._ocr = engine, settings.limits, folder, ocr
        self._more_extensions = tuple(settings.more_extensions)
        self._shared = settings.service_file_pointers
        # Two files for each that is read: one in the engine, one on its way. This bounds what lies in memory and on the disk,
        # and whoever waits here is a download.
        self._spools = trio.CapacityLimiter(2 * settings.workers)
        text_bytes = _BYTES_OF_A_CHARACTER * self._limits.characters_max
        self._text_bytes, self._whole_bytes = text_bytes, MEMORY_BYTES_MAX + text_bytes
        self._budget = Budget(settings.budget_bytes)
        # Files that hang in the engine hold their bytes as long as they hang, and plain text must get by.
        self._plain = self._budget.holder("plain text", min(text_bytes, settings.budget_bytes // 4))
        self._whole = self._budget.holder("whole files")

    @property
    def engine_name(self) -> str:
        return self._engine.name

    @property
    def budget(self) -> Budget:
        """The bytes of all files on their way."""
        return self._budget

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        return tuple(getattr(self._engine, "dead_letters", ()))

    def release_quarantine(self) -> None:
        self._engine.release_quarantine()

    def accepts(self, name: str) -> bool:
        return is_accepted(name, self._more_extensions)

    def extract_at_once(self, name: str, content: bytes, media_type: str | None = None) -> Extraction | None:
        return read_at_once(name, content, self._limits, media_type)

    async def extract(self, name: str, chunks: AsyncIterator[bytes], media_type: str | None = None) -> Extraction:
        began = monotonic()
        head, complete = await _first(chunks, HEAD_BYTES)
        kind = recognise(head, name)
        if kind is Kind.EMPTY:
            found = Extraction(Status.EMPTY, engine="plain")
        elif kind is Kind.TEXT:
            wanted_bytes = min(_BYTES_OF_A_CHARACTER * len(head), self._text_bytes) if complete else self._text_bytes
            async with await self._plain.take(wanted_bytes):
                found = await read_plain_text(head, chunks, self._limits, media_type, complete=complete)
        elif kind in _UNREADABLE and not (kind is Kind.IMAGE and self._ocr):
            found = Extraction(Status.UNSUPPORTED, detail=_UNREADABLE[kind], size_bytes=len(head))
        else:
            async with self._spools, await self._whole.take(self._whole_bytes):
                found = await self._extract_whole(name, kind, head, chunks, media_type)
        return attrs.evolve(found, seconds=monotonic() - began)

    async def _extract_whole(
        self, name: str, kind: Kind, head: bytes, chunks: AsyncIterator[bytes], media_type: str | None
    ) -> Extraction:
        with Spool(self._folder, extension_of(name), shared=self._shared) as spool:
            await spool.write(head)
            async for chunk in chunks:
                if spool.size_bytes + len(chunk) > self._limits.size_bytes_max:
                    detail = f"It has more than the limit of {self._limits.size_bytes_max:,} bytes."
                    return Extraction(Status.TOO_LARGE, detail=detail, size_bytes=spool.size_bytes + len(chunk))
                await spool.write(chunk)
            await spool.finish()
            found = await self._read(File(name, spool, kind, media_type))
            return _bounded(attrs.evolve(found, size_bytes=spool.size_bytes), self._limits.characters_max)

    async def _read(self, file: File) -> Extraction:
        if file.kind is Kind.IMAGE:
            return await self._see(file) or Extraction(Status.EMPTY, engine="ocr")
        if file.kind is Kind.ZIP:
            inspection = await blocking(_inspect, file.spool, self._limits, abandon_on_cancel=False)
            if inspection.refused is not None:
                return Extraction(inspection.refused, detail=inspection.detail)
            if inspection.contents == "archive" and extension_of(file.name) not in (".vsdx", ".vsdm"):
                return Extraction(Status.UNSUPPORTED, detail=_UNREADABLE[Kind.ARCHIVE])
            file = attrs.evolve(file, office_open_xml=inspection.contents == "office_open_xml")
        elif file.kind is Kind.COMPOUND and await blocking(_is_encrypted_package, file.spool, abandon_on_cancel=False):
            return Extraction(Status.ENCRYPTED, detail="It is protected by a password.")
        elif file.kind is Kind.MARKUP and isinstance(self._engine, NoEngine):
            return await _read_markup(file, self._limits)
        found = await self._engine.read(file)
        if (
            file.kind is Kind.PDF
            and found.status is Status.CORRUPT
            and await blocking(_names_a_cipher, file.spool, abandon_on_cancel=False)
        ):
            return attrs.evolve(found, status=Status.ENCRYPTED, detail="It is protected by a password.")
        if (
            file.office_open_xml
            and found.status is Status.TEXT
            and found.engine != OWN_READER
            and await blocking(_has_cells_that_are_lost, file.spool, abandon_on_cancel=False)
        ):
            return attrs.evolve(found, status=Status.TRUNCATED, detail=_LOST_CELLS)
        if file.kind is Kind.PDF and (found.status is Status.EMPTY or _is_blank(found)):
            return await self._see(file) or found
        return found

    async def _see(self, file: File) -> Extraction | None:
        """Ask the OCR hook, if there is one; None if it sees nothing."""
        if self._ocr is None or file.spool.size_bytes > _OCR_BYTES_MAX:
            return None
        content = await file.spool.everything()
        with trio.move_on_after(self._limits.seconds_max) as scope:
            try:
                text = await self._ocr(file.name, content)
            except Exception as error:  # noqa: BLE001 - somebody else's code; the file's result records what it raised
                why = str(error) if isinstance(error, OcrFailed) else repr(error)
                return Extraction(Status.FAILED, detail=f"The OCR hook failed: {why}.", engine="ocr")
            return Extraction(Status.TEXT, text, engine="ocr") if text.strip() else None
        assert scope.cancelled_caught
        return Extraction(Status.TIMED_OUT, detail="The OCR hook took too long.", engine="ocr")


def read_at_once(name: str, content: bytes, limits: ExtractionLimits, media_type: str | None) -> Extraction | None:
    """What `Extractor.extract_at_once` does, whatever the engine."""
    if recognise(content[:HEAD_BYTES], name) is not Kind.TEXT:
        return None
    return read_small_text(content, limits, media_type)


async def _first(chunks: AsyncIterator[bytes], wanted_bytes: int) -> tuple[bytes, bool]:
    """The first bytes of a stream, at least so many if there are, and whether that was all."""
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= wanted_bytes:
            return head, False
    return head, True


def _is_blank(found: Extraction) -> bool:
    return found.is_readable and not found.text.strip()


def _bounded(found: Extraction, characters_max: int) -> Extraction:
    """Cut what an engine gave to the limit, and call text without a visible character empty."""
    if found.status not in (Status.TEXT, Status.TRUNCATED):
        return found
    if found.status is Status.TEXT and not found.text.strip():
        return attrs.evolve(found, status=Status.EMPTY, text="")
    text, truncated = cut(found.text, characters_max)
    text = text.strip("\n").replace("\0", "")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    if truncated:
        detail = f"Only the first {characters_max:,} characters are kept; the limit is the setting `characters`."
        return attrs.evolve(found, status=Status.TRUNCATED, text=text, detail=detail)
    return attrs.evolve(found, text=text)


def _inspect(spool: Spool, limits: ExtractionLimits) -> Inspection:
    with spool.opened() as file:
        return inspect_zip(file, spool.size_bytes, limits)


def _has_cells_that_are_lost(spool: Spool) -> bool:
    with spool.opened() as file:
        return engine_loses_cells(file)


_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")


def _is_encrypted_package(spool: Spool) -> bool:
    """Whether an old container holds a new Office file under a password."""
    with spool.opened() as file:
        return _contains(file, _ENCRYPTED_PACKAGE)


def _names_a_cipher(spool: Spool) -> bool:
    """Whether a PDF says that it is encrypted; not every engine says so when it fails on one."""
    with spool.opened() as file:
        return _contains(file, b"/Encrypt")


def _contains(file: IO[bytes], wanted: bytes) -> bool:
    before = b""
    while chunk := file.read(1 << 20):
        if wanted in before + chunk:
            return True
        before = chunk[-len(wanted) :]
    return False


async def _read_markup(file: File, limits: ExtractionLimits) -> Extraction:
    """HTML and XML without an engine. Its markup may be many times its text, so so much more of it is read."""
    from .markup import charset_inside, visible_text

    content = await file.spool.everything()
    charset = charset_inside(content)
    declared = file.media_type or (f"text/html; charset={charset}" if charset else None)
    wide = attrs.evolve(limits, characters_max=10 * limits.characters_max)
    read = await read_plain_text(content, _nothing(), wide, declared, complete=True)
    if read.status not in (Status.TEXT, Status.TRUNCATED):
        return read
    text, title = await blocking(visible_text, read.text)
    metadata = {**read.metadata, **({"dc:title": title} if title else {})}
    return attrs.evolve(read, status=Status.TEXT, text=text, metadata=metadata)


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


@asynccontextmanager
async def open_extractor(
    settings: ExtractionSettings | None = None, *, ocr: OcrHook | None = None
) -> AsyncIterator[Extractor]:
    """Open what the settings name. Worker processes start with the first file that needs one; leaving ends them.

    Raises `ExtractionUnavailable` if an engine that was asked for by name is not there.
    """
    settings = settings or ExtractionSettings()
    async with AsyncExitStack() as stack:
        pointers = settings.service_file_pointers and chosen_engine(settings) == "service"
        try:
            folder = stack.enter_context(spool_folder(settings.shared_folder if pointers else None))
        except OSError as error:
            raise ExtractionUnavailable(
                f"No scratch folder can be made in {error.filename}: {error.strerror}. Make it, or give this user the right to write there."
            ) from error
        if ocr is None and settings.ocr_command:
            ocr = command_hook(settings.ocr_command, folder, settings.limits.characters_max)
        engine = await _open_engine(stack, settings, folder)
        yield DocumentExtractor(engine, settings, folder, ocr)


async def _open_engine(stack: AsyncExitStack, settings: ExtractionSettings, folder: Path) -> Engine:
    from .workers import open_worker_pool

    match chosen_engine(settings):
        case "embedded":
            return await stack.enter_async_context(
                open_worker_pool(folder, settings.limits, settings.workers, command=settings.worker_command)
            )
        case "service":
            from .service_client import open_service

            return await stack.enter_async_context(open_service(settings))
        case "tika":
            from .tika import open_tika

            return await stack.enter_async_context(open_tika(settings, folder))
        case _:
            return NoEngine(
                "Only plain text and markup are read here: no engine is installed. "
                "Install one with: pip install 'callboard[extraction]'"
            )
