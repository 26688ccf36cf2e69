"""Documents that several programs write: read with their sequence number, decide, write only if nobody else has written.

The decision is a pure function of the stored document and runs again after every conflict, so it always judges what is really
there. A write whose answer was lost looks like a conflict when it is sent again; only then, if the document is exactly what was to
be written, it counts as ours. Without that condition every loser of a race for one and the same change would think it had won.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import attrs
import structlog
import trio

from ...runtime import random
from ..wire import InvalidDocument, Stored, changes
from ..wire import same as same_json
from .client import Wire
from .errors import Conflict, NotFound
from .paging import pages

CONFLICT_TRIES = 20
"""Each conflict means that somebody else got on; so many in a row mean that something is wrong."""
CONFLICT_PAUSE_S_MAX = 0.1
LIST_PAGE_SIZE = 500

D = TypeVar("D", bound=Stored)

log = structlog.get_logger(__name__)


@attrs.frozen
class Version:
    """Which version of a document was read."""

    seq_no: int
    primary_term: int


@attrs.frozen
class Unreadable:
    """A stored document that is not what the protocol says. Listings go on without it and report it."""

    index: str
    id: str
    error: InvalidDocument


class GuardedDocuments(Generic[D]):
    """One kind of document in one index. Every method raises `StoreError`, and `InvalidDocument` for a single unreadable one."""

    def __init__(
        self,
        wire: Wire,
        alias: str,
        what: str,
        read: Callable[[str, Mapping[str, Any]], D],
        write: Callable[[D], dict[str, Any]],
    ) -> None:
        self._wire = wire
        self._alias = alias
        self._what = what
        self._read = read
        self._write = write
        self._known_unreadable: dict[str, str] = {}
        self.on_unreadable: Callable[[Unreadable], None] = self._log_unreadable

    async def read(self, document_id: str) -> tuple[D, Version]:
        """Read one document as it is now, whether refreshed or not. Raises `NotFound`."""
        try:
            told = await self._wire.client.get(index=self._alias, id=document_id)
        except NotFound:
            raise self._absent(document_id) from None
        return self._read(document_id, told["_source"]), Version(told["_seq_no"], told["_primary_term"])

    async def create(self, document_id: str, document: D) -> D:
        """Write a new document. Raises `Conflict` if there is one of that id already."""
        source = self._write(document)
        try:
            await self._wire.client.create(index=self._alias, id=document_id, document=source, refresh=True)
        except Conflict as conflict:
            stored, _ = await self.read(document_id)
            if not (conflict.perhaps_own and same_json(self._write(stored), source)):
                raise Conflict(f"{self._what} {document_id!r} exists already.", status=409) from None
        return self._read(document_id, source)

    async def update(self, document_id: str, decide: Callable[[D], D], *, refresh: bool = True) -> D:
        """Replace the document by what `decide` makes of it, and return that. No change, no write.

        `decide` is called at least once, and again whenever somebody else was faster; what it raises is passed on and nothing
        is written. Cancelled: the write was made or not, never half. Raises `NotFound`, and `Conflict` after many tries.
        """
        for _ in range(CONFLICT_TRIES):
            before, version = await self.read(document_id)
            after = decide(before)
            if not changes(before, after):
                return before
            try:
                await self._write_guarded(document_id, before, after, version, refresh=refresh)
            except Conflict as conflict:
                if conflict.perhaps_own:
                    stored, _version = await self.read(document_id)
                    if same_json(self._write(stored), self._write(after)):
                        return stored
                await trio.sleep(random().random() * CONFLICT_PAUSE_S_MAX)
            except NotFound:
                raise self._absent(document_id) from None
            else:
                return self._read(document_id, self._write(after))
        raise Conflict(
            f"{self._what} {document_id!r} is written by others all the time; gave up after {CONFLICT_TRIES} tries."
        )

    async def list(
        self, query: Mapping[str, Any], sort: Sequence[Any] | None = None, page_size: int = LIST_PAGE_SIZE
    ) -> AsyncGenerator[D]:
        """Yield every document that matches, however many. An unreadable one goes to `on_unreadable` instead.

        Nothing is yielded if the index does not exist. Close it (`contextlib.aclosing`) when stopping early.
        """
        search: dict[str, Any] = {"query": query}
        if sort is not None:
            search["sort"] = sort
        found = pages(self._wire, self._alias, search, size=page_size)
        try:
            async with aclosing(found):
                async for hits in found:
                    for hit in hits:
                        try:
                            document = self._read(hit["_id"], hit["_source"])
                        except InvalidDocument as exc:
                            self.on_unreadable(Unreadable(self._alias, hit["_id"], exc))
                            continue
                        yield document
        except NotFound:
            return

    async def delete(self, document_id: str) -> None:
        """Remove one document. Raises `NotFound`."""
        try:
            await self._wire.client.delete(index=self._alias, id=document_id, refresh=True)
        except NotFound:
            raise self._absent(document_id) from None

    async def delete_matching(self, query: Mapping[str, Any]) -> int:
        """Remove all that match and return how many."""
        try:
            told = await self._wire.client.delete_by_query(
                index=self._alias, query=query, conflicts="proceed", refresh=True
            )
        except NotFound:
            return 0
        return int(told["deleted"])

    def absent(self, document_id: str) -> NotFound:
        """The error for a document that is not there, or counts as not there."""
        return self._absent(document_id)

    async def _write_guarded(self, document_id: str, before: D, after: D, version: Version, *, refresh: bool) -> None:
        change = changes(before, after)
        guard: dict[str, Any] = {
            "if_seq_no": version.seq_no,
            "if_primary_term": version.primary_term,
            "refresh": refresh,
        }
        if change.exact:
            # retry_on_conflict stays 0: only we may decide what a conflict means.
            await self._wire.client.update(index=self._alias, id=document_id, doc=change.doc, **guard)
        else:
            await self._wire.client.index(index=self._alias, id=document_id, document=self._write(after), **guard)

    def _absent(self, document_id: str) -> NotFound:
        return NotFound(f"{self._what} {document_id!r} does not exist at {self._wire.target.shown}.", status=404)

    def _log_unreadable(self, found: Unreadable) -> None:
        # Polled every few seconds; said once per state, not once per poll.
        told = str(found.error)
        if self._known_unreadable.get(found.id) == told:
            return
        if len(self._known_unreadable) >= 1000:
            self._known_unreadable.clear()
        self._known_unreadable[found.id] = told
        log.warning("store.unreadable", index=found.index, id=found.id, error=told)
