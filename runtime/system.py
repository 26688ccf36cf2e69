"""A running system of actors: one root supervisor, its events, and a register of names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from .events import Events
from .lifecycle import ChildSpec
from .supervisor import FOREVER, Supervisor, SupervisorRef
from .tree import TreeNode


class System:
    """Start actors here; look at them with `tree()`; listen with `events`."""

    def __init__(self, name: str, root: Supervisor) -> None:
        self.name = name
        self.events = Events()
        self.root = SupervisorRef(name, root, self.events, self)
        self._started_s = trio.current_time()

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


@asynccontextmanager
async def open_system(
    name: str = "callboard", root: Supervisor | None = None, *, shutdown_s: float = 30.0
) -> AsyncIterator[System]:
    """Run a system of actors while the block runs; at its end all are stopped, within `shutdown_s`.

    Raises `StartFailed` if a child of `root` cannot be started. If a child cannot be kept alive, the block is cancelled and
    `RestartsExhausted` is raised from here. Cancelled: everything is cancelled and cleaned up.
    """
    system = System(name, root or Supervisor())
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[None]) -> None:
            nonlocal failure
            try:
                await system.root.run(task_status)
            except Exception as error:
                if not is_running:
                    raise
                failure = error
                nursery.cancel_scope.cancel()

        is_running = False
        await nursery.start(run)
        is_running = True
        try:
            yield system
        finally:
            if system.root.reason is None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + shutdown_s):
                    await system.stop(shutdown_s)
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
