"""How a command enters Trio: one loop per command, warnings to standard error, nothing left running."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def run_async(function: Callable[..., Awaitable[ResultT]], *arguments: Any) -> ResultT:
    """Run an async function to its end in a Trio loop of its own, and return what it returns."""
    import trio

    # What a command says at its end tells of retries too; line by line they interest only who looks for a fault.
    log_to_stderr(logging.WARNING if shows_tracebacks() else logging.ERROR)
    return trio.run(function, *arguments)


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Send what is logged to standard error: standard output is for results only."""
    import structlog

    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        # Never with the values of variables: they may be passwords.
        exception_formatter=structlog.dev.plain_traceback,
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            _without_traceback if not shows_tracebacks() else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # The file is looked up at each call: a progress display may have put itself in the place of standard error.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def shows_tracebacks() -> bool:
    """Whether the person asked for them, by `--debug` anywhere on the command line or by CALLBOARD_DEBUG."""
    return "--debug" in sys.argv or bool(os.environ.get("CALLBOARD_DEBUG"))


def _without_traceback(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("exc_info", None)
    event.pop("exception", None)
    return event
