"""How a command enters Trio: one loop per command, warnings to standard error, nothing left running."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def run_async(function: Callable[..., Awaitable[ResultT]], *arguments: Any) -> ResultT:
    """Run an async function to its end in a Trio loop of its own, and return what it returns."""
    import trio

    log_to_stderr()
    return trio.run(function, *arguments)


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Send what is logged to standard error: standard output is for results only."""
    import structlog

    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")
    colours = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=colours),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # The file is looked up at each call: a progress display may have put itself in the place of standard error.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
