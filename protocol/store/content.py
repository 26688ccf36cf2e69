"""Content and access-control indices: what is there, and bulk requests that change it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import orjson

from ..indices import ACL_INDEX_PREFIX
from .client import Wire
from .errors import Incomplete, NotFound, Refused
from .paging import pages, readable
from .retries import RetryPolicy

EXISTING_PAGE_SIZE = 5_000

ACL_INDEX_SETTINGS: Mapping[str, Any] = {"index": {"hidden": True, "number_of_shards": 1, "number_of_replicas": 1}}
ACL_INDEX_MAPPINGS: Mapping[str, Any] = {"dynamic": "false", "properties": {"created_at": {"type": "date"}}}

# `error` and `status` keep a refusal of the whole request readable, which the filter would empty as well.
_BULK_PATHS = "error,status,took,errors,items.*.status,items.*.result,items.*._seq_no,items.*._id,items.*.error"
_BULK_PATHS_WITHOUT_IDS = "error,status,took,errors,items.*.status,items.*.result,items.*._seq_no,items.*.error"


@attrs.define
class ExistingPage:
    """Some documents of an index: three lists of equal length, one entry per document."""

    ids: list[str]
    timestamps: list[Any]
    """`_timestamp` as stored, None where there is none or it was not asked for."""
    seq_nos: list[int]
    sources: list[dict[str, Any]] | None
    """The further fields that were asked for, as (possibly partial) documents."""

    def __len__(self) -> int:
        return len(self.ids)


@attrs.define
class BulkAnswer:
    """What Elasticsearch said to a bulk request, item by item in the order sent."""

    items: list[dict[str, dict[str, Any]]]
    """Each `{operation: {status, result, [_id], [error: {type, reason, ...}]}}`, undigested."""
    has_errors: bool
    took_ms: int


class ContentIndices:
    """`store.content`. Safe for any number of tasks; every method raises `StoreError`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def ensure_index(
        self, index: str, *, settings: Mapping[str, Any] | None = None, mappings: Mapping[str, Any] | None = None
    ) -> bool:
        """Create the index unless it, or an alias of that name, exists. Tell whether it was created.

        Without settings and mappings an index is created bare, as connectors always have; an access-control index gets the
        mapping that Elasticsearch's own template would give it.
        """
        if await self._wire.client.indices.exists(index=index):
            return False
        if index.startswith(ACL_INDEX_PREFIX):
            settings, mappings = settings or ACL_INDEX_SETTINGS, mappings or ACL_INDEX_MAPPINGS
        try:
            await self._wire.client.indices.create(index=index, settings=settings, mappings=mappings)
        except Refused as exc:
            # Another task or service was faster, or our own first attempt succeeded and its answer was lost.
            if exc.kind == "resource_already_exists_exception":
                return False
            raise
        return True

    async def existing(
        self,
        index: str,
        *,
        fields: Sequence[str] = (),
        timestamps: bool = True,
        query: Mapping[str, Any] | None = None,
        page_size: int = EXISTING_PAGE_SIZE,
        refresh: bool = True,
        keep_alive: str = "10m",
    ) -> AsyncGenerator[ExistingPage]:
        """Yield id, `_timestamp` and sequence number of every document, in pages, in no particular order.

        With `refresh` everything written before the call is seen. A snapshot: what is written meanwhile is not.
        Without `timestamps` and `fields` Elasticsearch need not open a single document. Close it (`contextlib.aclosing`) when
        stopping early. Raises `NotFound` if there is no such index, and `Incomplete` rather than ever leaving a document out.
        """
        if refresh:
            await self.refresh(index)
        wanted = [*(["_timestamp"] if timestamps else []), *fields]
        search: dict[str, Any] = {"_source": wanted or False, "seq_no_primary_term": True}
        if query is not None:
            search["query"] = query
        found = pages(
            self._wire,
            index,
            search,
            size=page_size,
            keep_alive=keep_alive,
            hit_paths=("_id", "_seq_no", *(["_source"] if wanted else [])),
            decode=orjson.loads,
        )
        async with aclosing(found):
            async for hits in found:
                if fields:
                    sources = [hit.get("_source", {}) for hit in hits]
                    stamps = [source.get("_timestamp") for source in sources]
                else:
                    sources = None
                    # A hit without the field comes without `_source`: the filter leaves no empty objects.
                    stamps = [hit["_source"].get("_timestamp") if "_source" in hit else None for hit in hits]
                yield ExistingPage([hit["_id"] for hit in hits], stamps, [hit["_seq_no"] for hit in hits], sources)

    def search_pages(
        self, index: str, search: Mapping[str, Any], *, page_size: int, keep_alive: str = "5m"
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """Yield all hits of a search in its order, however many, in pages and as of one moment.

        Close it (`contextlib.aclosing`) when stopping early. Raises `NotFound` if there is no such index, and `Incomplete`.
        """
        return pages(self._wire, index, search, size=page_size, keep_alive=keep_alive, decode=orjson.loads)

    async def bulk(
        self,
        ndjson: bytes,
        *,
        index: str | None = None,
        pipeline: str | None = None,
        refresh: bool = False,
        with_ids: bool = False,
        policy: RetryPolicy | None = None,
    ) -> BulkAnswer:
        """Send a prepared bulk body and return each item's outcome. Refusals of single items are outcomes, not errors.

        The whole request is tried again as `policy` (default: the target's) says, so its operations must bear being
        carried out twice: give every document an id. Cancelled: whether it was carried out is unknown.
        """
        options = {"filter_path": _BULK_PATHS if with_ids else _BULK_PATHS_WITHOUT_IDS}
        if pipeline is not None:
            options["pipeline"] = pipeline
        if refresh:
            options["refresh"] = "true"
        place = f"/{quote(index, safe='')}" if index is not None else ""
        body = await self._wire.send(
            "POST",
            f"{place}/_bulk?{urlencode(options, safe=',.*')}",
            ndjson,
            media_type="application/x-ndjson",
            policy=policy,
        )
        answer = readable(body)
        items = answer.get("items")
        if not isinstance(items, list):
            raise Incomplete("Elasticsearch's answer to a bulk request lists no items.")
        return BulkAnswer(items, bool(answer.get("errors")), int(answer.get("took", 0)))

    async def refresh(self, index: str) -> None:
        """Make everything written so far visible to searches."""
        await self._wire.client.indices.refresh(index=index)

    async def count(self, index: str, query: Mapping[str, Any] | None = None, *, refresh: bool = False) -> int:
        """Count the documents of an index that exists. Raises `Incomplete` if a shard did not answer."""
        if refresh:
            await self.refresh(index)
        answer = await self._wire.client.count(index=index, query=query)
        if answer["_shards"]["failed"]:
            raise Incomplete(f"Counting {index!r} is incomplete: {answer['_shards']['failed']} shards did not answer.")
        return int(answer["count"])

    async def delete_by_query(self, index: str, query: Mapping[str, Any], *, refresh: bool = True) -> int:
        """Delete what matches and return how many. Documents that change meanwhile are left alone.

        Raises `Incomplete` if something that matched could not be deleted. Cancelled: the server goes on by itself.
        """
        answer = await self._wire.client.delete_by_query(index=index, query=query, conflicts="proceed", refresh=refresh)
        failures = answer.get("failures") or []
        if failures or answer.get("timed_out"):
            raise Incomplete(
                f"Deleting from {index!r} is incomplete: {answer.get('deleted', 0)} deleted, {len(failures)} failed."
            )
        return int(answer["deleted"])

    async def delete_index(self, index: str) -> bool:
        """Delete an index with all it holds. Tell whether it existed."""
        try:
            await self._wire.client.indices.delete(index=index)
        except NotFound:
            return False
        return True
