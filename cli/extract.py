"""`callboard extract`: try what text comes out of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .exits import Exit
from .extraction_options import config_file_option, engine_options, extraction_settings
from .failures import CommandFailed
from .options import Command, format_option
from .terminal import in_bytes, in_seconds, note, print_json

if TYPE_CHECKING:
    from ..actors.extraction import Extraction, ExtractionSettings

_READ_BYTES = 64 * 1024


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@config_file_option
@engine_options
@format_option("text", "json", default="text")
def extract(file: Path, format_: str, **options: Any) -> int:
    """Show the text that a sync would find in FILE.

    The text goes to standard output; what happened, and how long it took, to standard error. The exit code is 1 if the
    file cannot be read. `callboard extraction engines` says which engine is used, and why.
    """
    from ..actors.extraction import is_accepted
    from .running import run_async

    settings = extraction_settings(**options)
    if file.is_dir():
        raise CommandFailed(f"{str(file)!r} is a folder, not a file.", code=Exit.USAGE)
    found: Extraction = run_async(_extract, file, settings)
    if format_ == "json":
        print_json(_as_json(file, found))
    elif found.text:
        click.echo(found.text)
    told = f"{found.status.value}: {found.detail}" if found.detail else found.status.value
    note(
        f"{file.name}: {told} ({in_bytes(found.size_bytes)}, {found.engine or 'no engine'}, {in_seconds(found.seconds)})"
    )
    if not is_accepted(file.name, settings.more_extensions):
        note(
            "A sync would not read a file of this name; list its extension in `callboard.text_extraction.more_extensions` if it shall."
        )
    return Exit.DONE if found.is_readable else Exit.FAILED


def _as_json(file: Path, found: Extraction) -> dict[str, Any]:
    return {
        "file": str(file),
        "status": found.status.value,
        "detail": found.detail,
        "engine": found.engine,
        "size_bytes": found.size_bytes,
        "seconds": round(found.seconds, 3),
        "metadata": dict(found.metadata),
        "text": found.text,
    }


async def _extract(file: Path, settings: ExtractionSettings) -> Extraction:
    import trio

    from ..actors.extraction import open_extractor

    async with await trio.open_file(file, "rb") as opened, open_extractor(settings) as extractor:

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await opened.read(_READ_BYTES):
                yield chunk

        return await extractor.extract(file.name, chunks())
