"""The service: one system of actors that looks after connectors and runs their jobs, for as long as it is open.

service
├── connectors              one supervisor per connector
│   └── <id>
│       ├── keeper          keeps the document true, asks the source whether it answers
│       └── job-<id>        one per running job
├── scheduler               schedules, waiting jobs, slots
└── janitor                 jobs without a worker

async with open_service(settings) as service:
    await service.wait()
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from ..protocol.store import Store, open_store
from ..runtime import (
    Backoff,
    Budget,
    ChildSpec,
    Event,
    FaultPlan,
    RestartsExhausted,
    Supervisor,
    System,
    TreeNode,
    blocking,
    open_system,
    watch_for_stalls,
)
from ..sources.source import Source
from .configuration import ReadResult, Settings, read_file, read_mapping, reloaded
from .configured import store_target
from .connector import Seen
from .extraction.configured import configured_extraction
from .extraction.pool import ExtractionPool
from .janitor import Janitor
from .journal.keeping import JournalTask
from .journal.service_events import (
    ActorCrashed,
    ActorRestarted,
    FaultInjected,
    LoopStalled,
    MessageUndelivered,
    ServiceStarted,
    ServiceStopped,
    SupervisorGaveUp,
)
from .operations import Metrics, OperationsRefused, OperationsTask, check_address
from .preflight import Finding, preflight
from .reminding import RehearsalReminder
from .scheduler import FOR_EVER, Scheduler, TooManyProblems
from .service_state import ACTIONS, Action, ServiceEvent, ServiceState
from .sync.settings import MIB
from .worker_name import own_name

log = structlog.get_logger(__name__)

ONCE = Backoff(give_up_after=0)
"""These count their own problems; when they raise, the service is at its end."""


class Service:
    """A running service. Ask it, wake it, reload it; it ends with the block of `open_service`."""

    def __init__(self, state: ServiceState, system: System, findings: tuple[Finding, ...]) -> None:
        self._state, self._system = state, system
        self.findings = findings
        """What the start-up check found."""

    @property
    def settings(self) -> Settings:
        """As they are in force now."""
        return self._state.settings

    @property
    def store(self) -> Store:
        """The store that the service itself uses."""
        return self._state.store

    @property
    def worker(self) -> str:
        """The name under which this service claims jobs."""
        return self._state.worker

    def running(self) -> tuple[str, ...]:
        """The ids of the jobs that run here now."""
        return tuple(self._state.running)

    def connectors(self) -> tuple[str, ...]:
        """The ids of the connectors that the service looks after now."""
        return tuple(self._state.connectors)

    def why_waiting(self, job_id: str) -> str | None:
        """Say why a pending job does not start; None if it does not wait here. Long waits are also told by the job's metadata."""
        waiting = self._state.waiting.get(job_id)
        return None if waiting is None else waiting.why

    def why_not_scheduled(self, connector_id: str) -> str | None:
        """Say why a connector's schedules make no job; None if nothing hinders them."""
        state = self._state
        connector = state.connectors.get(connector_id)
        if connector is None:
            return state.failing.get(connector_id) or "It is not a connector that this service works on."
        if not connector.is_schedulable:
            return f"The connector is {connector.status.value}; somebody has to configure it first."
        return state.unfired.get(connector_id)

    def failing(self) -> Mapping[str, str]:
        """Connector id -> why its source cannot be used now."""
        return dict(self._state.failing)

    @property
    def operations_url(self) -> str | None:
        """Where metrics, health and live data are served; None while they are not."""
        return self._state.operations_url

    def secrets(self) -> tuple[str, ...]:
        """What the connectors' configurations hold that must not be shown, for whoever logs what sources say."""
        return self._state.secrets()

    def watched(self) -> AbstractAsyncContextManager[None]:
        """While the block runs, the journal is told who blocks the event loop. Needs real time and a thread."""
        return watch_for_stalls(self._system)

    def tree(self) -> TreeNode:
        """All actors as they are now."""
        return self._system.tree()

    def look_now(self) -> None:
        """Look at all connectors and jobs at once, without waiting for `service.idling`."""
        self._state.look_requested = True
        self._state.wake()

    def reload(self, wanted: Settings) -> tuple[str, ...]:
        """Take over what may change in a running service; returns the keys that differ and need a restart."""
        settings, refused = reloaded(self._state.settings, wanted)
        self._state.settings = settings
        self._state.checks.total_tokens = settings.service.max_concurrent_scheduling_tasks
        self.look_now()
        return refused

    async def stop(self) -> bool:
        """Suspend what runs, within `callboard.shutdown_seconds`. Returns whether everything was in time.

        The block of `open_service` may then be left; what was not in time is cancelled there.
        """
        self._state.stopping.set()
        self._state.wake()
        with trio.move_on_after(self._state.settings.callboard.shutdown_seconds) as limit:
            await self._state.until_no_job_runs()
        return not limit.cancelled_caught

    async def wait(self) -> None:
        """Wait until the service is stopped. If a part of it cannot go on, the block is left with that part's error."""
        await self._system.root.monitor()


def open_service(
    settings: Settings | Mapping[str, Any] | Path | str,
    *,
    embedded: Any = None,
    sources: Mapping[str, type[Source[Any]]] | None = None,
    on_event: Callable[[ServiceEvent], None] | None = None,
    actions: Collection[Action] = ACTIONS,
    ignore_version: bool = False,
    environment: Mapping[str, str] | None = None,
    faults: FaultPlan | None = None,
    through: Any = None,
    rehearsal: str = "",
) -> AbstractAsyncContextManager[Any]:
    """Run a service while the block runs. `settings` may be the path or the content of a `config.yml`.

    On Trio the block gets a `Service`. On asyncio it gets a `HostedService`, and the service runs in a thread of its own.
    `embedded` is a node inside this process, instead of an Elasticsearch; `sources` are own source classes by service type; `environment` fills variables
    in the settings (this process's own if None);
    `on_event` is called with each `ServiceEvent` and must not block.
    For rehearsals, `faults` go wrong inside the service, and `through` is an application that takes the requests to Elasticsearch
    and passes them on; `rehearsal` says in a few words what is injected, and everything that shows the service says it. Raises `ConfigurationProblem`, `PreflightFailed`,
    `StoreError` and `ExtractionUnavailable` before the block, and `TooManyProblems` out of it. Left or cancelled: running jobs are
    suspended, and go on from their checkpoints when a service claims them again.
    """
    arguments: dict[str, Any] = {
        "settings": settings,
        "embedded": embedded,
        "sources": sources,
        "actions": actions,
        "ignore_version": ignore_version,
        "environment": os.environ if environment is None else environment,
        "faults": faults,
        "through": through,
        "rehearsal": rehearsal or ("faults are injected" if faults is not None or through is not None else ""),
    }
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        from .asyncio_host import host

        return host(_open_on_trio, on_event, **arguments)
    return _open_on_trio(on_event=on_event, **arguments)


@asynccontextmanager
async def _open_on_trio(
    *,
    settings: Settings | Mapping[str, Any] | Path | str,
    embedded: Any,
    sources: Mapping[str, type[Source[Any]]] | None,
    on_event: Callable[[ServiceEvent], None] | None,
    actions: Collection[Action],
    ignore_version: bool,
    environment: Mapping[str, str],
    faults: FaultPlan | None,
    through: Any,
    rehearsal: str,
) -> AsyncIterator[Service]:
    ready = await _settings(settings, environment)
    elasticsearch = ready.elasticsearch
    worker = str(await blocking(own_name))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            open_store(
                store_target(ready, embedded=embedded, through=through),
                wait_s=elasticsearch.max_wait_duration,
                wait_first_s=elasticsearch.initial_backoff_duration,
                wait_factor=elasticsearch.backoff_multiplier,
            )
        )
        findings = await preflight(store, ready, ignore_version=ignore_version)
        extractor = ExtractionPool(configured_extraction(ready.extraction_service, ready.callboard.text_extraction))
        state = ServiceState(
            store=store,
            settings=ready,
            worker=worker,
            actions=frozenset(actions),
            own_classes=dict(sources or {}),
            extractor=extractor,
            checks=trio.CapacityLimiter(ready.service.max_concurrent_scheduling_tasks),
            # Half of it is for the reserves, also of jobs that have not begun: one that hangs never takes theirs.
            memory=Budget(ready.callboard.sync.memory_mib * MIB, ready.callboard.sync.memory_mib * MIB // 2),
            on_event=on_event,
            rehearsal=rehearsal,
        )
        metrics = Metrics()
        _listen(state, metrics)
        try:
            actors = _ActorNotes(state)
            async with open_system(
                "service",
                _root(state, metrics),
                shutdown_s=ready.callboard.shutdown_seconds,
                faults=faults,
                on_event=actors.note,
            ) as actors.system:
                state.note(ServiceStarted(rehearsal=rehearsal))
                yield Service(state, actors.system, findings)
                state.note(ServiceStopped())
                state.stopping.set()
        except RestartsExhausted as exc:
            if isinstance(exc.__cause__, TooManyProblems):
                raise exc.__cause__ from None
            raise


async def _settings(given: Settings | Mapping[str, Any] | Path | str, environment: Mapping[str, str]) -> Settings:
    if isinstance(given, Settings):
        return given
    result: ReadResult
    if isinstance(given, Mapping):
        result = read_mapping(given, environment)
    else:
        result = await blocking(read_file, Path(given), environment)
    for warning in result.warnings:
        log.warning("configuration", key=warning.key, text=warning.text)
    return result.settings


def _root(state: ServiceState, metrics: Metrics) -> Supervisor:
    # The engine comes first, so that it ends last: no job may lose it while it stops in order.
    children = [state.extractor.spec()] if isinstance(state.extractor, ExtractionPool) else []
    if state.settings.callboard.journal.enabled:
        # Before whatever tells, so that it ends after it.
        children.append(
            ChildSpec(name="journal", start=lambda: JournalTask(state.store, state.journal), backoff=FOR_EVER)
        )
    if state.rehearsal:
        children.append(ChildSpec(name="rehearsal", start=lambda: RehearsalReminder(state.rehearsal), backoff=FOR_EVER))
    children += [ChildSpec(name="connectors", start=Supervisor, shutdown_s=state.settings.callboard.shutdown_seconds)]
    children.append(ChildSpec(name="scheduler", start=lambda: Scheduler(state), restart="transient", backoff=ONCE))
    if "cleanup" in state.actions:
        children.append(ChildSpec(name="janitor", start=lambda: Janitor(state), restart="transient", backoff=ONCE))
    if state.settings.callboard.operations.enabled:
        children.append(ChildSpec(name="operations", start=lambda: OperationsTask(state, metrics), backoff=FOR_EVER))
    return Supervisor(children)


def _listen(state: ServiceState, metrics: Metrics) -> None:
    """Let the metrics and the journal hear what is told, as far as they are wanted."""
    operations = state.settings.callboard.operations
    state.teller.worker = state.worker
    state.teller.secrets = state.secrets
    if operations.enabled:
        check_address(operations.host, operations.token)
        state.teller.listeners.append(metrics.listen)
    if operations.traces:
        from .operations.traces import Traces

        try:
            state.teller.listeners.append(Traces().listen)
        except ModuleNotFoundError as exc:
            raise OperationsRefused(
                "callboard.operations.traces needs OpenTelemetry. Install it: pip install 'callboard[opentelemetry]'"
            ) from exc
    if state.settings.callboard.journal.enabled:
        state.teller.listeners.append(state.journal.offer)


def _is_replaced(system: System | None, message: object) -> bool:
    """Whether a keeper is merely busy, and what it did not read yet gave way to something newer."""
    if not isinstance(message, Seen) or system is None:
        return False
    supervisor = system.root.child("connectors").child(message.connector.id)
    keeper = None if supervisor is None else supervisor.child("keeper")
    return keeper is not None and not keeper.has_ended


@attrs.define
class _ActorNotes:
    """Tells what the runtime sees happen to actors, from the first that is started to the last that ends."""

    state: ServiceState
    system: System | None = None
    """None until all have started."""

    def note(self, event: Event) -> None:
        """Tell of one event."""
        _note_actor(self.state, self.system, event)


def _note_actor(state: ServiceState, system: System | None, event: Event) -> None:
    """Tell what the runtime sees happen to actors."""
    match event.kind:
        case "crashed":
            state.note(ActorCrashed(path=event.path, why=str(event.detail)))
        case "restarted":
            state.note(ActorRestarted(path=event.path, why=str(event.detail)))
        case "escalated":
            state.note(SupervisorGaveUp(path=event.path, why=str(event.detail)))
        case "dead_letter" if not _is_replaced(system, event.detail):
            state.note(MessageUndelivered(path=event.path, message=type(event.detail).__name__))
        case "fault":
            fault = event.detail
            state.note(
                FaultInjected(path=fault.path, effect=fault.effect, point=fault.point, rule=fault.rule, what=fault.what)
            )
        case "stalled":
            state.note(LoopStalled(path=event.path, stack=str(event.detail)))
