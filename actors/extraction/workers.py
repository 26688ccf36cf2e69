"""Worker processes that read files with an engine which may hang, crash or hold the interpreter's lock.

A thread could not be stopped, and the embedded engine holds the interpreter's lock for the whole of an extraction, so each
worker is a process of its own: started from scratch (a fork of a Trio process is not safe), used for many files, killed when
it is late. A worker that dies takes nothing with it but its file, which is tried once more; after the second try the file is in
quarantine, known by the hash of its bytes.

Invariant: a worker is either in `_idle`, or owned by exactly one task, or dead.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from .engines import Engine, File
from .recognition import extension_of
from .results import DeadLetter, Extraction, ExtractionLimits, Status

_LENGTH = struct.Struct(">I")
_ANSWER_BYTES_MAX = 512 * 2**20
_QUARANTINE_FILES_MAX = 10_000
_DEAD_LETTERS_MAX = 1_000
_FILES_PER_WORKER_MAX = 5_000
"""A worker is replaced after so many files: engines leak."""
_KILL_S = 5.0

_WORKER = Path(__file__).with_name("engine_worker.py")


class _WorkerLost(Exception):
    """The process ended, or said something that is not the protocol."""


@attrs.define(eq=False)
class _Worker:
    process: trio.Process
    files: int = 0

    async def ask(self, request: dict[str, Any], content: bytes) -> dict[str, Any]:
        """Send one file, and wait for the answer. Raises `_WorkerLost`. Cancelled: the worker must be killed."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        header = json.dumps(request).encode()
        try:
            await stdin.send_all(_LENGTH.pack(len(header)) + header + content)
            (length,) = _LENGTH.unpack(await _receive_exactly(stdout, _LENGTH.size))
            if length > _ANSWER_BYTES_MAX:
                raise _WorkerLost(f"answered with {length:,} bytes")
            answer: dict[str, Any] = json.loads(await _receive_exactly(stdout, length))
        except (trio.BrokenResourceError, trio.ClosedResourceError, ValueError) as error:
            raise _WorkerLost(str(error)) from error
        self.files += 1
        return answer

    async def kill(self) -> int | None:
        """End the process and whatever it has started, and reap it. Bounded, and not interrupted by a cancellation, so that no
        process is left behind.
        """
        with trio.CancelScope(deadline=trio.current_time() + _KILL_S, shield=True):
            if self.process.returncode is None:
                # A worker leads a group of its own: an engine may run programs, such as one that sees text in images.
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    await pipe.aclose()
        return self.process.returncode


async def _receive_exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    received = bytearray()
    while len(received) < size_bytes:
        chunk = await stream.receive_some(min(size_bytes - len(received), 1 << 20))
        if not chunk:
            raise _WorkerLost("ended without an answer")
        received += chunk
    return bytes(received)


class WorkerPool(Engine):
    """An engine in up to `size` worker processes, started when they are needed."""

    def __init__(self, command: Sequence[str], size: int, limits: ExtractionLimits, name: str) -> None:
        self.name = name
        self.dead_letters: deque[DeadLetter] = deque(maxlen=_DEAD_LETTERS_MAX)
        self.workers_lost = 0
        """Workers that died or were killed over a file."""
        self._command, self._limits = list(command), limits
        self._slots = trio.CapacityLimiter(size)
        self._idle: list[_Worker] = []
        self._quarantine: OrderedDict[str, str] = OrderedDict()
        self._log = structlog.get_logger().bind(engine=name)

    @property
    def busy(self) -> int:
        """How many workers read a file now."""
        return int(self._slots.borrowed_tokens)

    async def read(self, file: File) -> Extraction:
        digest = file.spool.digest
        if digest in self._quarantine:
            self._quarantine.move_to_end(digest)
            return Extraction(Status.QUARANTINED, detail=self._quarantine[digest], engine=self.name)
        why, status = "", Status.FAILED
        async with self._slots:
            for attempt in (1, 2):
                # The simple reader streams and needs no engine: it is the better second try for the files it knows.
                simple = attempt == 2 and file.office_open_xml and why != ""
                try:
                    with trio.fail_after(self._limits.seconds_max):
                        return await self._try(file, simple)
                except trio.TooSlowError:
                    status, why = Status.TIMED_OUT, f"It took longer than {self._limits.seconds_max:g} s"
                except _WorkerLost as lost:
                    status, why = Status.FAILED, f"The engine {lost} (it crashed, or needed more memory than the limit)"
                except OSError as error:
                    return Extraction(
                        Status.FAILED, detail=f"A worker process cannot be started: {error}.", engine=self.name
                    )
                self.workers_lost += 1
                self._log.warning("extraction.worker_lost", file=file.name, attempt=attempt, why=why)
        return self._put_into_quarantine(file, digest, status, why)

    def release_quarantine(self) -> None:
        """Let every file be tried again."""
        self._quarantine.clear()

    async def close(self) -> None:
        """End every idle worker. Workers of cancelled reads have ended with them."""
        while self._idle:
            await self._idle.pop().kill()

    async def _try(self, file: File, simple: bool) -> Extraction:
        worker = await self._worker()
        keep = False
        try:
            answer = await worker.ask(*self._request(file, simple))
            keep = not answer.get("worn_out") and worker.files < _FILES_PER_WORKER_MAX
            return self._extraction(answer, file)
        except _WorkerLost as lost:
            code = await worker.kill()
            raise _WorkerLost(f"ended with code {code}" if code not in (None, -9) else str(lost)) from lost
        finally:
            if keep:
                self._idle.append(worker)
            else:
                await worker.kill()

    async def _worker(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.process.poll() is None:
                return worker
            await worker.kill()
        process = await trio.lowlevel.open_process(
            self._command,
            stdin=-1,
            stdout=-1,
            stderr=-3,
            start_new_session=True,
        )
        return _Worker(process)

    def _request(self, file: File, simple: bool) -> tuple[dict[str, Any], bytes]:
        spool = file.spool
        request: dict[str, Any] = {
            "name": file.name,
            "extension": extension_of(file.name),
            "characters": self._limits.characters_max,
            "seconds": self._limits.seconds_max,
            "simple": simple,
        }
        if spool.path is None:
            content = spool.content
            return {**request, "size": len(content)}, content
        return {**request, "path": str(spool.path)}, b""

    def _extraction(self, answer: dict[str, Any], file: File) -> Extraction:
        try:
            status = Status(answer["status"])
            text, detail = str(answer.get("text", "")), str(answer.get("detail", ""))
            metadata = {str(key): str(value) for key, value in (answer.get("metadata") or {}).items()}
        except (KeyError, ValueError, AttributeError) as error:
            raise _WorkerLost(f"gave an answer that is none: {error}") from error
        return Extraction(status, text, metadata, detail, str(answer.get("engine", self.name)), file.spool.size_bytes)

    def _put_into_quarantine(self, file: File, digest: str, status: Status, why: str) -> Extraction:
        detail = f"{why}, twice. It is in quarantine until it changes or its dead letter is replayed."
        self._quarantine[digest] = detail
        while len(self._quarantine) > _QUARANTINE_FILES_MAX:
            self._quarantine.popitem(last=False)
        letter = DeadLetter(file.name, status, detail, digest)
        self.dead_letters.append(letter)
        self._log.error("extraction.quarantined", file=file.name, status=status.value, why=why, digest=digest)
        return Extraction(Status.QUARANTINED, detail=detail, engine=self.name)


@asynccontextmanager
async def open_worker_pool(
    folder: Path,
    limits: ExtractionLimits,
    size: int,
    *,
    command: Sequence[str] | None = None,
    name: str = "embedded",
) -> AsyncIterator[WorkerPool]:
    """Open the embedded engine in worker processes. Leaving ends them all, within seconds even when cancelled.

    `command` is the program of a worker, for engines of one's own; it is given the scratch folder and the memory limit in
    bytes as its last arguments, and is best written with `engine_worker.serve`.
    """
    program = list(command) if command is not None else [sys.executable, "-P", str(_WORKER)]
    pool = WorkerPool([*program, str(folder), str(limits.memory_bytes_max)], size, limits, name)
    try:
        yield pool
    finally:
        await pool.close()
