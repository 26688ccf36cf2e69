"""Deliberate mistakes in the service, to prove that its simulation would find them. The engine's are in `mutations.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import attrs

from callboard.actors import connector, janitor, job, scheduler
from callboard.actors.sync import preparing
from callboard.protocol import connectors as transitions
from callboard.protocol.store import jobs as stored_jobs
from callboard.runtime import ChildSpec, budget
from callboard.runtime import stream as streams

from .mutations import MUTATIONS, Mutation


@contextmanager
def _janitor_takes_a_live_job() -> Iterator[None]:
    async def is_lost(_self: Any, _job: Any, _watched: Any) -> bool:
        return True

    with patch.object(janitor.Janitor, "_is_lost", is_lost):
        yield


@contextmanager
def _janitor_leaves_the_jobs_of_the_dead() -> Iterator[None]:
    async def is_lost(_self: Any, _job: Any, _watched: Any) -> bool:
        return False

    with patch.object(janitor.Janitor, "_is_lost", is_lost):
        yield


@contextmanager
def _takeover_doubles_a_job() -> Iterator[None]:
    right = janitor.Janitor._take_over

    async def take_over(self: Any, found: Any) -> None:
        await right(self, found)
        store = self._state.store
        doubled = await store.jobs.create(await store.connectors.get(found.connector.id), found.job_type)
        await store.connectors.update(found.connector.id, lambda present: attrs.evolve(present, last_sync_status=None))
        await store.jobs.claim(doubled.id, self._state.worker)

    with patch.object(janitor.Janitor, "_take_over", take_over):
        yield


@contextmanager
def _scheduler_forgets_a_fire() -> Iterator[None]:
    async def make_job(_self: Any, _connector: Any, _job_type: Any, _fire_time: Any) -> None:
        return None

    right = scheduler.Scheduler._make_job

    async def sometimes(self: Any, found: Any, job_type: Any, fire_time: Any) -> None:
        await (make_job if fire_time.minute % 3 == 0 else right)(self, found, job_type, fire_time)

    with patch.object(scheduler.Scheduler, "_make_job", sometimes):
        yield


@contextmanager
def _scheduler_sleeps_through_fire_times() -> Iterator[None]:
    with patch.object(scheduler.Scheduler, "_plan_schedules", _nothing):
        yield


@contextmanager
def _every_service_makes_the_job_of_a_fire_time() -> Iterator[None]:
    async def create_scheduled(self: Any, found: Any, job_type: Any, _fire_time: Any) -> Any:
        from callboard.protocol import TriggerMethod

        return await self.create(found, job_type, TriggerMethod.SCHEDULED)

    def fired(found: Any, job_type: Any, fire_time: Any) -> Any:
        return attrs.evolve(found, **{transitions.SCHEDULED_AT[job_type]: fire_time})

    with (
        patch.object(stored_jobs.Jobs, "create_scheduled", create_scheduled),
        patch.object(transitions, "schedule_fired", fired),
    ):
        yield


@contextmanager
def _stop_leaves_the_job_as_it_is() -> Iterator[None]:
    right = job._RunningJob._finish

    async def finish(self: Any, outcome: Any) -> Any:
        return self._report(outcome) if outcome.status == "suspended" else await right(self, outcome)

    with patch.object(job._RunningJob, "_finish", finish):
        yield


@contextmanager
def _an_actor_that_crashed_is_not_started_again() -> Iterator[None]:
    def spec(**given: Any) -> ChildSpec:
        return ChildSpec(**{**given, "restart": "temporary"} if given["name"] == "keeper" else given)

    with patch.object(scheduler, "ChildSpec", spec):
        yield


@contextmanager
def _forgets_who_may_read_a_document() -> Iterator[None]:
    with patch.object(preparing, "access_list", lambda _readers: []):
        yield


@contextmanager
def _asks_a_source_that_failed_never_again() -> Iterator[None]:
    with patch.object(connector, "CHECK_AGAIN_S", 1e9), patch.object(connector.ConnectorKeeper, "_is_due", _once):
        yield


@contextmanager
def _keeps_the_memory_of_what_was_written() -> Iterator[None]:
    with patch.object(streams.Batch, "settle", _settled_without_release):
        yield


@contextmanager
def _grants_more_memory_than_there_is() -> Iterator[None]:
    with patch.object(budget.Budget, "_fits", lambda _self, _holder, _charge_bytes: True):
        yield


@contextmanager
def _leaves_the_memory_of_a_job_that_was_cut_off() -> Iterator[None]:
    with patch.object(budget.Holder, "abandon", budget.Holder.close):
        yield


@contextmanager
def _runs_on_after_its_connector_was_deleted() -> Iterator[None]:
    async def gone(self: Any, connector_id: str) -> None:
        self._plan.forget(connector_id)

    with patch.object(scheduler.Scheduler, "_gone", gone):
        yield


def _settled_without_release(self: Any, done: int | None = None, failed: int = 0) -> None:
    self._grant = None
    _settle(self, done, failed)


_settle = streams.Batch.settle


def _once(self: Any, _connector: Any) -> bool:
    return self._checked is None


async def _nothing(_self: Any, _connector: Any) -> None:
    return None


SERVICE_MUTATIONS: Mapping[str, Mutation] = {
    **{
        function.__name__.strip("_").replace("_", " "): function
        for function in (
            _janitor_takes_a_live_job,
            _janitor_leaves_the_jobs_of_the_dead,
            _takeover_doubles_a_job,
            _scheduler_forgets_a_fire,
            _scheduler_sleeps_through_fire_times,
            _every_service_makes_the_job_of_a_fire_time,
            _stop_leaves_the_job_as_it_is,
            _an_actor_that_crashed_is_not_started_again,
            _forgets_who_may_read_a_document,
            _asks_a_source_that_failed_never_again,
            _keeps_the_memory_of_what_was_written,
            _grants_more_memory_than_there_is,
            _leaves_the_memory_of_a_job_that_was_cut_off,
            _runs_on_after_its_connector_was_deleted,
        )
    },
    "claims without a lock": MUTATIONS["writes without looking at the sequence number"],
    "claims what another has claimed": MUTATIONS["claims what another has claimed"],
    "swallows cancellation": MUTATIONS["swallows cancellation"],
    "takes a document whose file was not read for done": MUTATIONS["takes a document whose file was not read for done"],
}
