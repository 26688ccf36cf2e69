"""The HTTP interface of the extraction service, served by an extractor of our own: existing clients notice no difference.

    GET  /ping/                                   200, `Running!`
    GET  /                                        200, a greeting
    PUT  /extract_text/                           the body is the file
    PUT  /extract_text/?local_file_path=PATH      a file on a shared volume; only below the folder that was allowed

Answers of `/extract_text/` are JSON: `extracted_text` and `_meta`, or `error` and `message`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote

import trio

from ...runtime import blocking
from .extractor import Extractor
from .results import Extraction, Status

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

_READ_BYTES = 64 * 1024
_UNPROCESSABLE = frozenset({Status.CORRUPT, Status.ENCRYPTED, Status.UNSUPPORTED, Status.QUARANTINED})


class ServiceApplication:
    """The ASGI application. `shared_folder` allows paths below it; without one, paths are refused."""

    def __init__(self, extractor: Extractor, shared_folder: Path | None = None) -> None:
        self._extractor = extractor
        self._shared_folder = shared_folder.resolve() if shared_folder is not None else None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await _lifespan(receive, send)
            case "http":
                await self._http(scope, receive, send)

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/")
        match scope["method"], path:
            case "GET" | "HEAD", "/ping":
                await _respond(send, 200, b"Running!", "text/plain")
            case "GET" | "HEAD", "":
                greeting = f"This is Callboard's text extraction service ({self._extractor.engine_name}). Please PUT.\n"
                await _respond(send, 200, greeting.encode(), "text/plain")
            case "PUT", _ if f"{path}/".startswith("/extract_text/"):
                # `curl -T FILE .../extract_text/` adds the file's name, and the original's proxy takes whatever follows.
                await self._extract_text(scope, receive, send, path.removeprefix("/extract_text").lstrip("/"))
            case _, "" | "/ping" | "/extract_text":
                allowed = "PUT" if path == "/extract_text" else "GET, HEAD"
                await _problem(send, 405, "method not allowed", f"Use {allowed} here.", [(b"allow", allowed.encode())])
            case _:
                await _problem(send, 404, "not found", "There are /ping/ and /extract_text/ here.")

    async def _extract_text(self, scope: dict[str, Any], receive: Receive, send: Send, in_path: str) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        named = query.get("local_file_path", [""])[0]
        try:
            if named:
                found = await self._extract_path(named)
            else:
                media_type = headers.get(b"content-type")
                declared = None if media_type == "application/octet-stream" else media_type
                name = _file_name(headers.get(b"content-disposition", "")) or in_path
                found = await self._extractor.extract(name, _body(receive), declared)
        except _Gone:
            return
        except _PathRefused as refused:
            await _problem(send, refused.status, "unprocessable", str(refused))
            return
        status, members = answer(found, self._extractor.engine_name)
        await _respond(
            send, status, json.dumps(members, ensure_ascii=False).encode("utf-8", "replace"), "application/json"
        )

    async def _extract_path(self, named: str) -> Extraction:
        if self._shared_folder is None:
            raise _PathRefused(403, "This service takes no paths; start it with --shared-folder.")
        path = await blocking(_resolved, named)
        if path is None or not path.is_relative_to(self._shared_folder):
            raise _PathRefused(403, f"The path is not below the shared folder {self._shared_folder}.")
        try:
            async with await trio.open_file(path, "rb") as file:
                return await self._extractor.extract(path.name, _file_chunks(file))
        except FileNotFoundError:
            raise _PathRefused(422, "There is no such file.") from None
        except OSError as error:
            raise _PathRefused(422, f"The file cannot be read: {error.strerror}.") from None


def answer(found: Extraction, engine: str) -> tuple[int, dict[str, Any]]:
    """Status and members that the interface gives to an extraction."""
    if found.is_readable:
        about: dict[str, Any] = {"X-ELASTIC:service": "tika"}
        parsers = found.metadata.get("X-TIKA:Parsed-By")
        about["X-ELASTIC:TIKA:parsed_by"] = parsers.split(", ") if parsers else [found.engine or engine]
        if found.status is Status.TRUNCATED:
            about["X-CALLBOARD:status"] = found.status.value
        return 200, {"extracted_text": found.text, "_meta": about}
    if found.status in _UNPROCESSABLE:
        return 422, {"error": "unprocessable", "message": f"{found.status.value}: {found.detail}"}
    if found.status is Status.TOO_LARGE:
        return 413, {"error": "too large", "message": found.detail}
    if found.status is Status.TIMED_OUT:
        return 504, {"error": "timed out", "message": found.detail}
    return 500, {"error": "unexpected failure", "message": found.detail}


class _Gone(Exception):
    """The client closed the connection before its file had ended: what came is no file."""


class _PathRefused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise _Gone
        if event.get("body"):
            yield event["body"]
        if not event.get("more_body"):
            return


async def _file_chunks(file: Any) -> AsyncIterator[bytes]:
    while chunk := await file.read(_READ_BYTES):
        yield chunk


def _resolved(named: str) -> Path | None:
    try:
        return Path(named).resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _file_name(disposition: str) -> str:
    """The file name that a client may send along; the original's clients send none."""
    for part in disposition.split(";"):
        key, _, value = part.strip().partition("=")
        if key.lower() == "filename*" and "''" in value:
            return unquote(value.partition("''")[2])
        if key.lower() == "filename":
            return value.strip('"')
    return ""


async def _problem(
    send: Send, status: int, error: str, message: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    await _respond(send, status, json.dumps({"error": error, "message": message}).encode(), "application/json", headers)


async def _respond(
    send: Send, status: int, body: bytes, media_type: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    about = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
