"""The options by which a command chooses how files become text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
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
    config_file: Path | None = None,
    **more: Any,
) -> ExtractionSettings:
    """The settings that the options mean; those that were not given are taken from `config_file`, if there is one.

    Raises `CommandFailed` if the file cannot be used or this machine has no such engine.
    """
    from ..actors.extraction import ExtractionLimits, ExtractionSettings, ExtractionUnavailable, chosen_engine

    if config_file is None:
        limits = ExtractionLimits(characters_max=characters, seconds_max=seconds, memory_bytes_max=memory_mb * 2**20)
        settings = ExtractionSettings(
            engine=engine,  # type: ignore[arg-type]  # click has checked it
            limits=limits,
            service_url=service_url,
            service_timeout_s=seconds,
            tika_jar=tika_jar,
            **more,
        )
    else:
        wanted: dict[str, Any] = {
            "engine": engine,
            "service_url": service_url,
            "service_timeout_s": seconds,
            "tika_jar": tika_jar,
        }
        bounds: dict[str, Any] = {
            "characters_max": characters,
            "seconds_max": seconds,
            "memory_bytes_max": memory_mb * 2**20,
        }
        settings = configured_settings(config_file)
        settings = attrs.evolve(
            settings, limits=attrs.evolve(settings.limits, **_given(bounds)), **_given(wanted), **more
        )
    try:
        chosen_engine(settings)
    except ExtractionUnavailable as unavailable:
        raise CommandFailed(str(unavailable), code=Exit.USAGE) from None
    return settings


def configured_settings(config_file: Path) -> ExtractionSettings:
    """The settings that the configuration of a service means. Raises `CommandFailed` that lists every problem of the file."""
    from ..actors.extraction import configured_extraction
    from .service import read

    settings = read(config_file).settings
    return configured_extraction(settings.extraction_service, settings.callboard.text_extraction)


def config_file_option(command: CommandT) -> CommandT:
    """The configuration of a service, whose extraction is meant; that of `callboard -c FILE` if it is not given."""
    return click.option(
        "-c",
        "--config-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        callback=_or_that_of_the_root,
        help="Extract as the service of this configuration does; what else is given here comes first.",
    )(command)


def _or_that_of_the_root(context: click.Context, parameter: click.Parameter, given: Path | None) -> Path | None:
    from .destination import root_option

    if given is not None:
        return given
    of_root = root_option("config")
    return Path(of_root) if of_root else None


_OPTION_OF = {
    "engine": "engine",
    "service_url": "service_url",
    "service_timeout_s": "seconds",
    "tika_jar": "tika_jar",
    "characters_max": "characters",
    "seconds_max": "seconds",
    "memory_bytes_max": "memory_mb",
}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Those values whose options stand on the command line."""
    from click.core import ParameterSource

    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in values.items() if source(_OPTION_OF[name]) is not ParameterSource.DEFAULT}
