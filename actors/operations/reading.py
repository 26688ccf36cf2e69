"""Reads what the pages show: from the running service, from Elasticsearch, and a sentence where that does not answer."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any, TypeVar

from ...protocol import Connector, SyncJob
from ...protocol.pausing import pause_of
from ...protocol.store import NotFound, StoreError
from ..journal import Line, read_journal, told
from ..service_state import ServiceState
from ..sync.dead_letters import DEAD_LETTERS_INDEX, list_dead_letters
from ..sync.state import found_in_state, read_held
from .connector_page import LETTERS_SHOWN, ConnectorFacts
from .job_page import Held, JobFacts
from .throughput import Throughput
from .view import connector_view, job_view

T = TypeVar("T")
HISTORY_SHOWN = 25
ERRORS_SHOWN = 20
STORY_READ = 1_000
EXAMPLES_SHOWN = 10


async def connector_facts(state: ServiceState, speeds: Throughput, connector_id: str) -> ConnectorFacts:
    """Read one connector. Raises `NotFound`, and `StoreError` if not even the connector can be had."""
    connector = await _connector(state, connector_id)
    letters = await _or_why(_letters(state, connector)) if connector.index_name else ([], 0)
    shown, total = (letters, 0) if isinstance(letters, str) else letters
    return ConnectorFacts(
        connector=connector,
        seen=connector_view(state, connector_id) if connector_id in state.connectors else None,
        rates=speeds.of(connector_id),
        history=await _or_why(_history(state, connector_id)),
        errors=await _or_why(_errors(state, connector_id)),
        letters=shown,
        letters_total=total,
    )


async def job_facts(state: ServiceState, speeds: Throughput, job_id: str) -> JobFacts:
    """Read one job. Raises `NotFound`, and `StoreError` if not even the job can be had."""
    try:
        job = await state.store.jobs.get(job_id)
    except NotFound:
        raise
    except StoreError:
        if job_id not in state.running:
            raise
        job = state.running[job_id]
    known = state.connectors.get(job.connector.id)
    waiting = state.waiting.get(job_id)
    return JobFacts(
        job=job,
        name=(known.name if known is not None else None) or job.connector.id,
        live=job_view(state, job_id) if job_id in state.running else None,
        rates=speeds.of(job.connector.id) if job_id in state.running else (),
        story=await _or_why(_story(state, job_id)),
        held=await _or_why(held_back(state, job)),
        letters=await _or_why(_count(state, {"job_id": job_id})),
        waits=waiting.why if waiting is not None else None,
        is_paused=is_paused(state, job),
        worker=state.worker,
    )


def is_paused(state: ServiceState, job: SyncJob) -> bool:
    """Whether a person has paused this job, at whichever service, or is pausing it here at this moment."""
    held = state.held.get(job.id)
    return pause_of(job) is not None or (held is not None and held.until_s == float("inf"))


async def held_back(state: ServiceState, job: SyncJob) -> Held | None:
    """The deletions that a job has held back and that nobody has confirmed yet. Raises `StoreError`."""
    if job.connector.index_name is None:
        return None
    held = await read_held(state.store, job.connector.index_name)
    if held is None or held.job_id != job.id or held.state != "waiting":
        return None
    query = {"bool": {"filter": [{"term": {"kind": "held_ids"}}, {"term": {"held_id": held.held_id}}]}}
    examples: list[str] = []
    found = found_in_state(state.store, query)
    async with aclosing(found):
        async for source in found:
            examples = [str(pair) for pair in islice(dict(source["ids"]), EXAMPLES_SHOWN)]
            break
    return Held(count=held.count, examples=examples)


async def _or_why(reading: Awaitable[T]) -> T | str:
    try:
        return await reading
    except StoreError as exc:
        return str(exc)


async def _connector(state: ServiceState, connector_id: str) -> Connector:
    try:
        return await state.store.connectors.get(connector_id)
    except NotFound:
        raise
    except StoreError:
        if connector_id not in state.connectors:
            raise
        return state.connectors[connector_id]


async def _history(state: ServiceState, connector_id: str) -> Sequence[SyncJob]:
    found: list[SyncJob] = []
    listed = state.store.jobs.list(connector_ids=[connector_id], newest_first=True)
    try:
        async with aclosing(listed):
            async for job in listed:
                found.append(job)
                if len(found) >= HISTORY_SHOWN:
                    break
    except NotFound:
        # Nobody has made the protocol's indices yet.
        return found
    return found


async def _errors(state: ServiceState, connector_id: str) -> Sequence[Line]:
    found = await read_journal(state.store, connector_id=connector_id, levels=("warning", "error"), limit=200)
    return told(entry for _, entry in found)[-ERRORS_SHOWN:]


async def _story(state: ServiceState, job_id: str) -> Sequence[Line] | str:
    if not state.settings.callboard.journal.enabled:
        return "No journal is kept (callboard.journal.enabled is false)."
    return told([entry for _, entry in await read_journal(state.store, job_id=job_id, limit=STORY_READ)])


async def _letters(state: ServiceState, connector: Connector) -> tuple[list[dict[str, Any]], int]:
    found: list[dict[str, Any]] = []
    listed = list_dead_letters(state.store, index=connector.index_name)
    async with aclosing(listed):
        async for letter in listed:
            found.append(letter)
            if len(found) >= LETTERS_SHOWN:
                break
    if len(found) < LETTERS_SHOWN:
        return found, len(found)
    return found, await _count(state, {"index": connector.index_name or ""})


async def _count(state: ServiceState, terms: dict[str, str]) -> int:
    query = {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items()]}}
    try:
        return await state.store.content.count(DEAD_LETTERS_INDEX, query)
    except NotFound:
        return 0
