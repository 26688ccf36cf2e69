"""`_bulk`: many operations in one request and one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import attrs
import orjson
import trio

from ...runtime import blocking, new_id, now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, invalid_request, not_built
from ..http.messages import Request, Response
from ..http.routing import Route
from ..ingest.run import Ingest
from ..security.guard import forbidden
from ..storage.catalog import Transaction
from ..storage.creation import index_for_write
from ..storage.documents import ID_BYTES_MAX, PRIMARY_TERM, IndexWriter, Written
from .updating import apply_update, check_update, dumped

_THREAD_FROM_BYTES = 20_000
_ACTIONS = ("index", "create", "update", "delete")
_KEYS = frozenset(
    [
        "_index",
        "_id",
        "if_seq_no",
        "if_primary_term",
        "require_alias",
        "pipeline",
        "retry_on_conflict",
        "_source",
        "list_executed_pipelines",
        "require_data_stream",
        "dynamic_templates",
        "routing",
        "version",
        "version_type",
    ]
)
_LACKING = ("routing", "version", "version_type", "dynamic_templates", "_source")
SHARDS = {"total": 1, "successful": 1, "failed": 0}


@attrs.define
class Operation:
    """One line (or two) of a bulk request."""

    action: str
    index: str
    doc_id: str | None
    meta: dict[str, Any]
    source: bytes = b""
    content: dict[str, Any] | None = None
    pipeline: str | None = None
    error: ApiError | None = None
    """What is already known to be wrong with it."""
    dropped: bool = False
    """A pipeline decided that nothing is written."""


def parse_bulk(
    body: bytes, default_index: str | None, default_pipeline: str | None, default_alias: bool
) -> list[Operation]:
    """Read the lines. Raises 400 for a request that cannot be read as a whole."""
    if not body.strip():
        raise ApiError(400, "parse_exception", "request body is required")
    if not body.endswith(b"\n"):
        raise illegal_argument("The bulk request must be terminated by a newline [\\n]")
    lines = body.split(b"\n")
    found: list[Operation] = []
    at, count = 0, len(lines)
    loads = orjson.loads
    while at < count:
        line = lines[at]
        at += 1
        if not line or line.isspace():
            continue
        try:
            action = loads(line)
        except orjson.JSONDecodeError as error:
            raise illegal_argument(f"Malformed action/metadata line [{at}], it is not JSON: {error}") from error
        operation = _operation(action, at, default_index, default_pipeline, default_alias)
        found.append(operation)
        if operation.action == "delete":
            continue
        if at >= count - 1 and not lines[at if at < count else -1]:
            raise (
                invalid_request("no requests added")
                if not found[:-1]
                else illegal_argument(f"The bulk request ends after the action on line [{at}], its source is missing")
            )
        operation.source = lines[at]
        at += 1
        try:
            content = loads(operation.source)
        except orjson.JSONDecodeError as error:
            operation.error = ApiError(
                400, "document_parsing_exception", f"[{error.lineno}:{error.colno}] failed to parse: {error.msg}"
            )
            continue
        if not isinstance(content, dict):
            operation.error = ApiError(
                400, "document_parsing_exception", "failed to parse, the document is not an object"
            )
            continue
        operation.content = content
    return found


def _operation(action: Any, line: int, index: str | None, pipeline: str | None, require_alias: bool) -> Operation:
    if not isinstance(action, dict) or len(action) != 1:
        raise illegal_argument(f"Malformed action/metadata line [{line}], expected an object with one action")
    ((name, meta),) = action.items()
    if name not in _ACTIONS:
        raise illegal_argument(
            f"Malformed action/metadata line [{line}], expected field [create], [delete], [index] or [update] but found [{name}]"
        )
    if not isinstance(meta, dict):
        raise illegal_argument(f"Malformed action/metadata line [{line}], expected START_OBJECT after [{name}]")
    if not _KEYS.issuperset(meta):
        raise illegal_argument(
            f"Action/metadata line [{line}] contains an unknown parameter [{min(meta.keys() - _KEYS)}]"
        )
    for key in _LACKING:
        if meta.get(key) is not None:
            raise not_built(f"[{key}] of a bulk operation")
    target = meta.get("_index", index)
    if not isinstance(target, str) or not target:
        raise invalid_request("index is missing")
    doc_id = meta.get("_id")
    if doc_id is not None:
        if isinstance(doc_id, bool) or not isinstance(doc_id, str | int | float):
            raise illegal_argument(f"Malformed action/metadata line [{line}], [_id] must be text")
        doc_id = str(doc_id)
    for key in ("if_seq_no", "if_primary_term", "retry_on_conflict"):
        value = meta.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise illegal_argument(
                f"Malformed action/metadata line [{line}], [{key}] must be a number that is not negative"
            )
    if meta.get("require_data_stream") is True:
        raise not_built("[require_data_stream]")
    if require_alias:
        meta = {"require_alias": True, **meta}
    operation = Operation(name, target, doc_id, meta)
    chosen = meta.get("pipeline", pipeline)
    if chosen is not None and not isinstance(chosen, str):
        raise illegal_argument(f"Malformed action/metadata line [{line}], [pipeline] must be text")
    operation.pipeline = chosen
    operation.error = check_identity(operation)
    return operation


def check_identity(operation: Operation) -> ApiError | None:
    """Return what is wrong with an operation's id and conditions, or None."""
    doc_id, meta = operation.doc_id, operation.meta
    if doc_id is None:
        if operation.action in ("update", "delete"):
            return invalid_request("id is missing")
    elif not doc_id:
        return illegal_argument("if _id is specified it must not be empty")
    elif len(doc_id) > ID_BYTES_MAX // 4 and len(doc_id.encode()) > ID_BYTES_MAX:
        return illegal_argument(
            f"id [{doc_id[:64]}...] is too long, must be no longer than {ID_BYTES_MAX} bytes but was: {len(doc_id.encode())}"
        )
    given = "if_seq_no" in meta
    if given != ("if_primary_term" in meta):
        return invalid_request(
            "ifSeqNo is unassigned, but primary term is set" if not given else "ifSeqNo is set, but primary term is [0]"
        )
    if given and operation.action == "create":
        return invalid_request("create operations do not support compare and set. use index instead")
    return None


FILES_AT_ONCE = 4
"""Attachments of one request that are being read."""


async def prepare(engine: Engine, operations: Sequence[Operation]) -> None:
    """Run ingest pipelines over the operations that have one; what fails carries its error, what is dropped says so."""
    ingest = Ingest(engine.catalog, engine.attachment_reader, now())
    waiting = iter(operations)
    # What has no file never waits, so that one task does it all; the others take over where a file is read.
    async with trio.open_nursery() as nursery:
        for _ in range(min(FILES_AT_ONCE, len(operations))):
            nursery.start_soon(_prepare_some, ingest, waiting)


async def _prepare_some(ingest: Ingest, waiting: Iterator[Operation]) -> None:
    for operation in waiting:
        if operation.error is not None or operation.content is None or operation.action not in ("index", "create"):
            continue
        names = ingest.pipelines_for(operation.index, operation.pipeline)
        if not names:
            continue
        try:
            done = await ingest.run(names, operation.index, operation.doc_id, operation.content)
            source = b"" if done is None else dumped(done.source)
        except ApiError as error:
            operation.error = error
            continue
        if done is None:
            operation.dropped = True
            continue
        operation.content = done.source
        operation.index = done.index
        operation.doc_id = done.doc_id
        operation.source = source


def too_deep() -> ApiError:
    """Return the 400 for a document that is nested more deeply than can be walked through."""
    return ApiError(400, "document_parsing_exception", "[1:1] failed to parse: the document is nested too deeply")


def write_operations(
    transaction: Transaction, operations: Sequence[Operation], moment: datetime
) -> list[tuple[int, dict[str, Any]]]:
    """Apply all operations in order and return (status, item) for each. Nothing raises but a broken database."""
    writers: dict[tuple[str, bool], IndexWriter | ApiError] = {}
    by_number: dict[int, IndexWriter] = {}
    wanted: dict[tuple[str, bool], list[str]] = {}
    for operation in operations:
        if operation.doc_id is not None and operation.error is None:
            wanted.setdefault((operation.index, bool(operation.meta.get("require_alias"))), []).append(operation.doc_id)
    items = []
    for operation in operations:
        try:
            if operation.error is not None:
                raise operation.error
            if operation.dropped:
                items.append(
                    (
                        200,
                        _item(
                            operation, operation.index, operation.doc_id or "_na_", Written("noop", -3, -2), status=200
                        ),
                    )
                )
                continue
            key = (operation.index, bool(operation.meta.get("require_alias")))
            writer = writers.get(key)
            if writer is None:
                writer = writers[key] = _open(transaction, operation, moment, by_number)
                if isinstance(writer, IndexWriter):
                    writer.look_up(wanted.get(key, ()), sources=False)
            if isinstance(writer, ApiError):
                raise writer
            items.append(_apply(writer, operation))
        except (ApiError, RecursionError) as caught:
            error = caught if isinstance(caught, ApiError) else too_deep()
            shown = {
                "_index": operation.index,
                "_id": operation.doc_id,
                "status": error.status,
                "error": error.cause_object(),
            }
            items.append((error.status, {operation.action: shown}))
    for writer in by_number.values():
        writer.flush()
    return items


def _open(
    transaction: Transaction, operation: Operation, moment: datetime, by_number: dict[int, IndexWriter]
) -> IndexWriter | ApiError:
    try:
        index = index_for_write(
            transaction,
            operation.index,
            moment,
            require_alias=bool(operation.meta.get("require_alias")),
            create=operation.action != "delete",
        )
    except ApiError as error:
        return error
    if index.number not in by_number:
        by_number[index.number] = IndexWriter(transaction, index)
    return by_number[index.number]


def _apply(writer: IndexWriter, operation: Operation) -> tuple[int, dict[str, Any]]:
    meta, doc_id = operation.meta, operation.doc_id
    name = writer.index.name
    if operation.action in ("index", "create"):
        assert operation.content is not None
        create = operation.action == "create"
        if doc_id is None:
            doc_id, create = new_id()[:20], True
        written = writer.put(
            doc_id,
            operation.source,
            operation.content,
            create=create,
            if_seq_no=meta.get("if_seq_no"),
            if_primary_term=meta.get("if_primary_term"),
        )
    elif operation.action == "delete":
        assert doc_id is not None
        written = writer.delete(doc_id, if_seq_no=meta.get("if_seq_no"), if_primary_term=meta.get("if_primary_term"))
    else:
        assert doc_id is not None
        assert operation.content is not None
        check_update(operation.content)
        written = apply_update(
            writer,
            doc_id,
            operation.content,
            if_seq_no=meta.get("if_seq_no"),
            if_primary_term=meta.get("if_primary_term"),
        )
    status = {"created": 201, "not_found": 404}.get(written.result, 200)
    return status, _item(operation, name, doc_id, written, status=status)


def _item(operation: Operation, index: str, doc_id: str, written: Written, *, status: int) -> dict[str, Any]:
    return {
        operation.action: {
            "_index": index,
            "_id": doc_id,
            "_version": written.version,
            "result": written.result,
            "_shards": SHARDS,
            "_seq_no": written.seq_no,
            "_primary_term": PRIMARY_TERM,
            "status": status,
        }
    }


async def bulk(engine: Engine, request: Request) -> Response:
    """POST `_bulk`."""
    started = now()
    if request.parameters.get("_source") is not None or request.parameters.get("routing") is not None:
        raise not_built("[_source] or [routing] of a bulk request")
    if request.flag("require_data_stream"):
        raise not_built("[require_data_stream]")
    arguments = (
        request.body,
        request.arguments.get("index"),
        request.parameters.get("pipeline"),
        request.flag("require_alias"),
    )
    refresh = check_refresh(request)
    if len(request.body) > _THREAD_FROM_BYTES:
        operations = await blocking(parse_bulk, *arguments)
    else:
        operations = parse_bulk(*arguments)
    for operation in operations:
        who = request.principal
        if who is not None and operation.error is None and not who.may_do("write", operation.index):
            operation.error = forbidden(who, "write", operation.index)
    await prepare(engine, operations)
    results = await engine.database.write(write_operations, operations, started)
    errors = any("error" in next(iter(item.values())) for _, item in results)
    if refresh:
        for _, item in results:
            inner = next(iter(item.values()))
            if "error" not in inner:
                inner["forced_refresh"] = True
    took_ms = int((now() - started).total_seconds() * 1000)
    return Response({"errors": errors, "took": took_ms, "items": [item for _, item in results]})


def check_refresh(request: Request) -> bool:
    """Return whether a write asked to be seen by searches at once, which it always is. Raises 400."""
    value = request.parameters.get("refresh", "false")
    if value not in ("true", "false", "wait_for", ""):
        raise illegal_argument(f"Unknown value for refresh: [{value}].")
    return value in ("true", "")


_PARAMETERS = frozenset(
    [
        "refresh",
        "pipeline",
        "require_alias",
        "timeout",
        "wait_for_active_shards",
        "routing",
        "_source",
        "_source_includes",
        "_source_excludes",
        "require_data_stream",
        "list_executed_pipelines",
        "include_source_on_error",
    ]
)

ROUTES = tuple(
    Route(method, template, bulk, "write", _PARAMETERS)
    for method in ("POST", "PUT")
    for template in ("/_bulk", "/{index}/_bulk")
)
