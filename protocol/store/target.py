"""Where the store is and as whom to speak to it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

import attrs
from elastic_transport import HttpHeaders, NodeConfig

from .errors import InvalidTarget
from .retries import RetryPolicy

EMBEDDED_EXTRA = "_callboard_embedded"
EMBEDDED_HOST = "embedded.callboard"


@attrs.frozen(kw_only=True)
class _Address:
    scheme: str
    host: str
    port: int
    path_prefix: str
    username: str | None
    password: str | None = attrs.field(repr=False)


@attrs.frozen
class Target:
    """An Elasticsearch, or a node inside this process, and how to speak to it.

    Raises `InvalidTarget` for an address or credentials that cannot work. Secrets never show in its `repr`.
    """

    url: str | None = attrs.field(default=None, repr=lambda url: repr(shown_url(url)) if url else "None")
    api_key: str | None = attrs.field(default=None, kw_only=True, repr=False)
    """Encoded key as Elasticsearch hands it out, or `id:key`. Used instead of user and password."""
    username: str | None = attrs.field(default=None, kw_only=True)
    password: str | None = attrs.field(default=None, kw_only=True, repr=False)
    ca_certs: Path | str | None = attrs.field(default=None, kw_only=True)
    """File or folder with certificates to trust instead of the system's."""
    verify_certs: bool = attrs.field(default=True, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True, repr=False)
    """Extra headers on every request."""
    request_timeout_s: float = attrs.field(default=240.0, kw_only=True, validator=attrs.validators.gt(0))
    retries: RetryPolicy = attrs.field(factory=RetryPolicy, kw_only=True)
    compress: bool = attrs.field(default=False, kw_only=True)
    """Send and ask for gzip. Saves network, costs processor time."""
    connections_max: int = attrs.field(default=10, kw_only=True, validator=attrs.validators.ge(1))
    transport: Literal["lean", "httpx"] = attrs.field(default="lean", kw_only=True)
    """`lean` is Callboard's own; `httpx` is the official client's, which also knows proxies from the environment."""
    role: Literal["service", "cli", "library"] = attrs.field(default="library", kw_only=True)
    """What the user agent says about us."""
    use_connectors_api: bool = attrs.field(default=True, kw_only=True)
    """Use the `_connector` API where it does what is needed and the server has it; else write to the indices."""
    embedded: Any = attrs.field(default=None, kw_only=True, repr=lambda app: "..." if app is not None else "None")
    """An ASGI application or an `httpx.AsyncBaseTransport`, spoken to inside this process."""
    through: Any = attrs.field(default=None, kw_only=True, repr=lambda app: "..." if app is not None else "None")
    """An ASGI application that takes all requests in place of the server at `url`, and passes them on: how faults get between."""

    def __attrs_post_init__(self) -> None:
        if self.through is not None and self.url is None:
            raise InvalidTarget("`through` stands before a server: give its URL, or put it round the embedded node.")
        if (self.url is None) == (self.embedded is None):
            raise InvalidTarget(
                "Give either the URL of an Elasticsearch or an embedded node, not both and not neither."
            )
        address = self.address()
        given = {"api_key": self.api_key, "username": self.username, "password": self.password}
        in_url = {"username in the URL": address.username, "password in the URL": address.password}
        for name, value in (*given.items(), *in_url.items()):
            if value is not None and not _is_printable(value):
                raise InvalidTarget(
                    f"The {name} contains a line break or control character; look at how it was pasted."
                )
        for name, value in self.headers.items():
            if not (name.isascii() and value.isascii() and _is_printable(name + value)):
                raise InvalidTarget(f"The header {name!r} contains letters that no header may have.")
        if self.api_key is not None and not self.api_key.strip():
            raise InvalidTarget("The API key is empty. Give a key, or leave it out.")
        if self.api_key is not None and not self.api_key.isascii():
            raise InvalidTarget("The API key contains letters that no key has; look at how it was pasted.")
        if self.password is not None and not (self.username or address.username):
            raise InvalidTarget("A password was given without a username.")
        username, password = self.username or address.username, self.password or address.password
        if username and password is None and self.api_key is None:
            raise InvalidTarget(f"User {username!r} was given without a password.")

    def address(self) -> _Address:
        """Take the URL apart. Raises `InvalidTarget` for anything but `http(s)://host[:port][/path]`."""
        if self.url is None:
            return _Address(scheme="http", host=EMBEDDED_HOST, port=80, path_prefix="", username=None, password=None)
        shown = shown_url(self.url)
        try:
            parts = urlsplit(self.url.strip())
            port = parts.port
        except ValueError as exc:
            raise InvalidTarget(
                f"{shown!r} is not a URL that can be used. Write it like http://localhost:9200."
            ) from exc
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidTarget(f"{shown!r} is not the URL of a server. Write it like http://localhost:9200.")
        try:
            host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
            parts.path.encode()
        except UnicodeError as exc:
            raise InvalidTarget(f"{shown!r} contains letters that no address has.") from exc
        if parts.query or parts.fragment:
            raise InvalidTarget(f"{shown!r} has a query or fragment. Give only scheme, host, port and path.")
        if any(letter.isspace() for letter in parts.netloc + parts.path):
            raise InvalidTarget(f"{shown!r} contains blanks. Write it like http://localhost:9200.")
        return _Address(
            scheme=parts.scheme,
            host=host,
            port=port if port is not None else (443 if parts.scheme == "https" else 80),
            path_prefix=quote(parts.path.rstrip("/"), safe="/%"),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    @property
    def shown(self) -> str:
        """How messages name this place: the URL without credentials."""
        return shown_url(self.url) if self.url is not None else "the embedded node"

    def secrets(self) -> tuple[str, ...]:
        """Everything that must not appear in a message."""
        address = self.address()
        known = [self.api_key, self.password, address.password, self._authorization(), *self.headers.values()]
        if self.api_key and ":" in self.api_key:
            known.append(self.api_key.partition(":")[2])
        known += [value.partition(" ")[2] for value in (self._authorization(),) if value]
        # A secret of two letters would censor half of every message and protect nothing.
        return tuple(sorted({value for value in known if value and len(value) >= 4}, key=len, reverse=True))

    def _authorization(self) -> str | None:
        if self.api_key is not None:
            key = self.api_key.strip()
            return "ApiKey " + (base64.b64encode(key.encode()).decode() if ":" in key else key)
        address = self.address()
        username, password = self.username or address.username, self.password or address.password
        if username is None:
            return None
        return "Basic " + base64.b64encode(f"{username}:{password or ''}".encode()).decode()

    def user_agent(self, version: str) -> str:
        """How requests name their sender."""
        return f"callboard-{version}/{self.role}"

    def node_config(self, version: str) -> NodeConfig:
        """What the official client needs to know. Raises `InvalidTarget` for certificates that cannot be read."""
        address = self.address()
        headers = HttpHeaders(self.headers)
        headers["X-elastic-product-origin"] = "connectors"
        headers["user-agent"] = self.user_agent(version)
        authorization = self._authorization()
        if authorization is not None:
            headers["authorization"] = authorization
        return NodeConfig(
            scheme=address.scheme,
            host=address.host,
            port=address.port,
            path_prefix=address.path_prefix,
            headers=headers,
            connections_per_node=self.connections_max,
            request_timeout=self.request_timeout_s,
            http_compress=self.compress,
            verify_certs=self.verify_certs,
            ssl_context=self._ssl_context() if address.scheme == "https" else None,
            _extras={EMBEDDED_EXTRA: self.through if self.embedded is None else self.embedded},
        )

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            if self.ca_certs is None:
                context = ssl.create_default_context()
            elif Path(self.ca_certs).is_dir():
                context = ssl.create_default_context(capath=str(self.ca_certs))
            else:
                context = ssl.create_default_context(cafile=str(self.ca_certs))
        except (OSError, ssl.SSLError) as exc:
            raise InvalidTarget(
                f"The certificates in {str(self.ca_certs)!r} cannot be read ({exc.strerror or exc}). "
                "Give a file with PEM certificates."
            ) from exc
        if not self.verify_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _is_printable(text: str) -> bool:
    # Surrogates stand for bytes that were not Unicode; they cannot be sent.
    return not any(ord(letter) < 0x20 or ord(letter) == 0x7F or 0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def shown_url(url: str) -> str:
    """The URL without user, password, query and fragment, fit for messages."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        scheme, rest = "", url.strip()
    authority, slash, path = rest.partition("/")
    if "@" in path and "@" not in authority:
        # A password with an unescaped slash: better show too little than the password.
        authority, path = path.rpartition("@")[2], ""
        slash = ""
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}".partition("?")[0].partition("#")[0]
