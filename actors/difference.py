"""Compare what two indices hold, document by document, in bounded memory.

Meant for moving here from another service (sync the same source into two indices, then compare), and for tests: nothing of it
is shared with the sync, so it can say whether a sync did what it should. One index is read page by page and the other is asked
for the same ids; then the other way round, for what only the second one has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from typing import Any, Literal

import attrs

from ..protocol.store import Store

PAGE_DOCUMENTS = 500
_ABSENT = "(absent)"


@attrs.frozen
class FieldDifference:
    """One field of a document that differs. A field that is missing on one side reads `(absent)`."""

    field: str
    left: Any
    right: Any


@attrs.frozen
class DocumentDifference:
    """One document that is not the same in both indices."""

    id: str
    kind: Literal["only_left", "only_right", "different"]
    fields: tuple[FieldDifference, ...] = ()


@attrs.define
class Difference:
    """What comparing two indices has found. `examples` are the first differences; the counts are complete."""

    equal: int = 0
    only_left: int = 0
    only_right: int = 0
    different: int = 0
    by_field: Counter[str] = attrs.field(factory=Counter)
    """Field -> number of documents in which it differs."""
    examples: list[DocumentDifference] = attrs.field(factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.only_left or self.only_right or self.different)


@attrs.frozen
class Place:
    """An index at a server."""

    store: Store
    index: str


async def compare(left: Place, right: Place, *, ignore: Collection[str] = (), examples_max: int = 20) -> Difference:
    """Compare two indices. `ignore` names fields (dotted for inner ones) that do not count.

    Both indices are refreshed first and read as they were at that moment. Raises `StoreError`; `NotFound` if an index does not
    exist. Cancelled: nothing is left behind but a point in time that ends by itself.
    """
    found = Difference()
    ignored = frozenset(ignore)
    await right.store.content.refresh(right.index)
    async with aclosing(_pages(left)) as pages:
        async for page in pages:
            others = await _by_id(right, list(page))
            for document_id, document in page.items():
                _note(found, differing(document_id, document, others.get(document_id), ignored), examples_max)
    await left.store.content.refresh(left.index)
    async with aclosing(_pages(right)) as pages:
        async for page in pages:
            present = await _by_id(left, list(page))
            for document_id, document in page.items():
                if document_id not in present:
                    _note(found, differing(document_id, None, document, ignored), examples_max)
    return found


def differing(
    document_id: str, left: Mapping[str, Any] | None, right: Mapping[str, Any] | None, ignore: Collection[str] = ()
) -> DocumentDifference | None:
    """Compare two versions of one document, None standing for a document that is not there. None if they are the same."""
    if left is None or right is None:
        return DocumentDifference(document_id, "only_left" if right is None else "only_right")
    flat_left, flat_right = dict(_flat(left)), dict(_flat(right))
    fields = tuple(
        FieldDifference(name, flat_left.get(name, _ABSENT), flat_right.get(name, _ABSENT))
        for name in sorted(flat_left.keys() | flat_right.keys())
        if not _is_ignored(name, ignore) and flat_left.get(name, _ABSENT) != flat_right.get(name, _ABSENT)
    )
    return DocumentDifference(document_id, "different", fields) if fields else None


def _is_ignored(name: str, ignore: Collection[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in ignore)


def _flat(document: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _note(found: Difference, difference: DocumentDifference | None, examples_max: int) -> None:
    if difference is None:
        found.equal += 1
        return
    match difference.kind:
        case "only_left":
            found.only_left += 1
        case "only_right":
            found.only_right += 1
        case "different":
            found.different += 1
            found.by_field.update(field.field for field in difference.fields)
    if len(found.examples) < examples_max:
        found.examples.append(difference)


async def _pages(place: Place) -> AsyncGenerator[dict[str, dict[str, Any]], None]:
    existing = place.store.content.existing(place.index, fields=("*",), page_size=PAGE_DOCUMENTS)
    async with aclosing(existing):
        async for page in existing:
            sources = page.sources or [{} for _ in page.ids]
            yield dict(zip(page.ids, sources, strict=True))


async def _by_id(place: Place, ids: list[str]) -> dict[str, dict[str, Any]]:
    if not ids:
        return {}
    answer = await place.store.client.mget(index=place.index, ids=ids)
    return {hit["_id"]: hit["_source"] for hit in answer["docs"] if hit.get("found")}
