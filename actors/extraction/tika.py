"""Apache Tika as a child process: the same engine as in Elasticsearch and in the extraction service, where Java is present.

The server is started with the first file and restarted when it dies. A file that takes too long cannot be stopped inside it, so
the whole server goes; the others that were being read are innocent, and simply ask the next one. Of a crash nobody knows the culprit:
those who were hit try again one at a time, so that a second crash has one.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs
import httpx
import structlog
import trio

from .engines import Engine, File
from .http_engine import Answer, AnswerTooLarge, put
from .results import DeadLetter, Extraction, Status

if TYPE_CHECKING:
    from .extractor import ExtractionSettings

COORDINATES = "org.apache.tika:tika-server-standard:3.3.2:jar"
JAR_NAME = "tika-server-standard-3.3.2.jar"
JAR_SHA256 = "cdbe7fde72583dec8528f9c0ed962cacb7f6624f9900b1f733df638410f77540"

_READY_S = 60.0
_STARTS_MAX = 3
_KILL_S = 5.0
_POLL_S = 0.1
_QUARANTINE_FILES_MAX = 10_000


def data_folder() -> Path:
    """Where what was fetched is kept: the user's data folder."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "callboard"


def installed_jar() -> Path | None:
    """The Tika server that was fetched, if it was."""
    jar = data_folder() / JAR_NAME
    return jar if jar.is_file() else None


def java_program() -> str | None:
    """The `java` of this host: of JAVA_HOME, or of the search path."""
    home = os.environ.get("JAVA_HOME")
    if home and (program := Path(home) / "bin" / "java").is_file():
        return str(program)
    return shutil.which("java")


class _Lost(Exception):
    """The server ended, or does not come up."""


@attrs.frozen(eq=False)
class _Server:
    process: trio.Process
    client: httpx.AsyncClient


class TikaEngine(Engine):
    """A Tika server of our own on the loopback address."""

    name = "tika"

    def __init__(self, jar: Path, java: str, folder: Path, settings: ExtractionSettings) -> None:
        self.dead_letters: deque[DeadLetter] = deque(maxlen=1_000)
        self.starts = 0
        """How often the server was started."""
        self._jar, self._java, self._folder = jar, java, folder
        self._limits = settings.limits
        self._size = settings.workers
        self._slots = trio.CapacityLimiter(settings.workers)
        self._starting = trio.Lock()
        self._alone = trio.Lock()
        self._server: _Server | None = None
        self._late: set[trio.Process] = set()
        self._quarantine: OrderedDict[str, str] = OrderedDict()
        self._log = structlog.get_logger().bind(engine=self.name)

    async def read(self, file: File) -> Extraction:
        digest = file.spool.digest
        if digest in self._quarantine:
            return Extraction(Status.QUARANTINED, detail=self._quarantine[digest], engine=self.name)
        why, status, blamed = "", Status.FAILED, 0
        # A file hit by others' time-outs is innocent each time; the bound is only there to have one.
        for _ in range(2 + 4 * self._size):
            server: _Server | None = None
            try:
                if blamed:
                    async with self._alone:
                        server = await self._ready()
                        return await self._ask(server, file)
                async with self._slots:
                    server = await self._ready()
                    return await self._ask(server, file)
            except trio.TooSlowError:
                status, why = Status.TIMED_OUT, f"It took longer than {self._limits.seconds_max:g} s"
                blamed += 1
                if server is not None:
                    self._late.add(server.process)
                    await self._end(server)
            except _Lost as lost:
                return Extraction(Status.FAILED, detail=f"{lost}", engine=self.name)
            except httpx.TransportError as error:
                if server is not None and server.process in self._late:
                    continue
                status, why = Status.FAILED, f"Tika ended while reading it ({type(error).__name__})"
                blamed += 1
                if server is not None:
                    await self._end(server)
            if blamed >= 2:
                break
        detail = f"{why}, twice. It is in quarantine until it changes or its dead letter is replayed."
        self._quarantine[digest] = detail
        while len(self._quarantine) > _QUARANTINE_FILES_MAX:
            self._quarantine.popitem(last=False)
        self.dead_letters.append(DeadLetter(file.name, status, detail, digest))
        self._log.error("extraction.quarantined", file=file.name, status=status.value, why=why, digest=digest)
        return Extraction(Status.QUARANTINED, detail=detail, engine=self.name)

    def release_quarantine(self) -> None:
        """Let every file be tried again."""
        self._quarantine.clear()

    async def close(self) -> None:
        """End the server."""
        if self._server is not None:
            await self._end(self._server)

    async def _ask(self, server: _Server, file: File) -> Extraction:
        limits = self._limits
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(Path(file.name).name)}",
            "writeLimit": str(limits.characters_max + 1),
            "throwOnWriteLimitReached": "false",
        }
        try:
            with trio.fail_after(limits.seconds_max):
                answer = await put(server.client, "/tika/text", file.spool, limits, headers=headers)
        except AnswerTooLarge:
            return Extraction(Status.TOO_LARGE, detail="It gives far more text than the limit.", engine=self.name)
        return judge(answer)

    async def _ready(self) -> _Server:
        """The running server, started if need be. Raises `_Lost` if it does not come up."""
        async with self._starting:
            if self._server is not None:
                if self._server.process.poll() is None:
                    return self._server
                await self._end(self._server)
            for _ in range(_STARTS_MAX):
                server = await self._start()
                try:
                    if await self._comes_up(server):
                        self._server = server
                        return server
                except BaseException:
                    await self._end(server)
                    raise
                await self._end(server)
            raise _Lost(f"Tika does not start; try: {self._java} -jar {self._jar.name}")

    async def _start(self) -> _Server:
        self.starts += 1
        port = _free_port()
        try:
            process = await trio.lowlevel.open_process(
                [
                    self._java,
                    f"-Xmx{self._limits.memory_bytes_max // 2**20}m",
                    "-XX:+ExitOnOutOfMemoryError",
                    "-Djava.awt.headless=true",
                    f"-Djava.io.tmpdir={self._folder}",
                    "-jar",
                    str(self._jar),
                    *("--host", "127.0.0.1", "--port", str(port), "--noFork"),
                ],
                stdin=-3,
                stdout=-3,
                stderr=-3,
                start_new_session=True,
            )
        except OSError as error:
            raise _Lost(f"Java cannot be started: {error}") from error
        pool = httpx.Limits(max_connections=self._size + 2)
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=self._limits.seconds_max + 5, limits=pool, trust_env=False
        )
        return _Server(process, client)

    async def _comes_up(self, server: _Server) -> bool:
        with trio.move_on_after(_READY_S):
            while server.process.poll() is None:
                try:
                    answer = await server.client.get("/version")
                except httpx.TransportError:
                    await trio.sleep(_POLL_S)
                    continue
                if answer.status_code == 200:
                    return True
        return False

    async def _end(self, server: _Server) -> None:
        if self._server is server:
            self._server = None
        with trio.CancelScope(deadline=trio.current_time() + _KILL_S, shield=True):
            if server.process.returncode is None:
                server.process.kill()
            await server.process.wait()
            await server.client.aclose()


def judge(answer: Answer) -> Extraction:
    """What an answer of Tika means."""
    members = answer.members
    failure = next(
        (
            str(value)
            for key, value in members.items()
            if key.startswith("X-TIKA:EXCEPTION:") and key != "X-TIKA:EXCEPTION:write_limit_reached"
        ),
        "",
    )
    metadata = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in members.items()
        if key != "X-TIKA:content" and not key.startswith("X-TIKA:EXCEPTION:")
    }
    if answer.status == 200:
        text = str(members.get("X-TIKA:content") or "")
        if text.strip() or not failure:
            status = Status.TEXT if text.strip() else Status.EMPTY
            return Extraction(status, text, metadata, engine="tika")
    if "encrypted" in failure.lower() or "password" in failure.lower():
        return Extraction(Status.ENCRYPTED, detail="It is protected by a password.", engine="tika")
    first_line = failure.strip().splitlines()[0][:300] if failure.strip() else f"status {answer.status}"
    if answer.status in (200, 422):
        return Extraction(Status.CORRUPT, detail=f"Tika cannot read it: {first_line}", engine="tika")
    if answer.status == 415:
        return Extraction(Status.UNSUPPORTED, detail="Tika knows no such type.", engine="tika")
    return Extraction(Status.FAILED, detail=f"Tika answered with {first_line}", engine="tika")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def open_tika(settings: ExtractionSettings, folder: Path) -> AsyncIterator[TikaEngine]:
    """Open Tika; the server starts with the first file. The jar and `java` have been found before (`chosen_engine`)."""
    jar = settings.tika_jar or installed_jar()
    java = java_program()
    assert jar is not None
    assert java is not None
    engine = TikaEngine(jar, java, folder, settings)
    try:
        yield engine
    finally:
        await engine.close()
