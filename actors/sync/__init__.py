"""The sync engine: makes an index equal to a source, loses nothing, and deletes only what is known to be gone.

    report = await sync(source, "http://localhost:9200", index="notes")

`run_job` does the same for a job document of the Connector Protocol, from claim to end.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..job import run_job as run_job
    from ..job import suspend_lost as suspend_lost
    from .dead_letters import DEAD_LETTERS_INDEX as DEAD_LETTERS_INDEX
    from .dead_letters import list_dead_letters as list_dead_letters
    from .dead_letters import replay_dead_letters as replay_dead_letters
    from .embedding import sync as sync
    from .replaying import request_replay as request_replay
    from .report import FailedDocument as FailedDocument
    from .report import PartitionReport as PartitionReport
    from .report import ProgressEvent as ProgressEvent
    from .report import SyncReport as SyncReport
    from .settings import DeletionLimits as DeletionLimits
    from .settings import ErrorLimits as ErrorLimits
    from .settings import SyncSettings as SyncSettings
    from .state import confirm_deletions as confirm_deletions

_HOME = {
    "DEAD_LETTERS_INDEX": ".dead_letters",
    "DeletionLimits": ".settings",
    "ErrorLimits": ".settings",
    "FailedDocument": ".report",
    "PartitionReport": ".report",
    "ProgressEvent": ".report",
    "SyncReport": ".report",
    "SyncSettings": ".settings",
    "confirm_deletions": ".state",
    "list_dead_letters": ".dead_letters",
    "replay_dead_letters": ".dead_letters",
    "request_replay": ".replaying",
    "run_job": "..job",
    "suspend_lost": "..job",
    "sync": ".embedding",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value
