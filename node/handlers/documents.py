"""Single documents: `_doc`, `_create`, `_update`, `_source`, `_mget`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import orjson

from ...runtime import now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, index_not_found, invalid_request, not_built
from ..http.messages import Request, Response
from ..http.routing import Route
from ..query.source import SourceFilter, read_source_filter
from ..security.guard import require
from ..storage.catalog import Catalog, Index, Transaction
from ..storage.creation import index_for_write
from ..storage.documents import PRIMARY_TERM, IndexWriter, Written
from .bulk import SHARDS, Operation, check_identity, check_refresh, prepare, write_operations
from .updating import apply_update, check_update

_MGET_MAX = 10_000


def source_filter(request: Request, body: Any = None) -> SourceFilter:
    """Return what of the source is wanted, from parameters or the body's `_source`."""
    value = request.parameters.get("_source")
    includes = request.names("_source_includes") or request.names("_source_include")
    excludes = request.names("_source_excludes") or request.names("_source_exclude")
    if value is not None and value not in ("true", "false", ""):
        includes = includes or request.names("_source")
    if includes or excludes:
        return SourceFilter(includes=tuple(includes), excludes=tuple(excludes))
    if value is not None:
        return SourceFilter(wanted=value != "false")
    return read_source_filter(body)


def single_index(catalog: Catalog, name: str) -> Index:
    """Return the one index that a name or alias means. Raises 404 or 400."""
    index = catalog.indices.get(name)
    if index is None:
        behind = catalog.indices_of_alias(name)
        if not behind:
            raise index_not_found(name)
        if len(behind) > 1:
            names = ", ".join(sorted(one.name for one in behind))
            raise illegal_argument(
                f"alias [{name}] has more than one index associated with it [{names}], can't execute a single index op"
            )
        index = behind[0]
    if index.closed:
        raise ApiError(400, "index_closed_exception", "closed", index_uuid=index.uuid, index=index.name)
    return index


Row = tuple[int, int, bytes]


def _read(connection: sqlite3.Connection, wanted: Sequence[tuple[int, str]]) -> list[Row | None]:
    return [
        connection.execute(
            f"SELECT seq_no, version, source FROM docs_{number} WHERE id = ? AND died IS NULL",
            (doc_id,),
        ).fetchone()
        for number, doc_id in wanted
    ]


def _shown(index: Index, doc_id: str, row: Row | None, wanted: SourceFilter) -> dict[str, Any]:
    if row is None:
        return {"_index": index.name, "_id": doc_id, "found": False}
    seq_no, version, source = row
    found: dict[str, Any] = {
        "_index": index.name,
        "_id": doc_id,
        "_version": version,
        "_seq_no": seq_no,
        "_primary_term": PRIMARY_TERM,
        "found": True,
    }
    if wanted.wanted:
        found["_source"] = orjson.Fragment(source) if wanted.is_whole else wanted.apply(orjson.loads(source))
    return found


async def get(engine: Engine, request: Request) -> Response:
    """GET `{index}/_doc/{id}`."""
    _refuse_lacking(request)
    index = single_index(engine.catalog, request.arguments["index"])
    (row,) = await engine.database.read(_read, [(index.number, request.arguments["id"])])
    return Response(_shown(index, request.arguments["id"], row, source_filter(request)), 404 if row is None else 200)


async def get_source(engine: Engine, request: Request) -> Response:
    """GET `{index}/_source/{id}`."""
    _refuse_lacking(request)
    index = single_index(engine.catalog, request.arguments["index"])
    doc_id = request.arguments["id"]
    (row,) = await engine.database.read(_read, [(index.number, doc_id)])
    if row is None:
        raise ApiError(404, "resource_not_found_exception", f"Document not found [{index.name}]/[{doc_id}]")
    wanted = source_filter(request)
    return Response(orjson.Fragment(row[2]) if wanted.is_whole else wanted.apply(orjson.loads(row[2])))


async def mget(engine: Engine, request: Request) -> Response:
    """GET or POST `_mget`: what is not there is said per document."""
    _refuse_lacking(request)
    body = request.required_json()
    unknown = body.keys() - {"docs", "ids"}
    if unknown:
        raise ApiError(400, "parsing_exception", f"unknown key [{min(unknown)}] for an mget request")
    entries = _entries(body, request)
    plain = source_filter(request)
    answers: list[dict[str, Any]] = []
    reads: list[tuple[int, Index, str, SourceFilter]] = []
    for at, (name, doc_id, filtered) in enumerate(entries):
        try:
            require(request.principal, "read", name)
            reads.append((at, single_index(engine.catalog, name), doc_id, plain if filtered is None else filtered))
            answers.append({})
        except ApiError as error:
            answers.append({"_index": name, "_id": doc_id, "error": error.body()["error"]})
    rows = await engine.database.read(_read, [(index.number, doc_id) for _, index, doc_id, _ in reads])
    for (at, index, doc_id, wanted), row in zip(reads, rows, strict=True):
        answers[at] = _shown(index, doc_id, row, wanted)
    return Response({"docs": answers})


def _entries(body: dict[str, Any], request: Request) -> list[tuple[str, str, SourceFilter | None]]:
    default = request.arguments.get("index")
    found: list[tuple[str, str, SourceFilter | None]] = []
    ids, docs = body.get("ids", []), body.get("docs", [])
    if not isinstance(ids, list) or not isinstance(docs, list):
        raise illegal_argument("[ids] and [docs] of an mget request must be arrays")
    for doc_id in ids:
        if default is None:
            raise invalid_request("index is missing for doc 0")
        if not isinstance(doc_id, str | int):
            raise illegal_argument("[ids] must be texts")
        found.append((default, str(doc_id), None))
    for at, entry in enumerate(docs):
        if not isinstance(entry, dict):
            raise illegal_argument("[docs] must be objects")
        unknown = entry.keys() - {"_index", "_id", "_source"}
        if unknown:
            raise not_built(f"[{min(unknown)}] of an mget document")
        name, doc_id = entry.get("_index", default), entry.get("_id")
        if not isinstance(name, str) or not isinstance(doc_id, str | int):
            raise invalid_request(f"{'index' if not isinstance(name, str) else 'id'} is missing for doc {at}")
        found.append((name, str(doc_id), read_source_filter(entry["_source"]) if "_source" in entry else None))
    if not found:
        raise invalid_request("no documents to get")
    if len(found) > _MGET_MAX:
        raise illegal_argument(f"an mget request takes at most {_MGET_MAX} documents")
    return found


def _refuse_lacking(request: Request) -> None:
    for name in ("routing", "version", "version_type", "stored_fields", "dynamic_templates"):
        if request.parameters.get(name) is not None:
            raise not_built(f"The parameter [{name}]")


def _conditions(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("if_seq_no", "if_primary_term"):
        value = request.integer(name)
        if value is not None:
            if value < 0:
                raise illegal_argument(f"sequence numbers must be non negative. got [{value}].")
            found[name] = value
    if request.flag("require_alias"):
        found["require_alias"] = True
    return found


async def _write(engine: Engine, request: Request, action: str, doc_id: str | None) -> Response:
    _refuse_lacking(request)
    refresh = check_refresh(request)
    operation = Operation(action, request.arguments["index"], doc_id, _conditions(request))
    if action != "delete":
        if not request.body.strip():
            raise ApiError(400, "parse_exception", "request body is required")
        try:
            content = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise ApiError(
                400, "document_parsing_exception", f"[{error.lineno}:{error.colno}] failed to parse: {error.msg}"
            ) from error
        if not isinstance(content, dict):
            raise ApiError(400, "document_parsing_exception", "failed to parse, the document is not an object")
        operation.source, operation.content = request.body, content
        operation.pipeline = request.parameters.get("pipeline")
    wrong = check_identity(operation)
    if wrong is not None:
        raise wrong
    await prepare(engine, [operation])
    if operation.error is not None:
        raise operation.error

    def change(transaction: Transaction) -> tuple[int, dict[str, Any]]:
        ((status, item),) = write_operations(transaction, [operation], now())
        return status, item

    # A single write that fails changes nothing, not even by making an index; in a bulk, other operations may need that.
    def change_or_fail(transaction: Transaction) -> tuple[int, dict[str, Any]]:
        status, item = change(transaction)
        inner = item[action]
        if "error" in inner:
            raise _Failed(status, inner["error"])
        return status, inner

    try:
        status, inner = await engine.database.write(change_or_fail)
    except _Failed as failed:
        return Response(failed.body(), failed.status)
    inner.pop("status")
    if refresh:
        inner["forced_refresh"] = True
    headers = {"location": f"/{quote(inner['_index'])}/_doc/{quote(inner['_id'], safe='')}"} if status == 201 else {}
    return Response(inner, status, headers)


class _Failed(Exception):
    def __init__(self, status: int, cause: dict[str, Any]) -> None:
        super().__init__(cause["reason"])
        self.status = status
        self.cause = cause

    def body(self) -> dict[str, Any]:
        root = {key: value for key, value in self.cause.items() if key != "caused_by"}
        return {"error": {"root_cause": [root], **self.cause}, "status": self.status}


async def index_document(engine: Engine, request: Request) -> Response:
    """PUT or POST `{index}/_doc/{id}`, POST `{index}/_doc`."""
    operation = request.parameters.get("op_type", "index")
    if operation not in ("index", "create"):
        raise invalid_request(f"opType must be 'create' or 'index', found: [{operation}]")
    return await _write(engine, request, operation, request.arguments.get("id"))


async def create_document(engine: Engine, request: Request) -> Response:
    """PUT or POST `{index}/_create/{id}`."""
    return await _write(engine, request, "create", request.arguments["id"])


async def delete_document(engine: Engine, request: Request) -> Response:
    """DELETE `{index}/_doc/{id}`."""
    return await _write(engine, request, "delete", request.arguments["id"])


async def update_document(engine: Engine, request: Request) -> Response:
    """POST `{index}/_update/{id}`."""
    _refuse_lacking(request)
    refresh = check_refresh(request)
    body = request.required_json()
    check_update(body)
    doc_id = request.arguments["id"]
    conditions = _conditions(request)
    operation = Operation("update", request.arguments["index"], doc_id, conditions)
    wrong = check_identity(operation)
    if wrong is not None:
        raise wrong
    show = (
        source_filter(request, body.get("_source", False))
        if {"_source", "_source_includes", "_source_excludes"} & (request.parameters.keys() | body.keys())
        else SourceFilter(wanted=False)
    )

    def change(transaction: Transaction, moment: datetime) -> tuple[Index, Written, bytes | None]:
        index = index_for_write(
            transaction, operation.index, moment, require_alias=bool(conditions.get("require_alias"))
        )
        writer = IndexWriter(transaction, index)
        written = apply_update(
            writer,
            doc_id,
            body,
            if_seq_no=conditions.get("if_seq_no"),
            if_primary_term=conditions.get("if_primary_term"),
        )
        source = writer.source(doc_id) if show.wanted else None
        writer.flush()
        return index, written, source

    index, written, source = await engine.database.write(change, now())
    answer: dict[str, Any] = {
        "_index": index.name,
        "_id": doc_id,
        "_version": written.version,
        "result": written.result,
        "_shards": SHARDS if written.result != "noop" else {"total": 0, "successful": 0, "failed": 0},
        "_seq_no": written.seq_no,
        "_primary_term": PRIMARY_TERM,
    }
    if refresh:
        answer["forced_refresh"] = True
    if source is not None:
        content = orjson.loads(source)
        answer["get"] = {
            "_seq_no": written.seq_no,
            "_primary_term": PRIMARY_TERM,
            "found": True,
            "_source": content if show.is_whole else show.apply(content),
        }
    return Response(answer, 201 if written.result == "created" else 200)


_GET = frozenset(
    [
        "_source",
        "_source_includes",
        "_source_excludes",
        "_source_include",
        "_source_exclude",
        "preference",
        "realtime",
        "refresh",
        "routing",
        "stored_fields",
        "version",
        "version_type",
        "force_synthetic_source",
    ]
)
_WRITE = frozenset(
    [
        "if_seq_no",
        "if_primary_term",
        "refresh",
        "timeout",
        "wait_for_active_shards",
        "pipeline",
        "op_type",
        "require_alias",
        "routing",
        "version",
        "version_type",
        "require_data_stream",
        "include_source_on_error",
    ]
)
_UPDATE = _WRITE | {"_source", "_source_includes", "_source_excludes", "lang", "retry_on_conflict"}

ROUTES = (
    Route("GET", "/{index}/_doc/{id}", get, "read", _GET),
    Route("GET", "/{index}/_source/{id}", get_source, "read", _GET),
    Route("PUT", "/{index}/_doc/{id}", index_document, "write", _WRITE),
    Route("POST", "/{index}/_doc/{id}", index_document, "write", _WRITE),
    Route("POST", "/{index}/_doc", index_document, "write", _WRITE),
    Route("PUT", "/{index}/_create/{id}", create_document, "write", _WRITE),
    Route("POST", "/{index}/_create/{id}", create_document, "write", _WRITE),
    Route("DELETE", "/{index}/_doc/{id}", delete_document, "write", _WRITE),
    Route("POST", "/{index}/_update/{id}", update_document, "write", _UPDATE),
    *(Route(method, path, mget, "read", _GET) for method in ("GET", "POST") for path in ("/_mget", "/{index}/_mget")),
)
