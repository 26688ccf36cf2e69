"""The client of an extraction service: the HTTP interface of existing deployments, in both of its modes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from urllib.parse import quote

import httpx
import structlog
import trio

from ...runtime import random
from .engines import Engine, File
from .extractor import ExtractionSettings
from .http_engine import Answer, AnswerTooLarge, put
from .results import Extraction, Status

TRIES = 3
_FIRST_DELAY_S = 0.5
_DELAY_S_MAX = 10.0
_PING_S = 5.0
_SILENCE_S = 3600.0
"""Beyond any use: `service_timeout_s` bounds the whole request."""


class ServiceEngine(Engine):
    """Asks a service. One pool of connections for all files."""

    name = "service"

    def __init__(self, client: httpx.AsyncClient, settings: ExtractionSettings) -> None:
        self._client, self._settings = client, settings
        self._slots = trio.CapacityLimiter(settings.workers)
        self._log = structlog.get_logger().bind(engine=self.name, url=settings.service_url)

    async def ping(self) -> bool:
        """Ask whether the service is there, and log what it says; a service that is not may still come up later."""
        try:
            # The status is enough, and an answer that is not read cannot be endless.
            with trio.fail_after(_PING_S):
                async with self._client.stream("GET", "/ping/") as answer:
                    pass
        except (httpx.HTTPError, trio.TooSlowError) as error:
            self._log.critical("extraction.service_unreachable", error=str(error) or type(error).__name__)
            return False
        if answer.status_code != 200:
            self._log.warning("extraction.service_unwell", status=answer.status_code)
            return False
        self._log.info("extraction.service_ready")
        return True

    async def read(self, file: File) -> Extraction:
        async with self._slots:
            found = Extraction(Status.FAILED, engine=self.name)
            delay_s = _FIRST_DELAY_S
            for attempt in range(TRIES):
                if attempt:
                    await trio.sleep(delay_s * (0.5 + random().random()))
                    delay_s = min(2 * delay_s, _DELAY_S_MAX)
                found, again, wait_s = await self._ask(file)
                if not again:
                    break
                if wait_s is not None:
                    delay_s = min(wait_s, _DELAY_S_MAX)
        if not found.is_readable:
            self._log.warning("extraction.failed", file=file.name, status=found.status.value, detail=found.detail)
        return found

    async def _ask(self, file: File) -> tuple[Extraction, bool, float | None]:
        """One try: what came out, whether another may help, and how long the service wants us to wait."""
        settings = self._settings
        try:
            with trio.fail_after(settings.service_timeout_s):
                if settings.service_file_pointers:
                    path = await file.spool.on_disk()
                    answer = await put(
                        self._client, "/extract_text/", None, settings.limits, params={"local_file_path": str(path)}
                    )
                else:
                    answer = await put(
                        self._client,
                        "/extract_text/",
                        file.spool,
                        settings.limits,
                        headers=_named(file.name),
                        chunk_size_bytes=settings.service_chunk_size_bytes,
                    )
        except trio.TooSlowError:
            detail = f"The extraction service took longer than {settings.service_timeout_s:g} s."
            return Extraction(Status.TIMED_OUT, detail=detail, engine=self.name), False, None
        except AnswerTooLarge:
            detail = "The extraction service answered with far more text than the limit."
            return Extraction(Status.TOO_LARGE, detail=detail, engine=self.name), False, None
        except httpx.TransportError as error:
            what = str(error) or type(error).__name__
            detail = f"The extraction service at {settings.service_url} does not answer: {what}."
            return Extraction(Status.FAILED, detail=detail, engine=self.name), True, None
        found = judge(answer)
        return found, answer.status == 429 or answer.status >= 500, answer.retry_after_s


def _named(name: str) -> dict[str, str]:
    """The header that says what the file is called: a service that hears it tells texts and letters better apart."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return {"content-disposition": f"attachment; filename*=UTF-8''{quote(last, safe='')}"} if last else {}


def judge(answer: Answer) -> Extraction:
    """What an answer of the service means."""
    members, name = answer.members, ServiceEngine.name
    message = " ".join(str(members.get("message") or members.get("error") or "").split())[:300]
    if answer.status == 200 and "error" not in members and isinstance(members.get("extracted_text"), str):
        text = members["extracted_text"]
        about = members.get("_meta")
        parsers = about.get("X-ELASTIC:TIKA:parsed_by") if isinstance(about, dict) else None
        metadata = {"X-TIKA:Parsed-By": ", ".join(map(str, parsers))} if isinstance(parsers, list) else {}
        return Extraction(Status.TEXT if text.strip() else Status.EMPTY, text, metadata, engine=name)
    if answer.status == 422 or (answer.status == 200 and "error" in members):
        lowered = message.lower()
        status = Status.ENCRYPTED if "encrypted" in lowered and "corrupt" not in lowered else Status.CORRUPT
        return Extraction(status, detail=f"The extraction service cannot read it: {message}", engine=name)
    if answer.status == 413:
        return Extraction(Status.TOO_LARGE, detail="It is larger than the extraction service takes.", engine=name)
    said = f": {message}" if message else ""
    return Extraction(
        Status.FAILED, detail=f"The extraction service answered with status {answer.status}{said}", engine=name
    )


@asynccontextmanager
async def open_service(
    settings: ExtractionSettings, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[ServiceEngine]:
    """Open the client of the service that the settings name. It need not be up yet."""
    assert settings.service_url is not None
    limits = httpx.Limits(max_connections=settings.workers + 1, max_keepalive_connections=settings.workers)
    async with httpx.AsyncClient(
        base_url=settings.service_url.rstrip("/"),
        timeout=_SILENCE_S,
        limits=limits,
        transport=transport,
        trust_env=False,
    ) as client:
        engine = ServiceEngine(client, settings)
        await engine.ping()
        yield engine
