"""How the engine and the service tell what happens, without knowing who listens.

Whoever runs a job sets a `Teller` for the tasks below it; `tell` finds it through the context of the running task. Without one,
telling costs a look-up and does nothing. Listeners are called at once, in the loop, and must neither block nor raise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import attrs
import structlog

from ...runtime import now
from ...sources.waiting import Wait, heard_by
from ..secrets import hidden
from .entry import Entry, Happening
from .events import Retried, Throttled

log = structlog.get_logger(__name__)

Listener = Callable[[Entry], None]


@attrs.define(eq=False)
class Teller:
    """Makes entries of events and hands them to all listeners. One per service, or per job run alone."""

    worker: str = ""
    listeners: list[Listener] = attrs.field(factory=list)
    secrets: Callable[[], tuple[str, ...]] = tuple
    """What no entry that is kept may quote, asked for at each."""
    runs: dict[str, Any] = attrs.field(factory=dict)
    """Job id -> the engine's run, while it runs: whoever shows live progress asks it."""
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def tell(self, happening: Happening, *, connector_id: str = "", job_id: str = "") -> None:
        """Hand an event to the listeners. A listener that fails is logged, and the work goes on."""
        if not self.listeners:
            return
        entry = Entry(
            at=now(),
            happening=hidden(happening, self.secrets()) if happening.is_kept else happening,
            connector_id=connector_id,
            job_id=job_id,
            worker=self.worker,
            number=next(self._numbers),
        )
        for listener in self.listeners:
            try:
                listener(entry)
            except Exception as exc:  # noqa: BLE001 - who listens must never harm the work that is told of
                log.error("journal.listener_failed", kind=entry.kind, why=f"{type(exc).__name__}: {exc}")


@attrs.frozen
class Place:
    """What the running task works for."""

    teller: Teller
    connector_id: str
    job_id: str


_place: ContextVar[Place | None] = ContextVar("callboard_journal_place", default=None)


@contextmanager
def telling(teller: Teller | None, *, connector_id: str = "", job_id: str = "") -> Iterator[None]:
    """While the block runs, `tell` in it and in every task below it reaches this teller. None leaves all as it is.

    So do the waits of the source that works there.
    """
    if teller is None:
        yield
        return
    token = _place.set(Place(teller, connector_id, job_id))
    try:
        with heard_by(_tell_wait):
            yield
    finally:
        _place.reset(token)


def _tell_wait(wait: Wait) -> None:
    if wait.is_busy:
        tell(Throttled(by=wait.by, status=wait.status, wait_s=wait.wait_s, as_told=wait.as_told))
    else:
        tell(Retried(what="source", attempt=wait.attempt, wait_s=wait.wait_s, why=wait.why, name=wait.name))


def tell(happening: Happening) -> None:
    """Tell of an event of the job that the running task works for, if anybody listens."""
    place = _place.get()
    if place is not None:
        place.teller.tell(happening, connector_id=place.connector_id, job_id=place.job_id)


def is_told() -> bool:
    """Whether anybody listens: what is told at the pace of pages is only made then."""
    place = _place.get()
    return place is not None and bool(place.teller.listeners)


@contextmanager
def shown(run: Any) -> Iterator[None]:
    """While the block runs, whoever shows live progress of this job finds `run`."""
    place = _place.get()
    if place is None or not place.job_id:
        yield
        return
    place.teller.runs[place.job_id] = run
    try:
        yield
    finally:
        place.teller.runs.pop(place.job_id, None)
