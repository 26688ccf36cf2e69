"""What the stages of one sync share: where documents come from and go to, what is known of them, what was counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ...protocol.store import Store
from ...runtime.budget import Budget, Holder
from ...sources.source import Source
from .dead_letters import DeadLetters
from .fingerprints import hash64
from .known import Known
from .lease_keeping import Leases
from .ledger import Ledger
from .plan import SyncPlan
from .report import Counters
from .segments import PartitionCounts, PartitionProgress
from .settings import SyncSettings
from .sharing import Sharing
from .state import JobState

CHANGES = "changes"
"""The one partition of a change feed."""


class Work:
    """One sync. Touched by all of its stages, none of which waits between reading and writing what belongs together."""

    def __init__(
        self,
        store: Store,
        source: Source[Any],
        plan: SyncPlan,
        settings: SyncSettings,
        extractor: Any = None,
        own_store: Store | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.store, self.source, self.plan, self.settings = store, source, plan, settings
        self.own_store = own_store or store
        """For what Callboard itself remembers: the key of a connector need not reach further than its documents."""
        self.extractor = extractor
        self.budget = budget or Budget(settings.queue_size_bytes_max + settings.download_memory_size_bytes)
        """For everything that is on its way: documents that wait for their answer, and content that is being read."""
        self.queue_bytes: Holder | None = None
        self.download_bytes: Holder | None = None
        self.counters = Counters()
        self.carried = PartitionCounts()
        """What earlier runs of the same job had settled."""
        self.letters = DeadLetters(self.own_store, plan.index, plan.connector_id, plan.job_id, plan.secrets)
        self.ledger: Ledger | None = None
        self.known: Known | None = None
        self.in_index = 0
        """Documents that the index had at the beginning."""
        self.knows_partitions = False
        """`known` says which partition each document came from."""
        self.partitions: dict[str, PartitionProgress] = {}
        self.all_named = False
        """The source has named all of its partitions."""
        self.listing_failed: str | None = None
        self.notes: list[str] = []
        self.held: tuple[int, tuple[str, ...]] = (0, ())
        """How many deletions are held back, and some of them."""
        self.cursor: Any = None
        self.downloading: set[str] = set()
        """Ids of the documents whose content is being read."""
        self.download_ended = trio.lowlevel.ParkingLot()
        tracks = bool(plan.job_id) and source.features.resumable and plan.kind == "full"
        shares = tracks and settings.share_jobs and source.shareable and plan.advanced_rules is None
        leases = (
            Leases(
                self.own_store,
                plan.job_id,
                setup=plan.setup.hex(),
                worker=plan.worker,
                is_owner=not plan.is_helped,
            )
            if shares
            else None
        )
        self.sharing = (
            Sharing(
                leases,
                self.partitions,
                self.letters.first,
                lease_s=settings.lease_s,
                look_every_s=settings.look_every_s,
            )
            if leases is not None
            else None
        )
        """The leases on the partitions, if several services may share the job."""
        self.deletions = PartitionProgress("deletions", 0)
        """The deletions of what was not listed."""
        self.state = JobState(self.own_store, plan.job_id, leases) if tracks else None
        """What outlives the process; None if this job could not go on anyway."""
        if plan.goes_on and not tracks:
            what = "this source" if plan.kind == "full" else f"a sync of this kind ({plan.kind})"
            self.notes.append(f"{what} cannot go on from a checkpoint, so the job started over")

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Take part in the budget while the block runs, with a reserve as far as one is left."""
        settings, budget = self.settings, self.budget
        spare = budget.unreserved_bytes // 2
        holders: list[Holder] = []
        for name, most in (
            ("queue", settings.queue_size_bytes_max),
            ("downloads", settings.download_memory_size_bytes),
        ):
            reserve = min(settings.memory_reserve_bytes, spare, most)
            holders.append(budget.holder(f"{self.plan.index} {name}", reserve, most))
        self.queue_bytes, self.download_bytes = holders
        try:
            yield
        finally:
            # A run that was cut off leaves batches behind that nobody settles; their bytes belong to the other jobs again.
            for holder in holders:
                holder.abandon()

    @property
    def follows_changes(self) -> bool:
        """The source itself says what has changed, so that the index need not be read."""
        return self.plan.kind == "incremental" and self.source.features.incremental == "delta"

    def done(self) -> PartitionCounts:
        """What this job has done so far, with what earlier runs of it and other services have settled."""
        counters, done = self.counters, PartitionCounts()
        done.add(self.carried)
        if self.sharing is not None:
            for partition in self.partitions.values():
                done.add(partition.total_counts())
            done.add(self.deletions.total_counts())
            return done
        done.add(
            PartitionCounts(
                counters.listed,
                counters.indexed,
                counters.deleted,
                counters.unchanged,
                counters.failed,
                counters.size_bytes,
            )
        )
        return done

    def progress_of(self, key: str) -> PartitionProgress:
        """The partition of this key, new if it has not been named before."""
        progress = self.partitions.get(key)
        if progress is None:
            progress = PartitionProgress(key, hash64(key.encode("utf-8", "surrogatepass")), self.state is not None)
            self.partitions[key] = progress
        return progress
