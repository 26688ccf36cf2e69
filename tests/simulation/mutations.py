"""Deliberate mistakes in the product, to prove that the simulation would find them.

Each is a small change that a hurried hand could make. It is patched in while the context is open, and nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import attrs
import trio

from callboard.actors.sync import deleting, deletions, ledger, listing, preparing, run, segments, sink, state, verdicts
from callboard.actors.sync.operations import Operation
from callboard.protocol import jobs as transitions
from callboard.protocol.store import StoreError, content, guarded
from callboard.protocol.store import jobs as stored_jobs


@contextmanager
def _acknowledges_before_the_write() -> Iterator[None]:
    async def attempt(self: Any, request: Any, has_slot: bool) -> list[Any]:
        if not has_slot:
            await self._wait_for_slot()
        count = len(request.entries)
        self._settle(request, verdicts.Judged(list(range(count)), [-1] * count, ["created"] * count, [], []), 1)
        try:
            await self._store.content.bulk(
                b"".join([entry.payload for entry in request.entries]), index=self._index, policy=sink.ONE_ATTEMPT,
                pipeline=self._pipeline,
            )  # fmt: skip
        except (StoreError, ValueError):
            pass
        finally:
            self.concurrency.ended(trio.current_time(), 0.0, busy=False)
        await self._notify()
        return []

    with patch.object(sink.Sink, "_attempt_until_answered", attempt):
        yield


@contextmanager
def _takes_an_interrupted_listing_for_complete() -> Iterator[None]:
    with patch.object(listing.Listing, "_broke", lambda _self, progress, _exc: progress.finish()):
        yield


@contextmanager
def _forgets_documents_that_were_refused_for_being_busy() -> Iterator[None]:
    right = verdicts.judge_items

    def judge(operations: Any, items: Any, *, has_errors: bool) -> verdicts.Judged:
        judged = right(operations, items, has_errors=has_errors)
        judged.accepted += judged.busy
        judged.seq_nos += [-1] * len(judged.busy)
        judged.results += ["created"] * len(judged.busy)
        judged.busy = []
        return judged

    with patch.object(sink, "judge_items", judge):
        yield


@contextmanager
def _deletes_whatever_was_not_listed() -> Iterator[None]:
    with patch.object(deleting, "may_delete", lambda _partition, _listed: True):
        yield


@contextmanager
def _writes_without_looking_at_the_sequence_number() -> Iterator[None]:
    async def write(self: Any, document_id: str, before: Any, after: Any, _version: Any, *, refresh: bool) -> None:
        change = guarded.changes(before, after)
        await self._wire.client.update(index=self._alias, id=document_id, doc=change.doc, refresh=refresh)

    with patch.object(guarded.GuardedDocuments, "_write_guarded", write):
        yield


@contextmanager
def _swallows_the_wish_to_cancel() -> Iterator[None]:
    right = transitions.judge

    def judge(mine: Any, stored: Any) -> Any:
        verdict = right(mine, stored)
        return transitions.GoOn() if isinstance(verdict, transitions.Cancel) else verdict

    with patch.object(transitions, "judge", judge):
        yield


@contextmanager
def _swallows_cancellation() -> Iterator[None]:
    right = run.SyncRun.run

    async def stubborn(self: Any) -> None:
        with trio.CancelScope(shield=True):
            await right(self)

    with patch.object(run.SyncRun, "run", stubborn):
        yield


@contextmanager
def _claims_what_another_has_claimed() -> Iterator[None]:
    right = transitions.claim

    def claim(job: Any, *details: Any) -> Any:
        return right(attrs.evolve(job, status=transitions.JobStatus.PENDING), *details)

    from callboard.protocol import connectors

    def starts(connector: Any, job_type: Any) -> Any:
        return connectors._noted(connector, job_type, transitions.JobStatus.IN_PROGRESS, None)

    with patch.object(stored_jobs.transitions, "claim", claim), patch.object(connectors, "sync_starts", starts):
        yield


@contextmanager
def _forgets_on_resumption_what_was_listed_before() -> Iterator[None]:
    async def nothing(_self: Any) -> Any:
        for one in ():
            yield one

    with patch.object(state.JobState, "seen", nothing):
        yield


@contextmanager
def _persists_a_checkpoint_before_what_precedes_it_is_written() -> Iterator[None]:
    right = segments.PartitionProgress.checkpoint

    def checkpoint(self: Any, value: Any) -> None:
        right(self, value)
        self.settled_checkpoint, self.has_new_checkpoint = value, True
        for segment in self._segments:
            if segment.seen:
                self.unpersisted_seen.extend(segment.seen)

    with patch.object(segments.PartitionProgress, "checkpoint", checkpoint):
        yield


@contextmanager
def _deletes_without_asking() -> Iterator[None]:
    def judge(count: int, *_args: Any, **_options: Any) -> deletions.Verdict:
        return deletions.Verdict("delete" if count else "nothing")

    with patch.object(deleting, "judge_deletions", judge):
        yield


@contextmanager
def _loses_the_second_half_of_a_split_request() -> Iterator[None]:
    right = sink.Sink._attempt_until_answered

    async def attempt(self: Any, request: Any, has_slot: bool) -> list[Any]:
        left = await right(self, request, has_slot)
        if len(left) == 2:
            for owner in left[1].owners:
                owner.settle(1)
            self._counters.settled += len(left[1].owners)
            return [left[0]]
        return list(left)

    with patch.object(sink.Sink, "_attempt_until_answered", attempt):
        yield


@contextmanager
def _trusts_a_fingerprint_although_somebody_else_has_written() -> Iterator[None]:
    right = ledger.Entries.find

    async def find(self: Any, hashes: Any) -> Any:
        found = await right(self, hashes)
        return [(_Anything(seq), fingerprint, part) if seq >= 0 else (seq, 0, 0) for seq, fingerprint, part in found]

    with patch.object(ledger.Entries, "find", find):
        yield


class _Anything(int):
    """A sequence number that equals every other one."""

    __hash__ = int.__hash__

    def __eq__(self, _other: object) -> bool:
        return True


@contextmanager
def _takes_a_document_whose_file_was_not_read_for_done() -> Iterator[None]:
    right = preparing.Preparer.completed

    def completed(self: Any, wanted: Any, more: Any, **options: Any) -> Operation:
        return right(self, wanted, more, **{**options, "failed": False})

    with patch.object(preparing.Preparer, "completed", completed):
        yield


@contextmanager
def _counts_documents_again_when_they_are_sent_again() -> Iterator[None]:
    right = sink.Sink._accept

    def accept(self: Any, request: Any, judged: Any, *, is_first: bool) -> None:
        right(self, request, judged, is_first=is_first)
        if request.tries:
            self._counters.indexed += len(judged.accepted)

    with patch.object(sink.Sink, "_accept", accept):
        yield


@contextmanager
def _takes_jobs_from_workers_that_are_alive() -> Iterator[None]:
    with patch.object(transitions, "is_idle", lambda job, *_details: job.status.is_running):
        yield


@contextmanager
def _takes_the_items_of_an_answer_for_good_unread() -> Iterator[None]:
    right = content.ContentIndices.bulk

    async def bulk(self: Any, *args: Any, **options: Any) -> Any:
        return attrs.evolve(await right(self, *args, **options), has_errors=False)

    with patch.object(content.ContentIndices, "bulk", bulk):
        yield


@contextmanager
def _trusts_a_listing_that_is_far_too_short() -> Iterator[None]:
    right = deletions.judge_deletions

    def judge(count: int, in_index: int, limits: Any, **options: Any) -> Any:
        return right(count, in_index, attrs.evolve(limits, documents_max=10**6), **options)

    with patch.object(deleting, "judge_deletions", judge):
        yield


Mutation = Callable[[], Any]
MUTATIONS: Mapping[str, Mutation] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        _acknowledges_before_the_write,
        _takes_an_interrupted_listing_for_complete,
        _forgets_documents_that_were_refused_for_being_busy,
        _deletes_whatever_was_not_listed,
        _writes_without_looking_at_the_sequence_number,
        _swallows_the_wish_to_cancel,
        _swallows_cancellation,
        _claims_what_another_has_claimed,
        _forgets_on_resumption_what_was_listed_before,
        _persists_a_checkpoint_before_what_precedes_it_is_written,
        _deletes_without_asking,
        _loses_the_second_half_of_a_split_request,
        _trusts_a_fingerprint_although_somebody_else_has_written,
        _takes_a_document_whose_file_was_not_read_for_done,
        _counts_documents_again_when_they_are_sent_again,
        _takes_jobs_from_workers_that_are_alive,
        _takes_the_items_of_an_answer_for_good_unread,
        _trusts_a_listing_that_is_far_too_short,
    )
}
