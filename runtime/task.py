"""A child that runs to its end and takes no messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .actor import Context
    from .tree import TreeNode


class Task:
    """Something that runs once: a download, an extraction, a pump. Override `run`."""

    async def run(self, context: Context) -> None:
        """Do the work. Returning is a normal end, raising an error one. Cancelled: the supervisor stops or is told to."""
        raise NotImplementedError

    def parts(self) -> Sequence[TreeNode]:
        """What it is made of just now, for the live tree. Asked at any moment while it runs: quick, and without changing anything."""
        return ()
