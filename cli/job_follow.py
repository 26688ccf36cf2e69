"""`callboard job follow`: watch a job that a service runs, to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .exits import Exit
from .job import details, summary
from .options import Command, destination_options, format_option
from .terminal import print_json, print_properties

if TYPE_CHECKING:
    from ..protocol.documents import SyncJob
    from .destination import Destination
    from .progress import Counts

LOOK_EVERY_S = 1.0
"""Services write a job's counts every few seconds, so looking more often shows nothing new."""


@click.command(cls=Command)
@click.argument("job_id")
@destination_options
@format_option("text", "json", default="text")
def follow(job_id: str, format_: str, **where: Any) -> int:
    """Watch a job until it ends.

    Ctrl-C stops watching, not the job. The exit code is 0 if the job completed, and 1 if it ended otherwise.
    """
    from ..protocol.documents import JobStatus
    from .destination import Destination
    from .running import run_async

    ended = run_async(_follow, Destination.chosen(**where), job_id)
    if format_ == "json":
        print_json(summary(ended))
    else:
        print_properties(details(ended))
    return Exit.DONE if ended.status is JobStatus.COMPLETED else Exit.FAILED


async def _follow(destination: Destination, job_id: str) -> SyncJob:
    import trio

    from .destination import open_destination
    from .progress import showing

    async with open_destination(destination) as store:
        latest = await store.jobs.get(job_id)
        async with showing(f"Job {job_id}", lambda: _counts(latest), quiet=latest.status.is_terminal):
            while True:
                if latest.status.is_terminal:
                    return latest
                await trio.sleep(LOOK_EVERY_S)
                latest = await store.jobs.get(job_id)


def _counts(job: SyncJob) -> Counts:
    from .progress import Counts

    waiting = {"pending": "a service to claim it", "suspended": "a service to go on with it"}
    own = job.metadata.get("callboard")
    told = own.get("progress") if isinstance(own, dict) else None
    progress = told if isinstance(told, dict) and job.status.is_running else {}
    return Counts(
        listed=int(progress.get("listed", 0)),
        indexed=job.indexed_document_count,
        deleted=job.deleted_document_count,
        unchanged=int(progress.get("unchanged", 0)),
        failed=int(progress.get("failed", 0)),
        size_bytes=int(progress.get("bytes", job.indexed_document_volume * 1024 * 1024)),
        queued=int(progress.get("queued", 0)),
        waiting_on=waiting.get(job.status.value, str(progress.get("waiting_on", ""))),
    )
