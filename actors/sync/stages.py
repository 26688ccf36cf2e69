"""The stages of a running sync as the live tree shows them below its job: what each has done, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator

from ...runtime import TreeNode
from ...runtime.stream import Stream
from .operations import Operations
from .sink import Sink
from .wanting import Download
from .work import Work

PARTITIONS_SHOWN = 20


def stages_of(
    work: Work, streams: tuple[Stream[Operations], Stream[Download]], sink: Sink, waits_for: str, seconds: float
) -> tuple[TreeNode, ...]:
    """Describe the listing with its open partitions, the downloads, and the sink. `seconds`: how long the run takes already."""
    operations, downloads = streams
    counters, carried = work.counters, work.carried
    is_listed = work.all_named and not any(one.state == "listing" for one in work.partitions.values())
    return (
        TreeNode(
            name="listing",
            kind="Listing",
            state="done" if is_listed else "running" if waits_for == "source" else f"waiting for {waits_for}",
            since_s=seconds,
            age_s=seconds,
            processed=counters.listed + carried.listed,
            unit="document",
            children=tuple(_partitions(work, seconds)),
        ),
        TreeNode(
            name="downloads",
            kind="Downloads",
            state="running" if work.downloading else "idle",
            since_s=seconds,
            age_s=seconds,
            waiting=downloads.batches_waiting,
            processed=counters.downloaded,
            unit="file",
        ),
        TreeNode(
            name="sink",
            kind="Sink",
            state="waiting for Elasticsearch" if sink.waits_for_server else "running" if counters.queued else "idle",
            since_s=seconds,
            age_s=seconds,
            waiting=operations.batches_waiting,
            processed=counters.settled,
            unit="document",
        ),
    )


def _partitions(work: Work, seconds: float) -> Iterator[TreeNode]:
    shown = 0
    for one in work.partitions.values():
        if one.state != "listing":
            continue
        if shown == PARTITIONS_SHOWN:
            return
        shown += 1
        yield TreeNode(
            name=one.key or ".",
            kind="Partition",
            state="running",
            since_s=seconds,
            age_s=seconds,
            processed=one.listed,
            unit="document",
            last_error=one.why or None,
        )
