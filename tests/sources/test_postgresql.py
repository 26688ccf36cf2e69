"""The PostgreSQL source against a real server that this module starts."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import trio
import trio_asyncio

from callboard.protocol.configuration import schema_of
from callboard.sources.errors import ConfigurationError, CredentialsError, NotFound, PermissionDenied, Transient
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
def server(server_missing):
    programs = servers.postgresql_programs()
    if programs is None:
        server_missing("PostgreSQL", "sudo apt-get install postgresql")
    with servers.postgresql(programs) as running:
        yield running


async def _execute(server, *statements, database="postgres"):
    async def run():
        connection = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user=server.user, password=server.password, database=database
        )
        try:
            return [await connection.fetch(one) for one in statements]
        finally:
            await connection.close()

    async with trio_asyncio.open_loop():
        return await trio_asyncio.aio_as_trio(run)()


@pytest.fixture
async def schema(server, request):
    name = f"s{abs(hash(request.node.name)) % 10**8}"
    await _execute(server, f"CREATE SCHEMA {name}")
    yield name
    await _execute(server, f"DROP SCHEMA {name} CASCADE")


@asynccontextmanager
async def _source(server, schema, **settings):
    given = {
        "host": "127.0.0.1",
        "port": server.port,
        "username": server.user,
        "password": server.password,
        "database": "postgres",
        "schema": schema,
    }
    source = Postgres(PostgresConfig(**{**given, **settings}))
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
    schema = schema_of(PostgresConfig)
    assert list(schema) == (
        [
            "host",
            "port",
            "username",
            "password",
            "database",
            "schema",
            "tables",
            "fetch_size",
            "retry_count",
            "ssl_enabled",
            "ssl_ca",
        ]
    )
    assert schema["tables"]["value"] == "*"
    assert schema["fetch_size"]["default_value"] == 50
    assert schema["retry_count"]["default_value"] == 3
    assert schema["ssl_ca"]["depends_on"] == [{"field": "ssl_enabled", "value": True}]


async def test_ids_follow_the_index_order_of_the_key_and_fields_carry_schema_and_table(server, schema):
    await _execute(
        server,
        f'CREATE TABLE {schema}."Composite" (a int, b int, "Mixed Case" text, PRIMARY KEY (b, a))',
        f"INSERT INTO {schema}.\"Composite\" VALUES (5, 0, 'x')",
    )
    async with _source(server, schema) as source:
        items = await _read(source)
    (document,) = [item for item in items if isinstance(item, Document)]
    assert document.id == f"postgres_{schema}_Composite_0_5"
    prefix = f"{schema}_composite_"
    assert document.fields == {
        f"{prefix}a": 5,
        f"{prefix}b": 0,
        f"{prefix}mixed case": "x",
        "database": "postgres",
        "schema": schema,
        "table": "Composite",
    }
    assert document.timestamp is not None
    assert document.timestamp.endswith("+00:00")


async def test_every_column_type_becomes_something_that_json_can_say(server, schema):
    columns = {
        "numeric": ("12.34::numeric", 12.34),
        "real": ("1.1::real", 1.100000023841858),
        "money": ("5.2::numeric::money", "$5.20"),
        "char4": ("'ab'::char(4)", "ab  "),
        "bytea": (r"'\xff0041'::bytea", "\0A"),
        "date": ("'2024-01-02'::date", "2024-01-02"),
        "timetz": ("'12:34:56+02'::timetz", "12:34:56+02:00"),
        "stamp": ("'2024-01-01 01:02:03.4+00'::timestamptz", "2024-01-01T01:02:03.400000+00:00"),
        "span": ("'1 day 2 seconds'::interval", "P1DT2S"),
        "json": ("'{\"a\": [1, null]}'::json", {"a": [1, None]}),
        "jsonb": ("'[true]'::jsonb", [True]),
        "uuid": ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        "nested": ("'{{a,b},{c,d}}'::text[]", [["a", "b"], ["c", "d"]]),
        "range": ("'[1,5)'::int4range", "[1,5)"),
        "inet": ("'10.30.0.9/24'::inet", "10.30.0.9/24"),
        "cidr": ("'10.0.0.0/8'::cidr", "10.0.0.0/8"),
        "mac": ("'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03"),
        "vector": ("to_tsvector('simple', 'fat cat')", "'cat':2 'fat':1"),
        "bits": ("B'1010101011'::varbit", "1010 1010 11"),
        "point": ("'(1.5,2.5)'::point", "(1.5, 2.5)"),
        "line": ("'{1,-1,0}'::line", "(1.0, -1.0, 0.0)"),
        "box": ("'(2,2),(0,0)'::box", "[(2.0, 2.0), (0.0, 0.0)]"),
        "path": ("'[(0,0),(1,1)]'::path", "open [(0.0, 0.0), (1.0, 1.0)]"),
        "polygon": ("'((0,0),(1,0))'::polygon", "[(0.0, 0.0), (1.0, 0.0)]"),
        "circle": ("'<(0,0),5>'::circle", "((0.0, 0.0), 5.0)"),
        "lsn": ("'0/10'::pg_lsn", 16),
        "nan": ("'NaN'::float8", None),
        "endless": ("'Infinity'::float8", None),
        "nothing": ("NULL::text", None),
    }
    made = ", ".join(f'{expression} AS "{name}"' for name, (expression, _) in columns.items())
    await _execute(
        server, f"CREATE TABLE {schema}.t AS SELECT 1 AS id, {made}", f"ALTER TABLE {schema}.t ADD PRIMARY KEY (id)"
    )
    async with _source(server, schema) as source:
        (fields,) = _documents(await _read(source)).values()
    got = {name: fields[f"{schema}_t_{name}"] for name in columns}
    assert got == {name: value for name, (_, value) in columns.items()}


async def test_a_listing_goes_on_behind_its_checkpoint_and_gives_each_row_once(server, schema):
    await _execute(
        server,
        f"CREATE TABLE {schema}.t (a timestamptz, b text, PRIMARY KEY (a, b))",
        f"INSERT INTO {schema}.t SELECT '2024-01-01'::timestamptz + n / 7 * interval '1.5 s', 'Ä' || n "
        "FROM generate_series(1, 2500) n",
    )
    async with _source(server, schema) as source:
        (partition,) = [one async for one in source.partitions()]
        first, seen = None, []
        async with aclosing(source.documents(partition)) as listing:
            async for item in listing:
                if isinstance(item, Checkpoint):
                    first = item.value
                    break
                seen += item
        assert len(seen) == 1000
        async with aclosing(source.documents(partition, first)) as listing:
            rest = [one async for page in listing if not isinstance(page, Checkpoint) for one in page]
    assert len({one.id for one in [*seen, *rest]}) == 2500 == len(seen) + len(rest)


async def test_a_killed_connection_is_made_anew_without_repeating_or_losing_a_row(server, schema):
    await _execute(
        server,
        f"CREATE TABLE {schema}.t AS SELECT n AS id, repeat('x', 200) AS pad FROM generate_series(1, 4000) n",
        f"ALTER TABLE {schema}.t ADD PRIMARY KEY (id)",
    )
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'callboard'"
    ids, kills = [], 0
    async with _source(server, schema) as source:
        (partition,) = [one async for one in source.partitions()]
        async with aclosing(source.documents(partition)) as listing:
            async for page in listing:
                if isinstance(page, Checkpoint):
                    continue
                ids += [one.id for one in page]
                if kills < 2:
                    kills += 1
                    await _execute(server, kill)
    assert kills == 2
    assert len(ids) == len(set(ids)) == 4000


async def test_a_table_without_key_is_a_failure_of_its_partition_and_a_view_is_none(server, schema):
    await _execute(
        server,
        f"CREATE TABLE {schema}.loose (a int)",
        f"INSERT INTO {schema}.loose VALUES (1)",
        f"CREATE VIEW {schema}.v AS SELECT 1 AS a",
        f"CREATE TABLE {schema}.empty (a int PRIMARY KEY)",
    )
    async with _source(server, schema) as source:
        items = await _read(source)
    (failure,) = items
    assert isinstance(failure, Failure)
    assert (failure.scope, failure.what) == ("partition", "loose")


async def test_quotes_and_percent_signs_in_names_are_only_names(server, schema):
    await _execute(
        server,
        f'CREATE TABLE {schema}."we""ird \'%:x" ("k""ey" int PRIMARY KEY)',
        f'INSERT INTO {schema}."we""ird \'%:x" VALUES (0)',
    )
    async with _source(server, schema) as source:
        assert list(_documents(await _read(source))) == [f"postgres_{schema}_we\"ird '%:x_0"]


async def test_rules_read_what_the_query_says_with_ids_from_their_columns(server, schema):
    await _execute(
        server,
        f"CREATE TABLE {schema}.book (isbn text, title text)",
        f"INSERT INTO {schema}.book VALUES ('1', 'a :b 5 % 3'), ('2', 'c')",
    )
    rules = [
        {"tables": ["book"], "query": f"SELECT * FROM {schema}.book WHERE title LIKE '% :b%';", "id_columns": ["ISBN"]}
    ]
    async with _source(server, schema) as source:
        assert list(await source.validate_rules(rules)) == []
        (problem,) = await source.validate_rules([{**rules[0], "tables": ["book", "nowhere"]}])
        assert "nowhere" in problem.message
        (problem,) = await source.validate_rules([{"tables": [], "query": "SELECT 1"}])
        assert "tables" in problem.message
        found = _documents(await _read(source, rules))
        missing = await _read(source, [{**rules[0], "id_columns": ["absent"]}])
    assert list(found) == [f"postgres_{schema}_book_1"]
    assert found[f"postgres_{schema}_book_1"]["table"] == ["book"]
    assert [item.scope for item in missing] == ["partition"]


async def test_refusals_say_what_is_wrong(server, schema):
    await _execute(
        server,
        f"CREATE TABLE {schema}.t (a int PRIMARY KEY)",
        f"CREATE ROLE r{schema} LOGIN PASSWORD 'p'",
        f"GRANT USAGE ON SCHEMA {schema} TO r{schema}",
    )
    try:
        with pytest.raises(CredentialsError, match="admin"):
            async with _source(server, schema, password="wrong") as source:
                await source.ping()
        with pytest.raises(ConfigurationError, match="nowhere"):
            async with _source(server, schema, database="nowhere") as source:
                await source.ping()
        with pytest.raises(ConfigurationError, match="missing"):
            async with _source(server, schema, tables=["t", "missing"]) as source:
                await source.validate()
        with pytest.raises(NotFound):
            async with _source(server, schema, tables=["missing"]) as source:
                await _read(source)
        with pytest.raises(PermissionDenied, match="Grant SELECT"):
            async with _source(server, schema, username=f"r{schema}", password="p", tables=["t"]) as source:
                await _read(source)
        with pytest.raises(Transient):
            async with _source(server, schema, port=1) as source:
                await source.ping()
    finally:
        await _execute(server, f"DROP OWNED BY r{schema}", f"DROP ROLE r{schema}")


async def test_a_cancelled_query_ends_on_the_server_within_a_second(server, schema):
    rules = [{"tables": ["t"], "query": "SELECT pg_sleep(60), 1 AS id", "id_columns": ["id"]}]
    running = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'callboard' AND state <> 'idle'"
    await _execute(server, f"CREATE TABLE {schema}.t (id int PRIMARY KEY)")
    async with _source(server, schema) as source:
        started = trio.current_time()
        with trio.move_on_after(0.5) as scope:
            await _read(source, rules)
        assert scope.cancelled_caught
        assert trio.current_time() - started < 1.5
        ((row,),) = await _execute(server, running)
        assert row["n"] == 0


async def test_whoever_stops_after_a_page_does_not_leave_the_next_one_running(server, schema):
    query = "SELECT n AS id, CASE WHEN n > 1500 THEN pg_sleep(60) END AS nap FROM generate_series(1, 3000) n"
    rules = [{"tables": ["t"], "query": query, "id_columns": ["id"]}]
    running = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'callboard' AND state = 'active'"
    await _execute(server, f"CREATE TABLE {schema}.t (id int PRIMARY KEY)")
    async with _source(server, schema) as source:
        [partition] = [one async for one in source.partitions(rules)]
        with trio.fail_after(10):
            async with aclosing(source.documents(partition)) as listing:
                assert len(await anext(listing)) == 1000
        ((row,),) = await _execute(server, running)
        assert row["n"] == 0
