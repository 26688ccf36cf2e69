"""The options by which a command chooses how files become text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .exits import Exit
from .failures import CommandFailed

if TYPE_CHECKING:
    from ..actors.extraction import ExtractionSettings

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def engine_options(command: CommandT) -> CommandT:
    """Engine and limits, given to the command as the keyword arguments that `extraction_settings` takes."""
    for option in reversed(
        [
            click.option(
                "--engine",
                type=click.Choice(["auto", "plain", "embedded", "tika", "service"]),
                default="auto",
                show_default=True,
                help="Who reads what is not plain text.",
            ),
            click.option("--service-url", metavar="URL", help="Extraction service for `--engine service`."),
            click.option(
                "--tika-jar",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="The Tika server, if it was not fetched by `callboard extraction fetch-tika`.",
            ),
            click.option(
                "--characters",
                type=click.IntRange(min=1),
                default=1_000_000,
                show_default=True,
                help="Most text per file.",
            ),
            click.option(
                "--seconds",
                type=click.FloatRange(min=0, min_open=True),
                default=60.0,
                show_default=True,
                help="Most time per file.",
            ),
            click.option(
                "--memory-mb",
                type=click.IntRange(min=200),
                default=768,
                show_default=True,
                help="Most memory per file, in MiB.",
            ),
        ]
    ):
        command = option(command)
    return command


def extraction_settings(
    engine: str,
    service_url: str | None,
    tika_jar: Path | None,
    characters: int,
    seconds: float,
    memory_mb: int,
    **more: Any,
) -> ExtractionSettings:
    """The settings that the options mean. Raises `CommandFailed` if this machine has no such engine."""
    from ..actors.extraction import ExtractionLimits, ExtractionSettings, ExtractionUnavailable, chosen_engine

    limits = ExtractionLimits(characters_max=characters, seconds_max=seconds, memory_bytes_max=memory_mb * 2**20)
    settings = ExtractionSettings(
        engine=engine,  # type: ignore[arg-type]  # click has checked it
        limits=limits,
        service_url=service_url,
        service_timeout_s=seconds,
        tika_jar=tika_jar,
        **more,
    )
    try:
        chosen_engine(settings)
    except ExtractionUnavailable as unavailable:
        raise CommandFailed(str(unavailable), code=Exit.USAGE) from None
    return settings
