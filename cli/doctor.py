"""`callboard doctor`: is everything there that Callboard needs, here and at the server?"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import click

from .exits import Exit
from .failures import explain
from .options import Command, destination_options, format_option
from .terminal import is_terminal, print_json

if TYPE_CHECKING:
    from ..actors.configuration import Settings
    from ..protocol.store import Store
    from .destination import Destination

WAIT_S = 5.0
"""Whoever calls a doctor wants to hear soon that nobody answers."""

Verdict = Literal["ok", "warning", "problem"]
_MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "problem": ("XX", "red")}


@attrs.frozen
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str


@click.command(cls=Command)
@destination_options
@click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path),
    help="Look with the configuration of a service: its server, its credentials, its connectors.",
)
@format_option("text", "json", default="text")
def doctor(config_file: Path | None, format_: str, **where: Any) -> int:
    """Look whether everything is there that Callboard needs, here and at the server.

    At the server it makes the checks with which a service starts. Nothing is changed. The exit code is 1 if there is a problem.
    """
    from .destination import Destination
    from .running import run_async

    if config_file is not None:
        findings = [*_here(config_file), *run_async(_configured, config_file)]
    else:
        findings = [*_here(None), *run_async(_there, Destination.chosen(**where))]
    if format_ == "json":
        print_json([attrs.asdict(finding) for finding in findings])
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            mark, colour = _MARKS[finding.verdict]
            shown = click.style(mark, fg=colour, bold=True) if is_terminal() else mark
            click.echo(f"{shown}  {finding.subject.ljust(width)}  {finding.text}")
    return Exit.FAILED if any(finding.verdict == "problem" for finding in findings) else Exit.DONE


def _here(config_file: Path | None) -> Iterable[Finding]:
    from .main import version_line
    from .profiles import profile_folder, profile_names

    yield Finding("Callboard", "ok", version_line().removeprefix("callboard "))
    yield Finding("Python", "ok", sys.version.split()[0])
    yield _extraction(config_file)
    names = profile_names()
    open_to_others = [name for name in names if (profile_folder() / f"{name}.yml").stat().st_mode & 0o077]
    if open_to_others:
        path = profile_folder() / f"{open_to_others[0]}.yml"
        yield Finding("Profiles", "problem", f"others can read {path}: chmod 600 {path}")
    else:
        yield Finding("Profiles", "ok", ", ".join(names) or "none yet (callboard login makes one)")


def _extraction(config_file: Path | None) -> Finding:
    """Which engine reads files, and why that one."""
    from ..actors.extraction import ExtractionSettings, ExtractionUnavailable, engine_choice
    from .extraction_options import configured_settings

    settings = ExtractionSettings() if config_file is None else configured_settings(config_file)
    try:
        choice = engine_choice(settings)
    except ExtractionUnavailable as unavailable:
        return Finding("Text extraction", "problem", str(unavailable))
    if choice.engine == "plain" and settings.engine == "auto":
        return Finding("Text extraction", "warning", f"plain text only: {choice.why}")
    return Finding("Text extraction", "ok", f"{choice.engine}: {choice.why}")


async def _there(destination: Destination) -> list[Finding]:
    """What a service would find there, without one's configuration."""
    from ..actors.configuration import Settings
    from .destination import open_destination

    return await _examined(destination.title, open_destination(destination), Settings(), is_service=False)


async def _configured(path: Path) -> list[Finding]:
    """What the service of this configuration finds when it starts, and more."""
    from ..actors.configured import store_target
    from ..protocol.store import open_store
    from ..runtime import blocking
    from .service import read

    result = await blocking(read, path)
    settings = result.settings
    target = store_target(settings)
    findings = [Finding("Configuration", "warning", str(warning)) for warning in result.warnings]
    opened = open_store(target, wait_s=min(WAIT_S, settings.elasticsearch.max_wait_duration))
    return findings + await _examined(target.shown, opened, settings, is_service=True)


async def _examined(
    title: str, opened: AbstractAsyncContextManager[Store], settings: Settings, *, is_service: bool
) -> list[Finding]:
    from ..actors.preflight import examine

    findings: list[Finding] = []
    try:
        async with opened as store:
            findings.append(Finding("Server", "ok", f"{title} answers"))
            found = await examine(store, settings, is_service=is_service, changes_nothing=True)
            findings.extend(Finding(one.subject, one.verdict, one.text) for one in found)
    except Exception as error:
        explanation = explain(error)
        if explanation.is_defect:
            raise
        findings.append(Finding("Server", "problem", f"{explanation.message} {explanation.hint}".strip()))
    return findings
