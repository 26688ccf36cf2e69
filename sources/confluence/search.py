"""Advanced rules: what CQL finds, whatever it is, with the readers of where it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import structlog

from ..errors import NotFound, PermissionDenied, UnexpectedAnswer
from ..permissions import EVERYBODY, UNKNOWN, Readers
from ..source import JSON, AdvancedRulesProblem, Checkpoint, Document, Failure, Item, Listing
from .client import ConfluenceClient, gathered
from .contents import identified
from .mapping import Mapper, dig, stored_body
from .rights import Rights
from .settings import ConfluenceConfig

FOUND_PAGE: Final = 100
FOUND_PAGE_DATA_CENTER: Final = 50
"""Data Center gives no more at once when bodies are asked for."""
_FOUND: Final = (
    "content.history,content.extensions,content.container,content.space,content.body.storage,content.version,"
    "space.description.plain,space.history"
)
_READ: Final = "history,extensions,container,space,body.storage,version"
_PAGES: Final = ("page", "blogpost")


def hit_id(hit: Mapping[str, Any]) -> str | None:
    """The id of the document that a hit becomes; None for what becomes none, such as people."""
    entity = hit.get("content") or hit.get("space")
    return identified(entity) if isinstance(entity, Mapping) else None


class Search:
    """Lists what the queries of advanced rules find."""

    def __init__(
        self,
        config: ConfluenceConfig,
        client: ConfluenceClient,
        mapper: Mapper,
        rights: Rights | None,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._config = config
        self._client = client
        self._mapper = mapper
        self._rights = rights
        self._log = log
        self._url = client.url("rest", "api", "search")

    async def problems(self, queries: Sequence[str]) -> list[AdvancedRulesProblem]:
        """Let Confluence judge queries: one problem for each that it does not understand."""
        found = []
        for number, query in enumerate(queries, start=1):
            try:
                await self._client.get_object(self._url, {"cql": query, "limit": 1})
            except UnexpectedAnswer as error:
                found.append(AdvancedRulesProblem(f"The query of rule {number} cannot be used: {error}"))
        return found

    async def listing(self, queries: Sequence[str], checkpoint: JSON) -> Listing:
        """List what each query finds; what several find comes once. Keeps the ids of all that was found."""
        seen: set[str] = set()
        first = 0 if checkpoint is None else int(checkpoint["rule"])
        for number in range(first, len(queries)):
            start = checkpoint["next"] if checkpoint is not None and number == first else None
            size = FOUND_PAGE_DATA_CENTER if self._config.is_data_center else FOUND_PAGE
            pages = self._client.pages(
                self._url,
                {"cql": queries[number], "limit": size, "expand": _FOUND},
                hit_id,
                start=start,
                counts=not self._config.is_cloud,
            )
            async with aclosing(pages) as opened:
                async for page in opened:
                    hits = [hit for hit in page.results if (found := hit_id(hit)) is not None and found not in seen]
                    if len(hits) < len(page.results):
                        self._log.debug(
                            "hits of a query that become no document of their own", hits=len(page.results) - len(hits)
                        )
                    seen.update(str(hit_id(hit)) for hit in hits)
                    yield [
                        item for items in await gathered([partial(self._item, hit) for hit in hits]) for item in items
                    ]
                    if page.following is not None:
                        yield Checkpoint({"rule": number, "next": page.following})
            if number + 1 < len(queries):
                yield Checkpoint({"rule": number + 1, "next": None})

    async def _item(self, hit: dict[str, Any]) -> list[Item]:
        try:
            if isinstance(hit.get("content"), Mapping):
                return await self._content(hit)
            readers = await self._readers_of_space(hit["space"])
            return [self._mapper.found_space(hit, readers.access())]
        except (NotFound, PermissionDenied, UnexpectedAnswer) as error:
            self._log.warning("a hit could not be read", id=hit_id(hit), cause=str(error))
            what = str(hit.get("title") or hit_id(hit))
            return [Failure("item", what, str(error), document_id=hit_id(hit))]

    async def _content(self, hit: dict[str, Any]) -> list[Item]:
        content = hit["content"]
        is_attachment = content.get("type") == "attachment"
        if (dig(content, "container", "title") if is_attachment else stored_body(content)) is None:
            # The search left something out: better one more call than an empty document.
            url = self._client.url("rest", "api", "content", str(content["id"]))
            read = await self._client.get_object(url, {"expand": _READ})
            content = {**content, **read}
            hit = {**hit, "content": content}
        if is_attachment and dig(content, "container", "title") is None:
            self._log.debug("an attachment without a page becomes no document", id=content.get("id"))
            return []
        readers = await self._readers_of(content)
        document: Document = self._mapper.found_content(hit, readers.access())
        return [document]

    async def _readers_of_space(self, space: Mapping[str, Any]) -> Readers:
        if self._rights is None:
            return EVERYBODY
        return await self._rights.of_space(str(space["key"])) if space.get("key") else UNKNOWN

    async def _readers_of(self, content: Mapping[str, Any]) -> Readers:
        if self._rights is None:
            return EVERYBODY
        if content.get("type") in _PAGES:
            return await self._rights.of_container(str(content["id"]))
        container = content.get("container")
        if dig(container, "type") in _PAGES and dig(container, "id"):
            return await self._rights.of_container(str(dig(container, "id")))
        if content.get("type") in ("attachment", "comment"):
            # It hangs on something, and Confluence does not say on what.
            return UNKNOWN
        return await self._rights.of_container(str(content["id"]))
