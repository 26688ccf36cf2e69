"""From a page of the source's documents to operations: ids, fields, rules, what changed, bytes. No waiting, except for the table
of what is known once that has moved to disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import orjson

from ...protocol import ALLOW_ACCESS_CONTROL, access_list
from ...protocol.ids import ID_SIZE_BYTES_MAX, InvalidDocumentId, document_id
from ...runtime import now
from ...sources.source import ContentRef, Document, Identity
from .encoding import Encoder, truncated, with_member
from .fingerprints import Fingerprinter, content_part
from .known import Found, Known, stamp_of
from .operations import Operation, attachment_operation, delete_operation, index_operation, update_operation
from .plan import SyncPlan
from .report import Counters
from .settings import SyncSettings

ORIGINAL_ID = "_original_id"
"""Where a document keeps its id as the source has it, if that is too long for Elasticsearch."""

INDEXED_CHARS = "_attachment_indexed_chars"
"""Tells the ingest pipeline how much text to take from `_attachment`."""

_NOTHING = Found([], [], [])


@attrs.define(eq=False)
class Wanted:
    """A document whose content has to be read before it can be sent."""

    id: str
    fields: dict[str, object]
    content: ContentRef
    timestamp: str | None
    fingerprint: int
    row: int
    operation: str
    had_timestamp: bool


@attrs.define(eq=False)
class Refused:
    """A document that cannot be sent."""

    what: str
    why: str


@attrs.define(eq=False)
class Prepared:
    """What became of one page."""

    operations: list[Operation]
    wanted: list[Wanted]
    refused: list[Refused]
    size_bytes: int
    unchanged: int
    ids: list[str]
    """Of every document that was listed and is dealt with, for those who must remember what was seen."""


class Preparer:
    """Prepares documents under one plan. Shared by all partitions of a job."""

    def __init__(
        self,
        plan: SyncPlan,
        settings: SyncSettings,
        counters: Counters,
        known: Known | None,
        *,
        trust_stamps: bool,
        compare_access: bool = False,
    ) -> None:
        self._plan, self._settings, self._counters, self._known = plan, settings, counters, known
        self._encoder = Encoder()
        self._fingerprinter = Fingerprinter(plan.setup)
        self._trust_stamps = trust_stamps
        self._compare_access = compare_access
        self._hidden = dict(plan.hidden_fields)
        self._rules = None if plan.rules.keeps_everything else plan.rules

    async def _find(self, ids: Sequence[str]) -> Found:
        known = self._known
        if known is None:
            return Found([-1] * len(ids), [0] * len(ids), [0] * len(ids))
        return known.find_nowait(ids) if not known.is_spilled else await known.find(ids)

    async def documents(self, documents: Sequence[Document]) -> Prepared:
        """Prepare a page of a listing or of a change feed."""
        prepared = Prepared([], [], [], 0, 0, [])
        counters = self._counters
        counters.listed += len(documents)
        if (
            self._trust_stamps
            and not self._compare_access
            and self._rules is None
            and self._known is not None
            and not self._known.is_spilled
        ):
            listed_count = len(documents)
            documents, duplicates = self._known.mark_unchanged(documents)
            prepared.unchanged = listed_count - len(documents)
            counters.duplicates += duplicates
        kept, ids = self._identified(documents, prepared)
        rules = self._rules
        decisions = None if rules is None else rules.decide([document.fields for document in kept])
        found = await self._find(ids)
        known, hidden = self._known, self._hidden
        trust_stamps, skip = self._trust_stamps, self._settings.skip_unchanged and self._known is not None
        read_content = self._plan.read_content
        if decisions is None and not hidden and not trust_stamps and _are_plain(kept):
            return self._plain_page(prepared, kept, ids, found)
        fingerprint_of, encode = self._fingerprinter.of, self._encoder.encode
        text_max = self._settings.text_size_bytes_max or 1 << 62
        operations, listed = prepared.operations, prepared.ids
        size_bytes = creates = updates = 0
        for at, document in enumerate(kept):
            one, row = ids[at], found.rows[at]
            if document.operation == "delete":
                operations.append(delete_operation(one))
                counters.deletes_queued += 1
                size_bytes += len(operations[-1].payload)
                continue
            if decisions is not None and not decisions[at]:
                counters.filtered += 1
                if row >= 0 and known is not None and not known.mark(row):
                    # It is there in the source, and the rules say that it must not be here.
                    counters.filtered -= 1
                    counters.deletes_queued += 1
                    operations.append(delete_operation(one))
                    size_bytes += len(operations[-1].payload)
                    # Deleted here: whoever ends the job must not count it among what is gone from the source.
                    listed.append(one)
                continue
            listed.append(one)
            if row >= 0 and known is not None and known.mark(row):
                counters.duplicates += 1
            timestamp = document.timestamp
            fields, content = document.fields, document.content if read_content else None
            if trust_stamps and row >= 0 and timestamp is not None:
                access = fields.get(ALLOW_ACCESS_CONTROL) if self._compare_access else None
                if found.stamps[at] == stamp_of(timestamp, access):
                    prepared.unchanged += 1
                    continue
            if hidden:
                fields.update(hidden)
            line = encode(fields)
            if content is None:
                fingerprint = fingerprint_of(line)
            else:
                part = content_part(content, timestamp)
                fingerprint = 0 if part is None else fingerprint_of(line, part)
            if skip and row >= 0 and fingerprint and fingerprint == found.fingerprints[at]:
                prepared.unchanged += 1
                continue
            if row >= 0:
                updates += 1
            else:
                creates += 1
            if content is not None:
                prepared.wanted.append(
                    Wanted(one, fields, content, timestamp, fingerprint, row, document.operation, timestamp is not None)
                )
                continue
            if timestamp is None and "_timestamp" not in fields:
                line = with_member(line, "_timestamp", now().isoformat())
            if len(line) > text_max:
                line = self._limited(line, fields)
            if document.operation == "update":
                operation = update_operation(one, line, 0, is_new=row < 0)
            else:
                operation = index_operation(one, line, fingerprint, is_new=row < 0)
            operations.append(operation)
            size_bytes += len(operation.payload)
        counters.creates_queued += creates
        counters.updates_queued += updates
        counters.unchanged += prepared.unchanged
        counters.converted = self._encoder.converted
        prepared.size_bytes = size_bytes
        return prepared

    def _plain_page(self, prepared: Prepared, documents: Sequence[Document], ids: list[str], found: Found) -> Prepared:
        """What `documents` does, for a page of nothing but whole documents with timestamps."""
        counters, known, rows = self._counters, self._known, found.rows
        prepared.ids = ids
        if known is not None:
            counters.duplicates += known.mark_rows(rows)
        lines = self._encoder.encode_all([document.fields for document in documents])
        prints = self._fingerprinter.of_all(lines)
        skip = self._settings.skip_unchanged and known is not None
        if skip and prints == found.fingerprints:
            prepared.unchanged = len(lines)
        else:
            text_max = self._settings.text_size_bytes_max or 1 << 62
            if max(map(len, lines)) > text_max:
                lines = [self._limited(line, document.fields) for line, document in zip(lines, documents, strict=True)]
            operations = prepared.operations = [
                index_operation(one, line, fingerprint, is_new=row < 0)
                for one, line, fingerprint, row, before in zip(
                    ids, lines, prints, rows, found.fingerprints, strict=True
                )
                if not skip or row < 0 or fingerprint != before
            ]
            creates = sum([operation[4] for operation in operations])
            counters.creates_queued += creates
            counters.updates_queued += len(operations) - creates
            prepared.unchanged = len(lines) - len(operations)
            prepared.size_bytes = sum([len(operation[2]) for operation in operations])
        counters.unchanged += prepared.unchanged
        counters.converted = self._encoder.converted
        return prepared

    def _identified(self, documents: Sequence[Document], prepared: Prepared) -> tuple[list[Document], list[str]]:
        """Give every document its final id and the fields that come from the framework."""
        ids = [document.id for document in documents]
        if _are_usual(ids):
            for document in documents:
                fields = document.fields
                fields["id"] = document.id
                if document.timestamp is not None:
                    fields["_timestamp"] = document.timestamp
                if document.access is not None:
                    fields[ALLOW_ACCESS_CONTROL] = access_list(document.access)
            return list(documents), ids
        kept: list[Document] = []
        ids = []
        for document in documents:
            one = document.id
            fields = document.fields
            if one.__class__ is not str or not one or len(one) > ID_SIZE_BYTES_MAX or not one.isascii():
                try:
                    one = document_id(document.id)
                except InvalidDocumentId as exc:
                    self._counters.refused += 1
                    prepared.refused.append(Refused(str(fields)[:80], str(exc)))
                    continue
                if one != str(document.id):
                    fields[ORIGINAL_ID] = str(document.id).encode("utf-8", "replace").decode()
            fields["id"] = one
            if document.timestamp is not None:
                fields["_timestamp"] = document.timestamp
            if document.access is not None:
                fields[ALLOW_ACCESS_CONTROL] = access_list(document.access)
            ids.append(one)
            kept.append(document)
        return kept, ids

    def _limited(self, line: bytes, fields: dict[str, object]) -> bytes:
        limit = self._settings.text_size_bytes_max
        if not limit or len(line) <= limit or "_attachment" in fields:
            return line
        cut = truncated(orjson.loads(line), len(line), limit)
        if cut is None:
            # Not texts make it so large; Elasticsearch itself says whether it takes it.
            return line
        self._counters.truncated += 1
        return self._encoder.encode(cut)

    def completed(
        self,
        wanted: Wanted,
        more: Mapping[str, object] | None,
        *,
        failed: bool,
        keeps_text: bool = False,
        earlier: Mapping[str, object] | None = None,
    ) -> Operation:
        """Finish a document after its content was read, or could not be.

        A document that is in the index keeps the text it has there when the content could not be read: `earlier` is that text,
        and the document is written whole with it, so that no field stays that the source has removed; without it the fields are
        only put over the old ones. If that `failed`, it is read again by the next sync; if it only `keeps_text`, because of
        what the file is, it is not until it changes.
        """
        fields, is_new = wanted.fields, wanted.row < 0
        attachment: bytearray | None = None
        if more:
            fields.update({name: value for name, value in more.items() if name not in ("_id", "_timestamp", "id")})
            if "_attachment" in more:
                if self._settings.attachment_characters_max is not None:
                    fields.setdefault(INDEXED_CHARS, self._settings.attachment_characters_max)
                # A file may be large: it is not copied into fields and lines on its way.
                encoded = fields["_attachment"]
                if isinstance(encoded, bytearray):
                    attachment = encoded
                    del fields["_attachment"]
        if not wanted.had_timestamp and "_timestamp" not in fields:
            fields["_timestamp"] = now().isoformat()
        fingerprint = 0 if failed else wanted.fingerprint
        if earlier is not None:
            fields.update(earlier)
        elif (failed or keeps_text) and not is_new:
            for name in self._hidden:
                fields.pop(name, None)
            return update_operation(wanted.id, self._encoder.encode(fields), fingerprint, is_new=False, upsert=False)
        if attachment is not None and wanted.operation == "index":
            line = self._encoder.encode(fields)
            return attachment_operation(wanted.id, line, attachment, fingerprint, is_new=is_new)
        if attachment is not None:
            fields["_attachment"] = attachment.decode("ascii")
        line = self._limited(self._encoder.encode(fields), fields)
        if wanted.operation == "update":
            return update_operation(wanted.id, line, 0, is_new=is_new)
        return index_operation(wanted.id, line, fingerprint, is_new=is_new)

    async def identities(
        self, identities: Sequence[Identity], written: Sequence[tuple[str, dict[str, object]]]
    ) -> Prepared:
        """Prepare identity documents, given with their ids."""
        prepared = Prepared([], [], [], 0, 0, [])
        counters, known = self._counters, self._known
        counters.listed += len(written)
        ids = [one for one, _ in written]
        found = await self._find(ids)
        for at, (one, document) in enumerate(written):
            row, timestamp = found.rows[at], identities[at].timestamp
            prepared.ids.append(one)
            if row >= 0 and known is not None and known.mark(row):
                counters.duplicates += 1
            line = self._encoder.encode(document)
            fingerprint = self._fingerprinter.of(line)
            known_print = found.fingerprints[at]
            same_stamp = timestamp is not None and found.stamps[at] == stamp_of(timestamp)
            # Equal timestamps say little about groups; they only count where nothing better is known.
            unchanged = fingerprint == known_print if known_print else same_stamp
            if row >= 0 and unchanged and self._settings.skip_unchanged:
                prepared.unchanged += 1
                continue
            if row >= 0:
                counters.updates_queued += 1
                operation = update_operation(one, line, fingerprint, is_new=False)
            else:
                counters.creates_queued += 1
                if timestamp is None and "_timestamp" not in document:
                    line = with_member(line, "_timestamp", now().isoformat())
                operation = index_operation(one, line, fingerprint, is_new=True)
            prepared.operations.append(operation)
            prepared.size_bytes += len(operation.payload)
        counters.unchanged += prepared.unchanged
        return prepared


def _are_usual(ids: Sequence[str]) -> bool:
    """Tell whether all of these ids can be taken as they are."""
    return (
        set(map(type, ids)) == {str}
        and "" not in ids
        and "".join(ids).isascii()
        and max(map(len, ids)) <= ID_SIZE_BYTES_MAX
    )


def _are_plain(documents: Sequence[Document]) -> bool:
    """Tell whether there is nothing to decide about these documents but whether they have changed."""
    for document in documents:
        if document.operation != "index" or document.content is not None or document.timestamp is None:
            return False
    return bool(documents)
