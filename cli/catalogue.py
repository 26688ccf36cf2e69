"""Which sources there are, for the commands that take the name of one."""

from __future__ import annotations

import difflib
from typing import Any

import click


def known_service_type(name: str) -> str:
    """Return the name if there is such a source. Raises a usage error that names the nearest one and all there are."""
    from ..sources.registry import service_types

    known = [info.service_type for info in service_types()]
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    raise click.UsageError(f"There is no source {name!r}.{meant} There are: {', '.join(known)}.")


def source_type(service_type: str) -> type[Any]:
    """The class of a source. Raises `MissingDriver` that says what to install."""
    from ..sources.registry import source_class

    chosen: type[Any] = source_class(known_service_type(service_type))
    return chosen
