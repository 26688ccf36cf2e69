"""The node as an ASGI application: from bytes to a request, from an answer or error to bytes."""

from __future__ import annotations

import gzip
import zlib
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson
import structlog

from ...runtime import blocking
from ..errors import ApiError, illegal_argument, not_built
from ..query.source import filter_path
from .media import answer_type, check_content_type
from .messages import Request, Response
from .routing import EVERYWHERE, Router

GZIP_FROM_BYTES = 1024
_GZIP_LEVEL = 3
_THREAD_FROM_BYTES = 65_536
log = structlog.get_logger("callboard.node")


class Application:
    """Answers HTTP. `context` is handed to every handler; `guard` says who asks and whether they may."""

    def __init__(self, router: Router, context: Any, guard: Any, content_bytes_max: int) -> None:
        self._router = router
        self._context = context
        self._guard = guard
        self._content_bytes_max = content_bytes_max

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Speak ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        parameters: dict[str, str] = {}
        media_type = "application/json"
        content: bytes | None = None
        try:
            parameters = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
            media_type = answer_type(headers.get("accept"))
            body = await self._read_body(headers, receive)
            answer = await self._answer(scope, headers, parameters, body)
            content = _written(answer, parameters)
        except ApiError as error:
            answer = Response(error.body(), error.status, error.headers)
        except UnicodeDecodeError as error:
            answer = _failure(illegal_argument(f"the request is not valid UTF-8: {error.reason}"))
        except (RecursionError, orjson.JSONEncodeError):
            answer = _failure(illegal_argument("the request or the document is nested too deeply for the node"))
        except Exception as error:
            # A request ends here. What went wrong is a mistake in the node; it is recorded, and the node goes on.
            log.exception("node.request_failed", method=scope["method"], path=scope["path"], error=str(error))
            answer = _failure(ApiError(500, "exception", f"the node failed: {type(error).__name__}: {error}"))
        if content is None:
            content = _written(answer, parameters)
        await _send(send, scope["method"], answer, content, media_type, headers)

    async def _answer(self, scope: Any, headers: dict[str, str], parameters: dict[str, str], body: bytes) -> Response:
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1").partition("?")[0]
        uri = path + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
        segments = [unquote(segment, errors="strict") for segment in path.split("/")]
        _check_ids(segments)
        principal = self._guard.authenticate(self._context.catalog.names("api_key"), headers.get("authorization"), path)
        route, arguments = self._router.find(scope["method"], [segment for segment in segments if segment], uri)
        if "source" in parameters:
            if not body:
                body = parameters["source"].encode()
        elif body:
            check_content_type(headers.get("content-type"), headers.get("accept"))
        unknown = parameters.keys() - route.parameters - EVERYWHERE
        if unknown:
            listed = ", ".join(f"[{name}]" for name in sorted(unknown))
            word = "parameter" if len(unknown) == 1 else "parameters"
            raise illegal_argument(f"request [{path}] contains unrecognized {word}: {listed}")
        if parameters.get("format", "json") not in ("json", "text", "txt"):
            raise not_built(f"[format={parameters['format']}]")
        request = Request(
            method=scope["method"],
            path=path,
            arguments=arguments,
            parameters=parameters,
            headers=headers,
            body=body,
            principal=principal,
        )
        self._guard.authorise(principal, route.action, route.template, request)
        return await route.handler(self._context, request)

    async def _read_body(self, headers: dict[str, str], receive: Any) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            part = message.get("body", b"")
            size += len(part)
            if size > self._content_bytes_max:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                break
        body = b"".join(parts)
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding in ("", "identity") or not body:
            return body
        if encoding != "gzip":
            raise ApiError(
                415, "illegal_argument_exception", f"Content-Encoding [{encoding}] is not supported; use gzip"
            )
        return await blocking(self._unzip, body) if size > _THREAD_FROM_BYTES else self._unzip(body)

    def _unzip(self, body: bytes) -> bytes:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            plain = unpacker.decompress(body, self._content_bytes_max + 1)
        except zlib.error as error:
            raise ApiError(400, "illegal_argument_exception", f"the gzip body cannot be unpacked: {error}") from error
        if len(plain) > self._content_bytes_max:
            raise self._too_large()
        if not unpacker.eof:
            raise ApiError(400, "illegal_argument_exception", "the gzip body ends too early")
        return plain

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            "content_too_long_exception",
            f"entity content is too long for the configured maximum of [{self._content_bytes_max}] bytes; send less at once",
        )


def _check_ids(segments: list[str]) -> None:
    """An empty id between two slashes, or at the end of a connector path, is a mistake and names nothing."""
    if len(segments) > 2 and segments[1] == "_connector" and "" in segments[2:-1]:
        raise ApiError(
            400, "action_request_validation_exception", 'Validation Failed: 1: [connector_id] cannot be [null] or [""];'
        )


def _failure(error: ApiError) -> Response:
    return Response(error.body(), error.status)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


def _written(answer: Response, parameters: dict[str, str]) -> bytes:
    body = answer.body
    if body is None:
        return b""
    if isinstance(body, str | bytes):
        return body.encode() if isinstance(body, str) else body
    if parameters.get("filter_path"):
        body = filter_path(orjson.loads(orjson.dumps(body)), parameters["filter_path"])
    indent = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE if parameters.get("pretty", "false") != "false" else 0
    return orjson.dumps(body, option=indent | orjson.OPT_NON_STR_KEYS)


async def _send(
    send: Any, method: str, answer: Response, content: bytes, media_type: str, asked: dict[str, str]
) -> None:
    headers = {"x-elastic-product": "Elasticsearch", **answer.headers}
    if isinstance(answer.body, str | bytes):
        headers["content-type"] = answer.media_type or "text/plain; charset=UTF-8"
    elif answer.body is not None:
        headers["content-type"] = answer.media_type or media_type
    if len(content) > GZIP_FROM_BYTES and "gzip" in asked.get("accept-encoding", ""):
        content = await _zip(content)
        headers["content-encoding"] = "gzip"
    headers["content-length"] = str(len(content))
    start = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": start})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})


async def _zip(content: bytes) -> bytes:
    if len(content) > _THREAD_FROM_BYTES:
        return await blocking(gzip.compress, content, _GZIP_LEVEL)
    return gzip.compress(content, _GZIP_LEVEL)
