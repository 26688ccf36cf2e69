"""`_delete_by_query` and `_update_by_query`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import orjson

from ...runtime import now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, invalid_request, not_built
from ..http.messages import Request, Response
from ..http.routing import Route
from ..ingest.run import Ingest
from ..query.parse import parse_query
from ..query.request import query_of_parameters
from ..query.tree import All, Query
from ..storage.catalog import Transaction
from ..storage.creation import index_for_write
from ..storage.documents import PRIMARY_TERM, IndexWriter
from ..storage.search import Target, matching
from .searching import INDICES, QUERY
from .updating import dumped

_BATCH = 1000


@attrs.define
class Tally:
    """What became of the documents."""

    total: int = 0
    deleted: int = 0
    updated: int = 0
    noops: int = 0
    batches: int = 0
    conflicts: int = 0
    failures: list[dict[str, Any]] = attrs.Factory(list)


@attrs.frozen
class _Asked:
    query: Query
    proceed: bool
    documents_max: int | None
    started: datetime


def _read(request: Request, *, query_needed: bool) -> _Asked:
    body = request.json()
    unknown = body.keys() - {"query", "max_docs", "conflicts", "size", "script", "slice", "sort"}
    if unknown:
        raise ApiError(400, "parsing_exception", f"unknown key [{min(unknown)}] in a request by query")
    for name in ("script", "slice", "sort"):
        if body.get(name) is not None:
            raise not_built(f"[{name}] of a request by query")
    if not request.flag("wait_for_completion", True):
        raise not_built("[wait_for_completion=false]")
    if request.parameters.get("slices", "1") not in ("1", "auto") or request.parameters.get("routing"):
        raise not_built("[slices] or [routing] of a request by query")
    query = query_of_parameters(request.parameters)
    if query is None and "query" in body:
        query = parse_query(body["query"])
    if query is None and query_needed:
        raise invalid_request("query is missing")
    conflicts = body.get("conflicts", request.parameters.get("conflicts", "abort"))
    if conflicts not in ("abort", "proceed"):
        raise illegal_argument(f'conflicts may only be "proceed" or "abort" but was [{conflicts}]')
    limit = body.get("max_docs", request.integer("max_docs"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0):
        raise illegal_argument(f"[max_docs] must be greater than 0 but was [{limit}]")
    return _Asked(query or All(), conflicts == "proceed", limit, now())


def _answer(tally: Tally, started: datetime, *, updates: bool) -> Response:
    body: dict[str, Any] = {
        "took": int((now() - started).total_seconds() * 1000),
        "timed_out": False,
        "total": tally.total,
        **({"updated": tally.updated} if updates else {}),
        "deleted": tally.deleted,
        "batches": tally.batches,
        "version_conflicts": tally.conflicts,
        "noops": tally.noops,
        "retries": {"bulk": 0, "search": 0},
        "throttled_millis": 0,
        "requests_per_second": -1.0,
        "throttled_until_millis": 0,
        "failures": tally.failures,
    }
    return Response(body, 200 if not tally.failures else max(failure["status"] for failure in tally.failures))


async def delete_by_query(engine: Engine, request: Request) -> Response:
    """POST `{index}/_delete_by_query`: found and deleted in one transaction per index, so nothing can come between."""
    asked = _read(request, query_needed=True)
    tally = Tally()
    for target in engine.targets(request):
        left = None if asked.documents_max is None else asked.documents_max - tally.total
        if left == 0:
            break
        deleted = await engine.database.write(_delete, target, asked, left)
        tally.total += deleted
        tally.deleted += deleted
        tally.batches += -(-deleted // _BATCH)
    return _answer(tally, asked.started, updates=False)


def _delete(transaction: Transaction, target: Target, asked: _Asked, limit: int | None) -> int:
    if target.name not in transaction.indices:
        return 0
    index = index_for_write(transaction, target.name, asked.started)
    fresh = attrs.evolve(target, mapping=index.mapping)
    hits = matching(transaction.connection, fresh, asked.query, asked.started, limit)
    writer = IndexWriter(transaction, index)
    for at in range(0, len(hits), _BATCH):
        part = hits[at : at + _BATCH]
        writer.look_up((doc_id for _, doc_id, _ in part), sources=False)
        for _, doc_id, _ in part:
            writer.delete(doc_id)
    writer.flush()
    return len(hits)


async def update_by_query(engine: Engine, request: Request) -> Response:
    """POST `{index}/_update_by_query`: indexes the documents again, through a pipeline if one is named."""
    asked = _read(request, query_needed=False)
    pipeline = request.parameters.get("pipeline")
    if pipeline is not None and pipeline not in engine.catalog.names("pipeline"):
        raise illegal_argument(f"pipeline with id [{pipeline}] does not exist")
    tally = Tally()
    for target in engine.targets(request):
        left = None if asked.documents_max is None else asked.documents_max - tally.total
        if left == 0:
            break
        hits = await engine.database.read(matching, target, asked.query, asked.started, left)
        tally.total += len(hits)
        for at in range(0, len(hits), _BATCH):
            part = hits[at : at + _BATCH]
            tally.batches += 1
            sources = await engine.database.read(_sources, target.number, [doc for doc, _, _ in part])
            ready = await _through_pipeline(engine, target, pipeline, part, sources, tally, asked.started)
            await engine.database.write(_write_again, target.name, ready, tally, asked.started)
            if tally.failures or (tally.conflicts and not asked.proceed):
                return (
                    _answer(tally, asked.started, updates=True)
                    if asked.proceed or not tally.conflicts
                    else _conflicted(tally, asked)
                )
    return _answer(tally, asked.started, updates=True)


def _conflicted(tally: Tally, asked: _Asked) -> Response:
    answer = _answer(tally, asked.started, updates=True)
    answer.status = 409
    return answer


def _sources(connection: sqlite3.Connection, number: int, docs: list[int]) -> dict[int, bytes]:
    listed = orjson.dumps(docs).decode()
    return dict(
        connection.execute(
            f"SELECT doc, source FROM docs_{number} WHERE doc IN (SELECT value FROM json_each(?))",
            (listed,),
        ).fetchall()
    )


Ready = tuple[str, int, bytes, dict[str, Any]]


async def _through_pipeline(
    engine: Engine,
    target: Target,
    pipeline: str | None,
    part: Sequence[tuple[int, str, int]],
    sources: dict[int, bytes],
    tally: Tally,
    moment: datetime,
) -> list[Ready]:
    ingest = Ingest(engine.catalog, engine.attachment_reader, moment)
    names = ingest.pipelines_for(target.name, pipeline or "_none")
    ready: list[Ready] = []
    for doc, doc_id, seq_no in part:
        source = sources.get(doc)
        if source is None:
            tally.conflicts += 1
            continue
        content = orjson.loads(source)
        if names:
            try:
                done = await ingest.run(names, target.name, doc_id, content)
            except ApiError as error:
                tally.failures.append(
                    {"index": target.name, "id": doc_id, "cause": error.cause_object(), "status": error.status}
                )
                continue
            if done is None:
                tally.noops += 1
                continue
            content = done.source
            source = dumped(content)
        ready.append((doc_id, seq_no, source, content))
    return ready


def _write_again(transaction: Transaction, name: str, ready: Sequence[Ready], tally: Tally, moment: datetime) -> None:
    writer = IndexWriter(transaction, index_for_write(transaction, name, moment, create=False))
    writer.look_up((doc_id for doc_id, *_ in ready), sources=False)
    for doc_id, seq_no, source, content in ready:
        try:
            writer.put(doc_id, source, content, if_seq_no=seq_no, if_primary_term=PRIMARY_TERM)
            tally.updated += 1
        except ApiError as error:
            if error.status == 409:
                tally.conflicts += 1
                continue
            tally.failures.append({"index": name, "id": doc_id, "cause": error.cause_object(), "status": error.status})
    writer.flush()


_PARAMETERS = (
    INDICES
    | QUERY
    | frozenset(
        [
            "conflicts",
            "refresh",
            "wait_for_completion",
            "max_docs",
            "scroll",
            "scroll_size",
            "search_timeout",
            "search_type",
            "slices",
            "requests_per_second",
            "timeout",
            "wait_for_active_shards",
            "routing",
            "pipeline",
            "preference",
            "request_cache",
            "stats",
            "version",
            "terminate_after",
        ]
    )
)

ROUTES = (
    Route("POST", "/{index}/_delete_by_query", delete_by_query, "write", _PARAMETERS - {"pipeline"}),
    Route("POST", "/{index}/_update_by_query", update_by_query, "write", _PARAMETERS),
)
