"""A running system of actors: one root supervisor, its events, and a register of names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, overload

import trio

from .events import Event, Events
from .lifecycle import SHUTDOWN, ChildSpec, StopReason
from .seams import Seams, separate_seams
from .supervisor import FOREVER, ActorT, Supervisor, SupervisorRef
from .tree import TreeNode

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from .actor import ActorRef
    from .faults import FaultPlan, Injector
    from .handle import TaskRef
    from .task import Task
    from .telemetry import Telemetry


class System:
    """Start actors here; look at them with `tree()`; listen with `events`."""

    def __init__(self, name: str, root: Supervisor, telemetry: Telemetry | None = None) -> None:
        self.name = name
        self.telemetry = telemetry
        self.events = Events()
        self.faults: Injector | None = None
        """What injects faults, if the system was opened with a plan."""
        self.root = SupervisorRef(name, self.events, self)
        self.root._begin(root)
        self._started_s = trio.current_time()

    @overload
    async def spawn(self, spec: ChildSpec[ActorT]) -> ActorRef[ActorT]: ...
    @overload
    async def spawn(self, spec: ChildSpec[Task]) -> TaskRef: ...
    @overload
    async def spawn(self, spec: ChildSpec[Supervisor]) -> SupervisorRef: ...
    @overload
    async def spawn(self, spec: ChildSpec) -> Any: ...
    async def spawn(self, spec: ChildSpec) -> Any:
        """Start a child of the root and return its ref once it has started. Raises `StartFailed` and `NameTaken`."""
        return await self.root.start_child(spec)

    def find(self, path: str) -> Any:
        """Return the ref of whoever has this path below the root, such as `connectors/42`, or None."""
        place: Any = self.root
        for name in path.split("/"):
            place = place.child(name) if isinstance(place, SupervisorRef) else None
        return place

    def tree(self) -> TreeNode:
        """Everything that runs now. Print it, or walk it."""
        return TreeNode(
            name=self.name,
            kind="System",
            state="running" if self.root.reason is None else "ended",
            since_s=trio.current_time() - self._started_s,
            children=self.root.tree(),
        )

    async def stop(self, timeout_s: float = FOREVER) -> None:
        """Stop everything in reverse order; whoever is not done in time is cancelled."""
        await self.root.stop(trio.current_time() + timeout_s)

    async def kill(self) -> None:
        """Cancel everything now, also in the middle of a stop; clean-ups still get their time."""
        await self.stop(0.0)


@asynccontextmanager
async def open_system(
    name: str = "callboard",
    root: Supervisor | None = None,
    *,
    shutdown_s: float = 30.0,
    tracer: Tracer | None = None,
    seed: int | None = None,
    faults: FaultPlan | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> AsyncIterator[System]:
    """Run a system of actors while the block runs; at its end all are stopped, within `shutdown_s`.

    `faults` makes it misbehave by rules, for tests and rehearsals; `system.faults` tells what was injected. `seed` decides
    what chance decides inside: the draws of the rules, and `random()` and `new_id()`. None: the plan's seed, and the
    world's chance.
    `tracer`: of OpenTelemetry (extra `opentelemetry`), to put spans round what actors do.
    `on_event` is called, as by `system.events.calling`, with every event: also those of the start and of the stop, which
    happen outside of the block.

    Raises `StartFailed` if a child of `root` cannot be started. If a child cannot be kept alive, the block is cancelled and
    `RestartsExhausted` is raised from here. What the block raises is raised as it is. Cancelled: all is stopped in order,
    within `shutdown_s`.
    """
    telemetry = None
    if tracer is not None:
        from .telemetry import Telemetry

        telemetry = Telemetry(tracer)
    system = System(name, root or Supervisor(), telemetry)
    failures: list[BaseException] = []
    hears = nullcontext() if on_event is None else system.events.calling(on_event)
    with hears, _bare_interrupt(), _own_seams(seed, faults) as seams, trio.CancelScope() as block:
        async with trio.open_nursery() as nursery:
            if faults is not None and seams is not None:
                from .faults import Injector

                system.faults = seams.faults = Injector(faults, seed, system.events, seams, nursery)
            is_up = trio.Event()
            nursery.start_soon(_run_root, system, is_up, block, failures)
            try:
                # A stop in order needs time after a cancellation, so the root is never cancelled but through its own deadline.
                await is_up.wait()
                if not failures:
                    yield system
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised again below, not wrapped into a group by the nursery
                failures.append(error)
            finally:
                system.root._halt(trio.current_time() + shutdown_s)
    if failures:
        first, *others = failures
        for other in others:
            first.add_note(f"Afterwards: {type(other).__name__}: {other}")
        raise first


@contextmanager
def _own_seams(seed: int | None, faults: FaultPlan | None) -> Iterator[Seams | None]:
    if seed is None and faults is None:
        yield None
        return
    with separate_seams(seed) as seams:
        yield seams


async def _run_root(system: System, is_up: trio.Event, block: trio.CancelScope, failures: list[BaseException]) -> None:
    root = system.root
    reason = SHUTDOWN
    try:
        with trio.CancelScope(shield=True):
            await root.run(_Up(is_up))
    except Exception as error:  # noqa: BLE001 - the system ends here; its failure is raised by `open_system`
        failures.append(error)
        reason = StopReason("error", error)
    finally:
        root._close(reason)
        if system.faults is not None:
            system.faults.close()
        if not is_up.is_set() or reason.kind == "error":
            block.cancel()
        is_up.set()


@contextmanager
def _bare_interrupt() -> Iterator[None]:
    """Python ends a program quietly at a `KeyboardInterrupt`, but not at a group that has one inside."""
    try:
        yield
    except BaseExceptionGroup as group:
        found: BaseException | None = group.subgroup(KeyboardInterrupt)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if found is None:
            raise
        raise found from None


class _Up:
    def __init__(self, is_up: trio.Event) -> None:
        self._is_up = is_up

    def started(self, value: None = None) -> None:
        self._is_up.set()
