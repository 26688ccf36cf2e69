"""`_connector/_sync_job`: sync jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ...protocol import (
    InvalidDocument,
    JobStatus,
    JobType,
    TransitionRefused,
    TriggerMethod,
    jobs,
    read_connector,
    read_job,
    write_job,
)
from ...protocol.ids import JobId
from ...protocol.wire import write_stamp
from ...runtime import new_id, now
from ..engine import Engine
from ..errors import ApiError, invalid_request
from ..http.messages import Request, Response
from ..http.routing import Handler, Route
from ..query.tree import Bool, Query, Terms
from ..storage.catalog import Transaction
from . import bodies
from .connector_api import page, refused
from .records import CONNECTORS, JOBS, Records, Source, list_records, read, target

_TYPES = tuple(one.value for one in JobType)
_TRIGGERS = tuple(one.value for one in TriggerMethod)
_STATUSES = tuple(one.value for one in JobStatus)

Change = Callable[[Records, str, bodies.Body, datetime], str]


async def create(engine: Engine, request: Request) -> Response:
    """POST `_connector/_sync_job`."""
    body = request.required_json()
    bodies.only(body, ("id", "job_type", "trigger_method"), "connector_sync_job_post_request")
    connector_id = bodies.required(body, "id", "connector_sync_job_post_request")
    if not isinstance(connector_id, str) or not connector_id:
        raise invalid_request("[id] of the connector cannot be null or empty")
    job_type = JobType(bodies.choice(body.get("job_type") or "full", _TYPES, "job_type"))
    trigger = TriggerMethod(bodies.choice(body.get("trigger_method") or "on_demand", _TRIGGERS, "trigger_method"))
    job_id = new_id()[:20]
    moment = now()

    def change(transaction: Transaction) -> None:
        source = Records(transaction, CONNECTORS, moment).get(connector_id)
        try:
            connector = read_connector(connector_id, source)
            job = jobs.create(connector, moment, job_type=job_type, trigger_method=trigger, job_id=JobId(job_id))
        except (TransitionRefused, InvalidDocument) as error:
            raise refused(error) from error
        record = {name: value for name, value in write_job(job).items() if value is not None}
        record["connector"] = {name: value for name, value in record["connector"].items() if value is not None}
        Records(transaction, JOBS, moment).put(job_id, record)

    await engine.database.write(change)
    return Response({"id": job_id}, 201)


async def get(engine: Engine, request: Request) -> Response:
    """GET `_connector/_sync_job/{id}`."""
    place = target(engine.catalog, JOBS)
    return Response(await engine.database.read(read, place, JOBS, request.arguments["id"], deleted=True))


async def list_all(engine: Engine, request: Request) -> Response:
    """GET `_connector/_sync_job`: the latest first."""
    filters: list[Query] = []
    if "status" in request.parameters:
        filters.append(
            Terms(field="status", values=(bodies.choice(request.parameters["status"], _STATUSES, "status"),))
        )
    if request.parameters.get("connector_id"):
        filters.append(Terms(field="connector.id", values=(request.parameters["connector_id"],)))
    kinds = request.names("job_type")
    if kinds:
        filters.append(Terms(field="job_type", values=tuple(bodies.choice(one, _TYPES, "job_type") for one in kinds)))
    start, size = page(request)
    place = target(engine.catalog, JOBS)
    query = Bool(filter=tuple(filters))
    return Response(await engine.database.read(list_records, place, JOBS, query, start, size, now()))


async def delete(engine: Engine, request: Request) -> Response:
    """DELETE `_connector/_sync_job/{id}`."""

    def change(transaction: Transaction, moment: datetime) -> None:
        records = Records(transaction, JOBS, moment)
        records.get(request.arguments["id"])
        records.delete(request.arguments["id"])

    await engine.database.write(change, now())
    return Response({"acknowledged": True})


def changing(change: Change, *, body_needed: bool = True) -> Handler:
    """Make a handler of a change to one job."""

    async def handle(engine: Engine, request: Request) -> Response:
        body = request.required_json() if body_needed else {}

        def apply(transaction: Transaction, moment: datetime) -> str:
            try:
                return change(Records(transaction, JOBS, moment), request.arguments["id"], body, moment)
            except (TransitionRefused, InvalidDocument) as error:
                raise refused(error) from error

        return Response({"result": await engine.database.write(apply, now())})

    return handle


def _cancel(records: Records, job_id: str, body: bodies.Body, moment: datetime) -> str:
    def how(source: Source) -> Source:
        after = write_job(jobs.request_cancel(read_job(job_id, source), moment))
        return {name: value for name, value in after.items() if value is not None or name in source}

    return records.change(job_id, how)


def _check_in(records: Records, job_id: str, body: bodies.Body, moment: datetime) -> str:
    return records.merge(job_id, {"last_seen": write_stamp(moment)})


def _claim(records: Records, job_id: str, body: bodies.Body, moment: datetime) -> str:
    # Elasticsearch does not look at the state here. Services that must not share a job guard their claim by sequence number.
    what = "connector_claim_sync_job"
    bodies.only(body, ("worker_hostname", "sync_cursor"), what)
    host = bodies.required(body, "worker_hostname", what)
    if not isinstance(host, str) or not host:
        raise invalid_request("[worker_hostname] cannot be null or empty")
    cursor = body.get("sync_cursor")
    if isinstance(cursor, str | bool | int | float):
        raise bodies.wrong(f"[{what}] [sync_cursor] must be an object")
    stamp = write_stamp(moment)
    part: Source = {
        "worker_hostname": host,
        "status": JobStatus.IN_PROGRESS.value,
        "last_seen": stamp,
        "started_at": stamp,
    }

    def how(source: Source) -> Source:
        claimed = {**source, **part}
        if cursor is not None:
            claimed["connector"] = {**source.get("connector", {}), "sync_cursor": cursor}
        return claimed

    return records.change(job_id, how)


def _error(records: Records, job_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("error",), "connector_sync_job_error_request")
    error = bodies.required(body, "error", "connector_sync_job_error_request")
    if not isinstance(error, str) or not error:
        raise invalid_request("[error] of the connector sync job cannot be null or empty")

    def how(source: Source) -> Source:
        status = source.get("status")
        if status not in (JobStatus.IN_PROGRESS.value, JobStatus.CANCELING.value):
            raise ApiError(
                400,
                "status_exception",
                f"sync job [{job_id}] is [{status}]; only one that is in_progress or canceling can fail",
            )
        return {**source, "error": error, "status": JobStatus.ERROR.value}

    return records.change(job_id, how)


def _stats(records: Records, job_id: str, body: bodies.Body, moment: datetime) -> str:
    what = "connector_update_sync_job_stats"
    counts = ("deleted_document_count", "indexed_document_count", "indexed_document_volume")
    bodies.only(body, (*counts, "total_document_count", "last_seen", "metadata"), what)
    part: Source = {name: bodies.count(body, name, what) for name in counts}
    if body.get("total_document_count") is not None:
        part["total_document_count"] = bodies.count(body, "total_document_count", what)
    seen = body.get("last_seen")
    part["last_seen"] = write_stamp(moment) if seen is None else bodies.date(seen, f"{what}.last_seen")
    metadata = body.get("metadata")
    if metadata is not None:
        part["metadata"] = bodies.mapping(metadata, f"{what}.metadata")
    return records.merge(job_id, part)


_CHANGES: tuple[tuple[str, Change, bool], ...] = (
    ("_cancel", _cancel, False),
    ("_check_in", _check_in, False),
    ("_claim", _claim, True),
    ("_error", _error, True),
    ("_stats", _stats, True),
)

ROUTES = (
    Route("POST", "/_connector/_sync_job", create, "manage_connector"),
    Route("GET", "/_connector/_sync_job/{id}", get, "monitor_connector"),
    Route(
        "GET",
        "/_connector/_sync_job",
        list_all,
        "monitor_connector",
        frozenset({"from", "size", "status", "connector_id", "job_type"}),
    ),
    Route("DELETE", "/_connector/_sync_job/{id}", delete, "manage_connector"),
    *(
        Route("PUT", f"/_connector/_sync_job/{{id}}/{path}", changing(change, body_needed=needs), "manage_connector")
        for path, change, needs in _CHANGES
    ),
)
