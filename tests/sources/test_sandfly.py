"""Sandfly against a double with its seven routes, which refuses what the server refuses."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import attrs
import httpx
import orjson
import pytest

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources import sandfly as module
from callboard.sources.errors import (
    ConfigurationError,
    CredentialsError,
    PermissionDenied,
    SourceError,
    UnexpectedAnswer,
)
from callboard.sources.sandfly import Sandfly, SandflyConfig
from callboard.sources.source import Checkpoint, Document, Failure, Partition


@attrs.define
class Server:
    results: list[dict[str, Any]] = attrs.field(factory=list)
    features: list[str] = attrs.field(factory=lambda: ["elasticsearch_replication"])
    expiry: str = "2999-01-01T00:00:00Z"
    logins: int = 0
    token: str = "t1"
    page: int = 2
    more_keys: bool = False
    refuses_keys: bool = False
    broken: httpx.Response | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v4")
        body = orjson.loads(request.content) if request.content else {}
        if path == "/auth/login":
            self.logins += 1
            good = body == {"username": "me", "password": "right"}
            return httpx.Response(200, json={"access_token": self.token}) if good else httpx.Response(401)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return httpx.Response(401)
        if path == "/license":
            return httpx.Response(200, json={"date": {"expiry": self.expiry}, "limits": {"features": self.features}})
        if path == "/hosts":
            hosts = [
                {"host_id": "h1", "hostname": "a", "data": {"os": {"info": {"node": "n1"}}}},
                {"host_id": "h2", "hostname": "b"},
            ]
            return httpx.Response(200, json={"data": hosts})
        if path == "/sshhunter/summary":
            return httpx.Response(200, json={"data": [{"id": 1}, {"id": 2}, {"id": 3}], "more_results": self.more_keys})
        if path.startswith("/sshhunter/key/"):
            number = path.rpartition("/")[2]
            if self.refuses_keys:
                return httpx.Response(401)
            if number == "3":
                return httpx.Response(404)
            return httpx.Response(200, json={"key_value": f"k{number}", "friendly_name": f"key {number}"})
        return self.found(body)

    def found(self, body: dict[str, Any]) -> httpx.Response:
        assert body["sort"] == [{"Field": "sequence_id", "sort": "asc"}]
        after = 0
        for condition in body.get("filter", {}).get("items", ()):
            if condition["columnField"] == "sequence_id":
                after = int(condition["value"])
                if self.broken is not None:
                    return self.broken
        rest = [result for result in self.results if result["sequence_id"] > after]
        return httpx.Response(200, json={"data": rest[: self.page], "more_results": len(rest) > self.page})


def result(number: int) -> dict[str, Any]:
    return {
        "sequence_id": number,
        "external_id": f"e{number}",
        "header": {"end_time": "2026-01-01T00:00:00Z"},
        "data": {"key_data": "" if number == 1 else "x"},
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    double = Server([result(number) for number in range(1, 6)])
    real = module.open_http
    monkeypatch.setattr(
        module, "open_http", lambda settings, auth: real(settings, auth=auth, transport=httpx.MockTransport(double))
    )
    return double


def source(password: str = "right") -> Sandfly:
    return Sandfly(SandflyConfig(server_url="https://s.example/v4", username="me", password=password))


async def items(listing: Any) -> list[Any]:
    found: list[Any] = []
    async with aclosing(listing) as pages:
        async for page in pages:
            found += page if isinstance(page, list) else [page]
    return found


async def full(one: Sandfly) -> list[Any]:
    found: list[Any] = []
    async with aclosing(one.partitions()) as partitions:
        async for partition in partitions:
            found += await items(one.documents(partition))
    return found


async def test_a_full_listing_has_all_three_kinds_and_then_a_cursor(server: Server) -> None:
    one = source()
    async with one.session():
        await one.ping()
        found = await full(one)
    documents = [item for item in found if isinstance(item, Document)]
    kinds = [document.fields["sandfly_data_type"] for document in documents]
    assert (kinds.count("sandfly_hosts"), kinds.count("sandfly_ssh_keys"), kinds.count("sandfly_results")) == (2, 2, 5)
    assert {document.fields["sandfly_key_data"] for document in documents} >= {
        "n1 (a)",
        "<unknown> (b)",
        "key 1",
        "- no data -",
    }
    (failure,) = [item for item in found if isinstance(item, Failure)]
    assert (failure.scope, failure.what) == ("container", "SSH key 3")
    assert one.sync_cursor()["sequence_id"] == 5
    assert server.logins == 1


async def test_changes_come_from_behind_the_cursor(server: Server) -> None:
    one = source()
    async with one.session():
        found = await items(one.changes({"sequence_id": 3}))
    results = [
        item for item in found if isinstance(item, Document) and item.fields["sandfly_data_type"] == "sandfly_results"
    ]
    assert [item.fields["sandfly_results"]["sequence_id"] for item in results] == [4, 5]
    assert isinstance(found[-1], Checkpoint)
    assert found[-1].value["sequence_id"] == 5
    async with one.session():
        with pytest.raises(ConfigurationError, match="full sync first"):
            await items(one.changes(None))


async def test_a_token_that_expired_is_replaced(server: Server) -> None:
    one = source()
    async with one.session():
        await one.ping()
        server.token = "t2"
        await one.ping()
    assert server.logins == 2


async def test_refusals_say_what_to_do(server: Server) -> None:
    async with (wrong := source("canary")).session():
        with pytest.raises(CredentialsError, match="user and password") as caught:
            await wrong.ping()
    assert "canary" not in str(caught.value)
    server.features = []
    async with (unlicensed := source()).session():
        with pytest.raises(PermissionDenied, match="does not include"):
            await full(unlicensed)
    server.expiry = "2020-01-01T00:00:00Z"
    async with (expired := source()).session():
        with pytest.raises(PermissionDenied, match="expired on 2020-01-01"):
            await expired.ping()


@pytest.mark.parametrize(
    "broken",
    [
        httpx.Response(403),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"data": [], "more_results": True}),
        httpx.Response(200, json={"data": [result(2)], "more_results": True}),
    ],
)
async def test_a_listing_that_breaks_raises(server: Server, broken: httpx.Response) -> None:
    server.broken = broken
    async with (one := source()).session():
        with pytest.raises(SourceError):
            await full(one)


async def test_keys_that_cannot_be_listed_to_the_end_are_left_alone(server: Server) -> None:
    server.more_keys = True
    async with (one := source()).session():
        with pytest.raises(UnexpectedAnswer, match="left as they are"):
            await full(one)


def test_a_form_that_nobody_filled_in_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="still holds what the form came with"):
        read_configuration(SandflyConfig, schema_of(SandflyConfig))


async def test_credentials_that_are_refused_at_a_key_end_the_listing_as_themselves(server: Server) -> None:
    server.refuses_keys = True
    one = source()
    async with one.session():
        with pytest.raises(CredentialsError):
            await items(one.documents(Partition("ssh_keys")))
