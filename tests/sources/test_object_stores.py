"""The object stores against servers that nobody here wrote, held to what every source must keep to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from callboard.runtime import now
from callboard.sources import google_cloud_storage as google_module
from callboard.sources.azure_blob_storage import AzureBlobStorage, AzureBlobStorageConfig
from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.errors import CredentialsError
from callboard.sources.google_cloud_storage import GoogleCloudStorage, GoogleCloudStorageConfig
from callboard.sources.prefixes import PREFIXES_MAX, folders_of
from callboard.sources.s3 import S3, S3Config
from callboard.sources.source import Document, Source

pytestmark = pytest.mark.integration

AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, as its documentation gives them."""
WRONG_KEY = base64.b64encode(b"wrong but of the right form, and a secret all the same").decode()
NAMES = ("a.txt", "b b/ü & 'x'.txt", "empty.txt", "folder/", "folder/deep/c+d=e.txt", "z#1?.txt")
BODY = b"Thunder, twice.\n"


def body_of(name: str) -> bytes:
    return b"" if name in ("empty.txt", "folder/") else BODY


async def contents(source: Source[Any]) -> dict[str, bytes]:
    """Read everything there is to read, by the names of the objects."""
    found: dict[str, bytes] = {}
    async with source.session():
        async for partition in source.partitions():
            async with aclosing(source.documents(partition)) as pages:
                async for page in pages:
                    for one in page if isinstance(page, list) else ():
                        if isinstance(one, Document) and one.content is not None:
                            async with source.fetch(one.content) as chunks:
                                found[one.content.name] = b"".join([chunk async for chunk in chunks])
    return found


# Azure


class Azurite:
    """Puts containers and blobs into the emulator, signed as its documentation says."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}")

    def container(self, name: str) -> None:
        self._put(f"/{name}", {"restype": "container"}, b"", {"x-ms-meta-team": "stage"})

    def blob(self, container: str, name: str, body: bytes, **more: str) -> None:
        path = f"/{container}/{quote(name, safe='/')}"
        self._put(path, {}, body, {"x-ms-blob-type": "BlockBlob", "x-ms-meta-kind": "prop", **more})

    def tier(self, container: str, name: str, tier: str) -> None:
        self._put(f"/{container}/{quote(name)}", {"comp": "tier"}, b"", {"x-ms-access-tier": tier})

    def _put(self, path: str, query: dict[str, str], body: bytes, headers: dict[str, str]) -> None:
        headers = {
            **headers,
            "x-ms-version": "2021-12-02",
            "x-ms-date": f"{now():%a, %d %b %Y %H:%M:%S} GMT",
            "content-type": "application/octet-stream",
        }
        own = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()) if name.startswith("x-ms-"))
        length = str(len(body)) if body else ""
        resource = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}{path}" + "".join(
            f"\n{k}:{v}" for k, v in sorted(query.items())
        )
        text = f"PUT\n\n\n{length}\n\napplication/octet-stream\n\n\n\n\n\n\n{own}{resource}"
        digest = hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
        signed = {**headers, "authorization": f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}"}
        self._client.put(path, params=query, content=body, headers=signed).raise_for_status()

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def azure(azurite_port: int) -> int:
    store = Azurite(azurite_port)
    for container in ("docs", "more", "nothing"):
        store.container(container)
    for name in NAMES:
        if not name.endswith("/"):
            store.blob("docs", name, body_of(name))
    store.blob("docs", "old.txt", BODY)
    store.tier("docs", "old.txt", "Archive")
    for number in range(1020):
        store.blob("more", f"{number:04}.txt", BODY)
    store.close()
    return azurite_port


def azure_source(port: int, key: str = AZURITE_KEY, *containers: str) -> AzureBlobStorage:
    return AzureBlobStorage(
        AzureBlobStorageConfig(
            account_name=AZURITE_ACCOUNT,
            account_key=key,
            blob_endpoint=f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}",
            containers=list(containers or ("*",)),
            retry_count=0,
        )
    )


class TestAzure(SourceConformance):
    @pytest.fixture
    def subject(self, azure: int, tunnel_to: Any) -> Subject:
        through = tunnel_to(azure)
        return Subject(
            lambda: azure_source(through.port),
            refused=lambda: azure_source(through.port, WRONG_KEY),
            secrets=(AZURITE_KEY, WRONG_KEY),
            cut=through.cut,
        )


async def test_azure_gives_the_bytes_of_every_blob_but_of_archived_ones(azure: int) -> None:
    found = await contents(azure_source(azure, AZURITE_KEY, "docs"))
    assert found == {name: BODY for name in NAMES if body_of(name)}


async def test_azure_says_that_a_key_is_wrong(azure: int) -> None:
    source = azure_source(azure, WRONG_KEY)
    async with source.session():
        with pytest.raises(CredentialsError, match="does not accept the account key"):
            await source.ping()


# Google

SIGNING = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ACCOUNT = {
    "type": "service_account",
    "client_email": "reader@p.example",
    "private_key": SIGNING.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode(),
    "project_id": "p",
    "token_uri": "https://token.example/token",
}


class GoogleFront(httpx.AsyncBaseTransport):
    """Google's addresses in front of the emulator, which knows no tokens and leaves the generation out of the ids."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._to = httpx.AsyncHTTPTransport()
        self._token = secrets.token_hex()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "token.example":
            return httpx.Response(200, json={"access_token": self._token, "expires_in": 3600})
        if request.headers.get("authorization") != f"Bearer {self._token}":
            return httpx.Response(401)
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        answer = await self._to.handle_async_request(request)
        if "alt" in request.url.params or answer.status_code != 200:
            return answer
        told = json.loads(await answer.aread())
        await answer.aclose()
        for item in told.get("items", ()):
            if "id" in item and "generation" in item:
                item["id"] = f"{item['id']}/{item['generation']}"
        return httpx.Response(200, json=told)

    async def aclose(self) -> None:
        await self._to.aclose()


@pytest.fixture(scope="module")
def google(fake_gcs_port: int) -> int:
    root = f"http://127.0.0.1:{fake_gcs_port}"
    for bucket in ("docs", "more", "nothing"):
        httpx.post(f"{root}/storage/v1/b", params={"project": "p"}, json={"name": bucket}).raise_for_status()
    with httpx.Client(base_url=f"{root}/upload/storage/v1/b") as client:

        def put(bucket: str, name: str, body: bytes) -> None:
            client.post(f"/{bucket}/o", params={"uploadType": "media", "name": name}, content=body).raise_for_status()

        for name in NAMES:
            put("docs", name, body_of(name))
        for number in range(1020):
            put("more", f"{number:04}.txt", BODY)
    return fake_gcs_port


@pytest.fixture
def google_through(google: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable[..., GoogleCloudStorage]]:
    real = google_module.open_http

    def through(port: int) -> Callable[..., GoogleCloudStorage]:
        monkeypatch.setattr(
            google_module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=GoogleFront(port))
        )

        def make(*buckets: str) -> GoogleCloudStorage:
            return GoogleCloudStorage(
                GoogleCloudStorageConfig(
                    buckets=list(buckets or ("*",)), service_account_credentials=json.dumps(ACCOUNT)
                )
            )

        return make

    return through


class TestGoogle(SourceConformance):
    @pytest.fixture
    def subject(self, google: int, google_through: Any) -> Subject:
        make = google_through(google)
        return Subject(make, refused=lambda: make("not-there"), secrets=(json.dumps(ACCOUNT),))


async def test_google_gives_the_bytes_of_every_object(google: int, google_through: Any) -> None:
    assert await contents(google_through(google)("docs")) == {name: BODY for name in NAMES if body_of(name)}


# S3, with the signatures verified and everybody seeing what they may

WRONG_SECRET = "wr0ng-and-s3cret-and-forty-characters-xx"


@pytest.fixture
def s3_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., S3]:
    def make(port: int, key: tuple[str, str], *buckets: str) -> S3:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}/s3")
        monkeypatch.delenv("AWS_PORT", raising=False)
        name, secret = key
        return S3(
            S3Config(
                buckets=list(buckets or ("*",)),
                aws_access_key_id=name,
                aws_secret_access_key=secret,
                page_size=3,
                max_attempts=0,
            )
        )

    return make


class TestS3(SourceConformance):
    @pytest.fixture
    def subject(self, backlot: Any, s3_at: Any, tunnel_to: Any) -> Subject:
        through = tunnel_to(backlot.port)
        name, secret = backlot.s3_keys["nadia.roth@acme.com"]
        return Subject(
            lambda: s3_at(through.port, (name, secret)),
            refused=lambda: s3_at(through.port, (name, WRONG_SECRET)),
            secrets=(secret, WRONG_SECRET),
            cut=through.cut,
        )


async def test_s3_gives_what_its_key_may_read(backlot: Any, s3_at: Any) -> None:
    leader = await contents(s3_at(backlot.port, backlot.s3_keys["nadia.roth@acme.com"]))
    engineer = await contents(s3_at(backlot.port, backlot.s3_keys["ava.chen@acme.com"]))
    assert leader["invoices/2026-03/northwind.pdf"] == b"Invoice for the April 1 term start. Net 30."
    assert "builds/pipeline/2026-03-10/CHANGELOG.md" in engineer
    assert "invoices/2026-03/northwind.pdf" not in engineer


async def test_s3_says_that_a_secret_is_wrong(backlot: Any, s3_at: Any) -> None:
    name, _ = backlot.s3_keys["ava.chen@acme.com"]
    source = s3_at(backlot.port, (name, WRONG_SECRET), "acme-artifacts")
    async with source.session():
        with pytest.raises(CredentialsError, match="does not accept the access key"):
            await source.ping()


# Folders


async def keys_by_partition(source: Source[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    async with source.session():
        async for partition in source.partitions():
            found[partition.key] = []
            async with aclosing(source.documents(partition)) as pages:
                async for page in pages:
                    documents = page if isinstance(page, list) else []
                    found[partition.key] += [one.id for one in documents if isinstance(one, Document)]
    return found


async def test_a_container_is_listed_by_its_folders_and_nothing_twice(azure: int) -> None:
    found = await keys_by_partition(azure_source(azure, AZURITE_KEY, "docs"))
    assert {key: len(ids) for key, ids in found.items()} == {"docs/b b/": 1, "docs/folder/": 1, "docs/": 4}
    assert len({one for ids in found.values() for one in ids}) == 6


async def test_a_bucket_of_google_is_listed_by_its_folders_and_nothing_twice(google: int, google_through: Any) -> None:
    found = await keys_by_partition(google_through(google)("docs"))
    assert {key: len(ids) for key, ids in found.items()} == {"docs/b b/": 1, "docs/folder/": 2, "docs/": 3}


async def test_a_bucket_of_s3_is_listed_by_its_folders_and_nothing_twice(backlot: Any, s3_at: Any) -> None:
    found = await keys_by_partition(s3_at(backlot.port, backlot.s3_keys["nadia.roth@acme.com"], "acme-exports"))
    assert set(found) == {
        "acme-exports/invoices/",
        "acme-exports/reports/",
        "acme-exports/tenant-4417/",
        "acme-exports/",
    }
    assert sum(map(len, found.values())) == len({one for ids in found.values() for one in ids}) == 5


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([(["a/", "b/"], True)], ["a/", "b/"]),
        ([(["a/"], False), (["b/"], True)], ["a/", "b/"]),
        ([(["only/"], True)], []),
        ([([], True)], []),
        ([([f"{number}/" for number in range(PREFIXES_MAX + 1)], True)], []),
        ([(["a/"], False), (["b/"], False), (["c/"], False), (["d/"], True)], []),
    ],
)
async def test_a_bucket_with_few_folders_is_listed_by_them(pages: Any, expected: list[str]) -> None:
    async def listing() -> AsyncGenerator[Any, None]:
        for page in pages:
            yield page

    assert await folders_of(listing()) == expected
