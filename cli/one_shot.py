"""One sync job, run in this process: made, claimed, worked off and ended truthfully, with its progress on the screen."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs

from .failures import CommandFailed
from .options import again
from .progress import Counts, showing

if TYPE_CHECKING:
    from ..actors.extraction import ExtractionSettings, Extractor
    from ..actors.sync.report import ProgressEvent, SyncReport
    from ..protocol.documents import Connector, JobType, SyncJob
    from ..protocol.store import Store


ALONE_PATIENCE_S = 5.0
"""How long a server inside this process is waited for: nobody but us keeps it busy, so a refusal, such as a full disk, will stay."""


@attrs.frozen
class Ended:
    """How a sync ended, and whether a signal ended it."""

    report: SyncReport
    interrupted: bool
    connector_id: str


async def check_source(service_type: str, configuration: Mapping[str, Any]) -> None:
    """Ask the source whether it answers and can work with these settings. Raises `SourceError`; nothing is written."""
    from ..protocol.configuration import read_configuration
    from .catalogue import source_type

    chosen = source_type(service_type)
    source = chosen(read_configuration(chosen.Config, configuration))
    async with source.session():
        await source.ping()
        await source.validate()


async def run_one_shot(
    store: Store,
    connector: Connector,
    kind: str,
    *,
    title: str,
    alone: bool,
    quiet: bool = False,
    extraction: ExtractionSettings | None = None,
    notes: Sequence[str] = (),
) -> Ended:
    """Run one job of the connector to its end, whatever that is.

    A job that was suspended is gone on with; otherwise a new one is made. `alone` says that no other process can be working on this
    server's jobs, so that one which seems to run must have lost its process. A signal ends the job in order: it is canceled.
    `extraction` says how files become text; None: as is usual. `notes` are sentences for the job's document and report. Raises `CommandFailed` if the connector runs a job elsewhere, and
    `ExtractionUnavailable`.
    """
    import trio

    from ..actors.job import run_job
    from ..actors.sync.settings import SyncSettings
    from ..actors.worker_name import own_name
    from ..protocol.documents import JobType
    from ..runtime import blocking

    job_type = JobType(kind)
    job = await _job_to_run(store, connector, job_type, alone)
    latest = Counts()
    stop = trio.Event()

    def note_progress(event: ProgressEvent) -> None:
        nonlocal latest
        latest = _counts(event)

    async def obey_signals(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                stop.set()

    settings = SyncSettings(patience_s=ALONE_PATIENCE_S, item_tries_max=5) if alone else SyncSettings()
    if extraction is not None:
        settings = attrs.evolve(settings, attachment_characters_max=extraction.limits.characters_max)
    async with _opened(extraction) as extractor, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: obey_signals(task_status))
        async with showing(title, lambda: latest, quiet=quiet):
            report = await run_job(
                store,
                job,
                settings=settings,
                stop=stop,
                if_interrupted="cancel",
                on_progress=note_progress,
                extractor=extractor,
                worker_hostname=str(await blocking(own_name)),
                notes=notes,
            )
        nursery.cancel_scope.cancel()
    return Ended(report, interrupted=stop.is_set() and report.status != "completed", connector_id=connector.id)


@asynccontextmanager
async def _opened(extraction: ExtractionSettings | None) -> AsyncIterator[Extractor | None]:
    if extraction is None:
        yield None
        return
    from ..actors.extraction import open_extractor

    async with open_extractor(extraction) as extractor:
        yield extractor


def _counts(event: ProgressEvent) -> Counts:
    return Counts(
        listed=event.listed,
        indexed=event.indexed,
        deleted=event.deleted,
        unchanged=event.unchanged,
        failed=event.failed,
        size_bytes=event.size_bytes,
        queued=event.queued,
        waiting_on=event.waiting_on,
    )


async def _job_to_run(store: Store, connector: Connector, job_type: JobType, alone: bool) -> SyncJob:
    from ..protocol.documents import JobStatus

    current = await store.connectors.get(connector.id)
    if current.status_of(job_type) is JobStatus.IN_PROGRESS:
        await _free(store, current, job_type, alone)
    async for job in store.jobs.list(
        connector_ids=[connector.id], statuses=[JobStatus.SUSPENDED], job_types=[job_type], newest_first=True
    ):
        if job.connector.configuration == current.configuration:
            return job
    return await store.jobs.create(current, job_type)


def _has_died(job: SyncJob) -> bool:
    """Whether the process that runs this job was one of this machine and has ended, killed for example. Blocking."""
    from ..actors.worker_name import WorkerName, own_name, started_of

    worker = WorkerName.parse(job.worker_hostname)
    return worker is not None and worker.is_dead(own_name(), started_of)


async def _free(store: Store, connector: Connector, job_type: JobType, alone: bool) -> None:
    """End what only seems to run, because its process is gone. Raises `CommandFailed` if it may really run."""
    from ..protocol import jobs as transitions
    from ..protocol.documents import JobStatus
    from ..runtime import blocking, now

    def put_aside(job: SyncJob) -> SyncJob:
        if job.status is JobStatus.CANCELING:
            return transitions.cancel(job, now())
        return transitions.suspend(job, now())

    async for job in store.jobs.list(
        connector_ids=[connector.id], statuses=[JobStatus.IN_PROGRESS, JobStatus.CANCELING]
    ):
        if job.job_type.is_content is not job_type.is_content:
            continue
        if not (alone or transitions.is_idle(job, now()) or await blocking(_has_died, job)):
            raise CommandFailed(
                f"The job {job.id} of connector {connector.id} is running on {job.worker_hostname or 'another machine'}.",
                hint=f"Wait for it ({again(f'job follow {job.id}')}), or end it: {again(f'job cancel {job.id}')}",
            )
        ended = await store.jobs.documents.update(job.id, put_aside)
        await store.connectors.sync_ends(connector.id, ended)

    def decide(current: Connector) -> Connector:
        # Noted as running without a job that runs: the process ended between its two writes.
        if current.status_of(job_type) is not JobStatus.IN_PROGRESS:
            return current
        if job_type.is_content:
            return attrs.evolve(current, last_sync_status=None)
        return attrs.evolve(current, last_access_control_sync_status=None)

    await store.connectors.update(connector.id, decide)
