"""The built-in node inside this process, on a data folder of the user's choice."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exits import Exit
from .failures import CommandFailed

if TYPE_CHECKING:
    from ..actors.extraction import ExtractionSettings
    from ..node.faults import ServerFaultPlan


@contextmanager
def data_folder(folder: Path | None) -> Iterator[Callable[[], None]]:
    """Make a data folder if need be, and remove it again if the block raises before it has called what it is given.

    A folder that was there before is never removed. Raises `CommandFailed` if the path is a file or may not be used.
    """
    if folder is None:
        yield lambda: None
        return
    made = _missing_parents(folder)
    kept = False

    def keep() -> None:
        nonlocal kept
        kept = True

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CommandFailed(
            f"{str(folder)!r} is a file or lies below one, so it cannot be a data folder.",
            hint="Name a folder; it is made if it does not exist.",
            code=Exit.USAGE,
        ) from None
    except PermissionError:
        raise CommandFailed(
            f"No permission to make the data folder {str(folder)!r}.", hint="Choose another place.", code=Exit.LOCAL
        ) from None
    try:
        yield keep
    except BaseException:
        if made and not kept:
            # Only what this command has made itself goes away again.
            shutil.rmtree(made[0], ignore_errors=True)
        raise


def _missing_parents(folder: Path) -> list[Path]:
    """The folders that making `folder` would make, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    return missing[::-1]


@asynccontextmanager
async def open_embedded_node(
    folder: Path, extraction: ExtractionSettings | None = None, faults: ServerFaultPlan | None = None
) -> AsyncIterator[Any]:
    """Open the built-in node on a folder without a socket, and give its ASGI application. With `faults` it misbehaves."""
    from ..node import open_node

    async with (
        open_attachment_reader(extraction) as read_attachment,
        open_node(folder, port=None, attachment_reader=read_attachment, faults=faults) as node,
    ):
        yield node.app


@asynccontextmanager
async def open_attachment_reader(
    extraction: ExtractionSettings | None = None,
) -> AsyncIterator[Callable[[bytes, str | None], Awaitable[str]]]:
    """Give what turns the bytes of a file into text for the node's attachment processor; its workers end with the block."""
    from ..actors.extraction import ExtractionSettings, attachment_reader, open_extractor

    async with open_extractor(extraction or ExtractionSettings()) as extractor:
        yield attachment_reader(extractor)
