"""`callboard extraction`: what text extraction needs on this machine."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from .exits import Exit
from .failures import CommandFailed
from .options import Command


@click.group()
def extraction() -> None:
    """Fetch what text extraction may use on this machine."""


@extraction.command("fetch-tika", cls=Command)
@click.option(
    "--to", "target", metavar="FILE", type=click.Path(path_type=Path), help="Keep it here.  [your data folder]"
)
def fetch_tika(target: Path | None) -> None:
    """Fetch the Apache Tika server (76 MB) through Maven, and check its checksum.

    With it and Java, `--engine tika` reads files with the very engine of Elasticsearch and of the extraction service. It is
    never fetched unless you ask for it here.
    """
    from ..actors.extraction import ExtractionUnavailable
    from ..actors.extraction.fetching import default_target
    from ..actors.extraction.fetching import fetch_tika as fetch
    from .running import run_async

    try:
        jar: Path = run_async(fetch, target.expanduser().absolute() if target else default_target())
    except ExtractionUnavailable as unavailable:
        # Maven tells a full disk in its own words only.
        is_full = os.strerror(errno.ENOSPC) in str(unavailable)
        raise CommandFailed(str(unavailable), code=Exit.LOCAL if is_full else Exit.FAILED) from None
    click.echo(str(jar))
