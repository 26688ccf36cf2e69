"""Every key of the configuration is honoured, or says why it is not: nothing is read and forgotten."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog.testing

import callboard
from callboard.actors.configuration import Settings, options, read_mapping
from callboard.actors.configured import engine_settings, store_target
from callboard.actors.connector import ProgressLog
from callboard.actors.sync import sync
from callboard.actors.sync.report import ProgressEvent
from callboard.actors.sync.settings import MIB
from callboard.actors.sync.settings import SyncSettings as EngineSettings
from callboard.node import open_node
from callboard.protocol.store import Target, open_store
from callboard.sources.source import Document, Listing, Partition, Source

OBSOLETE = {
    "elasticsearch.bulk.queue_refresh_interval",
    "elasticsearch.bulk.queue_refresh_timeout",
    "elasticsearch.bulk.max_retries",
    "elasticsearch.bulk.retry_interval",
}
# key -> (a value in the file, what the engine or the connection then has)
ENGINE: dict[str, tuple[Any, str, Any]] = {
    "elasticsearch.bulk.queue_max_size": (7, "queue_documents_max", 7),
    "elasticsearch.bulk.queue_max_mem_size": (7, "queue_size_bytes_max", 7 * MIB),
    "elasticsearch.bulk.chunk_size": (40, "bulk_documents_max", 20),
    "elasticsearch.bulk.chunk_max_mem_size": (2, "bulk_size_bytes_max", 2 * MIB),
    "elasticsearch.bulk.max_text_document_size": (0, "text_size_bytes_max", None),
    "elasticsearch.bulk.max_concurrency": (2, "bulk_concurrency_max", 2),
    "elasticsearch.bulk.concurrent_downloads": (3, "downloads_max", 3),
    "elasticsearch.bulk.enable_operations_logging": (True, "log_operations", True),
    "service.max_file_download_size": (11, "download_size_bytes_max", 11),
    "callboard.sync.skip_unchanged": (False, "skip_unchanged", False),
    "callboard.sync.elasticsearch_patience": (12, "patience_s", 12),
    "callboard.sync.share_jobs": (True, "share_jobs", True),
    "callboard.sync.partition_concurrency": (2, "partitions_max", 2),
    "callboard.sync.memory_mib": (16, "memory_reserve_bytes", 2 * MIB),
}
CONNECTION: dict[str, tuple[Any, str, Any]] = {
    "elasticsearch.request_timeout": (3, "request_timeout_s", 3),
    "elasticsearch.compress": (True, "compress", True),
    "elasticsearch.feature_use_connectors_api": (False, "use_connectors_api", False),
    "elasticsearch.verify_certs": (False, "verify_certs", False),
    "elasticsearch.headers": ({"x-stage": "left"}, "headers", {"x-stage": "left"}),
}


def settings_with(key: str, value: Any) -> Settings:
    return read_mapping({key: value}, {}).settings


@pytest.mark.parametrize("key", ENGINE)
def test_keys_of_the_engine(key: str) -> None:
    value, name, wanted = ENGINE[key]
    assert getattr(engine_settings(settings_with(key, value)), name) == wanted
    assert getattr(engine_settings(Settings()), name) != wanted


@pytest.mark.parametrize("key", CONNECTION)
def test_keys_of_the_connection(key: str) -> None:
    value, name, wanted = CONNECTION[key]
    assert getattr(store_target(settings_with(key, value)), name) == wanted
    assert getattr(store_target(Settings()), name) != wanted


@pytest.mark.parametrize("slots", [1, 4, 9])
def test_half_of_the_memory_is_split_into_reserves_and_all_of_it_can_be_one_jobs(slots: int) -> None:
    engine = engine_settings(
        read_mapping({"service.max_concurrent_content_syncs": slots, "callboard.sync.memory_mib": 64}, {}).settings
    )
    assert engine.download_memory_size_bytes == 64 * MIB
    assert 30 * MIB <= 2 * engine.memory_reserve_bytes * (slots + 1) <= 32 * MIB


def test_keys_without_effect_say_so() -> None:
    told = {key for key, _, known in options() if known.obsolete}
    assert told == OBSOLETE
    for key in OBSOLETE:
        warnings = read_mapping({key: 3}, {}).warnings
        assert any(warning.key == key and "has no effect" in warning.text for warning in warnings)


def test_no_key_is_read_and_forgotten() -> None:
    """Outside of the configuration's own folder, the program looks at every key that is not obsolete."""
    folder = Path(next(iter(callboard.__path__)))
    used: set[str] = set()
    for path in [*(folder / "actors").rglob("*.py"), *(folder / "cli").rglob("*.py")]:
        if "configuration" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    forgotten = {key for key, _, known in options() if not known.obsolete and key.rpartition(".")[2] not in used}
    assert forgotten == set()


def test_progress_is_logged_every_so_many_documents() -> None:
    event = ProgressEvent(
        listed=0, indexed=0, deleted=0, unchanged=0, failed=0, size_bytes=0, queued=0, waiting_on="", seconds=0
    )
    with structlog.testing.capture_logs() as lines:
        progress = ProgressLog(structlog.get_logger(), lambda: 100)
        for indexed in (0, 50, 99, 100, 150, 420, 430):
            progress(attrs.evolve(event, indexed=indexed))
    assert [line["indexed"] for line in lines] == [100, 420]


@attrs.frozen
class Nothing:
    """No settings at all."""


@pytest.fixture
async def app() -> AsyncIterator[Any]:
    async with open_node(port=None) as node:
        yield node.app


class Props(Source[Any]):
    service_type = "props"
    name = "Props"

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        yield [Document("lamp", {"number": 1}), Document("ladder", {"number": 2})]


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_result_of_every_document_can_be_logged(app: Any, wanted: bool) -> None:
    async with open_store(Target(embedded=app)) as store:
        with structlog.testing.capture_logs() as lines:
            await sync(Props(Nothing()), store, index="props", settings=EngineSettings(log_operations=wanted))
    told = {line["id"]: line["result"] for line in lines if line["event"] == "document.settled"}
    assert told == ({"lamp": "created", "ladder": "created"} if wanted else {})
