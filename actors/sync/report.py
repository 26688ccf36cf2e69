"""What a sync counts while it runs and says when it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

Status: TypeAlias = Literal["completed", "canceled", "suspended", "error"]
FAILURES_KEPT = 10
HELD_BACK_KEPT = 20


@attrs.frozen
class FailedDocument:
    """One thing that could not be read, extracted or indexed."""

    what: str
    where: str
    """The stage that gave up: `listing`, `download`, `extraction` or `indexing`."""
    why: str
    partition: str = ""
    document_id: str | None = None


@attrs.define
class Counters:
    """Numbers of one job. All count documents unless named otherwise.

    At the end `listed` = `filtered` + `unchanged` + `refused` + `sent`, and `sent` + `deletes_sent` = `settled` + `failed`.
    """

    listed: int = 0
    """Documents the source yielded."""
    filtered: int = 0
    """Dropped by sync rules."""
    unchanged: int = 0
    refused: int = 0
    """Yielded without a usable id, or not fit to be sent."""
    sent: int = 0
    """Handed to the sink: creations, updates and deletions of a change feed."""
    deletes_sent: int = 0
    """Handed to the sink because the source no longer has them."""
    settled: int = 0
    """Accepted by Elasticsearch."""
    failed_at_sink: int = 0
    """Finally refused by Elasticsearch."""
    source_failures: int = 0
    """Things the source could not read, as it said itself."""
    indexed: int = 0
    deleted: int = 0
    size_bytes: int = 0
    """Document bytes of everything accepted."""
    creates_queued: int = 0
    updates_queued: int = 0
    deletes_queued: int = 0
    downloaded: int = 0
    downloaded_bytes: int = 0
    downloads_failed: int = 0
    downloads_too_large: int = 0
    truncated: int = 0
    """Documents whose text was cut to the limit."""
    converted: int = 0
    """Documents with values that JSON has no form for, written as text."""
    duplicates: int = 0
    """Ids yielded more than once in one sync."""
    dropped_by_pipeline: int = 0
    unanswered: int = 0
    """Operations that were under way when the work was ended, and not answered in time: they may have arrived or not."""
    retried: int = 0
    """Documents offered again because Elasticsearch was busy."""
    requests: int = 0
    request_bytes: int = 0
    results: Counter[str] = attrs.field(factory=Counter)
    """Answers by result: created, updated, deleted, noop, not_found."""
    held_back: int = 0
    """Deletions that wait for a confirmation."""

    @property
    def failed(self) -> int:
        """Everything that somebody has to look at."""
        return self.refused + self.failed_at_sink + self.source_failures + self.downloads_failed

    @property
    def queued(self) -> int:
        """Handed to the sink and not answered yet."""
        return self.sent + self.deletes_sent - self.settled - self.failed_at_sink

    def check_conservation(self) -> None:
        """Assert that nothing got lost between the stages. Holds only once all stages are at rest."""
        assert self.listed == self.filtered + self.unchanged + self.refused + self.sent, (
            f"listed is not accounted for: {self}"
        )
        assert self.sent + self.deletes_sent == self.settled + self.failed_at_sink, f"sent is not accounted for: {self}"


@attrs.frozen(kw_only=True)
class ProgressEvent:
    """Where a running sync stands."""

    listed: int
    indexed: int
    deleted: int
    unchanged: int
    failed: int
    size_bytes: int
    queued: int
    waiting_on: str
    """The stage that limits at the moment: `source`, `downloads`, `elasticsearch`, or nothing."""
    seconds: float
    concurrency: int = 1
    """Bulk requests that may be under way at the moment."""


@attrs.frozen(kw_only=True)
class PartitionReport:
    """How one part of the source ended."""

    key: str
    state: Literal["closed", "broken", "unfinished"]
    """`closed`: listed to its end. `broken`: not, or with containers that could not be read; nothing of it is deleted."""
    listed: int = 0
    why: str = ""
    resumed: bool = False


@attrs.frozen(kw_only=True)
class SyncReport:
    """How a sync ended. `bytes` are document bytes accepted by Elasticsearch."""

    status: Status
    indexed: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    error: str | None = None
    held_back_deletions: int = 0
    held_back_examples: tuple[str, ...] = ()
    failures: tuple[FailedDocument, ...] = ()
    """The first few; all of them are dead letters in Elasticsearch."""
    partitions: tuple[PartitionReport, ...] = ()
    """Those that did not close cleanly come first; at most a hundred."""
    counters: Counters = attrs.field(factory=Counters)
    cursor: Any = None
    """Where the next incremental sync goes on; only after a completed content sync."""
    total: int | None = None
    """Documents in the index afterwards, if counted."""
    job_id: str | None = None
    notes: tuple[str, ...] = ()
    """What a person should know although nothing failed."""

    def as_json(self) -> Mapping[str, Any]:
        """The facts that scripts read."""
        names = ("status", "indexed", "deleted", "unchanged", "failed", "bytes", "seconds", "error")
        return {name: getattr(self, name) for name in names}
