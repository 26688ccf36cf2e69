"""Reading and changing a document by dotted paths, and filling `{{templates}}`. Pure."""

from __future__ import annotations

import re
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{\{?\s*([^{}\s]+)\s*\}?\}\}")


class ProcessorFailed(Exception):
    """A processor could not do its work on this document."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


MISSING = object()


def read(document: dict[str, Any], path: str) -> Any:
    """Return the value at a path, or `MISSING`."""
    at: Any = document
    for name in path.split("."):
        if isinstance(at, dict):
            if name not in at:
                return MISSING
            at = at[name]
        elif isinstance(at, list) and name.isdigit() and int(name) < len(at):
            at = at[int(name)]
        else:
            return MISSING
    return at


def require(document: dict[str, Any], path: str) -> Any:
    """Return the value at a path. Raises `ProcessorFailed` if there is none."""
    value = read(document, path)
    if value is MISSING:
        name = path.rpartition(".")[2]
        raise ProcessorFailed("illegal_argument_exception", f"field [{name}] not present as part of path [{path}]")
    return value


def write(document: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path, making objects on the way. Raises `ProcessorFailed` if something else is in the way."""
    *above, leaf = path.split(".")
    at: Any = document
    for name in above:
        if isinstance(at, list) and name.isdigit() and int(name) < len(at):
            at = at[int(name)]
            continue
        if not isinstance(at, dict):
            break
        at = at.setdefault(name, {})
    if not isinstance(at, dict):
        raise ProcessorFailed(
            "illegal_argument_exception",
            f"cannot set [{leaf}] with parent object of another type as part of path [{path}]",
        )
    at[leaf] = value


def remove(document: dict[str, Any], path: str) -> None:
    """Take the value at a path away. Raises `ProcessorFailed` if there is none."""
    require(document, path)
    *above, leaf = path.split(".")
    at = read(document, ".".join(above)) if above else document
    if isinstance(at, dict):
        del at[leaf]
    elif isinstance(at, list):
        del at[int(leaf)]


def fill(template: Any, document: dict[str, Any], more: dict[str, Any]) -> Any:
    """Fill the placeholders of texts, also inside lists and objects; what is missing becomes an empty text."""
    if isinstance(template, str):
        if "{{" not in template:
            return template

        def value(found: re.Match[str]) -> str:
            path = found[1]
            known = read(more, path)
            known = read(document, path) if known is MISSING else known
            return "" if known is MISSING or known is None else text(known)

        return _PLACEHOLDER.sub(value, template)
    if isinstance(template, list):
        return [fill(one, document, more) for one in template]
    if isinstance(template, dict):
        return {key: fill(one, document, more) for key, one in template.items()}
    return template


def text(value: Any) -> str:
    """Return a value as text, flags and nothing as JSON has them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
