"""From a page of a listing to operations and downloads on their way to the sink."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ...protocol import identity_document
from ...protocol.ids import InvalidDocumentId, document_id
from ...runtime import monotonic
from ...runtime.stream import StreamSender
from ...sources.source import Document, Identity
from ..journal.events import PageCompared
from ..journal.telling import is_told, tell
from .batches import batches
from .failing import engine
from .fingerprints import hash64
from .operations import Operations
from .preparing import Prepared, Preparer
from .report import (
    FailedDocument,
)
from .segments import PartitionProgress
from .wanting import SMALL_FILES_AT_ONCE, Download
from .work import CHANGES, Work


class Emit:
    """Where listings put what they find."""

    def __init__(
        self, work: Work, preparer: Preparer, out: StreamSender[Operations], wants: StreamSender[Download]
    ) -> None:
        self._work, self._preparer, self._out, self._wants = work, preparer, out, wants

    async def documents(self, page: list[Document], progress: PartitionProgress) -> None:
        """Compare a page and hand on what has to be sent or read."""
        if page:
            began_s = monotonic()
            with engine():
                await self._documents(page, progress)
            if is_told():
                took_s = monotonic() - began_s
                tell(PageCompared(partition=progress.key, documents=len(page), seconds=took_s))

    async def _documents(self, page: list[Document], progress: PartitionProgress) -> None:
        if progress.key == CHANGES:
            for part in _once_each(page):
                await self._wait_for_downloads({str(one.id) for one in part})
                await self._hand_on(await self._preparer.documents(part), progress, len(part))
            return
        await self._hand_on(await self._preparer.documents(page), progress, len(page))

    async def identities(self, found: Sequence[Identity], progress: PartitionProgress) -> None:
        """Compare identities and hand on what has to be sent."""
        with engine():
            await self._identities(found, progress)

    async def _identities(self, found: Sequence[Identity], progress: PartitionProgress) -> None:
        written: list[tuple[str, dict[str, object]]] = []
        usable: list[Identity] = []
        for identity in found:
            try:
                one = document_id(identity.id)
            except InvalidDocumentId as exc:
                self._work.counters.listed += 1
                self._refuse(str(identity.fields)[:80], str(exc), progress)
                continue
            usable.append(identity)
            written.append((one, identity_as_written(identity, one)))
        if written:
            await self._hand_on(await self._preparer.identities(usable, written), progress, len(written))

    def _refuse(self, what: str, why: str, progress: PartitionProgress) -> None:
        self._work.counters.refused += 1
        self._work.letters.add(FailedDocument(what, "listing", why, progress.key))

    async def _hand_on(self, prepared: Prepared, progress: PartitionProgress, listed: int) -> None:
        work, settings, segment = self._work, self._work.settings, progress.current
        count = len(prepared.operations) + len(prepared.wanted)
        # Counted before anything is awaited: from here on the segment is not settled without them.
        segment.pending += count
        work.counters.sent += count
        progress.listed += listed
        counts = segment.counts
        counts.listed += listed
        counts.unchanged += prepared.unchanged
        counts.failed += len(prepared.refused)
        if segment.seen is not None:
            segment.seen.extend([hash64(one.encode("utf-8", "surrogatepass")) for one in prepared.ids])
        for refused in prepared.refused:
            work.letters.add(FailedDocument(refused.what, "listing", refused.why, progress.key))
        for part, size_bytes in batches(
            prepared.operations, prepared.size_bytes, settings.bulk_documents_max, settings.bulk_size_bytes_max
        ):
            await self._out.send([Operations(progress, segment, part, size_bytes)], size_bytes)
        for start in range(0, len(prepared.wanted), SMALL_FILES_AT_ONCE):
            some = prepared.wanted[start : start + SMALL_FILES_AT_ONCE]
            work.downloading.update(wanted.id for wanted in some)
            await self._wants.send([Download(progress, segment, wanted) for wanted in some])
        if not count:
            await trio.lowlevel.checkpoint()

    async def _wait_for_downloads(self, ids: set[str]) -> None:
        """A later change of a document must not overtake an earlier one that is still being read."""
        work = self._work
        while not work.downloading.isdisjoint(ids):
            await work.download_ended.park()


def _once_each(page: list[Document]) -> list[list[Document]]:
    """Cut a page so that no document is named twice in one part."""
    parts: list[list[Document]] = [[]]
    ids: set[str] = set()
    for document in page:
        one = str(document.id)
        if one in ids:
            parts.append([])
            ids = set()
        ids.add(one)
        parts[-1].append(document)
    return parts


def identity_as_written(identity: Identity, document_id: str) -> dict[str, object]:
    """The document that an identity becomes in the index of access control."""
    if identity.document is not None:
        document = dict(identity.document)
        document.pop("_id", None)
        document["id"] = document_id
    else:
        document = dict(identity_document(document_id, identity.access, identity=identity.fields))
        document.pop("_id", None)
    if identity.timestamp is not None:
        document["_timestamp"] = identity.timestamp
    return document
