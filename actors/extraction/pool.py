"""The extraction of a whole service as a citizen of the runtime: a supervised child that owns the engine, seen in the tree, restarted when it fails.

Bytes cannot travel through a mailbox, and the download that brings them is the one to be slowed down. So a caller reads its file
in its own task, with the engine that the supervised child has open; the child only owns it. What the engine raises is a mistake of
its own and ends the child: every file on its way then fails for the moment, what is left of the engine is closed, and the
supervisor starts a new one, for which callers wait.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import structlog
import trio

from ...runtime import ChildSpec, Context, Task
from ...runtime.budget import Budget
from .choice import EngineName, chosen_engine
from .extractor import DocumentExtractor, ExtractionSettings, Extractor, open_extractor, read_at_once
from .ocr import OcrHook
from .recognition import is_accepted
from .results import DeadLetter, Extraction, Status

_CLOSING_S = 5.0
log = structlog.get_logger(__name__)


class _Life:
    """One engine, from its start to its end, and who reads with it."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.readers: set[trio.CancelScope] = set()
        self.problem: Exception | None = None
        self.broke = trio.Event()
        self.emptied = trio.Event()

    def fail(self, problem: Exception) -> None:
        """The engine made a mistake; its life is over."""
        self.problem = self.problem or problem
        self.broke.set()

    async def leave(self) -> None:
        """Send every reader away and wait until they have gone, so that no worker of theirs is left."""
        for scope in self.readers:
            scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_S):
            while self.readers:
                await self.emptied.wait()
                self.emptied = trio.Event()


class ExtractionPool(Extractor):
    """An extractor whose engine lives in a supervised child. Start `spec()` in a system; until it has started, files wait.

    Raises `ExtractionUnavailable` when made, if the engine that the settings name is not there.
    """

    def __init__(self, settings: ExtractionSettings | None = None, *, ocr: OcrHook | None = None) -> None:
        self.settings = settings or ExtractionSettings()
        self._engine_name: EngineName = chosen_engine(self.settings)
        self._ocr = ocr
        self._life: _Life | None = None
        self._begun = trio.Event()
        self.lives = 0
        """How often an engine was opened."""

    def spec(self, name: str = "extraction") -> ChildSpec:
        """The child to start."""
        return ChildSpec(name=name, start=lambda: _EngineOwner(self))

    @property
    def engine_name(self) -> str:
        return self._engine_name

    @property
    def budget(self) -> Budget | None:
        """The bytes of all files on their way; None while no engine is open, or if the engine is elsewhere."""
        return None if self._life is None else getattr(self._life.extractor, "budget", None)

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        return () if self._life is None else self._life.extractor.dead_letters

    def accepts(self, name: str) -> bool:
        return is_accepted(name, tuple(self.settings.more_extensions))

    def release_quarantine(self) -> None:
        if self._life is not None:
            self._life.extractor.release_quarantine()

    def extract_at_once(self, name: str, content: bytes, media_type: str | None = None) -> Extraction | None:
        return read_at_once(name, content, self.settings.limits, media_type)

    async def extract(self, name: str, chunks: AsyncIterator[bytes], media_type: str | None = None) -> Extraction:
        while (life := self._life) is None:
            await self._begun.wait()
        feed = _Feed(chunks)
        scope = trio.CancelScope()
        life.readers.add(scope)
        try:
            with scope:
                async with aclosing(feed.chunks()) as fed:
                    return await life.extractor.extract(name, fed, media_type)
        except Exception as problem:
            if problem is feed.problem:
                raise
            log.exception("extraction.engine_failed", file=name)
            life.fail(problem)
            return Extraction(Status.FAILED, detail=f"The engine failed: {problem!r}.", engine=self._engine_name)
        finally:
            life.readers.discard(scope)
            life.emptied.set()
        return Extraction(Status.FAILED, detail="The engine ended while the file was read.", engine=self._engine_name)

    def _begin(self, life: _Life) -> None:
        self._life = life
        self.lives += 1
        self._begun.set()

    def _end(self) -> None:
        self._life, self._begun = None, trio.Event()


class _EngineOwner(Task):
    """Opens the engine, and ends when it fails."""

    def __init__(self, pool: ExtractionPool) -> None:
        self._pool = pool

    async def run(self, context: Context) -> None:
        pool = self._pool
        async with open_extractor(pool.settings, ocr=pool._ocr) as extractor:
            assert isinstance(extractor, DocumentExtractor)
            life = _Life(extractor)
            pool._begin(life)
            try:
                await life.broke.wait()
            finally:
                pool._end()
                await life.leave()
        if life.problem is not None:
            raise life.problem


class _Feed:
    """The bytes of a file, and what their source raised: that is not the engine's mistake."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.problem: BaseException | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._chunks:
                yield chunk
        except Exception as problem:
            self.problem = problem
            raise
