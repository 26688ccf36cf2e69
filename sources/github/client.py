"""The client of GitHub: who we are for which owner, GraphQL with its errors inside good answers, and REST.

A token serves everything. An App has a token for each owner it is installed at; each of them has a client of its own, with its
own rate budget, so that no call can go out with another owner's token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import attrs
import httpx
import jwt
import orjson
import trio

from ...runtime import now
from ..errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Throttled,
    Transient,
    UnexpectedAnswer,
)
from ..http import BearerAuth, HttpClient, HttpSettings, OAuthClientCredentials, linked, open_http
from ..http.client import SECONDARY_LIMIT_S, Retries, judge
from ..tls import pem, verifying_context
from ..waiting import tell_wait
from .queries import VIEWER
from .settings import GitHubConfig

NAME: Final = "GitHub"
JWT_LASTS_S: Final = 540
"""Below the ten minutes that GitHub allows."""
CLOCKS_DIFFER_S: Final = 60
THROTTLED_MAX: Final = 5
"""How often one GraphQL query is asked again after waits that GitHub has named."""


class AppAuth(httpx.Auth):
    """Signs every request as the App itself."""

    def __init__(self, app_id: int, private_key: str) -> None:
        self._app_id, self._key = str(app_id), pem(private_key)

    def assertion(self) -> str:
        """Sign a token that is good for some minutes. Raises `ConfigurationError` if the key cannot be read."""
        at = int(now().timestamp())
        claims = {"iat": at - CLOCKS_DIFFER_S, "exp": at + JWT_LASTS_S, "iss": self._app_id}
        try:
            return jwt.encode(claims, self._key, algorithm="RS256")
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            raise ConfigurationError(
                "The private key of the GitHub App cannot be read. Paste its file again."
            ) from error

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = f"Bearer {self.assertion()}"
        yield request


class InstallationAuth(OAuthClientCredentials):
    """The token of one installation of an App, fetched anew before it expires."""

    def __init__(self, token_url: str, app: AppAuth) -> None:
        super().__init__(token_url, "", "")
        self._app = app

    def _token_request(self) -> httpx.Request:
        headers = {"authorization": f"Bearer {self._app.assertion()}", "accept": "application/vnd.github+json"}
        return httpx.Request("POST", self._token_url, headers=headers)

    def _value_and_lifetime(self, told: Mapping[str, Any]) -> tuple[str, float]:
        expires = datetime.fromisoformat(str(told["expires_at"]))
        return str(told["token"]), (expires - now()).total_seconds()


@attrs.frozen
class Answer:
    """What GraphQL gave: the data, and errors that are about parts of it."""

    data: dict[str, Any]
    errors: tuple[Mapping[str, Any], ...] = ()


class GitHubClient:
    """Made within an open session; any number of tasks may use it at once."""

    def __init__(self, config: GitHubConfig, stack: AsyncExitStack) -> None:
        self._config = config
        self._stack = stack
        self._verify: Any = None
        self._app = AppAuth(config.app_id, config.private_key) if config.is_app else None
        self._clients: dict[str, HttpClient] = {}
        self._installations: dict[str, int] | None = None
        self._turn = trio.Lock()
        self._login: str | None = None

    # Who we are

    async def owners(self) -> list[str]:
        """The owners whose repositories are meant by `*`."""
        if self._app is not None:
            async with self._turn:
                return list(await self._installed())
        if self._config.is_organization:
            return [self._config.org_name]
        return [await self.login()]

    async def login(self) -> str:
        """The name of the token's user."""
        if self._login is None:
            answer = await self.query("", VIEWER, {})
            self._login = str(answer["viewer"]["login"])
        return self._login

    async def scopes(self) -> set[str] | None:
        """What a classic token may do; None for tokens whose permissions GitHub does not tell (fine-grained ones)."""
        client = await self._client("")
        answer = await client.send("HEAD", self._config.graphql_url)
        told = answer.headers.get("x-oauth-scopes")
        return None if told is None else {scope.strip() for scope in told.split(",") if scope.strip()}

    async def check_app(self) -> None:
        """Return if GitHub knows the App. Raises `SourceError`."""
        async with self._turn:
            client = await self._named_client("", self._app)
        await client.json("GET", f"{self._config.rest_url}/app")

    async def _installed(self) -> dict[str, int]:
        if self._installations is None:
            wanted = "Organization" if self._config.is_organization else "User"
            client = await self._named_client("", self._app)
            found: dict[str, int] = {}
            url: str | None = f"{self._config.rest_url}/app/installations?per_page=100"
            while url is not None:
                answer = await client.send("GET", url)
                for one in orjson.loads(answer.content):
                    account = one.get("account") or {}
                    if not one.get("suspended_at") and account.get("type") == wanted:
                        found[str(account["login"])] = int(one["id"])
                url = linked(answer.headers)
            self._installations = found
        return self._installations

    async def _client(self, owner: str) -> HttpClient:
        async with self._turn:
            if self._app is None:
                return await self._named_client("", BearerAuth(self._config.token))
            installed = {login.lower(): (login, number) for login, number in (await self._installed()).items()}
            if owner.lower() not in installed:
                kind = "organizations" if self._config.is_organization else "users"
                raise NotFound(
                    f"The GitHub App is not installed at {owner!r} (it looks at {kind} only). Install it there."
                )
            login, number = installed[owner.lower()]
            if login in self._clients:
                return self._clients[login]
            url = f"{self._config.rest_url}/app/installations/{number}/access_tokens"
            return await self._named_client(login, InstallationAuth(url, self._app))

    async def _named_client(self, name: str, auth: httpx.Auth | None) -> HttpClient:
        # Bounded by the owners at which the App is installed.
        if name not in self._clients:
            if self._verify is None:
                ca = self._config.ssl_ca if self._config.ssl_enabled else ""
                self._verify = verifying_context(ca) if self._config.verify_certificates else False
            settings = HttpSettings(
                base_url=self._config.rest_url,
                name=NAME,
                # Of an App each installation has a limit of its own; for a token there is nobody else.
                account=self._config.token if self._app is None else f"{self._config.app_id}/{name}",
                verify=self._verify,
                verify_setting="verify_certificates",
                retries=Retries(attempts=(self._config.retry_count or 0) + 1),
                headers={"accept": "application/vnd.github+json", "user-agent": "callboard"},
            )
            opened = open_http(settings, auth=auth)
            self._clients[name] = await self._stack.enter_async_context(opened)
        return self._clients[name]

    # Asking

    async def query(self, owner: str, text: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Ask GraphQL. An error anywhere in the answer raises a `SourceError`, also where some data came with it."""
        answer = await self.query_partly(owner, text, variables)
        if answer.errors:
            raise graphql_error(answer.errors[0])
        return answer.data

    async def query_partly(self, owner: str, text: str, variables: Mapping[str, Any]) -> Answer:
        """Ask GraphQL, and return what it gave together with errors that have a place in it. Other errors raise."""
        client = await self._client(owner)
        throttled = 0
        while True:
            answer = await client.send(
                "POST", self._config.graphql_url, json={"query": text, "variables": dict(variables)}
            )
            told = _object(answer.content)
            errors = tuple(one for one in told.get("errors") or () if isinstance(one, dict))
            limited = next((one for one in errors if _is_limit(one)), None)
            if limited is None:
                break
            throttled += 1
            error = _throttled(limited, answer.headers)
            client.bucket.throttled(error.retry_after_s)
            if throttled >= THROTTLED_MAX:
                raise error
            tell_wait(NAME, error, wait_s=error.retry_after_s or 0.0, attempt=throttled)
        if told.get("data") is None or any(not one.get("path") for one in errors):
            raise graphql_error(errors[0]) if errors else UnexpectedAnswer("GitHub answered a query without data.")
        return Answer(told["data"], errors)

    async def rest(self, owner: str, *path: str, params: Mapping[str, str] | None = None) -> Any:
        """Read an address of the REST interface, given as its parts. Raises `SourceError`."""
        return await (await self._client(owner)).json("GET", self._address(path), params=params or {})

    async def stream(self, owner: str, *path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the raw bytes at an address of the REST interface."""
        client = await self._client(owner)
        return client.stream("GET", self._address(path), headers={"accept": "application/vnd.github.raw+json"})

    def _address(self, path: Sequence[str]) -> str:
        return "/".join([self._config.rest_url, *(quote(part, safe="") for part in path)])

    async def pages(
        self,
        owner: str,
        text: str,
        variables: Mapping[str, Any],
        place: Sequence[str],
        *,
        size: int,
        after: str | None = None,
    ) -> AsyncGenerator[tuple[dict[str, Any], dict[int, str], str | None], None]:
        """Read a connection to its end: each page, what is wrong with which of its nodes, and the cursor after it.

        A page that is too heavy for GitHub is asked for in halves. A missing connection, or one that does not move, raises.
        """
        while True:
            try:
                answer = await self.query_partly(owner, text, {**variables, "size": size, "after": after})
            except Transient:
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            damaged = _damaged(answer.errors, [*place, "nodes"])
            page: Any = answer.data
            for step in place:
                page = page.get(step) if isinstance(page, dict) else None
            if not isinstance(page, dict):
                raise NotFound(f"GitHub has no {variables.get('login') or _full_name(variables)}, or does not show it.")
            info = page["pageInfo"]
            following = info["endCursor"] if info["hasNextPage"] else None
            if info["hasNextPage"] and following in (None, after):
                raise UnexpectedAnswer("GitHub announced a next page and gave no new cursor for it. Sync again.")
            yield page, damaged, following
            if following is None:
                return
            after = following


def _full_name(variables: Mapping[str, Any]) -> str:
    return f"repository {variables.get('owner')}/{variables.get('name')}" if "owner" in variables else "such object"


def _damaged(errors: Sequence[Mapping[str, Any]], place: Sequence[str]) -> dict[int, str]:
    """Sort errors by the node of the page they are about. Raises for errors that are about the page itself."""
    damaged: dict[int, str] = {}
    for error in errors:
        path = list(error["path"])
        if path[: len(place)] != list(place) or len(path) <= len(place) or not isinstance(path[len(place)], int):
            raise graphql_error(error)
        damaged.setdefault(path[len(place)], str(graphql_error(error)))
    return damaged


def _object(content: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnexpectedAnswer("GitHub answered a query with something else than JSON.") from error
    if not isinstance(told, dict):
        raise UnexpectedAnswer("GitHub answered a query with something else than an object.")
    return told


def _is_limit(error: Mapping[str, Any]) -> bool:
    return error.get("type") in ("RATE_LIMITED", "RATE_LIMIT") or "secondary rate limit" in str(error.get("message"))


def _throttled(error: Mapping[str, Any], headers: Mapping[str, str]) -> Throttled:
    verdict = judge(NAME, "a query", 429, headers, b"", now().timestamp())
    wait_s = verdict.retry_after_s if isinstance(verdict, Throttled) else None
    return Throttled(
        f"GitHub's limit is used up: {error.get('message')}.", SECONDARY_LIMIT_S if wait_s is None else wait_s
    )


def graphql_error(error: Mapping[str, Any]) -> SourceError:
    """Translate an error inside a GraphQL answer."""
    said = " ".join(str(error.get("message") or "no message").split()).rstrip(".")
    match error.get("type"):
        case "NOT_FOUND":
            return NotFound(f"GitHub: {said}.")
        case "FORBIDDEN" | "INSUFFICIENT_SCOPES":
            return PermissionDenied(f"GitHub: {said}. Check what the token or App may read.")
        case "UNAUTHENTICATED":
            return CredentialsError(f"GitHub: {said}. Check the credentials.")
        case None | "SERVICE_UNAVAILABLE" | "INTERNAL" if "omething went wrong" in said or "imeout" in said:
            return Transient(f"GitHub: {said}.")
        case kind:
            return UnexpectedAnswer(f"GitHub refused a query ({kind or 'no type'}): {said}.")
