"""What an official client sees of the node is what it sees of Elasticsearch: every test here runs against both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from elasticsearch import ApiError, BadRequestError, ConflictError, NotFoundError, helpers


def ids(answer: Mapping[str, Any]) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def found(answer: Mapping[str, Any]) -> set[str]:
    return set(ids(answer))


def error(caught: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return caught.value.meta.status, caught.value.body["error"]["type"]


BOOKS: dict[str, dict[str, Any]] = {
    "1": {
        "title": "The quick brown fox",
        "tags": ["animal", "fast"],
        "pages": 10,
        "price": 1.5,
        "out": "2024-01-05",
        "sold": True,
    },
    "2": {
        "title": "A lazy dog sleeps",
        "tags": ["animal", "slow"],
        "pages": 20,
        "price": 2.5,
        "out": "2024-02-05",
        "sold": False,
    },
    "3": {
        "title": "Brown bread and brown butter",
        "tags": ["food"],
        "pages": 30,
        "price": 3.5,
        "out": "2024-03-05T12:30:00Z",
    },
    "4": {"title": "Stage left, stage right", "tags": "stage", "pages": 40, "author": {"name": "Ada", "born": 1815}},
    "5": {"title": "prompt-book of the Tempest", "tags": [], "pages": None, "author": {"name": "Will Shakespeare"}},
}


@pytest.fixture
async def books(both: Any) -> str:
    index = both.name("books")
    operations: list[Any] = []
    for doc_id, document in BOOKS.items():
        operations += [{"index": {"_index": index, "_id": doc_id}}, document]
    answer = await both.es.bulk(operations=operations, refresh=True)
    assert answer["errors"] is False
    return index


async def test_info_says_who_it_is(both):
    answer = await both.es.info()
    assert answer.meta.headers["x-elastic-product"] == "Elasticsearch"
    assert answer["tagline"] == "You Know, for Search"
    assert int(answer["version"]["number"].split(".")[0]) == 9
    assert await both.es.ping()


async def test_an_index_is_made_once_and_deleted_once(both):
    index = both.name()
    made = await both.es.indices.create(index=index, settings={"number_of_replicas": 0})
    assert made.body == {"acknowledged": True, "shards_acknowledged": True, "index": index}
    assert await both.es.indices.exists(index=index)
    with pytest.raises(BadRequestError) as caught:
        await both.es.indices.create(index=index)
    assert error(caught) == (400, "resource_already_exists_exception")
    assert (await both.es.indices.delete(index=index)).body == {"acknowledged": True}
    assert not await both.es.indices.exists(index=index)
    with pytest.raises(NotFoundError) as gone:
        await both.es.indices.delete(index=index)
    assert error(gone) == (404, "index_not_found_exception")
    await both.es.indices.delete(index=index, ignore_unavailable=True)


@pytest.mark.parametrize("name", ["Capital", "_under", "-dash", "a b", "a#b", "a:b", "x" * 256])
async def test_illegal_index_names_are_refused(both, name):
    with pytest.raises(BadRequestError) as caught:
        await both.es.indices.create(index=name)
    assert error(caught) == (400, "invalid_index_name_exception")


async def test_an_unknown_setting_is_refused(both):
    with pytest.raises(BadRequestError) as caught:
        await both.es.indices.create(index=both.name(), settings={"index.number_of_wonders": 1})
    assert error(caught) == (400, "illegal_argument_exception")


async def test_wildcards_do_not_delete(both, books):
    with pytest.raises(BadRequestError) as caught:
        await both.es.indices.delete(index=both.prefix + "*")
    assert error(caught) == (400, "illegal_argument_exception")


async def test_settings_come_back_as_text(both):
    index = both.name()
    await both.es.indices.create(
        index=index, settings={"index": {"number_of_replicas": 0, "refresh_interval": "5s", "hidden": True}}
    )
    settings = (await both.es.indices.get_settings(index=index))[index]["settings"]["index"]
    assert settings["number_of_replicas"] == "0"
    assert settings["refresh_interval"] == "5s"
    assert settings["hidden"] == "true"
    assert settings["provided_name"] == index
    await both.es.indices.put_settings(
        index=index, settings={"index": {"refresh_interval": None, "number_of_replicas": 1}}
    )
    settings = (await both.es.indices.get_settings(index=index))[index]["settings"]["index"]
    assert "refresh_interval" not in settings
    assert settings["number_of_replicas"] == "1"
    with pytest.raises(BadRequestError) as caught:
        await both.es.indices.put_settings(index=index, settings={"index": {"number_of_shards": 3}})
    assert error(caught) == (400, "illegal_argument_exception")


async def test_dynamic_mapping_guesses_types(both):
    index = both.name()
    document = {
        "s": "text",
        "n": 1,
        "f": 1.5,
        "b": True,
        "d": "2024-01-01",
        "o": {"inner": "x"},
        "l": [1, 2],
        "nothing": None,
        "e": [],
    }
    await both.es.index(index=index, id="1", document=document)
    properties = (await both.es.indices.get_mapping(index=index))[index]["mappings"]["properties"]
    text = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}
    assert properties == {
        "s": text,
        "n": {"type": "long"},
        "f": {"type": "float"},
        "b": {"type": "boolean"},
        "d": {"type": "date"},
        "o": {"properties": {"inner": text}},
        "l": {"type": "long"},
    }


async def test_mappings_are_added_to_and_never_changed(both):
    index = both.name()
    await both.es.indices.create(index=index, mappings={"properties": {"a": {"type": "keyword"}}})
    await both.es.indices.put_mapping(index=index, properties={"b": {"type": "long"}, "c.d": {"type": "date"}})
    properties = (await both.es.indices.get_mapping(index=index))[index]["mappings"]["properties"]
    assert properties["b"] == {"type": "long"}
    assert properties["c"] == {"properties": {"d": {"type": "date"}}}
    with pytest.raises(BadRequestError) as caught:
        await both.es.indices.put_mapping(index=index, properties={"a": {"type": "long"}})
    assert error(caught) == (400, "illegal_argument_exception")
    with pytest.raises(BadRequestError) as unknown:
        await both.es.indices.put_mapping(index=index, properties={"z": {"type": "wonder"}})
    assert error(unknown) == (400, "mapper_parsing_exception")


async def test_strict_and_ignored_fields(both):
    strict, ignoring = both.name("strict"), both.name("ignoring")
    await both.es.indices.create(index=strict, mappings={"dynamic": "strict", "properties": {"a": {"type": "long"}}})
    with pytest.raises(BadRequestError) as caught:
        await both.es.index(index=strict, document={"a": 1, "b": 2})
    assert error(caught) == (400, "strict_dynamic_mapping_exception")
    await both.es.indices.create(index=ignoring, mappings={"dynamic": False, "properties": {"a": {"type": "long"}}})
    await both.es.index(index=ignoring, id="1", document={"a": 1, "b": {"c": 2}}, refresh=True)
    assert (await both.es.get(index=ignoring, id="1"))["_source"] == {"a": 1, "b": {"c": 2}}
    assert ids(await both.es.search(index=ignoring, query={"term": {"b.c": 2}})) == []
    assert ids(await both.es.search(index=ignoring, query={"term": {"a": 1}})) == ["1"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("long", "many"),
        ("long", {"a": 1}),
        ("date", "yesterday"),
        ("boolean", "yes"),
        ("keyword", {"a": 1}),
        ("integer", 3_000_000_000),
    ],
)
async def test_a_value_of_the_wrong_type_is_refused(both, kind, value):
    index = both.name()
    await both.es.indices.create(index=index, mappings={"properties": {"a": {"type": kind}}})
    with pytest.raises(BadRequestError) as caught:
        await both.es.index(index=index, id="1", document={"a": value})
    assert error(caught) == (400, "document_parsing_exception")
    assert not await both.es.exists(index=index, id="1")


async def test_a_document_lives_and_dies(both):
    index = both.name()
    made = await both.es.index(index=index, id="x", document={"n": 1})
    assert (made["result"], made["_version"], made["_seq_no"], made["_primary_term"]) == ("created", 1, 0, 1)
    assert made.meta.status == 201
    again = await both.es.index(index=index, id="x", document={"n": 2})
    assert (again["result"], again["_version"], again["_seq_no"]) == ("updated", 2, 1)
    got = await both.es.get(index=index, id="x")
    assert got["_source"] == {"n": 2}
    assert (got["_version"], got["_seq_no"], got["_primary_term"], got["found"]) == (2, 1, 1, True)
    assert (await both.es.get_source(index=index, id="x")).body == {"n": 2}
    with pytest.raises(ConflictError) as caught:
        await both.es.create(index=index, id="x", document={"n": 3})
    assert error(caught) == (409, "version_conflict_engine_exception")
    gone = await both.es.delete(index=index, id="x")
    assert gone["result"] == "deleted"
    with pytest.raises(NotFoundError) as missing:
        await both.es.delete(index=index, id="x")
    assert missing.value.body["result"] == "not_found"
    with pytest.raises(NotFoundError) as absent:
        await both.es.get(index=index, id="x")
    assert absent.value.body["found"] is False
    with pytest.raises(NotFoundError) as nowhere:
        await both.es.get(index=both.name("none"), id="x")
    assert error(nowhere) == (404, "index_not_found_exception")


async def test_ids_may_hold_anything(both):
    index = both.name()
    for doc_id in ("a/b", "ü ö", "a?b#c", "x" * 512, "a%2Fb"):
        await both.es.index(index=index, id=doc_id, document={"id": doc_id})
        assert (await both.es.get(index=index, id=doc_id))["_id"] == doc_id
    with pytest.raises(BadRequestError):
        await both.es.index(index=index, id="x" * 513, document={})


async def test_optimistic_concurrency(both):
    index = both.name()
    made = await both.es.index(index=index, id="x", document={"n": 1})
    at = {"if_seq_no": made["_seq_no"], "if_primary_term": made["_primary_term"]}
    await both.es.index(index=index, id="x", document={"n": 2}, **at)
    for stale in (
        both.es.index(index=index, id="x", document={"n": 3}, **at),
        both.es.update(index=index, id="x", doc={"n": 3}, **at),
        both.es.delete(index=index, id="x", **at),
        both.es.index(index=index, id="new", document={}, **at),
    ):
        with pytest.raises(ConflictError) as caught:
            await stale
        assert error(caught) == (409, "version_conflict_engine_exception")
    with pytest.raises(BadRequestError) as half:
        await both.es.index(index=index, id="x", document={}, if_seq_no=1)
    assert error(half) == (400, "action_request_validation_exception")


async def test_updates_merge_and_notice_when_nothing_changes(both):
    index = both.name()
    await both.es.index(index=index, id="x", document={"a": {"b": 1, "c": 2}, "l": [1]})
    changed = await both.es.update(index=index, id="x", doc={"a": {"c": 3}, "l": [2]})
    assert (changed["result"], changed["_version"]) == ("updated", 2)
    assert (await both.es.get(index=index, id="x"))["_source"] == {"a": {"b": 1, "c": 3}, "l": [2]}
    same = await both.es.update(index=index, id="x", doc={"a": {"c": 3}})
    assert (same["result"], same["_version"]) == ("noop", 2)
    forced = await both.es.update(index=index, id="x", doc={"a": {"c": 3}}, detect_noop=False)
    assert forced["result"] == "updated"
    with pytest.raises(NotFoundError) as caught:
        await both.es.update(index=index, id="none", doc={"a": 1})
    assert error(caught) == (404, "document_missing_exception")
    upserted = await both.es.update(index=index, id="y", doc={"n": 1}, doc_as_upsert=True)
    assert upserted["result"] == "created"
    other = await both.es.update(index=index, id="z", doc={"n": 1}, upsert={"n": 5})
    assert other["result"] == "created"
    assert (await both.es.get(index=index, id="z"))["_source"] == {"n": 5}
    shown = await both.es.update(index=index, id="z", doc={"n": 6}, source=True)
    assert shown["get"]["_source"] == {"n": 6}


async def test_bulk_answers_item_by_item(both):
    index = both.name()
    await both.es.indices.create(index=index, mappings={"properties": {"n": {"type": "long"}}})
    answer = await both.es.bulk(
        operations=[
            {"index": {"_index": index, "_id": "1"}},
            {"n": 1},
            {"create": {"_index": index, "_id": "1"}},
            {"n": 2},
            {"index": {"_index": index, "_id": "2"}},
            {"n": "many"},
            {"update": {"_index": index, "_id": "1"}},
            {"doc": {"m": 3}},
            {"update": {"_index": index, "_id": "none"}},
            {"doc": {"m": 3}},
            {"update": {"_index": index, "_id": "4"}},
            {"doc": {"m": 4}, "doc_as_upsert": True},
            {"delete": {"_index": index, "_id": "1"}},
            {"delete": {"_index": index, "_id": "1"}},
            {"index": {"_index": index}},
            {"n": 9},
            {"index": {"_index": index, "_id": "5", "if_seq_no": 99, "if_primary_term": 1}},
            {"n": 9},
        ]
    )
    assert answer["errors"] is True
    seen = [
        (action, item["status"], item.get("result"), item.get("error", {}).get("type"))
        for one in answer["items"]
        for action, item in one.items()
    ]
    assert seen == [
        ("index", 201, "created", None),
        ("create", 409, None, "version_conflict_engine_exception"),
        ("index", 400, None, "document_parsing_exception"),
        ("update", 200, "updated", None),
        ("update", 404, None, "document_missing_exception"),
        ("update", 201, "created", None),
        ("delete", 200, "deleted", None),
        ("delete", 404, "not_found", None),
        ("index", 201, "created", None),
        ("index", 409, None, "version_conflict_engine_exception"),
    ]


async def test_a_broken_bulk_is_refused_as_a_whole(both):
    index = both.name()
    headers = {"content-type": "application/x-ndjson", "accept": "application/json"}
    for body in (b'{"wonder": {}}\n{}\n', b'{"index": {"what": 1}}\n{}\n', b"[]\n", b"nonsense\n"):
        with pytest.raises(BadRequestError):
            await both.es.perform_request("POST", f"/{index}/_bulk", body=body, headers=headers)
    assert not await both.es.indices.exists(index=index)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # The client's own generators, under Trio.
async def test_bulk_helpers(both):
    index = both.name()
    actions = [{"_index": index, "_id": str(n), "n": n, "even": n % 2 == 0} for n in range(250)]
    assert await helpers.async_bulk(both.es, actions, chunk_size=100, refresh=True) == (250, [])
    seen = [hit["_source"]["n"] async for hit in helpers.async_scan(both.es, index=index, size=40)]
    assert sorted(seen) == list(range(250))
    assert (await both.es.count(index=index, query={"term": {"even": True}}))["count"] == 125


async def test_mget_says_what_is_missing(both, books):
    answer = await both.es.mget(index=books, ids=["1", "none"])
    assert [(doc["_id"], doc["found"]) for doc in answer["docs"]] == [("1", True), ("none", False)]
    other = await both.es.mget(
        docs=[{"_index": books, "_id": "2", "_source": ["pages"]}, {"_index": both.name("no"), "_id": "1"}]
    )
    assert other["docs"][0]["_source"] == {"pages": 20}
    assert other["docs"][1]["error"]["type"] == "index_not_found_exception"


QUERIES: list[tuple[dict[str, Any], set[str]]] = [
    ({"match_all": {}}, {"1", "2", "3", "4", "5"}),
    ({"match_none": {}}, set()),
    ({"ids": {"values": ["1", "3", "nope"]}}, {"1", "3"}),
    ({"term": {"tags.keyword": "animal"}}, {"1", "2"}),
    ({"term": {"tags.keyword": {"value": "ANIMAL", "case_insensitive": True}}}, {"1", "2"}),
    ({"term": {"title": "brown"}}, {"1", "3"}),
    ({"term": {"title": "Brown"}}, set()),
    ({"term": {"pages": 20}}, {"2"}),
    ({"term": {"pages": "20"}}, {"2"}),
    ({"term": {"pages": 20.5}}, set()),
    ({"term": {"sold": True}}, {"1"}),
    ({"term": {"sold": "false"}}, {"2"}),
    ({"term": {"out": "2024-01-05"}}, {"1"}),
    ({"term": {"author.name.keyword": "Ada"}}, {"4"}),
    ({"term": {"nowhere": 1}}, set()),
    ({"term": {"_id": "3"}}, {"3"}),
    ({"terms": {"tags.keyword": ["fast", "food"]}}, {"1", "3"}),
    ({"terms": {"pages": [10, 40, 99]}}, {"1", "4"}),
    ({"terms": {"_id": ["2", "5"]}}, {"2", "5"}),
    ({"range": {"pages": {"gt": 10, "lte": 30}}}, {"2", "3"}),
    ({"range": {"pages": {"gte": 19.5}}}, {"2", "3", "4"}),
    ({"range": {"price": {"lt": 2.5}}}, {"1"}),
    ({"range": {"out": {"gte": "2024-02"}}}, {"2", "3"}),
    ({"range": {"out": {"lte": "2024-02"}}}, {"1"}),
    ({"range": {"out": {"gte": "2024-03-05||/d", "lt": "2024-03-05||+1d"}}}, {"3"}),
    ({"range": {"out": {"lte": "2024-02-05"}}}, {"1", "2"}),
    ({"range": {"out": {"gt": "now-1d"}}}, set()),
    ({"range": {"tags.keyword": {"gte": "f", "lt": "g"}}}, {"1", "3"}),
    ({"exists": {"field": "pages"}}, {"1", "2", "3", "4"}),
    ({"exists": {"field": "tags"}}, {"1", "2", "3", "4"}),
    ({"exists": {"field": "author"}}, {"4", "5"}),
    ({"exists": {"field": "nowhere"}}, set()),
    ({"prefix": {"tags.keyword": "an"}}, {"1", "2"}),
    ({"prefix": {"title": {"value": "bro"}}}, {"1", "3"}),
    ({"wildcard": {"tags.keyword": {"value": "f*"}}}, {"1", "3"}),
    ({"wildcard": {"tags.keyword": "?a*t"}}, {"1"}),
    ({"wildcard": {"title": "*ead"}}, {"3"}),
    ({"wildcard": {"title": "b?own"}}, {"1", "3"}),
    ({"match": {"title": "brown dog"}}, {"1", "2", "3"}),
    ({"match": {"title": {"query": "brown fox", "operator": "and"}}}, {"1"}),
    ({"match": {"title": {"query": "quick brown nonsense", "minimum_should_match": 2}}}, {"1"}),
    ({"match": {"title": {"query": "quick brown fox nonsense", "minimum_should_match": "75%"}}}, {"1"}),
    ({"match": {"title": "BROWN"}}, {"1", "3"}),
    ({"match": {"title": "..."}}, set()),
    ({"match": {"tags.keyword": "animal"}}, {"1", "2"}),
    ({"match": {"pages": 30}}, {"3"}),
    ({"match_phrase": {"title": "stage right"}}, {"4"}),
    ({"match_phrase": {"title": "right stage"}}, set()),
    ({"match_phrase_prefix": {"title": "quick bro"}}, {"1"}),
    ({"match_bool_prefix": {"title": "butter br"}}, {"1", "3"}),
    ({"multi_match": {"query": "ada brown", "fields": ["title", "author.name"]}}, {"1", "3", "4"}),
    ({"multi_match": {"query": "brown fox", "fields": ["title^2", "author.n*"], "operator": "and"}}, {"1"}),
    ({"multi_match": {"query": "stage right", "type": "phrase", "fields": ["title"]}}, {"4"}),
    (
        {
            "multi_match": {
                "query": "left animal",
                "type": "cross_fields",
                "operator": "and",
                "fields": ["title", "tags"],
            }
        },
        set(),
    ),
    (
        {
            "multi_match": {
                "query": "lazy animal",
                "type": "cross_fields",
                "operator": "and",
                "fields": ["title", "tags"],
            }
        },
        {"2"},
    ),
    ({"query_string": {"query": "brown AND fox"}}, {"1"}),
    ({"query_string": {"query": "brown OR lazy"}}, {"1", "2", "3"}),
    ({"query_string": {"query": "brown -fox"}}, {"3"}),
    ({"query_string": {"query": "+brown +bread"}}, {"3"}),
    ({"query_string": {"query": "title:(dog OR fox)"}}, {"1", "2"}),
    ({"query_string": {"query": '"stage right"'}}, {"4"}),
    ({"query_string": {"query": "pages:[20 TO 30]"}}, {"2", "3"}),
    ({"query_string": {"query": "pages:{20 TO 40]"}}, {"3", "4"}),
    ({"query_string": {"query": "pages:>=30"}}, {"3", "4"}),
    ({"query_string": {"query": "_exists_:sold"}}, {"1", "2"}),
    ({"query_string": {"query": "bro*", "fields": ["title"]}}, {"1", "3"}),
    ({"query_string": {"query": "NOT brown"}}, {"2", "4", "5"}),
    ({"query_string": {"query": "brown fox", "default_operator": "AND"}}, {"1"}),
    ({"query_string": {"query": "lazy animal", "default_operator": "AND"}}, set()),
    ({"query_string": {"query": "lazy AND animal"}}, {"2"}),
    ({"query_string": {"query": "lazy dog AND animal", "default_operator": "AND"}}, {"2"}),
    ({"query_string": {"query": "quick fox -food bread", "fields": ["title", "tags"]}}, {"1"}),
    ({"query_string": {"query": "prompt\\-book"}}, {"5"}),
    ({"query_string": {"query": "*:*"}}, {"1", "2", "3", "4", "5"}),
    ({"bool": {"must": [{"match": {"title": "brown"}}], "must_not": [{"term": {"tags.keyword": "food"}}]}}, {"1"}),
    ({"bool": {"filter": {"term": {"tags.keyword": "animal"}}}}, {"1", "2"}),
    ({"bool": {"should": [{"term": {"pages": 10}}, {"term": {"pages": 40}}]}}, {"1", "4"}),
    ({"bool": {"filter": [{"exists": {"field": "price"}}], "should": [{"term": {"pages": 40}}]}}, {"1", "2", "3"}),
    (
        {
            "bool": {
                "filter": [{"exists": {"field": "price"}}],
                "should": [{"term": {"pages": 10}}],
                "minimum_should_match": 1,
            }
        },
        {"1"},
    ),
    (
        {
            "bool": {
                "should": [{"term": {"tags.keyword": "animal"}}, {"term": {"sold": True}}, {"term": {"pages": 20}}],
                "minimum_should_match": 2,
            }
        },
        {"1", "2"},
    ),
    ({"bool": {}}, {"1", "2", "3", "4", "5"}),
    ({"bool": {"must_not": {"exists": {"field": "author"}}}}, {"1", "2", "3"}),
    ({"constant_score": {"filter": {"term": {"pages": 10}}, "boost": 2}}, {"1"}),
    (
        {
            "dis_max": {
                "queries": [{"match": {"title": "fox"}}, {"term": {"tags.keyword": "stage"}}],
                "tie_breaker": 0.3,
            }
        },
        {"1", "4"},
    ),
]


async def test_queries_find_the_same(both, books):
    wrong = []
    for query, wanted in QUERIES:
        got = found(await both.es.search(index=books, query=query))
        if got != wanted:
            wrong.append((query, wanted, got))
        counted = (await both.es.count(index=books, query=query))["count"]
        assert counted == len(got), query
    assert wrong == []


BAD_QUERIES: list[dict[str, Any]] = [
    {"wonder": {"a": 1}},
    {"match": {"title": "a", "tags": "b"}},
    {"term": {"pages": "many"}},
    {"term": {"pages": [1]}},
    {"range": {"pages": {"above": 1}}},
    {"range": {"out": {"gt": "someday"}}},
    {"match": {"title": {"query": "a", "wonder": 1}}},
    {"match": {"title": {"query": "a", "operator": "xor"}}},
    {"bool": {"maybe": []}},
    {"query_string": {"query": "(a"}},
    {"query_string": {"query": "a AND"}},
    {"ids": {"values": {"a": 1}}},
    {"terms": {"a": "b"}},
    {"exists": {}},
    {"match_all": {}, "term": {"a": 1}},
    {},
]


@pytest.mark.parametrize("query", BAD_QUERIES, ids=str)
async def test_wrong_queries_are_refused(both, books, query):
    with pytest.raises(BadRequestError):
        await both.es.search(index=books, query=query)


async def test_a_search_shows_what_was_asked_for(both, books):
    answer = await both.es.search(index=books, query={"term": {"pages": 10}}, version=True, seq_no_primary_term=True)
    (hit,) = answer["hits"]["hits"]
    assert hit["_index"] == books
    assert (hit["_version"], hit["_primary_term"]) == (1, 1)
    assert hit["_seq_no"] == 0
    assert hit["_score"] == 1.0
    assert hit["_source"] == BOOKS["1"]
    assert answer["hits"]["total"] == {"value": 1, "relation": "eq"}
    assert answer["timed_out"] is False


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (False, None),
        (["pages"], {"pages": 40}),
        ("author.*", {"author": {"name": "Ada", "born": 1815}}),
        (["author.name", "pages"], {"author": {"name": "Ada"}, "pages": 40}),
        ({"excludes": ["author", "t*"]}, {"pages": 40}),
        ({"includes": ["author"], "excludes": ["*.born"]}, {"author": {"name": "Ada"}}),
    ],
)
async def test_source_filtering(both, books, source, wanted):
    answer = await both.es.search(index=books, query={"ids": {"values": ["4"]}}, source=source)
    assert answer["hits"]["hits"][0].get("_source") == wanted


async def test_sorting(both, books):
    async def order(sort: Any, **more: Any) -> list[str]:
        return ids(await both.es.search(index=books, sort=sort, **more))

    assert await order("pages") == ["1", "2", "3", "4", "5"]
    assert await order([{"pages": "desc"}]) == ["4", "3", "2", "1", "5"]
    assert await order([{"pages": {"order": "desc", "missing": "_first"}}]) == ["5", "4", "3", "2", "1"]
    assert await order([{"pages": {"missing": 25}}]) == ["1", "2", "5", "3", "4"]
    assert (await order([{"out": "desc"}, {"pages": "asc"}]))[:3] == ["3", "2", "1"]
    assert await order([{"title.keyword": "asc"}]) == ["2", "3", "4", "1", "5"]
    assert (await order([{"tags.keyword": {"order": "asc"}}, {"pages": "asc"}])) == ["1", "2", "3", "4", "5"]
    assert await order([{"nowhere": {"unmapped_type": "long"}}, {"pages": "asc"}]) == ["1", "2", "3", "4", "5"]
    answer = await both.es.search(index=books, sort=[{"pages": "asc"}], size=1)
    assert answer["hits"]["hits"][0]["sort"] == [10]
    assert answer["hits"]["hits"][0]["_score"] is None
    assert answer["hits"]["max_score"] is None


@pytest.mark.parametrize("sort", [[{"nowhere": "asc"}], [{"title": "asc"}], [{"pages": "up"}]])
async def test_what_cannot_be_sorted_by_is_refused(both, books, sort):
    with pytest.raises(BadRequestError):
        await both.es.search(index=books, sort=sort)


async def test_relevance_puts_the_better_hit_first(both):
    index = both.name()
    for number in range(20):
        await both.es.index(
            index=index, id=f"filler{number}", document={"text": f"nothing to see here number {number}"}
        )
    await both.es.index(index=index, id="much", document={"text": "opera opera opera house"})
    await both.es.index(
        index=index,
        id="little",
        document={"text": "a long walk past the old opera and then home again for tea"},
        refresh=True,
    )
    answer = await both.es.search(index=index, query={"match": {"text": "opera"}})
    assert ids(answer) == ["much", "little"]
    scores = [hit["_score"] for hit in answer["hits"]["hits"]]
    assert scores[0] > scores[1] > 0
    assert answer["hits"]["max_score"] == scores[0]
    boosted = await both.es.search(
        index=index,
        query={"bool": {"should": [{"match": {"text": "opera"}}, {"term": {"_id": {"value": "little", "boost": 50}}}]}},
    )
    assert ids(boosted) == ["little", "much"]


async def test_pages_and_their_window(both, books):
    answer = await both.es.search(index=books, sort="pages", from_=1, size=2)
    assert ids(answer) == ["2", "3"]
    assert answer["hits"]["total"]["value"] == 5
    assert ids(await both.es.search(index=books, size=0)) == []
    with pytest.raises(BadRequestError):
        await both.es.search(index=books, from_=9_999, size=2)
    with pytest.raises(BadRequestError):
        await both.es.search(index=books, from_=-1)


async def test_search_after_goes_on_where_it_stopped(both, books):
    seen: list[str] = []
    after = None
    while True:
        answer = await both.es.search(
            index=books, sort=[{"pages": "desc"}, {"title.keyword": "asc"}], size=2, search_after=after
        )
        if not ids(answer):
            break
        seen += ids(answer)
        after = answer["hits"]["hits"][-1]["sort"]
    assert seen == ["4", "3", "2", "1", "5"]
    with pytest.raises(BadRequestError):
        await both.es.search(index=books, sort=[{"pages": "asc"}], search_after=[1, 2])


async def test_total_hits_can_be_cut_or_left_out(both, books):
    cut = await both.es.search(index=books, track_total_hits=2)
    assert cut["hits"]["total"] == {"value": 2, "relation": "gte"}
    none = await both.es.search(index=books, track_total_hits=False)
    assert "total" not in none["hits"]
    full = await both.es.search(index=books, track_total_hits=True)
    assert full["hits"]["total"] == {"value": 5, "relation": "eq"}


async def test_a_point_in_time_does_not_move(both, books):
    pit = (await both.es.open_point_in_time(index=books, keep_alive="1m"))["id"]
    await both.es.delete(index=books, id="1")
    await both.es.index(index=books, id="2", document={"title": "changed", "pages": 99})
    await both.es.index(index=books, id="6", document={"title": "new", "pages": 60}, refresh=True)
    seen: dict[str, Any] = {}
    after = None
    while True:
        answer = await both.es.search(
            pit={"id": pit, "keep_alive": "1m"}, sort=["_shard_doc"], size=2, search_after=after
        )
        pit = answer["pit_id"]
        if not ids(answer):
            break
        seen |= {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}
        after = answer["hits"]["hits"][-1]["sort"]
    assert seen == BOOKS
    by_field = await both.es.search(pit={"id": pit}, sort=[{"pages": "asc"}], size=1)
    assert len(by_field["hits"]["hits"][0]["sort"]) == 2
    assert (await both.es.close_point_in_time(id=pit))["succeeded"] is True
    with pytest.raises(NotFoundError):
        await both.es.search(pit={"id": pit})
    assert found(await both.es.search(index=books)) == {"2", "3", "4", "5", "6"}


async def test_a_scroll_does_not_move(both, books):
    answer = await both.es.search(index=books, scroll="1m", size=2, sort="_doc")
    await both.es.delete(index=books, id="5", refresh=True)
    seen = ids(answer)
    while True:
        answer = await both.es.scroll(scroll_id=answer["_scroll_id"], scroll="1m")
        if not ids(answer):
            break
        seen += ids(answer)
    assert sorted(seen) == ["1", "2", "3", "4", "5"]
    assert answer["hits"]["total"]["value"] == 5
    assert (await both.es.clear_scroll(scroll_id=answer["_scroll_id"]))["succeeded"] is True
    with pytest.raises(NotFoundError):
        await both.es.scroll(scroll_id=answer["_scroll_id"])


async def test_highlights_mark_the_words(both, books):
    answer = await both.es.search(
        index=books, query={"match": {"title": "brown"}}, highlight={"fields": {"title": {}}}, sort="pages"
    )
    assert [hit["highlight"]["title"] for hit in answer["hits"]["hits"]] == [
        ["The quick <em>brown</em> fox"],
        ["<em>Brown</em> bread and <em>brown</em> butter"],
    ]
    other = await both.es.search(
        index=books,
        query={"query_string": {"query": "stage"}},
        highlight={"pre_tags": ["["], "post_tags": ["]"], "number_of_fragments": 0, "fields": {"t*": {}}},
    )
    assert other["hits"]["hits"][0]["highlight"]["title"] == ["[Stage] left, [stage] right"]


async def test_delete_by_query(both, books):
    answer = await both.es.delete_by_query(index=books, query={"range": {"pages": {"lt": 30}}}, refresh=True)
    assert (answer["deleted"], answer["total"], answer["version_conflicts"], answer["failures"]) == (2, 2, 0, [])
    assert found(await both.es.search(index=books)) == {"3", "4", "5"}
    with pytest.raises(NotFoundError) as caught:
        await both.es.delete_by_query(index=both.name("none"), query={"match_all": {}})
    assert error(caught) == (404, "index_not_found_exception")


async def test_update_by_query_through_a_pipeline(both, books):
    pipeline = both.name("mark")
    await both.es.ingest.put_pipeline(id=pipeline, processors=[{"set": {"field": "marked", "value": "yes"}}])
    answer = await both.es.update_by_query(
        index=books, query={"term": {"tags.keyword": "animal"}}, pipeline=pipeline, refresh=True
    )
    assert (answer["updated"], answer["total"]) == (2, 2)
    assert found(await both.es.search(index=books, query={"term": {"marked.keyword": "yes"}})) == {"1", "2"}
    assert (await both.es.get(index=books, id="1"))["_version"] == 2


async def test_aliases(both, books):
    alias, other = both.name("alias"), both.name("other")
    await both.es.indices.put_alias(index=books, name=alias)
    assert found(await both.es.search(index=alias)) == {"1", "2", "3", "4", "5"}
    assert await both.es.indices.exists_alias(name=alias)
    assert (await both.es.indices.get_alias(name=alias)).body == {books: {"aliases": {alias: {}}}}
    await both.es.index(index=alias, id="6", document={"pages": 60}, refresh=True)
    assert (await both.es.get(index=books, id="6"))["_source"] == {"pages": 60}
    await both.es.indices.update_aliases(
        actions=[
            {"remove": {"index": books, "alias": alias}},
            {"add": {"index": books, "alias": other, "filter": {"term": {"tags.keyword": "animal"}}}},
        ]
    )
    assert not await both.es.indices.exists_alias(name=alias)
    assert found(await both.es.search(index=other)) == {"1", "2"}
    assert (await both.es.count(index=other))["count"] == 2
    with pytest.raises(NotFoundError) as caught:
        await both.es.search(index=alias)
    assert error(caught) == (404, "index_not_found_exception")
    with pytest.raises(NotFoundError):
        await both.es.indices.delete_alias(index=books, name=alias)
    with pytest.raises(BadRequestError):
        await both.es.indices.create(index=other)
    with pytest.raises(BadRequestError):
        await both.es.indices.delete(index=other)


async def test_an_alias_of_many_needs_one_to_write_to(both):
    one, two, alias = both.name("one"), both.name("two"), both.name("alias")
    for index in (one, two):
        await both.es.indices.create(index=index, aliases={alias: {}})
    with pytest.raises(BadRequestError) as caught:
        await both.es.index(index=alias, document={})
    assert error(caught) == (400, "illegal_argument_exception")
    await both.es.indices.put_alias(index=two, name=alias, is_write_index=True)
    assert (await both.es.index(index=alias, document={}))["_index"] == two
    with pytest.raises(NotFoundError):
        await both.es.index(index=one, document={}, require_alias=True)


async def test_wildcards_pass_hidden_indices_over(both):
    plain, hidden, dotted = both.name("plain"), both.name("hidden"), f".{both.prefix}-dotted"
    await both.es.indices.create(index=plain)
    await both.es.indices.create(index=hidden, settings={"hidden": True})
    try:
        assert set((await both.es.indices.get(index=f"{both.prefix}*")).body) == {plain}
        assert {plain, hidden} <= (await both.es.indices.get_alias()).body.keys()
        rows = (await both.es.cat.indices(h="index", format="text")).body.split()
        assert plain in rows
        assert hidden not in rows
        everything = await both.es.indices.get(index=f"{both.prefix}*", expand_wildcards="open,hidden")
        assert set(everything.body) == {plain, hidden}
        assert set((await both.es.indices.get(index=f"{both.prefix}*,-*hidden", expand_wildcards="all")).body) == {
            plain
        }
        assert (await both.es.indices.get(index=both.name("nothing*"))).body == {}
        with pytest.raises(NotFoundError):
            await both.es.indices.get(index=both.name("nothing*"), allow_no_indices=False)
        assert (await both.es.search(index=f"{plain},{both.name('gone')}", ignore_unavailable=True))["hits"]["total"][
            "value"
        ] == 0
    finally:
        await both.es.options(ignore_status=404).indices.delete(index=dotted)


async def test_templates_shape_new_indices(both):
    component, template = both.name("component"), both.name("template")
    await both.es.cluster.put_component_template(
        name=component,
        template={"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"a": {"type": "keyword"}}}},
    )
    await both.es.indices.put_index_template(
        name=template,
        index_patterns=[both.name("from-*")],
        composed_of=[component],
        priority=900,
        template={
            "mappings": {"dynamic": False, "properties": {"b": {"type": "long"}}},
            "aliases": {both.name("all"): {}},
        },
    )
    assert await both.es.indices.exists_index_template(name=template)
    shown = (await both.es.indices.get_index_template(name=template))["index_templates"][0]
    assert shown["name"] == template
    assert shown["index_template"]["priority"] == 900
    index = both.name("from-one")
    await both.es.index(index=index, document={"a": "x", "b": 1, "c": 2})
    made = (await both.es.indices.get(index=index))[index]
    assert made["mappings"] == {"dynamic": "false", "properties": {"a": {"type": "keyword"}, "b": {"type": "long"}}}
    assert made["aliases"] == {both.name("all"): {}}
    assert made["settings"]["index"]["number_of_replicas"] == "0"
    with pytest.raises(BadRequestError):
        await both.es.cluster.delete_component_template(name=component)
    await both.es.indices.delete_index_template(name=template)
    with pytest.raises(NotFoundError):
        await both.es.indices.get_index_template(name=template)
    await both.es.cluster.delete_component_template(name=component)


async def test_older_templates(both):
    name, index = both.name("legacy"), both.name("old-1")
    await both.es.indices.put_template(
        name=name, index_patterns=[both.name("old-*")], mappings={"properties": {"a": {"type": "date"}}}, order=3
    )
    assert (await both.es.indices.get_template(name=name))[name]["order"] == 3
    await both.es.indices.create(index=index)
    assert (await both.es.indices.get_mapping(index=index))[index]["mappings"] == {
        "properties": {"a": {"type": "date"}}
    }
    await both.es.indices.delete_template(name=name)
    assert not await both.es.indices.exists_template(name=name)


async def test_pipelines(both):
    name, index = both.name("pipeline"), both.name()
    processors = [
        {"set": {"field": "greeting", "value": "hello {{name}}"}},
        {"rename": {"field": "old", "target_field": "new", "ignore_missing": True}},
        {"remove": {"field": "secret", "ignore_missing": True}},
        {"gsub": {"field": "spaced", "pattern": r"\s+", "replacement": " ", "ignore_missing": True}},
        {"trim": {"field": "spaced", "ignore_missing": True}},
        {"lowercase": {"field": "name"}},
        {"append": {"field": "tags", "value": ["added"]}},
        {"convert": {"field": "number", "type": "integer", "ignore_missing": True}},
        {"set": {"field": "flagged", "value": True, "if": "ctx.number == 3"}},
    ]
    await both.es.ingest.put_pipeline(id=name, processors=processors, description="all sorts")
    assert (await both.es.ingest.get_pipeline(id=name))[name]["description"] == "all sorts"
    source = {"name": "Ada", "old": 1, "secret": "x", "spaced": "  a \n b ", "tags": ["one"], "number": "3"}
    wanted = {
        "name": "ada",
        "greeting": "hello Ada",
        "new": 1,
        "spaced": "a b",
        "tags": ["one", "added"],
        "number": 3,
        "flagged": True,
    }
    simulated = await both.es.ingest.simulate(id=name, docs=[{"_source": source}])
    assert simulated["docs"][0]["doc"]["_source"] == wanted
    await both.es.index(index=index, id="1", document=source, pipeline=name)
    assert (await both.es.get(index=index, id="1"))["_source"] == wanted
    answer = await both.es.bulk(
        index=index,
        pipeline=name,
        operations=[{"index": {"_id": "2"}}, {"name": "B"}, {"index": {"_id": "3"}}, {"no": "name"}],
    )
    assert [item["index"]["status"] for item in answer["items"]] == [201, 400]
    await both.es.indices.create(index=both.name("default"), settings={"default_pipeline": name})
    await both.es.index(index=both.name("default"), id="1", document={"name": "C"})
    assert (await both.es.get(index=both.name("default"), id="1"))["_source"]["greeting"] == "hello C"
    with pytest.raises(BadRequestError) as caught:
        await both.es.index(index=index, document={}, pipeline=both.name("none"))
    assert error(caught) == (400, "illegal_argument_exception")
    with pytest.raises(NotFoundError):
        await both.es.ingest.delete_pipeline(id=both.name("none"))
    with pytest.raises(BadRequestError):
        await both.es.ingest.put_pipeline(id=name, processors=[{"wonder": {}}])


async def test_failing_processors_and_dropping(both):
    name, index = both.name("pipeline"), both.name()
    await both.es.ingest.put_pipeline(
        id=name,
        processors=[
            {"drop": {"if": "ctx.away == true"}},
            {
                "lowercase": {
                    "field": "missing",
                    "on_failure": [
                        {"append": {"field": "errors", "value": "failed: {{ _ingest.on_failure_processor_type }}"}}
                    ],
                }
            },
            {"uppercase": {"field": "also_missing", "ignore_failure": True}},
        ],
    )
    answer = await both.es.bulk(
        index=index,
        pipeline=name,
        operations=[{"index": {"_id": "1"}}, {"a": 1}, {"index": {"_id": "2"}}, {"away": True}],
    )
    assert [item["index"]["result"] for item in answer["items"]] == ["created", "noop"]
    assert (await both.es.get(index=index, id="1"))["_source"] == {"a": 1, "errors": ["failed: lowercase"]}
    assert not await both.es.exists(index=index, id="2")


async def test_cat_and_health(both, books):
    rows = (await both.es.cat.indices(index=books, format="json")).body
    assert [(row["index"], row["docs.count"], row["status"]) for row in rows] == [(books, "5", "open")]
    text = (await both.es.cat.indices(index=books, h="index,docs.count", format="text")).body
    assert text.split() == [books, "5"]
    health = (await both.es.cat.health(format="json")).body
    assert health[0]["status"] in ("green", "yellow")
    assert (await both.es.cluster.health())["status"] in ("green", "yellow")
    stats = await both.es.indices.stats(index=books)
    assert stats["indices"][books]["primaries"]["docs"]["count"] == 5


async def test_refresh_flush_and_the_like(both, books):
    assert (await both.es.indices.refresh(index=books))["_shards"]["failed"] == 0
    assert (await both.es.indices.flush(index=books))["_shards"]["failed"] == 0
    with pytest.raises(NotFoundError):
        await both.es.indices.refresh(index=both.name("none"))


async def test_a_closed_index_takes_nothing(both, books):
    await both.es.indices.close(index=books)
    with pytest.raises(BadRequestError) as caught:
        await both.es.search(index=books)
    assert error(caught) == (400, "index_closed_exception")
    answer = await both.es.bulk(index=books, operations=[{"index": {"_id": "9"}}, {"a": 1}])
    assert answer["items"][0]["index"]["error"]["type"] == "index_closed_exception"
    await both.es.indices.open(index=books)
    assert (await both.es.count(index=books))["count"] == 5


async def test_blocked_writes(both, books):
    await both.es.indices.put_settings(index=books, settings={"index.blocks.write": True})
    answer = await both.es.bulk(index=books, operations=[{"index": {"_id": "9"}}, {"a": 1}])
    assert answer["items"][0]["index"]["status"] == 403
    await both.es.indices.put_settings(
        index=books, settings={"index.blocks.write": None, "index.blocks.read_only_allow_delete": True}
    )
    answer = await both.es.bulk(index=books, operations=[{"index": {"_id": "9"}}, {"a": 1}])
    assert answer["items"][0]["index"]["status"] == 429
    assert answer["items"][0]["index"]["error"]["type"] == "cluster_block_exception"
    await both.es.indices.put_settings(index=books, settings={"index.blocks.read_only_allow_delete": None})
    await both.es.index(index=books, id="9", document={"a": 1})


async def test_filter_path_shows_only_what_is_asked(both, books):
    answer = await both.es.search(index=books, sort="pages", size=2, filter_path="hits.hits._id,hits.total.value")
    assert answer.body == {"hits": {"total": {"value": 5}, "hits": [{"_id": "1"}, {"_id": "2"}]}}
    without = await both.es.search(index=books, size=1, filter_path="-hits,-took,-_shards")
    assert without.body == {"timed_out": False}


async def test_unknown_parameters_are_refused(both, books):
    with pytest.raises(BadRequestError) as caught:
        await both.es.perform_request("GET", f"/{books}/_search?wonder=1", headers={"accept": "application/json"})
    assert error(caught) == (400, "illegal_argument_exception")
    assert "unrecognized parameter: [wonder]" in caught.value.body["error"]["reason"]


async def test_searching_several_indices(both, books):
    more = both.name("more")
    await both.es.index(index=more, id="m", document={"title": "brown again", "pages": 15}, refresh=True)
    answer = await both.es.search(index=[books, more], sort=[{"pages": "asc"}], size=3)
    assert ids(answer) == ["1", "m", "2"]
    assert answer["hits"]["total"]["value"] == 6
    assert found(await both.es.search(index=f"{both.prefix}*", q="title:brown")) == {"1", "3", "m"}


async def test_gzip_both_ways(both, books):
    zipped = both.es.options(headers={"accept-encoding": "gzip"})
    assert (await zipped.search(index=books))["hits"]["total"]["value"] == 5


async def test_content_types(both):
    index = both.name()
    for content_type, status in (
        ("application/json", 201),
        ("application/vnd.elasticsearch+json; compatible-with=9", 201),
        ("application/vnd.elasticsearch+json; compatible-with=8", 201),
        ("application/vnd.elasticsearch+json; compatible-with=7", 400),
        ("text/plain", 400),
    ):
        plain = "vnd" not in content_type
        accept = "application/json" if plain or status == 400 else content_type
        answer = await both.es.options(ignore_status=(400, 406)).perform_request(
            "POST", f"/{index}/_doc", body=b'{"a": 1}', headers={"content-type": content_type, "accept": accept}
        )
        assert answer.meta.status == status, content_type
