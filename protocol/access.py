"""Document-level security: who may see a document, and the query by which Elasticsearch keeps it from everybody else.

A content document carries `_allow_access_control`, the list of principals that may see it, as `prefix:identity`. For every
person there is an identity document in the access-control index; it carries a query that lets through what names one of the
person's principals, and what carries no list at all.

That last half is dangerous: to Elasticsearch an empty list is no list, and no list means everybody. So a list of readers that
turns out empty, or cannot be known, gets the entry `NOBODY`, which no identity document ever carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from .wire import JSON, write_stamp

ALLOW_ACCESS_CONTROL: Final = "_allow_access_control"

NOBODY: Final = "callboard:nobody"
"""The entry of a document that nobody may see."""

_NOBODY_PREFIX: Final = NOBODY.partition(":")[0]

QUERY_SOURCE: Final = (
    '{"bool":{"should":['
    '{"bool":{"must_not":{"exists":{"field":"_allow_access_control"}}}},'
    '{"terms":{"_allow_access_control.keyword":{{#toJson}}access_control{{/toJson}}}}'
    "]}}"
)
"""The mustache template of the query in identity documents. An application puts it into a role for the content index."""


class ReservedPrincipal(ValueError):
    """An identity claims a principal that stands for nobody."""

    def __init__(self, principal: str) -> None:
        self.principal = principal
        super().__init__(f"The principal {principal!r} is reserved: its prefix marks documents that nobody may see.")


def principal(prefix: str | None, identity: object) -> str | None:
    """Name somebody as `prefix:identity`, or None if either part is missing: such an entry is dropped."""
    name = "" if identity is None else str(identity).strip()
    return f"{prefix}:{name}" if prefix and name else None


def access_list(readers: Iterable[str | None] | None) -> list[str]:
    """Make the value of `_allow_access_control` from the principals that may see a document.

    Sorted and without doubles, so that equal permissions give equal documents. Missing entries are dropped. If nothing is
    left, or the readers are not known (None), the answer is the entry that lets nobody in.
    """
    kept = {reader.strip() for reader in readers or () if reader is not None and reader.strip()}
    return sorted(kept) or [NOBODY]


def with_access(document: dict[str, JSON], readers: Iterable[str | None] | None) -> dict[str, JSON]:
    """Restrict a document, in place, to these readers and those it names already; returns it.

    A list that is there already and cannot be read counts as unknown readers.
    """
    present = document.get(ALLOW_ACCESS_CONTROL)
    named = present if isinstance(present, list | tuple | set | frozenset) else [present]
    before = [reader for reader in named if isinstance(reader, str) and reader != NOBODY]
    document[ALLOW_ACCESS_CONTROL] = access_list([*before, *(readers or ())])
    return document


def identity_document(
    identity_id: str,
    access: Iterable[str | None],
    *,
    identity: Mapping[str, Any] | None = None,
    created_at: datetime | None = None,
    timestamp: str | None = None,
) -> dict[str, JSON]:
    """Make the identity document of one person: its key, what describes the person, and the query.

    Somebody without principals sees only what is open to everybody. Raises `ReservedPrincipal`.
    """
    principals = sorted({one.strip() for one in access if one is not None and one.strip()})
    for one in principals:
        if one == _NOBODY_PREFIX or one.startswith(f"{_NOBODY_PREFIX}:"):
            raise ReservedPrincipal(one)
    document: dict[str, JSON] = {
        "_id": identity_id,
        "id": identity_id,
        "identity": dict(identity or {}),
        "query": {"template": {"params": {"access_control": principals}, "source": QUERY_SOURCE}},
    }
    if created_at is not None:
        document["created_at"] = write_stamp(created_at)
    if timestamp is not None:
        document["_timestamp"] = timestamp
    return document


def allows(document: Mapping[str, JSON], principals: Iterable[str]) -> bool:
    """Tell whether the query of an identity with these principals lets the document through, as Elasticsearch does it."""
    readers = document.get(ALLOW_ACCESS_CONTROL)
    listed = [one for one in (readers if isinstance(readers, list) else [readers]) if one is not None]
    return not listed or not set(principals).isdisjoint(listed)
