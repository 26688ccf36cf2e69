"""Points in time and scrolls end, are bounded, and leave nothing behind."""

from __future__ import annotations

import trio

from callboard.node import open_node
from callboard.node.storage.snapshots import CONTEXTS_MAX
from callboard.runtime import simulated_seams


async def test_a_context_that_nobody_uses_runs_out(make_raw, autojump_clock):
    with simulated_seams(1):
        async with open_node(port=None) as node:
            raw = make_raw(node.app)
            await raw("PUT", "/a/_doc/1", {"n": 1})
            pit = (await raw("POST", "/a/_pit?keep_alive=10s")).json["id"]
            scroll = (await raw("GET", "/a/_search?scroll=10s")).json["_scroll_id"]
            for _ in range(5):
                await trio.sleep(6)
                assert (await raw("POST", "/_search", {"pit": {"id": pit}})).status == 200
                assert (await raw("POST", "/_search/scroll", {"scroll_id": scroll})).status == 200
            await trio.sleep(11)
            gone = await raw("POST", "/_search", {"pit": {"id": pit}})
            assert gone.status == 404
            assert gone.json["error"]["root_cause"][0]["type"] == "search_context_missing_exception"
            assert (await raw("POST", "/_search/scroll", {"scroll_id": scroll})).status == 404


async def test_dead_documents_are_kept_only_while_somebody_looks(make_raw, tmp_path):
    async with open_node(tmp_path, port=None) as node:
        raw = make_raw(node.app)
        await raw("PUT", "/a/_doc/1", {"text": "old words", "k": "v"})
        first = (await raw("POST", "/a/_pit?keep_alive=1m")).json["id"]
        await raw("PUT", "/a/_doc/1", {"text": "new words", "k": "v"})
        second = (await raw("POST", "/a/_pit?keep_alive=1m")).json["id"]
        await raw("DELETE", "/a/_doc/1")

        async def seen(pit: str) -> list[str]:
            answer = await raw("POST", "/_search", {"pit": {"id": pit}, "query": {"match": {"text": "words"}}})
            return [hit["_source"]["text"] for hit in answer.json["hits"]["hits"]]

        assert (await seen(first), await seen(second)) == (["old words"], ["new words"])
        assert (await raw("GET", "/a/_count")).json["count"] == 0
        await raw("DELETE", "/_pit", {"id": first})
        assert await seen(second) == ["new words"]
        await raw("DELETE", "/_pit", {"id": second})
        index = (await raw("GET", "/a")).json["a"]
        assert index
        rows = await _rows(tmp_path)
        assert rows == {"docs_1": 0, "terms_1": 0, "texts_1_0": 0}


async def _rows(folder) -> dict[str, int]:
    import sqlite3

    from callboard.node.storage.database import FILE_NAME

    with sqlite3.connect(folder / FILE_NAME) as connection:
        names = ("docs_1", "terms_1", "texts_1_0")
        found = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    connection.close()
    return found


async def test_a_restart_clears_what_only_contexts_could_see(make_raw, tmp_path):
    async with open_node(tmp_path, port=None) as node:
        raw = make_raw(node.app)
        await raw("PUT", "/a/_doc/1", {"text": "old", "k": "v"})
        await raw("POST", "/a/_pit?keep_alive=1m")
        await raw("DELETE", "/a/_doc/1")
    assert (await _rows(tmp_path))["docs_1"] == 1
    async with open_node(tmp_path, port=None):
        assert await _rows(tmp_path) == {"docs_1": 0, "terms_1": 0, "texts_1_0": 0}


async def test_contexts_are_bounded(raw):
    await raw("PUT", "/a/_doc/1", {"n": 1})
    for _ in range(CONTEXTS_MAX):
        assert (await raw("POST", "/a/_pit?keep_alive=1m")).status == 200
    full = await raw("POST", "/a/_pit?keep_alive=1m")
    assert (full.status, full.kind) == (429, "es_rejected_execution_exception")
    assert (await raw("GET", "/a/_search?scroll=1m")).status == 429


async def test_all_scrolls_can_be_let_go_at_once(raw):
    await raw("PUT", "/a/_doc/1", {"n": 1})
    for _ in range(3):
        await raw("GET", "/a/_search?scroll=1m")
    pit = (await raw("POST", "/a/_pit?keep_alive=1m")).json["id"]
    assert (await raw("DELETE", "/_search/scroll/_all")).json == {"succeeded": True, "num_freed": 3}
    assert (await raw("POST", "/_search", {"pit": {"id": pit}})).status == 200


async def test_a_deleted_index_ends_its_contexts(raw):
    await raw("PUT", "/a/_doc/1", {"n": 1})
    pit = (await raw("POST", "/a/_pit?keep_alive=1m")).json["id"]
    await raw("DELETE", "/a")
    await raw("PUT", "/a/_doc/1", {"n": 1})
    assert (await raw("POST", "/_search", {"pit": {"id": pit}})).status == 404
    assert (await raw("DELETE", "/_pit", {"id": pit})).json["num_freed"] == 1
