"""Names of indices and aliases: which are legal, and which an expression such as `logs-*,-logs-old` means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import translate
from functools import lru_cache
from re import Pattern
from re import compile as compile_pattern
from typing import Protocol

import attrs

from ..errors import ApiError, illegal_argument, index_not_found, not_built

_FORBIDDEN = '\\/*?"<>| ,'
NAME_BYTES_MAX = 255
_WILDCARD_STATES = {"open", "closed", "hidden", "none", "all"}


class Named(Protocol):
    """What resolving needs to know of an index."""

    @property
    def hidden(self) -> bool:
        """Whether wildcards pass it over."""

    @property
    def closed(self) -> bool:
        """Whether it is closed."""

    @property
    def aliases(self) -> Mapping[str, Mapping[str, object]]:
        """Its aliases."""


def check_index_name(name: str) -> None:
    """Raise 400 `invalid_index_name_exception` unless an index may be called so."""
    wrong = name_problem(name)
    if wrong:
        raise ApiError(
            400, "invalid_index_name_exception", f"Invalid index name [{name}], {wrong}", index_uuid="_na_", index=name
        )


def check_alias_name(name: str) -> None:
    """Raise 400 `invalid_alias_name_exception` unless an alias may be called so."""
    wrong = name_problem(name, lowercase=False)
    if wrong:
        raise ApiError(400, "invalid_alias_name_exception", f"Invalid alias name [{name}]: {wrong}")


def name_problem(name: str, *, lowercase: bool = True) -> str | None:
    """Say what is wrong with a name, or None."""
    if not name:
        return "must not be empty"
    if any(letter in _FORBIDDEN for letter in name):
        return "must not contain the following characters ['\\\\','/','*','?','\"','<','>','|',' ',',']"
    if "#" in name:
        return "must not contain '#'"
    if ":" in name:
        return "must not contain ':'"
    if name[0] in "_-+":
        return "must not start with '_', '-', or '+'"
    if name in (".", ".."):
        return "must not be '.' or '..'"
    if lowercase and name.lower() != name:
        return "must be lowercase"
    if len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX:
        return f"index name is too long, ({len(name.encode('utf-8', 'surrogatepass'))} > {NAME_BYTES_MAX})"
    return None


@lru_cache(maxsize=512)
def pattern(text: str) -> Pattern[str]:
    """Compile a pattern in which only `*` is special."""
    return compile_pattern(translate(text.replace("[", "[[]").replace("?", "[?]")))


def matches(text: str, name: str) -> bool:
    """Say whether a name fits a pattern in which only `*` is special."""
    return pattern(text).match(name) is not None


@attrs.frozen
class Expansion:
    """How an expression is read."""

    open: bool = True
    closed: bool = False
    hidden: bool = False
    ignore_unavailable: bool = False
    allow_no_indices: bool = True

    @classmethod
    def read(
        cls, states: str | None, *, ignore_unavailable: bool, allow_no_indices: bool, default: str = "open"
    ) -> Expansion:
        """Read `expand_wildcards` and its companions. Raises 400 for an unknown state."""
        words = set((states or default).lower().split(","))
        unknown = words - _WILDCARD_STATES
        if unknown:
            raise illegal_argument(f"No valid expand wildcard value [{min(unknown)}]")
        every = "all" in words
        return cls(
            open=every or "open" in words or words == {"hidden"},
            closed=every or "closed" in words,
            hidden=every or "hidden" in words,
            ignore_unavailable=ignore_unavailable,
            allow_no_indices=allow_no_indices,
        )


def resolve(expression: str, indices: Mapping[str, Named], how: Expansion) -> dict[str, set[str] | None]:
    """Return the indices an expression means, each with the aliases it was reached by (None: by its own name).

    Raises 404 for a name that is not there, and 400 for a closed index that was named, unless `how` says to pass it over.
    """
    found: dict[str, set[str] | None] = {}
    parts = [part.strip() for part in expression.split(",")]
    wildcard_seen = False
    for part in parts:
        if part.startswith("<"):
            raise not_built(f"Date math in index names ([{part}])")
        if ":" in part:
            raise not_built(f"Cross-cluster search ([{part}])")
        if part.startswith("-") and wildcard_seen:
            for name in _expand(part[1:], indices, attrs.evolve(how, hidden=True, closed=True)):
                found.pop(name, None)
            continue
        if part in ("_all", "*", "") or "*" in part:
            wildcard_seen = True
            everything = "*" if part in ("_all", "") else part
            hits = _expand(everything, indices, how)
            if not hits and not how.allow_no_indices:
                raise index_not_found(part)
            for name, by in hits.items():
                _note(found, name, by)
            continue
        _resolve_name(part, indices, how, found)
    if not found and not how.allow_no_indices:
        raise index_not_found(expression)
    return found


def _resolve_name(name: str, indices: Mapping[str, Named], how: Expansion, found: dict[str, set[str] | None]) -> None:
    if name in indices:
        hits: Iterable[str] = (name,)
        by = None
    else:
        hits = [index for index, one in indices.items() if name in one.aliases]
        by = name
    if not hits:
        if how.ignore_unavailable:
            return
        if name.startswith("_"):
            check_index_name(name)
        raise index_not_found(name)
    for index in hits:
        if indices[index].closed and not how.closed:
            if how.ignore_unavailable:
                continue
            raise ApiError(400, "index_closed_exception", "closed", index_uuid="_na_", index=index)
        _note(found, index, by)


def _note(found: dict[str, set[str] | None], name: str, by: str | None) -> None:
    known = found.get(name, set())
    # Reached by its own name once means that no alias narrows it.
    found[name] = None if by is None or known is None else known | {by}


def _expand(text: str, indices: Mapping[str, Named], how: Expansion) -> dict[str, str | None]:
    hits: dict[str, str | None] = {}
    for name, index in indices.items():
        if (index.closed and not how.closed) or (not index.closed and not how.open):
            continue
        if matches(text, name) and (how.hidden or not index.hidden or (text.startswith(".") and name.startswith("."))):
            hits[name] = None
            continue
        for alias, about in index.aliases.items():
            concealed = about.get("is_hidden", False) is True
            if matches(text, alias) and (
                how.hidden or not concealed or (text.startswith(".") and alias.startswith("."))
            ):
                hits.setdefault(name, alias)
    return dict(sorted(hits.items()))
