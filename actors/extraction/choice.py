"""Which engine reads what is not plain text, and why that one: said before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from .extractor import ExtractionSettings

EngineName: TypeAlias = Literal["auto", "plain", "embedded", "tika", "service"]


class ExtractionUnavailable(Exception):
    """An engine that was asked for by name is not there; the text says how to get it."""


@attrs.frozen
class EngineState:
    """One engine on this machine, with these settings."""

    name: EngineName
    is_there: bool
    why: str
    """What it is or, if it is not there, what it lacks and how to get that."""


@attrs.frozen
class EngineChoice:
    """The engine that is used, and why."""

    engine: EngineName
    why: str
    engines: tuple[EngineState, ...]
    """All of them, in the order in which `auto` takes them."""


def chosen_engine(settings: ExtractionSettings) -> EngineName:
    """Which engine these settings mean on this machine. Raises `ExtractionUnavailable`."""
    return engine_choice(settings).engine


def engine_choice(settings: ExtractionSettings) -> EngineChoice:
    """Which engine these settings mean on this machine, and why. Raises `ExtractionUnavailable`.

    Nothing is started or asked: whether a service answers shows when it is used.
    """
    from .ocr import check_ocr_command

    check_ocr_command(settings.ocr_command)
    engines = tuple(_states(settings))
    if settings.engine != "auto":
        wanted = next(state for state in engines if state.name == settings.engine)
        if not wanted.is_there:
            raise ExtractionUnavailable(wanted.why)
        asked = "the settings ask for it"
        why = (
            f"{asked}, and it reads plain text, HTML and XML only"
            if wanted.name == "plain"
            else f"{wanted.why}; {asked}"
        )
        return EngineChoice(wanted.name, why, engines)
    first = next(state for state in engines if state.is_there)
    match first.name:
        case "service":
            why = f"{first.why}; an extraction service that is set comes first"
        case "embedded":
            why = f"{first.why}; no extraction service is set"
        case "tika":
            why = f"{first.why}; no extraction service is set, and the embedded engine is not installed"
        case _:
            why = "there is no engine for the rest: pip install 'callboard[extraction]'"
    return EngineChoice(first.name, why, engines)


def _states(settings: ExtractionSettings) -> Iterable[EngineState]:
    from .tika import installed_jar, java_program

    if settings.service_url:
        yield EngineState("service", True, f"the extraction service at {settings.service_url}")
    else:
        yield EngineState("service", False, "The extraction service has no URL; set extraction_service.host.")
    if settings.worker_command is not None:
        yield EngineState("embedded", True, f"the worker program {settings.worker_command[0]}")
    elif find_spec("extractous") is not None:
        yield EngineState("embedded", True, f"Apache Tika compiled into extractous {_version('extractous')}")
    else:
        yield EngineState(
            "embedded",
            False,
            "The embedded text extraction is not installed. Install it with: pip install 'callboard[extraction]'",
        )
    jar, java = settings.tika_jar or installed_jar(), java_program()
    if not java:
        yield EngineState(
            "tika",
            False,
            "Tika needs Java 11 or newer, and there is no `java` here. Install one, or use the embedded engine.",
        )
    elif jar is None or not jar.is_file():
        yield EngineState("tika", False, "The Tika server is not here. Fetch it with: callboard extraction fetch-tika")
    else:
        yield EngineState("tika", True, f"Apache Tika at {jar}, run by {java}")
    yield EngineState("plain", True, "plain text, HTML and XML in this process")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
