"""`callboard config`: look at the configuration of a service without running it."""

from __future__ import annotations

from pathlib import Path

import click

from .exits import Exit
from .options import Command, format_option
from .terminal import print_json

_file = click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path),
    help="Configuration of the service.  [config.yml in the current folder]",
)


@click.group()
def config() -> None:
    """Look at the configuration of a service without running it."""


@config.command(cls=Command)
@_file
@click.option("--strict", is_flag=True, help="Warnings count as problems.")
def check(config_file: Path | None, strict: bool) -> int:
    """Read the file, and say everything that is wrong or odd about it.

    The exit code is 2 if it cannot be used, and 1 if --strict finds warnings.
    """
    from .service import default_file, read

    path = config_file or default_file()
    result = read(path)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    count = len(result.warnings)
    click.echo(f"{path} can be used" + (f", with {count} warning{'' if count == 1 else 's'}." if count else "."))
    return Exit.FAILED if strict and result.warnings else Exit.DONE


@config.command(cls=Command)
@_file
@format_option("yaml", "json", default="yaml")
def show(config_file: Path | None, format_: str) -> int:
    """Print what the service would run with, defaults and environment included. Secrets are masked."""
    from ..actors.configuration import masked
    from .service import default_file, read

    shown = masked(read(config_file or default_file()).settings)
    if format_ == "json":
        print_json(shown)
    else:
        import yaml

        click.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)
    return Exit.DONE
