"""How a sync fails, and whose fault it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ...protocol.store import StoreError


class SyncFailed(Exception):
    """The sync could not do its work; the text is a sentence for people."""


class LeaseGone(Exception):
    """The partition that is being listed is another service's now."""


class EngineFailed(Exception):
    """What went wrong is the engine's own fault and not the source's, so that no partition is to blame."""


@contextmanager
def engine() -> Iterator[None]:
    """Tell apart what fails here from what fails in the source whose listing is being read."""
    try:
        yield
    except (StoreError, SyncFailed):
        raise
    except Exception as exc:
        raise EngineFailed(cause(exc)) from exc


def cause(exc: BaseException) -> str:
    """Kind and text of an exception, as one line."""
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that says why a nursery ended. Cancellations are passed on whole."""
    leaves = _leaves(group)
    if any(isinstance(leaf, trio.Cancelled) or not isinstance(leaf, Exception) for leaf in leaves):
        return group
    return leaves[0]


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]
