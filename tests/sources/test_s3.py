"""S3 against moto, which nobody here wrote, started in a process of its own; and against a scripted one for what it cannot do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import attrs
import httpx
import pytest

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources import s3 as s3_module
from callboard.sources.errors import (
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.s3 import S3, S3Config
from callboard.sources.source import Checkpoint, Document, Partition


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, "moto has ended"
                    assert time.monotonic() < deadline, "moto does not answer"
                    time.sleep(0.1)
            yield url
        finally:
            process.kill()


SIGNED = {
    "authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-west-2/s3/aws4_request, SignedHeaders=host, Signature=x"
}
"""moto reads the region out of it, and checks no signature."""


@attrs.frozen
class Store:
    url: str
    bucket: str

    def put(self, key: str, body: bytes = b"hello", **headers: str) -> None:
        httpx.put(f"{self.url}/{self.bucket}/{key}", content=body, headers={**SIGNED, **headers}).raise_for_status()


@pytest.fixture
def store(moto: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.delenv("AWS_PORT", raising=False)
    made = Store(moto, f"b-{uuid.uuid4().hex}")
    place = b"<CreateBucketConfiguration><LocationConstraint>us-west-2</LocationConstraint></CreateBucketConfiguration>"
    httpx.put(f"{moto}/{made.bucket}", content=place, headers=SIGNED).raise_for_status()
    return made


def source(*buckets: str, **values: Any) -> S3:
    config = S3Config(buckets=list(buckets), aws_access_key_id="key", aws_secret_access_key="canary", **values)
    return S3(config)


async def listed(one: S3, rules: Any = None) -> tuple[list[Document], list[tuple[Partition, Any]]]:
    documents: list[Document] = []
    checkpoints: list[tuple[Partition, Any]] = []
    async with aclosing(one.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(one.documents(partition)) as pages:
                async for page in pages:
                    if isinstance(page, Checkpoint):
                        checkpoints.append((partition, page.value))
                    elif isinstance(page, list):
                        documents += [item for item in page if isinstance(item, Document)]
    return documents, checkpoints


async def test_every_object_is_a_document(store: Store) -> None:
    store.put("folder/")
    store.put("a%20b/r%C3%A9sum%C3%A9%2B.txt", b"hello there")
    one = source(store.bucket)
    async with one.session():
        await one.ping()
        documents, _ = await listed(one)
        assert [document.fields["filename"] for document in documents] == ["a b/résumé+.txt", "folder/"]
        document = documents[0]
        assert document.fields["size_in_bytes"] == 11
        assert document.fields["bucket"] == store.bucket
        assert document.fields["owner"] == "webfile"
        assert document.fields["storage_class"] == "STANDARD"
        assert str(document.timestamp).endswith("+00:00")
        assert documents[1].content is None
        assert document.content is not None
        async with one.fetch(document.content) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"hello there"


async def test_an_object_that_was_overwritten_since_is_not_mixed_up(store: Store) -> None:
    store.put("a.txt", b"one")
    one = source(store.bucket)
    async with one.session():
        ((document,), _) = await listed(one)
        store.put("a.txt", b"two")
        assert document.content is not None
        with pytest.raises(SourceError, match="412"):
            async with one.fetch(document.content):
                raise AssertionError("old and new must not be confused")


async def test_a_listing_goes_on_from_each_of_its_checkpoints(store: Store) -> None:
    for number in range(7):
        store.put(f"f{number}.txt")
    one = source(store.bucket, page_size=2)
    async with one.session():
        documents, checkpoints = await listed(one)
        ids = [document.id for document in documents]
        assert len(ids) == len(set(ids)) == 7
        assert len(checkpoints) == 3
        for partition, value in checkpoints:
            rest: list[str] = []
            async with aclosing(one.documents(partition, value)) as pages:
                async for page in pages:
                    rest += [item.id for item in page if isinstance(item, Document)] if isinstance(page, list) else []
            assert rest == ids[-len(rest) :]
            assert 0 < len(rest) < 7


async def test_all_buckets_and_advanced_rules(store: Store) -> None:
    for key in ("docs/a.pdf", "docs/b.txt", "other/c.pdf"):
        store.put(key)
    one = source("*")
    async with one.session():
        assert f"{store.bucket}/" in {partition.key async for partition in one.partitions()}
        rules = [
            {"bucket": store.bucket, "prefix": "docs/", "extension": [".pdf"]},
            {"bucket": store.bucket, "prefix": "other/"},
        ]
        documents, _ = await listed(one, rules)
        assert [document.fields["filename"] for document in documents] == ["docs/a.pdf", "other/c.pdf"]
        assert await one.validate_rules(rules) == []


async def test_archived_objects_are_documents_without_content(store: Store) -> None:
    store.put("old.pdf", b"x", **{"x-amz-storage-class": "GLACIER"})
    one = source(store.bucket)
    async with one.session():
        ((document,), _) = await listed(one)
    assert document.fields["storage_class"] == "GLACIER"
    assert document.content is None


async def test_a_bucket_that_is_not_there_is_never_an_empty_one(store: Store) -> None:
    one = source("no-such-bucket")
    async with one.session():
        with pytest.raises(NotFound, match="no bucket no-such-bucket"):
            await one.ping()
        with pytest.raises(NotFound):
            await listed(one)


@pytest.mark.parametrize(
    ("rules", "part"),
    [
        ("x", "list of objects"),
        ([1], "Rule 1 must be an object"),
        ([{"prefix": "a"}], "must name a bucket"),
        ([{"bucket": "b", "extension": ".pdf"}], "must be a list"),
        ([{"bucket": "b", "prefix": 1}], "must be text"),
        ([{"bucket": "b", "region": "x"}], "unknown key region"),
    ],
)
async def test_useless_rules_say_why(rules: Any, part: str) -> None:
    problems = await source("b").validate_rules(rules)
    assert part in problems[0].message
    assert await source("b").validate_rules([]) == []


def test_a_star_beside_names_is_refused() -> None:
    stored = schema_of(S3Config)
    for name, value in {"buckets": "*, a", "aws_access_key_id": "k", "aws_secret_access_key": "s"}.items():
        stored[name]["value"] = value
    with pytest.raises(InvalidConfiguration, match=r"\* alone"):
        read_configuration(S3Config, stored)


def scripted(monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response) -> None:
    left = list(answers)
    real = s3_module.open_http

    def handle(request: httpx.Request) -> httpx.Response:
        if "location" in str(request.url.query):
            return httpx.Response(200, text="<LocationConstraint>EU</LocationConstraint>")
        if "delimiter" in request.url.params:
            return httpx.Response(200, text="<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        return left.pop(0)

    monkeypatch.setattr(
        s3_module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=httpx.MockTransport(handle))
    )
    monkeypatch.setattr(
        os, "environ", {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    )


PAGE = (
    "<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><IsTruncated>{truncated}</IsTruncated>{token}"
    "<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (httpx.Response(403, text="<Error><Code>AccessDenied</Code></Error>"), PermissionDenied),
        (httpx.Response(403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>"), CredentialsError),
        (httpx.Response(500), Transient),
        (httpx.Response(200, text="<html"), UnexpectedAnswer),
        (httpx.Response(200, text=PAGE.format(truncated="true", token="", key="b")), UnexpectedAnswer),
    ],
)
async def test_a_listing_that_breaks_raises(
    monkeypatch: pytest.MonkeyPatch, second: httpx.Response, kind: type[SourceError]
) -> None:
    token = "<NextContinuationToken>t</NextContinuationToken>"
    scripted(monkeypatch, httpx.Response(200, text=PAGE.format(truncated="true", token=token, key="a")), second)
    one = source("b", max_attempts=0)
    async with one.session():
        with pytest.raises(kind) as caught:
            await listed(one)
    assert "canary" not in str(caught.value)


async def test_an_old_irish_bucket_is_found_in_its_region(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, httpx.Response(200, text=PAGE.format(truncated="false", token="", key="a")))
    one = source("b")
    async with one.session():
        documents, _ = await listed(one)
        assert one._url("b") == "https://s3.eu-west-1.amazonaws.com/b"
    assert documents[0].timestamp == "2026-01-01T00:00:00+00:00"


async def test_a_name_of_a_part_stands_for_one_listing_however_folders_come_and_go(store: Store) -> None:
    """A job goes on from checkpoints by these names: one of another listing would skip objects, which would then be deleted."""

    async def parts() -> dict[str, Any]:
        one = source(store.bucket)
        async with one.session():
            return {partition.key: partition.data async for partition in one.partitions()}

    store.put("one/a.txt")
    store.put("z.txt")
    whole = await parts()
    store.put("two/b.txt")
    by_folders = await parts()
    assert len(whole) == 1
    assert len(by_folders) == 3
    assert all(by_folders[key] == whole[key] for key in whole.keys() & by_folders.keys())
