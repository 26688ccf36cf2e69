"""`--faults FILE`: read what shall go wrong, put it where it belongs, and say loudly that it is on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .exits import Exit
from .failures import CommandFailed
from .terminal import note

if TYPE_CHECKING:
    from ..node.faults import FaultPlans, ServerFaultPlan
    from ..protocol.store import Target

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def faults_option(text: str, *, required: bool = False) -> Callable[[CommandT], CommandT]:
    """The option `--faults FILE`."""
    return click.option(
        "--faults",
        metavar="FILE",
        required=required,
        type=click.Path(path_type=Path),
        help=f"{text} For rehearsals only.",
    )


def read_fault_plans(path: Path, used: tuple[str, ...]) -> FaultPlans:
    """Read a file of faults, and say which of its sections mean nothing to a command that uses only `used`.

    Raises `CommandFailed` that names the rule and the key, or says that nothing of it is for this command.
    """
    import yaml

    from ..node.faults import InvalidPlan, read_plans
    from ..node.faults.sections import SECTIONS

    try:
        plans = read_plans(yaml.safe_load(path.expanduser().read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CommandFailed(f"The fault plan {str(path)!r} does not exist.", code=Exit.NOT_FOUND) from None
    except OSError as error:
        raise CommandFailed(
            f"The fault plan {str(path)!r} cannot be read: {error.strerror}.", code=Exit.LOCAL
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CommandFailed(
            f"The fault plan {str(path)!r} cannot be used: it is not YAML{where}.", code=Exit.USAGE
        ) from None
    except InvalidPlan as error:
        reason = " ".join(str(error).split())
        raise CommandFailed(f"The fault plan {str(path)!r} cannot be used: {reason}", code=Exit.USAGE) from None
    given = [name for name in SECTIONS if getattr(plans, name) is not None]
    unused = [name for name in given if name not in used]
    if len(unused) == len(given):
        raise CommandFailed(
            f"The fault plan {str(path)!r} has nothing for this command, which uses the sections {' and '.join(used)}.",
            code=Exit.USAGE,
        )
    for name in unused:
        note(f"The section {name!r} of {path} means nothing to this command.")
    return plans


def announce(what: str) -> None:
    """Say on standard error, even if little shall be printed, that faults are on."""
    click.echo(click.style(f"REHEARSAL: faults are injected on purpose: {what}.", bold=True, reverse=True), err=True)


def of_embedded_node(plans: FaultPlans | None) -> ServerFaultPlan | None:
    """The faults that a node in this process can have. Raises `CommandFailed` if there are others for it."""
    if plans is None:
        return None
    if plans.network is not None:
        raise CommandFailed(
            "The section 'network' of the fault plan needs a server: no wire leads to the node in this process.",
            code=Exit.USAGE,
        )
    return plans.elasticsearch


@asynccontextmanager
async def faults_before(target: Target, plans: FaultPlans | None) -> AsyncIterator[Target]:
    """Put the faults of requests and connections between a target and its server."""
    if plans is None or (plans.elasticsearch is None and plans.network is None):
        yield target
        return
    import attrs

    from .. import __version__
    from ..node.faults import open_faulty_way

    place = target.node_config(__version__)
    host = f"[{place.host}]" if ":" in place.host else place.host
    url = f"{place.scheme}://{host}:{place.port}{place.path_prefix}"
    verify = place.ssl_context if place.ssl_context is not None else True
    async with open_faulty_way(url, plans.elasticsearch, plans.network, verify=verify) as app:
        yield attrs.evolve(target, through=app)
