"""What a source tells of its waits: that a system was too busy or did not answer, and how long it stays away before it asks again.

Whoever runs a source listens with `heard_by`; sources tell with `tell_wait` and need not know who listens, or whether anybody does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from .errors import SourceError, Throttled


@attrs.frozen(kw_only=True)
class Wait:
    """One wait before a request is sent again."""

    by: str
    """The system that made us wait, as messages call it."""
    why: str
    wait_s: float
    attempt: int
    """Which try failed, from 1."""
    is_busy: bool = False
    """The system said that we ask too much."""
    status: int | None = None
    """How it said so, if it speaks HTTP."""
    as_told: bool = False
    """It said how long."""
    name: str = ""
    """What was asked for, where that has a name."""


_listener: ContextVar[Callable[[Wait], None] | None] = ContextVar("callboard_source_waits", default=None)


@contextmanager
def heard_by(listener: Callable[[Wait], None]) -> Iterator[None]:
    """While the block runs, waits in it and in every task begun below it reach this listener, which must not block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell_wait(by: str, problem: SourceError, *, wait_s: float, attempt: int, name: str = "") -> None:
    """Tell that after `problem` nothing is asked for so long. Costs a look-up if nobody listens."""
    listener = _listener.get()
    if listener is None:
        return
    is_busy = isinstance(problem, Throttled)
    listener(
        Wait(
            by=by,
            why=str(problem),
            wait_s=wait_s,
            attempt=attempt,
            is_busy=is_busy,
            status=problem.status if isinstance(problem, Throttled) else None,
            as_told=isinstance(problem, Throttled) and problem.retry_after_s is not None,
            name=name,
        )
    )
