"""What Callboard relies on in a server, through the official client: locks, templates, pipelines, aliases, filtered answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from callboard.protocol.store import Conflict, NotFound, Refused, Store


async def test_every_kind_of_write_can_be_locked(store: Store, index: str) -> None:
    client = store.client
    first = await client.index(index=index, id="a", document={"n": 1})
    stale = {"if_seq_no": first["_seq_no"], "if_primary_term": first["_primary_term"]}
    second = await client.index(index=index, id="a", document={"n": 2}, **stale)
    assert second["_seq_no"] > first["_seq_no"]
    assert second["_version"] == 2
    for write in (
        client.index(index=index, id="a", document={"n": 3}, **stale),
        client.update(index=index, id="a", doc={"n": 3}, **stale),
        client.delete(index=index, id="a", **stale),
        client.create(index=index, id="a", document={"n": 3}),
    ):
        with pytest.raises(Conflict) as caught:
            await write
        assert caught.value.kind == "version_conflict_engine_exception"
    assert (await client.get(index=index, id="a"))["_source"] == {"n": 2}
    fresh = {"if_seq_no": second["_seq_no"], "if_primary_term": second["_primary_term"]}
    assert (await client.delete(index=index, id="a", **fresh))["result"] == "deleted"
    with pytest.raises(NotFound):
        await client.get(index=index, id="a")


async def test_partial_updates_merge_objects_and_know_when_nothing_changes(store: Store, index: str) -> None:
    client = store.client
    await client.index(index=index, id="a", document={"o": {"x": 1, "y": [1]}, "n": 1})
    assert (await client.update(index=index, id="a", doc={"o": {"y": [2], "z": None}}))["result"] == "updated"
    assert (await client.update(index=index, id="a", doc={"n": 1}))["result"] == "noop"
    assert (await client.get(index=index, id="a"))["_source"] == {"o": {"x": 1, "y": [2], "z": None}, "n": 1}
    with pytest.raises(NotFound):
        await client.update(index=index, id="absent", doc={"n": 1})
    upserted = await client.update(index=index, id="new", doc={"n": 1}, doc_as_upsert=True)
    assert upserted["result"] == "created"


async def test_templates_shape_the_indices_they_match(store: Store, index: str) -> None:
    client = store.client
    component, template = f"{index}-component", f"{index}-template"
    mappings = {"dynamic": "false", "properties": {"created_at": {"type": "date"}}}
    await client.cluster.put_component_template(name=component, template={"mappings": mappings})
    try:
        await client.indices.put_index_template(
            name=template,
            index_patterns=[f"{index}*"],
            composed_of=[component],
            priority=900,
            template={"settings": {"index": {"hidden": True}}, "aliases": {f"{index}-alias": {}}},
        )
        await store.content.ensure_index(index)
        found = (await client.indices.get(index=index)).body[index]
        assert found["mappings"]["dynamic"] == "false"
        assert found["mappings"]["properties"] == {"created_at": {"type": "date"}}
        assert found["settings"]["index"]["hidden"] == "true"
        assert found["aliases"] == {f"{index}-alias": {}}
        await client.index(
            index=f"{index}-alias", id="a", document={"created_at": "2026-01-01", "other": 1}, refresh=True
        )
        assert await store.content.count(index, {"exists": {"field": "other"}}) == 0
        assert await store.content.count(index, {"exists": {"field": "created_at"}}) == 1
    finally:
        for remove in (
            client.indices.delete_index_template(name=template),
            client.cluster.delete_component_template(name=component),
        ):
            await remove


async def test_pipelines_change_and_drop_documents(store: Store, index: str) -> None:
    client = store.client
    pipeline = f"{index}-pipeline"
    processors: list[dict[str, Any]] = [
        {"drop": {"if": "ctx.n == 2"}},
        {"remove": {"field": ["_hidden"], "ignore_missing": True}},
        {"set": {"field": "body", "copy_from": "text", "ignore_empty_value": True}},
    ]
    await client.ingest.put_pipeline(id=pipeline, processors=processors)
    try:
        body = b"".join(
            orjson.dumps({"index": {"_id": str(number)}})
            + b"\n"
            + orjson.dumps({"n": number, "text": f"t{number}", "_hidden": True})
            + b"\n"
            for number in (1, 2, 3)
        )
        answer = await store.content.bulk(body, index=index, pipeline=pipeline, refresh=True)
        results = [item["index"]["result"] for item in answer.items]
        assert results == ["created", "noop", "created"]
        assert await store.content.count(index) == 2
        assert (await client.get(index=index, id="1"))["_source"] == {"n": 1, "text": "t1", "body": "t1"}
    finally:
        await client.ingest.delete_pipeline(id=pipeline)
    with pytest.raises(NotFound):
        await client.ingest.get_pipeline(id=pipeline)


async def test_answers_can_be_cut_down_and_refusals_stay_readable(store: Store, index: str) -> None:
    client = store.client
    await client.index(index=index, id="a", document={"n": 1, "o": {"x": 1, "y": 2}}, refresh=True)
    cut = await client.search(index=index, filter_path="hits.hits._id,hits.hits._source.o.x")
    assert cut.body == {"hits": {"hits": [{"_id": "a", "_source": {"o": {"x": 1}}}]}}
    with pytest.raises(Refused, match="dance"):
        await client.search(index=index, query={"dance": {}}, filter_path="hits,error,status")


async def test_paging_backwards_and_forwards_gives_the_same_documents(store: Store, index: str) -> None:
    client = store.client
    body = b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (number, number % 7) for number in range(53))
    await store.content.bulk(body, index=index, refresh=True)
    opened = await client.open_point_in_time(index=index, keep_alive="1m")
    pit: dict[str, Any] = {"id": opened["id"], "keep_alive": "1m"}
    seen: dict[str, list[str]] = {}
    for order in ("asc", "desc"):
        seen[order] = []
        after: list[Any] | None = None
        while True:
            page = await client.search(size=10, pit=pit, sort=[{"n": order}, {"_shard_doc": order}], search_after=after)
            hits = page["hits"]["hits"]
            seen[order] += [hit["_id"] for hit in hits]
            pit["id"] = page["pit_id"]
            if len(hits) < 10:
                break
            after = hits[-1]["sort"]
    await client.close_point_in_time(id=pit["id"])
    assert len(seen["asc"]) == len(set(seen["asc"])) == 53
    assert seen["desc"] == seen["asc"][::-1]
