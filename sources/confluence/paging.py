"""How Confluence splits a listing, without any I/O: where the next page is, and whether the listing shifted before it came.

Confluence Cloud goes on by a cursor. Server and Data Center count: their link to the next page holds how many items to pass
over. If one of those is deleted meanwhile, the rest moves up, and an item that nobody has seen falls onto the page that was
read already. So the next page is asked for with the last item of the one before it as its first; if it is another one, the
listing has shifted and begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs

from ..errors import UnexpectedAnswer

SIZE_UNTOLD: Final = 25
"""What Confluence takes for the size of a page if nobody says one."""


@attrs.frozen
class Place:
    """Where a page of a listing is."""

    url: str
    """Whole, with its query."""
    after: str | None = None
    """The item that must come first, because it was the last one of the page before; None if that cannot be said."""


def address(link: str, base: str) -> str:
    """Make a link of Confluence's whole. Links are relative to the base address, but some begin with its path."""
    if urlsplit(link).scheme:
        return link
    parts = urlsplit(base)
    if parts.path and link.startswith(f"{parts.path}/"):
        return f"{parts.scheme}://{parts.netloc}{link}"
    return f"{base}/{link.lstrip('/')}"


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: who gets our credentials."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def own_address(link: str, base: str) -> str:
    """Make a link whole. Raises `UnexpectedAnswer` if it leads to another host: our credentials go nowhere else."""
    url = address(link, base)
    if origin(url) != origin(base):
        raise UnexpectedAnswer(
            f"Confluence links to another host ({urlsplit(url).hostname}). "
            "Enter the address that Confluence has in its own general configuration as its base address."
        )
    return url


def with_query(url: str, **changed: object) -> str:
    """Set parameters in the query of an address."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **{key: str(one) for key, one in changed.items()}}
    return urlunsplit(parts._replace(query=urlencode(query)))


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else None


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def following(
    asked: str, answer: Mapping[str, Any], ids: Sequence[str | None], base: str, *, counts: bool = False
) -> Place | None:
    """Say where the next page is; None at the end.

    `ids` are those of all results of this page. `counts`: the listing may come without a link to the next page although there
    is one, as the search of Data Center does; then it ends with the announced total, or with an empty page.
    """
    sent = _query(asked)
    size = _number(answer.get("limit")) or _number(sent.get("limit")) or SIZE_UNTOLD
    link = (answer.get("_links") or {}).get("next")
    if link:
        url = own_address(str(link), base)
    elif counts:
        start = _number(answer.get("start"))
        start = _number(sent.get("start")) or 0 if start is None else start
        total = _number(answer.get("totalSize"))
        after = start + (len(ids) or size)
        if (not ids and total is None) or (total is not None and after >= total):
            return None
        url = with_query(asked, start=after)
    else:
        return None
    at = _number(_query(url).get("start"))
    # A page that is not full was thinned out by permissions: its last item may not be the one before the next page.
    if "cursor" in _query(url) or not at or len(ids) < max(2, size) or ids[-1] is None:
        return Place(url)
    return Place(with_query(url, start=at - 1), ids[-1])
