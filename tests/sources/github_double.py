"""A GitHub that refuses what GitHub refuses: a GraphQL engine over the types the source uses, the REST addresses, tokens, limits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import attrs
import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from graphql import build_schema, graphql_sync

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
).decode()
TOKEN = "ghp_good"
AT = "2026-01-02T03:04:05Z"


def _pages(name: str, node: str) -> str:
    return f"type {name} {{ nodes: [{node}] pageInfo: PageInfo! totalCount: Int! }}\n"


_ARGS = "(first: Int, after: String)"
_WORK = f"""
  id: ID! number: Int! url: String! createdAt: String! closedAt: String updatedAt: String! title: String! body: String!
  author: User labels{_ARGS}: Labels assignees{_ARGS}: Users! comments{_ARGS}: Comments!
"""
SCHEMA = build_schema(
    f"""
type Query {{
  viewer: User!
  user(login: String!): User
  organization(login: String!): Organization
  repository(owner: String!, name: String!): Repository
  node(id: ID!): Node
  search(query: String!, type: SearchType!, first: Int, after: String): Found!
}}
enum SearchType {{ ISSUE }}
enum IssueState {{ OPEN CLOSED }}
enum PullRequestState {{ OPEN CLOSED MERGED }}
type PageInfo {{ hasNextPage: Boolean! endCursor: String }}
interface Node {{ id: ID! }}
type User implements Node {{ id: ID! login: String! name: String email: String! updatedAt: String! repositories{_ARGS}: Repositories! }}
type Bot {{ login: String! }}
type Mannequin {{ login: String! }}
type Team {{ slug: String! }}
union RequestedReviewer = Bot | Mannequin | Team | User
type Organization {{ repositories{_ARGS}: Repositories! membersWithRole{_ARGS}: Users! }}
type Language {{ name: String! }}
type Ref {{ name: String! }}
type Watchers {{ totalCount: Int! }}
type Repository {{
  id: ID! updatedAt: String! name: String! nameWithOwner: String! url: String! description: String visibility: String!
  primaryLanguage: Language defaultBranchRef: Ref isFork: Boolean! stargazerCount: Int! watchers: Watchers! forkCount: Int!
  createdAt: String! isArchived: Boolean! collaborators{_ARGS}: Users pullRequests{_ARGS}: PullRequests! issues{_ARGS}: Issues!
  object(expression: String): Commit
}}
type Commit {{ committedDate: String! history(first: Int, path: String): Commits! }}
type Label {{ name: String! description: String }}
type Comment {{ author: User body: String! }}
type ReviewRequest {{ requestedReviewer: RequestedReviewer }}
type PullRequestReview implements Node {{ id: ID! author: User body: String! state: String! comments{_ARGS}: Comments! }}
type Issue implements Node {{ {_WORK} state: IssueState! }}
type PullRequest implements Node {{
  {_WORK} state: PullRequestState! mergedAt: String reviews{_ARGS}: Reviews reviewRequests{_ARGS}: ReviewRequests
}}
union Hit = Issue | PullRequest
type Found {{ issueCount: Int! nodes: [Hit] pageInfo: PageInfo! }}
"""
    + _pages("Users", "User")
    + _pages("Repositories", "Repository")
    + _pages("PullRequests", "PullRequest")
    + _pages("Issues", "Issue")
    + _pages("Labels", "Label")
    + _pages("Comments", "Comment")
    + _pages("Reviews", "PullRequestReview")
    + _pages("ReviewRequests", "ReviewRequest")
    + _pages("Commits", "Commit")
)


class Refusal(Exception):
    """An error inside an answer, with its type."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def connection(items: list[Any], size_max: int = 100) -> Callable[..., dict[str, Any]]:
    """A list that is given out in pages of at most `size_max`, as its callers find it at each call."""

    def give(info: Any, first: int | None = None, after: str | None = None) -> dict[str, Any]:
        if first is None or not 1 <= first <= 100:
            raise Refusal("EXCESSIVE_PAGINATION", "Requesting too many records on a connection.")
        at = int(after.removeprefix("cursor")) if after else 0
        end = at + min(first, size_max)
        return {
            "nodes": items[at:end],
            "totalCount": len(items),
            "pageInfo": {"hasNextPage": end < len(items), "endCursor": f"cursor{end}" if items[at:end] else None},
        }

    return give


def user(login: str, email: str = "") -> dict[str, Any]:
    return {"__typename": "User", "id": f"U_{login}", "login": login, "name": login, "email": email, "updatedAt": AT}


def work(kind: str, number: int, *, comments: int = 1, state: str = "OPEN") -> dict[str, Any]:
    node = {
        "__typename": kind,
        "id": f"{kind}_{number}",
        "number": number,
        "url": f"https://github.example/{kind}/{number}",
        "createdAt": f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}Z",
        "closedAt": None,
        "updatedAt": AT,
        "title": f"{kind} {number}",
        "body": "words",
        "author": user("ann"),
        "state": state,
        "labels": connection([{"name": "bug", "description": "broken"}]),
        "assignees": connection([user("bob")]),
        "comments": connection([{"author": user("bob"), "body": f"comment {at}"} for at in range(comments)]),
    }
    if kind == "PullRequest":
        review = {
            "__typename": "PullRequestReview",
            "id": f"R_{number}",
            "author": user("cy"),
            "body": "fine",
            "state": "APPROVED",
            "comments": connection([{"body": f"line {at}"} for at in range(comments)]),
        }
        node |= {
            "mergedAt": None,
            "reviews": connection([review]),
            "reviewRequests": connection(
                [{"requestedReviewer": user("dee")}, {"requestedReviewer": {"__typename": "Team", "slug": "eng"}}]
            ),
        }
    return node


@attrs.define
class Repository:
    full_name: str
    visibility: str = "PUBLIC"
    issues: list[Any] = attrs.field(factory=list)
    pulls: list[Any] = attrs.field(factory=list)
    files: dict[str, bytes] = attrs.field(factory=dict)
    collaborators: list[Any] | Refusal = attrs.field(factory=list)
    default_branch: str | None = "main"
    truncated: bool = False


@attrs.define
class GitHubDouble:
    """Answers as github.com does, or as an Enterprise Server does at `host`."""

    repositories: dict[str, Repository] = attrs.field(factory=dict)
    members: dict[str, list[Any] | Refusal] = attrs.field(factory=dict)
    installations: dict[str, str] = attrs.field(factory=dict)
    scopes: str | None = "repo, user, read:org"
    rest: str = "https://api.github.com"
    graphql: str = "https://api.github.com/graphql"
    page_max: int = 100
    heaviest_page: int = 100
    token_lasts: str = "2099-01-01T00:00:00Z"
    answers: list[httpx.Response | None] = attrs.field(factory=list)
    """Given to the next GraphQL queries instead of the right ones; None lets one through."""
    rest_answers: list[httpx.Response] = attrs.field(factory=list)
    asked: list[httpx.Request] = attrs.field(factory=list)
    tokens_given: int = 0
    hits_max: int = 1000

    def add(self, repository: Repository) -> Repository:
        self.repositories[repository.full_name] = repository
        return repository

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        address = str(request.url.copy_with(query=None))
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if address.startswith(f"{self.rest}/app"):
            return self._app(request, address.removeprefix(self.rest), bearer)
        installed = bearer.removeprefix("ghs_") if bearer.startswith("ghs_") else None
        if bearer != TOKEN and (installed is None or installed.split(".")[0] not in self.installations):
            return httpx.Response(401, json={"message": "Bad credentials"})
        owner = installed.split(".")[0] if installed else None
        if address == self.graphql:
            return self._graphql(request, owner)
        if address.startswith(f"{self.rest}/repos/"):
            if self.rest_answers:
                return self.rest_answers.pop(0)
            raw = request.url.raw_path.decode().partition("?")[0]
            return self._files(request, raw.partition("/repos/")[2], owner)
        return httpx.Response(404, json={"message": "Not Found"})

    def _app(self, request: httpx.Request, path: str, bearer: str) -> httpx.Response:
        try:
            claims = jwt.decode(bearer, PRIVATE.public_key(), algorithms=["RS256"], options={"verify_exp": False})
        except jwt.PyJWTError:
            return httpx.Response(401, json={"message": "A JSON web token could not be decoded"})
        if claims["iss"] != "7" or claims["exp"] - claims["iat"] > 600:
            return httpx.Response(401, json={"message": "'Expiration time' claim is too far in the future"})
        if path == "/app":
            return httpx.Response(200, json={"id": 7})
        if path == "/app/installations":
            at = int(request.url.params.get("page", 1))
            owners = list(self.installations)
            one = {"id": at, "account": {"login": owners[at - 1], "type": self.installations[owners[at - 1]]}}
            more = {"link": f'<{self.rest}/app/installations?page={at + 1}>; rel="next"'} if at < len(owners) else {}
            return httpx.Response(200, json=[one], headers=more)
        found = re.fullmatch(r"/app/installations/(\d+)/access_tokens", path)
        assert found is not None
        assert request.method == "POST"
        self.tokens_given += 1
        owner = list(self.installations)[int(found[1]) - 1]
        return httpx.Response(201, json={"token": f"ghs_{owner}.{self.tokens_given}", "expires_at": self.token_lasts})

    # GraphQL

    def _graphql(self, request: httpx.Request, owner: str | None) -> httpx.Response:
        told = {} if self.scopes is None or owner else {"x-oauth-scopes": self.scopes}
        if request.method == "HEAD":
            return httpx.Response(200, headers=told)
        if self.answers and (prepared := self.answers.pop(0)) is not None:
            return prepared
        sent = json.loads(request.content)
        if (sent["variables"].get("size") or 0) > self.heaviest_page:
            return httpx.Response(502, json={"message": "Something went wrong"})
        result = graphql_sync(SCHEMA, sent["query"], root_value=self._root(owner), variable_values=sent["variables"])
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [_written(error) for error in result.errors]
        return httpx.Response(200, json=answer)

    def _root(self, owner: str | None) -> dict[str, Any]:
        def repository(info: Any, owner: str, name: str) -> dict[str, Any]:
            wanted = f"{owner}/{name}"
            found = next((one for key, one in self.repositories.items() if key.lower() == wanted.lower()), None)
            if found is None or not visible(found):
                raise Refusal("NOT_FOUND", f"Could not resolve to a Repository with the name '{wanted}'.")
            return self._repository(found)

        def visible(one: Repository) -> bool:
            return owner is None or one.visibility == "PUBLIC" or one.full_name.startswith(f"{owner}/")

        def owned(info: Any, login: str) -> dict[str, Any]:
            mine = [one for one in self.repositories.values() if one.full_name.startswith(f"{login}/") and visible(one)]
            members = self.members.get(login, [])
            return {
                **user(login),
                "repositories": connection([self._repository(one) for one in mine], self.page_max),
                "membersWithRole": self._people(members),
            }

        def search(info: Any, query: str, type: str, first: int, after: str | None = None) -> dict[str, Any]:  # noqa: A002
            return self._search(query, first, after)

        return {
            "viewer": user("ann"),
            "user": owned,
            "organization": owned,
            "repository": repository,
            "node": lambda info, **asked: self._node(asked["id"]),
            "search": search,
        }

    def _people(self, people: list[Any] | Refusal) -> Callable[..., Any]:
        if isinstance(people, Refusal):

            def refuse(info: Any, **_: Any) -> Any:
                raise people

            return refuse
        return connection(people, self.page_max)

    def _repository(self, one: Repository) -> dict[str, Any]:
        def commits(info: Any, first: int, path: str) -> dict[str, Any]:
            return {"nodes": [{"committedDate": AT}] if path in one.files else []}

        return {
            "id": f"R_{one.full_name}",
            "updatedAt": AT,
            "name": one.full_name.partition("/")[2],
            "nameWithOwner": one.full_name,
            "url": f"https://github.example/{one.full_name}",
            "description": "a place",
            "visibility": one.visibility,
            "primaryLanguage": {"name": "Python"},
            "defaultBranchRef": {"name": one.default_branch} if one.default_branch else None,
            "isFork": False,
            "stargazerCount": 1,
            "watchers": {"totalCount": 2},
            "forkCount": 3,
            "createdAt": "2026-01-01T00:00:00Z",
            "isArchived": False,
            "collaborators": self._people(one.collaborators),
            "pullRequests": connection(one.pulls, self.page_max),
            "issues": connection(one.issues, self.page_max),
            "object": lambda info, expression: {"__typename": "Commit", "committedDate": AT, "history": commits},
        }

    def _node(self, wanted: str) -> Any:
        for repository in self.repositories.values():
            for node in [*repository.issues, *repository.pulls]:
                if isinstance(node, dict) and node["id"] == wanted:
                    return node
                if isinstance(node, dict) and wanted == f"R_{node['number']}" and "reviews" in node:
                    return node["reviews"](None, 1)["nodes"][0]
        raise Refusal("NOT_FOUND", f"Could not resolve to a node with the global id of '{wanted}'")

    def _search(self, query: str, first: int, after: str | None) -> dict[str, Any]:
        words = query.split()
        repository = self.repositories[next(word for word in words if word.startswith("repo:")).removeprefix("repo:")]
        hits = list(repository.pulls if "is:pr" in words else repository.issues)
        if "is:open" in words:
            hits = [hit for hit in hits if hit["state"] == "OPEN"]
        if span := next((word for word in words if word.startswith("created:")), None):
            begin, end = span.removeprefix("created:").split("..")
            hits = [hit for hit in hits if begin <= hit["createdAt"] <= end]
        page = connection(hits[: self.hits_max], self.page_max)(None, first, after)
        return {**page, "issueCount": len(hits)}

    # Files

    def _files(self, request: httpx.Request, path: str, owner: str | None) -> httpx.Response:
        account, name, *rest = [str(httpx.URL(f"http://x/{part}").path)[1:] for part in path.split("/")]
        repository = self.repositories.get(f"{account}/{name}")
        if repository is None or (owner not in (None, account) and repository.visibility != "PUBLIC"):
            return httpx.Response(404, json={"message": "Not Found"})
        if rest[:2] == ["git", "blobs"]:
            assert request.headers["accept"] == "application/vnd.github.raw+json"
            return httpx.Response(200, content=repository.files[rest[2].removeprefix("sha:")])
        if rest[0] == "contents":
            return self._contents(repository, "/".join(rest[1:]))
        assert rest[:2] == ["git", "trees"]
        folder = rest[2].removeprefix("tree:") if rest[2].startswith("tree:") else ""
        inside = {path.removeprefix(folder): body for path, body in repository.files.items() if path.startswith(folder)}
        recursive = request.url.params.get("recursive") == "1"
        if recursive and repository.truncated and not folder:
            return httpx.Response(200, json={"tree": [], "truncated": True})
        entries = [_blob(path, folder, body) for path, body in inside.items() if recursive or "/" not in path]
        folders = dict.fromkeys(path.partition("/")[0] for path in inside if "/" in path)
        entries += [{"path": one, "type": "tree", "sha": f"tree:{folder}{one}/", "mode": "040000"} for one in folders]
        return httpx.Response(200, json={"tree": entries, "truncated": False})

    def _contents(self, repository: Repository, path: str) -> httpx.Response:
        if path in repository.files:
            one = {key: value for key, value in _blob(path, "", repository.files[path]).items() if key != "mode"}
            return httpx.Response(200, json={**one, "type": "file"})
        found = [
            {"type": "file", "path": one, "name": one, "size": len(body), "sha": f"sha:{one}"}
            for one, body in repository.files.items()
            if one.rpartition("/")[0] == path
        ]
        return httpx.Response(200, json=found) if found else httpx.Response(404, json={"message": "Not Found"})


def _blob(path: str, folder: str, body: bytes) -> dict[str, Any]:
    return {"path": path, "type": "blob", "mode": "100644", "size": len(body), "sha": f"sha:{folder}{path}"}


def _written(error: Any) -> dict[str, Any]:
    kind = error.original_error.kind if isinstance(error.original_error, Refusal) else None
    written = {"message": error.message, **({"path": error.path} if error.path else {})}
    return written | ({"type": kind} if kind else {})
