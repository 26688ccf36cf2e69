"""`callboard service`: the daemon that looks after connectors and runs their jobs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import click

from .exits import Exit
from .failures import CommandFailed, explain
from .faults import announce, faults_before, faults_option, of_embedded_node, read_fault_plans
from .options import Command

if TYPE_CHECKING:
    from ..actors.configuration import ReadResult, Settings
    from ..actors.service import Service
    from ..node.faults import FaultPlans

RUNNING = ("schedule", "sync_content", "sync_access_control", "cleanup")
ALONE = ("list", "config")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DEFAULT_FILE = Path("config.yml")
VERSION_IGNORED = "ALLOW_ES_VERSION_MISMATCH"


@attrs.frozen
class Wanted:
    """What the command line asks for."""

    file: Path
    actions: tuple[str, ...]
    log_level: str | None
    as_ecs: bool
    embedded: Path | None
    faults: FaultPlans | None


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .main import version_line

        click.echo(version_line())
        context.exit(Exit.DONE)


@click.command(cls=Command)
@click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path),
    help="Configuration of the service.  [config.yml in the current folder]",
)
@click.option(
    "--action",
    "actions",
    multiple=True,
    type=click.Choice([*RUNNING, *ALONE], case_sensitive=False),
    help="Do only this; may be repeated. `list` names the sources, `config` prints the settings of --service-type.  [all but these two]",
)
@click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="Instead of `service.log_level`.")
@click.option("--debug", is_flag=True, help="The same as --log-level DEBUG.")
@click.option("--filebeat", is_flag=True, help="Log one JSON object per line, in the Elastic Common Schema.")
@click.option("--service-type", metavar="TYPE", help="For --action config.")
@click.option("--uvloop", is_flag=True, hidden=True, help="Has no effect: there is no asyncio loop to replace.")
@click.option(
    "--embedded",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Run the built-in node on this data folder in the same process, instead of an Elasticsearch.",
)
@faults_option("Inject faults into the service and on its way to Elasticsearch, as this YAML plan says, loudly marked.")
@click.option(
    "-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def service(
    config_file: Path | None,
    actions: tuple[str, ...],
    log_level: str | None,
    debug: bool,
    filebeat: bool,
    service_type: str | None,
    uvloop: bool,
    embedded: Path | None,
    faults: Path | None,
) -> int:
    """Run the service: look after connectors, run their jobs.

    It makes the jobs of their schedules and runs all jobs that wait, and can be left alone.
    SIGTERM or Ctrl-C suspends running jobs and ends; a second one ends at once. SIGHUP reads the configuration again and
    takes over what may change.
    """
    chosen = tuple(dict.fromkeys(actions)) or RUNNING
    alone = [action for action in chosen if action in ALONE]
    if alone and len(chosen) > 1:
        raise click.UsageError(f"--action {alone[0]} stands alone; leave out the other actions.")
    if alone == ["list"]:
        return _list(config_file)
    if alone == ["config"]:
        return _schema(config_file, service_type)
    wanted = Wanted(
        (config_file or default_file()).expanduser().absolute(),
        chosen,
        "DEBUG" if debug else log_level.upper() if log_level else None,
        filebeat,
        embedded.expanduser().absolute() if embedded else None,
        read_fault_plans(faults, ("runtime", "elasticsearch", "network")) if faults else None,
    )
    import trio

    from .lean_start import load_lean

    load_lean()
    return trio.run(_run, wanted)


def default_file() -> Path:
    from .destination import root_option

    given = root_option("config")
    return Path(given) if given else DEFAULT_FILE


def read(path: Path) -> ReadResult:
    """Read a configuration file. Raises `CommandFailed` that lists every problem of it."""
    from ..actors.configuration import ConfigurationProblem, read_file

    try:
        return read_file(path, os.environ)
    except ConfigurationProblem as problem:
        said = "; ".join(str(complaint) for complaint in problem.complaints)
        code = Exit.USAGE if problem.file_error is None else explain(problem.file_error).code
        raise CommandFailed(
            f"{problem.where} cannot be used: {said}.",
            hint="docs/configuration.md has every key." if code is Exit.USAGE else "",
            code=code,
        ) from None


def _own_sources(path: Path | None) -> Mapping[str, str]:
    return read(path).settings.sources if path is not None else {}


def _list(path: Path | None) -> int:
    from ..sources.registry import service_types

    names = {info.service_type: info.name for info in service_types()}
    names |= _own_sources(path)
    click.echo("Registered connectors:")
    for service_type in sorted(names):
        click.echo(f"- {names[service_type]}")
    click.echo("Bye")
    return Exit.DONE


def _schema(path: Path | None, service_type: str | None) -> int:
    from ..protocol.configuration import schema_of
    from ..sources.errors import SourceError
    from ..sources.registry import source_class
    from .terminal import print_json

    if not service_type:
        raise click.UsageError("--action config needs --service-type.")
    try:
        kind = source_class(service_type, _own_sources(path))
    except SourceError as problem:
        raise click.UsageError(str(problem)) from None
    print_json(schema_of(kind.Config))
    return Exit.DONE


async def _run(wanted: Wanted) -> int:
    """Run the daemon until a signal. Its log goes to standard error, and so does the reason why it cannot begin."""
    import structlog
    import trio

    from ..runtime import blocking
    from .service_logging import configure_logging

    result = await blocking(read, wanted.file)
    configure_logging(result.settings, level=wanted.log_level, as_ecs=wanted.as_ecs)
    log = structlog.get_logger("callboard.service")
    if wanted.faults is not None and not wanted.as_ecs:
        announce(f"{wanted.faults.shown()}. Do not trust this service")
    for warning in result.warnings:
        log.warning("configuration", key=warning.key, text=warning.text)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        try:
            return await _with_signals(wanted, result.settings, signals, log)
        except Exception as problem:
            if not wanted.as_ecs:
                raise
            # Whoever reads JSON lines gets the last one as JSON too.
            explanation = explain(problem)
            log.critical("service.failed", why=f"{explanation.message} {explanation.hint}".strip())
            return explanation.code


async def _with_signals(wanted: Wanted, settings: Settings, signals: AsyncIterator[int], log: Any) -> int:
    import trio

    from .systemd import notify

    code: int = Exit.DONE
    began: list[Service] = []
    async with trio.open_nursery() as nursery:

        async def obey() -> None:
            nonlocal code
            is_stopping = False
            async for number in signals:
                if number == signal.SIGHUP:
                    if began:
                        await _reload(began[0], wanted, log)
                    continue
                name = signal.Signals(number).name
                if is_stopping:
                    log.error("service.ends_now", signal=name, text="running jobs are taken over at the next start")
                    _leave(Exit.INTERRUPTED)
                is_stopping = True
                log.info("service.stops", signal=name)
                notify("STOPPING=1")
                if began:
                    nursery.start_soon(stop, began[0])
                else:
                    nursery.cancel_scope.cancel()

        async def stop(service: Service) -> None:
            nonlocal code
            if not await service.stop():
                log.error("service.not_in_time", running=list(service.running()))
                code = Exit.FAILED
            nursery.cancel_scope.cancel()

        nursery.start_soon(obey)
        async with _opened(wanted, settings) as service:
            began.append(service)
            _log_for(service, wanted)
            _say_ready(service, log)
            async with service.watched():
                await _watchdog(service)
    log.info("service.ended", code=int(code))
    return code


def _log_for(service: Service, wanted: Wanted) -> None:
    from .service_logging import configure_logging

    configure_logging(service.settings, level=wanted.log_level, as_ecs=wanted.as_ecs, more_secrets=service.secrets)


def _say_ready(service: Service, log: Any) -> None:
    from .. import __version__
    from .systemd import notify

    for finding in service.findings:
        if finding.verdict == "ok":
            log.info("preflight", subject=finding.subject, text=finding.text)
    log.info("service.ready", version=__version__, worker=service.worker)
    notify(f"READY=1\nMAINPID={os.getpid()}")


async def _watchdog(service: Service) -> None:
    """Tell systemd that the loop turns, for as long as the service runs."""
    import trio

    from .systemd import notify, watchdog_pause_s

    pause_s = watchdog_pause_s(os.environ)
    if pause_s is None:
        await service.wait()
        return
    while True:
        with trio.move_on_after(pause_s):
            await service.wait()
            return
        notify("WATCHDOG=1")


@asynccontextmanager
async def _opened(wanted: Wanted, settings: Settings) -> AsyncIterator[Service]:
    from ..actors.configured import store_target
    from ..actors.extraction import ExtractionUnavailable
    from ..actors.operations import OperationsRefused
    from ..actors.preflight import PreflightFailed
    from ..actors.scheduler import TooManyProblems
    from ..actors.service import open_service
    from .embedding import data_folder, open_embedded_node

    is_ignored = os.environ.get(VERSION_IGNORED, "").lower() in ("1", "true", "yes")
    actions: Any = wanted.actions
    try:
        async with AsyncExitStack() as stack:
            app = None
            if wanted.embedded is not None:
                keep = stack.enter_context(data_folder(wanted.embedded))
                faulty = of_embedded_node(wanted.faults)
                app = await stack.enter_async_context(open_embedded_node(wanted.embedded, faults=faulty))
                keep()
            rehearsal: dict[str, Any] = {}
            if wanted.faults is not None:
                plain = store_target(settings, embedded=app)
                target = (
                    plain if app is not None else await stack.enter_async_context(faults_before(plain, wanted.faults))
                )
                shown = wanted.faults.shown()
                rehearsal = {"faults": wanted.faults.runtime, "through": target.through, "rehearsal": shown}
                stack.callback(_say_hits, app if app is not None else target.through)
            yield await stack.enter_async_context(
                open_service(settings, embedded=app, actions=actions, ignore_version=is_ignored, **rehearsal)
            )
    except PreflightFailed as problem:
        raise CommandFailed(
            f"The service cannot begin. {problem}", hint="`callboard doctor` looks at all of it.", code=Exit.FAILED
        ) from None
    except (ExtractionUnavailable, OperationsRefused) as problem:
        raise CommandFailed(str(problem), code=Exit.USAGE) from None
    except TooManyProblems as problem:
        raise CommandFailed(str(problem), code=Exit.FAILED) from None


def _say_hits(app: Any) -> None:
    """Say at the end of a rehearsal which rules about requests have hit; the others stand in the journal."""
    import structlog

    firing = getattr(app, "firing", None)
    if firing is not None and firing.fired:
        hits = ", ".join(f"rule {number}: {times:,}" for number, times in enumerate(firing.fired))
        structlog.get_logger("callboard.service").critical(
            "REHEARSAL", text=f"It is over. So often the rules of the section elasticsearch have hit: {hits}."
        )


async def _reload(service: Service, wanted: Wanted, log: Any) -> None:
    """Read the file again. A file that cannot be used changes nothing."""
    from ..runtime import blocking
    from .systemd import notify

    notify("RELOADING=1")
    try:
        result = await blocking(read, wanted.file)
    except CommandFailed as problem:
        log.error("service.not_reloaded", why=problem.message)
    else:
        refused = service.reload(result.settings)
        _log_for(service, wanted)
        log.info("service.reloaded", needs_restart=list(refused))
    notify("READY=1")


def _leave(code: int) -> NoReturn:
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
