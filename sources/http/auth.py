"""Ways to say who we are. Each is an `httpx.Auth`; tokens are fetched when needed, shared, and fetched anew before they expire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, Final

import attrs
import httpx
import trio

from ...runtime import monotonic, now
from ..errors import CredentialsError, Transient, UnexpectedAnswer

BasicAuth = httpx.BasicAuth

EXPIRY_MARGIN_S: Final = 60.0


class BearerAuth(httpx.Auth):
    """A token that somebody has given us."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = self._header
        yield request


class ApiKeyAuth(httpx.Auth):
    """A key in a header of its own."""

    def __init__(self, header: str, key: str) -> None:
        self._header, self._key = header, key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._header] = self._key
        yield request


@attrs.define
class _Token:
    value: str
    expires_s: float


class OAuthClientCredentials(httpx.Auth):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4). One fetch serves all who wait for it.

    A 401 with a token that should still be good fetches a new one once. Raises `CredentialsError` if the client is refused.
    """

    requires_response_body = True

    def __init__(self, token_url: str, client_id: str, client_secret: str, *, scope: str | None = None) -> None:
        self._token_url = token_url
        self._form = self._first_form(client_id, client_secret, scope)
        self._token: _Token | None = None
        self._lock = trio.Lock()

    def _first_form(self, client_id: str, client_secret: str, scope: str | None) -> dict[str, str]:
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        return form | ({"scope": scope} if scope else {})

    @property
    def _request_form(self) -> dict[str, str]:
        return self._form

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        for attempt in range(2):
            async with self._lock:
                if self._token is None or monotonic() >= self._token.expires_s:
                    answer = yield self._token_request()
                    self._token = self._read(answer)
                token = self._token
            request.headers["authorization"] = f"Bearer {token.value}"
            response = yield request
            if response.status_code != 401 or attempt:
                return
            async with self._lock:
                if self._token is token:
                    self._token = None

    def _token_request(self) -> httpx.Request:
        return httpx.Request("POST", self._token_url, data=self._request_form)

    def _read(self, answer: httpx.Response) -> _Token:
        host = httpx.URL(self._token_url).host
        if answer.status_code in (400, 401, 403):
            raise CredentialsError(
                f"{host} does not accept the client's credentials ({answer.status_code}). Check id and secret."
            )
        if answer.status_code >= 300:
            raise Transient(f"{host} gave no token ({answer.status_code}).")
        try:
            told: Mapping[str, Any] = answer.json()
            value, lasts_s = self._value_and_lifetime(told)
        except (ValueError, KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"{host} answered without a token.") from error
        self._learn(told)
        return _Token(value, monotonic() + max(1.0, lasts_s - EXPIRY_MARGIN_S))

    def _value_and_lifetime(self, told: Mapping[str, Any]) -> tuple[str, float]:
        return str(told["access_token"]), float(told.get("expires_in", 3600))

    def _learn(self, told: Mapping[str, Any]) -> None:
        """Take what else an answer holds."""


class OAuthRefreshToken(OAuthClientCredentials):
    """OAuth 2.0 refresh tokens (RFC 6749, section 6). A new refresh token, where the server sends one, is used from then on."""

    def __init__(self, token_url: str, client_id: str, client_secret: str, refresh_token: str) -> None:
        super().__init__(token_url, client_id, client_secret)
        self._form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}

    def _learn(self, told: Mapping[str, Any]) -> None:
        if isinstance(told.get("refresh_token"), str):
            self._form["refresh_token"] = told["refresh_token"]


class OAuthJwtBearer(OAuthClientCredentials):
    """OAuth 2.0 JWT bearer grant (RFC 7523): a short-lived assertion, signed with a private key, is exchanged for a token.

    `sign` makes a fresh assertion, valid from the given moment (seconds since 1970), each time a token is needed.
    """

    def __init__(self, token_url: str, sign: Callable[[float], str]) -> None:
        super().__init__(token_url, "", "")
        self._sign = sign

    @property
    def _request_form(self) -> dict[str, str]:
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return {"grant_type": grant, "assertion": self._sign(now().timestamp())}
