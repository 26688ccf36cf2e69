"""Objects in Amazon S3, and in stores that speak its protocol.

Five calls, signed by botocore's own signer and sent by our HTTP client: natively on Trio, streamed and cancellable, where the
vendor's library would block a thread. Each folder at the top of a bucket, or each advanced rule, is a partition; a listing goes on
behind the last key of a page. A listing that fails raises, so a bucket that cannot be read never looks empty.

Vendor facts: `us-east-1` reports no location and old Irish buckets report `EU`; archived storage classes cannot be read without a
restore; owners are named only if asked for.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import md5
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote, urlsplit
from xml.etree.ElementTree import Element

import attrs
import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ..protocol.configuration import setting
from .errors import ConfigurationError, CredentialsError, NotFound, PermissionDenied, SourceError, UnexpectedAnswer
from .http import HttpClient, HttpSettings, Retries, open_http
from .prefixes import folders_of
from .source import (
    JSON,
    AdvancedRulesProblem,
    Checkpoint,
    ContentRef,
    Document,
    Features,
    Listing,
    Partition,
    Source,
)
from .xml_answers import parsed, text

DEFAULT_REGION: Final = "us-east-1"
PAGE_KEYS_MAX: Final = 1000
ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_RULE_KEYS: Final = frozenset({"bucket", "prefix", "extension"})


@attrs.frozen
class S3Config:
    """Which buckets, and as whom."""

    buckets: list[str] = setting(
        "AWS Buckets",
        display="textarea",
        order=1,
        tooltip="Names separated by commas, or * for all. Advanced rules replace them.",
    )
    aws_access_key_id: str = setting("Access key of the account", order=2)
    aws_secret_access_key: str = setting("AWS Secret Key", sensitive=True, order=3)
    read_timeout: int = setting("Read timeout", default=90, required=False, advanced=True, order=4, tooltip="Seconds.")
    connect_timeout: int = setting(
        "Connection timeout", default=90, required=False, advanced=True, order=5, tooltip="Seconds."
    )
    max_attempts: int = setting("Maximum retry attempts", default=5, required=False, advanced=True, order=6)
    page_size: int = setting("Objects in one listing request", default=100, required=False, advanced=True, order=7)
    use_text_extraction_service: bool = setting(
        "Extract text without the pipeline", default=False, advanced=True, order=8
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with fields that are fine one by one."""
        if "*" in self.buckets and len(self.buckets) > 1:
            yield "buckets", "has * beside other names; write * alone for all buckets, or only names"


class S3(Source[S3Config]):
    """Objects of buckets in Amazon S3 or a store that speaks its protocol."""

    service_type: ClassVar[str] = "s3"
    name: ClassVar[str] = "Amazon S3"
    Config = S3Config
    features = Features(advanced_rules=True, resumable=True)

    def __init__(self, config: S3Config, context: Any = None) -> None:
        super().__init__(config, context)
        self._endpoint = _endpoint(os.environ)
        self._regions: dict[str, str] = {}
        self._http: HttpClient | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        settings = HttpSettings(
            base_url=self._endpoint or "https://s3.amazonaws.com",
            name="S3",
            account=self.config.aws_access_key_id,
            connect_timeout_s=self.config.connect_timeout,
            read_timeout_s=self.config.read_timeout,
            retries=Retries(attempts=self.config.max_attempts + 1),
        )
        signer = _Signer(self.config.aws_access_key_id, self.config.aws_secret_access_key)
        async with AsyncExitStack() as stack:
            self._http = await stack.enter_async_context(open_http(settings, auth=signer))
            stack.callback(self._forget)
            yield

    def _forget(self) -> None:
        self._http = None

    async def ping(self) -> None:
        """List all buckets if that is what is wanted, else look at the named ones: that needs no right to list all."""
        if self._wants_all:
            await self._xml("GET", "/")
        else:
            for bucket in self.config.buckets:
                await self._look_at(bucket)

    async def validate(self) -> None:
        await self.ping()

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        return list(_rule_problems(rules))

    @property
    def _wants_all(self) -> bool:
        return self.config.buckets == ["*"]

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if rules:
            seen: set[str] = set()
            for rule in rules:
                prefix, extensions = rule.get("prefix") or "", sorted(rule.get("extension") or ())
                key = f"{rule['bucket']}/{prefix}|{','.join(extensions)}"
                if key not in seen:
                    seen.add(key)
                    yield Partition(key, {"bucket": rule["bucket"], "prefix": prefix, "extensions": extensions})
            return
        for bucket in await self._all_buckets() if self._wants_all else dict.fromkeys(self.config.buckets):
            folders = await folders_of(self._folder_pages(bucket))
            for folder in folders:
                yield Partition(f"{bucket}/{folder}", {"bucket": bucket, "prefix": folder})
            # What is in no folder, or everything: under different names, for a checkpoint of one would skip parts of the other.
            yield Partition(
                f"{bucket}/" if folders else bucket, {"bucket": bucket, "delimiter": "/" if folders else ""}
            )

    async def _folder_pages(self, bucket: str) -> AsyncGenerator[tuple[list[str], bool], None]:
        query = {"list-type": "2", "max-keys": str(PAGE_KEYS_MAX), "encoding-type": "url", "delimiter": "/"}
        token: str | None = None
        while True:
            page = await self._xml(
                "GET", f"/{bucket}", bucket, {**query, "continuation-token": token} if token else query
            )
            token = text(page, "NextContinuationToken")
            is_last = text(page, "IsTruncated") != "true" or not token
            yield [unquote(text(entry, "Prefix") or "") for entry in page.iter("CommonPrefixes")], is_last
            if is_last:
                return

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        bucket, extensions = str(partition.data["bucket"]), tuple(partition.data.get("extensions") or ())
        fixed = {
            "list-type": "2",
            "max-keys": str(min(PAGE_KEYS_MAX, max(1, self.config.page_size))),
            "encoding-type": "url",
            "fetch-owner": "true",
            "prefix": str(partition.data.get("prefix") or ""),
        }
        if partition.data.get("delimiter"):
            fixed["delimiter"] = str(partition.data["delimiter"])
        after = None if checkpoint is None else str(checkpoint["after"])
        token: str | None = None
        while True:
            place = {"continuation-token": token} if token else {"start-after": after} if after else {}
            page = await self._xml("GET", f"/{bucket}", bucket, {**fixed, **place})
            keys = [unquote(text(entry, "Key") or "") for entry in page.iter("Contents")]
            yield [
                self._document(bucket, key, entry)
                for key, entry in zip(keys, page.iter("Contents"), strict=True)
                if not extensions or os.path.splitext(key)[1] in extensions  # noqa: PTH122 - a key is no path
            ]
            if text(page, "IsTruncated") != "true":
                return
            following = text(page, "NextContinuationToken")
            if not following or following == token or not (keys or "delimiter" in fixed):
                raise UnexpectedAnswer(f"S3 did not say how the listing of bucket {bucket} goes on. Sync again.")
            # Keys come in order, so the last one is a place to go on from; tokens are not promised to live that long.
            token = following
            if keys:
                yield Checkpoint({"after": keys[-1]})

    def _document(self, bucket: str, key: str, entry: Element) -> Document:
        size = int(text(entry, "Size") or 0)
        storage_class = text(entry, "StorageClass")
        owner = entry.find("Owner")
        fields: dict[str, JSON] = {
            "filename": key,
            "size_in_bytes": size,
            "bucket": bucket,
            "owner": "" if owner is None else text(owner, "DisplayName"),
            "storage_class": storage_class,
        }
        etag = (text(entry, "ETag") or "").strip('"')
        content = ContentRef(name=key, data={"bucket": bucket, "key": key}, size_bytes=size, version=etag or None)
        modified = (text(entry, "LastModified") or "").replace(".000Z", "+00:00").replace("Z", "+00:00")
        return Document(
            id=md5(f"{bucket}/{key}".encode(), usedforsecurity=False).hexdigest(),
            fields=fields,
            timestamp=modified or None,
            content=None if storage_class in ARCHIVED or key.endswith("/") else content,
        )

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        bucket, key = str(content.data["bucket"]), str(content.data["key"])
        await self._know_region(bucket)
        # The very bytes that were listed, or an error: a body pieced together from two versions would be neither.
        headers = {"if-match": f'"{content.version}"'} if content.version else {}
        async with self._client.stream(
            "GET", self._url(bucket, key), headers=headers, **self._signing(bucket)
        ) as chunks:
            yield chunks

    # Calls

    @property
    def _client(self) -> HttpClient:
        assert self._http is not None, "the session of the source is not open"
        return self._http

    async def _all_buckets(self) -> list[str]:
        answer = await self._xml("GET", "/")
        return sorted(name for bucket in answer.iter("Bucket") if (name := text(bucket, "Name")))

    async def _look_at(self, bucket: str) -> None:
        await self._xml("GET", f"/{bucket}", bucket, {"list-type": "2", "max-keys": "1"})

    async def _know_region(self, bucket: str) -> None:
        if bucket in self._regions:
            return
        try:
            answer = await self._client.send(
                "GET", self._url(bucket) + "?location=", extensions={"region": DEFAULT_REGION}
            )
            region = parsed(answer.content, "S3").text or DEFAULT_REGION
        except PermissionDenied:
            # Whoever may read a bucket need not be allowed to ask where it is; the answer to a listing will tell.
            region = DEFAULT_REGION
        self._regions[bucket] = "eu-west-1" if region == "EU" else region

    async def _xml(
        self, method: str, path: str, bucket: str | None = None, params: dict[str, str] | None = None
    ) -> Element:
        try:
            if bucket is not None:
                await self._know_region(bucket)
            url = path if bucket is None else self._url(bucket)
            answer = await self._client.send(method, url, params=params, **self._signing(bucket))
        except SourceError as error:
            raise _explained(error, bucket) from error
        return parsed(answer.content, "S3")

    def _signing(self, bucket: str | None) -> dict[str, Any]:
        return {"extensions": {"region": self._regions.get(bucket or "", DEFAULT_REGION)}}

    def _url(self, bucket: str, key: str = "") -> str:
        path = f"/{quote(bucket, safe='')}" + (f"/{quote(key, safe='/~')}" if key else "")
        if self._endpoint:
            return self._endpoint + path
        region = self._regions.get(bucket, DEFAULT_REGION)
        return f"https://s3.{region}.amazonaws.com{path}"


class _Signer(httpx.Auth):
    """AWS Signature Version 4, made by botocore. Bodies are never sent, so nothing but headers and query is signed."""

    def __init__(self, access_key: str, secret_key: str) -> None:
        self._credentials = Credentials(access_key, secret_key)

    def auth_flow(self, request: httpx.Request) -> Any:
        address = urlsplit(str(request.url))
        signed = AWSRequest(method=request.method, url=str(request.url), headers={"host": address.netloc})
        S3SigV4Auth(self._credentials, "s3", request.extensions.get("region", DEFAULT_REGION)).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


def _endpoint(environment: Any) -> str | None:
    """`AWS_ENDPOINT_URL`, with the port of `AWS_PORT` if there is one, stands in for Amazon's own address."""
    url = environment.get("AWS_ENDPOINT_URL")
    if not url:
        return None
    port = environment.get("AWS_PORT")
    if not urlsplit(url).scheme.startswith("http"):
        raise ConfigurationError(f"AWS_ENDPOINT_URL must be an address such as http://localhost:9000, not {url!r}.")
    return str(url).rstrip("/") + (f":{port}" if port and not urlsplit(url).port else "")


def _explained(error: SourceError, bucket: str | None) -> SourceError:
    where = f"bucket {bucket}" if bucket else "the list of buckets"
    text = str(error)
    match error:
        case PermissionDenied() if "SignatureDoesNotMatch" in text or "InvalidAccessKeyId" in text:
            return CredentialsError(f"S3 does not accept the access key for {where}. Check key and secret.")
        case PermissionDenied():
            return PermissionDenied(f"S3 does not let this key list {where}. Grant s3:ListBucket and s3:GetObject.")
        case NotFound():
            return NotFound(f"S3 has no {where}. Check its name.")
        case _:
            return error


def _rule_problems(rules: JSON) -> Iterator[AdvancedRulesProblem]:
    if not rules:
        return
    if not isinstance(rules, list):
        yield AdvancedRulesProblem("Advanced rules are a list of objects with the keys bucket, prefix and extension.")
        return
    for number, rule in enumerate(rules, start=1):
        if not isinstance(rule, dict):
            yield AdvancedRulesProblem(f"Rule {number} must be an object.")
            continue
        if strangers := sorted(set(rule) - _RULE_KEYS):
            yield AdvancedRulesProblem(
                f"Rule {number} has the unknown key {strangers[0]}; known are bucket, prefix, extension."
            )
        if not (isinstance(rule.get("bucket"), str) and rule["bucket"]):
            yield AdvancedRulesProblem(f"Rule {number} must name a bucket.")
        if not isinstance(rule.get("prefix", ""), str):
            yield AdvancedRulesProblem(f"The prefix of rule {number} must be text.")
        if not isinstance(rule.get("extension", []), list):
            yield AdvancedRulesProblem(f'The extension of rule {number} must be a list such as [".pdf"].')
