"""A node with users: keys of single connectors, privileges that are missing, a licence that does not suffice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import structlog.testing
import trio

from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.preflight import Finding, PreflightFailed, examine
from callboard.actors.service import open_service
from callboard.node import Role, User, open_node
from callboard.protocol import JobStatus, JobType, Pipeline, SyncJob
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.documents import Flag
from callboard.protocol.store import Store, Target, open_store
from callboard.sources.source import Document, Features, Listing, Partition, Source

PASSWORD = "the-ghost-walks"
PROTOCOL = {".elastic-connectors*": ("all",), ".callboard-*": ("all",)}


@attrs.frozen
class PropsConfig:
    count: int = setting("Count", default=2)


class Props(Source[PropsConfig]):
    service_type = "props"
    name = "Props"
    Config = PropsConfig
    features = Features(document_level_security=True)

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        yield [Document(f"prop-{number}", {"number": number}) for number in range(self.config.count)]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A node whose `metadata` user may do all to the protocol's indices, and nothing to anybody's documents."""
    roles = {
        "metadata": Role.of(cluster=("monitor", "manage_connector"), indices=PROTOCOL),
        "short": Role.of(cluster=("monitor",), indices={".elastic-connectors*": ("read",)}),
    }
    users = [
        User("boss", PASSWORD, ("superuser",)),
        User("metadata", PASSWORD, ("metadata",)),
        User("short", PASSWORD, ("short",)),
    ]
    async with open_node(users=users, roles=roles) as node:
        assert node.url is not None
        yield node.url


@asynccontextmanager
async def store_of(url: str, user: str = "boss") -> AsyncIterator[Store]:
    async with open_store(Target(url, username=user, password=PASSWORD)) as store:
        yield store


async def make(store: Store, name: str) -> None:
    await store.connectors.create(name, index_name=f"props-{name}", name=name, service_type="props")

    def decide(present: Any) -> Any:
        return attrs.evolve(transitions.configured(present, {"count": {"value": 2}}), pipeline=Pipeline())

    await store.connectors.update(name, decide)


async def key_for(store: Store, index: str) -> str:
    told = await store.client.security.create_api_key(
        name=f"key for {index}",
        role_descriptors={
            "writer": {"indices": [{"names": [index, f".search-acl-filter-{index}"], "privileges": ["all"]}]}
        },
    )
    return str(told["encoded"])


def settings_of(url: str, user: str, *connectors: dict[str, Any], **more: Any) -> Settings:
    content = {
        "connectors": list(connectors),
        "elasticsearch": {"host": url, "username": user, "password": PASSWORD},
        "service.idling": 0.3,
        "service.preflight_max_attempts": 1,
        "callboard.text_extraction.engine": "plain",
        **more,
    }
    return read_mapping(content, {}).settings


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """Look until it is so."""
    with trio.fail_after(seconds):
        while True:
            if found := await look():
                return found
            await trio.sleep(0.05)


async def ended(store: Store, job: SyncJob) -> SyncJob:
    async def look() -> SyncJob | None:
        found = await store.jobs.get(job.id)
        return found if found.status.is_terminal else None

    result: SyncJob = await until(look)
    return result


async def test_documents_are_written_with_the_connector_s_own_key_and_metadata_with_the_service_s(url: str) -> None:
    async with store_of(url) as store:
        await store.ensure_indices()
        for name in ("keyed", "keyless", "crossed"):
            await make(store, name)
        settings = settings_of(
            url,
            "metadata",
            {"connector_id": "keyed", "api_key": await key_for(store, "props-keyed")},
            {"connector_id": "keyless"},
            # The key of somebody else's index.
            {"connector_id": "crossed", "api_key": await key_for(store, "props-keyed")},
        )
        async with open_service(settings, sources={"props": Props}):
            jobs = {}
            for name in ("keyed", "keyless", "crossed"):
                jobs[name] = await store.jobs.create(await store.connectors.get(name))
            done = {name: await ended(store, job) for name, job in jobs.items()}
        assert done["keyed"].status is JobStatus.COMPLETED, done["keyed"].error
        assert await store.content.count("props-keyed") == 2
        for name in ("keyless", "crossed"):
            assert done[name].status is JobStatus.ERROR
            assert "props-" in (done[name].error or ""), done[name].error


async def found(url: str, user: str, settings: Settings) -> dict[str, Finding]:
    async with store_of(url, user) as store:
        return {one.subject: one for one in await examine(store, settings, changes_nothing=True)}


async def test_the_doctor_s_findings_name_what_is_missing_and_grant_it(url: str) -> None:
    async with store_of(url) as store:
        await store.ensure_indices()
        for name in ("keyed", "keyless"):
            await make(store, name)
        key = await key_for(store, "props-keyed")
    named = ({"connector_id": "keyed", "api_key": key}, {"connector_id": "keyless"}, {"connector_id": "nobody"})
    findings = await found(url, "metadata", settings_of(url, "metadata", *named))
    assert findings["Privileges"].verdict == "ok"
    assert findings["Connector keyed"].verdict == "ok", findings["Connector keyed"].text
    keyless = findings["Connector keyless"]
    assert keyless.verdict == "problem"
    assert "write" in keyless.text
    assert '"props-keyless"' in keyless.text
    assert "no such connector" in findings["Connector nobody"].text
    spoilt = settings_of(url, "metadata", {"connector_id": "keyed", "api_key": "bm90OmFrZXk="})
    assert (await found(url, "metadata", spoilt))["Connector keyed"].verdict == "problem"


async def test_a_service_that_lacks_privileges_does_not_begin_and_says_how_to_grant_them(url: str) -> None:
    async with store_of(url) as store:
        await store.ensure_indices()
    settings = settings_of(url, "short", {"connector_id": "one"})
    with pytest.raises(PreflightFailed) as caught:
        async with open_service(settings):
            raise AssertionError("it began")
    text = str(caught.value)
    for words in ("manage_connector", "write", "PUT _security/role", ".elastic-connectors"):
        assert words in text, text


async def test_a_lapsed_licence_is_told_once_on_the_job_and_once_in_the_log() -> None:
    async with open_node(port=None, license_type="basic") as node, open_store(Target(embedded=node.app)) as store:
        await store.ensure_indices()
        await make(store, "one")

        def secured(present: Any) -> Any:
            return attrs.evolve(
                present, features=attrs.evolve(present.features, document_level_security=Flag(enabled=True))
            )

        content = {
            "connectors": [{"connector_id": "one"}],
            "service.idling": 0.2,
            "callboard.text_extraction.engine": "plain",
        }
        with structlog.testing.capture_logs() as lines:
            async with open_service(
                read_mapping(content, {}).settings, embedded=node.app, sources={"props": Props}
            ) as service:

                async def is_kept_up() -> bool:
                    return (await store.connectors.get("one")).features is not None

                await until(is_kept_up)
                await store.connectors.update("one", secured)
                job = await store.jobs.create(await store.connectors.get("one"), JobType.ACCESS_CONTROL)

                async def is_told() -> bool:
                    return "Platinum" in str((await store.jobs.get(job.id)).metadata.get("callboard"))

                await until(is_told)
                _, first = await store.jobs.documents.read(job.id)
                await trio.sleep(2)
                waiting, later = await store.jobs.documents.read(job.id)
                assert "Platinum" in (service.why_waiting(job.id) or "")
        assert waiting.status is JobStatus.PENDING
        assert later == first, "the job was written again and again"
        assert sum("Platinum" in str(line) for line in lines) == 1
