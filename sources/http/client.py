"""One HTTP client for one source: it retries what may be retried, waits as long as it is told, and translates every failure.

Verdicts on answers are made by a pure function. What was yielded is never replayed: a retry repeats one request, and a body that
breaks off while it is read raises instead of starting anew.
"""

from __future__ import annotations

import email.utils
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from hashlib import blake2b
from typing import Any, Final

import attrs
import httpx
import orjson
import trio

from ...runtime import now, random
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
from ..waiting import tell_wait
from .limits import TokenBucket, quota_of, shared_bucket, whole_number

READ_SIZE_BYTES: Final = 262_144
RETRY_AFTER_S_MAX: Final = 3600.0
TOLD_FROM_S: Final = 30.0
"""Waits for a quota are told from here on; shorter ones are the usual pace."""
SECONDARY_LIMIT_S: Final = 60.0
"""How long to stay away after a limit on bursts that names no time."""


@attrs.frozen(kw_only=True)
class Retries:
    """How often one request is tried in all, and how long the pauses are."""

    attempts: int = 5
    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 60.0

    def pause_s(self, attempt: int, chance: float) -> float:
        """The pause after so many tries: full jitter, so that many clients do not come back at once."""
        return min(self.cap_s, self.first_s * self.factor ** (attempt - 1)) * chance


@attrs.frozen(kw_only=True)
class HttpSettings:
    """How to reach one system."""

    base_url: str
    name: str
    """What messages call the system."""
    connect_timeout_s: float = 30.0
    read_timeout_s: float = 90.0
    connections_max: int = 20
    verify: Any = True
    """True, or an `ssl.SSLContext`. False only if an explicit setting of the source says so."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    retries: Retries = Retries()
    account: str = ""
    """As whom the system is asked: one limit is kept for all connectors that ask as the same. Empty: a limit of its own."""
    verify_setting: str = ""
    """The setting that turns checks of certificates off, if the source has one: named when a certificate is not trusted."""


def judge(
    name: str, request: str, status: int, headers: Mapping[str, str], body: bytes, at_epoch_s: float
) -> SourceError | None:
    """Say what is wrong with an answer; None if nothing is. The class of the error says whether it may be tried again."""
    if status < 300:
        return None
    said = _said(body)
    told = f"{name} answered {request} with {status}{said}"
    match status:
        case 301 | 302 | 303 | 307 | 308 if "location" in headers:
            return Redirected(f"{name} answered {request} with {status} and points elsewhere.", headers["location"])
        case 401:
            return CredentialsError(f"{told}. Check the credentials.")
        case 403:
            if headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers:
                return Throttled(f"{told}.", _retry_after_s(headers, at_epoch_s), status)
            if b"secondary rate limit" in body:
                return Throttled(f"{told}.", SECONDARY_LIMIT_S, status)
            return PermissionDenied(f"{told}. Check what these credentials may read.")
        case 404 | 410:
            return NotFound(f"{told}.")
        case 429:
            return Throttled(f"{told}.", _retry_after_s(headers, at_epoch_s), status)
        case 503:
            wait_s = _retry_after_s(headers, at_epoch_s)
            return Transient(f"{told}.") if wait_s is None else Throttled(f"{told}.", wait_s, status)
        case 408 | 425 | 500 | 502 | 504:
            return Transient(f"{told}.")
        case _:
            return UnexpectedAnswer(f"{told}.")


def _said(body: bytes) -> str:
    text = " ".join(body[:300].decode(errors="replace").split())
    return f" ({text})" if text else ""


def _retry_after_s(headers: Mapping[str, str], at_epoch_s: float) -> float | None:
    value = headers.get("retry-after")
    if value is None:
        reset = whole_number(headers.get("x-ratelimit-reset", ""))
        return None if reset is None else min(RETRY_AFTER_S_MAX, max(0.0, reset - at_epoch_s))
    try:
        return min(RETRY_AFTER_S_MAX, max(0.0, float(value)))
    except ValueError:
        moment = email.utils.parsedate_tz(value)
        try:
            left_s = None if moment is None else email.utils.mktime_tz(moment) - at_epoch_s
        except (ValueError, OverflowError):
            # A date that no calendar has.
            return None
        return None if left_s is None else min(RETRY_AFTER_S_MAX, max(0.0, left_s))


class Redirected(UnexpectedAnswer):
    """The system points elsewhere. Nobody goes there by itself: it may be another host, or a page to log in."""

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location
        """May hold a signature, so it belongs in no message."""


class HttpClient:
    """Made by `open_http`; any number of tasks may use it at once."""

    def __init__(self, client: httpx.AsyncClient, settings: HttpSettings, bucket: TokenBucket) -> None:
        self._client = client
        self._settings = settings
        self.bucket = bucket

    async def json(self, method: str, url: str, **options: Any) -> Any:
        """Send a request and return the JSON of its answer. Raises `SourceError`."""
        answer = await self.send(method, url, **options)
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise UnexpectedAnswer(
                f"{self._settings.name} answered {method} {_path(url)} with something else than JSON."
            ) from error

    async def send(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request, as often as it takes, and return its good answer with the body read. Raises `SourceError`."""
        async with self._answered(method, url, options) as answer:
            try:
                await answer.aread()
            except httpx.TransportError as error:
                raise self._lost(method, url, error) from error
        return answer

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the body of a good answer as chunks. A body that breaks off raises `Transient`; it is not begun anew."""
        async with (
            self._answered(method, url, options) as answer,
            aclosing(self._chunks(method, url, answer)) as chunks,
        ):
            yield chunks

    async def _chunks(self, method: str, url: str, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in answer.aiter_bytes(READ_SIZE_BYTES):
                yield chunk
        except httpx.TransportError as error:
            raise self._lost(method, url, error) from error

    @asynccontextmanager
    async def _answered(self, method: str, url: str, options: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        answer = await self._send_until_answered(method, url, options)
        try:
            yield answer
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                await answer.aclose()

    async def _send_until_answered(self, method: str, url: str, options: dict[str, Any]) -> httpx.Response:
        retries = self._settings.retries
        attempt = 0
        while True:
            attempt += 1
            if attempt == 1 and (wait_s := self.bucket.wait_s()) >= TOLD_FROM_S:
                spent = Throttled(f"{self._settings.name} grants no more requests until then.", wait_s)
                tell_wait(self._settings.name, spent, wait_s=wait_s, attempt=attempt)
            taken_s = await self.bucket.take()
            try:
                answer, wrong = await self._send_once(method, url, options)
            except httpx.TransportError as error:
                wrong = self._lost(method, url, error)
            else:
                if wrong is None:
                    self.bucket.succeeded()
                    return answer
            if isinstance(wrong, Throttled):
                self.bucket.throttled(wrong.retry_after_s, taken_s)
            if not wrong.retriable or attempt >= retries.attempts:
                raise wrong
            if isinstance(wrong, Throttled) and wrong.retry_after_s is not None:
                # The bucket holds everybody back until then.
                held_s = self.bucket.wait_s()
                wait_s = held_s if held_s >= wrong.retry_after_s + TOLD_FROM_S else wrong.retry_after_s
                tell_wait(self._settings.name, wrong, wait_s=wait_s, attempt=attempt)
                continue
            pause_s = retries.pause_s(attempt, random().random())
            tell_wait(self._settings.name, wrong, wait_s=pause_s, attempt=attempt)
            await trio.sleep(pause_s)

    async def _send_once(
        self, method: str, url: str, options: dict[str, Any]
    ) -> tuple[httpx.Response, SourceError | None]:
        answer = await self._client.send(self._client.build_request(method, url, **options), stream=True)
        if (quota := quota_of(answer.headers, now().timestamp())) is not None:
            self.bucket.told(quota)
        if answer.status_code < 300:
            return answer, None
        try:
            body = await answer.aread()
        finally:
            await answer.aclose()
        request = f"{method} {_path(url)}"
        return answer, judge(self._settings.name, request, answer.status_code, answer.headers, body, now().timestamp())

    def _lost(self, method: str, url: str, error: httpx.TransportError) -> SourceError:
        if _is_untrusted(error):
            name, off = self._settings.name, self._settings.verify_setting
            otherwise = f", or turn off {off!r} if you accept that nobody checks it" if off else ""
            return ConfigurationError(
                f"The certificate of {name} is not trusted. Give the certificate of its authority{otherwise}."
            )
        what = "took too long to answer" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        return Transient(f"{self._settings.name} {what} ({method} {_path(url)}: {type(error).__name__}).")


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _path(url: str) -> str:
    # Queries may hold tokens; a path is enough to find the place.
    return httpx.URL(url).path or "/"


@asynccontextmanager
async def open_http(
    settings: HttpSettings,
    *,
    auth: httpx.Auth | None = None,
    bucket: TokenBucket | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[HttpClient]:
    """Hold an `HttpClient` open. `bucket` limits it instead of the one of the settings' account; `transport` stands in for a network."""
    if bucket is None and settings.account:
        # Many accounts are tokens, and keys of a table turn up in debuggers and dumps.
        account = blake2b(settings.account.encode(), digest_size=16).hexdigest()
        bucket = shared_bucket(httpx.URL(settings.base_url).host, account)
    async with httpx.AsyncClient(
        base_url=settings.base_url,
        auth=auth,
        headers=dict(settings.headers),
        verify=settings.verify,
        timeout=httpx.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
        limits=httpx.Limits(
            max_connections=settings.connections_max, max_keepalive_connections=settings.connections_max
        ),
        transport=transport,
    ) as client:
        yield HttpClient(client, settings, bucket or TokenBucket())
