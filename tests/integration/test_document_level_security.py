"""Document-level security from end to end: a source with permissions, a sync of documents and of people, and searches as each of them.

Everybody searches with the query of their own identity document, filled with its own parameters, as a role would do it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from callboard.actors.sync import DeletionLimits, SyncSettings, sync
from callboard.actors.sync.ledger import ledger_index
from callboard.protocol.indices import acl_index
from callboard.protocol.store import NotFound, Store
from callboard.sources.github import GitHub, GitHubConfig
from callboard.sources.github import client as module

from ..sources.github_double import TOKEN, GitHubDouble, Refusal, Repository, user, work

SETTINGS = SyncSettings(deletions=DeletionLimits(documents_max=1000))
PUBLIC = {"R_acme/open", "Issue_1"}
SECRET = {"R_acme/secret", "Issue_2", "PullRequest_3", "acme/secret/plan.md"}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> GitHubDouble:
    double = GitHubDouble()
    double.add(Repository("acme/open", issues=[work("Issue", 1)]))
    double.add(
        Repository(
            "acme/secret",
            visibility="PRIVATE",
            issues=[work("Issue", 2)],
            pulls=[work("PullRequest", 3)],
            files={"plan.md": b"the plan"},
            collaborators=[user("bob"), user("cy"), user("stranger")],
        )
    )
    double.members["acme"] = [user("ann"), user("bob"), user("cy")]
    real = module.open_http
    monkeypatch.setattr(
        module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=httpx.MockTransport(double))
    )
    return double


@pytest.fixture
async def people(index: str, store: Store) -> AsyncIterator[str]:
    """The index of identity documents beside the content index."""
    yield acl_index(index)
    for name in (acl_index(index), ledger_index(index), ledger_index(acl_index(index))):
        with suppress(NotFound):
            await store.client.indices.delete(index=name)


async def synced(store: Store, index: str, rules: Any = None) -> None:
    for kind in ("full", "access_control"):
        config = GitHubConfig(
            data_source="github_cloud",
            token=TOKEN,
            repo_type="organization",
            org_name="acme",
            repositories=["*"],
            use_document_level_security=True,
        )
        report = await sync(
            GitHub(config),
            store,
            index=index,
            kind=kind,  # type: ignore[arg-type]
            settings=SETTINGS,
            advanced_rules=rules if kind == "full" else None,
        )
        assert report.status == "completed", report.error


async def seen(store: Store, index: str, people: str, login: str) -> set[str]:
    """What somebody finds who searches for everything."""
    await store.client.indices.refresh(index=f"{index},{people}")
    try:
        identity = (await store.client.get(index=people, id=f"U_{login}"))["_source"]
    except NotFound:
        return set()
    template = identity["query"]["template"]
    filled = template["source"].replace(
        "{{#toJson}}access_control{{/toJson}}", json.dumps(template["params"]["access_control"])
    )
    answer = await store.client.search(index=index, query=json.loads(filled), size=100)
    return {hit["_id"] for hit in answer["hits"]["hits"]}


async def everyones(store: Store, index: str, people: str) -> dict[str, set[str]]:
    return {login: await seen(store, index, people, login) for login in ("ann", "bob", "cy", "stranger")}


@pytest.mark.parametrize(
    "rules",
    [
        None,
        [
            {"repository": "acme/open", "filter": {"issue": "words"}},
            {"repository": "acme/secret", "filter": {"issue": "words", "pr": "words", "branch": "main"}},
        ],
    ],
)
async def test_each_sees_exactly_what_github_shows_them(
    github: GitHubDouble, store: Store, index: str, people: str, rules: Any
) -> None:
    await synced(store, index, rules)
    assert await everyones(store, index, people) == {
        "ann": PUBLIC,
        "bob": PUBLIC | SECRET,
        "cy": PUBLIC | SECRET,
        "stranger": set(),
    }


async def test_a_revoked_right_disappears(github: GitHubDouble, store: Store, index: str, people: str) -> None:
    await synced(store, index)
    github.repositories["acme/secret"].collaborators = [user("cy")]
    await synced(store, index)
    assert await seen(store, index, people, "bob") == PUBLIC
    assert await seen(store, index, people, "cy") == PUBLIC | SECRET
    github.members["acme"] = [user("ann"), user("bob")]
    await synced(store, index)
    assert await seen(store, index, people, "cy") == set(), "who left the organization has no identity"


async def test_a_repository_made_private_is_gone_for_the_others(
    github: GitHubDouble, store: Store, index: str, people: str
) -> None:
    await synced(store, index)
    github.repositories["acme/open"].visibility = "PRIVATE"
    await synced(store, index)
    found = await everyones(store, index, people)
    assert found == {"ann": set(), "bob": SECRET, "cy": SECRET, "stranger": set()}


@pytest.mark.parametrize("readers", [[], [user("stranger")], Refusal("FORBIDDEN", "no access to collaborators")])
async def test_no_readers_and_unknown_ones_let_nobody_in(
    github: GitHubDouble, store: Store, index: str, people: str, readers: Any
) -> None:
    await synced(store, index)
    github.repositories["acme/secret"].collaborators = readers
    await synced(store, index)
    found = await everyones(store, index, people)
    assert found == {"ann": PUBLIC, "bob": PUBLIC, "cy": PUBLIC, "stranger": set()}
