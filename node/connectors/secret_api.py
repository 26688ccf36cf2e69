"""`_connector/_secret`: values that no search reaches."""

from __future__ import annotations

from typing import Any

from ...runtime import new_id
from ..engine import Engine
from ..errors import invalid_request, resource_not_found
from ..http.messages import Request, Response
from ..http.routing import Route
from ..storage.catalog import Transaction
from . import bodies


def _value(request: Request) -> str:
    body = request.required_json()
    bodies.only(body, ("value",), "connector_secret_request")
    value = body.get("value")
    if value is None or value == "":
        raise invalid_request("[value] of the connector secret cannot be null or empty")
    if not isinstance(value, str):
        raise bodies.wrong("[connector_secret_request] [value] must be text")
    return value


async def post(engine: Engine, request: Request) -> Response:
    """POST `_connector/_secret`."""
    value, secret_id = _value(request), new_id()[:20]
    await engine.database.write(_put, secret_id, value)
    return Response({"id": secret_id})


def _put(transaction: Transaction, secret_id: str, value: str) -> str:
    known = secret_id in transaction.things["secret"]
    transaction.put("secret", secret_id, {"value": value})
    return "updated" if known else "created"


async def put(engine: Engine, request: Request) -> Response:
    """PUT `_connector/_secret/{id}`."""
    result = await engine.database.write(_put, request.arguments["id"], _value(request))
    return Response({"result": result}, 201 if result == "created" else 200)


async def get(engine: Engine, request: Request) -> Response:
    """GET `_connector/_secret/{id}`."""
    secret_id = request.arguments["id"]
    held: Any = engine.catalog.names("secret").get(secret_id)
    if held is None:
        raise resource_not_found(f"No secret with id [{secret_id}]")
    return Response({"id": secret_id, "value": held["value"]})


async def delete(engine: Engine, request: Request) -> Response:
    """DELETE `_connector/_secret/{id}`."""
    secret_id = request.arguments["id"]

    def change(transaction: Transaction) -> None:
        if secret_id not in transaction.things["secret"]:
            raise resource_not_found(f"No secret with id [{secret_id}]")
        transaction.remove("secret", secret_id)

    await engine.database.write(change)
    return Response({"deleted": True})


ROUTES = (
    Route("POST", "/_connector/_secret", post, "write_connector_secrets"),
    Route("PUT", "/_connector/_secret/{id}", put, "write_connector_secrets"),
    Route("GET", "/_connector/_secret/{id}", get, "read_connector_secrets"),
    Route("DELETE", "/_connector/_secret/{id}", delete, "write_connector_secrets"),
)
