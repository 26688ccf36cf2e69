"""Redis against a real server that the test starts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from hashlib import md5
from pathlib import Path
from typing import Any, NoReturn

import pytest

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources import redis as module
from callboard.sources.errors import ConfigurationError, CredentialsError, SourceError, Transient
from callboard.sources.redis import Redis, RedisConfig
from callboard.sources.source import Document, Failure


class Server:
    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                self("PING")
                return
            except (OSError, AssertionError):
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.05)

    def __call__(self, *command: str | bytes, database: int = 0) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            for words in (("SELECT", str(database)), command):
                parts = [word if isinstance(word, bytes) else word.encode() for word in words]
                connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
                answer = connection.recv(65536)
                assert not answer.startswith(b"-"), answer
        return answer


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, server_missing: Callable[[str, str], NoReturn]
) -> Iterator[Server]:
    if not shutil.which("redis-server"):
        server_missing("a Redis server", "sudo apt-get install redis-server")
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def server(running: Server) -> Server:
    running("FLUSHALL")
    return running


def source(server: Server, *databases: str, **values: Any) -> Redis:
    return Redis(RedisConfig(host="127.0.0.1", port=server.port, database=list(databases) or ["*"], **values))


async def listed(one: Redis, rules: Any = None) -> tuple[dict[str, Document], list[Failure]]:
    documents: dict[str, Document] = {}
    failures: list[Failure] = []
    async with one.session(), aclosing(one.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(one.documents(partition)) as pages:
                async for page in pages:
                    for item in page if isinstance(page, list) else [page]:
                        if isinstance(item, Document):
                            documents[item.fields["key"]] = item
                        elif isinstance(item, Failure):
                            failures.append(item)
    return documents, failures


async def test_every_type_has_the_text_of_existing_indices(server: Server) -> None:
    for command in (
        ("SET", "number", "1"),
        ("SET", "json", '{"a": 1, "b": null}'),
        ("SET", "text", "héllo"),
        ("SET", "bytes", b"\xff\xfe"),
        ("HSET", "hash", "x", "1"),
        ("RPUSH", "list", "1", "2"),
        ("SADD", "set", "b", "a"),
        ("ZADD", "zset", "1.5", "m"),
        ("XADD", "stream", "1-0", "f", "v"),
    ):
        server(*command, database=3)
    documents, failures = await listed(source(server, "3"))
    assert failures == []
    values = {key: (document.fields["key_type"], document.fields["value"]) for key, document in documents.items()}
    assert values == {
        "number": ("string", "1"),
        "json": ("string", "{'a': 1, 'b': None}"),
        "text": ("string", "héllo"),
        "bytes": ("string", ""),
        "hash": ("hash", "{'x': '1'}"),
        "list": ("list", "['1', '2']"),
        "set": ("set", "{'a', 'b'}"),
        "zset": ("zset", "[('m', 1.5)]"),
        "stream": ("stream", "[('1-0', {'f': 'v'})]"),
    }
    document = documents["number"]
    assert document.id == md5(b"3/number").hexdigest()
    assert document.fields["database"] == "3"
    assert document.fields["size_in_bytes"] > 0


async def test_all_databases_are_read_and_never_mixed_up(server: Server) -> None:
    for number in (0, 5, 15):
        server("SET", f"in{number}", "x", database=number)
    documents, _ = await listed(source(server))
    assert {key: document.fields["database"] for key, document in documents.items()} == {"in0": 0, "in5": 5, "in15": 15}


async def test_rules_choose_keys_by_pattern_and_type(server: Server) -> None:
    server("SET", "session:1", "x", database=2)
    server("HSET", "session:2", "a", "b", database=2)
    server("SET", "other", "x", database=2)
    one = source(server)
    rules = [{"database": 2, "key_pattern": "session:*", "type": "HASH"}]
    documents, _ = await listed(one, rules)
    assert set(documents) == {"session:2"}
    assert await one.validate_rules(rules) == []
    (problem,) = await one.validate_rules([{"database": 99, "type": "hash"}])
    assert "no database 99" in problem.message


@pytest.mark.parametrize(
    "rule", [1, {"database": 1}, {"database": "1", "type": "set"}, {"database": 1, "type": "set", "x": 1}]
)
async def test_useless_rules_say_why(server: Server, rule: Any) -> None:
    assert await source(server).validate_rules([rule])


async def test_many_keys_and_odd_names(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_PER_PAGE", 10)
    for number in range(75):
        server("SET", f"k{number}", str(number))
    server("SET", b"odd\xff", "x")
    documents, failures = await listed(source(server, "0"))
    assert failures == []
    assert len(documents) == 76
    assert "odd\\xff" in documents


async def test_a_huge_collection_is_cut_and_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMBERS_MAX", 3)
    server("RPUSH", "list", "1", "2", "3", "4", "5")
    documents, _ = await listed(source(server, "0"))
    assert documents["list"].fields["value"] == "['1', '2', '3']"
    assert documents["list"].fields["value_is_cut"] is True


async def test_refusals_say_what_to_do_and_nothing_secret(server: Server) -> None:
    server("ACL", "SETUSER", "reader", "on", ">canary-right", "~*", "+@all")
    with pytest.raises(CredentialsError, match="does not accept") as caught:
        await source(server, username="reader", password="canary-wrong").ping()
    assert "canary" not in str(caught.value)
    await source(server, username="reader", password="canary-right").ping()
    with pytest.raises(ConfigurationError, match="no database 99"):
        await source(server, "99").validate()
    with pytest.raises(Transient, match="cannot be reached"):
        await Redis(RedisConfig(host="127.0.0.1", port=1)).ping()


async def test_a_server_that_hides_its_configuration_is_probed(server: Server) -> None:
    server("ACL", "SETUSER", "tenant", "on", ">x", "~*", "+@all", "-config", "-memory|usage")
    server("SET", "in7", "x", database=7)
    documents, failures = await listed(source(server, username="tenant", password="x"))
    assert failures == []
    assert documents["in7"].fields["size_in_bytes"] is None


async def test_a_server_that_goes_away_is_never_an_empty_one(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEYS_PER_PAGE", 10)
    own = Server(tmp_path)
    for number in range(100):
        own("SET", f"k{number}", "x")
    with pytest.raises((SourceError, ExceptionGroup)) as caught:
        await _read_while_it_dies(source(own, "0"), own)
    error = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]  # type: ignore[assignment]
    assert isinstance(error, Transient)


async def _read_while_it_dies(one: Redis, server: Server) -> None:
    async with one.session():
        partitions = [partition async for partition in one.partitions()]
        async with aclosing(one.documents(partitions[0])) as pages:
            async for _ in pages:
                server.process.kill()
                server.process.wait()


def test_databases_that_are_no_numbers_are_refused() -> None:
    stored = schema_of(RedisConfig)
    stored["host"]["value"], stored["database"]["value"] = "h", "1, *"
    with pytest.raises(InvalidConfiguration, match="neither a number nor"):
        read_configuration(RedisConfig, stored)
