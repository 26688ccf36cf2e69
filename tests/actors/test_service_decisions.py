"""What the service decides without input and output: fire plan, offers of jobs, lost jobs, worker names, settings, preflight."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.configured import content_target, engine_settings, store_target
from callboard.actors.janitor import TAKEOVERS_MAX, put_aside
from callboard.actors.preflight import Finding, PreflightFailed, preflight
from callboard.actors.schedule_plan import Capabilities, FirePlan, Slots, look_at, offer
from callboard.actors.worker_name import WorkerName, own_name, started_of
from callboard.node import open_node
from callboard.protocol import (
    Connector,
    ConnectorId,
    ConnectorStatus,
    Features,
    JobId,
    JobStatus,
    JobType,
    Schedule,
    Scheduling,
    SyncJob,
)
from callboard.protocol.documents import Flag, JobConnector
from callboard.protocol.jobs import TransitionRefused
from callboard.protocol.scheduling import MissedFires
from callboard.protocol.store import ServerInfo, Store, Target, open_store

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
WORKER = WorkerName("stage", 10, 20, "0123abcd")


def connector(name: str = "one", **fields: Any) -> Connector:
    return Connector(
        **{
            "id": ConnectorId(name),
            "index_name": f"i-{name}",
            "service_type": "dir",
            "status": ConnectorStatus.CONNECTED,
            **fields,
        }
    )


def job(name: str = "j", of: str = "one", kind: JobType = JobType.FULL, **fields: Any) -> SyncJob:
    return SyncJob(id=JobId(name), connector=JobConnector(id=ConnectorId(of)), job_type=kind, **fields)


# The fire plan

moments = st.integers(0, 50).map(lambda seconds: NOON + timedelta(seconds=seconds))


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(JobType), st.none() | moments)), moments)
def test_the_plan_gives_out_exactly_what_is_due_in_order(
    puts: list[tuple[str, JobType, datetime | None]], now: datetime
) -> None:
    plan, model = FirePlan(), {}
    for name, kind, at in puts:
        plan.put(name, kind, at)
        model[name, kind] = at
    expected = {key: at for key, at in model.items() if at is not None}
    assert plan.next_at() == min(expected.values(), default=None)
    taken = plan.take_due(now)
    assert [entry.at for entry in taken] == sorted(entry.at for entry in taken)
    assert {(entry.connector_id, entry.job_type): entry.at for entry in taken} == {
        key: at for key, at in expected.items() if at <= now
    }
    assert len(plan) == sum(at > now for at in expected.values())


def test_a_plan_that_is_changed_for_ever_does_not_grow() -> None:
    plan = FirePlan()
    for second in range(10_000):
        plan.put("a", JobType.FULL, NOON + timedelta(seconds=second))
    assert len(plan._heap) < 200


@pytest.mark.parametrize(("missed", "fires"), [(MissedFires.RUN_ONCE, 1), (MissedFires.SKIP, 0)])
def test_fires_missed_while_no_service_ran_are_caught_up_once_by_choice(missed: MissedFires, fires: int) -> None:
    hourly = Scheduling(full=Schedule(enabled=True, interval="0 0 * * * ?"))
    found = connector(scheduling=hourly, last_sync_scheduled_at=NOON - timedelta(hours=5))
    look = look_at(found, NOON + timedelta(minutes=1), NOON + timedelta(minutes=2), missed)
    assert len(look.fires) == fires
    if not fires:
        assert dict(look.waits)[JobType.FULL] == NOON + timedelta(hours=1)


def test_a_schedule_that_is_no_cron_expression_spoils_only_itself() -> None:
    both = Scheduling(
        full=Schedule(enabled=True, interval="whenever"), incremental=Schedule(enabled=True, interval="0 0 * * * ?")
    )
    found = connector(scheduling=both, features=Features(incremental_sync=Flag(enabled=True)))
    look = look_at(found, NOON, NOON + timedelta(seconds=1), MissedFires.SKIP)
    assert "whenever" in look.problems[0]
    assert dict(look.waits)[JobType.INCREMENTAL] == NOON + timedelta(hours=1)
    cannot = look_at(found, NOON, NOON + timedelta(seconds=1), MissedFires.SKIP, Capabilities(incremental=False))
    assert dict(cannot.waits)[JobType.INCREMENTAL] is None


# Offers


def test_the_oldest_job_gets_the_slot_and_kinds_do_not_wait_for_each_other() -> None:
    secured = Features(document_level_security=Flag(enabled=True))
    connectors = {name: connector(name, features=secured) for name in ("one", "two")}
    pending = [job("a", "one"), job("b", "two"), job("c", "two", JobType.ACCESS_CONTROL), job("d", "one")]
    offered = offer(pending, connectors, [], Slots(1, 1))
    assert [one.id for one in offered.start] == ["a", "c"]
    assert {waiting.job.id: waiting.why.split(".")[0] for waiting in offered.waiting} == {
        "b": "All 1 slots for content syncs are taken",
        "d": "The connector runs another content sync here; one at a time",
    }


@pytest.mark.parametrize(
    ("found", "kind", "licensed", "words"),
    [
        (None, JobType.FULL, True, "not one that this service works on"),
        (connector(last_sync_status=JobStatus.IN_PROGRESS), JobType.FULL, True, "at another service"),
        (connector(), JobType.ACCESS_CONTROL, False, "Platinum"),
        (connector(), JobType.ACCESS_CONTROL, True, "switched off"),
    ],
)
def test_a_job_that_may_not_start_says_why(found: Connector | None, kind: JobType, licensed: bool, words: str) -> None:
    offered = offer(
        [job(kind=kind)],
        {} if found is None else {"one": found},
        [],
        Slots(9, 9),
        licence_allows_access_control=licensed,
    )
    assert not offered.start
    assert words in offered.waiting[0].why


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(JobType))), st.integers(0, 3), st.integers(0, 3))
def test_an_offer_never_exceeds_slots_nor_doubles_a_kind(
    wanted: list[tuple[str, JobType]], content: int, access: int
) -> None:
    secured = Features(document_level_security=Flag(enabled=True))
    pending = [job(f"j{at}", of, kind) for at, (of, kind) in enumerate(wanted)]
    offered = offer(pending, {name: connector(name, features=secured) for name in "abcdef"}, [], Slots(content, access))
    kinds = [(one.connector.id, one.job_type.is_content) for one in offered.start]
    assert len(kinds) == len(set(kinds))
    assert sum(is_content for _, is_content in kinds) <= content
    assert sum(not is_content for _, is_content in kinds) <= access
    assert len(offered.start) + len(offered.waiting) == len(pending)


# Lost jobs


def test_a_lost_job_is_suspended_until_it_has_killed_too_many_workers() -> None:
    lost = job(status=JobStatus.IN_PROGRESS, worker_hostname=str(WORKER))
    for _ in range(TAKEOVERS_MAX):
        aside = put_aside(lost, NOON)
        assert aside.status is JobStatus.SUSPENDED
        lost = attrs.evolve(aside, status=JobStatus.IN_PROGRESS)
    over = put_aside(lost, NOON)
    assert over.status is JobStatus.ERROR
    assert "workers died" in (over.error or "")


def test_a_lost_job_somebody_wanted_to_cancel_is_canceled_and_one_of_another_program_fails() -> None:
    canceling = job(status=JobStatus.CANCELING, worker_hostname=str(WORKER))
    assert put_aside(canceling, NOON).status is JobStatus.CANCELED
    foreign = put_aside(job(status=JobStatus.IN_PROGRESS, worker_hostname="other-host"), NOON)
    assert (foreign.status, (foreign.error or "")[:7]) == (JobStatus.ERROR, "JobIdle")
    with pytest.raises(TransitionRefused):
        put_aside(job(status=JobStatus.COMPLETED, worker_hostname=str(WORKER)), NOON)


def test_a_name_tells_whether_its_process_is_dead() -> None:
    own = own_name()
    assert WorkerName.parse(str(own)) == own
    assert WorkerName.parse("some-host") is None
    assert not own.is_dead(own, started_of)
    done = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = attrs.evolve(own, pid=done.pid, started=started_of(done.pid) or 0)
    assert not other.is_dead(own, started_of)
    done.communicate(b"\n")
    assert other.is_dead(own, started_of)
    assert not attrs.evolve(other, space="ffffffff").is_dead(own, started_of), (
        "another machine's process cannot be seen"
    )


# Settings


def settings(**content: Any) -> Settings:
    return read_mapping({"connectors": [{"connector_id": "one"}], **content}, {}).settings


def test_every_part_gets_what_the_operator_wrote() -> None:
    read = settings(
        **{
            "elasticsearch": {
                "host": "https://es:9200",
                "api_key": "key-of-all",
                "request_timeout": 7,
                "compress": True,
                "max_retries": 2,
            },
            "elasticsearch.bulk": {"chunk_size": 100, "chunk_max_mem_size": 1, "max_text_document_size": 0},
            "elasticsearch.bulk.error_monitor.max_total_errors": 5,
            "callboard.sync.deletion_guard.agree": "next_sync",
        }
    )
    target = store_target(read)
    assert (target.url, target.api_key, target.username, target.request_timeout_s) == (
        "https://es:9200", "key-of-all", None, 7,
    )  # fmt: skip
    assert target.retries.attempts_max == 2
    assert target.compress
    engine = engine_settings(read)
    assert (engine.bulk_documents_max, engine.bulk_size_bytes_max, engine.text_size_bytes_max) == (50, 2**20, None)
    assert (engine.errors.total_max, engine.deletions.release) == (5, "next_full_sync")
    own = content_target(target, "key-of-one")
    assert own is not None
    assert (own.api_key, own.username) == ("key-of-one", None)
    assert content_target(target, None) is None
    assert "key-of" not in repr(target)


# Preflight


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as opened:
        yield opened


def subjects(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in findings}


async def test_preflight_makes_the_indices_and_tells_what_it_saw(store: Store) -> None:
    found = subjects(await preflight(store, settings()))
    assert found == dict.fromkeys(("Version", "Protocol indices", "Licence", "Privileges"), "ok")
    assert await store.client.indices.exists(index=".elastic-connectors-v1")


@pytest.mark.parametrize(
    ("version", "flavor", "refused", "words"),
    [
        ("8.19.0", "default", True, "Upgrade Elasticsearch"),
        ("10.0.0", "default", True, "Upgrade Callboard"),
        ("9.4.9", "default", True, "9.5"),
        ("9.7.0-SNAPSHOT", "default", False, "newer"),
        ("9.5.7", "default", False, "corrections"),
        ("8.11.0", "serverless", False, "serverless"),
    ],
)
async def test_preflight_judges_versions_and_explains(
    store: Store, version: str, flavor: str, refused: bool, words: str
) -> None:
    store.server = ServerInfo(version, flavor, "c")
    if refused:
        with pytest.raises(PreflightFailed, match=words):
            await preflight(store, settings())
        found = subjects(await preflight(store, settings(), ignore_version=True))
        assert found["Version"] == "warning"
    else:
        findings = await preflight(store, settings())
        assert words in next(finding.text for finding in findings if finding.subject == "Version")


async def test_preflight_goes_on_without_the_extraction_service_and_says_so(store: Store) -> None:
    found = await preflight(store, settings(**{"extraction_service.host": "http://127.0.0.1:9"}))
    (about,) = [finding for finding in found if finding.subject == "Extraction service"]
    assert about.verdict == "warning"
    assert "127.0.0.1:9/ping/" in about.text


async def test_preflight_names_missing_privileges_and_how_to_grant_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callboard.protocol.store import Privileges

    async def lacking(**_: Any) -> Privileges:
        return Privileges(("manage_connector",), {".elastic-connectors-v1*": ("write",)})

    monkeypatch.setattr(store.rights, "privileges", lacking)
    with pytest.raises(PreflightFailed, match=r"manage_connector.*write on .*PUT _security/role"):
        await preflight(store, settings())
