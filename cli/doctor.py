"""`callboard doctor`: is everything there that Callboard needs, here and at the server?"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

import attrs
import click

from .exits import Exit
from .failures import explain
from .options import Command, destination_options, format_option
from .terminal import is_terminal, print_json

if TYPE_CHECKING:
    from ..protocol.store import Store
    from .destination import Destination

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
@format_option("text", "json", default="text")
def doctor(format_: str, **where: Any) -> int:
    """Look whether everything is there that Callboard needs, here and at the server.

    Nothing is changed. The exit code is 1 if there is a problem.
    """
    from .destination import Destination
    from .running import run_async

    findings = [*_here(), *run_async(_there, Destination.chosen(**where))]
    if format_ == "json":
        print_json([attrs.asdict(finding) for finding in findings])
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            mark, colour = _MARKS[finding.verdict]
            shown = click.style(mark, fg=colour, bold=True) if is_terminal() else mark
            click.echo(f"{shown}  {finding.subject.ljust(width)}  {finding.text}")
    return Exit.FAILED if any(finding.verdict == "problem" for finding in findings) else Exit.DONE


def _here() -> Iterable[Finding]:
    from .main import version_line
    from .profiles import profile_folder, profile_names

    yield Finding("Callboard", "ok", version_line().removeprefix("callboard "))
    yield Finding("Python", "ok", sys.version.split()[0])
    try:
        yield Finding("Text extraction", "ok", f"extractous {version('extractous')}")
    except PackageNotFoundError:
        yield Finding(
            "Text extraction",
            "warning",
            "the package for PDF and Office files is missing: pip install 'callboard[extraction]'",
        )
    names = profile_names()
    open_to_others = [name for name in names if (profile_folder() / f"{name}.yml").stat().st_mode & 0o077]
    if open_to_others:
        path = profile_folder() / f"{open_to_others[0]}.yml"
        yield Finding("Profiles", "problem", f"others can read {path}: chmod 600 {path}")
    else:
        yield Finding("Profiles", "ok", ", ".join(names) or "none yet (callboard login makes one)")


async def _there(destination: Destination) -> list[Finding]:
    from .destination import open_destination

    findings: list[Finding] = []
    try:
        async with open_destination(destination) as store:
            findings.append(Finding("Server", "ok", f"{destination.title} answers"))
            for look in (_version, _indices, _privileges):
                findings += await look(store)
    except Exception as error:
        explanation = explain(error)
        if explanation.is_defect:
            raise
        findings.append(Finding("Server", "problem", f"{explanation.message} {explanation.hint}".strip()))
    return findings


async def _version(store: Store) -> list[Finding]:
    from ..protocol.versions import PROTOCOL_VERSION, compare

    server = store.server
    if server is None:
        return [Finding("Version", "warning", "these credentials may not ask for it")]
    verdict = compare(PROTOCOL_VERSION, server.version, build_flavor=server.flavor)
    judged: Verdict = "problem" if verdict.is_refusal else "warning" if verdict.is_warning else "ok"
    return [Finding("Version", judged, verdict.explanation)]


async def _indices(store: Store) -> list[Finding]:
    from ..protocol.indices import CONNECTORS_INDEX, JOBS_INDEX

    missing = [name for name in (CONNECTORS_INDEX, JOBS_INDEX) if not await store.client.indices.exists(index=name)]
    if missing:
        return [
            Finding(
                "Protocol indices", "warning", f"not there yet: {', '.join(missing)}; a service or a sync makes them"
            )
        ]
    return [Finding("Protocol indices", "ok", "there")]


async def _privileges(store: Store) -> list[Finding]:
    from ..protocol.indices import CONNECTORS_INDEX, JOBS_INDEX

    needed = ["read", "write", "create_index"]
    lacking = await store.rights.privileges(
        cluster=["monitor", "manage_connector"], index={f"{CONNECTORS_INDEX}*": needed, f"{JOBS_INDEX}*": needed}
    )
    if lacking is None:
        return [Finding("Privileges", "ok", "the server has no users, so everybody may do everything")]
    return [Finding("Privileges", "ok" if lacking.suffices else "problem", str(lacking))]
