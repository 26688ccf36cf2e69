"""How far a partition is settled: everything before the last settled checkpoint is in Elasticsearch or known as failed.

A partition's documents fall into segments, one between every two checkpoints the source yields. Documents of a segment settle
in any order; a checkpoint is reached when its segment and all earlier ones are settled, and only what is reached is persisted.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any, Literal

import attrs

from .fingerprints import hash64


@attrs.define
class PartitionCounts:
    """What the settled segments of a partition amount to, carried over when a job goes on."""

    listed: int = 0
    indexed: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: int = 0
    size_bytes: int = 0

    def add(self, other: PartitionCounts) -> None:
        self.listed += other.listed
        self.indexed += other.indexed
        self.deleted += other.deleted
        self.unchanged += other.unchanged
        self.failed += other.failed
        self.size_bytes += other.size_bytes


@attrs.define(eq=False)
class Segment:
    """The documents between two checkpoints."""

    pending: int = 0
    closed: bool = False
    checkpoint: Any = None
    counts: PartitionCounts = attrs.field(factory=PartitionCounts)
    seen: array[int] | None = None
    """Hashes of the ids listed in it, kept only where a job may go on from its checkpoint."""


@attrs.define(eq=False)
class PartitionProgress:
    """One partition of a running job. Touched by one task at a time; nothing here waits."""

    key: str
    hash: int
    resumable: bool = False
    state: Literal["listing", "listed", "broken", "unfinished"] = "listing"
    why: str = ""
    listed: int = 0
    resumed: bool = False
    settled_checkpoint: Any = None
    settled_counts: PartitionCounts = attrs.field(factory=PartitionCounts)
    has_new_checkpoint: bool = False
    """There is a settled checkpoint that has not been persisted."""
    unpersisted_seen: array[int] = attrs.field(factory=lambda: array("Q"))
    containers_failed: int = 0
    is_stored_closed: bool = False
    _last_checkpoint: Any = None
    _segments: deque[Segment] = attrs.field(factory=deque)

    def __attrs_post_init__(self) -> None:
        self._segments.append(self._new())

    def _new(self) -> Segment:
        return Segment(seen=array("Q") if self.resumable else None)

    @property
    def current(self) -> Segment:
        """The segment that documents listed now belong to."""
        return self._segments[-1]

    @property
    def is_clean(self) -> bool:
        """Listed to its end, with no hole in it: only then may something of it be deleted."""
        return self.state == "listed" and not self.containers_failed

    def total_counts(self) -> PartitionCounts:
        """What has been done of it so far, settled or not."""
        total = PartitionCounts()
        total.add(self.settled_counts)
        for segment in self._segments:
            total.add(segment.counts)
        return total

    @property
    def is_settled(self) -> bool:
        """Everything that was listed has an answer."""
        return all(segment.pending == 0 for segment in self._segments)

    def checkpoint(self, value: Any) -> None:
        """The source says that a listing can go on from here.

        Not so behind a hole: whoever goes on from there would not know of it, and take what it hides for gone.
        """
        if self.containers_failed:
            return
        self.current.closed = True
        self.current.checkpoint = self._last_checkpoint = value
        self._segments.append(self._new())
        self._advance()

    def settle(self, segment: Segment, count: int) -> None:
        """Note that documents of a segment have an answer."""
        segment.pending -= count
        assert segment.pending >= 0, f"partition {self.key!r} settled more than it sent"
        if not segment.pending and segment is self._segments[0]:
            self._advance()

    def spare(self, document_id: str) -> None:
        """Note a document that is there and could not be read, so that whoever goes on from a later checkpoint keeps it."""
        if self.current.seen is not None:
            self.current.seen.append(hash64(document_id.encode("utf-8", "surrogatepass")))

    def finish(self) -> None:
        """The listing came to its end: the last segment closes where the one before it did."""
        last = self.current
        last.closed, last.checkpoint = True, self._last_checkpoint
        self._segments.append(self._new())
        self.state = "listed"
        self._advance()

    def go_on_from(self, checkpoint: Any, counts: PartitionCounts) -> None:
        """Take up what an earlier run of the same job had settled."""
        self.resumed = True
        self.settled_checkpoint = self._last_checkpoint = checkpoint
        self.settled_counts.add(counts)

    def take_seen(self) -> array[int]:
        """Hand over the hashes that belong to the settled checkpoint and were not persisted yet."""
        seen, self.unpersisted_seen = self.unpersisted_seen, array("Q")
        return seen

    def _advance(self) -> None:
        segments = self._segments
        while segments[0].closed and not segments[0].pending:
            done = segments.popleft()
            self.settled_checkpoint = done.checkpoint
            self.settled_counts.add(done.counts)
            self.has_new_checkpoint = True
            if done.seen is not None:
                self.unpersisted_seen.extend(done.seen)
