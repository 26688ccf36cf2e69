"""The guard in front of every route: who asks, and whether they may."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ...runtime import now
from ..errors import ApiError
from ..http.messages import Request
from ..mapping.dates import to_ms
from .privileges import BUILT_IN, CLUSTER_ACTIONS, FREE, INDEX_ACTIONS, Principal, Role, read_roles

# Their indices stand in the body, or were checked when the context was opened; their handlers check them.
BY_BODY = frozenset({"/_bulk", "/_mget", "/_pit", "/_search", "/_search/scroll", "/_search/scroll/{scroll_id}"})
_CHALLENGE = 'Basic realm="security", charset="UTF-8", ApiKey'


@attrs.frozen
class User:
    """Somebody who may come in. `roles` name built-in roles (`superuser`, `viewer`) or those given to the node; none: no rights."""

    name: str
    password: str = attrs.field(repr=False)
    roles: tuple[str, ...] = ()


def key_hash(key: str) -> str:
    """Return what is stored of an API key. Keys are long and random, so they need no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


class Guard:
    """Without users, everybody may do everything."""

    def __init__(self, users: Sequence[User] = (), roles: Mapping[str, Role] | None = None) -> None:
        self._roles = {**BUILT_IN, **(roles or {})}
        unknown = [(user.name, role) for user in users for role in user.roles if role not in self._roles]
        if unknown:
            raise ValueError(
                f"user {unknown[0][0]!r} has the unknown role {unknown[0][1]!r}; there are {', '.join(self._roles)}"
            )
        self._users = {user.name: user for user in users}
        self.enabled = bool(users)

    def authenticate(self, keys: Mapping[str, Any], header: str | None, path: str) -> Principal | None:
        """Return who asks; None where nobody needs to say. `keys` are the stored API keys. Raises 401."""
        if not self.enabled:
            return None
        if header is None:
            raise _unknown(f"missing authentication credentials for REST request [{path}]")
        scheme, _, encoded = header.strip().partition(" ")
        try:
            name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise _unknown(f"the credentials of REST request [{path}] cannot be read") from None
        if colon and scheme.lower() == "basic":
            user = self._users.get(name)
            if user is not None and hmac.compare_digest(user.password.encode(), secret.encode()):
                return self._principal(user)
            raise _unknown(f"unable to authenticate user [{name}] for REST request [{path}]")
        if colon and scheme.lower() == "apikey":
            return self._by_key(keys, name, secret, path)
        raise _unknown(f"unable to authenticate with provided credentials for REST request [{path}]")

    def _principal(self, user: User) -> Principal:
        return Principal(user.name, user.roles, tuple(self._roles[role] for role in user.roles))

    def _by_key(self, keys: Mapping[str, Any], key_id: str, secret: str, path: str) -> Principal:
        stored = keys.get(key_id)
        expires = None if stored is None else stored.get("expiration")
        known = (
            stored is not None
            and not stored["invalidated"]
            and (expires is None or expires > to_ms(now()))
            and hmac.compare_digest(stored["hash"], key_hash(secret))
        )
        owner = self._users.get(stored["username"]) if known and stored is not None else None
        if owner is None or stored is None:
            raise _unknown(
                f"unable to authenticate with provided credentials for REST request [{path}]: the API key is not valid"
            )
        limits = read_roles(stored["role_descriptors"])
        return attrs.evolve(
            self._principal(owner),
            limited_to=tuple(limits.values()) or None,
            api_key={"id": key_id, "name": stored["name"]},
        )

    def authorise(self, principal: Principal | None, action: str, template: str, request: Request) -> None:
        """Let a request pass. Raises 403."""
        if template not in BY_BODY:
            require(principal, action, request.arguments.get("index"))


def require(principal: Principal | None, action: str, index: str | None) -> None:
    """Raise 403 unless the action on this index is granted."""
    if principal is not None and not principal.may_do(action, index):
        raise forbidden(principal, action, index)


def forbidden(principal: Principal, action: str, index: str | None) -> ApiError:
    """Return the 403 that names the privileges that would do."""
    who = f"user [{principal.name}]"
    if principal.api_key is not None:
        who = f"API key id [{principal.api_key['id']}] of {who}"
    roles = ",".join(principal.role_names)
    if action in CLUSTER_ACTIONS:
        level, granting = "cluster", sorted(CLUSTER_ACTIONS[action] | {"all"})
        where = ""
    else:
        level, granting = "index", sorted(INDEX_ACTIONS.get(action, frozenset()) | {"all"})
        where = f" on indices [{index or '*'}]"
    return ApiError(
        403,
        "security_exception",
        f"action [{action}] is unauthorized for {who} with effective roles [{roles}]{where}, this action is granted by the {level} "
        f"privileges [{','.join(granting)}]",
    )


def _unknown(reason: str) -> ApiError:
    header: dict[str, Any] = {"WWW-Authenticate": [_CHALLENGE]}
    error = ApiError(401, "security_exception", reason, header=header)
    error.headers["www-authenticate"] = _CHALLENGE
    return error


assert FREE not in CLUSTER_ACTIONS
