"""Reading a table or rule page by page, going on after a broken connection without ever giving a row twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import structlog
import trio

from ..runtime import random
from .errors import Transient
from .source import JSON, Checkpoint, Document, Failure, Listing
from .waiting import tell_wait

Page: TypeAlias = tuple[list[Document | Failure], Any]
"""What was read, and the key of its last row; no key where reading cannot go on behind it."""


async def read_pages(
    open_pages: Callable[[Any], AsyncGenerator[Page, None]],
    *,
    after: Any,
    checkpoint_of: Callable[[Any], JSON],
    attempts: int,
    partition: str,
    log: structlog.stdlib.BoundLogger,
) -> Listing:
    """Yield the pages that `open_pages` gives from behind the key `after`, with a checkpoint behind each page that has a key.

    A `Transient` error opens the pages anew, up to `attempts` times in a row without a page. Raises it where what was handed out
    would come again: only pages in the order of their keys can be gone on from. `checkpoint_of` writes a key as plain data, or
    gives None for one that cannot be written.
    """
    has_yielded, attempt = False, 0
    while True:
        try:
            pages = open_pages(after)
            async with aclosing(pages):
                async for page, last_key in pages:
                    yield page
                    has_yielded, attempt = True, 0
                    if last_key is not None:
                        after = last_key
                        if (written := checkpoint_of(after)) is not None:
                            yield Checkpoint(written)
            return
        except Transient as error:
            attempt += 1
            if attempt >= max(1, attempts) or (has_yielded and after is None):
                raise
            log.info("source.retry", partition=partition, attempt=attempt, why=str(error))
            pause_s = random().uniform(0.5, 1.0) * 2.0**attempt
            tell_wait("The database", error, wait_s=pause_s, attempt=attempt, name=partition)
            await trio.sleep(pause_s)
