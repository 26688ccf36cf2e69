"""`_attachment` is standard base64 of the whole file, and its text is the same whichever way a file goes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.extraction import (
    AttachmentUnreadable,
    ExtractionSettings,
    attachment_reader,
    base64_size_bytes,
    base64_stream,
    open_extractor,
)
from callboard.node import open_node

from .conftest import chunks_of


@given(st.binary(max_size=5000), st.integers(1, 70))
async def test_pieces_joined_are_the_encoding_of_the_whole(content: bytes, piece_bytes: int) -> None:
    pieces = [piece async for piece in base64_stream(chunks_of(content, piece_bytes))]
    assert b"".join(pieces) == base64.b64encode(content)
    assert len(b"".join(pieces)) == base64_size_bytes(len(content))


async def test_a_large_file_is_encoded_in_many_small_pieces() -> None:
    content = bytes(range(256)) * 8192
    pieces = [piece async for piece in base64_stream(chunks_of(content, 65536))]
    assert b"".join(pieces) == base64.b64encode(content)
    assert len(pieces) > 10
    assert all(len(piece) % 4 == 0 and b"=" not in piece and b"\n" not in piece for piece in pieces[:-1])
    assert max(map(len, pieces)) < 200_000


async def test_unreadable_bytes_say_why() -> None:
    async with open_extractor(ExtractionSettings(engine="plain")) as extractor:
        read = attachment_reader(extractor)
        assert await read(b"hello", None) == "hello"
        with pytest.raises(AttachmentUnreadable, match="unsupported"):
            await read(b"%PDF-1.4", "a.pdf")


async def test_the_nodes_pipeline_gives_the_same_body_as_the_local_path(corpus: dict[str, Path]) -> None:
    async with (
        open_extractor(ExtractionSettings(engine="embedded", workers=1)) as extractor,
        open_node(port=None, attachment_reader=attachment_reader(extractor)) as node,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=node.app), base_url="http://node.test") as client,
    ):
        for kind in ("office.docx", ".pdf", ".xls", ".md", ".html"):
            content = corpus[kind].read_bytes()
            found = await extractor.extract(corpus[kind].name, chunks_of(content))
            attached = b"".join([piece async for piece in base64_stream(chunks_of(content))]).decode()
            flags = {"_extract_binary_content": True, "_reduce_whitespace": True}
            for name, fields in (("pipeline", {"_attachment": attached}), ("local", {"body": found.text})):
                done = await client.put(
                    f"/docs/_doc/{name}{kind}",
                    params={"pipeline": "search-default-ingestion", "refresh": "true"},
                    json={**fields, **flags},
                )
                assert done.status_code in (200, 201), done.text
            bodies = [
                (await client.get(f"/docs/_doc/{name}{kind}")).json()["_source"] for name in ("pipeline", "local")
            ]
            assert bodies[0] == bodies[1], kind
            assert "Zürich" in bodies[0]["body"]


async def test_the_node_answers_for_the_one_document_whose_attachment_is_broken() -> None:
    async with (
        open_extractor(ExtractionSettings(engine="plain")) as extractor,
        open_node(port=None, attachment_reader=attachment_reader(extractor)) as node,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=node.app), base_url="http://node.test") as client,
    ):
        pipeline = {"processors": [{"attachment": {"field": "data"}}]}
        assert (await client.put("/_ingest/pipeline/p", json=pipeline)).status_code == 200
        broken, good = (base64.b64encode(content).decode() for content in (b"%PDF-1.4 broken", b"wind machine"))
        body = f'{{"index":{{"_id":"1"}}}}\n{{"data":"{broken}"}}\n{{"index":{{"_id":"2"}}}}\n{{"data":"{good}"}}\n'
        headers = {"content-type": "application/x-ndjson"}
        answer = await client.post("/a/_bulk?pipeline=p", content=body, headers=headers)
        assert answer.status_code == 200
        first, second = (item["index"] for item in answer.json()["items"])
        assert (first["status"], second["status"]) == (400, 201)
        assert "unsupported" in first["error"]["reason"]


async def test_the_name_that_a_source_gave_a_file_tells_what_kind_of_text_it_is() -> None:
    page = base64.b64encode(b"<note><to>Zoe</to> wind machine</note>").decode()
    async with (
        open_extractor(ExtractionSettings(engine="plain")) as extractor,
        open_node(port=None, attachment_reader=attachment_reader(extractor)) as node,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=node.app), base_url="http://node.test") as client,
    ):
        named = {"processors": [{"attachment": {"field": "data", "resource_name": "called"}}]}
        assert (
            await client.put("/_ingest/pipeline/p", json={"processors": [{"attachment": {"field": "data"}}]})
        ).is_success
        assert (await client.put("/_ingest/pipeline/named", json=named)).is_success

        async def read(pipeline: str, **fields: str) -> str:
            docs = [{"_source": {"data": page, **fields}}]
            told = await client.post(f"/_ingest/pipeline/{pipeline}/_simulate", json={"docs": docs})
            return str(told.json()["docs"][0]["doc"]["_source"]["attachment"]["content"])

        for field in ("name", "filename", "title", "path"):
            assert await read("p", **{field: "folder/a.xml"}) == "Zoe wind machine"
        assert "<note>" in await read("p", name="a.txt", path="b.xml")
        assert "<note>" in await read("p", title="No. of things")
        assert await read("named", called="a.xml", name="a.txt") == "Zoe wind machine"
        assert "<note>" in await read("named", name="a.xml")


async def test_the_pipeline_takes_a_hundred_thousand_characters_unless_the_document_says_otherwise() -> None:
    text = base64.b64encode(b"word " * 60_000).decode()
    async with (
        open_extractor(ExtractionSettings(engine="plain")) as extractor,
        open_node(port=None, attachment_reader=attachment_reader(extractor)) as node,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=node.app), base_url="http://node.test") as client,
    ):
        for wanted, characters in ((None, 99_999), (200_000, 199_999), (-1, 299_999)):
            fields = {"_attachment": text, "_extract_binary_content": True}
            if wanted is not None:
                fields["_attachment_indexed_chars"] = wanted
            where = "/docs/_doc/1?pipeline=search-default-ingestion"
            assert (await client.put(where, json=fields)).is_success
            found = (await client.get("/docs/_doc/1")).json()["_source"]
            assert (list(found), len(found["body"])) == (["body"], characters)


async def test_the_attachments_of_one_request_are_read_side_by_side_and_answered_in_order() -> None:
    reading = most = 0
    together = trio.Event()

    async def read(content: bytes, name: str | None) -> str:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        if reading == 4:
            together.set()
        with trio.fail_after(10):
            await together.wait()
        reading -= 1
        if content == b"broken":
            raise ValueError("it is broken")
        return content.decode()

    contents = [b"broken" if number == 5 else b"text %d" % number for number in range(12)]
    async with (
        open_node(port=None, attachment_reader=read) as node,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=node.app), base_url="http://node.test") as client,
    ):
        pipeline = {"processors": [{"attachment": {"field": "data", "remove_binary": True}}]}
        assert (await client.put("/_ingest/pipeline/p", json=pipeline)).is_success
        lines = [
            json.dumps(line)
            for number, content in enumerate(contents)
            for line in ({"index": {"_id": str(number)}}, {"data": base64.b64encode(content).decode()})
        ]
        answer = await client.post(
            "/a/_bulk?pipeline=p&refresh=true",
            content="\n".join(lines) + "\n",
            headers={"content-type": "application/x-ndjson"},
        )
        items = [item["index"] for item in answer.json()["items"]]
        assert [item["_id"] for item in items] == [str(number) for number in range(12)]
        assert [item["status"] for item in items] == [400 if number == 5 else 201 for number in range(12)]
        found = (await client.get("/a/_doc/11")).json()["_source"]
    assert found["attachment"]["content"] == "text 11"
    assert most == 4
