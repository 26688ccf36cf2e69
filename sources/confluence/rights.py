"""Who may see which document: asks Confluence, remembers what was said, and combines it.

Whoever sees a page may view its space, and is shut out neither by the page's own restriction nor by that of any ancestor.
Attachments and comments are as visible as their page. Every call that fails counts as readers that are not known.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Generic, TypeVar

import structlog

from ..errors import NotFound, SourceError, UnexpectedAnswer
from ..permissions import EVERYBODY, UNKNOWN, Directory, Readers, Rule, effective, either
from .client import ConfluenceClient, gathered
from .mapping import dig
from .readers import (
    SpaceGrants,
    assigned_grants,
    cloud_grants,
    extender_grants,
    group_prefix,
    group_principal,
    is_whole,
    restricted_to,
    space_viewers,
    user_principal,
)

MEMBERS_PAGE: Final = 200
RESTRICTION_PAGE: Final = 100
KEPT_MAX: Final = 10_000
"""Answers about single pages, people or combinations that are kept; the oldest go first."""
SPACES_KEPT_MAX: Final = 10_000
RESTRICTIONS: Final = "restrictions.read.restrictions.user,restrictions.read.restrictions.group"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """A bounded memory: what was put in first is forgotten first."""

    def __init__(self, most: int = KEPT_MAX) -> None:
        self._most = most
        self._kept: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def __getitem__(self, key: K) -> V:
        return self._kept[key]

    def put(self, key: K, value: V) -> V:
        self._kept[key] = value
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return value


class Rights:
    """Answers for one listing of one partition, or for one set of rules. Any number of tasks may use it at once."""

    def __init__(self, client: ConfluenceClient, log: structlog.stdlib.BoundLogger, *, is_cloud: bool) -> None:
        self._client = client
        self._log = log
        self._is_cloud = is_cloud
        self._spaces: Kept[str, Readers] = Kept(SPACES_KEPT_MAX)
        self._restrictions: Kept[str, Readers | None] = Kept()
        self._users: Kept[str, str | None] = Kept()
        self._containers: Kept[str, Readers] = Kept()
        # One entry for each group that stands beside others somewhere; None if its members could not be read.
        self._members: dict[str, frozenset[str] | None] = {}
        self._combined: Kept[tuple[Readers, ...], Readers] = Kept()

    def _unknown(self, about: str, error: SourceError) -> None:
        self._log.warning("nobody may see what Confluence does not tell the readers of", about=about, cause=str(error))

    # Spaces

    async def of_space(self, key: str, space: Mapping[str, Any] | None = None) -> Readers:
        """Those who may view a space. `space` is the answer about it, if there is one already."""
        if key in self._spaces:
            return self._spaces[key]
        try:
            readers = await (self._cloud_space(key, space) if self._is_cloud else self._server_space(key))
        except SourceError as error:
            self._unknown(f"space {key}", error)
            readers = UNKNOWN
        return self._spaces.put(key, readers)

    async def _opened(self, key: str, grants: SpaceGrants) -> Readers:
        # The space may say so although the site as a whole lets only people in who are logged in.
        if grants.says_everybody and await self._client.is_open_to_everybody(key):
            return EVERYBODY
        return grants.readers

    async def _cloud_space(self, key: str, space: Mapping[str, Any] | None) -> Readers:
        if space is None or "permissions" not in space:
            space = await self._client.space(key)
        grants = cloud_grants(space.get("permissions"))
        readers = await self._opened(key, grants)
        if readers.is_everybody or grants.is_whole:
            return readers
        try:
            return either(grants.readers, await self._assigned(str(space["id"])))
        except SourceError as error:
            # Those whom the first answer named may view the space in any case.
            self._log.warning("Confluence does not tell all readers of a space", space=key, cause=str(error))
            return grants.readers

    async def _assigned(self, space_id: str) -> Readers:
        """The read permissions of a space by version 2 of the interface, which also names the groups."""
        entries: list[Mapping[str, Any]] = []
        url = self._client.url("api", "v2", "spaces", space_id, "permissions")
        listing = self._client.pages(url, {"limit": 250}, lambda one: str(one["id"]) if "id" in one else None)
        async with aclosing(listing) as pages:
            async for page in pages:
                entries += page.results
        return assigned_grants(entries)

    async def _server_space(self, key: str) -> Readers:
        path = ("permission", "space", key, "getSpacePermissionActors", "VIEWSPACE")
        try:
            answer = await self._client.get(self._client.url("rest", "extender", "1.0", *path))
        except NotFound:
            # Without the app; Data Center tells it itself from version 9.1 on.
            return await self._data_center_space(key)
        return await self._opened(key, extender_grants(answer))

    async def _data_center_space(self, key: str) -> Readers:
        entries = await self._client.get(self._client.url("rest", "api", "space", key, "permissions"))
        groups, keys, says_everybody = space_viewers(entries)
        users = await gathered([partial(self._user_by_key, one) for one in sorted(keys)])
        names = [*users, *(group_principal({"name": one}, is_cloud=False) for one in groups)]
        return await self._opened(key, SpaceGrants(Readers.only(names), says_everybody))

    async def _user_by_key(self, user_key: str) -> str | None:
        if user_key in self._users:
            return self._users[user_key]
        try:
            user = await self._client.get_object(self._client.url("rest", "api", "user"), {"key": user_key})
        except SourceError as error:
            self._unknown(f"user {user_key}", error)
            return None
        return self._users.put(user_key, user_principal(user, is_cloud=False))

    # Pages

    async def of_contents(self, contents: Sequence[Mapping[str, Any]], space: Readers) -> list[Readers]:
        """Those who may see each of these pages and blog posts, which were read with ancestors and restrictions."""
        own: dict[str, Readers | None] = {}
        for content in contents:
            lists = dig(content, "restrictions", "read", "restrictions")
            if is_whole(lists):
                # It may be the ancestor of a later one.
                one = restricted_to([lists], is_cloud=self._is_cloud)
                own[str(content["id"])] = self._restrictions.put(str(content["id"]), one)
        related = {str(one["id"]) for content in contents for one in content.get("ancestors") or () if "id" in one}
        asked = sorted((related | {str(content["id"]) for content in contents}) - set(own))
        answers = await gathered([partial(self._restriction, one) for one in asked])
        restrictions = own | dict(zip(asked, answers, strict=True))
        found = []
        for content in contents:
            mine = restrictions[str(content["id"])]
            above = self._above(content, restrictions)
            found.append(await self._combine([space, *above, *([] if mine is None else [mine])]))
        return found

    def _above(self, content: Mapping[str, Any], restrictions: Mapping[str, Readers | None]) -> list[Readers]:
        ancestors = content.get("ancestors")
        if not isinstance(ancestors, list) and content.get("type") != "blogpost":
            # Without them, a restriction further up may have been missed.
            return [UNKNOWN]
        levels: list[Readers] = []
        for one in ancestors or ():
            level = restrictions[str(one["id"])] if "id" in one else UNKNOWN
            levels += [] if level is None else [level]
        return levels

    async def _restriction(self, content_id: str) -> Readers | None:
        """Those whom the page itself lets in; None if it restricts nobody."""
        if content_id in self._restrictions:
            return self._restrictions[content_id]
        try:
            readers = await self._read_restriction(content_id)
        except SourceError as error:
            self._unknown(f"content {content_id}", error)
            readers = UNKNOWN
        return self._restrictions.put(content_id, readers)

    async def _read_restriction(self, content_id: str) -> Readers | None:
        url = self._client.url("rest", "api", "content", content_id, "restriction", "byOperation", "read")
        params: dict[str, str | int] = {"expand": "restrictions.user,restrictions.group", "limit": RESTRICTION_PAGE}
        pages: list[Mapping[str, Any]] = []
        start = 0
        while True:
            lists = (await self._client.get_object(url, {**params, "start": start})).get("restrictions")
            held = [dig(lists, kind, "results") for kind in ("user", "group")]
            if not isinstance(lists, Mapping) or not all(isinstance(one, list) for one in held):
                raise UnexpectedAnswer(f"Confluence did not list whom content {content_id} is restricted to.")
            if pages and held == [dig(pages[-1], kind, "results") for kind in ("user", "group")]:
                raise UnexpectedAnswer(f"Confluence repeats the restriction of content {content_id}.")
            pages.append(lists)
            told = [one for one in (dig(lists, kind, "limit") for kind in ("user", "group")) if isinstance(one, int)]
            size = max(1, min([*told, RESTRICTION_PAGE]))
            if max(len(one) for one in held) < size:
                return restricted_to(pages, is_cloud=self._is_cloud)
            start += size

    async def of_container(self, content_id: str) -> Readers:
        """Those who may see a page or blog post of which nothing but the id is known."""
        if content_id not in self._containers:
            self._containers.put(content_id, await self._read_container(content_id))
        return self._containers[content_id]

    async def _read_container(self, content_id: str) -> Readers:
        expansions = {"expand": f"ancestors,space,{RESTRICTIONS}"}
        try:
            content = await self._client.get_object(self._client.url("rest", "api", "content", content_id), expansions)
        except SourceError as error:
            self._unknown(f"content {content_id}", error)
            return UNKNOWN
        key = dig(content, "space", "key")
        if not key or str(content.get("id")) != content_id:
            return UNKNOWN
        space = await self.of_space(str(key))
        return (await self.of_contents([content], space))[0]

    # Combining

    async def _combine(self, levels: Sequence[Readers]) -> Readers:
        key = tuple(dict.fromkeys(levels))
        if key in self._combined:
            return self._combined[key]
        if len([one for one in key if not one.is_everybody]) > 1:
            await self._learn_members(key)
        directory = Directory(groups=self._members, group_prefixes=frozenset({group_prefix(is_cloud=self._is_cloud)}))
        return self._combined.put(key, effective([Rule(one) for one in key], directory))

    async def _learn_members(self, levels: Sequence[Readers]) -> None:
        prefix = f"{group_prefix(is_cloud=self._is_cloud)}:"
        named = {name for one in levels for name in one.names or () if name.startswith(prefix)}
        missing = sorted(named - set(self._members))
        answers = await gathered([partial(self._members_of, name.removeprefix(prefix)) for name in missing])
        self._members.update(zip(missing, answers, strict=True))

    async def _members_of(self, group: str) -> frozenset[str] | None:
        api = partial(self._client.url, "rest", "api", "group", group)
        url = api("membersByGroupId") if self._is_cloud else api("member")
        members: set[str] = set()
        try:
            listing = self._client.counted(url, {}, start="start", limit="limit", size=MEMBERS_PAGE, key="results")
            async with aclosing(listing) as pages:
                async for page in pages:
                    names = (user_principal(one, is_cloud=self._is_cloud) for one in page)
                    members |= {name for name in names if name}
        except SourceError as error:
            self._log.warning("the members of a group cannot be read", group=group, cause=str(error))
            return None
        return frozenset(members)
