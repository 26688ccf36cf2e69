"""`callboard extraction`: what text extraction needs on this machine."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import attrs
import click

from .exits import Exit
from .extraction_options import config_file_option, configured_settings
from .failures import CommandFailed
from .options import Command, format_option
from .terminal import note, print_json


@click.group()
def extraction() -> None:
    """See which engines text extraction has on this machine, and fetch one."""


@extraction.command(cls=Command)
@config_file_option
@format_option("text", "json", default="text")
def engines(config_file: Path | None, format_: str) -> int:
    """Show the engines of this machine, which one reads files, and why that one.

    Nothing is started, asked or fetched. The exit code is 1 if the configuration asks for an engine that is not there.
    """
    from ..actors.extraction import ExtractionSettings, ExtractionUnavailable, engine_choice

    settings = ExtractionSettings() if config_file is None else configured_settings(config_file)
    try:
        choice = engine_choice(settings)
    except ExtractionUnavailable as unavailable:
        raise CommandFailed(str(unavailable), code=Exit.FAILED) from None
    if format_ == "json":
        print_json(attrs.asdict(choice))
        return Exit.DONE
    for state in choice.engines:
        mark = "->" if state.name == choice.engine else "ok" if state.is_there else "--"
        click.echo(f"{mark}  {state.name:<8}  {state.why}")
    if choice.engine == "plain":
        note(f"What is not plain text is not read: {choice.why}.")
    else:
        note(f"Plain text is read here; what is not, by {choice.engine}: {choice.why}.")
    return Exit.DONE


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
