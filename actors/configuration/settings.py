"""Every key of `config.yml`, once: its type, default, bounds, meaning, and whether it may change while the service runs.

The reader, `callboard config show`, the reference page and the live reload are derived from these classes. Names and defaults
of `elasticsearch`, `service`, `extraction_service`, `connectors` and `sources` are those of existing deployments, so that a
file written for the connector service works as it is. What only Callboard has stands under `callboard`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from ..secrets import without_url_passwords

LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_OPTION = "callboard.option"


@attrs.frozen
class Option:
    """What is known about one key besides its type and default."""

    meaning: str
    unit: str | None = None
    secret: bool = False
    reloadable: bool = False
    """True if SIGHUP may change it in a running service."""
    at_least: float | None = None
    at_most: float | None = None
    obsolete: str | None = None
    """Why the key is read and has no effect; shown as a warning when somebody sets it."""


def option(
    meaning: str,
    default: Any = attrs.NOTHING,
    *,
    factory: Any = None,
    unit: str | None = None,
    secret: bool = False,
    reloadable: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
    obsolete: str | None = None,
) -> Any:
    """Declare one key. Bounds are inclusive."""
    known = Option(meaning, unit, secret, reloadable, at_least, at_most, obsolete)
    if factory is not None:
        return attrs.field(factory=factory, metadata={_OPTION: known}, repr=not secret)
    return attrs.field(default=default, metadata={_OPTION: known}, repr=not secret)


@attrs.frozen(kw_only=True)
class ErrorMonitorSettings:
    """`elasticsearch.bulk.error_monitor`: when refused documents end a job."""

    enabled: bool = option("False: refused documents are only counted.", True)
    max_total_errors: int = option("A job with more refused documents fails.", 1000, at_least=0)
    max_consecutive_errors: int = option("A job with more refused documents in a row fails.", 10, at_least=0)
    max_error_rate: float = option(
        "A job with a greater share of the window refused fails.", 0.15, at_least=0, at_most=1
    )
    error_window_size: int = option(
        "How many of the last results the share is taken of; 0 turns it off.", 100, at_least=0
    )
    error_queue_size: int = option("How many of the last errors are kept for the message.", 10, at_least=1)


@attrs.frozen(kw_only=True)
class BulkSettings:
    """`elasticsearch.bulk`: how documents travel to Elasticsearch."""

    queue_max_size: int = option("Documents between the source and Elasticsearch.", 1024, at_least=1)
    queue_max_mem_size: int = option("The same, by size.", 25, unit="MiB", at_least=1)
    queue_refresh_interval: float = option(
        "Pause between two looks at a full queue.",
        1,
        unit="seconds",
        obsolete="a full queue makes the source wait, without polling",
    )
    queue_refresh_timeout: float = option(
        "Give up on a full queue.",
        1300,
        unit="seconds",
        obsolete="a full queue makes the source wait for as long as Elasticsearch is given",
    )
    display_every: int = option("Log progress every so many documents.", 100, reloadable=True, at_least=1)
    chunk_size: int = option("Lines of one bulk request: an index operation counts 2, a delete 1.", 500, at_least=2)
    chunk_max_mem_size: float = option("Size of one bulk request, as sent.", 3, unit="MiB", at_least=0.001)
    max_text_document_size: float | None = option(
        "Text of a document without an attachment is cut at this size and flagged; 0 or null: never.",
        3,
        unit="MiB",
        at_least=0,
    )
    max_concurrency: int = option(
        "Most bulk requests of one job at once; fewer when Elasticsearch is slow.", 5, at_least=1
    )
    concurrent_downloads: int = option("Most contents of one job fetched at once.", 10, at_least=1)
    max_retries: int = option(
        "How often a refused document (429, 503) is sent again.",
        5,
        at_least=0,
        obsolete="it is sent again for as long as `callboard.sync.elasticsearch_patience` says",
    )
    retry_interval: float = option(
        "Longest first pause before a refused document is sent again.",
        10,
        unit="seconds",
        at_least=0,
        obsolete="the pauses begin short and grow, as Elasticsearch needs",
    )
    enable_operations_logging: bool = option("Log every document's result at DEBUG.", False, reloadable=True)
    error_monitor: ErrorMonitorSettings = option("When refused documents end a job.", factory=ErrorMonitorSettings)


@attrs.frozen(kw_only=True)
class ElasticsearchSettings:
    """`elasticsearch`: where documents go, and as whom."""

    host: str = option("URL of Elasticsearch; its scheme decides about TLS.", "http://localhost:9200")
    api_key: str | None = option("Encoded API key; used instead of user and password.", None, secret=True)
    username: str | None = option("User for basic authentication.", "elastic")
    password: str | None = option("Password for basic authentication.", "changeme", secret=True)
    ssl: bool = option("False: `verify_certs` and `ca_certs` are not looked at.", True)
    verify_certs: bool = option("False: certificates are not verified. Only for tests.", True)
    ca_certs: Path | None = option("File with the certificates to trust, instead of the system's.", None)
    request_timeout: float = option("One request may take so long.", 240, unit="seconds", at_least=0.1)
    retry_on_timeout: bool = option("Send a request again that took too long.", True)
    max_retries: int = option("Attempts for one call.", 5, at_least=1)
    retry_interval: float = option("Longest first pause between attempts; it doubles.", 10, unit="seconds", at_least=0)
    max_wait_duration: float = option("Wait so long for Elasticsearch at the start.", 240, unit="seconds", at_least=0)
    initial_backoff_duration: float = option(
        "First pause while waiting at the start.", 1, unit="seconds", at_least=0.01
    )
    backoff_multiplier: float = option("By how much that pause grows.", 2, at_least=1)
    log_level: str = option("Level of the transport's own log lines.", "INFO", reloadable=True)
    headers: Mapping[str, str] = option("Extra headers on every request.", factory=dict, secret=True)
    feature_use_connectors_api: bool = option("Use the `_connector` API where it can do what is needed.", True)
    compress: bool = option("Send and ask for gzip: less network, more processor time.", False)
    bulk: BulkSettings = option("How documents travel.", factory=BulkSettings)


@attrs.frozen(kw_only=True)
class ServiceSettings:
    """`service`: what this process works on, how often it looks, and how much it does at once."""

    worker_mode: bool = option("Work on every connector of `service_types`, with the global credentials.", False)
    service_types: tuple[str, ...] = option("Service types of worker mode.", ())
    idling: float = option(
        "Changes made elsewhere are seen within this time.", 30, unit="seconds", reloadable=True, at_least=0.1
    )
    heartbeat: float = option(
        "A connector's `last_seen` is never older than this.", 300, unit="seconds", reloadable=True, at_least=1
    )
    preflight_max_attempts: int = option("How often the start-up check of the indices is tried.", 10, at_least=1)
    preflight_idle: float = option("Pause between those.", 30, unit="seconds", at_least=0)
    max_errors: int = option(
        "A part of the service that fails more often than this within the span ends the service.", 20, at_least=0
    )
    max_errors_span: float = option("See `max_errors`.", 600, unit="seconds", at_least=1)
    max_concurrent_content_syncs: int = option("Full and incremental jobs at once.", 1, reloadable=True, at_least=1)
    max_concurrent_access_control_syncs: int = option("Access-control jobs at once.", 1, reloadable=True, at_least=1)
    max_concurrent_scheduling_tasks: int = option("Sources checked at once.", 4, reloadable=True, at_least=1)
    max_file_download_size: int = option(
        "Files above this are not downloaded, unless a text extraction service is used.",
        10_485_760,
        unit="bytes",
        at_least=0,
    )
    job_cleanup_interval: float = option(
        "Look for orphaned and idle jobs so often.", 300, unit="seconds", reloadable=True, at_least=1
    )
    log_level: LogLevel = option("Least severe level that is logged.", "INFO", reloadable=True)
    fips_mode: bool = option("Refuse to run without FIPS cryptography, and sources that need NTLM.", False)


@attrs.frozen(kw_only=True)
class ExtractionServiceSettings:
    """`extraction_service`: an HTTP service that turns files into text. Absent: Callboard does it itself."""

    host: str | None = option("Base URL, e.g. `http://localhost:8090`.", None)
    timeout: float = option("One extraction may take so long.", 30, unit="seconds", at_least=0.1)
    use_file_pointers: bool = option("Pass a path on a shared volume instead of the bytes.", False)
    stream_chunk_size: int = option("Bytes are sent in chunks of this size.", 65536, unit="bytes", at_least=1)
    shared_volume_dir: Path = option(
        "Folder of the files when pointers are used; the same path on both sides.", Path("/app/files")
    )


@attrs.frozen(kw_only=True)
class ConnectorSettings:
    """One entry of `connectors`: a connector that this service works on."""

    connector_id: str = option("Id of the connector document.")
    service_type: str | None = option("Filled into the connector document if that has none.", None)
    api_key: str | None = option(
        "Key for the documents of this connector, instead of the global credentials.", None, secret=True
    )


@attrs.frozen(kw_only=True)
class DeletionGuardSettings:
    """`callboard.sync.deletion_guard`: when deletions wait for somebody to agree."""

    documents: int = option("Up to so many deletions need nobody's consent.", 10, at_least=0)
    share: float = option("Up to this share of the index needs nobody's consent.", 0.10, at_least=0, at_most=1)
    agree: Literal["confirm", "next_sync"] = option(
        "Who agrees: a person (`callboard job confirm-deletes`), or the next full sync by finding the same.", "confirm"
    )


@attrs.frozen(kw_only=True)
class SyncSettings:
    """`callboard.sync`: how one job works."""

    skip_unchanged: bool = option("False: every full sync sends every document again.", True)
    memory_mib: int = option("Byte budget that all running jobs share.", 256, unit="MiB", at_least=8)
    elasticsearch_patience: float = option(
        "A job waits so long for an Elasticsearch that is away.", 900, unit="seconds", at_least=0
    )
    partition_concurrency: int = option(
        "Partitions of one job listed at once; sources may ask for fewer.", 4, at_least=1
    )
    share_jobs: bool = option(
        "Several services share the partitions of one job, where the source can be shared and all of them have this on.",
        False,
    )
    deletion_guard: DeletionGuardSettings = option("When deletions wait for consent.", factory=DeletionGuardSettings)


@attrs.frozen(kw_only=True)
class OperationsSettings:
    """`callboard.operations`: health, metrics and the web page."""

    enabled: bool = option("Serve health, metrics and the page.", False)
    host: str = option("Address to listen on. Anything but loopback needs `token`.", "127.0.0.1")
    port: int = option("Port to listen on; 0 takes a free one.", 8089, at_least=0, at_most=65535)
    token: str | None = option("What a visitor must present.", None, secret=True)
    names: tuple[str, ...] = option(
        "Host names under which people reach the page, beside `localhost` and addresses; other names are refused.", ()
    )
    traces: bool = option("Make OpenTelemetry traces of jobs; needs the extra `opentelemetry`.", False)


@attrs.frozen(kw_only=True)
class JournalSettings:
    """`callboard.journal`: the story of every job, kept in an index of its own."""

    enabled: bool = option("Keep the journal.", True)
    retention_days: int = option("Older entries are removed.", 30, unit="days", reloadable=True, at_least=1)


@attrs.frozen(kw_only=True)
class TextExtractionSettings:
    """`callboard.text_extraction`: how files become text on this side."""

    engine: Literal["auto", "plain", "embedded", "tika", "service"] = option(
        "Who reads what is not plain text; `auto` takes the extraction service if its host is set.", "auto"
    )
    workers: int = option("Files read at the same time.", 2, at_least=1, at_most=64)
    more_extensions: tuple[str, ...] = option("Accepted beside the usual ones, e.g. `.yaml`.", ())
    characters: int = option("Longer texts are cut here, and flagged.", 1_000_000, at_least=1)
    seconds: float = option("The engine may take so long for one file.", 60, unit="seconds", at_least=0.1)
    memory_mib: int = option("The engine may take so much memory for one file.", 768, unit="MiB", at_least=200)
    size_mib: int = option("Larger files are not read.", 100, unit="MiB", at_least=1)
    ocr_command: tuple[str, ...] = option(
        "The program that sees text in images and in PDFs without text, e.g. `[tesseract, '{file}', stdout]`.", ()
    )
    tika_jar: Path | None = option("The Tika server, if `callboard extraction fetch-tika` did not fetch it.", None)


@attrs.frozen(kw_only=True)
class CallboardSettings:
    """`callboard`: what only Callboard has."""

    missed_schedules: Literal["catch_up_once", "skip"] = option(
        "What happens to a fire time that passed while no service ran.", "catch_up_once", reloadable=True
    )
    shutdown_seconds: float = option(
        "A graceful shutdown may take so long.", 20, unit="seconds", reloadable=True, at_least=0.1
    )
    log_levels: Mapping[str, LogLevel] = option(
        "Level per part, e.g. `actors.sync: DEBUG`.", factory=dict, reloadable=True
    )
    sync: SyncSettings = option("How one job works.", factory=SyncSettings)
    operations: OperationsSettings = option("Health, metrics and the web page.", factory=OperationsSettings)
    journal: JournalSettings = option("The story of every job.", factory=JournalSettings)
    text_extraction: TextExtractionSettings = option("How files become text.", factory=TextExtractionSettings)


@attrs.frozen(kw_only=True)
class Settings:
    """The whole file."""

    elasticsearch: ElasticsearchSettings = option("Where documents go, and as whom.", factory=ElasticsearchSettings)
    service: ServiceSettings = option("What this process works on.", factory=ServiceSettings)
    extraction_service: ExtractionServiceSettings = option(
        "A service that turns files into text.", factory=ExtractionServiceSettings
    )
    connectors: tuple[ConnectorSettings, ...] = option("The connectors this service works on.", (), reloadable=True)
    sources: Mapping[str, str] = option("Own sources: service type to `module.path:ClassName`.", factory=dict)
    callboard: CallboardSettings = option("What only Callboard has.", factory=CallboardSettings)


def described(attribute: attrs.Attribute[Any]) -> Option:
    """What is known about a key besides its type and default."""
    found: Option = attribute.metadata[_OPTION]
    return found


def options(section: type[Any] = Settings, prefix: str = "") -> Iterator[tuple[str, attrs.Attribute[Any], Option]]:
    """Yield every key that holds a value, with its dotted name, in the order of the classes above."""
    for attribute in attrs.fields(attrs.resolve_types(section)):
        name = f"{prefix}{attribute.name}"
        if isinstance(attribute.type, type) and attrs.has(attribute.type):
            yield from options(attribute.type, f"{name}.")
        else:
            yield name, attribute, described(attribute)


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain nested data that can be shown: secrets that are set read `********`."""
    return _masked(settings)


def _masked(section: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for attribute in attrs.fields(type(section)):
        value = getattr(section, attribute.name)
        if described(attribute).secret:
            shown[attribute.name] = (
                dict.fromkeys(value, "********") if isinstance(value, Mapping) else ("********" if value else value)
            )
        elif attrs.has(type(value)):
            shown[attribute.name] = _masked(value)
        elif isinstance(value, tuple):
            shown[attribute.name] = [_masked(item) if attrs.has(type(item)) else item for item in value]
        elif isinstance(value, Mapping):
            shown[attribute.name] = dict(value)
        elif isinstance(value, str):
            shown[attribute.name] = without_url_passwords(value)
        else:
            shown[attribute.name] = str(value) if isinstance(value, Path) else value
    return shown


def reloaded(running: Settings, wanted: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Take over from `wanted` what may change in a running service.

    Returns the settings to go on with, and the dotted names of keys that differ but need a restart.
    """
    refused: list[str] = []
    merged = _reloaded(running, wanted, "", refused)
    assert isinstance(merged, Settings)
    return merged, tuple(refused)


def _reloaded(running: Any, wanted: Any, prefix: str, refused: list[str]) -> Any:
    changes: dict[str, Any] = {}
    for attribute in attrs.fields(type(running)):
        name = f"{prefix}{attribute.name}"
        old, new = getattr(running, attribute.name), getattr(wanted, attribute.name)
        if attrs.has(type(old)):
            changes[attribute.name] = _reloaded(old, new, f"{name}.", refused)
        elif old != new:
            if described(attribute).reloadable:
                changes[attribute.name] = new
            else:
                refused.append(name)
    return attrs.evolve(running, **changes)
