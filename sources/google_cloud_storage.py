"""Objects in Google Cloud Storage.

Four addresses of the JSON API on our HTTP client, with one token for all of them: natively on Trio, streamed, cancellable. Each
bucket is a partition, and a listing goes on from its page token. Requests are billed to the project only where a bucket asks
for it ("requester pays"), since that needs a right of its own. A listing that fails raises: no bucket ever looks empty.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, ClassVar, Final
from urllib.parse import quote

import attrs
import jwt

from ..protocol.configuration import setting
from .errors import ConfigurationError, NotFound, PermissionDenied, SourceError, UnexpectedAnswer
from .http import Cursor, HttpClient, HttpSettings, OAuthJwtBearer, open_http
from .prefixes import folders_of
from .source import JSON, Checkpoint, ContentRef, Document, Features, Listing, Partition, Source

API: Final = "https://storage.googleapis.com/storage/v1"
SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"
ASSERTION_LASTS_S: Final = 3600
PAGE_OBJECTS: Final = 1000
_KEYS: Final = frozenset(
    [
        "additional_claims",
        "auth_provider_x509_cert_url",
        "auth_uri",
        "client_email",
        "client_id",
        "client_x509_cert_url",
        "private_key",
        "private_key_id",
        "project_id",
        "scopes",
        "subject",
        "token_uri",
        "type",
        "universe_domain",
    ]
)
_NEEDED: Final = ("client_email", "private_key", "project_id", "token_uri")
_FIELDS: Final = {
    "component_count": "componentCount",
    "content_encoding": "contentEncoding",
    "content_language": "contentLanguage",
    "created_at": "timeCreated",
    "last_updated": "updated",
    "metadata": "metadata",
    "name": "name",
    "size": "size",
    "storage_class": "storageClass",
    "type": "contentType",
    "version": "generation",
}
_ASKED: Final = "nextPageToken,items(id,etag,bucket," + ",".join(_FIELDS.values()) + ")"


@attrs.frozen
class GoogleCloudStorageConfig:
    """Which buckets, and as which service account."""

    buckets: list[str] = setting(
        "Buckets", display="textarea", order=1, tooltip="Names separated by commas, or * for all."
    )
    service_account_credentials: str = setting(
        "Key file of the service account",
        display="textarea",
        sensitive=True,
        order=2,
        tooltip="The JSON text of the file.",
    )
    use_text_extraction_service: bool = setting(
        "Extract text without the pipeline", default=False, advanced=True, order=3
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with the key."""
        try:
            service_account(self.service_account_credentials)
        except ConfigurationError as error:
            yield "service_account_credentials", str(error)


@attrs.frozen
class ServiceAccount:
    """What is used of a service account's key file."""

    client_email: str
    private_key: str = attrs.field(repr=False)
    project_id: str
    token_uri: str
    private_key_id: str | None = None


def service_account(text: str) -> ServiceAccount:
    """Read a key file. Raises `ConfigurationError` that never repeats what is in it."""
    try:
        content = json.loads(text)
        if isinstance(content, str):
            # Pasted with its quotes escaped once too often.
            content = json.loads(content)
    except ValueError:
        raise ConfigurationError("is not JSON; paste the whole key file of the Google service account") from None
    if not isinstance(content, dict):
        raise ConfigurationError("is not a JSON object; paste the whole key file of the Google service account")
    if strangers := sorted(set(content) - _KEYS):
        raise ConfigurationError(f"has the key {strangers[0]!r}, which no Google service account has")
    if missing := [name for name in _NEEDED if not isinstance(content.get(name), str) or not content[name]]:
        raise ConfigurationError(f"lacks {', '.join(missing)}; paste the whole key file of the Google service account")
    return ServiceAccount(
        client_email=content["client_email"],
        private_key=_reflowed(content["private_key"]),
        project_id=content["project_id"],
        token_uri=content["token_uri"],
        private_key_id=content.get("private_key_id"),
    )


def _reflowed(pem: str) -> str:
    """A key pasted on one line, with its lines back."""
    if "\n" in pem.strip():
        return pem
    begin, end = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
    inner = pem.replace(begin, "").replace(end, "").replace("\\n", " ")
    return "\n".join([begin, *inner.split(), end, ""])


class GoogleCloudStorage(Source[GoogleCloudStorageConfig]):
    """Objects of buckets in Google Cloud Storage."""

    service_type: ClassVar[str] = "google_cloud_storage"
    name: ClassVar[str] = "Google Cloud Storage"
    Config = GoogleCloudStorageConfig
    features = Features(incremental="skip_unchanged", resumable=True)

    def __init__(self, config: GoogleCloudStorageConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self._account = service_account(config.service_account_credentials)
        self._billed: set[str] = set()
        self._http: HttpClient | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        settings = HttpSettings(base_url=API, name="Google Cloud Storage", account=self._account.client_email)
        auth = OAuthJwtBearer(self._account.token_uri, self._assertion)
        async with AsyncExitStack() as stack:
            self._http = await stack.enter_async_context(open_http(settings, auth=auth))
            stack.callback(self._forget)
            yield

    def _forget(self) -> None:
        self._http = None

    def _assertion(self, at_epoch_s: float) -> str:
        claims = {
            "iss": self._account.client_email,
            "scope": SCOPE,
            "aud": self._account.token_uri,
            "iat": int(at_epoch_s),
            "exp": int(at_epoch_s) + ASSERTION_LASTS_S,
        }
        headers = {"kid": self._account.private_key_id} if self._account.private_key_id else None
        try:
            return jwt.encode(claims, self._account.private_key, algorithm="RS256", headers=headers)
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            raise ConfigurationError(
                "The private key of the service account cannot be read. Paste the key file again."
            ) from error

    async def ping(self) -> None:
        """List the project's buckets if all are wanted, else look at the named ones."""
        if "*" in self.config.buckets:
            await self._json(
                "/b", {"project": self._account.project_id, "maxResults": "1"}, "the buckets of the project"
            )
            return
        for bucket in self.config.buckets:
            await self._json(
                f"/b/{_quoted(bucket)}/o", {"maxResults": "1", "fields": "kind"}, f"bucket {bucket}", bucket
            )

    async def validate(self) -> None:
        await self.ping()

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if "*" not in self.config.buckets:
            for bucket in dict.fromkeys(self.config.buckets):
                async with aclosing(self._parts(bucket)) as parts:
                    async for part in parts:
                        yield part
            return
        pager = Cursor("pageToken", "nextPageToken", {"project": self._account.project_id})
        params: Mapping[str, Any] | None = pager.first()
        while params is not None:
            page = await self._json("/b", params, "the buckets of the project")
            for item in page.get("items", ()):
                async with aclosing(self._parts(item["name"])) as parts:
                    async for part in parts:
                        yield part
            params = pager.after(params, page, 0)

    async def _parts(self, bucket: str) -> AsyncGenerator[Partition, None]:
        folders = await folders_of(self._folder_pages(bucket))
        for folder in folders:
            yield Partition(f"{bucket}/{folder}", {"bucket": bucket, "query": {"prefix": folder}})
        # What is in no folder, or everything: under different names, for a checkpoint of one would skip parts of the other.
        yield Partition(
            f"{bucket}/" if folders else bucket, {"bucket": bucket, "query": {"delimiter": "/"} if folders else {}}
        )

    async def _folder_pages(self, bucket: str) -> AsyncGenerator[tuple[list[str], bool], None]:
        asked = {"maxResults": str(PAGE_OBJECTS), "delimiter": "/", "fields": "nextPageToken,prefixes"}
        pager = Cursor("pageToken", "nextPageToken", asked)
        params: Mapping[str, Any] | None = pager.first()
        while params is not None:
            page = await self._json(f"/b/{_quoted(bucket)}/o", params, f"bucket {bucket}", bucket)
            params = pager.after(params, page, 0)
            yield page.get("prefixes", []), params is None

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        bucket = str(partition.data["bucket"])
        asked = {"maxResults": str(PAGE_OBJECTS), "fields": _ASKED, **partition.data["query"]}
        pager = Cursor("pageToken", "nextPageToken", asked)
        params: Mapping[str, Any] | None = pager.first()
        if checkpoint is not None:
            params = {**pager.first(), "pageToken": checkpoint["page_token"]}
        while params is not None:
            page = await self._json(f"/b/{_quoted(bucket)}/o", params, f"bucket {bucket}", bucket)
            yield [self._document(bucket, item) for item in page.get("items", ())]
            params = pager.after(params, page, 0)
            if params is not None:
                yield Checkpoint({"page_token": params["pageToken"]})

    def _document(self, bucket: str, item: Mapping[str, Any]) -> Document:
        if "id" not in item or "name" not in item:
            raise UnexpectedAnswer(f"Google Cloud Storage lists an object of bucket {bucket} without id or name.")
        fields: dict[str, JSON] = {field: item.get(key) for field, key in _FIELDS.items()}
        fields["bucket_name"] = bucket
        fields["url"] = (
            f"https://console.cloud.google.com/storage/browser/_details/{bucket}/{_quoted(item['name'])}"
            f";tab=live_object?project={self._account.project_id}"
        )
        size = int(item.get("size") or 0)
        content = ContentRef(
            name=item["name"],
            data={"bucket": bucket, "name": item["name"], "generation": item.get("generation")},
            size_bytes=size,
            version=item.get("generation") or item.get("etag"),
        )
        return Document(str(item["id"]), fields, timestamp=item.get("updated"), content=content if size > 0 else None)

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        bucket = str(content.data["bucket"])
        params = {"alt": "media", **self._billing(bucket)}
        if content.data.get("generation"):
            # The very bytes that were listed, or an error: an object that is overwritten meanwhile is another one.
            params["generation"] = str(content.data["generation"])
        path = f"{API}/b/{_quoted(bucket)}/o/{_quoted(str(content.data['name']))}"
        async with self._client.stream("GET", path, params=params) as chunks:
            yield chunks

    # Calls

    @property
    def _client(self) -> HttpClient:
        assert self._http is not None, "the session of the source is not open"
        return self._http

    def _billing(self, bucket: str | None) -> dict[str, str]:
        return {"userProject": self._account.project_id} if bucket in self._billed else {}

    async def _json(self, path: str, params: Mapping[str, Any], what: str, bucket: str | None = None) -> dict[str, Any]:
        try:
            answer = await self._client.json("GET", API + path, params={**params, **self._billing(bucket)})
        except SourceError as error:
            if bucket is not None and bucket not in self._billed and "requester pays" in str(error):
                self._billed.add(bucket)
                return await self._json(path, params, what, bucket)
            raise _explained(error, what, self._account.client_email) from error
        if not isinstance(answer, dict):
            raise UnexpectedAnswer(f"Google Cloud Storage answered for {what} with something else than an object.")
        return answer


def _quoted(name: str) -> str:
    return quote(name, safe="'")


def _explained(error: SourceError, what: str, who: str) -> SourceError:
    match error:
        case PermissionDenied():
            return PermissionDenied(
                f"Google Cloud Storage does not let {who} read {what}. Grant it storage.objects.list and get."
            )
        case NotFound():
            return NotFound(f"Google Cloud Storage has no {what}. Check the name.")
        case _:
            return error
