"""With the `_connector` API the store calls it where it may; without it, it writes to the indices and never asks again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from callboard.protocol.documents import read_connector
from callboard.protocol.store import Incomplete, open_store

from .conftest import PRODUCT, Answer, ScriptedServer

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NO_HANDLER = Answer(400, {"error": "no handler found for uri [/_connector/c] and method [PUT]", "status": 400})
CONNECTOR = {"index_name": "library", "service_type": "dir", "status": "configured", "unknown": 1}


def stored(source: dict[str, Any], document_id: str = "c") -> Answer:
    return Answer(200, {"_id": document_id, "_seq_no": 3, "_primary_term": 1, "found": True, "_source": source})


def written() -> Answer:
    return Answer(200, {"result": "updated", "_seq_no": 4, "_primary_term": 1})


def calls(server: ScriptedServer) -> list[tuple[str, str]]:
    return [(asked.method, asked.path) for asked in server.asked]


async def test_a_heartbeat_goes_through_the_api(server: ScriptedServer) -> None:
    server.answers(Answer(200, {"result": "updated"}))
    async with open_store(server.target(), wait_s=None) as store:
        await store.connectors.check_in("a/b")
    assert server.asked[0].path == "/_connector/a/b/_check_in"
    assert calls(server) == [("PUT", "/_connector/a/b/_check_in")]


async def test_a_server_without_the_api_is_asked_for_it_once(server: ScriptedServer) -> None:
    server.answers(NO_HANDLER, stored(CONNECTOR), written(), stored(CONNECTOR), written())
    async with open_store(server.target(), wait_s=None) as store:
        await store.connectors.check_in("c")
        await store.connectors.check_in("c")
    index = "/.elastic-connectors"
    assert calls(server) == [
        ("PUT", "/_connector/c/_check_in"),
        ("GET", f"{index}/_doc/c"),
        ("POST", f"{index}/_update/c"),
        ("GET", f"{index}/_doc/c"),
        ("POST", f"{index}/_update/c"),
    ]
    assert "if_seq_no=3" in server.asked[2].query
    assert "if_primary_term=1" in server.asked[2].query
    assert set(json.loads(server.asked[2].body)["doc"]) == {"last_seen"}


async def test_index_mode_never_asks_for_the_api(server: ScriptedServer) -> None:
    server.answers(stored(CONNECTOR), written())
    async with open_store(server.target(use_connectors_api=False), wait_s=None) as store:
        await store.connectors.check_in("c")
    assert [path for _, path in calls(server) if path.startswith("/_connector")] == []


JOBS = "/.elastic-connectors-sync-jobs"
NO_JOBS = Answer(200, {"hits": {"hits": []}})


def job_hit(job_id: str) -> dict[str, Any]:
    source = {"status": "pending", "connector": {"id": "c"}, "job_type": "full"}
    return {"_id": job_id, "_source": source, "sort": [1]}


async def test_a_job_is_made_by_the_server(server: ScriptedServer) -> None:
    connector = read_connector("c", CONNECTOR)
    server.answers(NO_JOBS, Answer(201, {"id": "j"}), stored({"status": "pending", "connector": {"id": "c"}}, "j"))
    async with open_store(server.target(), wait_s=None) as store:
        assert (await store.jobs.create(connector)).id == "j"
    assert calls(server) == [("POST", f"{JOBS}/_search"), ("POST", "/_connector/_sync_job"), ("GET", f"{JOBS}/_doc/j")]
    assert json.loads(server.asked[1].body) == {"id": "c", "job_type": "full", "trigger_method": "on_demand"}


async def test_a_job_whose_making_was_not_answered_is_looked_for(server: ScriptedServer) -> None:
    before = Answer(200, {"hits": {"hits": [job_hit("old")]}})
    after = Answer(200, {"hits": {"hits": [job_hit("old"), job_hit("new")]}})
    server.answers(before, Answer(503), after)
    async with open_store(server.target(), wait_s=None) as store:
        assert (await store.jobs.create(read_connector("c", CONNECTOR))).id == "new"


async def test_a_job_that_was_not_made_is_made_in_the_index(server: ScriptedServer) -> None:
    server.answers(NO_JOBS, Answer(503), NO_JOBS, Answer(201, {"result": "created"}))
    async with open_store(server.target(), wait_s=None) as store:
        job = await store.jobs.create(read_connector("c", CONNECTOR))
    assert [path for _, path in calls(server)].count("/_connector/_sync_job") == 1
    assert calls(server)[-1] == ("PUT", f"{JOBS}/_create/{job.id}")


@pytest.mark.parametrize(
    "partial",
    [
        {"_shards": {"failed": 1}, "hits": {"hits": []}},
        {"timed_out": True, "hits": {"hits": []}},
    ],
)
async def test_a_partial_answer_never_passes_for_a_listing(server: ScriptedServer, partial: dict[str, Any]) -> None:
    server.answers(Answer(200, partial))
    async with open_store(server.target(), wait_s=None) as store:
        listing = store.connectors.list()
        with pytest.raises(Incomplete, match="incomplete"):
            await anext(listing)
        count = Answer(200, {"count": 1, "_shards": {"failed": 1}}, dict(PRODUCT))
        server.answers(count)
        with pytest.raises(Incomplete):
            await store.content.count("x")
        server.answers(Answer(200, {"deleted": 1, "failures": [{"id": "a"}]}))
        with pytest.raises(Incomplete, match="1 failed"):
            await store.content.delete_by_query("x", {"match_all": {}})
        server.answers(Answer(200, {"took": 1}))
        with pytest.raises(Incomplete):
            await store.content.bulk(b"", index="x")


async def test_licence_levels_are_ordered_and_an_expired_one_allows_nothing(server: ScriptedServer) -> None:
    async with open_store(server.target(), wait_s=None) as store:
        for kind, status, allowed in (
            ("basic", "active", ["basic"]),
            ("platinum", "active", ["basic", "gold", "platinum"]),
            ("trial", "active", ["basic", "gold", "platinum", "enterprise", "trial"]),
            ("enterprise", "expired", []),
        ):
            server.answers(Answer(200, {"license": {"type": kind, "status": status}}))
            licence = await store.rights.licence()
            assert licence is not None
            levels = ["basic", "gold", "platinum", "enterprise", "trial"]
            assert [level for level in levels if licence.allows(level)] == allowed
        server.answers(Answer(404, {"error": "no license"}))
        assert await store.rights.licence() is None


async def test_missing_privileges_are_named(server: ScriptedServer) -> None:
    held = {
        "has_all_requested": False,
        "cluster": {"monitor": True, "manage_connector": False},
        "index": {"library": {"read": True, "write": False}},
    }
    server.answers(Answer(200, held))
    async with open_store(server.target(), wait_s=None) as store:
        found = await store.rights.privileges(
            cluster=["monitor", "manage_connector"], index={"library": ["read", "write"]}
        )
        assert found is not None
        assert not found.suffices
        assert str(found) == "missing: cluster privilege manage_connector; write on library"
        server.answers(NO_HANDLER)
        assert await store.rights.privileges(cluster=["monitor"]) is None
