"""Dead letters tried again at once: a full sync of their connectors, which leaves everything else as it is."""

from __future__ import annotations

from contextlib import aclosing

from ...protocol import JobStatus, JobType, SyncJob
from ...protocol.indices import ACL_INDEX_PREFIX
from ...protocol.store import NotFound, Store
from .dead_letters import ASKED, DEAD_LETTERS_INDEX, LETTERS_PAGE


async def request_replay(store: Store, *, index: str | None = None, job_id: str | None = None) -> tuple[SyncJob, ...]:
    """Request a sync for every connector that has marked letters, and return the jobs that will try them.

    A job that waits already is as good as a new one. Connectors that are gone, and syncs that no connector ran, have none.
    Raises `StoreError`, and `TransitionRefused` for a connector without an index or a service type.
    """
    wanted = await _connectors(store, index, job_id)
    jobs: list[SyncJob] = []
    for connector_id, job_type in sorted(wanted, key=lambda each: (each[0], each[1].value)):
        try:
            connector = await store.connectors.get(connector_id)
        except NotFound:
            continue
        waiting = store.jobs.list(connector_ids=[connector_id], statuses=[JobStatus.PENDING], job_types=[job_type])
        async with aclosing(waiting):
            found = [job async for job in waiting]
        jobs.append(found[0] if found else await store.jobs.create(connector, job_type))
    return tuple(jobs)


async def _connectors(store: Store, index: str | None, job_id: str | None) -> set[tuple[str, JobType]]:
    terms = {"replay": ASKED, "index": index, "job_id": job_id}
    query = {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items() if value is not None]}}
    pages = store.content.existing(
        DEAD_LETTERS_INDEX, fields=("connector_id", "index"), query=query, page_size=LETTERS_PAGE
    )
    wanted: set[tuple[str, JobType]] = set()
    try:
        async with aclosing(pages):
            async for page in pages:
                for source in page.sources or ():
                    if connector_id := source.get("connector_id"):
                        is_acl = str(source.get("index", "")).startswith(ACL_INDEX_PREFIX)
                        wanted.add((connector_id, JobType.ACCESS_CONTROL if is_acl else JobType.FULL))
    except NotFound:
        return set()
    return wanted
