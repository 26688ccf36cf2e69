"""However many services try, one job is claimed by one of them, and only that one writes its end."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from elastic_transport import ConnectionError as NoConnection

from callboard.protocol.documents import JobStatus, SyncJob
from callboard.protocol.jobs import Counts, TransitionRefused
from callboard.protocol.store import Conflict, Store, open_store

from .conftest import Server

JOBS = 12
PROCESSES = 3
TASKS = 6

CLAIMER = """
import json, random, sys, trio
from callboard.protocol.jobs import TransitionRefused
from callboard.protocol.store import Target, open_store

async def main(url, name, tasks, job_ids):
    won, refused, errors = [], 0, []
    async with open_store(Target(url, connections_max=tasks)) as store:
        async def claim_all(task):
            nonlocal refused
            for job_id in random.sample(job_ids, len(job_ids)):
                try:
                    job = await store.jobs.claim(job_id, "one-host")
                except TransitionRefused:
                    refused += 1
                else:
                    won.append(job.id)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        async with trio.open_nursery() as nursery:
            for task in range(tasks):
                nursery.start_soon(claim_all, task)
    print(json.dumps({"won": won, "refused": refused}), flush=True)

trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
"""


async def pending_job(store: Store, connector_id: str) -> SyncJob:
    if not await store.connectors.exists(connector_id):
        await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    return await store.jobs.create(await store.connectors.get(connector_id))


async def test_many_processes_claim_each_job_once(store: Store, server: Server, connector_id: str) -> None:
    jobs = [await pending_job(store, connector_id) for _ in range(JOBS)]
    assert server.target.url is not None
    told: list[dict[str, Any]] = []
    ready = [trio.Event() for _ in range(PROCESSES)]
    go = trio.Event()

    async def claimer(number: int) -> None:
        arguments = [sys.executable, "-c", CLAIMER, server.target.url, str(number), str(TASKS)]
        process = await trio.lowlevel.open_process(
            [*arguments, json.dumps([job.id for job in jobs])],
            stdin=-1,
            stdout=-1,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            output = b""
            while b"ready\n" not in output:
                more = await process.stdout.receive_some()
                assert more, "a claimer ended before it was ready"
                output += more
            ready[number].set()
            await go.wait()
            await process.stdin.send_all(b"go\n")
            async for more in process.stdout:
                output += more
            assert await process.wait() == 0
            told.append(json.loads(output.partition(b"ready\n")[2]))
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose() if hasattr(process, "aclose") else None

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for number in range(PROCESSES):
                nursery.start_soon(claimer, number)
            for event in ready:
                await event.wait()
            go.set()
    claims = Counter(job_id for each in told for job_id in each["won"])
    assert claims == Counter(job.id for job in jobs)
    assert sum(each["refused"] for each in told) == JOBS * PROCESSES * TASKS - JOBS


async def test_many_tasks_claim_a_job_once(store: Store, server: Server, connector_id: str) -> None:
    job = await pending_job(store, connector_id)
    won: list[SyncJob] = []
    refused: list[TransitionRefused] = []

    async def claim(own: Store, number: int) -> None:
        try:
            won.append(await own.jobs.claim(job.id, f"worker-{number}"))
        except TransitionRefused as exc:
            refused.append(exc)

    target = attrs.evolve(server.target, connections_max=40)
    async with open_store(target) as crowded, trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(claim, crowded, number)
    assert len(won) == 1
    assert len(refused) == 39
    stored = await store.jobs.get(job.id)
    assert stored.worker_hostname == won[0].worker_hostname
    assert stored.status is JobStatus.IN_PROGRESS


def after_reading(store: Store, meanwhile: Callable[[], Any]) -> None:
    """Let something happen between the next read of a job and the write that follows it."""
    documents = store.jobs.documents
    read = documents.read

    async def read_then(document_id: str) -> Any:
        documents.read = read  # type: ignore[method-assign]
        found = await read(document_id)
        await meanwhile()
        return found

    documents.read = read_then  # type: ignore[method-assign]


async def test_a_claim_between_read_and_write_of_another_is_noticed(
    store: Store, server: Server, connector_id: str
) -> None:
    job = await pending_job(store, connector_id)
    async with open_store(server.target) as other:
        after_reading(store, lambda: other.jobs.claim(job.id, "faster"))
        with pytest.raises(TransitionRefused, match="in_progress"):
            await store.jobs.claim(job.id, "slower")
    assert (await store.jobs.get(job.id)).worker_hostname == "faster"


async def test_a_cancel_between_read_and_write_is_not_written_over(
    store: Store, server: Server, connector_id: str
) -> None:
    mine = await store.jobs.claim((await pending_job(store, connector_id)).id, "here")
    async with open_store(server.target) as kibana:
        after_reading(store, lambda: kibana.jobs.request_cancel(mine.id))
        with pytest.raises(TransitionRefused, match="canceling"):
            await store.jobs.complete(mine, Counts(indexed=3))
        after_reading(store, lambda: kibana.jobs.documents.update(mine.id, lambda job: attrs.evolve(job, error="note")))
        canceled = await store.jobs.cancel(mine, Counts(indexed=3))
    assert canceled.status is JobStatus.CANCELED
    assert canceled.indexed_document_count == 3
    assert (await store.jobs.get(mine.id)).status is JobStatus.CANCELED


async def test_a_worker_given_up_for_lost_cannot_write_over_its_successor(store: Store, connector_id: str) -> None:
    job = await pending_job(store, connector_id)
    first = await store.jobs.claim(job.id, "one-host")
    await store.jobs.suspend(first)
    second = await store.jobs.claim(job.id, "one-host")
    for write in (store.jobs.complete, store.jobs.suspend, store.jobs.check_in):
        with pytest.raises(TransitionRefused, match="claimed by one-host since"):
            await write(first)
    with pytest.raises(TransitionRefused, match="claimed"):
        await store.jobs.report(first, Counts(indexed=99))
    done = await store.jobs.complete(second, Counts(indexed=1))
    assert (done.status, done.indexed_document_count) == (JobStatus.COMPLETED, 1)


async def test_only_a_claimed_job_can_be_ended(store: Store, connector_id: str) -> None:
    job = await pending_job(store, connector_id)
    with pytest.raises(TransitionRefused, match="not claimed here"):
        await store.jobs.complete(job)


def lose_answer(store: Store, *to: str) -> list[str]:
    """Carry out the next request to a path that contains one of `to`, and lose its answer. The list tells what was lost."""
    lost: list[str] = []
    node: Any = store.client.transport.node_pool.get()
    perform = node.perform_request

    async def perform_once(method: str, target: str, **rest: Any) -> Any:
        answer = await perform(method, target, **rest)
        if any(part in target for part in to) and not lost:
            lost.append(target)
            raise NoConnection("the answer was lost")
        return answer

    node.perform_request = perform_once
    return lost


async def test_a_claim_whose_answer_was_lost_knows_itself(store: Store, connector_id: str) -> None:
    job = await pending_job(store, connector_id)
    lost = lose_answer(store, "/_update/")
    mine = await store.jobs.claim(job.id, "here")
    assert lost
    assert mine.status is JobStatus.IN_PROGRESS
    assert (await store.jobs.complete(mine)).status is JobStatus.COMPLETED


async def test_an_end_whose_answer_was_lost_is_written_once(store: Store, connector_id: str) -> None:
    mine = await store.jobs.claim((await pending_job(store, connector_id)).id, "here")
    lost = lose_answer(store, "/_update/")
    done = await store.jobs.complete(mine, Counts(indexed=7, deleted=1, size_bytes=3 * 1024 * 1024, total=6))
    assert lost
    assert done.status is JobStatus.COMPLETED
    assert (done.indexed_document_count, done.deleted_document_count, done.indexed_document_volume) == (7, 1, 3)


async def test_a_job_whose_creation_was_not_answered_exists_once(store: Store, connector_id: str) -> None:
    await store.connectors.create(connector_id, index_name=connector_id, service_type="dir")
    connector = await store.connectors.get(connector_id)
    # Made through the API where there is one, else in the index.
    lost = lose_answer(store, "/_create/", "/_connector/_sync_job")
    job = await store.jobs.create(connector)
    assert lost
    assert [found.id async for found in store.jobs.pending([connector_id])] == [job.id]


async def test_a_document_that_others_write_all_the_time_ends_in_a_conflict(store: Store, connector_id: str) -> None:
    job = await pending_job(store, connector_id)
    documents = store.jobs.documents
    read = documents.read
    beats = 0

    async def read_then_disturb(document_id: str) -> Any:
        nonlocal beats
        beats += 1
        found = await read(document_id)
        await store.client.update(index=".elastic-connectors-sync-jobs", id=document_id, doc={"beat": beats})
        return found

    documents.read = read_then_disturb  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="all the time"):
        await store.jobs.claim(job.id, "here")
