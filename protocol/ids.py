"""Ids that must not be mixed up, and the rule that turns whatever a source calls an id into one Elasticsearch takes."""

from __future__ import annotations

import hashlib
from typing import NewType

ConnectorId = NewType("ConnectorId", str)
JobId = NewType("JobId", str)
DocumentId = NewType("DocumentId", str)

ID_SIZE_BYTES_MAX = 512
"""What Elasticsearch takes for `_id`, in UTF-8."""


class InvalidDocumentId(ValueError):
    """A source gave a document no id."""


def document_id(source_id: object) -> DocumentId:
    """Make the id under which a document is indexed: text, replaced by its MD5 in hex digits if above 512 bytes.

    The same source id always gives the same answer. Text that is not valid Unicode cannot travel and is hashed as well.
    Raises `InvalidDocumentId` for None and empty text: such a document could not be found again.
    """
    text = "" if source_id is None else str(source_id)
    if not text:
        raise InvalidDocumentId("A document has no id. The source must give every document one.")
    try:
        if len(text.encode()) <= ID_SIZE_BYTES_MAX:
            return DocumentId(text)
    except UnicodeEncodeError:
        pass
    # MD5 is what existing indices hold; it names documents here and protects nothing.
    return DocumentId(hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest())


def is_shortened(source_id: object) -> bool:
    """Tell whether `document_id` replaces this id, so that the original deserves a place in the document."""
    return document_id(source_id) != str(source_id)


def id_for_log(text: str) -> str:
    """Shorten an id for a log line: all of it up to 19 characters, else its first and last eight."""
    return text if len(text) <= 19 else f"{text[:8]}...{text[-8:]}"
