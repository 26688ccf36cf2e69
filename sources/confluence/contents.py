"""What hangs on pages and blog posts: labels, attachments and comments, read for a whole page of a listing at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import structlog

from ...runtime import blocking
from ..errors import NotFound, PermissionDenied, UnexpectedAnswer
from ..source import Document, Failure, Item
from .client import ConfluenceClient, gathered
from .mapping import Access, Mapper, dig, stored_body
from .settings import ConfluenceConfig

CHILDREN_PAGE: Final = 100
COMMENTS_PAGE: Final = 50
LABELS_PAGE: Final = 200
BODIES_IN_PLACE_MAX: Final = 65_536
"""Bodies of up to so many characters are turned into text without a thread."""


def identified(content: Mapping[str, Any]) -> str | None:
    """The id of a content, as text."""
    return str(content["id"]) if content.get("id") not in (None, "") else None


class Contents:
    """Turns pages and blog posts, as they were listed, into documents of them and of what hangs on them."""

    def __init__(
        self, config: ConfluenceConfig, client: ConfluenceClient, mapper: Mapper, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._config = config
        self._client = client
        self._mapper = mapper
        self._log = log

    def expansions(self) -> str:
        """What a listing of pages or blog posts has to bring along, beside what permissions need."""
        wanted = ["ancestors", "children.attachment", "history.lastUpdated", "body.storage", "space"]
        if self._config.index_comments:
            wanted.append("children.comment")
        if self._config.index_labels:
            wanted.append("metadata.labels")
        return ",".join(wanted)

    async def items(
        self, contents: Sequence[Mapping[str, Any]], accesses: Sequence[Access], space_name: str | None
    ) -> list[Item]:
        """Make the documents of these contents. What cannot be read becomes a failure in its place."""
        made = partial(self._items_of, space_name)
        with_accesses = zip(contents, accesses, strict=True)
        found = await gathered([partial(made, content, access) for content, access in with_accesses])
        return [item for items in found for item in items]

    async def _items_of(self, space_name: str | None, content: Mapping[str, Any], access: Access) -> list[Item]:
        items: list[Item] = [await self._page(space_name, content, access)]
        if _may_have(content, "attachment"):
            items += await self._attachments(space_name, content, access)
        if self._config.index_comments and _may_have(content, "comment"):
            items += await self._comments(space_name, content, access)
        return items

    async def _page(self, space_name: str | None, content: Mapping[str, Any], access: Access) -> Document | Failure:
        try:
            labels = await self._labels(content) if self._config.index_labels else None
            return await self._with_text(content, partial(self._mapper.page, content, space_name, labels, access))
        except (NotFound, PermissionDenied, UnexpectedAnswer) as error:
            return self._failed(content, error)

    async def _with_text(self, content: Mapping[str, Any], make: partial[Document]) -> Document:
        if len(stored_body(content) or "") <= BODIES_IN_PLACE_MAX:
            return make()
        return await blocking(make)

    def _failed(self, content: Mapping[str, Any], error: Exception) -> Failure:
        self._log.warning("a content could not be read", id=content.get("id"), cause=str(error))
        what = str(content.get("title") or content["id"])
        return Failure("item", what, str(error), document_id=str(content["id"]))

    async def _labels(self, content: Mapping[str, Any]) -> list[str]:
        came = dig(content, "metadata", "labels")
        results = dig(came, "results")
        limit = dig(came, "limit")
        if isinstance(results, list) and not dig(came, "_links", "next") and (not limit or len(results) < int(limit)):
            return [str(one.get("name")) for one in results]
        url = self._client.url("rest", "api", "content", str(content["id"]), "label")
        found: list[str] = []
        listing = self._client.pages(url, {"limit": LABELS_PAGE}, lambda one: str(one.get("name")))
        async with aclosing(listing) as pages:
            async for page in pages:
                found += [str(one.get("name")) for one in page.results]
        return found

    async def _children(
        self, content: Mapping[str, Any], kind: str, params: Mapping[str, str | int]
    ) -> list[dict[str, Any]]:
        url = self._client.url("rest", "api", "content", str(content["id"]), "child", kind)
        found: list[dict[str, Any]] = []
        async with aclosing(self._client.pages(url, params, identified)) as pages:
            async for page in pages:
                found += page.results
        return found

    def _lost(self, content: Mapping[str, Any], kind: str, error: Exception) -> list[Item]:
        self._log.warning("what hangs on a content could not be listed", id=content["id"], kind=kind, cause=str(error))
        return [Failure("container", f"the {kind}s of {content.get('title') or content['id']}", str(error))]

    async def _attachments(self, space_name: str | None, content: Mapping[str, Any], access: Access) -> list[Item]:
        try:
            params: dict[str, str | int] = {"limit": CHILDREN_PAGE, "expand": "version,history"}
            attachments = await self._children(content, "attachment", params)
        except (NotFound, PermissionDenied, UnexpectedAnswer) as error:
            return self._lost(content, "attachment", error)
        return [
            self._mapper.attachment(one, content, space_name, access)
            if identified(one)
            else Failure("container", f"an attachment of {content.get('title')}", "Confluence gave it no id.")
            for one in attachments
        ]

    async def _comments(self, space_name: str | None, content: Mapping[str, Any], access: Access) -> list[Item]:
        try:
            params: dict[str, str | int] = {
                "limit": COMMENTS_PAGE,
                "depth": "all",
                "expand": "body.storage,version,history",
            }
            comments = await self._children(content, "comment", params)
        except (NotFound, PermissionDenied, UnexpectedAnswer) as error:
            return self._lost(content, "comment", error)
        items: list[Item] = []
        for one in comments:
            try:
                if identified(one) is None:
                    raise UnexpectedAnswer("Confluence gave a comment no id.")
                make = partial(self._mapper.comment, one, content, space_name, access)
                items.append(await self._with_text(one, make))
            except UnexpectedAnswer as error:
                items += [self._failed(one, error)] if "id" in one else self._lost(content, "comment", error)
        return items


def _may_have(content: Mapping[str, Any], kind: str) -> bool:
    """Whether it has children of a kind, as far as the listing tells; one that does not tell is asked."""
    size = dig(content, "children", kind, "size")
    return not isinstance(size, int) or size > 0
