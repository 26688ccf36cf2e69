"""`callboard extraction-service`: the HTTP interface of the extraction service, served by this machine's engine."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .exits import Exit
from .extraction_options import engine_options, extraction_settings
from .failures import CommandFailed
from .options import Command
from .terminal import note

if TYPE_CHECKING:
    from ..actors.extraction import ExtractionSettings


@click.command("extraction-service", cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes any free one."
)
@click.option(
    "--shared-folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Read files below this folder when a client names one. Without it, only bytes are taken.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Files read at the same time.  [the processors, at most 4]")
@engine_options
def extraction_service(host: str, port: int, shared_folder: Path | None, workers: int | None, **options: Any) -> None:
    """Serve text extraction over HTTP.

    Programs that know the extraction service of existing deployments notice no difference.

    Prints one line with its URL when it is ready, and runs until Ctrl-C. It has no users: keep it on the loopback address or
    in a network of its own.
    """
    from .running import run_async

    if workers:
        options["workers"] = workers
    settings = extraction_settings(**options)
    if shared_folder is not None and not shared_folder.is_dir():
        raise CommandFailed(f"The shared folder {str(shared_folder)!r} does not exist.", code=Exit.NOT_FOUND)
    run_async(_serve, host, port, shared_folder, settings)


async def _serve(host: str, port: int, shared_folder: Path | None, settings: ExtractionSettings) -> None:
    import trio

    from ..actors.extraction import open_extractor
    from ..actors.extraction.serving import open_extraction_service

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with (
                open_extractor(settings) as extractor,
                open_extraction_service(extractor, host, port, shared_folder) as url,
            ):
                click.echo(
                    f"Callboard extraction service is ready at {url} ({extractor.engine_name}). Ctrl-C stops it."
                )
                async for _ in signals:
                    note("Stopping ...")
                    break
        except OSError as error:
            raise _cannot_listen(error, host, port) from error


def _cannot_listen(error: OSError, host: str, port: int) -> BaseException:
    match error.errno:
        case errno.EADDRINUSE:
            return CommandFailed(
                f"Port {port} on {host} is in use by another program.",
                hint="Choose another with --port, or take any free one with --port 0.",
                code=Exit.LOCAL,
            )
        case errno.EADDRNOTAVAIL:
            return CommandFailed(f"This machine has no address {host}.", hint="Use --host 127.0.0.1.", code=Exit.LOCAL)
    return error
