"""Who may do what on a node with users."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from callboard.node import ExposedNode, Role, User, open_node

ADMIN, READER, NOBODY, WRITER = "admin", "reader", "nobody", "writer"


def basic(name: str, password: str = "pw") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.fixture
async def guarded(make_raw: Any) -> AsyncIterator[dict[str, Any]]:
    users = [
        User(ADMIN, "pw", ("superuser",)),
        User(READER, "pw", ("viewer",)),
        User(NOBODY, "pw"),
        User(WRITER, "pw", ("writes-books", "secrets")),
    ]
    roles = {
        "writes-books": Role.of(("monitor",), {"books*": ("write", "create_index")}),
        "secrets": Role.of(("read_connector_secrets", "write_connector_secrets", "manage_own_api_key")),
    }
    async with open_node(port=None, users=users, roles=roles) as node:
        yield {name: make_raw(node.app, basic(name)) for name in (ADMIN, READER, NOBODY, WRITER)} | {
            "unknown": make_raw(node.app)
        }


CONNECTOR = {"index_name": "search-1-test", "service_type": "x"}


async def test_without_or_with_wrong_credentials_nobody_comes_in(guarded):
    app = guarded["unknown"]
    missing = await app("GET", "/")
    assert (missing.status, missing.kind) == (401, "security_exception")
    assert "Basic" in missing.headers["www-authenticate"]
    for headers in (
        basic(ADMIN, "wrong"),
        basic("stranger"),
        {"authorization": "Basic !!"},
        {"authorization": "Bearer x"},
        {"authorization": "ApiKey eDp5"},
    ):
        assert (await app("GET", "/", headers=headers)).status == 401
    for method, path, body in (
        ("GET", "/_connector/_secret/x", None),
        ("POST", "/_connector/_secret", {"value": "x"}),
        ("PUT", "/_connector/c", CONNECTOR),
    ):
        assert (await app(method, path, body, headers=basic(WRITER, "wrong"))).status == 401


async def test_a_reader_reads_connectors_and_changes_nothing(guarded):
    admin, reader, nobody = guarded[ADMIN], guarded[READER], guarded[NOBODY]
    assert (await reader("PUT", "/_connector/c", CONNECTOR)).status == 403  # P13
    assert (await reader("POST", "/_connector", CONNECTOR)).status == 403
    assert (await admin("PUT", "/_connector/c", CONNECTOR)).status == 201
    assert (await reader("POST", "/_connector/_sync_job", {"id": "c"})).status == 403  # J8
    job = (await admin("POST", "/_connector/_sync_job", {"id": "c"})).json["id"]
    origin = {"X-elastic-product-origin": "connectors"}
    assert (await reader("GET", "/_connector", headers=origin)).json["count"] == 1  # L11
    assert (await nobody("GET", "/_connector")).status == 403  # L12
    assert (await reader("GET", f"/_connector/_sync_job/{job}")).status == 200
    assert (await nobody("GET", f"/_connector/_sync_job/{job}")).status == 403
    assert (await reader("DELETE", f"/_connector/_sync_job/{job}")).status == 403
    assert (await admin("DELETE", f"/_connector/_sync_job/{job}")).status == 200
    refused = await reader("DELETE", "/_connector/c")  # D7
    assert (refused.status, refused.kind) == (403, "security_exception")
    assert "manage_connector" in refused.reason
    assert (await reader("GET", "/_connector/c")).status == 200
    assert (await admin("DELETE", "/_connector/c")).status == 200


async def test_two_privileges_are_enough_for_secrets(guarded):
    writer, reader = guarded[WRITER], guarded[READER]
    made = await writer("POST", "/_connector/_secret", {"value": "v"})
    path = f"/_connector/_secret/{made.json['id']}"
    assert (await writer("GET", path)).json["value"] == "v"
    assert (await reader("GET", path)).status == 403
    assert (await writer("PUT", path, {"value": "w"})).json == {"result": "updated"}
    assert (await writer("DELETE", path)).json == {"deleted": True}


async def test_privileges_on_indices_follow_their_names(guarded):
    admin, writer, reader = guarded[ADMIN], guarded[WRITER], guarded[READER]
    assert (await writer("PUT", "/books-1/_doc/1", {"a": 1})).status == 201
    assert (await writer("PUT", "/other/_doc/1", {"a": 1})).status == 403
    assert (await writer("GET", "/other/_search")).status == 403
    assert (await writer("DELETE", "/books-1")).status == 403
    assert (await reader("GET", "/books-1/_search")).json["hits"]["total"]["value"] == 1
    assert (await reader("PUT", "/books-1/_doc/2", {"a": 1})).status == 403
    lines = b'{"index":{"_index":"books-2","_id":"1"}}\n{}\n{"index":{"_index":"other","_id":"1"}}\n{}\n'
    answer = await writer("POST", "/_bulk", lines)
    assert [item["index"]["status"] for item in answer.json["items"]] == [201, 403]
    assert (await admin("HEAD", "/other")).status == 404
    docs = {"docs": [{"_index": "books-1", "_id": "1"}, {"_index": "secret", "_id": "1"}]}
    assert (await reader("POST", "/_mget", docs)).json["docs"][0]["found"] is True
    assert (await writer("POST", "/_mget", docs)).json["docs"][1]["error"]["type"] == "security_exception"


async def test_a_point_in_time_is_allowed_when_it_is_opened(guarded):
    admin, writer, reader = guarded[ADMIN], guarded[WRITER], guarded[READER]
    await admin("PUT", "/books-1/_doc/1", {"a": 1})
    assert (await writer("POST", "/books-1/_pit?keep_alive=1m")).status == 403
    pit = (await reader("POST", "/books-1/_pit?keep_alive=1m")).json["id"]
    assert (await reader("POST", "/_search", {"pit": {"id": pit}})).json["hits"]["total"]["value"] == 1
    assert (await writer("POST", "/_search", {"query": {"match_all": {}}})).status == 403
    # Mentioning a point in time is not having one.
    assert (await writer("POST", "/_search", {"query": {"term": {"pit": "x"}}})).status == 403
    assert (await writer("POST", "/books-1/_search", {"pit": {"id": "x"}})).status == 403


async def key_of(raw: Any, **body: Any) -> dict[str, Any]:
    answer = await raw("POST", "/_security/api_key", {"name": "k", **body})
    assert answer.status == 200, answer.json
    return answer.json


async def test_api_keys_do_what_both_their_owner_and_their_roles_allow(guarded):
    admin, writer, unknown = guarded[ADMIN], guarded[WRITER], guarded["unknown"]
    roles = {"only": {"cluster": ["monitor"], "indices": [{"names": ["books*", "other"], "privileges": ["all"]}]}}
    made = await key_of(writer, role_descriptors=roles)
    assert base64.b64decode(made["encoded"]).decode() == f"{made['id']}:{made['api_key']}"
    key = {"authorization": f"ApiKey {made['encoded']}"}
    assert (await unknown("PUT", "/books-1/_doc/1", {"a": 1}, headers=key)).status == 201
    assert (await unknown("PUT", "/other/_doc/1", {"a": 1}, headers=key)).status == 403
    assert (await unknown("POST", "/_connector/_secret", {"value": "v"}, headers=key)).status == 403
    who = (await unknown("GET", "/_security/_authenticate", headers=key)).json
    assert (who["username"], who["authentication_type"], who["api_key"]["id"]) == (WRITER, "api_key", made["id"])
    listed = (await writer("GET", f"/_security/api_key?id={made['id']}")).json["api_keys"]
    assert listed[0]["role_descriptors"] == roles
    assert "hash" not in listed[0]
    assert (await guarded[READER]("POST", "/_security/api_key", {"name": "k"})).status == 403
    assert (await guarded[READER]("DELETE", "/_security/api_key", {"ids": [made["id"]]})).status == 403
    gone = (await admin("DELETE", "/_security/api_key", {"ids": [made["id"]]})).json
    assert gone["invalidated_api_keys"] == [made["id"]]
    assert (await unknown("GET", "/", headers=key)).status == 401


async def test_api_keys_run_out(guarded):
    made = await key_of(guarded[ADMIN], expiration="1nanos")
    assert (await guarded["unknown"]("GET", "/", headers={"authorization": f"ApiKey {made['encoded']}"})).status == 401


async def test_a_key_without_roles_is_its_owner(guarded):
    made = await key_of(guarded[ADMIN])
    key = {"authorization": f"ApiKey {made['encoded']}"}
    assert (await guarded["unknown"]("PUT", "/_connector/c", CONNECTOR, headers=key)).status == 201


async def test_one_can_ask_what_one_may(guarded):
    body = {
        "cluster": ["monitor", "manage_connector"],
        "index": [{"names": ["books-1", "other"], "privileges": ["write", "index", "read"]}],
    }
    answer = (await guarded[WRITER]("POST", "/_security/user/_has_privileges", body)).json
    assert answer == {
        "username": WRITER,
        "has_all_requested": False,
        "cluster": {"monitor": True, "manage_connector": False},
        "index": {
            "books-1": {"write": True, "index": True, "read": False},
            "other": {"write": False, "index": False, "read": False},
        },
        "application": {},
    }
    assert (await guarded[ADMIN]("POST", "/_security/user/_has_privileges", body)).json["has_all_requested"] is True


async def test_an_open_node_lets_everybody_in_and_says_so(raw):
    who = (await raw("GET", "/_security/_authenticate")).json
    assert (who["username"], who["authentication_type"]) == ("_anonymous", "anonymous")
    assert (await raw("GET", "/_xpack")).json["features"]["security"]["enabled"] is False
    assert (await raw("GET", "/", headers=basic("anybody"))).status == 200
    made = (await raw("POST", "/_security/api_key", {"name": "k"})).json
    assert (await raw("GET", "/", headers={"authorization": f"ApiKey {made['encoded']}"})).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "k", "wonder": 1},
        {"name": "k", "role_descriptors": []},
        {"name": "k", "expiration": "soon"},
    ],
)
async def test_bad_keys_are_refused(guarded, body):
    assert (await guarded[ADMIN]("POST", "/_security/api_key", body)).status == 400


async def test_a_user_with_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="wonder"):
        async with open_node(port=None, users=[User("x", "y", ("wonder",))]):
            pass


async def test_only_a_node_with_users_or_permission_leaves_loopback():
    with pytest.raises(ExposedNode, match="no users"):
        async with open_node(host="0.0.0.0"):
            pass
    async with open_node(host="0.0.0.0", users=[User("x", "y", ("superuser",))]) as node:
        assert node.url is not None
    async with open_node(host="0.0.0.0", allow_exposed=True) as node:
        assert node.url is not None
