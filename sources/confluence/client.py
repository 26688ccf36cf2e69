"""The client of Confluence: who we are, answers that are checked to be meant for us, listings to their end, and downloads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import attrs
import httpx
import orjson
import structlog
import trio

from ..errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from ..http import BasicAuth, BearerAuth, HttpClient, HttpSettings, Redirected, RepeatedPage, Retries, open_http
from ..source import JSON
from ..tls import verifying_context
from .paging import Place, following, origin, own_address, with_query
from .settings import TOKEN, ConfluenceConfig

NAME: Final = "Confluence"
AT_ONCE: Final = 10
"""How many small calls belong to one page of a listing at the same time."""
RESTARTS_MAX: Final = 3
HOPS_MAX: Final = 5
_LOG_IN: Final = ("login.action", "/login", "dologin", "samlsso", "/plugins/servlet/saml")

T = TypeVar("T")
Results = list[dict[str, Any]]


@attrs.frozen
class Page:
    """One page of a listing."""

    results: Results
    """What was not on an earlier page."""
    following: JSON
    """Where the listing goes on, as plain data; None at the end."""


async def gathered(calls: Sequence[Callable[[], Awaitable[T]]], at_once: int = AT_ONCE) -> list[T]:
    """Make calls at the same time, and return their answers in order. Raises the first `SourceError` of theirs."""
    answers: dict[int, T] = {}
    errors: list[SourceError] = []
    limit = trio.CapacityLimiter(at_once)

    async def make(number: int, scope: trio.CancelScope) -> None:
        async with limit:
            try:
                answers[number] = await calls[number]()
            except SourceError as error:
                errors.append(error)
                scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(len(calls)):
            nursery.start_soon(make, number, nursery.cancel_scope)
    if errors:
        raise errors[0]
    return [answers[number] for number in range(len(calls))]


class ConfluenceClient:
    """Made within an open session; any number of tasks may use it at once."""

    def __init__(self, config: ConfluenceConfig, log: structlog.stdlib.BoundLogger) -> None:
        self._config = config
        self._base = config.base_url
        self._log = log
        self._http: HttpClient | None = None
        self._stranger: HttpClient | None = None
        self._tells_who_we_are = True

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ConfluenceClient]:
        """Hold the connections: ours, and those without credentials."""
        config = self._config
        ca = config.ssl_ca if config.ssl_enabled else ""
        settings = HttpSettings(
            base_url=self._base,
            name=NAME,
            account=_account(config),
            verify=verifying_context(ca) if config.verify_certificates else False,
            verify_setting="verify_certificates",
            connections_max=max(20, config.concurrent_downloads + AT_ONCE),
            retries=Retries(attempts=max(0, config.retry_count or 0) + 1),
            headers={"accept": "application/json", "user-agent": "callboard"},
        )
        nobody = attrs.evolve(settings, account="")
        async with open_http(settings, auth=_auth(config)) as http, open_http(nobody, auth=None) as stranger:
            self._http, self._stranger = http, stranger
            try:
                yield self
            finally:
                self._http = self._stranger = None

    @property
    def _ours(self) -> HttpClient:
        assert self._http is not None, "the session of the source is not open"
        return self._http

    # Single answers

    def url(self, *path: str, of_site: bool = False) -> str:
        """The address of something, given as its parts."""
        root = self._config.site_url if of_site else self._base
        return "/".join([root, *(quote(part, safe="~") for part in path)])

    async def get(self, url: str, params: Mapping[str, str | int] | None = None) -> Any:
        """Read an address. Raises `SourceError`, also for an answer that was made for somebody who is not logged in."""
        answer = await self._ours.send("GET", url, params=params)
        reason = answer.headers.get("x-seraph-loginreason", "")
        if "FAILED" in reason or "DENIED" in reason or answer.headers.get("x-ausername") == "anonymous":
            raise CredentialsError(
                "Confluence takes us for somebody who is not logged in, and shows only what everybody may see. "
                "Check the credentials; a token may have expired."
            )
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise UnexpectedAnswer(
                f"Confluence answered GET {urlsplit(url).path} with something else than JSON. Check its address."
            ) from error

    async def get_object(self, url: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """Read an address whose answer is an object."""
        answer = await self.get(url, params)
        if not isinstance(answer, dict):
            raise UnexpectedAnswer(f"Confluence answered GET {urlsplit(url).path} with something else than an object.")
        return answer

    async def check_signed_in(self) -> None:
        """Raise `CredentialsError` if Confluence takes us for nobody. One that cannot say counts as knowing us."""
        if not self._tells_who_we_are:
            return
        try:
            current = await self.get_object(self.url("rest", "api", "user", "current"))
        except (NotFound, PermissionDenied):
            self._tells_who_we_are = False
            return
        if current.get("type") == "anonymous":
            raise CredentialsError(
                "Confluence takes us for somebody who is not logged in, and shows only what everybody may see. "
                "Check the credentials; a token may have expired."
            )

    async def space(self, key: str) -> dict[str, Any]:
        """Read one space, on Cloud with its history and permissions. Raises `NotFound` with what that may mean."""
        try:
            return await self.get_object(self.url("rest", "api", "space", key), self.space_expansions())
        except NotFound as error:
            raise NotFound(
                f"Confluence has no space {key!r}, or does not show it to this account. Check the key and its permissions."
            ) from error

    def space_expansions(self) -> dict[str, str]:
        # Server and Data Center answer with 500 when they are asked for these.
        return {"expand": "permissions,history"} if self._config.is_cloud else {}

    async def is_open_to_everybody(self, key: str) -> bool:
        """Ask without credentials whether a space can be seen. Only a clear yes counts."""
        assert self._stranger is not None, "the session of the source is not open"
        try:
            answer = await self._stranger.json("GET", self.url("rest", "api", "space", key))
        except SourceError:
            return False
        return isinstance(answer, dict) and answer.get("key") == key

    # Listings

    async def pages(
        self,
        url: str,
        params: Mapping[str, str | int],
        identify: Callable[[Mapping[str, Any]], str | None],
        *,
        start: JSON = None,
        counts: bool = False,
    ) -> AsyncGenerator[Page, None]:
        """Read a listing to its end, each item once.

        `start` is the `following` of a page of an earlier run. A listing that shifts while it is read begins anew, and so does
        one whose start is no longer known; if that happens too often, `Transient` is raised. Keeps all ids of one listing.
        """
        first = with_query(url, **params)
        place = Place(first) if start is None else Place(own_address(str(start["link"]), self._base), start["after"])
        seen: set[str] = set() if place.after is None else {place.after}
        visited: set[str] = set()
        restarts = 0
        is_resumed = start is not None
        while True:
            try:
                answer = await self.get_object(place.url)
            except (NotFound, UnexpectedAnswer):
                if not is_resumed:
                    raise
                self._log.warning("a listing cannot go on where it was interrupted, and begins anew")
                place, is_resumed = Place(first), False
                continue
            is_resumed = False
            results = _results(answer, url)
            ids = [identify(one) for one in results]
            if place.after is not None and (not ids or ids[0] != place.after):
                restarts += 1
                if restarts > RESTARTS_MAX:
                    raise Transient(
                        f"The listing {urlsplit(url).path} of Confluence changes faster than it can be read. Sync again."
                    )
                place = Place(first)
                visited.clear()
                continue
            visited.add(place.url)
            following_place = following(place.url, answer, ids, self._base, counts=counts)
            if following_place is not None and following_place.url in visited:
                raise RepeatedPage(following_place.url)
            fresh = [one for one, known in zip(results, ids, strict=True) if known is None or known not in seen]
            seen.update(known for known in ids if known is not None)
            yield Page(fresh, _written(following_place, self._base))
            if following_place is None:
                return
            place = following_place

    async def counted(
        self,
        url: str,
        params: Mapping[str, str | int],
        *,
        start: str,
        limit: str,
        size: int,
        key: str | None = None,
        thinned_out: bool = False,
    ) -> AsyncGenerator[Results, None]:
        """Read a listing that has no links, by counting, until a page is empty.

        `key` is where the items are; None: the answer is the list of them. `thinned_out`: pages hold less than was counted, so
        that the next one lies a whole `size` further.
        """
        at = 0
        before: Results | None = None
        while True:
            answer = await self.get(url, {**params, limit: size, start: at})
            items = answer.get(key) if key is not None and isinstance(answer, dict) else answer
            if not isinstance(items, list):
                raise UnexpectedAnswer(f"Confluence answered GET {urlsplit(url).path} without a list.")
            if not items:
                return
            if items == before:
                # Going on would never end.
                raise RepeatedPage(at)
            yield items
            told = answer.get("limit") if isinstance(answer, dict) else None
            if isinstance(told, int) and len(items) < told and not (answer.get("_links") or {}).get("next"):
                return
            before = items
            at += size if thinned_out else len(items)

    # Bytes

    @asynccontextmanager
    async def download(self, link: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the bytes at a link. Cloud points to another host for them, which gets none of our credentials."""
        async with AsyncExitStack() as stack:
            yield await self._followed(stack, own_address(link, self._base))

    async def _followed(self, stack: AsyncExitStack, url: str) -> AsyncIterator[bytes]:
        assert self._stranger is not None, "the session of the source is not open"
        for _ in range(HOPS_MAX):
            client = self._ours if origin(url) == origin(self._base) else self._stranger
            try:
                return await stack.enter_async_context(client.stream("GET", url, headers={"accept": "*/*"}))
            except Redirected as moved:
                url = urljoin(url, moved.location)
            path = urlsplit(url).path.lower()
            if origin(url) == origin(self._base) and any(one in path for one in _LOG_IN):
                raise CredentialsError(
                    "Confluence asks us to log in before it gives an attachment. Check the credentials."
                )
            if urlsplit(url).scheme not in ("http", "https"):
                break
        raise UnexpectedAnswer("Confluence points from one address to the next for an attachment, and to no bytes.")


def _account(config: ConfluenceConfig) -> str:
    """Whose limit is used: Confluence counts by person."""
    if config.is_cloud:
        return config.account_email
    if not config.is_data_center:
        return config.username
    by_token = config.data_center_auth_method == TOKEN
    return config.data_center_personal_access_token if by_token else config.data_center_username


def _auth(config: ConfluenceConfig) -> httpx.Auth:
    if config.is_cloud:
        return BasicAuth(config.account_email, config.api_token)
    if not config.is_data_center:
        return BasicAuth(config.username, config.password)
    if config.data_center_auth_method == TOKEN:
        try:
            config.data_center_personal_access_token.encode("ascii")
        except UnicodeEncodeError as error:
            raise ConfigurationError("The personal access token holds characters that no token has.") from error
        return BearerAuth(config.data_center_personal_access_token)
    return BasicAuth(config.data_center_username, config.data_center_password)


def _results(answer: Mapping[str, Any], url: str) -> Results:
    results = answer.get("results")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise UnexpectedAnswer(f"Confluence answered GET {urlsplit(url).path} without results.")
    return results


def _written(place: Place | None, base: str) -> JSON:
    return None if place is None else {"link": place.url.removeprefix(base), "after": place.after}
