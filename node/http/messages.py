"""A request as handlers see it, and what they answer."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from ..errors import ApiError, illegal_argument


@attrs.define(kw_only=True)
class Request:
    """One request, with its body unpacked but not yet parsed."""

    method: str
    path: str
    arguments: dict[str, str]
    """What the route's placeholders stand for."""
    parameters: dict[str, str]
    headers: dict[str, str]
    body: bytes
    principal: Any = None
    """Who asks; see `security`."""

    def json(self) -> dict[str, Any]:
        """Return the body as an object; an absent body is an empty one. Raises 400."""
        if not self.body.strip():
            return {}
        found = read_json(self.body)
        if not isinstance(found, dict):
            raise ApiError(400, "parsing_exception", "Expected a JSON object as the body of this request")
        return found

    def required_json(self) -> dict[str, Any]:
        """Return the body as an object. Raises 400 if there is none."""
        if not self.body.strip():
            raise ApiError(400, "parse_exception", "request body is required")
        return self.json()

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a parameter that is true or false; naming it alone means true. Raises 400."""
        value = self.parameters.get(name)
        if value is None:
            return default
        if value in ("true", ""):
            return True
        if value == "false":
            return False
        raise illegal_argument(f"Failed to parse value [{value}] as only [true] or [false] are allowed.")

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return a parameter that is a whole number. Raises 400."""
        value = self.parameters.get(name)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            raise illegal_argument(f"Failed to parse int parameter [{name}] with value [{value}]") from None
        if not -(1 << 63) <= number < 1 << 63:
            raise illegal_argument(f"Failed to parse int parameter [{name}] with value [{value}]")
        return number

    def names(self, name: str) -> list[str]:
        """Return a parameter that is a list with commas; absent is empty."""
        return [part for part in self.parameters.get(name, "").split(",") if part]


@attrs.define
class Response:
    """An answer. `body` is an object to be written as JSON, text or bytes to be sent as they are, or None for none."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = attrs.Factory(dict)
    media_type: str | None = None
    """None: JSON in the form that was asked for."""


def read_json(body: bytes) -> Any:
    """Parse JSON. Raises 400 with where it breaks."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            400, "parsing_exception", f"Failed to parse request body: {error.msg}", line=error.lineno, col=error.colno
        ) from error
