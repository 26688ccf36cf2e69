"""Azure blobs against a double that checks signatures with the text written down in the vendor's page, and can break."""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote

import attrs
import httpx
import pytest

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources import azure_blob_storage as module
from callboard.sources.azure_blob_storage import AzureBlobStorage, AzureBlobStorageConfig
from callboard.sources.errors import (
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.source import Checkpoint, Document

KEY = base64.b64encode(b"a key of the account").decode()


@attrs.define
class Azure:
    """Two containers; refuses what is not signed as documented."""

    blobs: dict[str, dict[str, bytes]]
    page: int = 2
    broken: httpx.Response | None = None
    broken_at: int = 2
    listings: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] != self.expected(request):
            return httpx.Response(403, text="<Error><Code>AuthenticationFailed</Code></Error>")
        container, _, name = unquote(request.url.path).lstrip("/").partition("/")
        query = request.url.params
        if not container:
            names = "".join(f"<Container><Name>{one}</Name></Container>" for one in self.blobs)
            return self.xml(f"<Containers>{names}</Containers><NextMarker/>")
        if container not in self.blobs:
            return httpx.Response(404, text="<Error><Code>ContainerNotFound</Code></Error>")
        if name:
            if request.headers.get("if-match") != self.etag(container, name):
                return httpx.Response(412)
            return httpx.Response(200, content=self.blobs[container][name])
        if query.get("comp") != "list":
            return httpx.Response(200, headers={"x-ms-meta-team": "stage"})
        if query.get("delimiter"):
            return self.xml("<Blobs/><NextMarker/>")
        self.listings += 1
        if self.broken is not None and self.listings == self.broken_at:
            return self.broken
        names = sorted(self.blobs[container])
        at = int(query.get("marker", 0))
        entries = "".join(self.entry(container, one) for one in names[at : at + self.page])
        marker = str(at + self.page) if at + self.page < len(names) else ""
        return self.xml(f"<Blobs>{entries}</Blobs><NextMarker>{marker}</NextMarker>")

    def expected(self, request: httpx.Request) -> str:
        text = "GET\n\n\n\n\n\n\n\n{match}\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-12-02\n/acc{path}".format(
            match=request.headers.get("if-match", ""),
            date=request.headers["x-ms-date"],
            path=request.url.raw_path.decode().partition("?")[0],
        )
        for name, value in sorted(request.url.params.items()):
            text += f"\n{name}:{value}"
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        return f"SharedKey acc:{base64.b64encode(digest).decode()}"

    def etag(self, container: str, name: str) -> str:
        return f'"{hashlib.md5(self.blobs[container][name]).hexdigest()}"'

    def entry(self, container: str, name: str) -> str:
        tier = "Archive" if "old" in name else "Hot"
        properties = (
            "<Creation-Time>Thu, 01 Jan 2026 01:02:03 GMT</Creation-Time><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified>"
            f"<Etag>{self.etag(container, name)}</Etag><Content-Length>{len(self.blobs[container][name])}</Content-Length>"
            f"<Content-Type>text/plain</Content-Type><AccessTier>{tier}</AccessTier>"
            "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
        )
        return f"<Blob><Name>{name}</Name><Properties>{properties}</Properties><Metadata><k>v</k></Metadata></Blob>"

    def xml(self, inner: str) -> httpx.Response:
        return httpx.Response(200, text=f'<?xml version="1.0"?><EnumerationResults>{inner}</EnumerationResults>')


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Azure:
    double = Azure(
        {
            "docs": {f"f{number}.txt": b"text %d" % number for number in range(5)},
            "more": {"a b/ü.txt": b"x", "old.txt": b"y"},
        }
    )
    real = module.open_http
    monkeypatch.setattr(
        module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=httpx.MockTransport(double))
    )
    return double


def source(*containers: str, key: str = KEY, retry_count: int = 0) -> AzureBlobStorage:
    return AzureBlobStorage(
        AzureBlobStorageConfig(
            account_name="acc",
            account_key=key,
            blob_endpoint="https://acc.blob.example",
            containers=list(containers),
            retry_count=retry_count,
        )
    )


async def listed(one: AzureBlobStorage) -> tuple[list[Document], list[tuple[Any, Any]]]:
    documents: list[Document] = []
    checkpoints: list[tuple[Any, Any]] = []
    async with aclosing(one.partitions()) as partitions:
        async for partition in partitions:
            async with aclosing(one.documents(partition)) as pages:
                async for page in pages:
                    if isinstance(page, Checkpoint):
                        checkpoints.append((partition, page.value))
                    elif isinstance(page, list):
                        documents += [item for item in page if isinstance(item, Document)]
    return documents, checkpoints


async def test_blobs_are_documents_with_the_fields_of_existing_indices(azure: Azure) -> None:
    one = source("*")
    async with one.session():
        await one.ping()
        documents, _ = await listed(one)
    assert len(documents) == 7
    document = documents[0]
    assert document.id == "docs/f0.txt"
    assert document.timestamp == "2026-01-02T03:04:05+00:00"
    assert document.fields == {
        "created at": "2026-01-01T01:02:03+00:00",
        "content type": "text/plain",
        "container metadata": "None",
        "metadata": "{'k': 'v'}",
        "leasedata": "{'status': 'unlocked', 'state': 'available', 'duration': None}",
        "title": "f0.txt",
        "tier": "Hot",
        "size": 6,
        "container": "docs",
    }


async def test_content_is_read_as_it_was_listed_or_not_at_all(azure: Azure) -> None:
    one = source("more")
    async with one.session():
        documents, _ = await listed(one)
        assert documents[0].fields["container metadata"] == "{'team': 'stage'}"
        assert documents[1].content is None, "an archived blob cannot be read"
        content = documents[0].content
        assert content is not None
        async with one.fetch(content) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"x"
        azure.blobs["more"]["a b/ü.txt"] = b"changed"
        with pytest.raises(SourceError, match="412"):
            async with one.fetch(content):
                raise AssertionError("old and new must not be confused")


async def test_a_listing_goes_on_from_each_of_its_checkpoints(azure: Azure) -> None:
    one = source("docs")
    async with one.session():
        documents, checkpoints = await listed(one)
        ids = [document.id for document in documents]
        assert len(checkpoints) == 2
        for partition, value in checkpoints:
            rest: list[str] = []
            async with aclosing(one.documents(partition, value)) as pages:
                async for page in pages:
                    rest += [item.id for item in page if isinstance(item, Document)] if isinstance(page, list) else []
            assert rest == ids[-len(rest) :]


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (httpx.Response(500), Transient),
        (httpx.Response(403, text="AuthorizationFailure"), PermissionDenied),
        (httpx.Response(200, text="<html"), UnexpectedAnswer),
        (httpx.Response(200, text="<R><Blobs/><NextMarker>2</NextMarker></R>"), UnexpectedAnswer),
    ],
)
async def test_a_listing_that_breaks_raises(azure: Azure, broken: httpx.Response, kind: type[SourceError]) -> None:
    azure.broken = broken
    one = source("docs")
    async with one.session():
        with pytest.raises(kind):
            await listed(one)


async def test_wrong_keys_and_names_say_what_to_do(azure: Azure) -> None:
    wrong = source("docs", key=base64.b64encode(b"canary").decode())
    async with wrong.session():
        with pytest.raises(CredentialsError, match="does not accept the account key") as caught:
            await wrong.ping()
    assert "canary" not in str(caught.value)
    missing = source("nope")
    async with missing.session():
        with pytest.raises(NotFound, match="no container nope"):
            await missing.ping()


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("account_key", "not base64!", "base64"),
        ("blob_endpoint", "acc", "address"),
        ("concurrent_downloads", 101, "101"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: Any, part: str) -> None:
    stored = schema_of(AzureBlobStorageConfig)
    good = {"account_name": "a", "account_key": KEY, "blob_endpoint": "https://a.example", "containers": "*"}
    for field, entered in {**good, name: value}.items():
        stored[field]["value"] = entered
    with pytest.raises(InvalidConfiguration, match=part):
        read_configuration(AzureBlobStorageConfig, stored)
    assert stored["account_key"]["sensitive"] is True
