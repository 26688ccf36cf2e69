"""Document-level security of Confluence from end to end: what each person finds is what Confluence shows them, edition by edition."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from callboard.actors.sync import DeletionLimits, SyncSettings, sync
from callboard.protocol.store import Store

from ..sources.confluence_double import ConfluenceDouble, Edition, refusal
from ..sources.test_confluence import EDITIONS, source, stood_in
from ..sources.test_confluence_rights import RULES, company, truth
from .searching import seen_by

SETTINGS = SyncSettings(deletions=DeletionLimits(documents_max=1000))


@pytest.fixture
def edition() -> Edition:
    """Most of what is tested here is the same for all of them."""
    return "confluence_cloud"


@pytest.fixture
def wiki(edition: Edition, monkeypatch: pytest.MonkeyPatch) -> ConfluenceDouble:
    double = company(edition)
    stood_in(monkeypatch, double)
    return double


async def synced(wiki: ConfluenceDouble, store: Store, index: str, *kinds: str, rules: Any = None) -> None:
    for kind in kinds or ("full", "access_control"):
        one = source(wiki, use_document_level_security=True, index_comments=True, retry_count=0)
        report = await sync(
            one,
            store,
            index=index,
            kind=kind,  # type: ignore[arg-type]
            settings=SETTINGS,
            advanced_rules=rules if kind == "full" else None,
        )
        assert report.status == "completed", report.error


async def everyones(wiki: ConfluenceDouble, store: Store, index: str, people: str) -> dict[str, set[str]]:
    prefix = "acc" if wiki.is_cloud else "key"
    return {name: await seen_by(store, index, people, f"{prefix}-{name}") for name in wiki.people}


@pytest.mark.parametrize("edition", EDITIONS)
async def test_each_sees_exactly_what_confluence_shows_them(
    wiki: ConfluenceDouble, store: Store, index: str, people: str
) -> None:
    await synced(wiki, store, index)
    found = await everyones(wiki, store, index, people)
    assert found == truth(wiki)
    assert len({frozenset(one) for one in found.values()}) == 3, "the three people do not see the same"


async def test_advanced_rules_show_nobody_more(wiki: ConfluenceDouble, store: Store, index: str, people: str) -> None:
    await synced(wiki, store, index, rules=RULES)
    shown = {name: {one for one in ids if not one.startswith("com-")} for name, ids in truth(wiki).items()}
    assert await everyones(wiki, store, index, people) == shown


@pytest.mark.parametrize("edition", EDITIONS[:2])
async def test_a_revoked_right_disappears(wiki: ConfluenceDouble, store: Store, index: str, people: str) -> None:
    await synced(wiki, store, index)
    assert "secret" in (await everyones(wiki, store, index, people))["bob"]
    wiki.contents["secret"].users = {"ann"}
    wiki.contents["home"].groups = {"hr"}
    await synced(wiki, store, index, "incremental", "access_control")
    found = await everyones(wiki, store, index, people)
    assert found == truth(wiki)
    assert not {"secret", "home", "att-home-plan.txt"} & found["bob"], "nothing but rights has changed"
    wiki.spaces["HR"].users = set()
    wiki.people["cy"].groups.discard("hr")
    await synced(wiki, store, index)
    found = await everyones(wiki, store, index, people)
    assert found == truth(wiki)
    assert not {"rules", "secret"} & (found["bob"] | found["cy"])


@pytest.mark.parametrize("edition", EDITIONS[1:2])
async def test_a_space_that_was_public_is_gone_for_the_others(
    wiki: ConfluenceDouble, store: Store, index: str, people: str
) -> None:
    wiki.lets_nobodies_in = True
    wiki.spaces["HR"].anonymous = True
    await synced(wiki, store, index)
    assert await everyones(wiki, store, index, people) == truth(wiki)
    wiki.spaces["HR"].anonymous = False
    wiki.spaces["HR"].users = set()
    await synced(wiki, store, index)
    found = await everyones(wiki, store, index, people)
    assert found == truth(wiki)
    assert "rules" not in found["bob"]


@pytest.mark.parametrize("edition", EDITIONS[1:2])
@pytest.mark.parametrize("answer", [refusal(403), httpx.ReadError("gone")])
async def test_a_failed_permission_call_widens_nothing(
    wiki: ConfluenceDouble, store: Store, index: str, people: str, answer: httpx.Response | Exception
) -> None:
    wiki.restriction_lists_max = 1
    await synced(wiki, store, index)
    before = await everyones(wiki, store, index, people)
    assert before == truth(wiki)
    wiki.contents["secret"].users = {"ann"}
    wiki.fail("content/secret/restriction", answer, times=100)
    await synced(wiki, store, index)
    found = await everyones(wiki, store, index, people)
    assert not any("secret" in shown for shown in found.values()), "nobody knows who may see it"
    assert {name: shown - {"secret"} for name, shown in before.items()} == found


@pytest.mark.parametrize("edition", EDITIONS[1:2])
async def test_no_readers_let_nobody_in(wiki: ConfluenceDouble, store: Store, index: str, people: str) -> None:
    wiki.spaces["HR"].users, wiki.spaces["HR"].groups = set(), set()
    await synced(wiki, store, index)
    found = await everyones(wiki, store, index, people)
    assert found == truth(wiki)
    assert not any("rules" in shown for shown in found.values())
    assert (await store.client.get(index=index, id="rules"))["_source"]["_allow_access_control"] == ["callboard:nobody"]
