"""GitHub against a double that refuses what GitHub refuses, under virtual time: nobody really waits for a limit."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import attrs
import httpx
import pytest
import trio
from trio.testing import MockClock

from callboard.protocol.access import ALLOW_ACCESS_CONTROL, NOBODY, allows
from callboard.protocol.configuration import InvalidConfiguration, read_configuration
from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Throttled,
    UnexpectedAnswer,
)
from callboard.sources.github import GitHub, GitHubConfig
from callboard.sources.github import client as module
from callboard.sources.github.client import graphql_error
from callboard.sources.github.settings import rule_problems, search_text
from callboard.sources.source import Document, Failure, Identity

from .github_double import AT, PEM, TOKEN, GitHubDouble, Refusal, Repository, connection, user, work


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> GitHubDouble:
    double = GitHubDouble()
    double.add(
        Repository(
            "acme/site",
            issues=[work("Issue", number) for number in range(1, 6)],
            pulls=[work("PullRequest", number) for number in range(11, 14)],
            files={
                "README.md": b"hello",
                "docs/a b#.rst": b"docs",
                "docs/deep/c.MARKDOWN": b"deep",
                "main.py": b"code",
                "empty.md": b"",
            },
        )
    )
    double.add(Repository("acme/other"))
    real = module.open_http
    monkeypatch.setattr(
        module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=httpx.MockTransport(double))
    )
    return double


def source(*repositories: str, **settings: Any) -> GitHub:
    chosen: dict[str, Any] = {
        "data_source": "github_cloud",
        "token": TOKEN,
        "repo_type": "organization",
        "org_name": "acme",
        **settings,
    }
    return GitHub(GitHubConfig(repositories=list(repositories) or ["*"], **chosen))


def app(*repositories: str, **settings: Any) -> GitHub:
    return source(*repositories, auth_method="github_app", app_id=7, private_key=PEM, token="", org_name="", **settings)


@attrs.define
class Listed:
    documents: dict[str, Document] = attrs.field(factory=dict)
    failures: list[Failure] = attrs.field(factory=list)
    checkpoints: list[tuple[Any, Any]] = attrs.field(factory=list)
    partitions: list[str] = attrs.field(factory=list)


async def listed(one: GitHub, rules: Any = None) -> Listed:
    result = Listed()
    async with aclosing(one.partitions(rules)) as partitions:
        async for partition in partitions:
            result.partitions.append(partition.key)
            async with aclosing(one.documents(partition)) as pages:
                async for page in pages:
                    for item in page if isinstance(page, list) else [page]:
                        if isinstance(item, Document):
                            assert item.id not in result.documents
                            result.documents[item.id] = item
                        elif isinstance(item, Failure):
                            result.failures.append(item)
                        else:
                            result.checkpoints.append((partition, item.value))
    return result


async def opened(one: GitHub, rules: Any = None) -> Listed:
    async with one.session():
        return await listed(one, rules)


async def test_everything_becomes_documents(github: GitHubDouble) -> None:
    one = source("*")
    async with one.session():
        await one.ping()
        await one.validate()
        found = await listed(one)
        content = found.documents["acme/site/docs/a b#.rst"].content
        assert content is not None
        async with one.fetch(content) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"docs"
    assert found.partitions == ["acme/site", "acme/other"]
    assert not found.failures
    kinds = [document.fields["type"] for document in found.documents.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"Repository": 2, "Pull request": 3, "Issue": 5, "blob": 4}
    repository = found.documents["R_acme/site"]
    assert repository.timestamp == AT
    assert repository.fields["watchers"] == {"totalCount": 2}
    assert not {"id", "updatedAt"} & set(repository.fields)
    file = found.documents["acme/site/docs/deep/c.MARKDOWN"]
    assert file.fields == {
        "name": "c.MARKDOWN",
        "size": 4,
        "type": "blob",
        "path": "docs/deep/c.MARKDOWN",
        "mode": "100644",
        "extension": ".MARKDOWN",
    }
    assert file.timestamp == AT
    assert found.documents["acme/site/empty.md"].content is None
    assert all(document.access is None for document in found.documents.values())


async def test_issues_and_pull_requests_have_the_fields_of_the_reference(github: GitHubDouble) -> None:
    found = await opened(source("site"))
    issue = found.documents["Issue_1"].fields
    assert issue == {
        "type": "Issue",
        "number": 1,
        "url": "https://github.example/Issue/1",
        "createdAt": "2026-01-01T00:00:01Z",
        "closedAt": None,
        "title": "Issue 1",
        "body": "words",
        "state": "OPEN",
        "author": {"login": "ann"},
        "issue_comments": [{"author": {"login": "bob"}, "body": "comment 0"}],
        "labels_field": [{"name": "bug", "description": "broken"}],
        "assignees_list": [{"login": "bob"}],
    }
    pull = found.documents["PullRequest_11"].fields
    assert set(pull) - set(issue) == {"mergedAt", "reviews_comments", "requested_reviewers"}
    assert pull["reviews_comments"] == [
        {"author": "cy", "body": "fine", "state": "APPROVED", "comments": [{"body": "line 0"}]}
    ]
    assert pull["requested_reviewers"] == [{"requestedReviewer": {"login": "dee"}}, {"requestedReviewer": {}}]


async def test_lists_longer_than_a_page_are_read_to_their_end(github: GitHubDouble) -> None:
    github.repositories["acme/site"].pulls[:] = [work("PullRequest", 11, comments=230)]
    found = await opened(source("acme/site"))
    pull = found.documents["PullRequest_11"].fields
    assert [one["body"] for one in pull["issue_comments"]] == [f"comment {at}" for at in range(230)]
    assert [one["body"] for one in pull["reviews_comments"][0]["comments"]] == [f"line {at}" for at in range(230)]


async def test_a_listing_goes_on_from_each_of_its_checkpoints(github: GitHubDouble) -> None:
    github.page_max = 2
    one = source("acme/site")
    async with one.session():
        found = await listed(one)
        ids = list(found.documents)
        assert len(found.checkpoints) == 5
        for partition, value in found.checkpoints:
            rest: list[str] = []
            async with aclosing(one.documents(partition, value)) as pages:
                async for page in pages:
                    rest += [item.id for item in page if isinstance(item, Document)] if isinstance(page, list) else []
            assert rest
            assert rest == ids[-len(rest) :]


async def test_pages_that_are_too_heavy_are_asked_for_in_halves(
    github: GitHubDouble, autojump_clock: MockClock
) -> None:
    github.heaviest_page = 7
    found = await opened(source("acme/site"))
    assert len([one for one in found.documents if one.startswith("Issue_")]) == 5


# Refusals


async def test_a_wrong_token_is_refused(github: GitHubDouble) -> None:
    one = source(token="ghp_bad")
    async with one.session():
        with pytest.raises(CredentialsError) as caught:
            await one.ping()
        assert "ghp_bad" not in str(caught.value)
        with pytest.raises(CredentialsError):
            await listed(one)


@pytest.mark.parametrize(
    ("scopes", "complaint"),
    [
        ("repo", "lacks the scopes user, read:org"),
        ("", "lacks the scopes repo"),
        ("repo, user, admin:org", None),
        (None, None),
    ],
)
async def test_scopes_are_checked_as_far_as_they_are_told(
    github: GitHubDouble, scopes: str | None, complaint: str | None
) -> None:
    github.scopes = scopes
    one = source()
    async with one.session():
        if complaint is None:
            await one.validate()
        else:
            with pytest.raises(ConfigurationError, match=complaint):
                await one.validate()


async def test_a_vanished_repository_fails_and_never_looks_empty(github: GitHubDouble) -> None:
    one = source("acme/site", "acme/gone")
    async with one.session():
        with pytest.raises(ConfigurationError, match=r"acme/gone"):
            await one.validate()
        with pytest.raises(NotFound, match=r"acme/gone"):
            await listed(one)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"data": None, "errors": [{"type": "FORBIDDEN", "message": "no"}]}),
        httpx.Response(
            200,
            json={
                "data": {"repository": None},
                "errors": [{"type": "FORBIDDEN", "path": ["repository"], "message": "no"}],
            },
        ),
        httpx.Response(200, json={"data": {"repository": None}}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(400, json={"message": "no"}),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_errors_in_any_answer_raise(github: GitHubDouble, answer: httpx.Response, before: int) -> None:
    github.answers = [None] * before + [answer]
    with pytest.raises(SourceError):
        await opened(source("acme/site"))


async def test_one_broken_issue_is_a_failure_and_the_rest_goes_on(github: GitHubDouble) -> None:
    def refuse(info: Any, **_: Any) -> Any:
        raise Refusal("FORBIDDEN", "you may not see these labels")

    github.repositories["acme/site"].issues[2]["labels"] = refuse
    github.repositories["acme/site"].issues[3]["author"] = {"login": None}
    found = await opened(source("acme/site"))
    by_id = {failure.document_id: failure for failure in found.failures}
    assert by_id["Issue_3"].scope == "item"
    assert "these labels" in by_id["Issue_3"].cause
    assert "Issue_5" in found.documents
    assert "Issue_3" not in found.documents


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(403, headers={"x-ratelimit-remaining": "0", "retry-after": "100"}),
        httpx.Response(403, headers={"x-ratelimit-remaining": "77", "retry-after": "100"}),
        httpx.Response(429, headers={"retry-after": "100"}),
        httpx.Response(
            200,
            headers={"retry-after": "100"},
            json={"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]},
        ),
    ],
)
async def test_limits_are_waited_for(github: GitHubDouble, refusal: httpx.Response, autojump_clock: MockClock) -> None:
    github.answers = [None, refusal]
    before_s = trio.current_time()
    found = await opened(source("acme/site"))
    assert len(found.documents) == 13
    assert 100 <= trio.current_time() - before_s < 130


async def test_a_secondary_limit_without_a_time_is_waited_for(github: GitHubDouble, autojump_clock: MockClock) -> None:
    github.rest_answers = [httpx.Response(403, json={"message": "You have exceeded a secondary rate limit."})]
    before_s = trio.current_time()
    found = await opened(source("acme/site"))
    assert len(found.documents) == 13
    assert 60 <= trio.current_time() - before_s < 90


async def test_a_limit_that_does_not_end_is_an_error(github: GitHubDouble, autojump_clock: MockClock) -> None:
    github.answers = [httpx.Response(403, headers={"x-ratelimit-remaining": "0", "retry-after": "1"})] * 50
    with pytest.raises(Throttled):
        await opened(source("acme/site"))


async def test_a_plain_403_is_not_a_limit(github: GitHubDouble) -> None:
    github.rest_answers = [httpx.Response(403, json={"message": "Resource protected by SAML"})]
    with pytest.raises(PermissionDenied, match="SAML"):
        await opened(source("acme/site"))


def test_errors_inside_answers_have_a_class() -> None:
    assert isinstance(graphql_error({"type": "NOT_FOUND", "message": "x"}), NotFound)
    assert isinstance(graphql_error({"type": "INSUFFICIENT_SCOPES", "message": "x"}), PermissionDenied)
    assert isinstance(graphql_error({"type": "NEW", "message": "x"}), UnexpectedAnswer)
    assert graphql_error({"message": "Something went wrong while executing your query"}).retriable


# Apps and Enterprise Server


async def test_an_app_uses_each_owners_own_token(github: GitHubDouble) -> None:
    github.add(Repository("rival/secret", visibility="PRIVATE", files={"x.md": b"rival"}))
    github.repositories["acme/site"].visibility = "PRIVATE"
    github.installations = {"acme": "Organization", "somebody": "User", "rival": "Organization"}
    one = app("*")
    async with one.session():
        await one.validate()
        found = await listed(one)
        # Downloads of one owner work while another's listing was the last.
        for wanted in ("acme/site/README.md", "rival/secret/x.md"):
            content = found.documents[wanted].content
            assert content is not None
            async with one.fetch(content) as chunks:
                assert b"".join([chunk async for chunk in chunks]) in (b"hello", b"rival")
    assert found.partitions == ["acme/site", "acme/other", "rival/secret"]
    assert github.tokens_given == 2, "one token for each owner"


async def test_a_token_that_expires_is_fetched_anew(github: GitHubDouble) -> None:
    github.installations = {"acme": "Organization"}
    github.token_lasts = "2020-01-01T00:00:00Z"
    one = app("acme/site")
    async with one.session():
        assert len((await listed(one)).documents) == 13
    assert github.tokens_given >= 1


async def test_an_app_that_is_not_installed_says_so(github: GitHubDouble) -> None:
    github.installations = {"acme": "Organization"}
    with pytest.raises(NotFound, match="not installed at 'rival'"):
        await opened(app("rival/secret"))


@pytest.mark.parametrize("make", [source, app])
async def test_an_enterprise_server_has_its_own_addresses(github: GitHubDouble, make: Any) -> None:
    github.rest, github.graphql = "https://git.example/api/v3", "https://git.example/api/graphql"
    github.installations = {"acme": "Organization"}
    one = make("acme/site", data_source="github_server", host="https://git.example/")
    async with one.session():
        await one.validate()
        assert len((await listed(one)).documents) == 13
    assert {request.url.host for request in github.asked} == {"git.example"}


# Files


async def test_a_truncated_tree_is_read_folder_by_folder(github: GitHubDouble) -> None:
    github.repositories["acme/site"].truncated = True
    found = await opened(source("acme/site"))
    files = {key for key, one in found.documents.items() if one.fields["type"] == "blob"}
    assert files == {f"acme/site/{path}" for path in ("README.md", "docs/a b#.rst", "docs/deep/c.MARKDOWN", "empty.md")}


async def test_a_repository_without_commits_has_no_files(github: GitHubDouble) -> None:
    github.repositories["acme/site"].default_branch = None
    found = await opened(source("acme/site"))
    assert not [one for one in found.documents.values() if one.fields["type"] == "blob"]


# Rules


async def test_rules_choose_documents(github: GitHubDouble) -> None:
    github.repositories["acme/site"].issues[0]["state"] = "CLOSED"
    rules = [
        {"repository": "site", "filter": {"issue": "is:open", "path": "docs"}},
        {"repository": "site", "filter": {"issue": "is:open words", "pr": "is:issue", "branch": "feature/x y"}},
    ]
    one = source("*")
    async with one.session():
        assert not await one.validate_rules(rules)
        found = await listed(one, rules)
    assert {key for key in found.documents if key.startswith("Issue")} == {f"Issue_{at}" for at in range(2, 6)}
    assert not [key for key in found.documents if key.startswith("Pull")]
    assert found.documents["acme/site/docs/a b#.rst"].fields["type"] == "file"
    assert "acme/site/README.md" in found.documents
    assert any("/git/trees/feature%2Fx%20y" in str(request.url) for request in github.asked)


async def test_a_path_may_name_one_file(github: GitHubDouble) -> None:
    found = await opened(source("*"), [{"repository": "acme/site", "filter": {"path": "docs/a b#.rst"}}])
    assert set(found.documents) == {"R_acme/site", "acme/site/docs/a b#.rst"}


async def test_a_search_with_more_hits_than_github_gives_is_split(github: GitHubDouble) -> None:
    github.repositories["acme/site"].issues[:] = [work("Issue", number) for number in range(1500)]
    found = await opened(source("*"), [{"repository": "acme/site", "filter": {"issue": "words"}}])
    assert len(found.documents) == 1501


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ("x", "a list"),
        ([1], "Rule 1 must be an object"),
        ([{"repository": "", "filter": {"pr": "x"}}], "must name"),
        ([{"repository": "a", "filter": {}}], "filter of rule 1"),
        ([{"repository": "a", "filter": {"tag": "x"}}], "'tag'"),
        ([{"repository": "a", "filter": {"pr": ""}}], "not empty"),
    ],
)
def test_rules_of_a_wrong_form_are_named(rules: Any, complaint: str) -> None:
    assert any(complaint in problem.message for problem in rule_problems(rules))


async def test_rules_about_what_is_not_there_are_named(github: GitHubDouble) -> None:
    one = source("*")
    async with one.session():
        problems = await one.validate_rules([{"repository": "acme/gone", "filter": {"pr": "x"}}])
    assert "acme/gone" in problems[0].message


def test_a_search_is_about_one_kind() -> None:
    assert search_text("a/b", "pr", "is:merged") == "repo:a/b is:pr is:merged"
    assert search_text("a/b", "issue", "is:issue x") == "repo:a/b is:issue x"
    assert search_text("a/b", "issue", "is:pr x") is None


# Who may see what


def secured(github: GitHubDouble) -> None:
    site = github.repositories["acme/site"]
    site.visibility = "PRIVATE"
    site.collaborators = [user("bob", "bob@x"), user("stranger")]
    github.members["acme"] = [user("ann"), user("bob"), user("cy")]


async def people(one: GitHub) -> dict[str, Identity]:
    async with aclosing(one.identities()) as identities:
        return {each.id: each async for each in identities if isinstance(each, Identity)}


def seen(identity: Identity, documents: dict[str, Document]) -> set[str]:
    """What the query in the identity's document lets through."""
    assert identity.document is not None
    carried = identity.document["query"]["template"]["params"]["access_control"]
    return {
        key
        for key, one in documents.items()
        if allows({} if one.access is None else {ALLOW_ACCESS_CONTROL: one.access or [NOBODY]}, carried)
    }


@pytest.mark.parametrize(
    "rules",
    [None, [{"repository": "acme/site", "filter": {"issue": "x", "pr": "x", "branch": "main", "path": "docs"}}]],
)
async def test_members_who_collaborate_see_a_private_repository(github: GitHubDouble, rules: Any) -> None:
    secured(github)
    one = source("acme/site", use_document_level_security=True)
    async with one.session():
        found, who = await listed(one, rules), await people(one)
    assert set(who) == {"U_ann", "U_bob", "U_cy"}
    assert who["U_bob"].access == ["user_id:U_bob", "username:bob"]
    assert who["U_bob"].fields["email"] == "email:"
    assert who["U_bob"].document is not None
    assert who["U_bob"].document["created_at"].startswith("2026-01-02T03:04:05")
    assert len(found.documents) > 10
    assert {tuple(document.access or ()) for document in found.documents.values()} == {
        ("email:bob@x", "user_id:U_bob", "username:bob")
    }
    assert seen(who["U_bob"], found.documents) == set(found.documents)
    assert not seen(who["U_ann"], found.documents)


async def test_a_revoked_right_is_gone_with_the_next_sync(github: GitHubDouble) -> None:
    secured(github)
    github.repositories["acme/site"].collaborators = []
    one = source("*", use_document_level_security=True)
    async with one.session():
        found, who = await listed(one), await people(one)
    assert seen(who["U_bob"], found.documents) == {"R_acme/other"}, "only the public repository is left"


@pytest.mark.parametrize("kind", ["FORBIDDEN", "NOT_FOUND", "INSUFFICIENT_SCOPES"])
@pytest.mark.parametrize("call", ["collaborators", "members"])
async def test_readers_that_github_does_not_tell_are_nobody(github: GitHubDouble, kind: str, call: str) -> None:
    secured(github)
    if call == "collaborators":
        github.repositories["acme/site"].collaborators = Refusal(
            kind, "You do not have permission to view collaborators"
        )
    else:
        github.members["acme"] = Refusal(kind, "You do not have permission to view members")
    found = await opened(source("acme/site", use_document_level_security=True))
    assert {tuple(document.access or ()) for document in found.documents.values()} == {(NOBODY,)}


# Settings


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"repositories": "a/b/c"}, "a/b/c"),
        ({"data_source": "github_server", "host": "http://plain"}, "host"),
        ({"auth_method": "github_app", "app_id": 7, "private_key": PEM, "repositories": "site"}, "owner/name"),
        ({"auth_method": "github_app", "app_id": 7, "private_key": "x", "repositories": "a/site"}, "PEM"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], complaint: str) -> None:
    stored = {"data_source": "github_cloud", "token": TOKEN, "repositories": "*", **settings}
    with pytest.raises(InvalidConfiguration, match=complaint):
        read_configuration(GitHubConfig, {name: {"value": value} for name, value in stored.items()})


class TestGitHubKeepsTheRules(SourceConformance):
    @pytest.fixture
    def subject(self, github: GitHubDouble) -> Subject:
        github.page_max = 2
        github.repositories["acme/site"].pulls[0]["comments"] = connection([{"author": None, "body": "x"}], 1)
        return Subject(
            lambda: source("acme/site", "acme/other"),
            refused=lambda: source("acme/site", token="ghp_secret"),
            secrets=("ghp_secret", TOKEN),
        )
