"""Whatever a body holds, the node answers it as Elasticsearch would have: done, or a clear error. Never a failure of its own."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard.node import open_node
from callboard.node.errors import ApiError
from callboard.node.query.query_string import parse_query_string

TEXTS = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            "title",
            "title.keyword",
            "n",
            "_id",
            "*",
            "a.b",
            "",
            ".",
            "now-1d/d",
            "2024-01-01",
            "asc",
            "x:y",
            "1",
        ]
    ),
    st.text(max_size=6),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)

QUERY_NAMES = [
    "match_all",
    "match_none",
    "term",
    "terms",
    "range",
    "exists",
    "ids",
    "prefix",
    "wildcard",
    "match",
    "match_phrase",
    "match_phrase_prefix",
    "match_bool_prefix",
    "multi_match",
    "bool",
    "constant_score",
    "dis_max",
    "query_string",
]
PARAMETERS = [
    "query",
    "value",
    "values",
    "field",
    "fields",
    "gt",
    "gte",
    "lt",
    "lte",
    "boost",
    "operator",
    "minimum_should_match",
    "must",
    "should",
    "filter",
    "must_not",
    "queries",
    "tie_breaker",
    "type",
    "case_insensitive",
    "default_field",
    "lenient",
]
KEYS = st.one_of(st.sampled_from(PARAMETERS), TEXTS)


def _queries(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    body = st.dictionaries(
        KEYS, st.one_of(inner, st.lists(inner, max_size=2), ANY, st.dictionaries(KEYS, ANY, max_size=2)), max_size=3
    )
    return st.dictionaries(st.sampled_from(QUERY_NAMES), body, min_size=1, max_size=1)


QUERIES = st.recursive(st.one_of(ANY, _queries(SCALARS)), _queries, max_leaves=6)
SEARCH_KEYS = [
    "query",
    "post_filter",
    "from",
    "size",
    "sort",
    "search_after",
    "_source",
    "track_total_hits",
    "highlight",
    "version",
    "min_score",
    "pit",
    "track_scores",
    "timeout",
]
SEARCHES = st.dictionaries(st.sampled_from(SEARCH_KEYS), st.one_of(QUERIES, ANY), max_size=3)
MAPPING_TYPES = st.sampled_from(
    ["text", "keyword", "long", "integer", "double", "date", "boolean", "object", "binary", "nested", "wonder"]
)
PROPERTIES = st.dictionaries(
    TEXTS,
    st.one_of(
        ANY, st.fixed_dictionaries({"type": MAPPING_TYPES}, optional={"fields": ANY, "index": ANY, "ignore_above": ANY})
    ),
    max_size=3,
)
INDEX_BODIES = st.one_of(
    ANY,
    st.fixed_dictionaries(
        {},
        optional={
            "mappings": st.one_of(
                ANY,
                st.fixed_dictionaries(
                    {}, optional={"properties": PROPERTIES, "dynamic": ANY, "dynamic_templates": ANY}
                ),
            ),
            "settings": st.one_of(
                ANY,
                st.dictionaries(
                    st.sampled_from(["index", "number_of_replicas", "hidden", "mapping.total_fields.limit"]), ANY
                ),
            ),
            "aliases": ANY,
        },
    ),
)
PROCESSORS = st.lists(
    st.dictionaries(
        st.sampled_from(
            [
                "set",
                "append",
                "remove",
                "rename",
                "lowercase",
                "gsub",
                "split",
                "join",
                "convert",
                "json",
                "fail",
                "drop",
                "trim",
                "attachment",
                "pipeline",
            ]
        ),
        st.dictionaries(
            st.sampled_from(
                [
                    "field",
                    "value",
                    "target_field",
                    "pattern",
                    "replacement",
                    "separator",
                    "type",
                    "if",
                    "ignore_missing",
                    "on_failure",
                    "message",
                    "name",
                    "copy_from",
                ]
            ),
            ANY,
        ),
        min_size=1,
        max_size=1,
    ),
    max_size=3,
)
CONNECTOR_KEYS = st.sampled_from(
    [
        "configuration",
        "values",
        "error",
        "features",
        "filtering",
        "rules",
        "advanced_snippet",
        "validation",
        "index_name",
        "last_synced",
        "sync_cursor",
        "name",
        "description",
        "is_native",
        "pipeline",
        "scheduling",
        "service_type",
        "status",
        "api_key_id",
        "id",
        "job_type",
        "worker_hostname",
        "metadata",
        "value",
    ]
)
CONNECTOR_BODIES = st.one_of(ANY, st.dictionaries(CONNECTOR_KEYS, ANY, max_size=3))
CONNECTOR_PATHS = st.sampled_from(
    [
        "_check_in",
        "_api_key_id",
        "_configuration",
        "_error",
        "_features",
        "_filtering",
        "_filtering/_validation",
        "_filtering/_activate",
        "_index_name",
        "_last_sync",
        "_name",
        "_native",
        "_pipeline",
        "_scheduling",
        "_service_type",
        "_status",
    ]
)

EXAMPLES = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def ask(make_raw: Any, *requests: tuple[str, str, Any]) -> list[Any]:
    """Send requests to a node of their own, which holds a few documents, and return the answers."""

    async def run() -> list[Any]:
        async with open_node(port=None) as node:
            raw = make_raw(node.app)
            await raw(
                "PUT", "/a/_doc/1", {"title": "some words", "n": 1, "a": {"b": True}, "d": "2024-01-01", "f": 1.5}
            )
            await raw("PUT", "/a/_doc/2", {"title": "other words"})
            await raw("PUT", "/_connector/c", {"index_name": "search-1", "service_type": "x"})
            answers = [await raw(*request) for request in requests]
            alive = await raw("GET", "/a/_count")
            assert alive.status == 200
            return answers

    return list(trio.run(run))


def sendable(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except (TypeError, orjson.JSONEncodeError):
        return repr(body).encode("utf-8", "replace")


def clear(answer: Any) -> bool:
    """Either it worked, or the error says what is wrong."""
    if answer.status < 400:
        return True
    assert answer.status in (400, 404, 405, 406, 409, 413, 501), (answer.status, answer.content)
    body = answer.json
    if isinstance(body.get("error"), dict):
        assert body["error"]["reason"], body
        assert "Traceback" not in body["error"]["reason"]
    return True


@EXAMPLES
@given(body=SEARCHES)
def test_searches(make_raw, body):
    assert all(
        clear(answer)
        for answer in ask(
            make_raw, ("POST", "/a/_search", sendable(body)), ("POST", "/a/_search?scroll=1m", sendable(body))
        )
    )


@EXAMPLES
@given(query=QUERIES)
def test_queries(make_raw, query):
    content = sendable({"query": query})
    requests = [
        ("POST", f"/a/{what}", content) for what in ("_search", "_count", "_delete_by_query", "_update_by_query")
    ]
    assert all(clear(answer) for answer in ask(make_raw, *requests))


@EXAMPLES
@given(body=ANY, other=ANY)
def test_documents(make_raw, body, other):
    answers = ask(
        make_raw,
        ("PUT", "/a/_doc/3", sendable(body)),
        ("POST", "/a/_update/1", sendable({"doc": other})),
        ("POST", "/a/_update/1", sendable(other)),
        (
            "POST",
            "/a/_bulk",
            b'{"index":{}}\n' + sendable(body) + b"\n" + sendable(other) + b"\n" + sendable(body) + b"\n",
        ),
        ("POST", "/_mget", sendable(other)),
    )
    assert all(clear(answer) for answer in answers)


@EXAMPLES
@given(body=INDEX_BODIES, other=ANY)
def test_indices_and_templates(make_raw, body, other):
    requests = [
        ("PUT", path, sendable(body)) for path in ("/b", "/_index_template/t", "/_component_template/t", "/_template/t")
    ]
    requests += [
        ("PUT", "/_index_template/t", sendable({"index_patterns": ["c*"], "template": body})),
        ("PUT", "/c1", None),
    ]
    requests += [
        ("PUT", "/a/_mapping", sendable(other)),
        ("PUT", "/a/_settings", sendable(other)),
        ("POST", "/_aliases", sendable({"actions": [other]})),
    ]
    requests += [("PUT", "/b/_doc/1", sendable({"a": other}))]
    assert all(clear(answer) for answer in ask(make_raw, *requests))


@EXAMPLES
@given(processors=st.one_of(PROCESSORS, ANY), source=st.dictionaries(TEXTS, ANY, max_size=3))
def test_pipelines(make_raw, processors, source):
    body = {"processors": processors}
    answers = ask(
        make_raw,
        ("PUT", "/_ingest/pipeline/p", sendable(body)),
        ("PUT", "/a/_doc/9?pipeline=p", sendable(source)),
        ("POST", "/_ingest/pipeline/_simulate", sendable({"pipeline": body, "docs": [{"_source": source}]})),
    )
    assert all(clear(answer) for answer in answers)


@EXAMPLES
@given(path=CONNECTOR_PATHS, body=CONNECTOR_BODIES)
def test_connectors(make_raw, path, body):
    content = sendable(body)
    requests = [
        ("PUT", f"/_connector/c/{path}", content),
        ("PUT", "/_connector/d", content),
        ("POST", "/_connector/_sync_job", content),
    ]
    requests += [("PUT", "/_connector/_secret/s", content), ("POST", "/_security/api_key", content)]
    requests += [("POST", "/_security/user/_has_privileges", content), ("GET", "/_connector/c", None)]
    answers = ask(make_raw, *requests)
    assert all(clear(answer) for answer in answers)
    assert answers[-1].status == 200


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.text(max_size=20), st.text(alphabet='ab :()[]{}"*?^~\\+-!&|<>=/ANDORTO19', max_size=25)))
def test_query_strings_are_read_or_refused(text):
    try:
        parse_query_string(text, fields=("*",))
    except ApiError as error:
        assert error.status in (400, 501)


@pytest.mark.parametrize("depth", [5_000, 100])
async def test_deep_nesting_is_refused(raw, depth):
    deep = b'{"query":' + b'{"bool":{"must":' * depth + b'{"match_all":{}}' + b"}}" * depth + b"}"
    assert (await raw("POST", "/a/_search", deep)).status == 400
    document = b'{"a":' * depth + b"1" + b"}" * depth
    assert (await raw("PUT", "/a/_doc/1", document)).status == 400
    assert (await raw("PUT", "/a/_doc/1", b'{"a":' + b"[" * depth + b"1" + b"]" * depth + b"}")).status in (201, 400)


@pytest.mark.parametrize("depth", [200, 300, 900, 1000])
async def test_deep_documents_that_are_not_searched(raw, depth):
    """An object that is not looked into may be as deep as JSON allows; whatever then cannot be done with it is refused."""
    await raw("PUT", "/d", {"mappings": {"properties": {"a": {"type": "object", "enabled": False}}}})
    await raw("PUT", "/_ingest/pipeline/p", {"processors": [{"set": {"field": "x", "value": 1}}]})
    deep = b'{"a":' + b'{"b":' * depth + b"1" + b"}" * depth + b"}"
    await raw("PUT", "/d/_doc/1", deep)
    await raw("PUT", "/d/_doc/2", {"a": {"b": 1}})
    for method, target, body in (
        ("GET", "/d/_doc/1", None),
        ("GET", "/d/_doc/1?_source_excludes=z", None),
        ("GET", "/d/_search?_source_includes=a", None),
        ("GET", "/d/_search?filter_path=hits.hits._source", None),
        ("GET", "/d/_search?pretty", None),
        ("POST", "/d/_update/1", {"doc": {"c": 1}}),
        ("POST", "/d/_update/2", b'{"doc":' + deep + b"}"),
        ("PUT", "/d/_doc/3?pipeline=p", deep),
        ("POST", "/d/_update_by_query?pipeline=p", None),
        ("POST", "/d/_bulk", b'{"update":{"_id":"2"}}\n{"doc":' + deep + b"}\n"),
        ("PUT", "/_connector/c/_last_sync", b'{"sync_cursor":' + deep + b"}"),
        ("POST", "/_mget", {"docs": [{"_index": "d", "_id": "1", "_source": ["a.b"]}]}),
    ):
        answer = await raw(method, target, body)
        assert answer.status in (200, 201, 400, 404), (target, answer.status, answer.content[:300])
    assert (await raw("GET", "/d/_count")).status == 200


async def test_ids_with_line_breaks_do_no_harm():
    async with open_node() as node, httpx.AsyncClient(base_url=str(node.url)) as http:
        answer = await http.put("/a/_doc/x%0d%0aevil%3a%201", json={})
        assert answer.status_code == 201
        assert "evil" not in answer.headers
        assert (await http.get("/a/_doc/x%0d%0aevil%3a%201")).json()["_id"] == "x\r\nevil: 1"
