"""Read a whole search result, however long: pages of a point in time, continued by `search_after`.

Most results fit one page, and a page that is not full is the whole answer, so the first page is asked for plainly and a
point in time is opened only when there is more. An answer that misses a shard or ran out of time raises; it never passes for
a shorter result.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson
import structlog
import trio

from .client import Wire
from .errors import Incomplete, NotFound, StoreError

PAGE_SIZE_MAX = 10_000
"""Elasticsearch's own default bound, `index.max_result_window`."""
CLOSE_WAIT_S = 2.0

_FRAME = ("error", "status", "pit_id", "timed_out", "_shards.failed", "_shards.failures")

log = structlog.get_logger(__name__)


async def pages(
    wire: Wire,
    index: str,
    search: Mapping[str, Any],
    *,
    size: int,
    keep_alive: str = "5m",
    hit_paths: Sequence[str] = (),
    decode: Callable[[bytes], Any] = json.loads,
) -> AsyncGenerator[list[dict[str, Any]]]:
    """Yield the hits of `search` (query, sort, `_source`, ...) in pages of `size`, all of one moment if more than one page.

    `hit_paths` are the `filter_path`s under a hit that the caller wants; none means all. `keep_alive` bounds the time
    between two pages. Whoever stops early closes the generator (`contextlib.aclosing`), which frees the point in time.
    Raises `NotFound` for a missing index, `Incomplete`, and other `StoreError`s.
    """
    assert 0 < size <= PAGE_SIZE_MAX
    paths = ["hits.hits." + path for path in (*hit_paths, "sort")] if hit_paths else ["hits.hits"]
    query = "?allow_partial_search_results=false&filter_path=" + quote(",".join((*_FRAME, *paths)), safe=",.*")
    first = {**search, "size": size, "track_total_hits": False}
    first.setdefault("sort", ["_doc"])
    told = await wire.send("POST", f"/{quote(index, safe=',*')}/_search{query}", orjson.dumps(first))
    hits = _hits(readable(told, decode), index)
    if len(hits) < size:
        yield hits
        return
    opened = readable(await wire.send("POST", f"/{quote(index, safe=',*')}/_pit?keep_alive={keep_alive}"))
    pit_id: str = opened["id"]
    request: dict[str, Any] = {**search, "size": size, "track_total_hits": False}
    request.setdefault("sort", ["_shard_doc"])
    try:
        while True:
            request["pit"] = {"id": pit_id, "keep_alive": keep_alive}
            try:
                told = await wire.send(
                    "POST",
                    f"/_search{query.replace('allow_partial_search_results=false&', '')}",
                    orjson.dumps(request),
                )
                answer = readable(told, decode)
            except NotFound as exc:
                raise Incomplete(
                    f"Reading {index!r} took longer than {keep_alive} between two pages, or the index was deleted. Try again."
                ) from exc
            pit_id = answer.get("pit_id", pit_id)
            hits = _hits(answer, index)
            if hits:
                yield hits
            if len(hits) < size:
                return
            request["search_after"] = hits[-1]["sort"]
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WAIT_S):
            await _close(wire, pit_id)


def readable(body: bytes, decode: Callable[[bytes], Any] = orjson.loads) -> Any:
    """Read an answer's body. Raises `Incomplete` if it is not JSON, as one that was damaged on its way is not."""
    try:
        return decode(body)
    except ValueError as exc:
        raise Incomplete(f"Elasticsearch's answer cannot be read: {exc}. Look at what stands between.") from exc


def _hits(answer: Any, index: str) -> list[dict[str, Any]]:
    shards = answer.get("_shards", {})
    if shards.get("failed") or answer.get("timed_out"):
        why = "the search ran out of time" if answer.get("timed_out") else f"{shards['failed']} shards did not answer"
        raise Incomplete(f"Reading {index!r} is incomplete: {why}. Try again once the index is healthy.")
    hits: list[dict[str, Any]] = answer.get("hits", {}).get("hits", [])
    return hits


async def _close(wire: Wire, pit_id: str) -> None:
    try:
        await wire.client.options(max_retries=0).close_point_in_time(id=pit_id)
    except StoreError as exc:
        # It ends by itself after its keep-alive; the result that was read is whole all the same.
        log.debug("elasticsearch.pit_left_open", why=str(exc))
