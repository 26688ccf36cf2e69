"""One request and one answer, as the operations server sees them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

import attrs
import orjson

FORM_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100


@attrs.frozen
class Request:
    """One request, without its body."""

    method: str
    path: str
    """Decoded."""
    headers: dict[str, str]
    query: str = ""
    receive: Any = None
    path_as_sent: str = ""
    is_https: bool = False

    @property
    def segments(self) -> list[str]:
        """The parts of the path, each decoded by itself, so that a name may hold a slash."""
        return [unquote(one) for one in self.path_as_sent.split("/") if one]

    @property
    def fields(self) -> dict[str, str]:
        """The fields of the query."""
        return _fields(self.query)


@attrs.frozen
class Response:
    """What is answered at once."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def answer(data: Any, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(orjson.dumps(data), status)


async def body_of(request: Request) -> dict[str, str]:
    """Read a form. What is too large or none at all has no fields, and so lacks its token."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    body = b""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return {}
        body += message.get("body", b"")
        if len(body) > FORM_BYTES_MAX:
            return {}
        if not message.get("more_body", False):
            return _fields(body.decode("latin-1"))


def _fields(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        return {}
