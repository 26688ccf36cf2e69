"""What all handles of children have in common: a path, an end that can be awaited, and the wish that it should come."""

from __future__ import annotations

import trio

from .lifecycle import StopReason


class Handle:
    """The address of a child. It stays good over restarts; it ends when the child is not started again."""

    __slots__ = ("__weakref__", "_end", "_end_is_wanted", "_pause", "_scope", "path", "reason")

    def __init__(self, path: str) -> None:
        self.path = path
        self.reason: StopReason | None = None
        """Why it ended for good; None before."""
        self._end: trio.Event | None = None
        self._scope: trio.CancelScope | None = None
        self._pause: trio.CancelScope | None = None
        self._end_is_wanted = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    async def stop(self) -> None:
        """End the child in order and wait until it has ended. It is not started again. Cancelled: it still ends."""
        self.stop_nowait()
        await self.wait_until_ended()

    def stop_nowait(self) -> None:
        """Ask the child to end in order. It is not started again."""
        self._want_end()
        self._halt()

    def cancel(self) -> None:
        """End the child in the middle of whatever it does. Its clean-up still runs. It is not started again."""
        self.stop_nowait()
        if self._scope is not None:
            self._scope.cancel()

    async def monitor(self) -> StopReason:
        """Wait for the end of the child, for good, and return why it came. Returns at once if it has ended."""
        await self.wait_until_ended()
        assert self.reason is not None
        return self.reason

    @property
    def has_ended(self) -> bool:
        """Whether it has ended for good."""
        return self.reason is not None

    async def wait_until_ended(self) -> None:
        """Wait for the end of the child, for good. Always a checkpoint."""
        if self.reason is not None:
            await trio.lowlevel.checkpoint()
            return
        if self._end is None:
            self._end = trio.Event()
        await self._end.wait()

    def _want_end(self) -> None:
        self._end_is_wanted = True
        if self._pause is not None:
            self._pause.cancel()

    def _halt(self, deadline_s: float = float("inf")) -> None:
        """End the present life in order; another may follow."""
        if self._scope is not None:
            self._scope.cancel()

    def _close(self, reason: StopReason) -> None:
        self.reason = reason
        if self._end is not None:
            self._end.set()


class TaskRef(Handle):
    """The handle of a `Task`. A task has no mailbox, so that to stop it is to cancel it."""

    __slots__ = ()
