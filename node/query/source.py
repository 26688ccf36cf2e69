"""Which part of a document is given back: `_source` filters and `filter_path`. Pure."""

from __future__ import annotations

from typing import Any

import attrs

from ..errors import parsing
from ..storage.names import matches


@attrs.frozen
class SourceFilter:
    """`wanted` false leaves the source out. Patterns name paths; a pattern covers everything below it."""

    wanted: bool = True
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Say whether the source is given back as it is."""
        return self.wanted and not self.includes and not self.excludes

    def apply(self, source: dict[str, Any]) -> dict[str, Any]:
        """Return the part of the source that is wanted."""
        found = _keep(source, self.includes) if self.includes else source
        return _drop(found, self.excludes) if self.excludes else found


def read_source_filter(value: Any) -> SourceFilter:
    """Read the `_source` member of a body. Raises 400."""
    match value:
        case None | True:
            return SourceFilter()
        case False:
            return SourceFilter(wanted=False)
        case str():
            return SourceFilter(includes=(value,))
        case list():
            return SourceFilter(includes=_texts(value))
        case dict():
            unknown = value.keys() - {"includes", "include", "excludes", "exclude"}
            if unknown:
                raise parsing(f"Unknown key for a VALUE_STRING in [{min(unknown)}].")
            return SourceFilter(
                includes=_texts(value.get("includes", value.get("include", []))),
                excludes=_texts(value.get("excludes", value.get("exclude", []))),
            )
    raise parsing("[_source] must be true, false, a pattern, a list of patterns or an object")


def _texts(value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise parsing("the patterns of [_source] must be texts")
    return tuple(listed)


def _keep(value: dict[str, Any], patterns: tuple[str, ...]) -> dict[str, Any]:
    return _kept(value, "", patterns) or {}


def _kept(value: Any, path: str, patterns: tuple[str, ...]) -> Any:
    if path and any(matches(one, path) or matches(one + ".*", path) for one in patterns):
        return value
    if isinstance(value, dict):
        found = {}
        for name, inner in value.items():
            full = f"{path}.{name}" if path else name
            kept = _kept(inner, full, patterns)
            if kept is not None:
                found[name] = kept
        return found or None
    if isinstance(value, list):
        return [
            kept
            for inner in value
            if isinstance(inner, dict | list) and (kept := _kept(inner, path, patterns)) is not None
        ] or None
    return None


def _drop(value: Any, patterns: tuple[str, ...], path: str = "") -> Any:
    if isinstance(value, dict):
        return {
            name: _drop(inner, patterns, f"{path}.{name}" if path else name)
            for name, inner in value.items()
            if not any(matches(one, f"{path}.{name}" if path else name) for one in patterns)
        }
    if isinstance(value, list):
        return [_drop(inner, patterns, path) for inner in value]
    return value


def filter_path(body: Any, expression: str) -> Any:
    """Return the part of an answer that `filter_path` asks for; `-` in front leaves out, `**` stands for any depth."""
    parts = [part.strip() for part in expression.split(",") if part.strip()]
    keep = [part.split(".") for part in parts if not part.startswith("-")]
    drop = [part[1:].split(".") for part in parts if part.startswith("-")]
    if keep:
        body = _select(body, keep)
        body = {} if body is None else body
    return _reject(body, drop) if drop else body


def _advance(patterns: list[list[str]], name: str) -> tuple[bool, list[list[str]]]:
    """Step into a member: whether some pattern ends here, and what remains of the others."""
    rest: list[list[str]] = []
    for one in patterns:
        if one[0] == "**":
            if len(one) == 1:
                return True, []
            rest.append(one)
            if matches(one[1], name):
                if len(one) == 2:
                    return True, []
                rest.append(one[2:])
        elif matches(one[0], name):
            if len(one) == 1:
                return True, []
            rest.append(one[1:])
    return False, rest


def _select(value: Any, patterns: list[list[str]]) -> Any:
    if isinstance(value, list):
        return [found for inner in value if (found := _select(inner, patterns)) is not None] or None
    if not isinstance(value, dict):
        return None
    kept = {}
    for name, inner in value.items():
        whole, rest = _advance(patterns, name)
        if whole:
            kept[name] = inner
        elif rest and (found := _select(inner, rest)) is not None:
            kept[name] = found
    return kept or None


def _reject(value: Any, patterns: list[list[str]]) -> Any:
    if isinstance(value, list):
        return [_reject(inner, patterns) for inner in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, inner in value.items():
        whole, rest = _advance(patterns, name)
        if not whole:
            kept[name] = _reject(inner, rest) if rest else inner
    return kept
