"""What a back end is to the extractor: something that reads a file that has been received in full."""

from __future__ import annotations

import abc

import attrs

from .recognition import Kind
from .results import Extraction
from .spool import Spool


@attrs.frozen
class File:
    """One file, received and recognised."""

    name: str
    spool: Spool
    kind: Kind
    media_type: str | None = None
    office_open_xml: bool = False


class Engine(abc.ABC):
    """A back end. Ready inside the async context manager that made it."""

    name: str

    @abc.abstractmethod
    async def read(self, file: File) -> Extraction:
        """Read one file. Never raises for what is wrong with the file, the engine or the network; the status says it.

        May be called by many tasks at once. Cancelled: whatever works on the file is stopped.
        """

    def release_quarantine(self) -> None:
        """Let files that were put into quarantine be tried again. An engine without a quarantine has nothing to do."""
        return


class NoEngine(Engine):
    """Reads nothing: for hosts where only plain text and markup are wanted."""

    name = "plain"

    def __init__(self, why: str) -> None:
        self._why = why

    async def read(self, file: File) -> Extraction:
        from .results import Status

        return Extraction(Status.UNSUPPORTED, detail=self._why, engine=self.name)
