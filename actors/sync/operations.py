"""What travels from the source to the sink: operations of a bulk request, ready as bytes."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import orjson

from .encoding import action_line
from .segments import PartitionProgress, Segment

Kind: TypeAlias = Literal["index", "update", "delete"]


class Operation(NamedTuple):
    """One operation. A named tuple, because one is made for every document."""

    kind: Kind
    id: str
    payload: bytes
    """Action line and document line, as they are sent."""
    fingerprint: int
    """0 if the document must be sent again next time."""
    is_new: bool
    """The index did not have the document when the sync began."""


class Operations:
    """Some operations of one segment of one partition, in the order of the source."""

    __slots__ = ("entries", "partition", "segment", "size_bytes")

    def __init__(
        self, partition: PartitionProgress, segment: Segment, entries: list[Operation], size_bytes: int
    ) -> None:
        self.partition = partition
        self.segment = segment
        self.entries = entries
        self.size_bytes = size_bytes


def index_operation(document_id: str, line: bytes, fingerprint: int, *, is_new: bool) -> Operation:
    """Replace the document, or make it."""
    # Made without the named tuple's own constructor, which takes as long as serialising a small document.
    payload = b'{"index":{"_id":%b}}\n%b\n' % (orjson.dumps(document_id), line)
    return tuple.__new__(Operation, ("index", document_id, payload, fingerprint, is_new))


def attachment_operation(
    document_id: str, line: bytes, attachment: bytearray, fingerprint: int, *, is_new: bool
) -> Operation:
    """Replace the document, or make it, with a file in base64 as its last field. The file is put in place once, and is taken
    away from the caller: afterwards `attachment` is empty.
    """
    head = b'{"index":{"_id":%b}}\n' % orjson.dumps(document_id)
    payload = b"".join((head, line[:-1], b',"_attachment":"', attachment, b'"}\n'))
    attachment.clear()
    return Operation("index", document_id, payload, fingerprint, is_new)


def update_operation(
    document_id: str, line: bytes, fingerprint: int, *, is_new: bool, upsert: bool = True
) -> Operation:
    """Put fields into the document; make it of them if it is not there and `upsert`."""
    # Without an upsert the fields may well be the old ones. The document is written all the same: only what was written has a
    # sequence number under which the fingerprint can be kept.
    tail = b',"doc_as_upsert":true}\n' if upsert else b',"detect_noop":false}\n' if fingerprint else b"}\n"
    return Operation(
        "update", document_id, action_line("update", document_id) + b'{"doc":' + line + tail, fingerprint, is_new
    )


def delete_operation(document_id: str) -> Operation:
    """Remove the document."""
    return Operation("delete", document_id, action_line("delete", document_id), 0, False)
