"""An asyncio loop inside Trio, for drivers that exist only there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio_asyncio


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[Any]:
    """Run an asyncio loop beside the body. What the body raises comes out as it is, not in a group of one.

    Left or cancelled: the loop and all its tasks have ended.
    """
    try:
        async with trio_asyncio.open_loop() as loop:
            yield loop
    except BaseExceptionGroup as group:
        alone: BaseException = group
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        if alone is group:
            raise
        raise alone from alone.__cause__
