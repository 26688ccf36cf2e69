"""Hosts, SSH keys and results of a Sandfly security scanner (REST API v4 of a self-hosted server).

The three kinds are partitions. Results are listed by their sequence number, which is also the cursor of the change feed: an
incremental sync asks only for results behind the last one it has seen. A full sync keeps the results of the last days that are
configured; older ones leave the index. The licence is looked at before every listing, because an unlicensed server answers
with less than it has.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import attrs
import httpx
import trio

from ..protocol.configuration import setting
from ..runtime import now
from .errors import ConfigurationError, CredentialsError, PermissionDenied, SourceError, UnexpectedAnswer
from .http import HttpClient, HttpSettings, mapped, open_http
from .source import JSON, Checkpoint, Document, Failure, Features, Listing, Partition, Source

PAGE_RESULTS: Final = 999
KEYS_AT_ONCE: Final = 5
LICENSED: Final = "elasticsearch_replication"
HOSTS: Final = Partition("hosts")
SSH_KEYS: Final = Partition("ssh_keys")
RESULTS: Final = Partition("results")
_PLACEHOLDERS: Final = {"server_url": "https://server-name/v4", "username": "<username>", "password": "<password>"}


@attrs.frozen
class SandflyConfig:
    """Which server, and as whom."""

    server_url: str = setting(
        "Server", default=_PLACEHOLDERS["server_url"], order=1, tooltip="Address with the version, .../v4."
    )
    username: str = setting("Username", default=_PLACEHOLDERS["username"], order=2)
    password: str = setting("Password", default=_PLACEHOLDERS["password"], sensitive=True, order=3)
    enable_pass: bool = setting("Index results that passed, too", default=False, order=4)
    verify_ssl: bool = setting("Check the server's certificate", default=True, order=5)
    fetch_days: int = setting("Days of results", default=30, order=6, tooltip="How far back a full sync goes.")

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say which fields still hold what the form came with."""
        for name, placeholder in _PLACEHOLDERS.items():
            if getattr(self, name) == placeholder:
                yield name, "still holds what the form came with; enter your own"
        if self.fetch_days < 1:
            yield "fetch_days", "must be at least 1"
        if urlsplit(self.server_url).scheme not in ("http", "https"):
            yield "server_url", "must be an address such as https://sandfly.example.org/v4"


class Sandfly(Source[SandflyConfig]):
    """Hosts, SSH keys and results of a Sandfly server."""

    service_type: ClassVar[str] = "sandfly"
    name: ClassVar[str] = "Sandfly Security"
    Config = SandflyConfig
    features = Features(incremental="delta")

    def __init__(self, config: SandflyConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self._http: HttpClient | None = None
        self._began: datetime | None = None
        self._last_sequence: JSON = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        verify: Any = True if self.config.verify_ssl else _unverified()
        settings = HttpSettings(
            base_url=self.config.server_url.rstrip("/"), name="Sandfly", verify=verify, account=self.config.username
        )
        auth = _Login(settings.base_url + "/auth/login", self.config.username, self.config.password)
        async with AsyncExitStack() as stack:
            self._http = await stack.enter_async_context(open_http(settings, auth=auth))
            stack.callback(self._forget)
            yield

    def _forget(self) -> None:
        self._http = None

    async def ping(self) -> None:
        """Log in and look at the licence: an address that merely answers is not enough."""
        await self._check_licence()

    async def validate(self) -> None:
        await self.ping()

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        for partition in (HOSTS, SSH_KEYS, RESULTS):
            yield partition

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        self._began = self._began or now()
        await self._check_licence()
        match partition.key:
            case HOSTS.key:
                yield await self._hosts()
            case SSH_KEYS.key:
                async with aclosing(self._ssh_keys()) as keys:
                    async for page in keys:
                        yield page
            case _:
                since = (now() - timedelta(days=self.config.fetch_days)).strftime("%Y-%m-%dT00:00:00Z")
                async with aclosing(self._results(None, since)) as pages:
                    async for results in pages:
                        yield results

    async def changes(self, cursor: JSON, rules: JSON = None) -> Listing:
        if not isinstance(cursor, Mapping) or "sequence_id" not in cursor:
            raise ConfigurationError("There is no cursor yet. Run a full sync first.")
        self._began = now()
        self._last_sequence = cursor["sequence_id"]
        await self._check_licence()
        yield await self._hosts()
        async with aclosing(self._ssh_keys()) as keys:
            async for page in keys:
                yield page
        async with aclosing(self._results(cursor["sequence_id"], None)) as pages:
            async for results in pages:
                yield results
        yield Checkpoint(self.sync_cursor())

    def sync_cursor(self) -> JSON:
        if self._began is None:
            return None
        return {"sequence_id": self._last_sequence or 0, "cursor_timestamp": self._began.isoformat()}

    # What the server gives

    async def _check_licence(self) -> None:
        licence = await self._json("GET", "/license")
        try:
            expires = datetime.strptime(licence["date"]["expiry"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            allowed = licence["limits"]["features"]
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer("Sandfly answered about its licence in a way that is not known here.") from error
        if expires <= now():
            raise PermissionDenied(f"Sandfly's licence expired on {expires:%Y-%m-%d}. Renew it.")
        if LICENSED not in allowed:
            raise PermissionDenied("Sandfly's licence does not include replication to Elasticsearch. Ask for it.")

    async def _hosts(self) -> list[Document | Failure]:
        answer = await self._json("GET", "/hosts")
        return [_host(host) for host in _data(answer, "hosts")]

    async def _ssh_keys(self) -> AsyncGenerator[list[Document | Failure], None]:
        answer = await self._json("GET", "/sshhunter/summary")
        listed = _data(answer, "SSH keys")
        if answer.get("more_results"):
            # Nothing is known of how to ask for the rest, and leaving it out would delete it.
            raise UnexpectedAnswer("Sandfly lists more SSH keys than it gives at once. They are left as they are.")
        async with aclosing(mapped((entry["id"] for entry in listed), self._key, at_once=KEYS_AT_ONCE)) as found:
            async for key in found:
                yield [key]

    async def _key(self, key_id: Any) -> Document | Failure:
        try:
            return _ssh_key(await self._json("GET", f"/sshhunter/key/{key_id}"))
        except CredentialsError:
            raise
        except SourceError as error:
            return Failure("container", f"SSH key {key_id}", str(error))

    async def _results(self, after: JSON, since: str | None) -> AsyncGenerator[list[Document | Failure], None]:
        while True:
            answer = await self._json("POST", "/results", json=self._question(after, since))
            page = _data(answer, "results")
            if page:
                yield [_result(result) for result in page]
                following = page[-1].get("sequence_id")
                if following is None or following == after:
                    raise UnexpectedAnswer("Sandfly's results do not go on by their sequence numbers. Sync again.")
                after = self._last_sequence = following
            elif answer.get("more_results"):
                raise UnexpectedAnswer("Sandfly announced more results and gave none. Sync again.")
            if not answer.get("more_results"):
                return

    def _question(self, after: JSON, since: str | None) -> dict[str, JSON]:
        conditions: list[dict[str, JSON]] = []
        if not self.config.enable_pass:
            conditions.append({"columnField": "data.status", "operatorValue": "notEquals", "value": "pass"})
        if after is not None:
            conditions.append({"columnField": "sequence_id", "operatorValue": ">", "value": str(after)})
        question: dict[str, JSON] = {"size": PAGE_RESULTS, "sort": [{"Field": "sequence_id", "sort": "asc"}]}
        if since is not None:
            question["time_since"] = since
        if conditions:
            question["filter"] = {"items": conditions, **({"linkoperator": "and"} if len(conditions) > 1 else {})}
        return question

    async def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        assert self._http is not None, "the session of the source is not open"
        answer = await self._http.json(method, self.config.server_url.rstrip("/") + path, **options)
        if not isinstance(answer, dict):
            raise UnexpectedAnswer(f"Sandfly answered {path} with something else than an object.")
        return answer


class _Login(httpx.Auth):
    """Logs in when there is no token or the server refuses the one there is."""

    requires_response_body = True

    def __init__(self, url: str, username: str, password: str) -> None:
        self._url, self._form = url, {"username": username, "password": password}
        self._token: str | None = None
        self._lock = trio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        for attempt in range(2):
            async with self._lock:
                if self._token is None:
                    answer = yield httpx.Request("POST", self._url, json=self._form)
                    self._token = _token(answer)
                token = self._token
            request.headers["authorization"] = f"Bearer {token}"
            response = yield request
            if response.status_code != 401 or attempt:
                return
            async with self._lock:
                if self._token == token:
                    self._token = None


def _token(answer: httpx.Response) -> str:
    if answer.status_code >= 300:
        raise CredentialsError(f"Sandfly does not accept user and password ({answer.status_code}).")
    try:
        return str(answer.json()["access_token"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedAnswer("Sandfly's answer to the login holds no token.") from error


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _data(answer: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    data = answer.get("data")
    if not isinstance(data, list):
        raise UnexpectedAnswer(f"Sandfly's answer lists no {what}. Sync again.")
    return data


def _item(
    kind: str, own_id: Any, summary: str, payload: Mapping[str, Any], timestamp: str | None
) -> Document | Failure:
    if not own_id:
        return Failure("item", f"{kind} {summary}", "Sandfly gives it no id.")
    fields: dict[str, JSON] = {"sandfly_data_type": kind, "sandfly_key_data": summary, kind: dict(payload)}
    return Document(md5(str(own_id).encode(), usedforsecurity=False).hexdigest(), fields, timestamp=timestamp)


def _host(host: Mapping[str, Any]) -> Document | Failure:
    system = ((host.get("data") or {}).get("os") or {}).get("info") or {}
    summary = f"{system.get('node') or '<unknown>'} ({host.get('hostname')})"
    return _item("sandfly_hosts", host.get("host_id"), summary, host, None)


def _ssh_key(key: Mapping[str, Any]) -> Document | Failure:
    return _item("sandfly_ssh_keys", key.get("key_value"), str(key.get("friendly_name") or ""), key, None)


def _result(result: Mapping[str, Any]) -> Document | Failure:
    summary = str((result.get("data") or {}).get("key_data") or "- no data -")
    ended = (result.get("header") or {}).get("end_time")
    return _item("sandfly_results", result.get("external_id"), summary, result, ended)
