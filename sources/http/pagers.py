"""How a system splits a long listing, as small values without any I/O: the first request, and the next one after an answer.

A pager never takes an odd answer for the end: a token or link that was sent before is an error, and so is an empty page before
the announced total. What is not the end, and cannot be continued, raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import attrs
import httpx

from ..errors import UnexpectedAnswer

Params: TypeAlias = Mapping[str, Any]

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w-]+=(?:"[^"]*"|[^",;]*))*)')


class RepeatedPage(UnexpectedAnswer):
    """The system sent the same next-page token twice; going on would never end."""

    def __init__(self, token: object) -> None:
        super().__init__("The system answered a page with the page token it had sent before. Sync again.")
        self.token = token


class ShortListing(UnexpectedAnswer):
    """A listing ended before the total that the system had announced."""

    def __init__(self, at: int, of: int) -> None:
        super().__init__(f"The listing ended after {at} of {of} announced items. Sync again.")
        self.at, self.of = at, of


class Pager(Protocol):
    """Says what to add to the first request, and after each answer what to add to the next; None at the end."""

    def first(self) -> Params: ...

    def after(self, sent: Params, answer: Any, items: int) -> Params | None: ...


@attrs.frozen
class Offset:
    """`startAt`/`maxResults` and the like. With `total`, the key of the announced total, short listings are noticed."""

    offset: str
    limit: str
    size: int
    total: str | None = None

    def first(self) -> Params:
        return {self.offset: 0, self.limit: self.size}

    def after(self, sent: Params, answer: Any, items: int) -> Params | None:
        at = sent[self.offset] + items
        if self.total is not None:
            total = int(answer[self.total])
            if items == 0 and at < total:
                raise ShortListing(at, of=total)
            return None if at >= total else {**sent, self.offset: at}
        # The server may give less than was asked for: only an empty page is the end.
        return None if items == 0 else {**sent, self.offset: at}


@attrs.frozen
class PageNumber:
    """`page=1`, `page=2`, until a page is empty."""

    page: str = "page"
    limit: str = "per_page"
    size: int = 100

    def first(self) -> Params:
        return {self.page: 1, self.limit: self.size}

    def after(self, sent: Params, answer: Any, items: int) -> Params | None:
        return None if items == 0 else {**sent, self.page: sent[self.page] + 1}


@attrs.frozen
class Cursor:
    """A token in the answer (`path`, dotted) that goes into the parameter `param` of the next request."""

    param: str
    path: str
    extra: Params = attrs.field(factory=dict)

    def first(self) -> Params:
        return dict(self.extra)

    def after(self, sent: Params, answer: Any, items: int) -> Params | None:
        token = answer
        for step in self.path.split("."):
            token = token.get(step) if isinstance(token, Mapping) else None
        if token in (None, ""):
            return None
        if token == sent.get(self.param):
            raise RepeatedPage(token)
        return {**sent, self.param: token}


class NextLink:
    """A whole address of the next page, in the answer at `path` (`@odata.nextLink` and the like)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: set[str] = set()

    def after(self, answer: Mapping[str, Any]) -> str | None:
        """The address of the next page, or None at the end. Raises `RepeatedPage`."""
        link = answer.get(self.path)
        return self._checked(link) if link else None

    def _checked(self, link: str) -> str:
        # Bounded by the pages of one listing, 8 bytes of which are kept each.
        key = str(hash(link))
        if key in self._seen:
            raise RepeatedPage(link)
        self._seen.add(key)
        return link


def linked(headers: httpx.Headers, relation: str = "next") -> str | None:
    """The address under a relation in `Link` headers (RFC 8288), or None."""
    for address, parameters in _LINK.findall(headers.get("link", "")):
        if re.search(rf';\s*rel="?[^"]*\b{re.escape(relation)}\b', parameters):
            return str(address)
    return None
