"""The source: repositories as partitions, each listed as itself, its pull requests, its issues and its files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

import trio

from ...protocol.access import identity_document
from ...runtime import now
from ..errors import ConfigurationError, CredentialsError, NotFound, PermissionDenied, UnexpectedAnswer
from ..permissions import EVERYBODY, UNKNOWN, Readers
from ..source import (
    JSON,
    AdvancedRulesProblem,
    Checkpoint,
    ContentRef,
    Document,
    Failure,
    Features,
    Identity,
    Item,
    Listing,
    Partition,
    Source,
)
from . import queries
from .client import GitHubClient
from .files import Files
from .mapping import LISTS, file_document, identity, readers_among, repository_document, work_document
from .settings import GitHubConfig, filters_by_repository, rule_problems, search_text

PAGE: Final = 100
WORK_PAGE: Final = 25
"""Issues and pull requests with all they hold; GitHub gives up on heavier pages."""
LOOKED_UP_AT_ONCE: Final = 15
SEARCH_HITS_MAX: Final = 1000
"""After so many hits GitHub ends a search without a word."""
_SCOPES: Final = ("repo", "user", "read:org")
_STAGES: Final = {
    "pull_requests": (queries.PULL_REQUESTS, ["repository", "pullRequests"]),
    "issues": (queries.ISSUES, ["repository", "issues"]),
    "files": None,
}


class GitHub(Source[GitHubConfig]):
    """Repositories, issues, pull requests and text files."""

    service_type: ClassVar[str] = "github"
    name: ClassVar[str] = "GitHub"
    Config = GitHubConfig
    features = Features(advanced_rules=True, incremental="skip_unchanged", document_level_security=True, resumable=True)

    def __init__(self, config: GitHubConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self._client: GitHubClient | None = None
        self._members: dict[str, Readers] = {}
        self._members_turn = trio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            self._client = GitHubClient(self.config, stack)
            stack.callback(self._forget)
            yield

    def _forget(self) -> None:
        self._client = None
        self._members.clear()

    @property
    def _github(self) -> GitHubClient:
        assert self._client is not None, "the session of the source is not open"
        return self._client

    @property
    def _is_secured(self) -> bool:
        return self.config.use_document_level_security and self.config.is_organization

    # Checks

    async def ping(self) -> None:
        if self.config.is_app:
            await self._github.check_app()
        else:
            await self._github.login()

    async def validate(self) -> None:
        """Check the token's scopes, as far as GitHub tells them, and that every named repository can be read."""
        await self.ping()
        if not self.config.is_app:
            self._check_scopes(await self._github.scopes())
        if self.config.takes_all:
            for owner in await self._github.owners():
                await self._first_repositories(owner)
        elif missing := await self._missing(self.config.repositories):
            raise ConfigurationError(
                f"GitHub has no repositories {', '.join(missing)}, or does not show them. Check names and permissions."
            )

    def _check_scopes(self, scopes: set[str] | None) -> None:
        if scopes is None:
            # A fine-grained token. What it lacks shows in the calls themselves.
            return
        held = scopes | ({"read:org"} if scopes & {"write:org", "admin:org"} else set())
        if missing := [scope for scope in _SCOPES if scope not in held]:
            raise ConfigurationError(
                f"The GitHub token lacks the scopes {', '.join(missing)}. Make one with {', '.join(_SCOPES)}."
            )
        if more := sorted(held - {*_SCOPES, "write:org", "admin:org"}):
            self.log.warning("the GitHub token may do more than is needed", scopes=more)

    async def _first_repositories(self, owner: str) -> None:
        async with aclosing(self._repositories_of(owner, size=1)) as found:
            async for _ in found:
                break

    async def _missing(self, names: Sequence[str]) -> list[str]:
        """Which of the repositories cannot be read."""
        missing: list[str] = []
        by_owner: dict[str, list[tuple[str, str]]] = {}
        for written in dict.fromkeys(names):
            owner, name = await self._split(written)
            by_owner.setdefault(owner, []).append((written, name))
        for owner, wanted in by_owner.items():
            for at in range(0, len(wanted), LOOKED_UP_AT_ONCE):
                missing += await self._missing_of(owner, wanted[at : at + LOOKED_UP_AT_ONCE])
        return missing

    async def _missing_of(self, owner: str, wanted: Sequence[tuple[str, str]]) -> list[str]:
        variables: dict[str, str] = {}
        for at, (_, name) in enumerate(wanted):
            variables |= {f"owner{at}": owner, f"name{at}": name}
        try:
            answer = await self._github.query_partly(owner, queries.repositories_exist(len(wanted)), variables)
        except NotFound:
            # The App is not installed at this owner.
            return [written for written, _ in wanted]
        return [written for at, (written, _) in enumerate(wanted) if not answer.data.get(f"repo{at}")]

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        problems = list(rule_problems(rules))
        if problems or not rules:
            return problems
        missing = await self._missing(list(filters_by_repository(rules)))
        return [AdvancedRulesProblem(f"GitHub shows no repositories {', '.join(missing)}.")] if missing else []

    # Listing

    async def _split(self, written: str) -> tuple[str, str]:
        owner, slash, name = written.partition("/")
        if slash:
            return owner, name
        return (self.config.org_name if self.config.is_organization else await self._github.login()), written

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if rules:
            for written, filters in filters_by_repository(rules).items():
                yield Partition("/".join(await self._split(written)), {"filters": filters})
            return
        seen: set[str] = set()
        if not self.config.takes_all:
            for written in self.config.repositories:
                full_name = "/".join(await self._split(written))
                if full_name.lower() not in seen:
                    seen.add(full_name.lower())
                    yield Partition(full_name)
            return
        for owner in await self._github.owners():
            async with aclosing(self._repositories_of(owner)) as found:
                async for full_name in found:
                    if full_name.lower() not in seen:
                        seen.add(full_name.lower())
                        yield Partition(full_name, {"through": owner})

    async def _repositories_of(self, owner: str, size: int = PAGE) -> AsyncGenerator[str, None]:
        kind = "organization" if self.config.is_organization else "user"
        text = queries.ORGANIZATION_REPOSITORIES if self.config.is_organization else queries.USER_REPOSITORIES
        pages = self._github.pages(owner, text, {"login": owner}, [kind, "repositories"], size=size)
        async with aclosing(pages) as opened:
            async for page, damaged, _ in opened:
                if damaged:
                    raise PermissionDenied(
                        f"GitHub does not name all repositories of {owner}: {next(iter(damaged.values()))}"
                    )
                for node in page["nodes"]:
                    yield str(node["nameWithOwner"])

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        written_owner, _, written_name = partition.key.partition("/")
        through = str(partition.data.get("through") or written_owner)
        found = await self._github.query(through, queries.REPOSITORY, {"owner": written_owner, "name": written_name})
        repository = found.get("repository")
        if not repository:
            raise NotFound(f"GitHub has no repository {partition.key}, or does not show it.")
        access = (await self._readers(through, repository)).access()
        if checkpoint is None:
            yield repository_document(repository, access)
        if partition.data.get("filters"):
            async with aclosing(self._by_rules(through, repository, partition.data["filters"], access)) as items:
                async for some in items:
                    yield some
            return
        start = checkpoint or {"stage": "pull_requests", "after": None}
        stages = list(_STAGES)
        for stage in stages[stages.index(start["stage"]) :]:
            after = start["after"] if stage == start["stage"] else None
            if stage == "files":
                branch = (repository.get("defaultBranchRef") or {}).get("name")
                listing = self._branch_files(through, repository, branch, access)
            else:
                listing = self._stage(through, repository, stage, after, access)
            async with aclosing(listing) as items:
                async for some in items:
                    yield some

    async def _stage(
        self, through: str, repository: Mapping[str, Any], stage: str, after: str | None, access: list[str] | None
    ) -> Listing:
        text, place = _STAGES[stage] or ("", [])
        pages = self._github.pages(through, text, _named(repository), place, size=WORK_PAGE, after=after)
        async with aclosing(pages) as opened:
            async for page, damaged, following in opened:
                yield await self._work(through, repository, page, damaged, access)
                if following is not None:
                    yield Checkpoint({"stage": stage, "after": following})
        stages = list(_STAGES)
        yield Checkpoint({"stage": stages[stages.index(stage) + 1], "after": None})

    async def _work(
        self,
        through: str,
        repository: Mapping[str, Any],
        page: Mapping[str, Any],
        damaged: Mapping[int, str],
        access: list[str] | None,
    ) -> list[Item]:
        items: list[Item] = []
        for at, node in enumerate(page["nodes"]):
            if not node or "id" not in node:
                why = damaged.get(at, "GitHub shows nothing of it.")
                items.append(Failure("container", f"an issue or pull request of {repository['nameWithOwner']}", why))
                continue
            try:
                if at in damaged:
                    raise UnexpectedAnswer(damaged[at])
                items.append(work_document(await self._completed(through, node), access))
            except (NotFound, PermissionDenied, UnexpectedAnswer) as error:
                self.log.warning("an issue or pull request could not be read", url=node.get("url"), cause=str(error))
                items.append(Failure("item", str(node.get("url") or node["id"]), str(error), document_id=node["id"]))
        return items

    async def _completed(self, through: str, node: dict[str, Any]) -> dict[str, Any]:
        """Read the rest of those lists that did not fit into the page."""
        for connection in LISTS:
            if node.get(connection):
                await self._complete(through, node["__typename"], node["id"], connection, node[connection])
        for review in (node.get("reviews") or {}).get("nodes") or ():
            await self._complete(through, "PullRequestReview", review["id"], "comments", review["comments"])
        return node

    async def _complete(
        self, through: str, typename: str, node_id: str, connection: str, so_far: dict[str, Any]
    ) -> None:
        info = so_far["pageInfo"]
        if not info["hasNextPage"]:
            return
        pages = self._github.pages(
            through,
            queries.rest_of(typename, connection),
            {"id": node_id},
            ["node", connection],
            size=PAGE,
            after=info["endCursor"],
        )
        async with aclosing(pages) as opened:
            async for page, damaged, _ in opened:
                if damaged:
                    raise UnexpectedAnswer(next(iter(damaged.values())))
                so_far["nodes"] += page["nodes"]

    # Files

    async def _branch_files(
        self, through: str, repository: Mapping[str, Any], branch: str | None, access: list[str] | None
    ) -> Listing:
        if branch is None:
            # Without a branch nothing was ever committed.
            return
        files = Files(self._github, through, str(repository["nameWithOwner"]))
        for batch in files.batches(await files.tree(branch)):
            dates = await files.last_commits(branch, [str(entry["path"]) for entry in batch])
            yield [self._file(through, repository, entry, dates, access) for entry in batch]

    async def _folder_files(
        self, through: str, repository: Mapping[str, Any], path: str, access: list[str] | None
    ) -> Listing:
        branch = (repository.get("defaultBranchRef") or {}).get("name")
        if branch is None:
            return
        files = Files(self._github, through, str(repository["nameWithOwner"]))
        for batch in files.batches(await files.folder(path, branch)):
            dates = await files.last_commits(branch, [str(entry["path"]) for entry in batch])
            yield [self._file(through, repository, entry, dates, access) for entry in batch]

    def _file(
        self,
        through: str,
        repository: Mapping[str, Any],
        entry: Mapping[str, Any],
        dates: Mapping[str, str | None],
        access: list[str] | None,
    ) -> Document:
        full_name = str(repository["nameWithOwner"])
        return file_document(full_name, entry, dates[str(entry["path"])], access, owner=through)

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        data = content.data
        full_name = str(data["full_name"])
        owner, _, name = full_name.partition("/")
        opened = await self._github.stream(str(data["owner"]), "repos", owner, name, "git", "blobs", str(data["sha"]))
        async with opened as chunks:
            yield chunks

    # Advanced rules

    async def _by_rules(
        self,
        through: str,
        repository: Mapping[str, Any],
        filters: Sequence[Mapping[str, str]],
        access: list[str] | None,
    ) -> Listing:
        # Bounded by the documents of one repository: several rules may find the same ones.
        seen: set[str] = set()
        for wanted in filters:
            for kind, value in wanted.items():
                if kind == "branch":
                    listing = self._branch_files(through, repository, value, access)
                elif kind == "path":
                    listing = self._folder_files(through, repository, value, access)
                else:
                    text = search_text(str(repository["nameWithOwner"]), kind, value)
                    if text is None:
                        self.log.warning("a rule asks for the other kind and finds nothing", kind=kind, query=value)
                        continue
                    listing = self._found(through, repository, text, access)
                async with aclosing(listing) as items:
                    async for some in items:
                        fresh = _fresh(some, seen)
                        if fresh:
                            yield fresh

    async def _found(self, through: str, repository: Mapping[str, Any], text: str, access: list[str] | None) -> Listing:
        """Search, in as many spans of time as it takes for none of them to have more hits than GitHub gives."""
        first = datetime.fromisoformat(str(repository["createdAt"])).replace(microsecond=0)
        spans: list[tuple[datetime, datetime] | None] = [None]
        while spans:
            span = spans.pop()
            asked = text if span is None else f"{text} created:{_moment(span[0])}..{_moment(span[1])}"
            pages = self._github.pages(through, queries.SEARCH, {"text": asked}, ["search"], size=WORK_PAGE)
            async with aclosing(pages) as opened:
                async for page, damaged, _ in opened:
                    if page["issueCount"] > SEARCH_HITS_MAX:
                        spans += _halves(span or (first, now().replace(microsecond=0) + timedelta(days=1)), text)
                        break
                    yield await self._work(through, repository, page, damaged, access)

    # Who may see what

    async def _readers(self, through: str, repository: Mapping[str, Any]) -> Readers:
        if not self._is_secured or repository.get("visibility") == "PUBLIC":
            return EVERYBODY
        try:
            collaborators = await self._people(
                through, queries.COLLABORATORS, _named(repository), ["repository", "collaborators"]
            )
            members = await self._member_ids(through)
        except (PermissionDenied, NotFound, CredentialsError) as error:
            self.log.warning(
                "nobody may see the documents of a repository whose readers GitHub does not tell",
                repository=repository["nameWithOwner"],
                cause=str(error),
            )
            return UNKNOWN
        return readers_among(collaborators, members)

    async def _member_ids(self, owner: str) -> Readers:
        async with self._members_turn:
            if owner not in self._members:
                people = await self._organization_members(owner)
                self._members[owner] = Readers.only(f"user_id:{person['id']}" for person in people)
            return self._members[owner]

    async def _organization_members(self, owner: str) -> list[dict[str, Any]]:
        return await self._people(owner, queries.MEMBERS, {"login": owner}, ["organization", "membersWithRole"])

    async def _people(
        self, through: str, text: str, variables: Mapping[str, Any], place: Sequence[str]
    ) -> list[dict[str, Any]]:
        people: list[dict[str, Any]] = []
        async with aclosing(self._github.pages(through, text, variables, place, size=PAGE)) as pages:
            async for page, damaged, _ in pages:
                # A person who cannot be read is nobody's reader.
                people += [node for at, node in enumerate(page["nodes"]) if node and at not in damaged]
        return people

    async def identities(self) -> AsyncGenerator[Identity | Failure | Sequence[Identity | Failure], None]:
        if not self._is_secured:
            return
        seen: set[str] = set()
        for owner in await self._github.owners():
            for member in await self._organization_members(owner):
                if member["id"] not in seen:
                    seen.add(member["id"])
                    one = identity(member)
                    created = datetime.fromisoformat(member["updatedAt"]) if member.get("updatedAt") else None
                    one.document = identity_document(one.id, one.access, identity=one.fields, created_at=created)
                    yield one


def _named(repository: Mapping[str, Any]) -> dict[str, str]:
    owner, _, name = str(repository["nameWithOwner"]).partition("/")
    return {"owner": owner, "name": name}


def _fresh(some: Item | Sequence[Item], seen: set[str]) -> list[Item]:
    fresh: list[Item] = []
    for item in some if isinstance(some, Sequence) else [some]:
        if isinstance(item, Document):
            if item.id in seen:
                continue
            seen.add(item.id)
        fresh.append(item)
    return fresh


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _halves(span: tuple[datetime, datetime], text: str) -> list[tuple[datetime, datetime] | None]:
    begin, end = span
    if "created:" in text or end <= begin:
        raise ConfigurationError(
            f"The rule {text!r} finds more than {SEARCH_HITS_MAX} issues or pull requests, and GitHub gives no more. "
            "Write several rules that each find fewer."
        )
    middle = begin + timedelta(seconds=(end - begin).total_seconds() // 2)
    return [(middle + timedelta(seconds=1), end), (begin, middle)]
