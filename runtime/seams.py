"""The places where a program touches the world: clock, randomness, ids, threads.

Everything above takes time, chance, names and blocking calls from here, so that one switch puts a whole program under virtual
time with repeatable randomness. One worker thread or real clock would spoil that, hence `blocking`, which runs inline then.
"""

from __future__ import annotations

import contextlib
import random as _random
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import attrs
import trio

T = TypeVar("T")

_EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


@attrs.define
class Seams:
    """One set of answers: the world's, or a simulated one."""

    random: _random.Random = attrs.field(factory=_random.SystemRandom)
    simulated: bool = False
    """The wall clock follows Trio's clock, ids come from `random`, and blocking calls run inline."""
    clock_offset_s: float = 0.0
    """By how much the wall clock goes wrong, in a simulation or under a fault plan. It may change at any time."""
    faults: Any = None
    """The `Injector` of the system that this runs in, if it has a fault plan."""


_seams: ContextVar[Seams] = ContextVar("callboard seams", default=Seams())  # noqa: B039 - the real world is shared


@contextlib.contextmanager
def simulated_seams(seed: int) -> Iterator[Seams]:
    """Take clock, randomness, ids and threads from a simulation while the context is open, here and in tasks begun inside."""
    seams = Seams(random=_random.Random(seed), simulated=True)  # noqa: S311 - repeatable on purpose
    token = _seams.set(seams)
    try:
        yield seams
    finally:
        _seams.reset(token)


@contextlib.contextmanager
def own_clock(offset_s: float = 0.0) -> Iterator[Seams]:
    """In a simulation: give this task, and tasks begun inside, a wall clock that is wrong by so much.

    A machine of its own among several in one simulation. Everything else stays shared; set `clock_offset_s` to move the clock.
    """
    seams = attrs.evolve(_seams.get(), clock_offset_s=offset_s)
    token = _seams.set(seams)
    try:
        yield seams
    finally:
        _seams.reset(token)


@contextlib.contextmanager
def separate_seams(seed: int | None) -> Iterator[Seams]:
    """Give this task, and tasks begun inside, seams of their own; with a seed, chance and ids of their own, too."""
    before = _seams.get()
    chance = before.random if seed is None else _random.Random(seed)  # noqa: S311 - repeatable on purpose
    seams = attrs.evolve(before, random=chance)
    token = _seams.set(seams)
    try:
        yield seams
    finally:
        _seams.reset(token)


def current_faults() -> Any:
    """The `Injector` of the system that this runs in; None if it has no fault plan."""
    return _seams.get().faults


def is_simulated() -> bool:
    """Whether a simulation is on."""
    return _seams.get().simulated


def now() -> datetime:
    """Return the wall-clock time, aware, in UTC. In a simulation it advances with Trio's clock from a fixed day."""
    seams = _seams.get()
    if seams.simulated:
        return _EPOCH + timedelta(seconds=trio.current_time() + seams.clock_offset_s)
    if seams.clock_offset_s:
        return datetime.now(UTC) + timedelta(seconds=seams.clock_offset_s)
    return datetime.now(UTC)


def monotonic() -> float:
    """Return Trio's clock in seconds. Only differences mean anything."""
    return trio.current_time()


def random() -> _random.Random:
    """Return the source of randomness: the system's, or the simulation's seeded one."""
    return _seams.get().random


def new_id() -> str:
    """Return 32 hexadecimal digits that nobody has used before."""
    seams = _seams.get()
    return uuid.UUID(int=seams.random.getrandbits(128), version=4).hex


async def blocking(
    function: Callable[..., T],
    *args: object,
    abandon_on_cancel: bool = True,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Call a function that blocks, in a worker thread; inline in a simulation.

    Cancelled: with `abandon_on_cancel` the call returns at once and the thread ends by itself, its result dropped; without,
    the cancellation waits for the thread. `limiter` bounds the threads of one kind (Trio's default limiter if None).
    """
    if _seams.get().simulated:
        await trio.lowlevel.checkpoint()
        return function(*args)
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
