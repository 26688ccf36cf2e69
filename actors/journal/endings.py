"""How a job's end is told. Pure."""

from __future__ import annotations

from typing import Any

from .entry import Happening
from .events import JobCancelled, JobCompleted, JobFailed, JobSuspended


def ending(report: Any) -> Happening:
    """The event that tells of a job's end, made of its `SyncReport`."""
    facts: dict[str, Any] = {"indexed": report.indexed, "deleted": report.deleted, "seconds": report.seconds}
    match report.status:
        case "completed":
            return JobCompleted(**facts, unchanged=report.unchanged, failed=report.failed, size_bytes=report.bytes)
        case "suspended":
            return JobSuspended(**facts)
        case "canceled":
            return JobCancelled(**facts)
    return JobFailed(**facts, why=report.error or "It is not known why.")
