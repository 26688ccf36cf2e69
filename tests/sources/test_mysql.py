"""The MySQL source against a real MariaDB that this module starts."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pymysql
import pytest
import trio

from callboard.protocol.configuration import schema_of
from callboard.sources.errors import ConfigurationError, CredentialsError, NotFound, Transient
from callboard.sources.mysql import MySQL, MySQLConfig
from callboard.sources.source import Checkpoint, Document, Failure

_spec = importlib.util.spec_from_file_location("callboard_test_servers", Path(__file__).with_name("servers.py"))
assert _spec is not None
assert _spec.loader is not None
servers = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = servers
_spec.loader.exec_module(servers)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(server_missing):
    program = servers.mariadb_program()
    if program is None:
        server_missing("MariaDB", "sudo apt-get install mariadb-server")
    with servers.mariadb(program) as running:
        yield running


def _execute(server, *statements):
    connection = pymysql.connect(
        host="127.0.0.1", port=server.port, user=server.user, password=server.password, autocommit=True
    )
    with connection, connection.cursor() as cursor:
        for one in statements:
            cursor.execute(one)
        return cursor.fetchall()


@pytest.fixture
def database(server):
    _execute(server, "CREATE DATABASE shop CHARACTER SET utf8mb4")
    yield "shop"
    _execute(server, "DROP DATABASE shop")


@asynccontextmanager
async def _source(server, **settings):
    given = {
        "host": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": "shop",
    }
    source = MySQL(MySQLConfig(**{**given, **settings}))
    async with source.session():
        yield source


async def _read(source, rules=None):
    items = []
    async with aclosing(source.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(source.documents(partition)) as listing:
                async for page in listing:
                    items += page if isinstance(page, list) else [page]
    return items


def _documents(items):
    return {item.id: item.fields for item in items if isinstance(item, Document)}


def test_the_settings_are_those_of_existing_connectors():
    schema = schema_of(MySQLConfig)
    assert list(schema) == (
        ["host", "port", "user", "password", "database", "tables", "ssl_enabled", "ssl_ca", "fetch_size", "retry_count"]
    )
    assert schema["fetch_size"]["default_value"] == 5000


async def test_ids_follow_the_columns_whatever_the_order_of_the_index(server, database):
    _execute(
        server,
        "CREATE TABLE shop.`5%s` (`%s` int PRIMARY KEY)",
        "INSERT INTO shop.`5%s` VALUES (1), (2)",
        "CREATE TABLE shop.rev (a int, b int, `100%` varchar(9), PRIMARY KEY (b, a))",
        "INSERT INTO shop.rev VALUES (1, 2, 'x'), (0, 3, NULL), (2, 1, 'ü')",
    )
    async with _source(server, fetch_size=1) as source:
        found = _documents(await _read(source))
    assert list(found) == ["5%s_1", "5%s_2", "rev_2_1", "rev_1_2", "rev_0_3"]
    assert found["rev_1_2"] == {"a": 1, "b": 2, "100%": "x", "Table": "rev"}


async def test_every_column_type_becomes_something_that_json_can_say(server, database):
    _execute(
        server,
        "CREATE TABLE shop.t (id int PRIMARY KEY, big bigint unsigned, dec_ decimal(10,2), f double, b bit(8), s set('x','y'),"
        " bin varbinary(4), d date, dt datetime(6), t time, y year, j json, g point)",
        "INSERT INTO shop.t VALUES (0, 18446744073709551615, 1.50, 2.5, b'1000001', 'x,y', x'ff41', '2024-01-02',"
        " '2024-01-02 03:04:05.5', '25:00:01', 2024, '{\"a\": 1}', NULL)",
    )
    async with _source(server) as source:
        found = _documents(await _read(source))
    assert found["t_0"] == {
        "id": 0,
        "big": 18446744073709551615,
        "dec_": 1.5,
        "f": 2.5,
        "b": "A",
        "s": "x,y",
        "bin": "A",
        "d": "2024-01-02",
        "dt": "2024-01-02T03:04:05.500000",
        "t": "P1DT3601S",
        "y": 2024,
        "j": '{"a": 1}',
        "g": None,
        "Table": "t",
    }


async def test_a_listing_goes_on_behind_its_checkpoint_and_survives_killed_connections(server, database):
    _execute(
        server,
        "CREATE TABLE shop.t (a varchar(20), b decimal(8,2), PRIMARY KEY (a, b))",
        "USE shop",
        "INSERT INTO shop.t SELECT CONCAT('Ä', seq DIV 7), seq FROM seq_1_to_2500",
    )
    seen, checkpoint, kills = [], None, 0
    async with _source(server, fetch_size=500) as source:
        (partition,) = [one async for one in source.partitions()]
        async with aclosing(source.documents(partition)) as listing:
            async for item in listing:
                if isinstance(item, Checkpoint):
                    checkpoint = item.value
                    if len(seen) == 1500:
                        break
                    others = "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND db = 'shop'"
                    for (one,) in _execute(server, others):
                        _execute(server, f"KILL {one}")
                        kills += 1
                else:
                    seen += item
        async with aclosing(source.documents(partition, checkpoint)) as listing:
            rest = [one async for page in listing if not isinstance(page, Checkpoint) for one in page]
    assert kills >= 2
    assert len({one.id for one in [*seen, *rest]}) == 2500 == len(seen) + len(rest)


async def test_tables_without_a_key_fail_alone_and_views_are_passed_over(server, database):
    _execute(server, "CREATE TABLE shop.loose (a int)", "CREATE VIEW shop.v AS SELECT 1 AS a")
    async with _source(server) as source:
        await source.validate()
        (failure,) = await _read(source)
    assert isinstance(failure, Failure)
    assert (failure.scope, failure.what) == ("partition", "loose")


async def test_rules_with_grouping_limit_and_semicolon_give_every_row(server, database):
    _execute(
        server,
        "CREATE TABLE shop.o (id int PRIMARY KEY, who varchar(9))",
        "INSERT INTO shop.o VALUES (1,'a'),(2,'a'),(3,'b'),(4,'c'),(5,'d')",
    )
    rules = [
        {
            "tables": ["o"],
            "query": "SELECT who, COUNT(*) AS n FROM shop.o WHERE who LIKE '%%' OR 7 % 2 = 0 GROUP BY who LIMIT 4;",
            "id_columns": ["who"],
        }
    ]
    async with _source(server, fetch_size=2) as source:
        assert list(await source.validate_rules(rules)) == []
        found = _documents(await _read(source, rules))
        (problem,) = await source.validate_rules([{**rules[0], "tables": ["z", "b"]}])
    assert sorted(found) == ["o_a", "o_b", "o_c", "o_d"]
    assert found["o_a"] == {"who": "a", "n": 2, "Table": ["o"]}
    assert "b, z" in problem.message


async def test_refusals_say_what_is_wrong(server, database):
    with pytest.raises(CredentialsError, match="admin"):
        async with _source(server, password="wrong") as source:
            await source.ping()
    with pytest.raises(ConfigurationError, match="nowhere"):
        async with _source(server, database="nowhere") as source:
            await source.ping()
    with pytest.raises(ConfigurationError, match="missing"):
        async with _source(server, tables=["missing"]) as source:
            await source.validate()
    with pytest.raises(NotFound):
        async with _source(server, tables=["missing"]) as source:
            await _read(source)
    with pytest.raises(Transient):
        async with _source(server, port=1) as source:
            await source.ping()


async def test_a_cancelled_query_ends_on_the_server_within_a_second(server, database):
    rules = [{"tables": ["t"], "query": "SELECT SLEEP(60), 1 AS id", "id_columns": ["id"]}]
    async with _source(server) as source:
        started = trio.current_time()
        with trio.move_on_after(0.5) as scope:
            await _read(source, rules)
        assert scope.cancelled_caught
        assert trio.current_time() - started < 1.5
    running = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'"
    for _ in range(20):
        if not _execute(server, running):
            break
        await trio.sleep(0.05)
    assert not _execute(server, running)
