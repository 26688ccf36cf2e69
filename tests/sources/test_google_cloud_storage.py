"""Google Cloud Storage against a double that hands out tokens for assertions it has verified, and can break."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import attrs
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from callboard.sources import google_cloud_storage as module
from callboard.sources.errors import (
    ConfigurationError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.google_cloud_storage import GoogleCloudStorage, GoogleCloudStorageConfig, service_account
from callboard.sources.source import Checkpoint, Document

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
ACCOUNT = {
    "type": "service_account",
    "client_email": "reader@p.example",
    "private_key": PEM,
    "private_key_id": "k1",
    "project_id": "p",
    "token_uri": "https://token.example/token",
}


@attrs.define
class Google:
    objects: dict[str, dict[str, bytes]]
    page: int = 2
    paying: bool = False
    broken: httpx.Response | None = None
    tokens: int = 0
    listings: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "token.example":
            form = dict(httpx.QueryParams(request.content.decode()))
            claims = jwt.decode(
                form["assertion"], PRIVATE.public_key(), algorithms=["RS256"], audience="https://token.example/token"
            )
            assert claims["iss"] == "reader@p.example"
            self.tokens += 1
            return httpx.Response(200, json={"access_token": "good", "expires_in": 3600})
        if request.headers.get("authorization") != "Bearer good":
            return httpx.Response(401)
        parts = request.url.path.removeprefix("/storage/v1/b").strip("/").split("/", 2)
        query = request.url.params
        if parts == [""]:
            return httpx.Response(200, json={"items": [{"name": name} for name in self.objects]})
        bucket = parts[0]
        if bucket not in self.objects:
            return httpx.Response(404)
        if self.paying and query.get("userProject") != "p":
            return httpx.Response(
                400, json={"error": {"message": "Bucket is a requester pays bucket but no user project provided."}}
            )
        if len(parts) == 3:
            return httpx.Response(200, content=self.objects[bucket][parts[2]])
        if "delimiter" in query:
            return httpx.Response(200, json={})
        self.listings += 1
        if self.broken is not None and self.listings == 2:
            return self.broken
        names = sorted(self.objects[bucket])
        at = int(query.get("pageToken", 0))
        items = [self.item(bucket, name) for name in names[at : at + self.page]]
        more = {"nextPageToken": str(at + self.page)} if at + self.page < len(names) else {}
        return httpx.Response(200, json={"items": items, **more})

    def item(self, bucket: str, name: str) -> dict[str, Any]:
        return {
            "id": f"{bucket}/{name}/7",
            "name": name,
            "bucket": bucket,
            "generation": "7",
            "size": str(len(self.objects[bucket][name])),
            "updated": "2026-01-02T03:04:05.678Z",
            "contentType": "text/plain",
        }


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Google:
    double = Google(
        {"docs": {f"f{number}.txt": b"x" * number for number in range(5)}, "more": {"a b/it's.txt": b"hello"}}
    )
    real = module.open_http
    monkeypatch.setattr(
        module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=httpx.MockTransport(double))
    )
    return double


def source(*buckets: str, **account: Any) -> GoogleCloudStorage:
    key = json.dumps({**ACCOUNT, **account})
    return GoogleCloudStorage(GoogleCloudStorageConfig(buckets=list(buckets), service_account_credentials=key))


async def listed(one: GoogleCloudStorage) -> tuple[list[Document], list[tuple[Any, Any]]]:
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


async def test_objects_are_documents_and_one_token_serves_all_calls(google: Google) -> None:
    one = source("*")
    async with one.session():
        await one.ping()
        documents, _ = await listed(one)
        content = documents[-1].content
        assert content is not None
        async with one.fetch(content) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"hello"
    assert google.tokens == 1
    assert documents[0].content is None, "an empty object has nothing to read"
    document = documents[-1]
    assert document.id == "more/a b/it's.txt/7"
    assert document.timestamp == "2026-01-02T03:04:05.678Z"
    assert document.fields["size"] == "5"
    assert document.fields["content_encoding"] is None
    assert document.fields["url"] == (
        "https://console.cloud.google.com/storage/browser/_details/more/a%20b%2Fit's.txt;tab=live_object?project=p"
    )


async def test_a_listing_goes_on_from_each_of_its_checkpoints(google: Google) -> None:
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


async def test_the_project_pays_only_where_a_bucket_asks_for_it(google: Google) -> None:
    google.paying = True
    one = source("more")
    async with one.session():
        documents, _ = await listed(one)
        content = documents[0].content
        assert content is not None
        async with one.fetch(content) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"hello"


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (httpx.Response(403), PermissionDenied),
        (httpx.Response(404), NotFound),
        (httpx.Response(200, json={"items": [], "nextPageToken": "2"}), UnexpectedAnswer),
        (httpx.Response(200, text="<html"), UnexpectedAnswer),
        (httpx.Response(500), Transient),
    ],
)
async def test_a_listing_that_breaks_raises(
    google: Google, broken: httpx.Response, kind: type[SourceError], monkeypatch: pytest.MonkeyPatch
) -> None:
    google.broken = broken
    if kind is Transient:
        monkeypatch.setattr(module, "HttpSettings", lambda **given: module_settings(**given))
    one = source("docs")
    async with one.session():
        with pytest.raises(kind) as caught:
            await listed(one)
    assert "PRIVATE" not in str(caught.value)


def module_settings(**given: Any) -> Any:
    from callboard.sources.http import HttpSettings, Retries

    return HttpSettings(**given, retries=Retries(attempts=1))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "is not a JSON object"),
        (json.dumps({**ACCOUNT, "colour": "red"}), "'colour'"),
        (json.dumps({"client_email": "x"}), "lacks private_key, project_id, token_uri"),
    ],
)
def test_a_useless_key_file_says_why(text: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        service_account(text)


def test_a_key_file_may_be_escaped_twice_and_its_key_on_one_line() -> None:
    assert service_account(json.dumps(json.dumps(ACCOUNT))).project_id == "p"
    flat = service_account(json.dumps({**ACCOUNT, "private_key": PEM.replace("\n", " ").strip()}))
    serialization.load_pem_private_key(flat.private_key.encode(), None)
    assert "PRIVATE KEY" not in repr(flat)


async def test_a_private_key_that_is_none_is_a_configuration_error(google: Google) -> None:
    one = source("docs", private_key="-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n")
    async with one.session():
        with pytest.raises(ConfigurationError, match="private key") as caught:
            await one.ping()
    assert "canary" not in str(caught.value)
