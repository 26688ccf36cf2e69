"""One connector of a service: the actor that keeps its document true, and the task that runs one of its jobs.

The actor is told the document at each look of the scheduler. It keeps the schema and the features up to date, sends the
heartbeat, validates drafts of sync rules, and asks the source whether it answers, but only when something has changed, when the
heartbeat is due, or when the pause after a failure is over. Whatever goes wrong in it is shown on this connector and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar, Literal

import attrs
import trio

from ..protocol import Connector, ConnectorStatus, SyncJob, TransitionRefused, ValidationState
from ..protocol import connectors as transitions
from ..protocol.configuration import read_configuration, upkeep
from ..protocol.drafts import needs_validation
from ..protocol.filtering import validate_rules
from ..protocol.store import NotFound, Store, StoreError, open_store
from ..protocol.wire import same
from ..runtime import Actor, Context, Task, TreeNode, handles, monotonic, now
from ..sources.errors import SourceError
from ..sources.source import Source, SourceContext
from .configured import content_target, engine_settings
from .job import MakeSource, run_job
from .journal.events import JobNotStarted
from .journal.service_events import DraftValidated, SchemaKeptUp
from .journal.telling import telling
from .reminding import rehearsal_notes
from .schedule_plan import Capabilities
from .secrets import hidden, secrets_of
from .service_state import ServiceState
from .sync.report import ProgressEvent

CHECK_S = 60.0
"""A source has so long to answer a check."""
CHECK_AGAIN_S = 30.0
"""First pause after a failed check; it doubles up to the heartbeat."""
REFUSED_AGAIN_S = 5.0
FAILED_AGAIN_S = 30.0


@attrs.frozen
class Seen:
    """The connector's document, as it was at the latest look."""

    connector: Connector


class ConnectorKeeper(Actor):
    """Keeps one connector's document true."""

    mailbox_capacity: ClassVar[int] = 1
    overflow: ClassVar[Literal["wait", "drop_oldest", "fail"]] = "drop_oldest"

    def __init__(self, connector_id: str, state: ServiceState) -> None:
        self._id, self._state = connector_id, state
        self._class: tuple[str, type[Source[Any]]] | None = None
        self._checked: Any = None
        """What was checked last: the part of the document that decides how the source is used."""
        self._check_at_s = 0.0
        self._failures = 0
        self._was_told = ""

    @handles
    async def on_seen(self, message: Seen) -> None:
        """Do what the document asks for. Raises nothing that the connector itself can show."""
        try:
            await self._look(message.connector)
        except (TransitionRefused, NotFound) as exc:
            self.context.log.info("connector.changed_meanwhile", why=str(exc))
        except StoreError as exc:
            self.context.log.warning("connector.not_kept", why=str(exc))
        except Exception as exc:  # noqa: BLE001 - one connector's defect ends here, and is shown on the connector
            text = hidden(f"{type(exc).__name__}: {exc}", secrets_of(message.connector.configuration))
            self.context.log.error("connector.defect", why=text)
            self._checked = _relevant(message.connector)
            await self._show_defect(text)

    async def _show_defect(self, text: str) -> None:
        self._failed_again()
        self._state.failing[self._id] = text
        try:
            await self._state.store.connectors.failed(self._id, text)
        except (StoreError, TransitionRefused) as exc:
            self.context.log.warning("connector.error_not_shown", why=str(exc))

    async def _look(self, connector: Connector) -> None:
        connector = await self._named(connector)
        if transitions.needs_check_in(connector, now(), self._heartbeat):
            await self._state.store.connectors.check_in(self._id)
        if not connector.service_type:
            self._tell_once("it has no service type. Choose the kind of its source.")
            return
        if not self._is_due(connector):
            return
        kind = await self._source_class(connector)
        if kind is None:
            return
        connector = await self._kept_up(connector, kind)
        if not connector.is_schedulable:
            self._tell_once(f"it is {connector.status.value}. Enter its configuration.")
            return
        await self._check(connector, kind)

    # What the document says about the source

    async def _named(self, connector: Connector) -> Connector:
        wanted = next(
            (one.service_type for one in self._state.settings.connectors if one.connector_id == self._id), None
        )
        if connector.service_type or not wanted:
            return connector
        return await self._state.store.connectors.update(
            self._id, lambda present: transitions.with_service_type(present, wanted)
        )

    async def _source_class(self, connector: Connector) -> type[Source[Any]] | None:
        service_type = connector.service_type or ""
        if self._class is not None and self._class[0] == service_type:
            return self._class[1]
        try:
            kind = await self._state.source_class(service_type)
        except Exception as exc:  # noqa: BLE001 - whatever a source raises on import is shown on its connector
            await self._fail(connector, str(exc))
            return None
        self._class = (service_type, kind)
        self._state.capabilities[self._id] = Capabilities(
            incremental=kind.features.incremental != "none", access_control=kind.features.document_level_security
        )
        return kind

    async def _kept_up(self, connector: Connector, kind: type[Source[Any]]) -> Connector:
        """Add what is missing in the stored configuration and features; values of people are never touched."""
        can = kind.features
        features = transitions.features_document(
            basic_rules=can.basic_rules,
            advanced_rules=can.advanced_rules,
            incremental_sync=can.incremental != "none",
            document_level_security=can.document_level_security,
        )

        def decide(present: Connector) -> Connector:
            kept = transitions.with_features(present, features)
            schema = upkeep(present.configuration, kind.Config)
            if schema.is_needed:
                kept = attrs.evolve(kept, configuration=schema.configuration)
            if kept.status is ConnectorStatus.CREATED:
                kept = attrs.evolve(kept, status=ConnectorStatus.NEEDS_CONFIGURATION)
            return kept

        if decide(connector) == connector:
            return connector
        kept = await self._state.store.connectors.update(self._id, decide)
        added = sorted(set(kept.configuration) - set(connector.configuration))
        self._state.note(SchemaKeptUp(fields=added), self._id)
        return kept

    # Whether the source answers

    @property
    def _heartbeat(self) -> timedelta:
        return timedelta(seconds=self._state.settings.service.heartbeat)

    def _is_due(self, connector: Connector) -> bool:
        if not same(self._checked, _relevant(connector)) or monotonic() >= self._check_at_s:
            return True
        if self._failures:
            return False
        return connector.status in (ConnectorStatus.CREATED, ConnectorStatus.CONFIGURED) or needs_validation(connector)

    async def _check(self, connector: Connector, kind: type[Source[Any]]) -> None:
        is_changed = not same(self._checked, _relevant(connector))
        self._checked = _relevant(connector)
        async with self._state.checks:
            try:
                # Waits of the source are told as the connector's.
                with trio.fail_after(CHECK_S), telling(self._state.teller, connector_id=self._id):
                    await self._ask(connector, kind)
            except trio.TooSlowError:
                await self._fail(connector, f"The source did not answer within {CHECK_S:g} seconds.")
                return
            except (StoreError, TransitionRefused):
                raise
            except Exception as exc:  # noqa: BLE001 - whatever a source raises is shown on its connector
                await self._fail(connector, _sentence(exc))
                return
        self._failures = 0
        self._check_at_s = monotonic() + self._state.settings.service.heartbeat
        self._was_told = ""
        has_failed = self._state.failing.pop(self._id, None) is not None
        # The error of the last sync stays to be seen; the error of an earlier check goes.
        is_old_check = connector.status is ConnectorStatus.ERROR and connector.error != connector.last_sync_error
        if (
            connector.status is ConnectorStatus.CONFIGURED
            or has_failed
            or is_old_check
            or (is_changed and connector.status is ConnectorStatus.ERROR)
        ):
            await self._state.store.connectors.connected(self._id)
            self._state.tell("connector_connected", self._id)
        if has_failed:
            self._state.wake()

    async def _ask(self, connector: Connector, kind: type[Source[Any]]) -> None:
        features = connector.features
        context = SourceContext(
            log=self.context.log,
            content_size_bytes_max=self._state.settings.service.max_file_download_size,
            document_level_security=bool(features and features.document_level_security_enabled),
        )
        source = kind(read_configuration(kind.Config, connector.configuration), context)
        async with source.session():
            await source.validate()
            await source.ping()
            if needs_validation(connector):
                await self._validate_draft(connector, source)

    async def _validate_draft(self, connector: Connector, source: Source[Any]) -> None:
        draft = connector.rules.draft
        problems = await source.validate_rules(draft.advanced_snippet.value) if draft.has_advanced else ()
        validation = validate_rules(draft, [(problem.rule_ids, problem.message) for problem in problems])
        await self._state.store.connectors.draft_validated(self._id, draft, validation)
        self._state.note(DraftValidated(valid=validation.state is ValidationState.VALID), self._id)
        self.context.log.info("connector.draft_validated", valid=validation.state is ValidationState.VALID)

    async def _fail(self, connector: Connector, text: str) -> None:
        """Show an error on the connector. It is written once, and asked about again after growing pauses."""
        text = hidden(text, secrets_of(connector.configuration))
        self._failed_again()
        self._checked = _relevant(connector)
        is_new = self._state.failing.get(self._id) != text
        self._state.failing[self._id] = text
        if connector.error != text or connector.status is not ConnectorStatus.ERROR:
            await self._state.store.connectors.failed(self._id, text)
        if is_new:
            self.context.log.warning("connector.failed", why=text)
            self._state.tell("connector_failed", self._id, detail=text)

    def _failed_again(self) -> None:
        pause_s = min(CHECK_AGAIN_S * 2**self._failures, self._state.settings.service.heartbeat)
        self._failures = min(self._failures + 1, 20)
        self._check_at_s = monotonic() + pause_s

    def _tell_once(self, why: str) -> None:
        if why != self._was_told:
            self._was_told = why
            self.context.log.info("connector.waits", why=why)


def _relevant(connector: Connector) -> list[Any]:
    return [connector.service_type, dict(connector.configuration)]


def _sentence(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return str(exc) or type(exc).__name__


class ProgressLog:
    """Logs where a job stands whenever so many more documents have been settled."""

    def __init__(self, log: Any, every: Callable[[], int]) -> None:
        self._log, self._every, self._told = log, every, 0

    def __call__(self, event: ProgressEvent) -> None:
        """Called by the engine a few times a second."""
        settled = event.indexed + event.deleted + event.unchanged + event.failed
        if settled - self._told < self._every():
            return
        self._told = settled
        self._log.info(
            "job.progress",
            listed=event.listed,
            indexed=event.indexed,
            deleted=event.deleted,
            unchanged=event.unchanged,
            failed=event.failed,
            waits_for=event.waiting_on,
        )


JOB_SHUTDOWN_S = 10.0
"""How long a job, or help with one, may take to leave what it has done as true when it is to end."""


class JobTask(Task):
    """Runs one job to its end. Cancelled: the job is suspended, within seconds."""

    def __init__(self, job: SyncJob, state: ServiceState) -> None:
        self._job, self._state = job, state

    async def run(self, context: Context) -> None:
        """Claim, work, write the end. A refusal to start is remembered, so that it can be asked for."""
        job, state = self._job, self._state
        log = context.log.bind(job=job.id, connector=job.connector.id, index=job.connector.index_name)
        try:
            state.tell("job_started", job.connector.id, job.id)
            make_source = await source_maker(state, job)
            place = telling(state.teller, connector_id=job.connector.id, job_id=job.id)
            async with content_store_of(state, job) as content_store:
                with place:
                    report = await run_job(
                        state.store,
                        job,
                        make_source=make_source,
                        content_store=content_store,
                        settings=engine_settings(state.settings),
                        extractor=state.extractor,
                        budget=state.memory,
                        worker_hostname=state.worker,
                        stop=state.stopping,
                        on_progress=ProgressLog(log, lambda: state.settings.elasticsearch.bulk.display_every),
                        notes=rehearsal_notes(state.rehearsal),
                    )
        except TransitionRefused as exc:
            log.info("job.not_started", why=exc.why)
            state.note(JobNotStarted(why=exc.why), job.connector.id, job.id)
            state.hold(job.id, f"It could not be started: {exc.why}", REFUSED_AGAIN_S)
        except StoreError as exc:
            log.warning("job.not_started", why=str(exc))
            state.note(JobNotStarted(why=str(exc)), job.connector.id, job.id)
            state.hold(job.id, f"It could not be started: {exc}", FAILED_AGAIN_S)
        except Exception as exc:  # noqa: BLE001 - a job ends here; its document says why as far as it could be written
            log.error("job.defect", why=_sentence(exc))
            state.note(JobNotStarted(why=_sentence(exc)), job.connector.id, job.id)
            state.hold(job.id, f"It could not be run: {_sentence(exc)}", FAILED_AGAIN_S)
        else:
            state.tell("job_ended", job.connector.id, job.id, report)
        finally:
            state.job_ends(job)

    def parts(self) -> Sequence[TreeNode]:
        """The stages of the engine."""
        run = self._state.teller.runs.get(self._job.id)
        return () if run is None else run.stages()


async def source_maker(state: ServiceState, job: SyncJob) -> MakeSource:
    """What makes the job's source. A class that cannot be had makes the job fail with that reason."""
    try:
        kind: Any = await state.source_class(job.connector.service_type or "")
    except Exception as exc:  # noqa: BLE001 - whatever a source raises on import is told by its job
        problem = SourceError(_sentence(exc))

        def refuse(job: SyncJob, context: SourceContext) -> Source[Any]:
            raise problem

        return refuse

    def make(job: SyncJob, context: SourceContext) -> Source[Any]:
        source: Source[Any] = kind(read_configuration(kind.Config, job.connector.configuration), context)
        return source

    return make


@asynccontextmanager
async def content_store_of(state: ServiceState, job: SyncJob) -> AsyncIterator[Store | None]:
    """The store for a job's documents: with the connector's own key, if the configuration gives it one."""
    connector_id = job.connector.id
    key = next((one.api_key for one in state.settings.connectors if one.connector_id == connector_id), None)
    target = content_target(state.store.target, key)
    if target is None:
        yield None
        return
    async with open_store(target, wait_s=None) as store:
        yield store
