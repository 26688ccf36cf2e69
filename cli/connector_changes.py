"""`callboard connector edit|schedule|enable|disable|pause|resume|check`: what people change on a connector that exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import click

from .catalogue import source_type
from .failures import CommandFailed
from .job import JOB_TYPES
from .options import Command, again, destination_options, format_option
from .settings import check_fields, parse_assignments, with_values
from .terminal import tell_done

if TYPE_CHECKING:
    from ..protocol.documents import Connector
    from .destination import Destination

_TYPE_OPTION = click.option(
    "-t",
    "job_type",
    type=click.Choice(JOB_TYPES, case_sensitive=False),
    help="Which kind of sync.  [full; for disable: all]",
)


@click.command(cls=Command)
@click.argument("connector_id")
@click.option("--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="A setting of the source; repeatable.")
@click.option("--name", help="What people call the connector.")
@click.option("--description", help="What it is for.")
@destination_options
@format_option("text", "json", default="text")
def edit(
    connector_id: str,
    assignments: tuple[str, ...],
    name: str | None,
    description: str | None,
    format_: str,
    **where: Any,
) -> None:
    """Change settings of a connector.

    The new settings are checked as a service would check them, all at once, and nothing is saved if one cannot be used.
    """
    from .destination import Destination

    values = parse_assignments(assignments)
    if not values and name is None and description is None:
        raise click.UsageError("Say what to change: --set, --name or --description.")

    def decide(connector: Connector) -> Connector:
        changed = _configured(connector, values) if values else connector
        renamed: dict[str, Any] = {
            key: text for key, text in {"name": name, "description": description}.items() if text is not None
        }
        return attrs.evolve(changed, **renamed)

    changed = _change(Destination.chosen(**where), connector_id, decide)
    tell_done(
        format_,
        f"Changed the connector {connector_id}; it is {changed.status.value.replace('_', ' ')}.",
        {"id": connector_id, "status": changed.status.value},
    )


def _configured(connector: Connector, values: dict[str, str]) -> Connector:
    from ..protocol import connectors as transitions
    from ..protocol.configuration import read_configuration, schema_of, upkeep

    if connector.service_type is None:
        raise CommandFailed(f"The connector {connector.id} has no service type, so it has no settings.")
    config_class = source_type(connector.service_type).Config
    present = upkeep(connector.configuration, config_class).configuration
    check_fields(connector.service_type, schema_of(config_class), values)
    entered = with_values(present, values)
    read_configuration(config_class, entered)
    return transitions.configured(connector, entered)


@click.command(cls=Command)
@click.argument("connector_id")
@click.argument("interval")
@_TYPE_OPTION
@destination_options
@format_option("text", "json", default="text")
def schedule(connector_id: str, interval: str, job_type: str | None, format_: str, **where: Any) -> None:
    """Say when a connector syncs.

    INTERVAL is a cron expression with seconds, in UTC: second, minute, hour, day of month, month, day of week.

    \b
    callboard connector schedule 7f3a "0 0 2 * * ?"          every night at two
    callboard connector schedule 7f3a "0 */15 * * * ?"       every quarter of an hour
    """
    from ..protocol.cron import Cron
    from ..runtime import now
    from .destination import Destination

    following = Cron.parse(interval).next_after(now())
    kind = (job_type or "full").lower()
    _change(Destination.chosen(**where), connector_id, lambda each: _scheduled(each, kind, True, interval))
    when = f"next at {following:%Y-%m-%d %H:%M:%S} UTC" if following else "but that time never comes"
    tell_done(
        format_,
        f"The {kind} sync of {connector_id} is on, {when}.",
        {"id": connector_id, "job_type": kind, "interval": interval, "next_at": following},
    )


@click.command(cls=Command)
@click.argument("connector_id")
@_TYPE_OPTION
@destination_options
@format_option("text", "json", default="text")
def enable(connector_id: str, job_type: str | None, format_: str, **where: Any) -> None:
    """Let the schedules of a connector fire."""
    from .destination import Destination

    kind = (job_type or "full").lower()
    changed = _change(Destination.chosen(**where), connector_id, lambda each: _scheduled(each, kind, True))
    every = getattr(changed.scheduling, kind).interval
    tell_done(
        format_,
        f"The {kind} sync of {connector_id} is on: {every}",
        {"id": connector_id, "job_types": [kind], "enabled": True, "interval": every},
    )


@click.command(cls=Command)
@click.argument("connector_id")
@_TYPE_OPTION
@destination_options
@format_option("text", "json", default="text")
def disable(connector_id: str, job_type: str | None, format_: str, **where: Any) -> None:
    """Stop the schedules of a connector."""
    from .destination import Destination

    kinds = [job_type.lower()] if job_type else list(JOB_TYPES)

    def decide(connector: Connector) -> Connector:
        for kind in kinds:
            connector = _scheduled(connector, kind, False)
        return connector

    _change(Destination.chosen(**where), connector_id, decide)
    tell_done(
        format_,
        f"The connector {connector_id} syncs no more by itself ({', '.join(kinds)}); jobs that run go on.",
        {"id": connector_id, "job_types": kinds, "enabled": False},
    )


@click.command(cls=Command)
@click.argument("connector_id")
@click.option("--because", "why", metavar="TEXT", default="", help="Why, for whoever looks at the connector later.")
@destination_options
@format_option("text", "json", default="text")
def pause(connector_id: str, why: str, format_: str, **where: Any) -> None:
    """Hold all syncs of a connector, at every service.

    Its schedules make no jobs, jobs that are asked for wait, and one that runs is suspended. It stays so, also when services are
    started again, until somebody resumes it.
    """
    from ..protocol.pausing import pause_connector
    from ..runtime import now
    from .destination import Destination

    text = " ".join(why.split())
    _change(
        Destination.chosen(**where), connector_id, lambda one: pause_connector(one, now(), "the command line", text)
    )
    tell_done(
        format_,
        f"The connector {connector_id} is paused. Resume it with: {again(f'connector resume {connector_id}')}",
        {"id": connector_id, "paused": True},
    )


@click.command(cls=Command)
@click.argument("connector_id")
@destination_options
@format_option("text", "json", default="text")
def resume(connector_id: str, format_: str, **where: Any) -> None:
    """Let a paused connector sync again.

    What was suspended goes on from where it was.
    """
    from ..protocol.pausing import resume_connector
    from .destination import Destination

    _change(Destination.chosen(**where), connector_id, resume_connector)
    tell_done(format_, f"The connector {connector_id} syncs again.", {"id": connector_id, "paused": False})


def _scheduled(connector: Connector, kind: str, enabled: bool, interval: str | None = None) -> Connector:
    present = getattr(connector.scheduling, kind)
    changed = attrs.evolve(present, enabled=enabled, interval=interval or present.interval)
    return attrs.evolve(connector, scheduling=attrs.evolve(connector.scheduling, **{kind: changed}))


def _change(destination: Destination, connector_id: str, decide: Callable[[Connector], Connector]) -> Connector:
    from .running import run_async

    return run_async(_update, destination, connector_id, decide)


async def _update(destination: Destination, connector_id: str, decide: Callable[[Connector], Connector]) -> Connector:
    from .destination import open_destination

    async with open_destination(destination) as store:
        return await store.connectors.update(connector_id, decide)


@click.command(cls=Command)
@click.argument("connector_id")
@destination_options
@format_option("text", "json", default="text")
def check(connector_id: str, format_: str, **where: Any) -> None:
    """Ask a connector's source whether it answers and takes the settings.

    Nothing is written: neither the connector nor its index changes.
    """
    from .destination import Destination
    from .running import run_async

    title = run_async(_check, Destination.chosen(**where), connector_id)
    tell_done(
        format_,
        f"{title} answers, takes the credentials and can work with the settings.",
        {"id": connector_id, "source": title, "ok": True},
    )


async def _check(destination: Destination, connector_id: str) -> str:
    from ..protocol.configuration import read_configuration
    from .destination import open_destination

    async with open_destination(destination) as store:
        connector = await store.connectors.get(connector_id)
    if connector.service_type is None:
        raise CommandFailed(f"The connector {connector_id} has no service type, so there is nothing to ask.")
    chosen = source_type(connector.service_type)
    source = chosen(read_configuration(chosen.Config, connector.configuration))
    async with source.session():
        await source.ping()
        await source.validate()
    title: str = chosen.name
    return title
