"""`_connector`: connectors, one request for each thing that may be changed in them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ...protocol import (
    Connector,
    ConnectorStatus,
    InvalidDocument,
    TransitionRefused,
    connectors,
    drafts,
    read_connector,
    write_connector,
)
from ...protocol.documents import read_rules
from ...protocol.wire import write_stamp
from ...runtime import new_id, now
from ..engine import Engine
from ..errors import ApiError, invalid_request
from ..http.messages import Request, Response
from ..http.routing import Handler, Route
from ..query.query_string import escaped_pattern
from ..query.request import WINDOW_MAX
from ..query.tree import Bool, Pattern, Query, Terms
from ..storage.catalog import Transaction
from ..storage.names import check_index_name
from . import bodies
from .records import CONNECTORS, JOBS, Records, Source, list_records, read, target

_CREATE_KEYS = ("description", "index_name", "is_native", "language", "name", "service_type")
_DELETED = Terms(field="deleted", values=(True,))

Change = Callable[[Records, str, bodies.Body, datetime], str]


def refused(error: TransitionRefused | InvalidDocument) -> ApiError:
    """Return the 400 for what the protocol does not allow."""
    return ApiError(400, "status_exception", str(error))


def _check_index_is_free(records: Records, name: str, own_id: str | None) -> None:
    same = Bool(filter=(Terms(field="index_name", values=(name,)),), must_not=(_DELETED,))
    others = [found for found in records.matching(same) if found != own_id]
    if others:
        raise invalid_request(f"Index [{name}] is already used by connector [{others[0]}]")


async def create(engine: Engine, request: Request) -> Response:
    """PUT or POST `_connector`, with or without an id."""
    body = request.json()
    bodies.only(body, _CREATE_KEYS, "connector_put_request")
    texts = {name: bodies.text(body, name, "connector_put_request") for name in _CREATE_KEYS if name != "is_native"}
    native = False if body.get("is_native") is None else bodies.flag(body, "is_native", "connector_put_request")
    if texts["index_name"] is not None:
        bodies.index_name(texts["index_name"], native=native)
    connector_id = request.arguments.get("id") or new_id()[:20]
    moment = now()

    def change(transaction: Transaction) -> str:
        records = Records(transaction, CONNECTORS, moment)
        if texts["index_name"] is not None:
            _check_index_is_free(records, texts["index_name"], connector_id)
        made = connectors.create(
            connector_id,
            moment,
            index_name=texts["index_name"],
            name=texts["name"] or "",
            description=texts["description"],
            service_type=texts["service_type"],
            language=texts["language"],
            is_native=native,
        )
        source = {name: value for name, value in write_connector(made).items() if value is not None}
        return records.put(connector_id, source)

    result = await engine.database.write(change)
    return Response({"result": result, "id": connector_id}, 201 if result == "created" else 200)


async def get(engine: Engine, request: Request) -> Response:
    """GET `_connector/{id}`."""
    place = target(engine.catalog, CONNECTORS)
    deleted = request.flag("include_deleted")
    return Response(await engine.database.read(read, place, CONNECTORS, request.arguments["id"], deleted=deleted))


def page(request: Request) -> tuple[int, int]:
    """Return `from` and `size`. Raises 400."""
    start, size = request.integer("from", 0), request.integer("size", 100)
    assert start is not None
    assert size is not None
    if start < 0 or size < 0 or start + size > WINDOW_MAX:
        raise invalid_request(f"[from] and [size] must not be negative, and their sum at most {WINDOW_MAX}")
    return start, size


async def list_all(engine: Engine, request: Request) -> Response:
    """GET `_connector`."""
    filters: list[Query] = []
    for parameter, field in (
        ("index_name", "index_name"),
        ("connector_name", "name"),
        ("service_type", "service_type"),
    ):
        names = request.names(parameter)
        if parameter == "index_name":
            for name in names:
                check_index_name(name)
        if names:
            filters.append(Terms(field=field, values=tuple(names)))
    text = request.parameters.get("query", "").strip()
    if text:
        around = f"*{escaped_pattern(text)}*"
        exact = (Pattern(field=field, pattern=around) for field in ("index_name", "name"))
        filters.append(Bool(should=(*exact, Pattern(field="description", pattern=around, ignore_case=True))))
    hidden = () if request.flag("include_deleted") else (_DELETED,)
    query = Bool(filter=tuple(filters), must_not=hidden)
    start, size = page(request)
    place = target(engine.catalog, CONNECTORS)
    return Response(await engine.database.read(list_records, place, CONNECTORS, query, start, size, now()))


async def delete(engine: Engine, request: Request) -> Response:
    """DELETE `_connector/{id}`: softly, or with `hard` for good."""
    connector_id, hard, with_jobs = request.arguments["id"], request.flag("hard"), request.flag("delete_sync_jobs")
    moment = now()

    def change(transaction: Transaction) -> None:
        records = Records(transaction, CONNECTORS, moment)
        records.get(connector_id)
        if hard:
            records.delete(connector_id)
        else:
            records.merge(connector_id, {"deleted": True})
        if with_jobs:
            jobs = Records(transaction, JOBS, moment)
            for job_id in jobs.matching(Terms(field="connector.id", values=(connector_id,))):
                jobs.delete(job_id)

    await engine.database.write(change)
    return Response({"acknowledged": True})


def changing(change: Change, *, body_needed: bool = True) -> Handler:
    """Make a handler of a change to one connector."""

    async def handle(engine: Engine, request: Request) -> Response:
        body = request.required_json() if body_needed else {}

        def apply(transaction: Transaction, moment: datetime) -> str:
            try:
                return change(Records(transaction, CONNECTORS, moment), request.arguments["id"], body, moment)
            except (TransitionRefused, InvalidDocument) as error:
                raise refused(error) from error

        return Response({"result": await engine.database.write(apply, now())})

    return handle


def _through(
    records: Records, connector_id: str, step: Callable[[Connector], Connector], *, deleted: bool = False
) -> str:
    """Let the protocol take a step with a connector, and write what came of it."""

    def how(source: Source) -> Source:
        before = read_connector(connector_id, source)
        after = write_connector(step(before))
        # What was absent and still says nothing stays absent.
        return {name: value for name, value in after.items() if value is not None or name in source}

    return records.change(connector_id, how, deleted=deleted)


def _check_in(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    return records.merge(connector_id, {"last_seen": write_stamp(moment)})


def _api_key_id(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    what = "connector_update_api_key_id_request"
    bodies.only(body, ("api_key_id", "api_key_secret_id"), what)
    part: Source = {name: bodies.text(body, name, what) for name in ("api_key_id", "api_key_secret_id") if name in body}
    if not part:
        raise invalid_request("[api_key_id] and [api_key_secret_id] cannot both be missing")
    return records.merge(connector_id, part)


def _configuration(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("configuration", "values"), "connector_update_configuration_request")
    configuration, values = body.get("configuration"), body.get("values")
    if (configuration is None) == (values is None):
        raise invalid_request("exactly one of [configuration] and [values] must be given")
    if configuration is not None:
        checked = bodies.configuration(configuration)
        return records.change(
            connector_id,
            lambda old: {**old, "configuration": checked, "status": ConnectorStatus.CONFIGURED.value},
            deleted=False,
        )
    given = bodies.mapping(values, "values")

    def how(old: Source) -> Source:
        known = old.get("configuration") or {}
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise invalid_request(
                f"Unknown [configuration] fields in the request payload: [{', '.join(unknown)}]; known are [{', '.join(known)}]"
            )
        filled = {
            name: {**field, "value": bodies.scalar(given[name], f"values.{name}")} if name in given else field
            for name, field in known.items()
        }
        return {**old, "configuration": filled, "status": ConnectorStatus.CONFIGURED.value}

    return records.change(connector_id, how, deleted=False)


def _error(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("error",), "connector_update_error_request")
    bodies.required(body, "error", "connector_update_error_request")
    error = bodies.text(body, "error", "connector_update_error_request")
    return _through(records, connector_id, lambda one: connectors.report_error(one, error), deleted=True)


def _features(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("features",), "connector_update_features_request")
    features = bodies.features(bodies.required(body, "features", "connector_update_features_request"))
    return records.merge(connector_id, {"features": features})


def _filtering(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    what = "connector_update_filtering_request"
    bodies.only(body, ("filtering", "rules", "advanced_snippet"), what)
    draft = [name for name in ("rules", "advanced_snippet") if body.get(name) is not None]
    if ("filtering" in body) == bool(draft):
        raise invalid_request(
            "either [filtering] or a draft of [rules] and [advanced_snippet] must be given, and not both"
        )
    if "filtering" in body:
        entries = bodies.filtering(body["filtering"])
        return records.change(connector_id, lambda old: {**old, "filtering": entries})
    read_draft = read_rules({name: body[name] for name in draft})
    rules = None
    if "rules" in draft:
        bodies.rules(body["rules"], "rules")
        rules = read_draft.rules
    snippet = None
    if "advanced_snippet" in draft:
        bodies.advanced_snippet(body["advanced_snippet"], "advanced_snippet")
        snippet = read_draft.advanced_snippet
    return _through(
        records, connector_id, lambda one: drafts.edit_draft(one, moment, rules=rules, advanced_snippet=snippet)
    )


def _filtering_validation(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    what = "connector_update_filtering_validation_request"
    bodies.only(body, ("validation",), what)
    result = bodies.validation(bodies.required(body, "validation", what))

    def how(old: Source) -> Source:
        entries = old.get("filtering") or write_connector(connectors.create(connector_id, moment))["filtering"]
        first = {**entries[0], "draft": {**entries[0].get("draft", {}), "validation": result}}
        return {**old, "filtering": [first, *entries[1:]]}

    return records.change(connector_id, how, deleted=False)


def _filtering_activate(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    return _through(records, connector_id, drafts.activate)


def _index_name(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    what = "connector_update_index_name_request"
    bodies.only(body, ("index_name",), what)
    bodies.required(body, "index_name", what)
    name = bodies.text(body, "index_name", what)
    old = records.get(connector_id)
    if name is not None:
        bodies.index_name(name, native=old.get("is_native") is True)
        _check_index_is_free(records, name, connector_id)
    return records.merge(connector_id, {"index_name": name})


def _last_sync(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    checked = bodies.last_sync(body)
    # The cursor belongs to the source: it is replaced, not mixed with an older one.
    return records.change(connector_id, lambda old: {**old, **checked})


def _name(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    what = "connector_update_name_request"
    bodies.only(body, ("name", "description"), what)
    part: Source = {name: bodies.text(body, name, what) for name in ("name", "description") if name in body}
    if not any(value is not None for value in part.values()):
        raise invalid_request("[name] and [description] cannot both be missing")
    return records.merge(connector_id, part)


def _native(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("is_native",), "connector_update_native_request")
    native = bodies.flag(body, "is_native", "connector_update_native_request")
    old = records.get(connector_id)
    if native and old.get("index_name") is not None:
        bodies.index_name(old["index_name"], native=True)
    return _through(records, connector_id, lambda one: connectors.change_native(one, native))


def _pipeline(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("pipeline",), "connector_update_pipeline_request")
    pipeline = bodies.pipeline(bodies.required(body, "pipeline", "connector_update_pipeline_request"))
    return records.merge(connector_id, {"pipeline": pipeline})


def _scheduling(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("scheduling",), "connector_update_scheduling_request")
    scheduling = bodies.scheduling(bodies.required(body, "scheduling", "connector_update_scheduling_request"))
    return records.merge(connector_id, {"scheduling": scheduling})


def _service_type(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    what = "connector_update_service_type_request"
    bodies.only(body, ("service_type",), what)
    service_type = bodies.required(body, "service_type", what)
    if not isinstance(service_type, str) or not service_type:
        raise bodies.wrong(f"[{what}] [service_type] must be text")
    return _through(records, connector_id, lambda one: connectors.change_service_type(one, service_type))


def _status(records: Records, connector_id: str, body: bodies.Body, moment: datetime) -> str:
    bodies.only(body, ("status",), "connector_update_status_request")
    value = bodies.required(body, "status", "connector_update_status_request")
    wanted = ConnectorStatus(bodies.choice(value, [status.value for status in ConnectorStatus], "status"))
    return _through(records, connector_id, lambda one: connectors.change_status(one, wanted))


_CHANGES: tuple[tuple[str, Change, bool], ...] = (
    ("_check_in", _check_in, False),
    ("_api_key_id", _api_key_id, True),
    ("_configuration", _configuration, True),
    ("_error", _error, True),
    ("_features", _features, True),
    ("_filtering", _filtering, True),
    ("_filtering/_validation", _filtering_validation, True),
    ("_filtering/_activate", _filtering_activate, False),
    ("_index_name", _index_name, True),
    ("_last_sync", _last_sync, True),
    ("_name", _name, True),
    ("_native", _native, True),
    ("_pipeline", _pipeline, True),
    ("_scheduling", _scheduling, True),
    ("_service_type", _service_type, True),
    ("_status", _status, True),
)
_LIST: frozenset[str] = frozenset(
    {"from", "size", "index_name", "connector_name", "service_type", "query", "include_deleted"}
)

ROUTES = (
    Route("PUT", "/_connector/{id}", create, "manage_connector"),
    Route("PUT", "/_connector", create, "manage_connector"),
    Route("POST", "/_connector", create, "manage_connector"),
    Route("GET", "/_connector/{id}", get, "monitor_connector", frozenset({"include_deleted"})),
    Route("GET", "/_connector", list_all, "monitor_connector", _LIST),
    Route("DELETE", "/_connector/{id}", delete, "manage_connector", frozenset({"delete_sync_jobs", "hard"})),
    *(
        Route("PUT", f"/_connector/{{id}}/{path}", changing(change, body_needed=needs), "manage_connector")
        for path, change, needs in _CHANGES
    ),
)
