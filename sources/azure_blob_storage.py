"""Blobs of an Azure storage account, or of anything that speaks the Blob REST API at an account's address.

Four calls, signed here with the account's shared key as the vendor documents it ("Authorize with Shared Key"), on our HTTP
client: natively on Trio, streamed in one request and cancellable. Each container is a partition. Named containers are asked for
directly, so that a key which may only read them is enough. A listing that fails raises, so no container ever looks empty.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, quote, urlsplit
from xml.etree.ElementTree import Element

import attrs
import httpx

from ..protocol.configuration import less_than, setting
from ..runtime import now
from .errors import CredentialsError, NotFound, PermissionDenied, SourceError, UnexpectedAnswer
from .http import HttpClient, HttpSettings, Retries, open_http
from .prefixes import folders_of
from .source import JSON, Checkpoint, ContentRef, Document, Features, Listing, Partition, Source
from .xml_answers import parsed, text

API_VERSION: Final = "2021-12-02"
PAGE_BLOBS: Final = 1000


@attrs.frozen
class AzureBlobStorageConfig:
    """Which containers of which account, and with which key."""

    account_name: str = setting("Storage account", order=1)
    account_key: str = setting("Key of the storage account", sensitive=True, order=2)
    blob_endpoint: str = setting(
        "Address of the account", order=3, tooltip="For example https://NAME.blob.core.windows.net"
    )
    containers: list[str] = setting(
        "Containers", display="textarea", order=4, tooltip="Names separated by commas, or * for all."
    )
    retry_count: int = setting("Retries per request", default=3, required=False, advanced=True, order=5)
    concurrent_downloads: int = setting(
        "Maximum concurrent downloads",
        default=100,
        required=False,
        advanced=True,
        order=6,
        validations=[less_than(101)],
    )
    use_text_extraction_service: bool = setting(
        "Extract text without the pipeline", default=False, advanced=True, order=7
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with fields that nobody but us looks into."""
        try:
            base64.b64decode(self.account_key, validate=True)
        except (binascii.Error, ValueError):
            yield (
                "account_key",
                "is not a key of Azure: those are base64. Copy it from the account's page of access keys",
            )
        if urlsplit(self.blob_endpoint).scheme not in ("http", "https"):
            yield "blob_endpoint", "must be an address such as https://NAME.blob.core.windows.net"


class AzureBlobStorage(Source[AzureBlobStorageConfig]):
    """Blobs of the containers of an Azure storage account."""

    service_type: ClassVar[str] = "azure_blob_storage"
    name: ClassVar[str] = "Azure Blob Storage"
    Config = AzureBlobStorageConfig
    features = Features(incremental="skip_unchanged", resumable=True)

    def __init__(self, config: AzureBlobStorageConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self.content_concurrency = max(1, config.concurrent_downloads)  # type: ignore[misc]  # one instance's own number
        self._root = config.blob_endpoint.rstrip("/")
        self._http: HttpClient | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        settings = HttpSettings(
            base_url=self._root,
            name="Azure Blob Storage",
            account=self.config.account_name,
            retries=Retries(attempts=self.config.retry_count + 1),
            headers={"x-ms-version": API_VERSION},
        )
        auth = _SharedKey(self.config.account_name, self.config.account_key)
        async with AsyncExitStack() as stack:
            self._http = await stack.enter_async_context(open_http(settings, auth=auth))
            stack.callback(self._forget)
            yield

    def _forget(self) -> None:
        self._http = None

    async def ping(self) -> None:
        """Ask for the named containers, or for the account if all are wanted."""
        if "*" in self.config.containers:
            await self._send("/", {"comp": "list", "maxresults": "1"}, "the containers of the account")
            return
        for container in self.config.containers:
            await self._container_metadata(container)

    async def validate(self) -> None:
        await self.ping()

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if "*" not in self.config.containers:
            for container in dict.fromkeys(self.config.containers):
                metadata = await self._container_metadata(container)
                async with aclosing(self._parts(container, str(metadata or None))) as parts:
                    async for part in parts:
                        yield part
            return
        marker: str | None = None
        while True:
            page = await self._xml(
                "/", {"comp": "list", "include": "metadata"}, marker, "the containers of the account"
            )
            for entry in page.iter("Container"):
                async with aclosing(self._parts(text(entry, "Name") or "", str(_metadata(entry) or None))) as parts:
                    async for part in parts:
                        yield part
            marker = _next(page, marker)
            if marker is None:
                return

    async def _parts(self, container: str, metadata: str) -> AsyncGenerator[Partition, None]:
        folders = await folders_of(self._folder_pages(container))
        for folder in folders:
            yield Partition(
                f"{container}/{folder}", {"container": container, "metadata": metadata, "query": {"prefix": folder}}
            )
        # What is in no folder, or everything: under different names, for a checkpoint of one would skip parts of the other.
        query = {"delimiter": "/"} if folders else {}
        yield Partition(
            f"{container}/" if folders else container, {"container": container, "metadata": metadata, "query": query}
        )

    async def _folder_pages(self, container: str) -> AsyncGenerator[tuple[list[str], bool], None]:
        query = {"restype": "container", "comp": "list", "maxresults": str(PAGE_BLOBS), "delimiter": "/"}
        marker: str | None = None
        while True:
            page = await self._xml(f"/{quote(container)}", query, marker, f"container {container}")
            marker = _next(page, marker)
            yield [text(entry, "Name") or "" for entry in page.iter("BlobPrefix")], marker is None
            if marker is None:
                return

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        container = str(partition.data["container"])
        query = {
            "restype": "container",
            "comp": "list",
            "include": "metadata",
            "maxresults": str(PAGE_BLOBS),
            **partition.data["query"],
        }
        marker: str | None = None if checkpoint is None else str(checkpoint["marker"])
        while True:
            page = await self._xml(f"/{quote(container)}", query, marker, f"container {container}")
            yield [self._document(container, str(partition.data["metadata"]), entry) for entry in page.iter("Blob")]
            marker = _next(page, marker)
            if marker is None:
                return
            yield Checkpoint({"marker": marker})

    def _document(self, container: str, container_metadata: str, entry: Element) -> Document:
        name = text(entry, "Name") or ""
        properties = entry.find("Properties")
        if properties is None:
            raise UnexpectedAnswer(f"Azure Blob Storage lists {container}/{name} without its properties.")
        size = int(text(properties, "Content-Length") or 0)
        tier = text(properties, "AccessTier")
        modified = _moment(text(properties, "Last-Modified"))
        lease = {
            "status": text(properties, "LeaseStatus"),
            "state": text(properties, "LeaseState"),
            "duration": text(properties, "LeaseDuration"),
        }
        fields: dict[str, JSON] = {
            "created at": _moment(text(properties, "Creation-Time")),
            "content type": text(properties, "Content-Type"),
            "container metadata": container_metadata,
            "metadata": str(_metadata(entry)),
            "leasedata": str(lease),
            "title": name,
            "tier": tier,
            "size": size,
            "container": container,
        }
        content = ContentRef(
            name=name,
            data={"container": container, "name": name},
            size_bytes=size,
            version=(text(properties, "Etag") or "").strip('"') or None,
        )
        readable = size > 0 and tier != "Archive"
        return Document(f"{container}/{name}", fields, timestamp=modified, content=content if readable else None)

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        path = f"/{quote(str(content.data['container']))}/{quote(str(content.data['name']), safe='/')}"
        # The very bytes that were listed, or an error: a blob that is overwritten meanwhile is not read half and half.
        headers = {"if-match": f'"{content.version}"'} if content.version else {}
        async with self._client.stream("GET", self._root + path, headers=headers) as chunks:
            yield chunks

    # Calls

    @property
    def _client(self) -> HttpClient:
        assert self._http is not None, "the session of the source is not open"
        return self._http

    async def _container_metadata(self, container: str) -> dict[str, str]:
        answer = await self._send(f"/{quote(container)}", {"restype": "container"}, f"container {container}")
        prefix = "x-ms-meta-"
        return {name.removeprefix(prefix): value for name, value in answer.headers.items() if name.startswith(prefix)}

    async def _xml(self, path: str, query: Mapping[str, str], marker: str | None, what: str) -> Element:
        params = {**query, "marker": marker} if marker else dict(query)
        return parsed((await self._send(path, params, what)).content, "Azure Blob Storage")

    async def _send(self, path: str, params: Mapping[str, str], what: str) -> httpx.Response:
        try:
            return await self._client.send("GET", self._root + path, params=dict(params))
        except SourceError as error:
            raise _explained(error, what) from error


class _SharedKey(httpx.Auth):
    """Signs requests without a body with the key of a storage account."""

    def __init__(self, account: str, key: str) -> None:
        self._account, self._key = account, base64.b64decode(key)

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["x-ms-date"] = email.utils.format_datetime(now().astimezone(UTC), usegmt=True)
        signature = hmac.new(self._key, self._signed_text(request).encode(), hashlib.sha256).digest()
        request.headers["authorization"] = f"SharedKey {self._account}:{base64.b64encode(signature).decode()}"
        yield request

    def _signed_text(self, request: httpx.Request) -> str:
        standard = (
            "content-encoding",
            "content-language",
            "content-length",
            "content-md5",
            "content-type",
            "date",
            "if-modified-since",
            "if-match",
            "if-none-match",
            "if-unmodified-since",
            "range",
        )
        named = [request.headers.get(name, "") for name in standard]
        own = sorted((name, value) for name, value in request.headers.items() if name.startswith("x-ms-"))
        query = sorted(parse_qsl(request.url.query.decode(), keep_blank_values=True))
        path = request.url.raw_path.partition(b"?")[0].decode()
        lines = [request.method, *named, *(f"{name}:{value.strip()}" for name, value in own), f"/{self._account}{path}"]
        return "\n".join([*lines, *(f"{name.lower()}:{value}" for name, value in query)])


def _explained(error: SourceError, what: str) -> SourceError:
    match error:
        case PermissionDenied() | CredentialsError() if "failed to authenticate" in str(
            error
        ) or "AuthenticationFailed" in str(error):
            return CredentialsError(
                "Azure Blob Storage does not accept the account key. Check account name, key and clock."
            )
        case PermissionDenied():
            return PermissionDenied(f"Azure Blob Storage does not let this key read {what}.")
        case NotFound():
            return NotFound(f"Azure Blob Storage has no {what}. Check the name.")
        case _:
            return error


def _metadata(entry: Element) -> dict[str, str]:
    metadata = entry.find("Metadata")
    return {} if metadata is None else {child.tag: child.text or "" for child in metadata}


def _next(page: Element, sent: str | None) -> str | None:
    marker = text(page, "NextMarker")
    if marker is not None and marker == sent:
        raise UnexpectedAnswer(
            "Azure Blob Storage sent the same marker twice; the listing would never end. Sync again."
        )
    return marker


def _moment(value: str | None) -> str | None:
    return None if value is None else email.utils.parsedate_to_datetime(value).astimezone(UTC).isoformat()
