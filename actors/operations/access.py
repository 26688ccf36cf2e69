"""Who may see the page and press its buttons: sessions, tokens of forms, names of the host. Pure but for the nonces.

A session is a cookie that this module has signed, so that nothing is kept. Its key follows from the token that visitors present:
a restart logs nobody out, and another token logs everybody out. Without a token the key is made anew at each start, and
sessions only bind forms to the browser that they were sent to.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import urlsplit

import attrs

COOKIE = "callboard_session"
SESSION_S = 12 * 3600
TOKEN_LENGTH_MAX = 4096


@attrs.frozen
class Session:
    """What a visitor's cookie says."""

    value: str
    is_member: bool
    """The visitor has presented the token, or none is needed."""


class Access:
    """Makes and judges sessions. `names` are the host names, beside addresses and `localhost`, under which the page is known."""

    def __init__(self, token: str | None, names: Collection[str] = ()) -> None:
        self._token = token
        self._names = frozenset({"localhost", *(name.lower() for name in names)})
        seed = hashlib.sha256(f"callboard operations {token}".encode()).digest() if token else secrets.token_bytes(32)
        self._key = seed

    @property
    def needs_token(self) -> bool:
        return bool(self._token)

    def is_token(self, given: str) -> bool:
        """Compare in constant time."""
        if self._token is None or len(given) > TOKEN_LENGTH_MAX:
            return False
        return hmac.compare_digest(_digest(given), _digest(self._token))

    def is_bearer(self, authorization: str) -> bool:
        """Whether an `Authorization` header presents the token."""
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and self.is_token(given)

    def begin(self, at_s: float, *, is_member: bool) -> Session:
        """Make a session that ends after `SESSION_S`."""
        text = f"{'m' if is_member else 'v'}.{int(at_s) + SESSION_S}.{secrets.token_urlsafe(18)}"
        return Session(f"{text}.{self._sign('session', text)}", is_member or not self.needs_token)

    def read(self, cookies: str, at_s: float) -> Session | None:
        """Find the session among the cookies; None if there is none, it has ended, or we did not make it."""
        try:
            found = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return None
        if found is None:
            return None
        text, _, signature = found.value.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        kind, ends, _ = text.split(".", 2)
        if int(ends) <= at_s:
            return None
        return Session(found.value, kind == "m" or not self.needs_token)

    def form_token(self, session: Session) -> str:
        """What every form that is sent to this session's browser carries."""
        return self._sign("form", session.value)

    def is_form_token(self, session: Session, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def knows_host(self, host: str) -> bool:
        """Whether a `Host` header names an address, or a name that was configured.

        A page elsewhere can make a name of its own point here; it cannot make an address do that.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def _sign(self, use: str, text: str) -> str:
        return hmac.new(self._key, f"{use}|{text}".encode(), hashlib.sha256).hexdigest()


def is_own_origin(origin: str | None, fetch_site: str | None, host: str) -> bool:
    """Whether a form was sent from the page itself, as far as the browser says so."""
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return False
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def set_cookie(session: Session, *, is_https: bool) -> tuple[str, str]:
    """The header that gives a session to a browser."""
    secure = "; Secure" if is_https else ""
    return "set-cookie", f"{COOKIE}={session.value}; Path=/; Max-Age={SESSION_S}; HttpOnly; SameSite=Lax{secure}"


def local_path(wanted: str) -> str:
    """Where to go after the login; never to another site."""
    if not wanted.startswith("/") or wanted.startswith("//") or "\\" in wanted or any(ord(one) < 33 for one in wanted):
        return "/"
    return wanted


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
