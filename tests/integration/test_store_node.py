"""The store and the built-in node alone: who may come in, both ways to write, and no sockets at all."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from callboard.node import Role, User, open_node
from callboard.protocol.documents import JobStatus
from callboard.protocol.jobs import Counts
from callboard.protocol.store import Forbidden, Store, Target, Unauthorised, open_store

ADA = User("ada", "lovelace", ("superuser",))
EVE = User("eve", "evesdrop", ("reader",))
ROLES = {"reader": Role.of(("monitor",), {"open-*": ("read",)})}


async def whole_life(store: Store) -> None:
    """One connector, one job, some documents."""
    await store.ensure_indices()
    connector = await store.connectors.create("c", index_name="library", service_type="dir")
    await store.connectors.check_in("c")
    mine = await store.jobs.claim((await store.jobs.create(connector)).id, "here")
    await store.content.ensure_index("library")
    body = b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (number, number) for number in range(30))
    assert not (await store.content.bulk(body, index="library")).has_errors
    seen = 0
    async with aclosing(store.content.existing("library", page_size=10)) as pages:
        async for page in pages:
            seen += len(page)
    assert seen == 30
    done = await store.jobs.complete(mine, Counts(indexed=30))
    await store.connectors.sync_ends("c", done, {"at": 1})
    assert [job.status async for job in store.jobs.list(connector_ids=["c"])] == [JobStatus.COMPLETED]
    assert (await store.connectors.get("c")).last_indexed_document_count == 30


@pytest.mark.parametrize("use_connectors_api", [True, False])
async def test_a_node_in_this_process_needs_no_socket(use_connectors_api: bool) -> None:
    async with open_node(port=None) as node:
        assert node.url is None
        async with open_store(Target(embedded=node.app, use_connectors_api=use_connectors_api)) as store:
            await whole_life(store)


async def test_credentials_open_the_node_and_wrong_ones_are_refused_with_a_remedy() -> None:
    async with open_node(users=[ADA, EVE], roles=ROLES) as node:
        assert node.url is not None
        async with open_store(Target(node.url, username="ada", password="lovelace")) as store:
            await whole_life(store)
            made = await store.client.security.create_api_key(name="service")
        for key in (made["encoded"], f"{made['id']}:{made['api_key']}"):
            async with open_store(Target(node.url, api_key=key)) as store:
                assert store.server is not None
        for target in (
            Target(node.url),
            Target(node.url, username="ada", password="wrong-password"),
            Target(node.url, username="nobody", password="wrong-password"),
            Target(node.url, api_key="wrong-id:wrong-key"),
            Target(node.url, api_key="d3Jvbmc="),
        ):
            with pytest.raises(Unauthorised, match="API key, user and password") as caught:
                async with open_store(target, wait_s=60):
                    raise AssertionError
            assert "wrong-password" not in str(caught.value)


async def test_missing_rights_are_named_before_and_when_they_are_needed() -> None:
    async with open_node(users=[ADA, EVE], roles=ROLES) as node:
        assert node.url is not None
        async with open_store(Target(node.url, username="eve", password="evesdrop")) as store:
            found = await store.rights.privileges(cluster=["monitor"], index={"library": ["read", "write"]})
            assert found is not None
            assert str(found) == "missing: read, write on library"
            with pytest.raises(Forbidden, match="may not"):
                await store.content.ensure_index("library")
            with pytest.raises(Forbidden, match=r"may not do POST /library/_bulk"):
                await store.content.bulk(b'{"index":{}}\n{"n":1}\n', index="library")
            with pytest.raises(Forbidden):
                await store.ensure_indices()
