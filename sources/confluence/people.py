"""Everybody who can log in to Confluence, as identities: Cloud asks Jira for them, Server an app, Data Center itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import structlog

from ...protocol.access import identity_document, principal
from ...runtime import now
from ..errors import NotFound, PermissionDenied
from ..source import Identity
from .client import ConfluenceClient, Results, gathered
from .mapping import dig
from .settings import ConfluenceConfig

CLOUD_PAGE: Final = 50
DATA_CENTER_PAGE: Final = 200
SERVER_PAGE: Final = 1000
GROUPS_PAGE: Final = 200


def _name(text: Any) -> str | None:
    return principal("name", str(text).replace(" ", "-")) if text else None


def cloud_identity(user: Mapping[str, Any], groups: Results) -> Identity:
    """Make the identity of a person on Cloud, with groups and the roles in applications."""
    account = principal("account_id", user.get("accountId"))
    roles = dig(user, "applicationRoles", "items") or ()
    fields = {
        "account_id": account,
        "display_name": _name(user.get("displayName")),
        "email_address": principal("email_address", user.get("emailAddress")),
        "locale": principal("locale", user.get("locale")),
    }
    carried = [
        account,
        *(principal("group_id", one.get("groupId")) for one in groups),
        *(principal("role_key", one.get("key")) for one in roles),
    ]
    return _identity(str(user["accountId"]), fields, carried)


def server_identity(user: Mapping[str, Any], groups: Results) -> Identity:
    """Make the identity of a person on a server."""
    key = user.get("key") or user.get("name")
    account = principal("account_id", key)
    email = principal("email_address", user.get("email"))
    name = _name(user.get("fullName"))
    fields = {"account_id": account, "display_name": name, "email_address": email}
    return _identity(str(key), fields, [account, email, name, principal("user", user.get("name")), *_groups(groups)])


def data_center_identity(user: Mapping[str, Any], groups: Results) -> Identity:
    """Make the identity of a person in a data center."""
    account = principal("account_id", user.get("userKey"))
    name, shown = principal("name", user.get("username")), _name(user.get("displayName"))
    fields = {"account_id": account, "username": name, "display_name": shown}
    carried = [account, name, shown, principal("user", user.get("username")), *_groups(groups)]
    return _identity(str(user["userKey"]), fields, carried)


def _groups(groups: Results) -> list[str | None]:
    return [principal("group", one.get("name")) for one in groups]


def _identity(identity_id: str, fields: dict[str, str | None], carried: list[str | None]) -> Identity:
    access = [one for one in carried if one]
    made = identity_document(identity_id, access, identity=fields, created_at=now())
    return Identity(identity_id, dict(fields), access, document=made)


class People:
    """Lists identities. Groups that Confluence does not tell are left out, so that nobody sees more."""

    def __init__(self, config: ConfluenceConfig, client: ConfluenceClient, log: structlog.stdlib.BoundLogger) -> None:
        self._config = config
        self._client = client
        self._log = log

    def _users(self) -> AsyncGenerator[Results, None]:
        client = self._client
        if self._config.is_cloud:
            url = client.url("rest", "api", "3", "users", "search", of_site=True)
            # Those who may not be shown are left out of a page, but count.
            return client.counted(url, {}, start="startAt", limit="maxResults", size=CLOUD_PAGE, thinned_out=True)
        if self._config.is_data_center:
            url = client.url("rest", "api", "user", "list")
            return client.counted(url, {}, start="start", limit="limit", size=DATA_CENTER_PAGE, key="results")
        url = client.url("rest", "extender", "1.0", "user", "getUsersWithConfluenceAccess")
        params = {"showExtendedDetails": "true"}
        return client.counted(url, params, start="startAt", limit="maxResults", size=SERVER_PAGE, key="users")

    async def check(self) -> None:
        """Return if people can be listed at all. Raises `SourceError`."""
        async with aclosing(self._users()) as pages:
            async for _ in pages:
                return

    async def identities(self) -> AsyncGenerator[list[Identity], None]:
        """List everybody, in pages, each person once."""
        seen: set[str] = set()
        async with aclosing(self._users()) as pages:
            async for page in pages:
                users = [user for user in page if self._counts(user)]
                made = await gathered([partial(self._person, user) for user in users], at_once=CLOUD_PAGE)
                fresh = {one.id: one for one in made if one is not None and one.id not in seen}
                seen |= set(fresh)
                yield list(fresh.values())

    def _counts(self, user: Mapping[str, Any]) -> bool:
        if self._config.is_cloud:
            is_person = user.get("accountType") == "atlassian" and user.get("active") is True
            return is_person and bool(user.get("self") and user.get("accountId"))
        if self._config.is_data_center:
            return bool(user.get("userKey")) and user.get("type") in (None, "known")
        return bool(user.get("name"))

    async def _person(self, user: Mapping[str, Any]) -> Identity | None:
        if self._config.is_cloud:
            return await self._cloud_person(user)
        if self._config.is_data_center:
            return data_center_identity(user, await self._groups_of({"key": str(user["userKey"])}))
        return server_identity(user, await self._groups_of({"username": str(user["name"])}))

    async def _cloud_person(self, listed: Mapping[str, Any]) -> Identity | None:
        wanted = {"accountId": str(listed["accountId"])}
        detail = self._client.url("rest", "api", "3", "user", of_site=True)
        try:
            user = await self._client.get_object(detail, {**wanted, "expand": "groups,applicationRoles"})
            groups = dig(user, "groups", "items") or []
            if int(dig(user, "groups", "size") or 0) > len(groups):
                url = self._client.url("rest", "api", "3", "user", "groups", of_site=True)
                told = await self._client.get(url, wanted)
                groups = told if isinstance(told, list) else groups
        except NotFound:
            # Deleted since the list was made.
            return None
        except PermissionDenied as error:
            self._log.warning("the groups of a user cannot be read", user=wanted, cause=str(error))
            user, groups = {}, []
        return cloud_identity({**listed, **user, **wanted}, groups)

    async def _groups_of(self, who: Mapping[str, str]) -> Results:
        groups: Results = []
        url = self._client.url("rest", "api", "user", "memberof")
        listing = self._client.counted(url, who, start="start", limit="limit", size=GROUPS_PAGE, key="results")
        try:
            async with aclosing(listing) as pages:
                async for page in pages:
                    groups += page
        except (NotFound, PermissionDenied) as error:
            self._log.warning("the groups of a user cannot be read", user=dict(who), cause=str(error))
        return groups
