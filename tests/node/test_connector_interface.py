"""The connector interface, case by case: P create, L list, D delete, G configuration, F filtering, and one group per further request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from elasticsearch import AsyncElasticsearch, BadRequestError, NotFoundError

from callboard.node import open_node

FULL = {
    "index_name": "search-1-test",
    "name": "my-connector",
    "language": "pl",
    "is_native": False,
    "service_type": "super-connector",
    "description": "what it is for",
}
FIXTURE = {key: value for key, value in FULL.items() if key != "description"}
DEFAULT_INTERVAL = "0 0 0 * * ?"


@pytest.fixture
async def es() -> AsyncIterator[AsyncElasticsearch]:
    async with open_node(port=0) as opened:
        assert opened.url is not None
        client = AsyncElasticsearch(
            opened.url, node_class="httpxasync", headers={"X-elastic-product-origin": "connectors"}
        )
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
async def connector(raw) -> str:
    await raw("PUT", "/_connector/c", FIXTURE)
    return "c"


async def get(raw, connector_id: str = "c", more: str = "") -> dict[str, Any]:
    answer = await raw("GET", f"/_connector/{connector_id}{more}")
    assert answer.status == 200, answer.json
    return answer.json


async def change(raw, what: str, body: Any = None, connector_id: str = "c") -> Any:
    return await raw("PUT", f"/_connector/{connector_id}/{what}", body)


async def updated(raw, what: str, body: Any = None) -> dict[str, Any]:
    answer = await change(raw, what, body)
    assert (answer.status, answer.json) == (200, {"result": "updated"})
    return await get(raw)


# Create


async def test_p1_a_full_body_comes_back(raw):
    made = await raw("PUT", "/_connector/c", FULL)
    assert (made.status, made.json) == (201, {"result": "created", "id": "c"})
    shown = await get(raw)
    assert {key: shown[key] for key in FULL} == FULL
    assert shown["id"] == "c"


async def test_p2_p4_defaults(raw):
    await raw("PUT", "/_connector/c", {"index_name": "search-1-test"})
    shown = await get(raw)
    assert (shown["is_native"], shown["sync_now"], shown["status"]) == (False, False, "created")
    assert (shown["configuration"], shown["custom_scheduling"]) == ({}, {})
    assert shown["filtering"][0]["domain"] == "DEFAULT"
    rule = shown["filtering"][0]["active"]["rules"][0]
    assert (rule["id"], rule["field"], rule["rule"], rule["value"], rule["policy"], rule["order"]) == (
        "DEFAULT",
        "_",
        "regex",
        ".*",
        "include",
        0,
    )
    assert shown["filtering"][0]["draft"]["validation"] == {"state": "valid", "errors": []}
    off = {"enabled": False, "interval": DEFAULT_INTERVAL}
    assert shown["scheduling"] == {"full": off, "incremental": off, "access_control": off}
    assert shown["deleted"] is False
    for absent in ("api_key_id", "api_key_secret_id", "description", "error", "features", "last_seen", "sync_cursor"):
        assert absent not in shown


async def test_p3_native_connectors_need_configuration(raw):
    await raw("PUT", "/_connector/c", {"index_name": "content-1", "is_native": True})
    shown = await get(raw)
    assert (shown["is_native"], shown["status"]) == (True, "needs_configuration")


async def test_p5_a_second_put_replaces_all(raw):
    await raw("PUT", "/_connector/c", FULL)
    again = await raw("PUT", "/_connector/c", {"index_name": "search-1-test"})
    assert (again.status, again.json) == (200, {"result": "updated", "id": "c"})
    shown = await get(raw)
    assert shown["name"] == ""
    assert "description" not in shown


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize(
    "body",
    [
        {"index_name": "_illegal"},  # P6
        {"index_name": "no-content-prefix", "is_native": True},  # P12
        {"index_name": {"a": 1}},
        {"name": 7},
        {"is_native": "perhaps"},
        {"wonder": True},
        ["a"],
    ],
    ids=str,
)
async def test_p6_p12_bad_bodies_are_refused(raw, method, body):
    path = "/_connector/c" if method == "PUT" else "/_connector"
    assert (await raw(method, path, body)).status == 400
    assert (await raw("GET", "/_connector")).json == {"count": 0, "results": []}


async def test_p8_p9_without_a_body(raw):
    named = await raw("PUT", "/_connector/c")
    assert named.json == {"result": "created", "id": "c"}
    for method in ("PUT", "POST"):
        auto = await raw(method, "/_connector")
        assert (auto.status, auto.json["result"]) == (201, "created")
        assert (await get(raw, auto.json["id"]))["id"] == auto.json["id"]


async def test_p10_an_index_has_one_connector(raw, connector):
    for method, path in (("PUT", "/_connector/other"), ("POST", "/_connector")):
        answer = await raw(method, path, {"index_name": "search-1-test"})
        assert answer.status == 400
        assert "search-1-test" in answer.reason
    await raw("DELETE", "/_connector/c")
    assert (await raw("PUT", "/_connector/other", {"index_name": "search-1-test"})).status == 201


async def test_p11_no_index(raw):
    await raw("PUT", "/_connector/c", {"service_type": "x"})
    shown = await get(raw)
    assert shown.get("index_name") is None
    assert shown["service_type"] == "x"


async def test_post_keeps_what_is_given(raw):
    made = await raw("POST", "/_connector", FULL)
    shown = await get(raw, made.json["id"])
    assert {key: shown[key] for key in FULL} == FULL


# List


@pytest.fixture
async def three(raw) -> None:
    await raw("PUT", "/_connector/a", {**FIXTURE, "name": "my-connector-1", "description": "first of all"})
    await raw(
        "PUT",
        "/_connector/b",
        {"index_name": "content-search-2-test", "name": "my-connector-2", "is_native": True, "service_type": "extra"},
    )
    await raw("PUT", "/_connector/c", {**FIXTURE, "index_name": "search-3-test", "name": "my-connector-3"})


@pytest.mark.parametrize(
    ("query", "count", "wanted"),
    [
        ("", 3, "bac"),  # L1
        ("from=1", 3, "ac"),  # L2
        ("size=2", 3, "ba"),  # L3
        ("index_name=search-1-test", 1, "a"),  # L5
        ("index_name=search-1-test,search-3-test", 2, "ac"),
        ("connector_name=my-connector-1", 1, "a"),  # L7
        ("connector_name=my-connector-1,my-connector-2", 2, "ba"),
        ("index_name=search-1-test,search-3-test&connector_name=my-connector-1,my-connector-2", 1, "a"),  # L8
        ("service_type=super-connector", 2, "ac"),  # L9
        ("service_type=extra", 1, "b"),
        ("service_type=super-connector,extra", 3, "bac"),
        ("query=my-connector-1", 1, "a"),  # L10
        ("query=my-connector", 3, "bac"),
        ("query=search-1-test", 1, "a"),
        ("query=search-", 3, "bac"),
        ("query=first", 1, "a"),
        ("query=*", 0, ""),
        ("include_deleted=true", 3, "bac"),  # L13
    ],
)
async def test_l_lists(raw, three, query, count, wanted):
    answer = await raw("GET", f"/_connector?{query}")
    assert answer.status == 200
    assert answer.json["count"] == count
    assert [one["id"] for one in answer.json["results"]] == list(wanted)


async def test_l4_l14_l15_deleted_ones_are_only_listed_when_asked_for(raw, three):
    await raw("DELETE", "/_connector/a")
    assert (await raw("GET", "/_connector")).json["count"] == 2
    assert (await raw("GET", "/_connector?include_deleted=true")).json["count"] == 3
    for connector_id in ("b", "c"):
        await raw("DELETE", f"/_connector/{connector_id}")
    assert (await raw("GET", "/_connector")).json == {"count": 0, "results": []}
    for paging, wanted in (("", "bac"), ("&from=1", "ac"), ("&size=2", "ba")):
        answer = (await raw("GET", f"/_connector?include_deleted=true{paging}")).json
        assert answer["count"] == 3
        assert [one["id"] for one in answer["results"]] == list(wanted)
        assert all(one["deleted"] is True for one in answer["results"])


async def test_l6_an_illegal_index_name_is_refused(raw, three):
    assert (await raw("GET", "/_connector?index_name=_illegal")).status == 400
    assert (await raw("GET", "/_connector?from=-1")).status == 400


async def test_lists_without_an_index_are_empty(raw):
    assert (await raw("GET", "/_connector")).json == {"count": 0, "results": []}
    assert (await raw("GET", "/_connector/_sync_job")).json == {"count": 0, "results": []}


# Delete


async def test_d1_d2_a_deleted_connector_looks_missing(raw, connector):
    assert (await raw("DELETE", "/_connector/c")).json == {"acknowledged": True}
    assert (await raw("GET", "/_connector/c")).status == 404
    assert (await get(raw, more="?include_deleted=true"))["deleted"] is True
    assert (await raw("DELETE", "/_connector/c")).status == 404
    read_first = (
        ("_configuration", {"configuration": {}}),
        ("_filtering", {"rules": []}),
        ("_filtering/_validation", {"validation": {"state": "valid", "errors": []}}),
        ("_filtering/_activate", None),
        ("_index_name", {"index_name": "x"}),
        ("_native", {"is_native": False}),
        ("_service_type", {"service_type": "x"}),
        ("_status", {"status": "error"}),
    )
    for what, body in read_first:
        assert (await change(raw, what, body)).status == 404, what
    blind = (
        ("_check_in", None),
        ("_error", {"error": "x"}),
        ("_name", {"name": "x"}),
        (
            "_pipeline",
            {
                "pipeline": {
                    "name": "p",
                    "extract_binary_content": True,
                    "reduce_whitespace": True,
                    "run_ml_inference": True,
                }
            },
        ),
        ("_scheduling", {"scheduling": {"full": {"enabled": True, "interval": DEFAULT_INTERVAL}}}),
        ("_features", {"features": {"incremental_sync": {"enabled": True}}}),
        ("_last_sync", {"last_indexed_document_count": 1}),
        ("_api_key_id", {"api_key_id": "k"}),
    )
    for what, body in blind:
        assert (await change(raw, what, body)).status == 200, what


async def test_d3_a_hard_delete_is_for_good(raw, connector):
    assert (await raw("DELETE", "/_connector/c?hard=true")).json == {"acknowledged": True}
    assert (await raw("GET", "/_connector/c?include_deleted=true")).status == 404


@pytest.mark.parametrize(("flag", "left"), [("true", 0), ("false", 3)])
async def test_d4_d5_jobs_go_with_it_or_stay(raw, connector, flag, left):
    for _ in range(3):
        await raw("POST", "/_connector/_sync_job", {"id": "c"})
    await raw("DELETE", f"/_connector/c?delete_sync_jobs={flag}")
    assert (await raw("GET", "/_connector/_sync_job?connector_id=c")).json["count"] == left


async def test_d6_an_unknown_connector(raw, connector):
    answer = await raw("DELETE", "/_connector/none")
    assert (answer.status, answer.kind) == (404, "resource_not_found_exception")
    assert "none" in answer.reason


# What every change has in common

CHANGES: list[tuple[str, Any]] = [
    ("_check_in", None),
    ("_api_key_id", {"api_key_id": "k"}),
    ("_configuration", {"configuration": {}}),
    ("_error", {"error": "x"}),
    ("_features", {"features": {"incremental_sync": {"enabled": True}}}),
    ("_filtering", {"rules": []}),
    ("_filtering/_validation", {"validation": {"state": "valid", "errors": []}}),
    ("_filtering/_activate", None),
    ("_index_name", {"index_name": "x"}),
    ("_last_sync", {"last_indexed_document_count": 1}),
    ("_name", {"name": "x"}),
    ("_native", {"is_native": False}),
    (
        "_pipeline",
        {
            "pipeline": {
                "name": "p",
                "extract_binary_content": True,
                "reduce_whitespace": True,
                "run_ml_inference": True,
            }
        },
    ),
    ("_scheduling", {"scheduling": {"full": {"enabled": True, "interval": DEFAULT_INTERVAL}}}),
    ("_service_type", {"service_type": "x"}),
    ("_status", {"status": "error"}),
]


@pytest.mark.parametrize(("what", "body"), CHANGES, ids=[what for what, _ in CHANGES])
async def test_every_change_needs_a_connector_that_exists(raw, what, body):
    for prepare in (None, FIXTURE):
        if prepare:
            await raw("PUT", "/_connector/other", prepare)
        missing = await change(raw, what, body, connector_id="none")
        assert (missing.status, missing.kind) == (404, "resource_not_found_exception")
        assert "none" in missing.reason
    empty = await raw("PUT", f"/_connector//{what}", body)
    assert empty.status == 400


@pytest.mark.parametrize(
    ("what", "body"), [one for one in CHANGES if one[1]], ids=[what for what, body in CHANGES if body]
)
async def test_every_change_refuses_other_shapes(raw, connector, what, body):
    name = next(iter(body))
    before = await get(raw)
    odd: list[Any] = [None, b"nonsense", b"[]", b"7", {**body, "wonder": 1}]
    odd += [{name: value} for value in ([[1]], 1.5) if name != "filtering"]
    odd.append({name: {"object": "where none belongs"}})
    for wrong in odd:
        answer = await change(raw, what, wrong)
        assert answer.status == 400, (what, wrong, answer.json)
    assert await get(raw) == before


# Check-in, API keys


async def test_check_in_moves_last_seen(raw, connector):
    first = (await updated(raw, "_check_in"))["last_seen"]
    second = (await updated(raw, "_check_in"))["last_seen"]
    assert second > first


async def test_api_key_ids(raw, connector):
    assert (await updated(raw, "_api_key_id", {"api_key_id": "k"}))["api_key_id"] == "k"
    shown = await updated(raw, "_api_key_id", {"api_key_secret_id": "s"})
    assert (shown["api_key_id"], shown["api_key_secret_id"]) == ("k", "s")
    shown = await updated(raw, "_api_key_id", {"api_key_id": "k2", "api_key_secret_id": "s2"})
    assert (shown["api_key_id"], shown["api_key_secret_id"]) == ("k2", "s2")
    assert (await change(raw, "_api_key_id", {"api_key_id": 7})).status == 400
    assert (await change(raw, "_api_key_id", {})).status == 400


# Configuration


def field(**more: Any) -> dict[str, Any]:
    return {
        "default_value": None,
        "depends_on": [{"field": "other", "value": 31}],
        "display": "numeric",
        "label": "A label",
        "options": [{"label": "One", "value": "1"}],
        "order": 4,
        "required": True,
        "sensitive": False,
        "tooltip": "A hint",
        "type": "str",
        "ui_restrictions": [],
        "validations": [{"constraint": 0, "type": "greater_than"}],
        "value": "123",
        **more,
    }


async def test_g1_g2_a_configuration_is_replaced_as_a_whole(raw, connector):
    shown = await updated(
        raw, "_configuration", {"configuration": {"one": field(), "two": field(display="textarea", value="9")}}
    )
    assert shown["configuration"] == {"one": field(), "two": field(display="textarea", value="9")}
    assert shown["status"] == "configured"
    validations = [
        {"constraint": 0, "type": "less_than"},
        {"constraint": 42, "type": "greater_than"},
        {"constraint": [1, 2], "type": "included_in"},
        {"constraint": "int", "type": "list_type"},
        {"constraint": r"\d{4}-\d{2}", "type": "regex"},
    ]
    other = {"new": field(validations=validations)}
    assert (await updated(raw, "_configuration", {"configuration": other}))["configuration"] == other


async def test_g3_g7_lenient_fields(raw, connector):
    shown = await updated(raw, "_configuration", {"configuration": {"one": field(tooltip=None)}})
    assert shown["configuration"]["one"]["tooltip"] is None
    shown = await updated(raw, "_configuration", {"configuration": {"one": {"label": "L", "value": {"an": "object"}}}})
    assert shown["configuration"] == {"one": {"label": "L", "value": {"an": "object"}}}


async def test_g8_clear(raw, connector):
    await updated(raw, "_configuration", {"configuration": {"one": field()}})
    assert (await updated(raw, "_configuration", {"configuration": {}}))["configuration"] == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {key: value for key, value in field().items() if key != "label"},  # G5
        field(display="wonder"),  # G6
        field(validations=[{"constraint": 1, "type": "wonder"}]),
        field(type="float"),
        field(order="first"),
        field(options=[{"label": "no value"}]),
        field(value=["a", "b"]),
        field(sensitive="yes"),
        "text",
    ],
    ids=str,
)
async def test_g5_g6_wrong_fields_are_refused(raw, connector, wrong):
    assert (await change(raw, "_configuration", {"configuration": {"one": wrong}})).status == 400
    assert (await get(raw))["status"] == "created"


async def test_g9_to_g12_values(raw, connector):
    await updated(raw, "_configuration", {"configuration": {"one": field(), "two": field(value="old")}})
    shown = await updated(raw, "_configuration", {"values": {"one": "new", "two": 7}})
    assert shown["configuration"]["one"] == field(value="new")
    assert shown["configuration"]["two"]["value"] == 7
    shown = await updated(raw, "_configuration", {"values": {"two": "alone"}})
    assert (shown["configuration"]["one"]["value"], shown["configuration"]["two"]["value"]) == ("new", "alone")
    unknown = await change(raw, "_configuration", {"values": {"one": 1, "unknown_key": 2}})
    assert unknown.status == 400
    assert "unknown_key" in unknown.reason
    for neither in ({}, {"values": {"one": 1}, "configuration": {}}):
        assert (await change(raw, "_configuration", neither)).status == 400


# Error, features


async def test_errors_set_and_reset_the_status(raw, connector):
    shown = await updated(raw, "_error", {"error": "it broke"})
    assert (shown["error"], shown["status"]) == ("it broke", "error")
    for nothing in (None, ""):
        await change(raw, "_error", {"error": "again"})
        shown = await updated(raw, "_error", {"error": nothing})
        assert shown["status"] == "connected"
        assert not shown.get("error")
    assert (await change(raw, "_error", {"error": {"a": 1}})).status == 400


async def test_features_add_up(raw, connector):
    flags = {
        "document_level_security": {"enabled": True},
        "incremental_sync": {"enabled": False},
        "native_connector_api_keys": {"enabled": True},
        "sync_rules": {"advanced": {"enabled": False}, "basic": {"enabled": True}},
    }
    assert (await updated(raw, "_features", {"features": flags}))["features"] == flags
    shown = await updated(raw, "_features", {"features": {"sync_rules": {"advanced": {"enabled": True}}}})
    assert shown["features"] == {**flags, "sync_rules": {"advanced": {"enabled": True}, "basic": {"enabled": True}}}
    assert (await change(raw, "_features", {"features": {"wonder": {"enabled": True}}})).status == 400


# Filtering

STAMP = "2023-05-25T12:30:00.000Z"


def rules_of(mark: str, snippet: Any = None) -> dict[str, Any]:
    return {
        "advanced_snippet": {
            "created_at": STAMP,
            "updated_at": STAMP,
            "value": [{"tables": [mark]}] if snippet is None else snippet,
        },
        "rules": [
            {
                "created_at": STAMP,
                "field": "_",
                "id": f"RULE-{mark}",
                "order": 0,
                "policy": "include",
                "rule": "regex",
                "updated_at": STAMP,
                "value": ".*",
            }
        ],
        "validation": {"errors": [], "state": "valid"},
    }


async def test_f1_f2_whole_filtering(raw, connector):
    for snippet in (None, {"an": "object"}):
        entry = {"active": rules_of("ACTIVE", snippet), "domain": "ELSEWHERE", "draft": rules_of("DRAFT", snippet)}
        await updated(raw, "_filtering", {"filtering": [entry]})
        shown = (await get(raw))["filtering"]
        assert shown == [{"domain": "DEFAULT", "active": entry["active"], "draft": entry["draft"]}]


@pytest.mark.parametrize(
    "entry",
    [
        {"active": rules_of("A", "scalar"), "draft": rules_of("D")},  # F3
        {"active": rules_of("A")},  # F5
        {"draft": rules_of("D")},
        {
            "active": {**rules_of("A"), "advanced_snippet": {"created_at": "some day", "value": {}}},
            "draft": rules_of("D"),
        },  # F6
        {"active": {**rules_of("A"), "rules": [{"id": "x"}]}, "draft": rules_of("D")},
        {"active": {**rules_of("A"), "validation": {"state": "wonderful", "errors": []}}, "draft": rules_of("D")},
        "text",
    ],
    ids=range(7),
)
async def test_f3_f5_f6_wrong_filtering(raw, connector, entry):
    before = await get(raw)
    assert (await change(raw, "_filtering", {"filtering": [entry]})).status == 400
    assert await get(raw) == before


async def test_f4_unknown_connector(raw):
    body = {"filtering": [{"active": rules_of("A"), "draft": rules_of("D")}]}
    assert (await change(raw, "_filtering", body, "none")).status == 404


def rule(rule_id: str, order: int) -> dict[str, Any]:
    return {
        **rules_of("x")["rules"][0],
        "id": rule_id,
        "field": "name",
        "value": rule_id,
        "order": order,
        "rule": "equals",
    }


async def test_f7_a_draft_is_validated_and_comes_into_force(raw, connector):
    snippet = {"created_at": STAMP, "updated_at": STAMP, "value": [{"tables": ["some_table"], "query": "SELECT 1"}]}
    shown = await updated(
        raw, "_filtering", {"rules": [rule("second", 2), rule("first", 1)], "advanced_snippet": snippet}
    )
    draft = shown["filtering"][0]["draft"]
    assert [one["id"] for one in draft["rules"]] == ["first", "second", "DEFAULT"]
    assert draft["rules"][-1]["order"] == 3
    assert draft["advanced_snippet"]["value"] == snippet["value"]
    assert draft["validation"] == {"state": "edited", "errors": []}
    assert [one["id"] for one in shown["filtering"][0]["active"]["rules"]] == ["DEFAULT"]
    await updated(raw, "_filtering/_validation", {"validation": {"state": "valid", "errors": []}})
    shown = await updated(raw, "_filtering/_activate")
    assert shown["filtering"][0]["active"] == shown["filtering"][0]["draft"]
    assert shown["filtering"][0]["active"]["advanced_snippet"]["value"] == snippet["value"]
    assert shown["filtering"][0]["active"]["rules"][0]["created_at"].startswith("2023-05-25T12:30:00")


async def test_f8_half_a_draft_keeps_the_other_half(raw, connector):
    snippet = {"value": {"some": "filter"}}
    await updated(raw, "_filtering", {"rules": [rule("r", 0)]})
    draft = (await updated(raw, "_filtering", {"advanced_snippet": snippet}))["filtering"][0]["draft"]
    assert [one["id"] for one in draft["rules"]] == ["r", "DEFAULT"]
    draft = (await updated(raw, "_filtering", {"rules": [rule("s", 0)]}))["filtering"][0]["draft"]
    assert draft["advanced_snippet"]["value"] == {"some": "filter"}
    assert draft["validation"]["state"] == "edited"


async def test_f9_only_a_valid_draft_comes_into_force(raw, connector):
    await updated(raw, "_filtering", {"rules": [rule("r", 0)]})
    assert (await change(raw, "_filtering/_activate")).status == 400
    errors = [{"ids": ["r"], "messages": ["no good"]}]
    shown = await updated(raw, "_filtering/_validation", {"validation": {"state": "invalid", "errors": errors}})
    assert shown["filtering"][0]["draft"]["validation"] == {"state": "invalid", "errors": errors}
    assert (await change(raw, "_filtering/_activate")).status == 400


async def test_f10_no_rules_leave_the_default_rule(raw, connector):
    await updated(raw, "_filtering", {"rules": [rule("r", 5)]})
    draft = (await updated(raw, "_filtering", {"rules": []}))["filtering"][0]["draft"]
    assert [(one["id"], one["order"]) for one in draft["rules"]] == [("DEFAULT", 0)]


async def test_filtering_is_either_whole_or_a_draft(raw, connector):
    for neither in ({}, {"filtering": [{"active": rules_of("A"), "draft": rules_of("D")}], "rules": []}):
        assert (await change(raw, "_filtering", neither)).status == 400


# Index name


async def test_index_names(raw, connector):
    await raw("PUT", "/_connector/other", {"index_name": "search-taken"})
    shown = await updated(raw, "_index_name", {"index_name": "search-2-test"})
    assert (shown["index_name"], shown["status"]) == ("search-2-test", "created")
    assert (await change(raw, "_index_name", {"index_name": "search-2-test"})).json == {"result": "noop"}
    for wrong in ("_illegal", "search-taken", {"a": 1}, "Capital"):
        assert (await change(raw, "_index_name", {"index_name": wrong})).status == 400
    assert (await updated(raw, "_index_name", {"index_name": None})).get("index_name") is None
    await raw("PUT", "/_connector/native", {"index_name": "content-x", "is_native": True})
    assert (await change(raw, "_index_name", {"index_name": "search-x"}, "native")).status == 400
    assert (await change(raw, "_index_name", {"index_name": "content-y"}, "native")).json == {"result": "updated"}


# Last sync


async def test_last_syncs_add_up(raw, connector):
    shown = await updated(
        raw, "_last_sync", {"last_sync_error": "oh no", "last_access_control_sync_scheduled_at": STAMP}
    )
    assert (shown["last_sync_error"], shown["last_access_control_sync_scheduled_at"]) == ("oh no", STAMP)
    await updated(raw, "_last_sync", {"last_indexed_document_count": 42, "last_sync_status": "completed"})
    shown = await updated(raw, "_last_sync", {"sync_cursor": {"at": {"page": 7}}})
    assert shown["last_indexed_document_count"] == 42
    assert shown["last_sync_error"] == "oh no"
    assert shown["last_sync_status"] == "completed"
    assert shown["sync_cursor"] == {"at": {"page": 7}}
    for wrong in (
        {"last_synced": "some day"},
        {"last_sync_status": "wonderful"},
        {"sync_cursor": "text"},
        {"wonder": 1},
    ):
        assert (await change(raw, "_last_sync", wrong)).status == 400


# Name, native, pipeline, scheduling, service type, status


async def test_names(raw, connector):
    assert (await updated(raw, "_name", {"name": "n"}))["name"] == "n"
    shown = await updated(raw, "_name", {"description": "d"})
    assert (shown["name"], shown["description"]) == ("n", "d")
    shown = await updated(raw, "_name", {"name": "n2", "description": "d2"})
    assert (shown["name"], shown["description"]) == ("n2", "d2")
    assert (await change(raw, "_name", {"name": {"a": 1}})).status == 400


async def test_native_needs_the_prefix(raw, connector):
    assert (await change(raw, "_native", {"is_native": True})).status == 400
    await change(raw, "_index_name", {"index_name": "content-1"})
    assert (await updated(raw, "_native", {"is_native": True}))["is_native"] is True
    assert (await updated(raw, "_native", {"is_native": False}))["is_native"] is False
    await change(raw, "_error", {"error": None})
    assert (await updated(raw, "_native", {"is_native": True}))["status"] == "configured"


async def test_pipelines(raw, connector):
    pipeline = {"name": "p", "extract_binary_content": False, "reduce_whitespace": True, "run_ml_inference": False}
    assert (await updated(raw, "_pipeline", {"pipeline": pipeline}))["pipeline"] == pipeline
    for missing in pipeline:
        part = {key: value for key, value in pipeline.items() if key != missing}
        assert (await change(raw, "_pipeline", {"pipeline": part})).status == 400


async def test_schedules(raw, connector):
    three = {
        "access_control": {"enabled": False, "interval": "0 0 12 * * ?"},
        "full": {"enabled": True, "interval": "0 0 1 * * ?"},
        "incremental": {"enabled": False, "interval": "0 5 0 * * ?"},
    }
    assert (await updated(raw, "_scheduling", {"scheduling": three}))["scheduling"] == three
    one = {"full": {"enabled": True, "interval": "0 30 2 * * ?"}}
    assert (await updated(raw, "_scheduling", {"scheduling": one}))["scheduling"] == {**three, **one}
    for wrong in (
        {},
        {"full": {"enabled": True, "interval": "61 0 0 * * ?"}},
        {"full": {"enabled": True}},
        {"wonder": {}},
    ):
        assert (await change(raw, "_scheduling", {"scheduling": wrong})).status == 400


async def test_a_single_schedule_keeps_the_defaults_of_the_others(raw, connector):
    shown = await updated(
        raw, "_scheduling", {"scheduling": {"incremental": {"enabled": True, "interval": "0 5 0 * * ?"}}}
    )
    assert shown["scheduling"]["full"] == {"enabled": False, "interval": DEFAULT_INTERVAL}


async def test_service_types(raw, connector):
    shown = await updated(raw, "_service_type", {"service_type": "even-better"})
    assert (shown["service_type"], shown["status"]) == ("even-better", "created")
    await change(raw, "_configuration", {"configuration": {}})
    assert (await updated(raw, "_service_type", {"service_type": "other"}))["status"] == "needs_configuration"


async def test_statuses(raw, connector):
    skipping = await change(raw, "_status", {"status": "connected"})
    assert skipping.status == 400
    assert "created" in skipping.reason
    assert "connected" in skipping.reason
    for step in ("needs_configuration", "configured", "connected", "error", "connected"):
        assert (await updated(raw, "_status", {"status": step}))["status"] == step
    for wrong in ("wonderful", {"a": 1}, None):
        assert (await change(raw, "_status", {"status": wrong})).status == 400


# The official client


@pytest.mark.filterwarnings("ignore:.*(beta|experimental|technical preview|private).*")
async def test_the_client_walks_through_everything(es):
    client = es.connector
    assert (await client.put(connector_id="c1", index_name="search-1"))["result"] == "created"
    assert (await client.check_in(connector_id="c1"))["result"] == "updated"
    assert (await client.list())["count"] >= 1
    made = await client.post()
    assert (await client.get(connector_id=made["id"]))["id"] == made["id"]
    assert (await client.delete(connector_id=made["id"], hard=True))["acknowledged"] is True
    with pytest.raises(NotFoundError):
        await client.get(connector_id=made["id"])
    steps = [
        client.update_name(connector_id="c1", name="n", description="d"),
        client.update_filtering(connector_id="c1", rules=[rule("r", 1)], advanced_snippet={"value": {"a": 1}}),
        client.update_filtering_validation(connector_id="c1", validation={"state": "valid", "errors": []}),
        client.update_active_filtering(connector_id="c1"),
        client.update_error(connector_id="c1", error="oh"),
        client.update_configuration(connector_id="c1", configuration={"one": field()}),
        client.update_configuration(connector_id="c1", values={"one": "set"}),
        client.update_index_name(connector_id="c1", index_name="content-1"),
        client.update_native(connector_id="c1", is_native=True),
        client.update_pipeline(
            connector_id="c1",
            pipeline={"name": "p", "extract_binary_content": True, "reduce_whitespace": True, "run_ml_inference": True},
        ),
        client.update_scheduling(
            connector_id="c1", scheduling={"full": {"enabled": True, "interval": DEFAULT_INTERVAL}}
        ),
        client.update_status(connector_id="c1", status="needs_configuration"),
        client.update_service_type(connector_id="c1", service_type="dir"),
        client.update_api_key_id(connector_id="c1", api_key_id="k", api_key_secret_id="s"),
        client.update_features(connector_id="c1", features={"incremental_sync": {"enabled": True}}),
        client.last_sync(connector_id="c1", last_indexed_document_count=3),
    ]
    for step in steps:
        assert (await step)["result"] == "updated"
    shown = await client.get(connector_id="c1")
    assert shown["configuration"]["one"]["value"] == "set"
    assert shown["filtering"][0]["active"]["rules"][0]["id"] == "r"
    job = await client.sync_job_post(id="c1", job_type="full")
    assert (await client.sync_job_claim(connector_sync_job_id=job["id"], worker_hostname="w"))["result"] == "updated"
    stats = {"deleted_document_count": 1, "indexed_document_count": 2, "indexed_document_volume": 3}
    assert (await client.sync_job_update_stats(connector_sync_job_id=job["id"], **stats))["result"] == "updated"
    assert (await client.sync_job_check_in(connector_sync_job_id=job["id"]))["result"] == "updated"
    assert (await client.sync_job_cancel(connector_sync_job_id=job["id"]))["result"] == "updated"
    assert (await client.sync_job_error(connector_sync_job_id=job["id"], error="e"))["result"] == "updated"
    assert (await client.sync_job_get(connector_sync_job_id=job["id"]))["status"] == "error"
    assert (await client.sync_job_list(connector_id="c1"))["count"] == 1
    assert (await client.sync_job_delete(connector_sync_job_id=job["id"]))["acknowledged"] is True
    with pytest.raises(BadRequestError):
        await client.sync_job_post(id="c1", job_type="wonder")


async def test_documents_stand_in_their_indices(raw, connector):
    hits = (await raw("GET", "/.elastic-connectors/_search?q=service_type:super-connector")).json["hits"]["hits"]
    assert [(hit["_index"], hit["_id"]) for hit in hits] == [(".elastic-connectors-v1", "c")]
    assert "id" not in hits[0]["_source"]
    await raw("POST", "/.elastic-connectors/_update/c", {"doc": {"name": "from outside"}})
    assert (await get(raw))["name"] == "from outside"
    assert (
        "wonder"
        not in (await raw("GET", "/.elastic-connectors/_mapping")).json[".elastic-connectors-v1"]["mappings"][
            "properties"
        ]
    )


async def test_fields_that_nobody_knows_survive_every_change(raw, connector):
    await raw("POST", "/.elastic-connectors/_update/c", {"doc": {"from_the_future": {"a": [1]}}})
    await change(raw, "_service_type", {"service_type": "other"})
    await change(raw, "_filtering", {"rules": []})
    await change(raw, "_configuration", {"configuration": {}})
    assert (await get(raw))["from_the_future"] == {"a": [1]}
