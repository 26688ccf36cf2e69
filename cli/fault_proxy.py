"""`callboard fault-proxy`: stand in front of a real server and misbehave."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .exits import Exit
from .failures import CommandFailed
from .faults import announce, faults_option, read_fault_plans
from .options import Command
from .terminal import counted, note

if TYPE_CHECKING:
    from ..node.faults import FaultPlans

USED = ("elasticsearch", "network")


@click.command(cls=Command)
@click.argument("url")
@faults_option("What shall go wrong: the sections elasticsearch and network of a YAML plan.", required=True)
@click.option(
    "--port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port on this machine; 0 takes any free one.",
)
@click.option(
    "--ca-certs", metavar="FILE", type=click.Path(path_type=Path), help="Certificates to trust at the server."
)
def fault_proxy(url: str, faults: Path, port: int, ca_certs: Path | None) -> None:
    """Stand in front of a real server and misbehave, for rehearsals.

    Prints one line with the URL to use instead of URL, and runs until Ctrl-C. It listens on this machine only, without
    encryption; to a server at https:// it speaks encrypted. With a plan that has the section network alone, bytes are passed on
    as they are. At the end it says how often each rule has hit.
    """
    from .running import run_async

    run_async(_stand, url, read_fault_plans(faults, USED), port, ca_certs)


async def _stand(url: str, plans: FaultPlans, port: int, ca_certs: Path | None) -> None:
    import ssl

    import trio

    from ..node.faults import open_faulty_server

    try:
        verify = ssl.create_default_context(cafile=str(ca_certs)) if ca_certs else True
    except (OSError, ssl.SSLError) as error:
        raise CommandFailed(
            f"The certificates in {str(ca_certs)!r} cannot be read: {error}.", code=Exit.USAGE
        ) from None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with open_faulty_server(url, plans.elasticsearch, plans.network, port=port, verify=verify) as front:
                announce(plans.shown())
                click.echo(f"Use {front.url} instead of {url}. Ctrl-C stops it.")
                async for _ in signals:
                    note("Stopping ...")
                    break
                if front.app is not None:
                    _tell("elasticsearch", dict(enumerate(front.app.firing.fired)))
                if plans.network is not None:
                    _tell("network", front.proxy.fired)
        except ValueError as error:
            raise CommandFailed(str(error), code=Exit.USAGE) from None
        except OSError as error:
            from .node import cannot_listen

            raise cannot_listen(error, "127.0.0.1", port) from error


def _tell(section: str, fired: object) -> None:
    assert isinstance(fired, dict)
    for rule, times in fired.items():
        note(f"{section} rule {rule}: hit {counted(times, 'time')}")
