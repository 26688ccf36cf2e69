"""`_ingest/pipeline`: put, get, delete, simulate."""

from __future__ import annotations

from typing import Any

from ...runtime import now
from ..engine import Engine
from ..errors import ApiError, illegal_argument, resource_not_found
from ..http.messages import Request, Response
from ..http.routing import Route
from ..ingest.run import Ingest, read_pipeline
from ..storage.catalog import Transaction
from ..storage.names import matches

_SIMULATED_MAX = 1000


async def put(engine: Engine, request: Request) -> Response:
    """PUT `_ingest/pipeline/{id}`: everything in it is read now, so that no document finds out later."""
    name, body = request.arguments["id"], request.required_json()
    read_pipeline(name, body)
    guard = request.integer("if_version")

    def change(transaction: Transaction) -> None:
        known = transaction.things["pipeline"].get(name)
        if guard is not None and (known or {}).get("version") != guard:
            raise illegal_argument(
                f"version conflict, required version [{guard}] for pipeline [{name}] but current version is [{(known or {}).get('version')}]"
            )
        transaction.put("pipeline", name, body)

    await engine.database.write(change)
    return Response({"acknowledged": True})


async def get(engine: Engine, request: Request) -> Response:
    """GET `_ingest/pipeline`: an empty object with 404 if a name is not there, as Elasticsearch answers."""
    asked = request.arguments.get("id", "*").split(",")
    found = {
        name: body
        for name, body in engine.catalog.names("pipeline").items()
        if any(matches(one, name) for one in asked)
    }
    if request.flag("summary"):
        found = {name: {key: body[key] for key in ("description",) if key in body} for name, body in found.items()}
    return Response(found, 200 if found or "id" not in request.arguments or "*" in request.arguments["id"] else 404)


async def delete(engine: Engine, request: Request) -> Response:
    """DELETE `_ingest/pipeline/{id}`."""
    asked = request.arguments["id"]

    def change(transaction: Transaction) -> None:
        gone = [name for name in transaction.things["pipeline"] if matches(asked, name)]
        if not gone and asked != "*":
            raise resource_not_found(f"pipeline [{asked}] is missing")
        for index in transaction.indices.values():
            for setting in ("default_pipeline", "final_pipeline"):
                if index.settings.get(setting) in gone:
                    raise illegal_argument(
                        f"pipeline [{index.settings[setting]}] cannot be deleted because it is the {setting.replace('_', ' ')} "
                        f"for 1 index(es) including [{index.name}]"
                    )
        for name in gone:
            transaction.remove("pipeline", name)

    await engine.database.write(change)
    return Response({"acknowledged": True})


async def simulate(engine: Engine, request: Request) -> Response:
    """POST `_ingest/pipeline/_simulate`."""
    body = request.required_json()
    unknown = body.keys() - {"docs", "pipeline"}
    if unknown:
        raise illegal_argument(f"unknown key [{min(unknown)}] in a simulation")
    docs = body.get("docs")
    if not isinstance(docs, list) or not docs:
        raise ApiError(400, "parse_exception", "[docs] required property is missing", property_name="docs")
    if len(docs) > _SIMULATED_MAX:
        raise illegal_argument(f"a simulation takes at most {_SIMULATED_MAX} documents")
    name = request.arguments.get("id")
    stored = engine.catalog.names("pipeline")
    if "pipeline" in body:
        pipeline = read_pipeline("_simulate_pipeline", body["pipeline"])
    elif name is None:
        raise ApiError(400, "parse_exception", "[pipeline] required property is missing", property_name="pipeline")
    elif name not in stored:
        raise illegal_argument(f"pipeline [{name}] does not exist")
    else:
        pipeline = read_pipeline(name, stored[name])
    moment = now()
    ingest = Ingest(engine.catalog, engine.attachment_reader, moment)
    answers: list[Any] = []
    for doc in docs:
        if not isinstance(doc, dict) or not isinstance(doc.get("_source"), dict):
            raise ApiError(400, "parse_exception", "[_source] required property is missing", property_name="_source")
        index, doc_id = str(doc.get("_index", "_index")), str(doc.get("_id", "_id"))
        try:
            done = await ingest.simulate(pipeline, index, doc_id, doc["_source"])
        except ApiError as error:
            answers.append({"error": error.body()["error"]})
            continue
        if done is None:
            answers.append(None)
            continue
        answers.append(
            {
                "doc": {
                    "_index": done.index,
                    "_version": "-3",
                    "_id": done.doc_id,
                    "_source": done.source,
                    "_ingest": {"timestamp": moment.isoformat().replace("+00:00", "Z")},
                }
            }
        )
    return Response({"docs": answers})


_TIMEOUTS = frozenset({"timeout", "master_timeout"})

ROUTES = (
    Route("PUT", "/_ingest/pipeline/{id}", put, "manage_pipelines", _TIMEOUTS | {"if_version"}),
    Route("GET", "/_ingest/pipeline", get, "read_pipelines", _TIMEOUTS | {"summary"}),
    Route("GET", "/_ingest/pipeline/{id}", get, "read_pipelines", _TIMEOUTS | {"summary"}),
    Route("DELETE", "/_ingest/pipeline/{id}", delete, "manage_pipelines", _TIMEOUTS),
    *(
        Route(method, path, simulate, "read_pipelines")
        for method in ("GET", "POST")
        for path in ("/_ingest/pipeline/_simulate", "/_ingest/pipeline/{id}/_simulate")
    ),
)
