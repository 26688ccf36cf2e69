"""Reading the options of a processor: each is taken by name and kind, and what is left over is unknown. Pure."""

from __future__ import annotations

from typing import Any

from ..errors import ApiError
from .fields import MISSING


def invalid_option(where: str, why: str, kind: str | None = None) -> ApiError:
    """Return the 400 for a processor that was described wrongly."""
    facts: dict[str, Any] = {"property_name": where} | ({"processor_type": kind} if kind else {})
    return ApiError(400, "parse_exception", f"[{where}] {why}", **facts)


class Options:
    """The options of one processor, taken one by one; what is left over is unknown."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.kind = kind
        self._left = dict(options)

    def text(self, name: str, default: str | None = None) -> str:
        """Take a text. Raises 400 if it is missing and there is no default."""
        value = self._left.pop(name, default)
        if value is None:
            raise invalid_option(name, "required property is missing", self.kind)
        if not isinstance(value, str):
            raise invalid_option(name, f"property isn't a string, but of type [{type(value).__name__}]", self.kind)
        return value

    def optional(self, name: str) -> str | None:
        """Take a text that may be absent."""
        return self.text(name) if self._left.get(name) is not None else self._left.pop(name, None)

    def flag(self, name: str, default: bool = False) -> bool:
        """Take a flag."""
        value = self._left.pop(name, default)
        if value not in (True, False, "true", "false"):
            raise invalid_option(name, "property isn't a boolean", self.kind)
        return value in (True, "true")

    def whole(self, name: str, default: int) -> int:
        """Take a whole number."""
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid_option(name, "property isn't an int", self.kind)
        return value

    def has(self, name: str) -> bool:
        """Say whether an option was given and not taken yet."""
        return name in self._left

    def any(self, name: str, default: Any = MISSING) -> Any:
        """Take a value of any kind."""
        if name not in self._left and default is MISSING:
            raise invalid_option(name, "required property is missing", self.kind)
        return self._left.pop(name, default)

    def texts(self, name: str) -> tuple[str, ...]:
        """Take a text or list of texts."""
        value = self.any(name)
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in listed):
            raise invalid_option(name, "must be a text or a list of texts", self.kind)
        return tuple(listed)

    def finish(self) -> None:
        """Raise 400 if an option was not understood."""
        if self._left:
            raise ApiError(
                400,
                "parse_exception",
                f"processor [{self.kind}] doesn't support one or more provided configuration parameters {sorted(self._left)}",
            )
