"""Who may see what of Confluence: the source's access lists against what the double shows each person, edition by edition."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.protocol.access import ALLOW_ACCESS_CONTROL, NOBODY, QUERY_SOURCE, allows
from callboard.sources.confluence.readers import (
    assigned_grants,
    cloud_grants,
    extender_grants,
    is_whole,
    restricted_to,
    user_principal,
)
from callboard.sources.errors import ConfigurationError, SourceError, Transient
from callboard.sources.permissions import NO_ONE, UNKNOWN, Readers
from callboard.sources.source import Identity

from .confluence_double import ConfluenceDouble, Edition, refusal
from .test_confluence import EDITIONS, listed, source, stood_in

GROUPS = ("everyone", "hr", "ops")
RULES = [
    {"query": "type = page"},
    {"query": "type = blogpost"},
    {"query": "type = attachment"},
    {"query": "type = space"},
]


@pytest.fixture(params=EDITIONS)
def edition(request: pytest.FixtureRequest) -> Edition:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def wiki(edition: Edition, monkeypatch: pytest.MonkeyPatch) -> ConfluenceDouble:
    double = company(edition)
    stood_in(monkeypatch, double)
    return double


def company(edition: Edition) -> ConfluenceDouble:
    """Three people, an open space, one for HR, and pages with restrictions above and below each other."""
    double = ConfluenceDouble(edition)
    double.person("ann", "hr")
    double.person("bob", "ops")
    double.person("cy", "hr", "ops")
    double.space("ALL", groups={"everyone"}, editors={"ops"})
    double.space("HR", groups={"hr"}, users={"bob"}, editors={"ops"})
    double.content("home", "ALL", attachments={"plan.txt": b"x"}, comments=2)
    double.content("salaries", "ALL", parent="home", groups={"hr"}, attachments={"list.txt": b"x"}, comments=1)
    double.content("mine", "ALL", parent="salaries", users={"cy", "bob"})
    double.content("below", "ALL", parent="mine")
    double.content("news", "ALL", type="blogpost", users={"bob"})
    double.content("rules", "HR")
    double.content("secret", "HR", parent="rules", users={"bob"})
    return double


async def identities(one: Any) -> dict[str, Identity]:
    found: dict[str, Identity] = {}
    async with aclosing(one.identities()) as pages:
        async for page in pages:
            found |= {person.id: person for person in page}
    return found


async def everyones(wiki: ConfluenceDouble, rules: Any = None, **settings: Any) -> dict[str, set[str]]:
    """What each person finds, by the access lists of documents and the principals of identities."""
    one = source(wiki, use_document_level_security=True, index_comments=rules is None, retry_count=0, **settings)
    async with one.session():
        documents = (await listed(one, rules)).documents
        people = await identities(one)
    prefix = "acc" if wiki.is_cloud else "key"
    return {
        name: {
            document.id
            for document in documents.values()
            if allows({ALLOW_ACCESS_CONTROL: document.access}, person.access)
        }
        for name in wiki.people
        if (person := people.get(f"{prefix}-{name}")) is not None
    }


def truth(wiki: ConfluenceDouble) -> dict[str, set[str]]:
    return {name: wiki.shown_to(name) for name in wiki.people}


async def test_each_sees_what_confluence_shows_them(wiki: ConfluenceDouble) -> None:
    found = await everyones(wiki)
    assert found == truth(wiki)
    assert "mine" in found["cy"]
    assert "below" in found["cy"]
    assert "mine" not in found["bob"], "who is let in by the page, but not by the one above it"
    assert "secret" not in found["cy"]


async def test_rules_find_for_each_what_confluence_shows_them(wiki: ConfluenceDouble) -> None:
    without_comments = {name: {one for one in shown if "com-" not in one} for name, shown in truth(wiki).items()}
    assert await everyones(wiki, RULES) == without_comments


async def test_without_the_setting_nothing_is_asked_about_rights(wiki: ConfluenceDouble) -> None:
    one = source(wiki)
    async with one.session():
        documents = (await listed(one)).documents
        assert await identities(one) == {}
    assert all(document.access is None for document in documents.values())
    paths = " ".join(str(asked.url) for asked in wiki.asked)
    assert "restriction" not in paths
    assert "extender" not in paths


@pytest.mark.parametrize("seed", range(12))
async def test_random_wikis_are_seen_as_they_are_shown(
    edition: Edition, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)

    def some(of: tuple[str, ...], most: int) -> set[str]:
        return set(chance.sample(of, chance.randint(0, most)))

    double = ConfluenceDouble(edition)
    double.lets_nobodies_in = seed % 3 == 0
    double.hides_group_grants = seed % 4 == 1
    double.restriction_lists_max = chance.choice((1, 2, 100))
    names = ("ann", "bob", "cy", "dee")
    for name in names:
        double.person(name, *some(("hr", "ops"), 2))
    for key in ("A", "B", "C"):
        double.space(
            key, users=some(names, 1), groups=some(GROUPS, 2), editors=some(GROUPS, 1), anonymous=chance.random() < 0.3
        )
        above: list[str | None] = [None]
        for number in range(8):
            content_id = f"{key}{number}"
            double.content(
                content_id,
                key,
                parent=chance.choice(above),
                users=some(names, 2) if chance.random() < 0.4 else set(),
                groups=some(("hr", "ops"), 1) if chance.random() < 0.4 else set(),
                attachments={f"{content_id}.txt": b"x"} if chance.random() < 0.4 else {},
            )
            above.append(content_id)
    stood_in(monkeypatch, double)
    assert await everyones(double) == truth(double)


async def test_restrictions_longer_than_a_page_are_read_whole(wiki: ConfluenceDouble) -> None:
    for number in range(250):
        wiki.person(f"user{number}")
    wiki.contents["home"].users = {f"user{number}" for number in range(0, 250, 2)} | {"ann"}
    wiki.restriction_lists_max = 40
    found = await everyones(wiki)
    assert found == truth(wiki)


async def test_an_ancestor_is_asked_about_once(wiki: ConfluenceDouble) -> None:
    for number in range(120):
        wiki.content(f"many{number}", "ALL", parent="mine")
    wiki.page_max = 50
    await everyones(wiki)
    asked = [str(one.url.path) for one in wiki.asked if "restriction" in one.url.path]
    assert len(asked) == len(set(asked))


# What fails


FAILURES = [refusal(403), refusal(404), refusal(500), refusal(401), httpx.Response(200, json={}), httpx.ReadError("x")]


@pytest.mark.parametrize("answer", FAILURES)
@pytest.mark.parametrize("where", ["restriction/byOperation/read", "extender/1.0/permission", "group/", "v2/spaces"])
async def test_a_permission_call_that_fails_widens_nothing(
    wiki: ConfluenceDouble, where: str, answer: httpx.Response | Exception
) -> None:
    wiki.restriction_lists_max = 1
    wiki.hides_group_grants = True
    wiki.fail(where, answer, times=10_000)
    found = await everyones(wiki)
    for name, shown in truth(wiki).items():
        assert found[name] <= shown, name
    if where == "restriction/byOperation/read":
        assert not any("mine" in one for one in found.values())


@pytest.mark.parametrize("answer", FAILURES)
async def test_a_page_whose_space_does_not_tell_its_readers_is_for_nobody(
    wiki: ConfluenceDouble, answer: httpx.Response | Exception
) -> None:
    if wiki.is_cloud:
        wiki.hides_group_grants = True
    wiki.fail("v2/spaces" if wiki.is_cloud else "extender/1.0/permission", answer, times=10_000)
    one = source(wiki, "ALL", use_document_level_security=True, retry_count=0)
    async with one.session():
        documents = (await listed(one)).documents
    assert {tuple(document.access or ()) for document in documents.values()} == {(NOBODY,)}


async def test_a_space_without_readers_is_for_nobody(wiki: ConfluenceDouble) -> None:
    wiki.spaces["ALL"].groups = set()
    found = await everyones(wiki)
    assert found == truth(wiki)
    assert not any("home" in one for one in found.values())


async def test_a_restriction_to_somebody_who_is_gone_still_shuts_out(wiki: ConfluenceDouble) -> None:
    wiki.person("robot", account_type="app")
    wiki.contents["home"].users = {"robot"}
    found = await everyones(wiki)
    assert not any("home" in one or "salaries" in one for name, one in found.items() if name != "robot")


async def test_ancestors_that_are_not_told_let_nobody_in(wiki: ConfluenceDouble) -> None:
    wiki.omits.add("ancestors")
    found = await everyones(wiki)
    assert not any("home" in one or "below" in one for one in found.values())


@pytest.mark.parametrize("site_is_open", [False, True])
async def test_a_public_space_is_for_everybody_only_if_confluence_shows_it(
    wiki: ConfluenceDouble, site_is_open: bool
) -> None:
    wiki.spaces["HR"].anonymous = True
    wiki.lets_nobodies_in = site_is_open
    one = source(wiki, "HR", use_document_level_security=True)
    async with one.session():
        documents = (await listed(one)).documents
    assert (documents["rules"].access is None) is site_is_open
    assert documents["secret"].access is not None
    assert await everyones(wiki) == truth(wiki)


async def test_without_the_app_a_data_center_tells_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    wiki = company("confluence_data_center")
    wiki.has_extender = False
    wiki.has_space_permissions = True
    stood_in(monkeypatch, wiki)
    assert await everyones(wiki) == truth(wiki)


# People


async def test_identities_are_those_of_the_reference_and_more(wiki: ConfluenceDouble) -> None:
    one = source(wiki, use_document_level_security=True)
    async with one.session():
        await one.validate()
        found = await identities(one)
    cy = found["acc-cy" if wiki.is_cloud else "key-cy"]
    expected = {
        "confluence_cloud": {"account_id:acc-cy", "role_key:confluence-software"}
        | {f"group_id:id-{group}" for group in GROUPS},
        "confluence_server": {"account_id:key-cy", "email_address:cy@example.org", "name:Cy-Example", "user:cy"}
        | {f"group:{group}" for group in GROUPS},
        "confluence_data_center": {"account_id:key-cy", "name:cy", "name:Cy-Example", "user:cy"}
        | {f"group:{group}" for group in GROUPS},
    }[wiki.edition]
    assert set(cy.access) == expected
    fields = {
        "confluence_cloud": {
            "account_id": "account_id:acc-cy",
            "display_name": "name:Cy-Example",
            "email_address": "email_address:cy@example.org",
            "locale": "locale:en_US",
        },
        "confluence_server": {
            "account_id": "account_id:key-cy",
            "display_name": "name:Cy-Example",
            "email_address": "email_address:cy@example.org",
        },
        "confluence_data_center": {
            "account_id": "account_id:key-cy",
            "username": "name:cy",
            "display_name": "name:Cy-Example",
        },
    }[wiki.edition]
    assert cy.fields == fields
    assert cy.document is not None
    assert cy.document["identity"] == fields
    template = cy.document["query"]["template"]
    assert (template["source"], set(template["params"]["access_control"])) == (QUERY_SOURCE, expected)
    assert cy.document["created_at"]


async def test_everybody_is_listed_whatever_the_size_of_a_page(wiki: ConfluenceDouble) -> None:
    for number in range(270):
        wiki.person(f"user{number}")
    wiki.page_max = 60
    one = source(wiki, use_document_level_security=True)
    async with one.session():
        assert len(await identities(one)) == 273


async def test_apps_and_the_inactive_have_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    wiki = company("confluence_cloud")
    wiki.person("robot", account_type="app")
    wiki.person("gone", active=False)
    wiki.group_lists_max = 1
    stood_in(monkeypatch, wiki)
    one = source(wiki, use_document_level_security=True)
    async with one.session():
        found = await identities(one)
    assert set(found) == {"acc-ann", "acc-bob", "acc-cy"}
    assert "group_id:id-ops" in found["acc-cy"].access, "groups that do not come with a person are asked for"


async def test_people_that_cannot_be_listed_fail_the_job_and_the_check(wiki: ConfluenceDouble) -> None:
    where = {"confluence_cloud": "users/search", "confluence_server": "getUsers", "confluence_data_center": "user/list"}
    one = source(wiki, use_document_level_security=True, retry_count=0)
    async with one.session():
        wiki.fail(where[wiki.edition], refusal(403))
        with pytest.raises(ConfigurationError, match="People cannot be listed"):
            await one.validate()
        wiki.fail(where[wiki.edition], refusal(500), times=2)
        with pytest.raises(Transient):
            await one.validate()
        with pytest.raises(SourceError):
            await identities(one)


async def test_groups_that_cannot_be_read_are_not_carried(wiki: ConfluenceDouble) -> None:
    where = "user?accountId" if wiki.is_cloud else "memberof"
    wiki.fail(where, refusal(403), times=100)
    one = source(wiki, use_document_level_security=True)
    async with one.session():
        found = await identities(one)
    assert len(found) == 3
    assert not any(principal.startswith("group") for person in found.values() for principal in person.access)


# Pure parts


def grant(operation: str = "read", target: str = "space", **more: Any) -> dict[str, Any]:
    return {"operation": {"operation": operation, "targetType": target}, **more}


BOB = {"user": {"results": [{"accountId": "bob", "accountType": "atlassian"}], "size": 1}}
HR = {"group": {"results": [{"id": "hr"}], "size": 1}}
CUT = {"group": {"results": [], "size": 1}}


@pytest.mark.parametrize(
    ("permissions", "names", "everybody", "whole"),
    [
        ([], set(), False, True),
        (None, set(), False, False),
        ([grant(subjects=BOB)], {"account_id:bob"}, False, True),
        ([grant(subjects=BOB), grant(subjects=HR)], {"account_id:bob", "group_id:hr"}, False, True),
        ([grant(subjects={**BOB, **HR})], {"account_id:bob", "group_id:hr"}, False, True),
        ([grant("administer", subjects=BOB)], set(), False, True),
        ([grant("read", "page", subjects=BOB)], set(), False, True),
        ([grant()], set(), False, False),
        ([grant(subjects=CUT)], set(), False, False),
        ([grant(anonymousAccess=True)], set(), True, True),
        ([grant(unlicensedAccess=True)], set(), False, True),
        ([grant("create", "page", anonymousAccess=True)], set(), False, True),
    ],
)
def test_the_permissions_of_a_space_on_cloud(permissions: Any, names: set[str], everybody: bool, whole: bool) -> None:
    grants = cloud_grants(permissions)
    assert (grants.readers.names, grants.says_everybody, grants.is_whole) == (names, everybody, whole)


def test_permissions_that_do_not_come_are_unknown() -> None:
    assert cloud_grants(None).readers == UNKNOWN
    assert extender_grants({}).readers == UNKNOWN
    assert extender_grants({"permissions": {"VIEWSPACE": {}}}).readers == NO_ONE


def test_version_two_names_users_and_groups_that_may_read() -> None:
    entries = [
        {"principal": {"type": kind, "id": "x"}, "operation": {"key": key, "targetType": target}}
        for kind in ("user", "group", "role")
        for key, target in (("read", "space"), ("delete", "space"), ("read", "page"))
    ]
    assert assigned_grants([*entries, {}]) == Readers.only(["account_id:x", "group_id:x"])


@pytest.mark.parametrize(
    ("lists", "whole"),
    [
        (None, False),
        ({}, False),
        ({"user": {"results": []}}, False),
        ({"user": {"results": []}, "group": {"results": []}}, True),
        ({"user": {"results": [1], "limit": 1}, "group": {"results": []}}, False),
        ({"user": {"results": [1], "limit": 2}, "group": {"results": []}}, True),
        ({"user": {"results": [], "size": 3}, "group": {"results": []}}, False),
        ({"user": {"results": [], "_links": {"next": "/x"}}, "group": {"results": []}}, False),
    ],
)
def test_a_restriction_that_is_cut_off_is_noticed(lists: Any, whole: bool) -> None:
    assert is_whole(lists) is whole


USERS = st.fixed_dictionaries(
    {"accountId": st.sampled_from(["a", "b", ""]), "accountType": st.sampled_from(["atlassian", "app"])}
)
LISTS = st.fixed_dictionaries(
    {
        "user": st.fixed_dictionaries({"results": st.lists(USERS, max_size=3)}),
        "group": st.fixed_dictionaries(
            {"results": st.lists(st.fixed_dictionaries({"id": st.sampled_from(["g", ""])}), max_size=2)}
        ),
    }
)


@settings(max_examples=100)
@given(st.lists(LISTS, max_size=3))
def test_a_restriction_lets_in_those_it_lists_and_stands_if_it_lists_anybody(pages: list[Any]) -> None:
    readers = restricted_to(pages, is_cloud=True)
    listed_at_all = any(page["user"]["results"] or page["group"]["results"] for page in pages)
    assert (readers is not None) is listed_at_all
    if readers is not None:
        named = {user_principal(one, is_cloud=True) for page in pages for one in page["user"]["results"]}
        named |= {f"group_id:{one['id']}" for page in pages for one in page["group"]["results"] if one["id"]}
        assert readers.names == named - {None}
