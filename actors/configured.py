"""From what an operator wrote in `config.yml` to the settings of the parts that do the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from ..protocol.store import RetryPolicy, Target
from .configuration import Settings
from .sync.settings import MIB, DeletionLimits, ErrorLimits, SyncSettings

FIRST_PAUSE_S = 0.5


def store_target(
    settings: Settings,
    *,
    embedded: Any = None,
    through: Any = None,
    role: Literal["service", "cli", "library"] = "service",
) -> Target:
    """Where the service's Elasticsearch is and as whom to speak to it. Raises `InvalidTarget`.

    `embedded` takes the place of the configured host: a node inside this process, which asks for no credentials. `through` is an
    application that takes the requests to the host and passes them on.
    """
    elasticsearch = settings.elasticsearch
    common: dict[str, Any] = {
        "role": role,
        "request_timeout_s": elasticsearch.request_timeout,
        "compress": elasticsearch.compress,
        "use_connectors_api": elasticsearch.feature_use_connectors_api,
        "retries": RetryPolicy(
            attempts_max=elasticsearch.max_retries,
            first_s=max(min(FIRST_PAUSE_S, elasticsearch.retry_interval), 0.001),
            cap_s=max(elasticsearch.retry_interval, 0.001),
            timeouts=elasticsearch.retry_on_timeout,
        ),
    }
    if embedded is not None:
        return Target(embedded=embedded, **common)
    credentials: Mapping[str, Any] = (
        {"api_key": elasticsearch.api_key}
        if elasticsearch.api_key
        else {"username": elasticsearch.username, "password": elasticsearch.password}
    )
    return Target(
        url=elasticsearch.host,
        through=through,
        headers=elasticsearch.headers,
        verify_certs=elasticsearch.verify_certs if elasticsearch.ssl else True,
        ca_certs=elasticsearch.ca_certs if elasticsearch.ssl else None,
        **credentials,
        **common,
    )


def content_target(target: Target, api_key: str | None) -> Target | None:
    """The place of a connector's documents if it has a key of its own, else None: they go where everything goes."""
    if not api_key or target.embedded is not None:
        return None
    return attrs.evolve(target, api_key=api_key, username=None, password=None)


def engine_settings(settings: Settings) -> SyncSettings:
    """How jobs run."""
    bulk, own = settings.elasticsearch.bulk, settings.callboard.sync
    monitor = bulk.error_monitor
    text_size = bulk.max_text_document_size
    # Jobs run side by side out of one budget: half of it is shared, and half is split into what each has for itself.
    memory_bytes = own.memory_mib * MIB
    slots = settings.service.max_concurrent_content_syncs + settings.service.max_concurrent_access_control_syncs
    uses_service = settings.extraction_service.host is not None
    return SyncSettings(
        # Operators count lines: an index operation is two of them.
        bulk_documents_max=max(bulk.chunk_size // 2, 1),
        bulk_size_bytes_max=max(int(bulk.chunk_max_mem_size * MIB), 1),
        bulk_concurrency_max=bulk.max_concurrency,
        text_size_bytes_max=int(text_size * MIB) if text_size else None,
        queue_documents_max=bulk.queue_max_size,
        queue_size_bytes_max=min(bulk.queue_max_mem_size * MIB, memory_bytes),
        download_memory_size_bytes=memory_bytes,
        memory_reserve_bytes=memory_bytes // slots // 4,
        log_operations=bulk.enable_operations_logging,
        downloads_max=bulk.concurrent_downloads,
        attachment_characters_max=settings.callboard.text_extraction.characters,
        download_size_bytes_max=None if uses_service else settings.service.max_file_download_size,
        partitions_max=own.partition_concurrency,
        skip_unchanged=own.skip_unchanged,
        share_jobs=own.share_jobs,
        patience_s=own.elasticsearch_patience,
        errors=ErrorLimits(
            enabled=monitor.enabled,
            total_max=monitor.max_total_errors,
            consecutive_max=monitor.max_consecutive_errors,
            rate_max=monitor.max_error_rate,
            window=monitor.error_window_size,
            kept=monitor.error_queue_size,
        ),
        deletions=DeletionLimits(
            documents_max=own.deletion_guard.documents,
            share_max=own.deletion_guard.share,
            release="confirm" if own.deletion_guard.agree == "confirm" else "next_full_sync",
        ),
    )
