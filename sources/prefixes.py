"""Listing a bucket by its folders, several at a time: one listing alone is as fast as its pages come one after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

PREFIXES_MAX = 100
"""A bucket with more folders at its top is listed as a whole: their number should not decide how many requests there are."""
PAGES_MAX = 3
"""So many pages are looked at for folders. More pages mean that most objects are in none."""


async def folders_of(pages: AsyncGenerator[tuple[Sequence[str], bool], None]) -> list[str]:
    """Return the folders by which a bucket is listed; none if it is better listed as a whole.

    `pages` are those of a listing with `/` as delimiter, each the prefixes it names and whether it is the last. They are closed.
    """
    found: list[str] = []
    count = 0
    async with aclosing(pages):
        async for prefixes, is_last in pages:
            found += prefixes
            count += 1
            if is_last and 1 < len(found) <= PREFIXES_MAX:
                return found
            if is_last or len(found) > PREFIXES_MAX or count == PAGES_MAX:
                break
    return []
