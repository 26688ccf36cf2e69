"""What holds for every request: bodies, compression, media types, parameters, errors, and what the node says it lacks."""

from __future__ import annotations

import gzip

import httpx
import orjson
import pytest

from callboard.node import open_node


async def test_every_answer_says_what_it_is(raw):
    for method, path in (("GET", "/"), ("GET", "/none/_doc/1"), ("GET", "/_wonder"), ("POST", "/")):
        assert (await raw(method, path)).headers["x-elastic-product"] == "Elasticsearch"


async def test_head_has_no_body(raw):
    answer = await raw("HEAD", "/")
    assert (answer.status, answer.content) == (200, b"")
    assert (await raw("HEAD", "/none")).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_ml/info"),
        ("PUT", "/_ilm/policy/x"),
        ("POST", "/_query"),
        ("GET", "/_nodes/http"),
        ("POST", "/a/_analyze"),
        ("POST", "/_reindex"),
        ("GET", "/_cat/nodes"),
        ("PUT", "/_data_stream/x"),
        ("GET", "/_security/role/x"),
    ],
)
async def test_what_is_lacking_says_so(raw, method, path):
    answer = await raw(method, path)
    assert answer.status in (501, 405)
    if answer.status == 501:
        assert answer.kind == "not_implemented_exception"
        assert "not built into the Callboard node" in answer.reason


@pytest.mark.parametrize(
    "body",
    [
        {"aggs": {"a": {"terms": {"field": "x"}}}},
        {"knn": {}},
        {"query": {"nested": {"path": "a", "query": {"match_all": {}}}}},
        {"query": {"match": {"a": {"query": "b", "fuzziness": "AUTO"}}}},
        {"query": {"query_string": {"query": "roam~"}}},
        {"query": {"query_string": {"query": "/joh?n/"}}},
        {"query": {"script": {"script": "1"}}},
        {"suggest": {}},
        {"collapse": {"field": "a"}},
        {"sort": [{"_script": {}}]},
        {"highlight": {"fields": {"a": {"highlight_query": {}}}}},
    ],
    ids=str,
)
async def test_searches_that_only_elasticsearch_can_do(raw, body):
    await raw("PUT", "/a/_doc/1", {"a": "b"})
    answer = await raw("POST", "/a/_search", body)
    assert (answer.status, answer.kind) == (501, "not_implemented_exception")


@pytest.mark.parametrize(
    "body",
    [
        {"mappings": {"properties": {"a": {"type": "geo_point"}}}},
        {"mappings": {"properties": {"a": {"type": "text", "analyzer": "english"}}}},
        {"mappings": {"properties": {"a": {"type": "keyword", "copy_to": "b"}}}},
        {"mappings": {"runtime": {}}},
        {"settings": {"analysis": {"analyzer": {}, "filter": {"x": {"type": "stop"}}}}},
        {"settings": {"index.sort.field": "a"}},
        {"aliases": {"x": {"routing": "1"}}},
    ],
    ids=str,
)
async def test_indices_that_only_elasticsearch_can_make(raw, body):
    assert (await raw("PUT", "/a", body)).status == 501
    assert (await raw("HEAD", "/a")).status == 404


async def test_scripts_are_not_run(raw):
    await raw("PUT", "/a/_doc/1", {"a": 1})
    assert (await raw("POST", "/a/_update/1", {"script": "ctx._source.a = 2"})).status == 501
    assert (await raw("POST", "/a/_update_by_query", {"script": "x"})).status == 501
    assert (await raw("PUT", "/_ingest/pipeline/p", {"processors": [{"script": {"source": "x"}}]})).status == 501
    condition = {"processors": [{"set": {"field": "a", "value": 1, "if": "ctx.a.length() > 3"}}]}
    assert (await raw("PUT", "/_ingest/pipeline/p", condition)).status == 501
    assert (await raw("GET", "/a/_doc/1")).json["_source"] == {"a": 1}


async def test_data_streams_are_not_there(raw):
    assert (await raw("GET", "/_data_stream")).json == {"data_streams": []}
    assert (await raw("GET", "/_data_stream/logs")).status == 404


async def test_nobodys_paths_are_refused_as_elasticsearch_does(raw):
    answer = await raw("PUT", "/a/_wonder")
    assert answer.status == 400
    assert "no handler found for uri [/a/_wonder] and method [PUT]" in answer.reason
    wrong_method = await raw("DELETE", "/_aliases")
    assert (wrong_method.status, wrong_method.headers["allow"]) == (405, "GET,POST")


async def test_bodies_must_be_json(raw):
    for content in (b"{", b"\xff\xfe", b"{'a': 1}", b'{"a": 1} {"b": 2}', b"[1]", b"7"):
        answer = await raw("POST", "/a/_search", content)
        assert answer.status == 400
        document = await raw("POST", "/a/_doc", content)
        assert document.status == 400
    assert (await raw("HEAD", "/a")).status == 404


async def test_gzip_is_understood_and_spoken(raw):
    body = gzip.compress(orjson.dumps({"text": "x" * 5000}))
    made = await raw("PUT", "/a/_doc/1", body, headers={"content-encoding": "gzip"})
    assert made.status == 201
    answer = await raw("GET", "/a/_doc/1", headers={"accept-encoding": "gzip, deflate"})
    assert answer.headers["content-encoding"] == "gzip"
    assert orjson.loads(gzip.decompress(answer.content))["_source"] == {"text": "x" * 5000}
    assert "content-encoding" not in (await raw("GET", "/", headers={"accept-encoding": "gzip"})).headers
    for broken in (b"no gzip at all", body[:-20]):
        assert (await raw("PUT", "/a/_doc/2", broken, headers={"content-encoding": "gzip"})).status == 400
    assert (await raw("PUT", "/a/_doc/2", body, headers={"content-encoding": "br"})).status == 415


async def test_bodies_are_bounded_packed_or_not(make_raw):
    async with open_node(port=None, content_bytes_max=10_000) as node:
        raw = make_raw(node.app)
        assert (await raw("PUT", "/a/_doc/1", {"t": "x" * 9_000})).status == 201
        too_long = await raw("PUT", "/a/_doc/1", {"t": "x" * 11_000})
        assert (too_long.status, too_long.kind) == (413, "content_too_long_exception")
        bomb = gzip.compress(b"[" + b" " * 50_000_000)
        assert (await raw("PUT", "/a/_doc/1", bomb[:9_999], headers={"content-encoding": "gzip"})).status == 413


async def test_media_types_of_answers(raw):
    vendor = "application/vnd.elasticsearch+json; compatible-with=9"
    assert (await raw("GET", "/", headers={"accept": vendor})).headers["content-type"] == vendor.replace("; ", ";")
    assert (await raw("GET", "/", headers={"accept": "*/*"})).headers["content-type"] == "application/json"
    assert (await raw("GET", "/", headers={"accept": vendor.replace("9", "7")})).status == 400
    assert (await raw("GET", "/", headers={"accept": "application/cbor"})).status == 406
    assert (await raw("POST", "/a/_doc", {"a": 1}, headers={"content-type": ""})).status == 406
    assert (await raw("POST", "/a/_doc", {"a": 1}, headers={"content-type": "application/yaml"})).status == 406


async def test_pretty_and_filter_path(raw):
    assert (await raw("GET", "/?pretty")).content.startswith(b'{\n  "name"')
    assert (await raw("GET", "/?filter_path=version.num*,tag*")).json == {
        "version": {"number": "9.5.0"},
        "tagline": "You Know, for Search",
    }
    assert (await raw("GET", "/?filter_path=**.number")).json == {"version": {"number": "9.5.0"}}
    assert (await raw("GET", "/?filter_path=nothing")).json == {}


async def test_the_body_may_stand_in_the_url(raw):
    await raw("PUT", "/a/_doc/1", {"a": 1})
    query = "%7B%22query%22:%7B%22term%22:%7B%22a%22:1%7D%7D%7D"
    answer = await raw("GET", f"/a/_search?source={query}&source_content_type=application/json")
    assert answer.json["hits"]["total"]["value"] == 1


async def test_parameters_of_the_wrong_kind(raw):
    await raw("PUT", "/a/_doc/1", {"a": 1})
    for target in (
        "/a/_search?size=many",
        "/a/_search?size=-1",
        "/a/_search?version=perhaps",
        "/a/_search?scroll=1",
        "/a/_search?scroll=2d",
        "/a/_search?expand_wildcards=some",
        "/a/_search?q=(",
        "/a/_search?sort=nowhere",
        "/a/_doc/1?_source=false&routing=x",
        "/_cat/indices?h=wonder",
        "/a/_search?size=99999999999999999999999",
    ):
        answer = await raw("GET", target)
        assert answer.status in (400, 501), target
    assert (await raw("PUT", "/a/_doc/1?refresh=perhaps", {"a": 1})).status == 400
    assert (await raw("PUT", "/a/_doc/1?op_type=wonder", {"a": 1})).status == 400
    assert (await raw("POST", "/a/_pit")).status == 400


async def test_a_bulk_must_end_with_a_newline_and_have_its_sources(raw):
    for body in (
        b'{"index":{"_id":"1"}}\n{"a":1}',
        b'{"index":{"_id":"1"}}\n',
        b"\n",
        b'{"delete":{"_id":7,"_index":["a"]}}\n',
        b'{"index":7}\n{}\n',
    ):
        assert (await raw("POST", "/a/_bulk", body)).status == 400
    assert (await raw("HEAD", "/a")).status == 404
    lines = b'\n{"index":{"_id":"1"}}\n{"a":1}\n\n{"index":{"_id":"2"}}\nnonsense\n{"delete":{}}\n'
    answer = (await raw("POST", "/a/_bulk", lines)).json
    assert [next(iter(item.values()))["status"] for item in answer["items"]] == [201, 400, 400]


async def test_the_node_speaks_real_http():
    async with open_node() as node, httpx.AsyncClient(base_url=str(node.url)) as http:
        made = await http.put("/a%2Fb%20c/_doc/1", json={"a": 1})
        assert made.status_code == 400
        assert (await http.put("/a/_doc/x%2Fy?refresh", json={"a": 1})).status_code == 201
        assert (await http.get("/a/_doc/x%2Fy")).json()["_id"] == "x/y"
        many = b"".join(b'{"index":{}}\n{"n":%d}\n' % n for n in range(20_000))
        answer = await http.post("/a/_bulk", content=many, headers={"content-type": "application/x-ndjson"})
        assert len(answer.json()["items"]) == 20_000
        assert (await http.get("/a/_count")).json()["count"] == 20_001
