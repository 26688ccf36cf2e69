"""The source: spaces as partitions, each listed as itself, its blog posts and its pages, with what hangs on them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar, Final

from ..errors import ConfigurationError, CredentialsError, NotFound, PermissionDenied, UnexpectedAnswer
from ..permissions import EVERYBODY
from ..source import (
    JSON,
    AdvancedRulesProblem,
    Checkpoint,
    ContentRef,
    Failure,
    Features,
    Identity,
    Item,
    Listing,
    Partition,
    Source,
)
from .client import ConfluenceClient
from .contents import Contents, identified
from .mapping import Mapper
from .people import People
from .rights import RESTRICTIONS, Rights
from .search import Search
from .settings import ConfluenceConfig, quoted, rule_problems

SPACES_PAGE: Final = 100
CONTENTS_PAGE: Final = 50
"""Data Center gives no more at once when bodies are asked for."""
BY_RULES: Final = "advanced_rules"
NAMED_MAX: Final = 20
"""How many of the spaces that exist a message names."""
_STAGES: Final = ("blogpost", "page")


class Confluence(Source[ConfluenceConfig]):
    """Spaces, pages, blog posts, comments and attachments."""

    service_type: ClassVar[str] = "confluence"
    name: ClassVar[str] = "Confluence"
    Config = ConfluenceConfig
    features = Features(advanced_rules=True, incremental="skip_unchanged", document_level_security=True, resumable=True)

    def __init__(self, config: ConfluenceConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self.content_concurrency = max(1, config.concurrent_downloads)  # type: ignore[misc]  # one instance's own number
        self._client = ConfluenceClient(config, self.log)
        self._mapper = Mapper(config)
        self._contents = Contents(config, self._client, self._mapper, self.log)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with self._client.opened():
            yield

    @property
    def _is_secured(self) -> bool:
        return self.config.use_document_level_security

    def _rights(self) -> Rights:
        return Rights(self._client, self.log, is_cloud=self.config.is_cloud)

    # Checks

    async def ping(self) -> None:
        try:
            await self._client.get_object(self._client.url("rest", "api", "space"), {"limit": 1})
        except PermissionDenied as error:
            # Cloud answers so to a wrong token, and Server to one who got the password wrong too often.
            raise CredentialsError(
                f"Confluence refuses us. Check name and token or password, and that the account may use Confluence. ({error})"
            ) from error

    async def validate(self) -> None:
        """Check that we are logged in, that every configured space can be seen, and, if secured, that people can be listed."""
        await self.ping()
        await self._client.check_signed_in()
        if not self.config.takes_all:
            await self._check_spaces()
        if self._is_secured:
            await self._check_people()

    async def _check_spaces(self) -> None:
        async with aclosing(self._space_keys()) as keys:
            available = [key async for key in keys]
        if missing := [key for key in dict.fromkeys(self.config.spaces) if key not in set(available)]:
            shown = ", ".join(sorted(available)[:NAMED_MAX]) or "none"
            more = f" and {len(available) - NAMED_MAX} more" if len(available) > NAMED_MAX else ""
            raise ConfigurationError(
                f"Confluence has no spaces {', '.join(missing)}, or does not show them. It shows {shown}{more}."
            )

    async def _check_people(self) -> None:
        try:
            await People(self.config, self._client, self.log).check()
        except (NotFound, PermissionDenied) as error:
            needed = {
                "confluence_cloud": "The account needs the global permission 'Browse users and groups' of Jira on this site",
                "confluence_data_center": "The account must be an administrator of Confluence",
            }.get(self.config.data_source, "The app Extender for Confluence must be installed")
            raise ConfigurationError(
                f"People cannot be listed for document-level security. {needed}. ({error})"
            ) from error

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        problems = list(rule_problems(rules))
        return problems if problems or not rules else await self._search(None).problems(_queries(rules))

    def _search(self, rights: Rights | None) -> Search:
        return Search(self.config, self._client, self._mapper, rights, self.log)

    # Listing

    async def _space_keys(self) -> AsyncGenerator[str, None]:
        url = self._client.url("rest", "api", "space")
        listing = self._client.pages(url, {"limit": SPACES_PAGE}, lambda one: str(one.get("key")))
        async with aclosing(listing) as pages:
            async for page in pages:
                for space in page.results:
                    if not space.get("key"):
                        raise UnexpectedAnswer("Confluence lists a space without its key.")
                    yield str(space["key"])

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if rules:
            yield Partition(BY_RULES, {"queries": _queries(rules)}, "Advanced rules")
            return
        if not self.config.takes_all:
            for key in dict.fromkeys(self.config.spaces):
                yield Partition(f"space/{key}", {"key": key}, key)
            return
        async with aclosing(self._space_keys()) as keys:
            async for key in keys:
                yield Partition(f"space/{key}", {"key": key}, key)

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        if partition.key == BY_RULES:
            listing = self._search(self._rights() if self._is_secured else None).listing(
                partition.data["queries"], checkpoint
            )
        else:
            listing = self._space(str(partition.data["key"]), checkpoint)
        async with aclosing(listing) as items:
            async for some in items:
                yield some
        # Somebody who is not logged in any more is shown only what is public, which looks like a short listing.
        await self._client.check_signed_in()

    async def _space(self, key: str, checkpoint: JSON) -> Listing:
        space = await self._client.space(key)
        name = str(space.get("name") or key)
        rights = self._rights() if self._is_secured else None
        readers = EVERYBODY if rights is None else await rights.of_space(key, space)
        if checkpoint is None:
            yield self._mapper.space(space, readers.access())
        first = 0 if checkpoint is None else _STAGES.index(checkpoint["stage"])
        for stage in _STAGES[first:]:
            start = checkpoint["next"] if checkpoint is not None and stage == checkpoint["stage"] else None
            url = self._client.url("rest", "api", "content", "search")
            pages = self._client.pages(url, self._params(key, stage), identified, start=start)
            async with aclosing(pages) as opened:
                async for page in opened:
                    known = [one for one in page.results if identified(one)]
                    if len(known) < len(page.results):
                        yield Failure("container", f"a {stage} of the space {key}", "Confluence gave it no id.")
                    accesses = [EVERYBODY] * len(known) if rights is None else await rights.of_contents(known, readers)
                    items: list[Item] = await self._contents.items(known, [one.access() for one in accesses], name)
                    yield items
                    if page.following is not None:
                        yield Checkpoint({"stage": stage, "next": page.following})
            if stage != _STAGES[-1]:
                yield Checkpoint({"stage": _STAGES[_STAGES.index(stage) + 1], "next": None})
        # A space that was taken from us meanwhile has no pages for us, and looks empty.
        await self._client.space(key)

    def _params(self, key: str, kind: str) -> dict[str, str | int]:
        # In the order of creation, edits move nothing. The default order is the index's own, which they change.
        query = f"space in ({quoted(key)}) AND type={kind} order by created asc"
        expansions = self._contents.expansions() + (f",{RESTRICTIONS}" if self._is_secured else "")
        return {"cql": query, "limit": CONTENTS_PAGE, "expand": expansions}

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._client.download(str(content.data["download"])) as chunks:
            yield chunks

    # People

    async def identities(self) -> AsyncGenerator[Identity | Failure | Sequence[Identity | Failure], None]:
        if not self._is_secured:
            return
        async with aclosing(People(self.config, self._client, self.log).identities()) as pages:
            async for page in pages:
                yield page


def _queries(rules: JSON) -> list[str]:
    return [str(rule["query"]) for rule in rules]
