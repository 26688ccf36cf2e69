"""`callboard node`: the built-in node as a server of its own."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .exits import Exit
from .failures import CommandFailed
from .faults import announce, faults_option, read_fault_plans
from .options import Command
from .terminal import note

if TYPE_CHECKING:
    from ..node.faults import FaultPlans


@click.command(cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=9200, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes any free one."
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Keep everything in this folder. Without it nothing is kept when the node stops.",
)
@click.option(
    "--allow-exposed", is_flag=True, help="Listen where others can reach it, although it asks nobody for a password."
)
@faults_option("Misbehave as this YAML plan says: refuse, delay, cut, lose, restart ...")
def node(host: str, port: int, data: Path | None, allow_exposed: bool, faults: Path | None) -> None:
    """Run the built-in node, a small Elasticsearch for this machine.

    Prints one line with its URL when it is ready, and runs until Ctrl-C. It is made for development, demonstrations and tests: it
    speaks the part of Elasticsearch's interface that Callboard and its users need, answers 501 to the rest, and has no
    users and no passwords. Keep it on the loopback address.
    """
    from .running import run_async

    plans = read_fault_plans(faults, ("elasticsearch", "network")) if faults else None
    run_async(_serve, host, port, data.expanduser().absolute() if data else None, allow_exposed, plans)


async def _serve(host: str, port: int, data: Path | None, allow_exposed: bool, faults: FaultPlans | None) -> None:
    import trio

    from ..node import ExposedNode, open_node
    from .embedding import data_folder, open_attachment_reader

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, data_folder(data) as keep:
        try:
            async with (
                open_attachment_reader() as read_attachment,
                open_node(
                    data,
                    host=host,
                    port=port,
                    attachment_reader=read_attachment,
                    allow_exposed=allow_exposed,
                    faults=faults.elasticsearch if faults else None,
                    network_faults=faults.network if faults else None,
                ) as running,
            ):
                keep()
                kept = f"keeps its data in {data}" if data else "keeps nothing"
                if faults is not None:
                    announce(f"{faults.shown()}. Do not trust this node")
                click.echo(f"Callboard node is ready at {running.url} and {kept}. Ctrl-C stops it.")
                async for _ in signals:
                    note("Stopping ...")
                    break
        except ExposedNode as error:
            raise CommandFailed(
                str(error), hint="Use --host 127.0.0.1, or say --allow-exposed if you mean it.", code=Exit.USAGE
            ) from error
        except OSError as error:
            raise cannot_listen(error, host, port) from error


def cannot_listen(error: OSError, host: str, port: int) -> BaseException:
    """Say what a person can do about a port that cannot be had; anything else is given back as it is."""
    match error.errno:
        case errno.EADDRINUSE:
            return CommandFailed(
                f"Port {port} on {host} is in use by another program.",
                hint="Choose another with --port, or take any free one with --port 0.",
                code=Exit.LOCAL,
            )
        case errno.EADDRNOTAVAIL:
            return CommandFailed(
                f"This machine has no address {host}.",
                hint="Use --host 127.0.0.1 for this machine only.",
                code=Exit.LOCAL,
            )
        case errno.EACCES if error.filename is None:
            return CommandFailed(
                f"Port {port} is reserved for the administrator.", hint="Choose one above 1023.", code=Exit.LOCAL
            )
    return error
