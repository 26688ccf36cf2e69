"""The documents of the protocol: connectors and sync jobs, and the parts they are made of.

Reading is forgiving where Elasticsearch is (a number as text, one object for a list of one) and where versions differ;
values that only matter to one feature (rules, cron expressions, configuration) are read as they are and judged by the
module of that feature, so that one bad rule never makes a whole connector unreadable.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from .ids import ConnectorId, JobId
from .indices import DEFAULT_PIPELINE
from .wire import JSON, Source, Stored, read, write


class ConnectorStatus(StrEnum):
    CREATED = "created"
    NEEDS_CONFIGURATION = "needs_configuration"
    CONFIGURED = "configured"
    CONNECTED = "connected"
    ERROR = "error"


class JobStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    CANCELING = "canceling"
    CANCELED = "canceled"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    ERROR = "error"

    @property
    def is_terminal(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.CANCELED, JobStatus.ERROR)

    @property
    def is_running(self) -> bool:
        return self in (JobStatus.IN_PROGRESS, JobStatus.CANCELING)

    @property
    def may_be_claimed(self) -> bool:
        return self in (JobStatus.PENDING, JobStatus.SUSPENDED)


class JobType(StrEnum):
    FULL = "full"
    INCREMENTAL = "incremental"
    ACCESS_CONTROL = "access_control"

    @property
    def is_content(self) -> bool:
        """Full and incremental syncs write documents; an access-control sync writes identities."""
        return self is not JobType.ACCESS_CONTROL


class TriggerMethod(StrEnum):
    ON_DEMAND = "on_demand"
    SCHEDULED = "scheduled"


class ValidationState(StrEnum):
    EDITED = "edited"
    VALID = "valid"
    INVALID = "invalid"


DEFAULT_INTERVAL = "0 0 0 * * ?"
DEFAULT_RULE_ID = "DEFAULT"
DEFAULT_DOMAIN = "DEFAULT"


@attrs.frozen(kw_only=True)
class Schedule(Stored):
    """When one kind of sync runs. The interval is cron text, judged by `protocol.cron`."""

    enabled: bool = False
    interval: str = DEFAULT_INTERVAL


@attrs.frozen(kw_only=True)
class Scheduling(Stored):
    full: Schedule = attrs.field(factory=Schedule)
    incremental: Schedule = attrs.field(factory=Schedule)
    access_control: Schedule = attrs.field(factory=Schedule)

    def of(self, job_type: JobType) -> Schedule:
        schedule: Schedule = getattr(self, job_type.value)
        return schedule


@attrs.frozen(kw_only=True)
class Rule(Stored):
    """A basic rule. What is missing or odd in it is kept and judged by `protocol.filtering`."""

    id: JSON = ""
    policy: JSON = ""
    field: JSON = ""
    rule: JSON = ""
    value: JSON = ""
    order: JSON = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def is_default(self) -> bool:
        return bool(self.id == DEFAULT_RULE_ID)


@attrs.frozen(kw_only=True)
class AdvancedSnippet(Stored):
    """Source-specific rules; the value is an object or a list and goes to the source as it is."""

    value: JSON = attrs.field(factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None


@attrs.frozen(kw_only=True)
class ValidationError(Stored):
    ids: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Validation(Stored):
    state: ValidationState = ValidationState.VALID
    errors: tuple[ValidationError, ...] = ()


@attrs.frozen(kw_only=True)
class Rules(Stored):
    """One set of sync rules: the active one, or the draft."""

    rules: tuple[Rule, ...] = ()
    advanced_snippet: AdvancedSnippet = attrs.field(factory=AdvancedSnippet)
    validation: Validation = attrs.field(factory=Validation)

    @property
    def has_advanced(self) -> bool:
        return bool(self.advanced_snippet.value)


@attrs.frozen(kw_only=True)
class Filtering(Stored):
    """The sync rules of one domain; there is only the domain DEFAULT."""

    domain: str = DEFAULT_DOMAIN
    active: Rules = attrs.field(factory=Rules)
    draft: Rules = attrs.field(factory=Rules)


@attrs.frozen(kw_only=True)
class Pipeline(Stored):
    """The ingest pipeline of a connector's documents, and the switches that travel with each document."""

    name: str = DEFAULT_PIPELINE
    extract_binary_content: bool = True
    reduce_whitespace: bool = True
    run_ml_inference: bool = True


@attrs.frozen(kw_only=True)
class Flag(Stored):
    enabled: bool = False


@attrs.frozen(kw_only=True)
class SyncRulesFeatures(Stored):
    basic: Flag | None = None
    advanced: Flag | None = None


@attrs.frozen(kw_only=True)
class Features(Stored):
    """What the source of a connector can do, as the service has written it. Use the predicates: they know older spellings."""

    sync_rules: SyncRulesFeatures | None = None
    document_level_security: Flag | None = None
    incremental_sync: Flag | None = None
    native_connector_api_keys: Flag | None = None
    filtering_rules: bool | None = None
    """Older spelling of basic rules."""
    filtering_advanced_config: bool | None = None
    """Older spelling of advanced rules."""

    @property
    def basic_rules_enabled(self) -> bool:
        return _is_on(self.sync_rules.basic if self.sync_rules else None) or bool(self.filtering_rules)

    @property
    def advanced_rules_enabled(self) -> bool:
        return _is_on(self.sync_rules.advanced if self.sync_rules else None) or bool(self.filtering_advanced_config)

    @property
    def sync_rules_enabled(self) -> bool:
        return self.basic_rules_enabled or self.advanced_rules_enabled

    @property
    def document_level_security_enabled(self) -> bool:
        return _is_on(self.document_level_security)

    @property
    def incremental_sync_enabled(self) -> bool:
        return _is_on(self.incremental_sync)

    @property
    def native_connector_api_keys_enabled(self) -> bool:
        return self.native_connector_api_keys is None or self.native_connector_api_keys.enabled


def _is_on(flag: Flag | None) -> bool:
    return flag is not None and flag.enabled


@attrs.frozen(kw_only=True)
class Connector(Stored):
    """The definition that links a source to an index. Written by Kibana, Elasticsearch and services alike."""

    id: ConnectorId = attrs.field(default=ConnectorId(""), metadata={"wire": False})
    api_key_id: str | None = None
    api_key_secret_id: str | None = None
    callboard: JSON = None
    """Not of the protocol: what this service keeps on a connector; see `protocol.pausing`."""
    configuration: dict[str, Any] = attrs.field(factory=dict, repr=False)
    """Field name -> stored field object; read by `protocol.configuration`. Holds secrets in clear."""
    custom_scheduling: dict[str, Any] = attrs.field(factory=dict)
    deleted: bool = False
    description: str | None = None
    error: str | None = None
    features: Features | None = None
    filtering: tuple[Filtering, ...] = ()
    index_name: str | None = None
    is_native: bool = False
    language: str | None = None
    last_access_control_sync_error: str | None = None
    last_access_control_sync_scheduled_at: datetime | None = None
    last_access_control_sync_status: JobStatus | None = None
    last_deleted_document_count: int | None = None
    last_incremental_sync_scheduled_at: datetime | None = None
    last_indexed_document_count: int | None = None
    last_seen: datetime | None = None
    last_sync_error: str | None = None
    last_sync_scheduled_at: datetime | None = None
    last_sync_status: JobStatus | None = None
    last_synced: datetime | None = None
    name: str | None = None
    pipeline: Pipeline | None = None
    scheduling: Scheduling = attrs.field(factory=Scheduling)
    service_type: str | None = None
    status: ConnectorStatus = ConnectorStatus.CREATED
    sync_cursor: JSON = None
    sync_now: bool = False

    @property
    def rules(self) -> Filtering:
        """The sync rules: of the domain DEFAULT, else the first, else none at all."""
        named = [entry for entry in self.filtering if entry.domain == DEFAULT_DOMAIN]
        return (named or list(self.filtering) or [Filtering()])[0]

    def with_rules(self, rules: Filtering) -> Connector:
        """Put these sync rules in the place where `rules` found them."""
        current = self.rules
        if not self.filtering:
            return attrs.evolve(self, filtering=(rules,))
        replaced = [rules if entry is current else entry for entry in self.filtering]
        return attrs.evolve(self, filtering=tuple(replaced))

    @property
    def is_schedulable(self) -> bool:
        """Somebody has configured it, and nobody has deleted it: only then are its source and schedules looked at."""
        return not self.deleted and self.status not in (ConnectorStatus.CREATED, ConnectorStatus.NEEDS_CONFIGURATION)

    def status_of(self, job_type: JobType) -> JobStatus | None:
        """How the last sync of this kind went; full and incremental syncs share one status."""
        return self.last_sync_status if job_type.is_content else self.last_access_control_sync_status

    def scheduled_at(self, job_type: JobType) -> datetime | None:
        """The nominal fire time of the last scheduled sync of this type."""
        moment: datetime | None = getattr(self, SCHEDULED_AT[job_type])
        return moment


SCHEDULED_AT = {
    JobType.FULL: "last_sync_scheduled_at",
    JobType.INCREMENTAL: "last_incremental_sync_scheduled_at",
    JobType.ACCESS_CONTROL: "last_access_control_sync_scheduled_at",
}
"""Job type -> the connector's field that holds the nominal fire time of its last scheduled sync."""


def _one_set_of_rules(value: JSON) -> JSON:
    """A job holds one set of rules; some writers wrap it in a list, or copy the connector's whole entry."""
    if isinstance(value, list | tuple):
        value = value[0] if value else {}
    if isinstance(value, dict) and "active" in value and "rules" not in value:
        value = value["active"]
    return value


@attrs.frozen(kw_only=True)
class JobConnector(Stored):
    """What a job remembers of its connector, as it was when the job was made."""

    id: ConnectorId = ConnectorId("")
    configuration: dict[str, Any] = attrs.field(factory=dict, repr=False)
    filtering: Rules = attrs.field(factory=Rules, metadata={"prepare": _one_set_of_rules})
    index_name: str | None = None
    language: str | None = None
    pipeline: Pipeline | None = None
    service_type: str | None = None
    sync_cursor: JSON = None


@attrs.frozen(kw_only=True)
class SyncJob(Stored):
    """One run of a sync, wanted, running or over."""

    id: JobId = attrs.field(default=JobId(""), metadata={"wire": False})
    cancelation_requested_at: datetime | None = None
    canceled_at: datetime | None = None
    completed_at: datetime | None = None
    connector: JobConnector = attrs.field(factory=JobConnector)
    created_at: datetime | None = None
    deleted_document_count: int = 0
    error: str | None = None
    indexed_document_count: int = 0
    indexed_document_volume: int = 0
    """MiB, rounded."""
    job_type: JobType = JobType.FULL
    last_seen: datetime | None = None
    metadata: dict[str, Any] = attrs.field(factory=dict)
    started_at: datetime | None = None
    status: JobStatus = JobStatus.PENDING
    total_document_count: int | None = None
    trigger_method: TriggerMethod = TriggerMethod.ON_DEMAND
    worker_hostname: str | None = None

    @property
    def sync_cursor(self) -> JSON:
        """The cursor the job was claimed with, wherever its claimer has put it."""
        if self.connector.sync_cursor is not None:
            return self.connector.sync_cursor
        return (self.stored or {}).get(STRAY_CURSOR)


STRAY_CURSOR = "connector.sync_cursor"
"""The reference service, without the connector API, writes the cursor to a key of this name at the top of a job."""


def read_connector(connector_id: str, source: Source) -> Connector:
    """Read a connector document as stored, or as the API answers it. Raises `InvalidDocument` that names the fields."""
    return read(Connector, _without_id(connector_id, source), f"Connector {connector_id}", id=ConnectorId(connector_id))


def write_connector(connector: Connector) -> dict[str, JSON]:
    """Write a connector as it is stored, without its id."""
    return write(connector)


def read_job(job_id: str, source: Source) -> SyncJob:
    """Read a sync job as stored, or as the API answers it. Raises `InvalidDocument` that names the fields."""
    return read(SyncJob, _without_id(job_id, source), f"Sync job {job_id}", id=JobId(job_id))


def write_job(job: SyncJob) -> dict[str, JSON]:
    """Write a sync job as it is stored, without its id."""
    return write(job)


def read_rules(source: Source) -> Rules:
    """Read one set of sync rules, such as a draft that a person sends. Raises `InvalidDocument` that names the fields."""
    return read(Rules, source, "The set of sync rules")


def _without_id(own_id: str, source: Source) -> Source:
    # Answers of the API carry the id inside the document, where the index does not.
    if isinstance(source, dict) and source.get("id") == own_id:
        return {key: value for key, value in source.items() if key != "id"}
    return source


def default_rule(now: datetime, order: int = 0) -> Rule:
    """The rule that includes everything, last in every set of rules."""
    return Rule(
        id=DEFAULT_RULE_ID,
        policy="include",
        field="_",
        rule="regex",
        value=".*",
        order=order,
        created_at=now,
        updated_at=now,
    )


def default_filtering(now: datetime) -> Filtering:
    """The sync rules of a new connector: everything is included, the draft is the same, both are valid."""
    snippet = AdvancedSnippet(created_at=now, updated_at=now)
    rules = Rules(rules=(default_rule(now),), advanced_snippet=snippet)
    return Filtering(active=rules, draft=rules)
