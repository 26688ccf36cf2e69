"""From what Confluence says about permissions to sets of readers. Pure: nothing here asks Confluence anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ..permissions import UNKNOWN, Readers, either
from .mapping import dig


def user_principal(user: Mapping[str, Any], *, is_cloud: bool) -> str | None:
    """How documents name a person; None for apps, for the deleted, and for those without a name."""
    if is_cloud:
        if user.get("accountType") not in (None, "", "atlassian") or not user.get("accountId"):
            return None
        return f"account_id:{user['accountId']}"
    name = user.get("username") or user.get("name")
    return f"user:{name}" if name else None


def group_principal(group: Mapping[str, Any], *, is_cloud: bool) -> str | None:
    """How documents name a group."""
    name = group.get("id") if is_cloud else group.get("name")
    return f"{group_prefix(is_cloud=is_cloud)}:{name}" if name else None


def group_prefix(*, is_cloud: bool) -> str:
    return "group_id" if is_cloud else "group"


def is_whole(lists: Any) -> bool:
    """Whether both lists of a restriction came, and none of them is cut off."""
    for kind in ("user", "group"):
        one = dig(lists, kind)
        if not isinstance(one, Mapping) or not isinstance(one.get("results"), list):
            return False
        held, limit, size = len(one["results"]), one.get("limit"), one.get("size")
        if (isinstance(size, int) and size > held) or dig(one, "_links", "next"):
            return False
        if isinstance(limit, int) and 0 < limit <= held:
            return False
    return True


def restricted_to(pages: Iterable[Mapping[str, Any]], *, is_cloud: bool) -> Readers | None:
    """Those whom a restriction lets in, from all the pages of its two lists; None if it lists nobody and so restricts nothing.

    Someone listed who has no principal (an app, a deleted user) lets nobody in, but the restriction stands.
    """
    stands = False
    names: set[str | None] = set()
    for lists in pages:
        users, groups = dig(lists, "user", "results") or [], dig(lists, "group", "results") or []
        stands = stands or bool(users or groups)
        names |= {user_principal(one, is_cloud=is_cloud) for one in users}
        names |= {group_principal(one, is_cloud=is_cloud) for one in groups}
    return Readers.only(names) if stands else None


@attrs.frozen
class SpaceGrants:
    """Whom a space lets in, as far as one answer tells."""

    readers: Readers
    says_everybody: bool = False
    """Also those who are not logged in, if the site lets them in at all."""
    is_whole: bool = True
    """Confluence did not leave out to whom something is granted."""


def cloud_grants(permissions: Any) -> SpaceGrants:
    """Read the `permissions` of a space on Cloud. Only the right to view the space counts."""
    if not isinstance(permissions, list):
        return SpaceGrants(UNKNOWN, is_whole=False)
    found: list[Readers] = []
    says_everybody, whole = False, True
    for one in permissions:
        if dig(one, "operation", "operation") != "read" or dig(one, "operation", "targetType") != "space":
            continue
        says_everybody = says_everybody or one.get("anonymousAccess") is True
        subjects = one.get("subjects") or {}
        named = restricted_to([subjects], is_cloud=True)
        if named is not None:
            found.append(named)
        # An entry without subjects that is not about everybody is about a group that was left out.
        told = named is not None or one.get("anonymousAccess") is True or one.get("unlicensedAccess") is True
        whole = whole and told and not _is_cut(subjects)
    return SpaceGrants(either(*found), says_everybody, whole)


def _is_cut(subjects: Any) -> bool:
    for kind in ("user", "group"):
        one = dig(subjects, kind)
        if isinstance(one, Mapping) and int(one.get("size") or 0) > len(one.get("results") or ()):
            return True
    return False


def assigned_grants(entries: Sequence[Mapping[str, Any]]) -> Readers:
    """Read the permissions that version 2 of Cloud's interface lists, one principal each."""
    prefixes = {"user": "account_id", "group": "group_id"}
    return Readers.only(
        f"{prefixes[str(dig(one, 'principal', 'type'))]}:{dig(one, 'principal', 'id')}"
        for one in entries
        if dig(one, "operation", "key") == "read"
        and dig(one, "operation", "targetType") == "space"
        and dig(one, "principal", "type") in prefixes
        and dig(one, "principal", "id")
    )


def extender_grants(answer: Any) -> SpaceGrants:
    """Read the actors that the Extender app names for the right to view a space: plain names, or objects with one."""
    view = dig(answer, "permissions", "VIEWSPACE")
    if not isinstance(view, Mapping):
        return SpaceGrants(UNKNOWN)
    users = [one if isinstance(one, Mapping) else {"name": one} for one in view.get("users") or ()]
    groups = [one if isinstance(one, Mapping) else {"name": one} for one in view.get("groups") or ()]
    named = restricted_to([{"user": {"results": users}, "group": {"results": groups}}], is_cloud=False)
    return SpaceGrants(Readers.only(()) if named is None else named, view.get("anonymousAccess") is True)


def space_viewers(entries: Any) -> tuple[set[str], set[str], bool]:
    """Read the space permissions of Data Center 9.1 and later: names of groups, keys of users, and whether everybody is in."""
    groups: set[str] = set()
    keys: set[str] = set()
    says_everybody = False
    for one in entries if isinstance(entries, list) else ():
        if dig(one, "operation", "operationKey") != "read" or dig(one, "operation", "targetType") != "space":
            continue
        match dig(one, "subject", "type"):
            case "group" if dig(one, "subject", "name"):
                groups.add(str(one["subject"]["name"]))
            case "user" if dig(one, "subject", "userKey"):
                keys.add(str(one["subject"]["userKey"]))
            case "anonymous":
                says_everybody = True
    return groups, keys, says_everybody
