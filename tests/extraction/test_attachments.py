"""`_attachment` is standard base64 of the whole file, and its text is the same whichever way a file goes."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest
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
