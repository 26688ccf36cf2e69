"""What the actors of one service share: its connections and settings, and what is known and running at this moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import attrs
import trio

from ..protocol import Connector, SyncJob
from ..protocol.store import Licence, Store
from ..runtime import Budget, blocking, monotonic, now
from ..sources.errors import ConfigurationError
from ..sources.registry import source_class
from ..sources.source import Source
from .configuration import Settings
from .journal.entry import Happening
from .journal.keeping import Queue
from .journal.service_events import ConnectorConnected, ConnectorFailed, ConnectorFound, ConnectorGone
from .journal.telling import Teller
from .preflight import NEEDS_NTLM
from .schedule_plan import Capabilities, Slots, Waiting
from .secrets import secrets_of
from .sync.report import SyncReport

Action: TypeAlias = Literal["schedule", "sync_content", "sync_access_control", "cleanup"]
ACTIONS: tuple[Action, ...] = ("schedule", "sync_content", "sync_access_control", "cleanup")
LICENCE_ASKED_EVERY_S = 60.0


@attrs.frozen(kw_only=True)
class ServiceEvent:
    """One thing that happened, for whoever embeds a service."""

    kind: Literal[
        "connector_found", "connector_gone", "connector_connected", "connector_failed", "schedule_fired",
        "job_started", "job_ended", "job_taken_over",
    ]  # fmt: skip
    at: datetime
    connector_id: str
    job_id: str | None = None
    detail: Any = None
    """A sentence, or for `job_ended` the `SyncReport`."""


@attrs.define
class Held:
    """A job that could not be started a moment ago."""

    why: str
    until_s: float


@attrs.define(eq=False)
class ServiceState:
    """Owned by `open_service`; the scheduler, the connectors and the janitor of the same service read and write it."""

    store: Store
    settings: Settings
    worker: str
    actions: frozenset[Action]
    own_classes: Mapping[str, type[Source[Any]]]
    extractor: Any
    checks: trio.CapacityLimiter
    memory: Budget
    """For everything that the jobs of this service have on its way."""
    on_event: Callable[[ServiceEvent], None] | None = None
    stopping: trio.Event = attrs.field(factory=trio.Event)
    """Set once the service ends: running jobs suspend themselves, nothing new begins."""
    connectors: dict[str, Connector] = attrs.field(factory=dict)
    """As the last look saw them."""
    capabilities: dict[str, Capabilities] = attrs.field(factory=dict)
    failing: dict[str, str] = attrs.field(factory=dict)
    """Connector id -> why its source cannot be used now."""
    running: dict[str, SyncJob] = attrs.field(factory=dict)
    helping: dict[str, tuple[SyncJob, trio.Event]] = attrs.field(factory=dict)
    """Jobs of other services that are helped with here, and what makes the help end."""
    waiting: dict[str, Waiting] = attrs.field(factory=dict)
    held: dict[str, Held] = attrs.field(factory=dict)
    unfired: dict[str, str] = attrs.field(factory=dict)
    """Connector id -> why its schedule makes no job, although it is due."""
    teller: Teller = attrs.field(factory=Teller)
    journal: Queue = attrs.field(factory=Queue)
    operations_url: str | None = None
    rehearsal: str = ""
    """Which faults are injected on purpose; empty if none are."""
    was_freed: bool = False
    """A job has ended since the scheduler last slept: what waits for its connector may start soon."""
    has_looked: bool = False
    """The scheduler has seen the connectors once: before that nobody knows what there is to do."""
    look_requested: bool = False
    """Look at all connectors at the next turn of the scheduler."""
    _woken: trio.Event = attrs.field(factory=trio.Event)
    _idle: trio.Event = attrs.field(factory=trio.Event)
    _licence: tuple[float, Licence | None] | None = None
    _secrets: tuple[Any, tuple[str, ...]] = (None, ())
    _asking: trio.Lock = attrs.field(factory=trio.Lock)

    def secrets(self) -> tuple[str, ...]:
        """What the configurations of all connectors hold that must not be logged."""
        connectors, known = self._secrets
        if connectors is not self.connectors:
            found = {one for connector in self.connectors.values() for one in secrets_of(connector.configuration)}
            # Longest first: one may be a part of another.
            known = tuple(sorted(found, key=len, reverse=True))
            self._secrets = (self.connectors, known)
        return known

    @property
    def slots(self) -> Slots:
        service = self.settings.service
        return Slots(
            service.max_concurrent_content_syncs if "sync_content" in self.actions else 0,
            service.max_concurrent_access_control_syncs if "sync_access_control" in self.actions else 0,
        )

    def wake(self) -> None:
        """Make the scheduler look at once."""
        self._woken.set()

    async def woken_within(self, seconds: float) -> bool:
        """Wait for `wake`; tell whether it came."""
        with trio.move_on_after(seconds):
            await self._woken.wait()
        was_woken = self._woken.is_set()
        self._woken = trio.Event()
        return was_woken

    def job_begins(self, job: SyncJob) -> None:
        """Take a slot."""
        self.running[job.id] = job
        self.waiting.pop(job.id, None)

    def job_ends(self, job: SyncJob) -> None:
        """Give the slot back."""
        self.running.pop(job.id, None)
        self._freed()

    def help_begins(self, job: SyncJob) -> trio.Event:
        """Take a slot for the help with another service's job; set the event to have it back."""
        self.helping[job.id] = job, trio.Event()
        return self.helping[job.id][1]

    def help_ends(self, job: SyncJob) -> None:
        """Give that slot back."""
        self.helping.pop(job.id, None)
        self._freed()

    def _freed(self) -> None:
        self.was_freed = True
        if not self.running and not self.helping:
            self._idle.set()
            self._idle = trio.Event()
        self.wake()

    async def until_no_job_runs(self) -> None:
        """Wait until the last job, and the help with the last one, has ended."""
        while self.running or self.helping:
            await self._idle.wait()

    def hold(self, job_id: str, why: str, seconds: float) -> None:
        """Do not offer this job again for a while."""
        self.held[job_id] = Held(why, monotonic() + seconds)

    def forget_held(self) -> None:
        """Drop what is not held any more: an end in the past must not keep the scheduler awake."""
        moment = monotonic()
        self.held = {job_id: held for job_id, held in self.held.items() if held.until_s > moment}

    def held_now(self) -> dict[str, str]:
        """The jobs that are held, and why."""
        self.forget_held()
        return {job_id: held.why for job_id, held in self.held.items()}

    def tell(
        self, kind: Any, connector_id: str, job_id: str | None = None, detail: str | SyncReport | None = None
    ) -> None:
        """Give an event to whoever embeds the service."""
        match kind:
            case "connector_found":
                self.note(ConnectorFound(), connector_id)
            case "connector_gone":
                self.note(ConnectorGone(), connector_id)
            case "connector_connected":
                self.note(ConnectorConnected(), connector_id)
            case "connector_failed":
                self.note(ConnectorFailed(why=str(detail)), connector_id)
        if self.on_event is not None:
            self.on_event(ServiceEvent(kind=kind, at=now(), connector_id=connector_id, job_id=job_id, detail=detail))

    def note(self, happening: Happening, connector_id: str = "", job_id: str = "") -> None:
        """Tell the journal and the metrics."""
        self.teller.tell(happening, connector_id=connector_id, job_id=job_id)

    async def licence(self) -> Licence | None:
        """The licence, asked for at most once a minute. Raises `StoreError`."""
        async with self._asking:
            if self._licence is None or monotonic() - self._licence[0] >= LICENCE_ASKED_EVERY_S:
                self._licence = (monotonic(), await self.store.rights.licence())
            return self._licence[1]

    async def source_class(self, service_type: str) -> type[Source[Any]]:
        """The class of a source; its import may block and may run foreign code, so it happens in a thread.

        Raises `SourceError`; whatever else an import raises becomes a `ConfigurationError` that names it.
        """
        if service_type in self.own_classes:
            return self.own_classes[service_type]
        if self.settings.service.fips_mode and service_type in NEEDS_NTLM:
            raise ConfigurationError(
                f"The source {service_type!r} needs NTLM, which FIPS mode forbids. Switch `service.fips_mode` off to use it."
            )
        return await blocking(_import, service_type, dict(self.settings.sources))


def _import(service_type: str, own: Mapping[str, str]) -> type[Source[Any]]:
    try:
        return source_class(service_type, own)
    except SystemExit as exc:
        raise ConfigurationError(
            f"The source {service_type!r} ended the program when it was imported ({exc})."
        ) from exc
