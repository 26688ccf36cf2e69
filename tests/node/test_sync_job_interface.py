"""Sync jobs and secrets of the connector interface, case by case."""

from __future__ import annotations

from typing import Any

import pytest

CONNECTOR = {"index_name": "search-1-test", "name": "n", "language": "pl", "service_type": "super-connector"}


@pytest.fixture
async def connector(raw) -> str:
    await raw("PUT", "/_connector/c", CONNECTOR)
    return "c"


@pytest.fixture
async def job(raw, connector) -> str:
    return str((await raw("POST", "/_connector/_sync_job", {"id": "c"})).json["id"])


async def get(raw, job_id: str) -> dict[str, Any]:
    answer = await raw("GET", f"/_connector/_sync_job/{job_id}")
    assert answer.status == 200, answer.json
    return answer.json


async def change(raw, job_id: str, what: str, body: Any = None) -> Any:
    return await raw("PUT", f"/_connector/_sync_job/{job_id}/{what}", body)


async def test_j1_a_job_begins_pending(raw, connector):
    body = {"id": "c", "job_type": "full", "trigger_method": "on_demand"}
    made = await raw("POST", "/_connector/_sync_job", body)
    assert made.status == 201
    job = await get(raw, made.json["id"])
    assert job["id"] == made.json["id"]
    assert (job["connector"]["id"], job["status"], job["job_type"], job["trigger_method"]) == (
        "c",
        "pending",
        "full",
        "on_demand",
    )
    for count in (
        "deleted_document_count",
        "indexed_document_count",
        "indexed_document_volume",
        "total_document_count",
    ):
        assert job[count] == 0
    assert job["metadata"] == {}
    assert job["created_at"] == job["last_seen"]
    assert job["connector"]["index_name"] == "search-1-test"
    assert job["connector"]["language"] == "pl"
    assert job["connector"]["service_type"] == "super-connector"


async def test_j2_j3_a_job_remembers_its_connector(raw, connector):
    stamp = "2023-05-25T12:30:00.000Z"
    rule = {"id": "R", "field": "name", "rule": "equals", "value": "x", "policy": "exclude", "order": 0}
    snippet = {"value": {"a": 1}, "created_at": stamp, "updated_at": stamp}
    rules = {"advanced_snippet": snippet, "rules": [rule], "validation": {"state": "valid", "errors": []}}
    await raw("PUT", "/_connector/c/_filtering", {"filtering": [{"active": rules, "draft": rules}]})
    pipeline = {"name": "p", "extract_binary_content": False, "reduce_whitespace": True, "run_ml_inference": False}
    await raw("PUT", "/_connector/c/_pipeline", {"pipeline": pipeline})
    await raw("PUT", "/_connector/c/_configuration", {"configuration": {"one": {"label": "L", "value": "v"}}})
    made = await raw("POST", "/_connector/_sync_job", {"id": "c"})
    remembered = (await get(raw, made.json["id"]))["connector"]
    assert remembered["filtering"]["rules"][0]["id"] == "R"
    assert remembered["filtering"]["rules"][0]["rule"] == "equals"
    assert remembered["filtering"]["validation"]["state"] == "valid"
    assert remembered["filtering"]["advanced_snippet"]["created_at"].startswith("2023-05-25T12:30:00")
    assert remembered["pipeline"] == pipeline
    assert remembered["configuration"]["one"]["value"] == "v"


async def test_j4_defaults(raw, job):
    shown = await get(raw, job)
    assert (shown["job_type"], shown["trigger_method"]) == ("full", "on_demand")


async def test_access_control_jobs_write_to_the_index_of_identities(raw, connector):
    made = await raw(
        "POST", "/_connector/_sync_job", {"id": "c", "job_type": "access_control", "trigger_method": "scheduled"}
    )
    shown = await get(raw, made.json["id"])
    assert shown["connector"]["index_name"] == ".search-acl-filter-search-1-test"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "none"}, 404),  # J5
        ({"id": "c", "job_type": "wonder"}, 400),  # J6
        ({"id": "c", "trigger_method": "wonder"}, 400),
        ({"id": "no-index"}, 400),  # J7
        ({"id": "no-type"}, 400),
        ({"id": "deleted"}, 404),
        ({"id": ""}, 400),
        ({"id": None}, 400),
        ({"id": 7}, 400),
        ({}, 400),
        (None, 400),
        ({"id": "c", "wonder": 1}, 400),
        ([], 400),
    ],
    ids=str,
)
async def test_j5_to_j7_what_makes_no_job(raw, connector, body, status):
    await raw("PUT", "/_connector/no-index", {"service_type": "x"})
    await raw("PUT", "/_connector/no-type", {"index_name": "search-2"})
    await raw("PUT", "/_connector/deleted", {"index_name": "search-3", "service_type": "x"})
    await raw("DELETE", "/_connector/deleted")
    assert (await raw("POST", "/_connector/_sync_job", body)).status == status
    assert (await raw("GET", "/_connector/_sync_job")).json["count"] == 0


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("_cancel", None),
        ("_check_in", None),
        ("_claim", {"worker_hostname": "w"}),
        ("_error", {"error": "e"}),
        ("_stats", {"deleted_document_count": 0, "indexed_document_count": 0, "indexed_document_volume": 0}),
    ],
)
async def test_every_change_needs_a_job_that_exists(raw, job, what, body):
    missing = await change(raw, "none", what, body)
    assert (missing.status, missing.kind) == (404, "resource_not_found_exception")
    assert "none" in missing.reason
    assert (await change(raw, "", what, body)).status == 400
    if body is not None:
        before = await get(raw, job)
        for wrong in (None, {}, {**body, "wonder": 1}, b"[]", {name: {"an": "object"} for name in body}):
            assert (await change(raw, job, what, wrong)).status == 400
        assert await get(raw, job) == before


async def test_get_and_delete(raw, job):
    assert (await raw("GET", "/_connector/_sync_job/none")).status == 404
    assert (await raw("DELETE", "/_connector/_sync_job/none")).status == 404
    assert (await raw("DELETE", f"/_connector/_sync_job/{job}")).json == {"acknowledged": True}
    assert (await raw("GET", f"/_connector/_sync_job/{job}")).status == 404


async def test_lists(raw, connector):
    await raw("PUT", "/_connector/d", {"index_name": "search-d", "service_type": "x"})
    bodies = [{"id": "c"}, {"id": "c", "job_type": "access_control"}, {"id": "d", "job_type": "incremental"}]
    jobs = [(await raw("POST", "/_connector/_sync_job", body)).json["id"] for body in bodies]
    # Two may fall into one millisecond, which is all a date holds; the stamps themselves are in order.
    await raw(
        "POST", f"/.elastic-connectors-sync-jobs/_update/{jobs[0]}", {"doc": {"created_at": "2024-01-01T00:00:00Z"}}
    )
    await raw(
        "POST", f"/.elastic-connectors-sync-jobs/_update/{jobs[1]}", {"doc": {"created_at": "2024-01-02T00:00:00Z"}}
    )
    await change(raw, jobs[1], "_cancel")

    async def listed(query: str) -> tuple[int, list[str]]:
        answer = (await raw("GET", f"/_connector/_sync_job?{query}")).json
        return answer["count"], [one["id"] for one in answer["results"]]

    assert await listed("") == (3, jobs[::-1])
    assert await listed("from=1") == (3, [jobs[1], jobs[0]])
    assert await listed("size=1") == (3, [jobs[2]])
    assert await listed("status=pending") == (2, [jobs[2], jobs[0]])
    assert await listed("status=canceled") == (1, [jobs[1]])
    assert await listed("connector_id=d") == (1, [jobs[2]])
    assert await listed("job_type=full") == (1, [jobs[0]])
    assert await listed("job_type=full,access_control") == (2, [jobs[1], jobs[0]])
    assert await listed("job_type=access_control&status=pending") == (0, [])
    assert (await raw("GET", "/_connector/_sync_job?status=wonderful")).status == 400
    assert (await raw("GET", "/_connector/_sync_job?job_type=wonder")).status == 400


async def test_cancelling(raw, job):
    assert (await change(raw, job, "_cancel")).json == {"result": "updated"}
    shown = await get(raw, job)
    assert shown["status"] == "canceled"
    assert shown["completed_at"] == shown["canceled_at"] == shown["cancelation_requested_at"]
    assert (await change(raw, job, "_cancel")).status == 400


async def test_cancelling_a_running_job_asks_its_worker(raw, job):
    await change(raw, job, "_claim", {"worker_hostname": "w"})
    await change(raw, job, "_cancel")
    shown = await get(raw, job)
    assert shown["status"] == "canceling"
    assert "cancelation_requested_at" in shown
    assert "canceled_at" not in shown
    assert (await change(raw, job, "_cancel")).status == 400


async def test_check_in_moves_last_seen(raw, job):
    before = (await get(raw, job))["last_seen"]
    assert (await change(raw, job, "_check_in")).json == {"result": "updated"}
    assert (await get(raw, job))["last_seen"] > before


async def test_claims(raw, job):
    assert (await change(raw, job, "_claim", {"worker_hostname": "w"})).json == {"result": "updated"}
    shown = await get(raw, job)
    assert (shown["status"], shown["worker_hostname"]) == ("in_progress", "w")
    assert shown["started_at"] == shown["last_seen"]
    assert "sync_cursor" not in shown["connector"]
    await change(raw, job, "_claim", {"worker_hostname": "w2", "sync_cursor": {"page": 3}})
    assert (await get(raw, job))["connector"]["sync_cursor"] == {"page": 3}
    assert "sync_cursor" not in (await raw("GET", "/_connector/c")).json
    for wrong in ({}, {"worker_hostname": None}, {"worker_hostname": "w", "sync_cursor": "text"}):
        assert (await change(raw, job, "_claim", wrong)).status == 400


async def test_errors_come_only_from_running_jobs(raw, job):
    assert (await change(raw, job, "_error", {"error": "e"})).status == 400
    await change(raw, job, "_claim", {"worker_hostname": "w"})
    assert (await change(raw, job, "_error", {"error": None})).status == 400
    await change(raw, job, "_error", {"error": "it broke"})
    shown = await get(raw, job)
    assert (shown["status"], shown["error"]) == ("error", "it broke")
    assert "completed_at" not in shown
    assert (await change(raw, job, "_error", {"error": "again"})).status == 400


async def test_stats(raw, job):
    three = {"deleted_document_count": 10, "indexed_document_count": 20, "indexed_document_volume": 1000}
    assert (await change(raw, job, "_stats", three)).json == {"result": "updated"}
    shown = await get(raw, job)
    assert {name: shown[name] for name in three} == three
    assert shown["total_document_count"] == 0
    seen = "2023-12-04T08:45:50.567149Z"
    more = {**three, "total_document_count": 5, "last_seen": seen, "metadata": {"key": "value", "n": 10}}
    await change(raw, job, "_stats", more)
    shown = await get(raw, job)
    assert {name: shown[name] for name in more} == more
    for count in (*three, "total_document_count"):
        assert (await change(raw, job, "_stats", {**more, count: -1})).status == 400
    for metadata in ("text", 7):
        assert (await change(raw, job, "_stats", {**three, "metadata": metadata})).status == 400
    assert (await change(raw, job, "_stats", {**three, "last_seen": "some day"})).status == 400


async def test_secrets(raw):
    made = await raw("POST", "/_connector/_secret", {"value": "s3cret"})
    secret = made.json["id"]
    assert (await raw("GET", f"/_connector/_secret/{secret}")).json == {"id": secret, "value": "s3cret"}
    assert (await raw("PUT", "/_connector/_secret/own", {"value": "one"})).json == {"result": "created"}
    assert (await raw("PUT", "/_connector/_secret/own", {"value": "two"})).json == {"result": "updated"}
    assert (await raw("GET", "/_connector/_secret/own")).json["value"] == "two"
    for wrong in ({"value": None}, {}, {"value": 7}, {"value": "x", "more": 1}, None):
        assert (await raw("POST", "/_connector/_secret", wrong)).status == 400
        assert (await raw("PUT", "/_connector/_secret/own", wrong)).status == 400
    assert (await raw("DELETE", "/_connector/_secret/own")).json == {"deleted": True}
    for method in ("GET", "DELETE"):
        assert (await raw(method, "/_connector/_secret/own")).status == 404
    found = await raw("GET", "/_search?q=s3cret&expand_wildcards=all")
    assert found.json["hits"]["total"]["value"] == 0
