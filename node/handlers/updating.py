"""Partial updates: merging a part into a document, upserts, and updates that change nothing. Pure but for the writer."""

from __future__ import annotations

from typing import Any

import orjson

from ..errors import ApiError, invalid_request, not_built
from ..storage.documents import IndexWriter, Written

_KEYS = {
    "doc",
    "upsert",
    "doc_as_upsert",
    "detect_noop",
    "_source",
    "scripted_upsert",
    "script",
    "if_seq_no",
    "if_primary_term",
}


def check_update(body: dict[str, Any]) -> None:
    """Raise 400 for a body that is no update, and 501 for scripts."""
    unknown = body.keys() - _KEYS
    if unknown:
        raise ApiError(400, "x_content_parse_exception", f"[1:2] [UpdateRequest] unknown field [{min(unknown)}]")
    if "script" in body or body.get("scripted_upsert") is True:
        raise not_built("A script (painless) in an update")
    for key in ("doc", "upsert"):
        if key in body and not isinstance(body[key], dict):
            raise ApiError(400, "x_content_parse_exception", f"[1:2] [UpdateRequest] [{key}] must be an object")
    for key in ("doc_as_upsert", "detect_noop"):
        if key in body and not isinstance(body[key], bool):
            raise ApiError(400, "x_content_parse_exception", f"[1:2] [UpdateRequest] [{key}] must be true or false")
    if "doc" not in body:
        if body.get("doc_as_upsert") is True:
            raise invalid_request("doc must be specified if doc_as_upsert is enabled")
        raise invalid_request("script or doc is missing")


def apply_update(
    writer: IndexWriter,
    doc_id: str,
    body: dict[str, Any],
    *,
    if_seq_no: int | None = None,
    if_primary_term: int | None = None,
) -> Written:
    """Apply a checked update. Raises 404, 409 or 400."""
    found = writer.standing(doc_id)
    if found is None:
        upsert = body["doc"] if body.get("doc_as_upsert") else body.get("upsert")
        if upsert is None or if_seq_no is not None:
            writer.require(doc_id)
        assert upsert is not None
        return writer.put(doc_id, dumped(upsert), upsert, create=True)
    if if_seq_no is not None:
        writer.check(doc_id, if_seq_no, if_primary_term)
    source = writer.source(doc_id)
    assert source is not None
    old = orjson.loads(source)
    new = merged(old, body["doc"])
    if body.get("detect_noop", True) and new == old and same_kinds(new, old):
        return Written("noop", found.version, found.seq_no)
    return writer.put(doc_id, dumped(new), new)


def dumped(source: dict[str, Any]) -> bytes:
    """Return a document as it is stored. Raises 400 for one that is nested more deeply than can be written."""
    try:
        return orjson.dumps(source)
    except orjson.JSONEncodeError as error:
        raise ApiError(400, "document_parsing_exception", f"[1:1] failed to write the document: {error}") from error


def merged(old: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the part laid over it; objects are merged, everything else is replaced."""
    found = dict(old)
    for name, value in part.items():
        known = found.get(name)
        found[name] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return found


def same_kinds(one: Any, other: Any) -> bool:
    """Say whether equal values are of the same kind: to Python `True` equals `1`, to JSON it does not."""
    if isinstance(one, dict):
        return all(same_kinds(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return all(same_kinds(left, right) for left, right in zip(one, other, strict=True))
    return type(one) is type(other)
