"""Processors one by one, and the pipeline that content connectors rely on."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from callboard.node import open_node
from callboard.node.errors import ApiError
from callboard.node.ingest.conditions import compile_condition

HIDDEN = {"_extract_binary_content": True, "_reduce_whitespace": True, "_run_ml_inference": True}


async def read(content: bytes, name: str | None) -> str:
    if content == b"broken":
        raise ValueError("cannot read this")
    return content.decode().removeprefix("%PDF ")


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def through_default(make_raw: Any, source: dict[str, Any]) -> dict[str, Any]:
    async with open_node(port=None, attachment_reader=read) as node:
        raw = make_raw(node.app)
        made = await raw("PUT", "/a/_doc/1?pipeline=search-default-ingestion", source)
        assert made.status == 201, made.json
        return dict((await raw("GET", "/a/_doc/1")).json["_source"])


async def test_the_default_pipeline_turns_attachments_into_bodies(make_raw):
    source = {"title": "t", "_attachment": encoded(b"%PDF  two\n\n words \xef\xbf\xbd "), **HIDDEN}
    assert await through_default(make_raw, source) == {"title": "t", "body": "two words"}


async def test_the_default_pipeline_leaves_white_space_if_told_to(make_raw):
    source = {"_attachment": encoded(b"two\n\nwords"), **HIDDEN, "_reduce_whitespace": False}
    assert await through_default(make_raw, source) == {"body": "two\n\nwords"}


async def test_the_default_pipeline_does_not_extract_if_told_not_to(make_raw):
    source = {"_attachment": encoded(b"words"), "body": " kept  ", **HIDDEN, "_extract_binary_content": False}
    assert await through_default(make_raw, source) == {"body": "kept"}


async def test_a_body_that_is_there_passes(make_raw):
    assert await through_default(make_raw, {"body": "a  b", **HIDDEN}) == {"body": "a b"}


async def test_bodies_are_cut_at_the_limit(make_raw):
    long = b"x" * 150_000
    assert len((await through_default(make_raw, {"_attachment": encoded(long), **HIDDEN}))["body"]) == 100_000
    every = {"_attachment": encoded(long), "_attachment_indexed_chars": -1, **HIDDEN}
    assert len((await through_default(make_raw, every))["body"]) == 150_000


@pytest.mark.parametrize("attachment", [encoded(b"broken"), "no base64 at all!", 7])
async def test_a_failed_step_is_noted_and_the_document_indexed(make_raw, attachment):
    found = await through_default(make_raw, {"title": "t", "_attachment": attachment, **HIDDEN})
    assert found["title"] == "t"
    assert "_attachment" not in found
    (note,) = found["_ingestion_errors"]
    assert "extract_attachment" in note


async def test_without_a_reader_attachments_are_noted(raw):
    await raw("PUT", "/a/_doc/1?pipeline=search-default-ingestion", {"_attachment": encoded(b"x"), **HIDDEN})
    assert "without a reader" in (await raw("GET", "/a/_doc/1")).json["_source"]["_ingestion_errors"][0]


async def test_the_managed_pipeline_and_templates_are_there(raw):
    assert (await raw("GET", "/_ingest/pipeline/search-default-ingestion")).status == 200
    for name in ("elastic-connectors", "elastic-connectors-sync-jobs", "search-acl-filter"):
        assert (await raw("GET", f"/_index_template/{name}")).status == 200
    await raw("PUT", "/.search-acl-filter-x/_doc/a%40b", {"query": {"template": {"params": {"access_control": ["a"]}}}})
    mapping = (await raw("GET", "/.search-acl-filter-x/_mapping")).json[".search-acl-filter-x"]["mappings"]
    assert mapping == {"dynamic": "false", "properties": {"created_at": {"type": "date"}}}
    await raw("POST", "/.elastic-connectors-sync-jobs/_doc", {"status": "pending"})
    assert (await raw("GET", "/.elastic-connectors-sync-jobs/_search?q=status:pending")).json["hits"]["total"][
        "value"
    ] == 1


@pytest.mark.parametrize(
    ("processor", "source", "wanted"),
    [
        ({"set": {"field": "a.b", "value": [1, "{{c}}"]}}, {"c": "x"}, {"c": "x", "a": {"b": [1, "x"]}}),
        ({"set": {"field": "a", "value": 2, "override": False}}, {"a": 1}, {"a": 1}),
        ({"set": {"field": "a", "copy_from": "b"}}, {"b": {"c": 1}}, {"b": {"c": 1}, "a": {"c": 1}}),
        ({"set": {"field": "a", "value": "{{none}}", "ignore_empty_value": True}}, {}, {}),
        ({"append": {"field": "a", "value": "x", "allow_duplicates": False}}, {"a": "x"}, {"a": ["x"]}),
        ({"remove": {"field": ["a", "b.c"]}}, {"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2}}),
        ({"split": {"field": "a", "separator": ","}}, {"a": "x,y,,"}, {"a": ["x", "y"]}),
        ({"join": {"field": "a", "separator": "-"}}, {"a": [1, True]}, {"a": "1-true"}),
        ({"convert": {"field": "a", "type": "auto"}}, {"a": "1.5"}, {"a": 1.5}),
        ({"convert": {"field": "a", "type": "boolean"}}, {"a": "TRUE"}, {"a": True}),
        ({"gsub": {"field": "a", "pattern": "(b)(c)", "replacement": "$2$1"}}, {"a": "abc"}, {"a": "acb"}),
        ({"json": {"field": "a", "target_field": "b"}}, {"a": '{"c": 1}'}, {"a": '{"c": 1}', "b": {"c": 1}}),
        ({"html_strip": {"field": "a"}}, {"a": "<b>x</b> &amp; y"}, {"a": "\nx\n & y"}),
        ({"uppercase": {"field": "a", "target_field": "b"}}, {"a": ["x", "y"]}, {"a": ["x", "y"], "b": ["X", "Y"]}),
    ],
    ids=str,
)
async def test_processors(raw, processor, source, wanted):
    answer = await raw(
        "POST", "/_ingest/pipeline/_simulate", {"pipeline": {"processors": [processor]}, "docs": [{"_source": source}]}
    )
    assert answer.json["docs"][0]["doc"]["_source"] == wanted


@pytest.mark.parametrize(
    ("text", "document", "wanted"),
    [
        ("ctx.a == true", {"a": True}, True),
        ("ctx.a == true", {"a": 1}, False),
        ("ctx?.a?.b != null && !(ctx.c == 'x')", {"a": {"b": 0}}, True),
        ("ctx?.a?.b != null", {"a": 1}, False),
        ("ctx.n >= 3 || ctx.n < 0", {"n": 3}, True),
        ("ctx['a b'] == \"c\"", {"a b": "c"}, True),
        ("ctx.containsKey('a')", {"a": None}, True),
        ("ctx.n > 'x'", {"n": 1}, False),
    ],
)
def test_conditions(text, document, wanted):
    assert compile_condition(text)(document) is wanted


@pytest.mark.parametrize(
    "text", ["", "ctx.a ==", "ctx.a.size() > 1", "(ctx.a == 1", "return true", "ctx.a = 1", "!" * 100 + "ctx.a"]
)
def test_other_conditions_are_refused(text):
    with pytest.raises(ApiError) as caught:
        compile_condition(text)
    assert caught.value.status == 501
