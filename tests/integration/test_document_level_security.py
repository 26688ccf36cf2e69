"""Document-level security from end to end: a source with permissions, a sync of documents and of people, and searches as each of them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from callboard.actors.sync import DeletionLimits, SyncSettings, sync
from callboard.protocol.store import Store
from callboard.sources.github import GitHub, GitHubConfig
from callboard.sources.github import client as module

from ..sources.github_double import TOKEN, GitHubDouble, Refusal, Repository, user, work
from .searching import seen_by

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
    return await seen_by(store, index, people, f"U_{login}")


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
