"""What databases hold in their darker corners: keys of every type, values beyond Python's, TLS, and a server that stops."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import aclosing
from pathlib import Path

import asyncpg
import pymysql
import pytest
import trio
import trio_asyncio
import trustme

from callboard.sources import postgresql
from callboard.sources.errors import ConfigurationError, PermissionDenied, SourceError
from callboard.sources.mysql import MySQL, MySQLConfig
from callboard.sources.postgresql import Postgres, PostgresConfig
from callboard.sources.source import Checkpoint, Document, Failure

_spec = importlib.util.spec_from_file_location("callboard_test_servers", Path(__file__).with_name("servers.py"))
assert _spec is not None
assert _spec.loader is not None
servers = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = servers
_spec.loader.exec_module(servers)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A throw-away authority, and a certificate of 127.0.0.1 that a server of another user can read."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder


@pytest.fixture(scope="module")
def postgres(server_missing):
    programs = servers.postgresql_programs()
    if programs is None:
        server_missing("PostgreSQL", "sudo apt-get install postgresql")
    with servers.postgresql(programs) as running:
        yield running


@pytest.fixture(scope="module")
def mariadb(server_missing):
    program = servers.mariadb_program()
    if program is None:
        server_missing("MariaDB", "sudo apt-get install mariadb-server")
    with servers.mariadb(program) as running:
        yield running


async def _execute(server, *statements):
    async def run():
        connection = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user=server.user, password=server.password, database="postgres"
        )
        try:
            for one in statements:
                await connection.execute(one)
        finally:
            await connection.close()

    async with trio_asyncio.open_loop():
        await trio_asyncio.aio_as_trio(run)()


def _postgres(server, **settings):
    given = {
        "host": "127.0.0.1",
        "port": server.port,
        "username": server.user,
        "password": server.password,
        "database": "postgres",
        "schema": "public",
        "retry_count": 1,
    }
    return Postgres(PostgresConfig(**{**given, **settings}))


def _mysql(server, **settings):
    given = {
        "host": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": "shop",
        "retry_count": 1,
    }
    return MySQL(MySQLConfig(**{**given, **settings}))


async def _items(source, checkpoint=None, rules=None):
    items = []
    async with source.session(), aclosing(source.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(source.documents(partition, checkpoint)) as listing:
                async for page in listing:
                    items += page if isinstance(page, list) else [page]
    return items


async def _assert_resumable(source):
    """Every checkpoint is followed by exactly what followed it at first. Returns how many there were, and the documents."""
    items = await _items(source)
    checkpoints = [place for place, item in enumerate(items) if isinstance(item, Checkpoint)]
    for place in checkpoints:
        again = [item.id for item in await _items(source, items[place].value) if isinstance(item, Document)]
        assert again == [item.id for item in items[place:] if isinstance(item, Document)]
    return len(checkpoints), [item for item in items if isinstance(item, Document)]


POSTGRES_KEYS = {
    "smallint": "1, -1, 0, 32767, -32768",
    "numeric": "1.50, -0.001, 123456789012345678901234567890.123456789, 0, 'NaN'",
    "double precision": "0.1, 1e300, -1e-300, 'NaN', 'Infinity', '-Infinity', 0.30000000000000004",
    "real": "0.1, 16777217, 3.4e38, -0.3333333",
    "text": "'', ' ', 'a_b', 'Ä', 'ä', 'z', E'\\t', '😀', 'O''Brien \"x\" \\ %s'",
    "char(4)": "'a', 'ab', 'Z', '0'",
    "bytea": r"'\x', '\x00', '\xff', '\x6162'",
    "date": "'infinity', '-infinity', '2024-02-29', '1969-12-31'",
    "timestamptz": "'infinity', '-infinity', '2024-03-31 01:30:00+01', '2024-03-31 03:30:00.000001+02'",
    "timestamp": "'2024-03-31 02:30', '1900-01-01', '2024-03-31 02:30:00.000001'",
    "time": "'00:00', '23:59:59.999999', '12:00'",
    "interval": "'1 mon', '2 days 3 hours', '-1 hour', '1 year 2 mons 00:00:00.000001'",
    "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '00000000-0000-0000-0000-000000000000'",
    "boolean": "true, false",
    "inet": "'10.0.0.1', '10.0.0.1/8', '::1', '10.0.0.2'",
    "mood": "'sad', 'ok', 'happy'",
    "bit(4)": "B'0000', B'1010', B'1111'",
    "int4range": "'[1,5)', 'empty', '(,3)', '[7,)'",
    "integer[]": "'{1,2}', '{}', '{3}'",
}


@pytest.mark.parametrize("kind", POSTGRES_KEYS)
async def test_postgresql_reads_and_resumes_keys_of_every_type(postgres, kind, monkeypatch):
    monkeypatch.setattr(postgresql, "PARTITION_ROWS_PER_PAGE", 1)
    values = POSTGRES_KEYS[kind].split(", ")
    await _execute(
        postgres,
        "DROP TABLE IF EXISTS keyed",
        "DROP TYPE IF EXISTS mood",
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
        f"CREATE TABLE keyed (k {kind}, n int, PRIMARY KEY (k, n))",
        *(f"INSERT INTO keyed VALUES ({value}, {n})" for value in values for n in (0, 7)),
    )
    _, documents = await _assert_resumable(_postgres(postgres, fetch_size=1, tables=["keyed"]))
    assert len({document.id for document in documents}) == 2 * len(values)


async def test_postgresql_reads_values_that_python_cannot_hold(postgres):
    odd = {
        "bc": "'0044-03-15 BC'::date",
        "far": "'20240-01-01'::date",
        "bc_stamp": "'0044-03-15 12:00 BC'::timestamp",
        "far_stamp": "'20240-01-01 00:00+00'::timestamptz",
        "edge": "'0001-01-01 00:00:00+00'::timestamptz",
        "midnight": "'24:00:00'::time",
        "forever": "'100000 years'::interval",
        "moods": "'{sad,happy}'::mood2[]",
        "posts": "'{1,2}'::positive[]",
        "pair": "ROW(1, 'x')::pair",
        "multi": "'{[1,3),[7,9)}'::int4multirange",
        "spans": "'{1 day,2 hours}'::interval[]",
        "big": "1e400::numeric",
        "nan": "'{NaN,Infinity,1}'::float8[]",
        "xml": "'<a/>'::xml",
        "huge": "'[1e999]'::json",
        "query": "'fat & rat'::tsquery",
        "oid": "4294967295::oid",
        "mac8": "'08:00:2b:01:02:03:04:05'::macaddr8",
        "char": "'x'::\"char\"",
    }
    made = ", ".join(f'{expression} AS "{name}"' for name, expression in odd.items())
    await _execute(
        postgres,
        "CREATE TYPE mood2 AS ENUM ('sad', 'happy')",
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        "CREATE TYPE pair AS (a int, b text)",
        f"CREATE TABLE odd AS SELECT 1 AS id, {made}",
        "ALTER TABLE odd ADD PRIMARY KEY (id)",
    )
    (document,) = [one for one in await _items(_postgres(postgres, tables=["odd"])) if isinstance(one, Document)]
    fields = {name.removeprefix("public_odd_"): value for name, value in document.fields.items()}
    assert fields["moods"] == ["sad", "happy"]
    assert fields["posts"] == [1, 2]
    assert fields["nan"] == [None, None, 1.0]
    assert fields["multi"] in ("{[1,3),[7,9)}", ["[1,3)", "[7,9)"])
    assert "44" in str(fields["bc"])
    assert "20240" in str(fields["far"])
    assert "24:00" in str(fields["midnight"]) or fields["midnight"] == "00:00:00"
    assert set(odd) <= set(fields)


async def test_a_rule_of_postgresql_cannot_write(postgres):
    await _execute(postgres, "CREATE TABLE kept (id int PRIMARY KEY)", "INSERT INTO kept VALUES (1)")
    for query in (
        "DELETE FROM kept RETURNING id",
        "SELECT 1 AS id; DROP TABLE kept",
        "WITH gone AS (DELETE FROM kept RETURNING id) SELECT id FROM gone",
        "selec",
    ):
        with pytest.raises(SourceError):
            await _items(_postgres(postgres), rules=[{"tables": ["kept"], "query": query}])
    found = await _items(_postgres(postgres), rules=[{"tables": ["kept"], "query": "SELECT id FROM kept;"}])
    assert [one.id for one in found] == ["postgres_public_kept_1"]


async def test_a_rule_of_mysql_cannot_write(mariadb):
    _run(
        mariadb, "CREATE DATABASE IF NOT EXISTS shop", "CREATE TABLE shop.kept (id int PRIMARY KEY)",
        "INSERT INTO shop.kept VALUES (1)",
    )  # fmt: skip
    for query in ("DELETE FROM shop.kept", "SELECT 1 AS id; DROP TABLE shop.kept", "DROP TABLE shop.kept", "selec"):
        with pytest.raises(SourceError):
            print(query, await _items(_mysql(mariadb), rules=[{"tables": ["kept"], "query": query}]))
    found = await _items(_mysql(mariadb), rules=[{"tables": ["kept"], "query": "SELECT id FROM shop.kept;"}])
    assert [one.id for one in found] == ["kept_1"]


def _run(server, *statements):
    connection = pymysql.connect(
        host="127.0.0.1", port=server.port, user=server.user, password=server.password, autocommit=True
    )
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


MYSQL_KEYS = {
    "bigint unsigned": "0, 18446744073709551615, 7",
    "decimal(30,10)": "1.5, -0.0000000001, 12345678901234567890.0123456789",
    "double": "0.1, 1e300, -1e-300, 0.30000000000000004",
    "float": "0.1, 16777217, 3.4e38, -0.3333333",
    "varchar(40)": "'', 'a_b', 'Ä', 'z', '😀', 'O''Brien \"x\" \\\\ %s'",
    "varbinary(8)": "x'', x'00', x'ff', x'6162'",
    "date": "'0000-00-00', '2024-02-29', '1969-12-31'",
    "datetime(6)": "'2024-03-31 02:30:00', '2024-03-31 02:30:00.000001', '1000-01-01'",
    "timestamp(6) default now(6)": "'2024-03-31 12:30:00', '2024-03-31 12:30:00.000001'",
    "time": "'-01:30:00', '838:59:59', '00:00:00', '-838:59:59'",
    "year": "1901, 2024",
    "enum('small','medium','large','huge')": "'small', 'medium', 'large', 'huge'",
    "set('z','a')": "'', 'z', 'a', 'z,a'",
    "bit(12)": "b'0', b'1', b'111111111111'",
    "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '00000000-0000-0000-0000-000000000000'",
}


@pytest.mark.parametrize("kind", MYSQL_KEYS)
async def test_mysql_reads_and_resumes_keys_of_every_type(mariadb, kind):
    values = MYSQL_KEYS[kind].split(", ")
    _run(
        mariadb, "CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4", "DROP TABLE IF EXISTS shop.keyed",
        "SET sql_mode = ''", f"CREATE TABLE shop.keyed (k {kind}, n int, PRIMARY KEY (k, n))",
        *(f"INSERT INTO shop.keyed VALUES ({value}, {n})" for value in values for n in (0, 7)),
    )  # fmt: skip
    _, documents = await _assert_resumable(_mysql(mariadb, fetch_size=1, tables=["keyed"]))
    assert len(documents) == 2 * len(values)


async def test_tls_is_checked_when_it_is_asked_for(server_missing, certificates):
    programs = servers.postgresql_programs()
    if programs is None:
        server_missing("PostgreSQL", "sudo apt-get install postgresql")
    with servers.readable_copy(certificates, "postgres") as folder:
        options = ("ssl=on", f"ssl_cert_file={folder}/cert.pem", f"ssl_key_file={folder}/key.pem")
        with servers.postgresql(programs, *options) as server:
            await _assert_tls(lambda **settings: _postgres(server, **settings), certificates)


async def test_tls_of_mysql_is_checked_when_it_is_asked_for(server_missing, certificates):
    program = servers.mariadb_program()
    if program is None:
        server_missing("MariaDB", "sudo apt-get install mariadb-server")
    with servers.readable_copy(certificates, "mysql") as folder:
        options = (f"--ssl-cert={folder}/cert.pem", f"--ssl-key={folder}/key.pem")
        with servers.mariadb(program, *options) as server:
            _run(server, "CREATE DATABASE shop")
            await _assert_tls(lambda **settings: _mysql(server, **settings), certificates)


async def _assert_tls(make, certificates):
    right = (certificates / "ca.pem").read_text()
    for text in (right, right.replace("\n", " ")):
        source = make(ssl_enabled=True, ssl_ca=text)
        async with source.session():
            await source.ping()
    for text in (trustme.CA().cert_pem.bytes().decode(), "no certificate"):
        source = make(ssl_enabled=True, ssl_ca=text)
        with pytest.raises(ConfigurationError, match="certificate"):
            async with source.session():
                await source.ping()
    source = make(ssl_enabled=False)
    async with source.session():
        await source.ping()


async def test_tls_that_the_server_has_not_is_refused(postgres, mariadb, certificates):
    ca = (certificates / "ca.pem").read_text()
    for source in (_postgres(postgres, ssl_enabled=True, ssl_ca=ca), _mysql(mariadb, ssl_enabled=True, ssl_ca=ca)):
        with pytest.raises(SourceError):
            async with source.session():
                await source.ping()


async def test_a_server_that_stops_in_the_middle_ends_the_listing_with_an_error(server_missing):
    programs = servers.postgresql_programs()
    if programs is None:
        server_missing("PostgreSQL", "sudo apt-get install postgresql")
    rows = 60_000
    running = servers.postgresql(programs)
    server = running.__enter__()
    has_stopped = False
    try:
        await _execute(
            server,
            f"CREATE TABLE t AS SELECT n AS id, repeat('x', 200) AS pad FROM generate_series(1, {rows}) n",
            "ALTER TABLE t ADD PRIMARY KEY (id)",
        )
        source, count = _postgres(server), 0
        with pytest.raises(SourceError):  # noqa: PT012 - that it stops is part of what is done
            async with source.session():
                (partition,) = [one async for one in source.partitions()]
                async with aclosing(source.documents(partition)) as listing:
                    async for page in listing:
                        count += len(page) if isinstance(page, list) else 0
                        if not has_stopped:
                            has_stopped = True
                            await trio.to_thread.run_sync(running.__exit__, None, None, None)
        assert 0 < count < rows
    finally:
        if not has_stopped:
            running.__exit__(None, None, None)


async def test_tables_that_may_not_be_read_are_no_empty_tables(postgres):
    await _execute(
        postgres,
        "DROP SCHEMA IF EXISTS closed CASCADE", "DROP ROLE IF EXISTS guest", "CREATE SCHEMA closed",
        "CREATE TABLE closed.secret (id int PRIMARY KEY, a int, b int)", "INSERT INTO closed.secret VALUES (1, 2, 3)",
        "CREATE ROLE guest LOGIN PASSWORD 'guest'", "GRANT USAGE ON SCHEMA closed TO guest",
        "GRANT SELECT (id, a) ON closed.secret TO guest",
    )  # fmt: skip
    with pytest.raises(PermissionDenied):
        await _items(_postgres(postgres, schema="closed", username="guest", password="guest"))
    rules = [{"tables": ["secret"], "query": "SELECT id, a FROM closed.secret"}]
    found = await _items(_postgres(postgres, schema="closed", username="guest", password="guest"), rules=rules)
    assert [one.fields["closed_secret_a"] for one in found if not isinstance(one, Failure)] == [2]


async def test_a_schema_without_any_table_in_sight_is_refused_not_emptied(postgres, mariadb):
    await _execute(postgres, "CREATE SCHEMA bare")
    _run(mariadb, "CREATE DATABASE bare")
    for source in (
        _postgres(postgres, schema="bare"),
        _postgres(postgres, schema="nowhere"),
        _mysql(mariadb, database="bare"),
    ):
        with pytest.raises(ConfigurationError, match="may see"):
            await _items(source)
