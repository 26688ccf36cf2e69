"""Every bound and choice of the sync engine, by name."""

from __future__ import annotations

from typing import Any, Literal

import attrs

MIB = 1024 * 1024

_positive: Any = attrs.validators.ge(1)
_optional_positive: Any = attrs.validators.optional(attrs.validators.ge(1))
_optional_size: Any = attrs.validators.optional(attrs.validators.ge(0))
_share: Any = attrs.validators.and_(attrs.validators.ge(0), attrs.validators.le(1))


@attrs.frozen(kw_only=True)
class ErrorLimits:
    """How many documents may fail before a job gives up. Only what Elasticsearch finally refused counts."""

    enabled: bool = True
    total_max: int = attrs.field(default=1000, validator=attrs.validators.ge(0))
    consecutive_max: int = attrs.field(default=10, validator=attrs.validators.ge(0))
    rate_max: float = attrs.field(default=0.15, validator=_share)
    window: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    """The rate is that of the last so many results; 0 switches the rate off."""
    kept: int = attrs.field(default=10, validator=attrs.validators.ge(0))


@attrs.frozen(kw_only=True)
class DeletionLimits:
    """When deletions look like an accident: more than `documents_max` and more than `share_max` of the index."""

    documents_max: int = attrs.field(default=10, validator=attrs.validators.ge(0))
    share_max: float = attrs.field(default=0.10, validator=_share)
    release: Literal["confirm", "next_full_sync"] = "confirm"
    """What lets held-back deletions go: a person's word, or the next full sync finding the same documents gone."""


@attrs.frozen(kw_only=True)
class SyncSettings:
    """How a sync runs. The defaults suit most; sizes are bytes, times seconds."""

    bulk_documents_max: int = attrs.field(default=500, validator=_positive)
    bulk_size_bytes_max: int = attrs.field(default=3 * MIB, validator=_positive)
    bulk_concurrency_max: int = attrs.field(default=5, validator=_positive)
    bulk_age_s_max: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """A batch that is not full is sent once it is so old."""
    text_size_bytes_max: int | None = attrs.field(default=3 * MIB, validator=_optional_size)
    """Longer documents without an attachment have their longest texts cut, and say so; None or 0: no limit."""
    queue_documents_max: int = attrs.field(default=1024, validator=_positive)
    queue_size_bytes_max: int = attrs.field(default=25 * MIB, validator=_positive)
    """Bytes that may be on their way from the source to an answer of Elasticsearch."""
    downloads_max: int | None = attrs.field(default=None, validator=_optional_positive)
    """Parallel downloads; None takes what the source says it bears."""
    download_size_bytes_max: int | None = 10 * MIB
    """Larger files are not read; their documents are indexed without text. None: no limit."""
    attachment_characters_max: int | None = attrs.field(default=1_000_000, validator=_optional_positive)
    """How much text the ingest pipeline shall take from a file that is sent to it: as much as is taken when files are read here.
    None: what the pipeline takes by itself, usually 100,000."""
    memory_reserve_bytes: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Of a budget that jobs share, so much is this job's alone, for the queue and for downloads each."""
    download_memory_size_bytes: int = attrs.field(default=64 * MIB, validator=_positive)
    download_tries_max: int = attrs.field(default=3, validator=_positive)
    partitions_max: int | None = attrs.field(default=None, validator=_optional_positive)
    """Partitions listed at the same time; None takes what the source says it bears."""
    known_memory_size_bytes: int = attrs.field(default=32 * MIB, validator=_positive)
    """What the ids that are in the index already may take in memory; beyond that they go to a temporary file."""
    skip_unchanged: bool = True
    """False sends every document again, as a plain full sync always did."""
    patience_s: float = attrs.field(default=600.0, validator=attrs.validators.ge(0))
    """How long an Elasticsearch that does not answer, or refuses for being busy, is waited for."""
    item_tries_max: int = attrs.field(default=60, validator=_positive)
    """How often a document that Elasticsearch is too busy for is offered."""
    log_operations: bool = False
    """Say at DEBUG what became of every single document."""
    errors: ErrorLimits = attrs.field(factory=ErrorLimits)
    deletions: DeletionLimits = attrs.field(factory=DeletionLimits)
    checkpoint_every_s: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    heartbeat_every_s: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    watch_every_s: float = attrs.field(default=0.5, validator=attrs.validators.gt(0))
    """How often a job looks whether somebody asked for its end."""
    share_jobs: bool = False
    """Other services may list partitions of a job, where the source says that they can be shared."""
    lease_s: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """A lease on a partition that its holder has not renewed for so long is anybody's."""
    look_every_s: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """How often the leases of a shared job are looked at."""
    progress_every_s: float = attrs.field(default=0.25, validator=attrs.validators.gt(0))
