"""Our own sources keep to what is asked of every source: a folder, PostgreSQL and MariaDB, each a real one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import asyncpg
import pymysql
import pytest
import trio
import trio_asyncio

from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.dir import Directory, DirectoryConfig
from callboard.sources.mysql import MySQL, MySQLConfig
from callboard.sources.postgresql import Postgres, PostgresConfig

_spec = importlib.util.spec_from_file_location("callboard_test_servers", Path(__file__).with_name("servers.py"))
assert _spec is not None
assert _spec.loader is not None
servers = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = servers
_spec.loader.exec_module(servers)

ROWS = 3500
WRONG = "wr0ng-&-secret"


class TestDirectory(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path):
        for folder in ("", "a", "b/c"):
            (tmp_path / "root" / folder).mkdir(parents=True, exist_ok=True)
            for number in range(600):
                (tmp_path / "root" / folder / f"{number}.txt").write_text("some text")

        def source(folder):
            return Directory(DirectoryConfig(directory=str(tmp_path / folder), pattern="**/*"))

        return Subject(lambda: source("root"), refused=lambda: source("nowhere"))


@pytest.fixture(scope="module")
def postgres(server_missing):
    programs = servers.postgresql_programs()
    if programs is None:
        server_missing("PostgreSQL", "sudo apt-get install postgresql")
    with servers.postgresql(programs) as running:

        async def fill():
            connection = await asyncpg.connect(
                host="127.0.0.1", port=running.port, user="admin", password=running.password, database="postgres"
            )
            await connection.execute(
                f"""CREATE TABLE one (id bigint PRIMARY KEY, name text, at timestamptz DEFAULT now());
                INSERT INTO one SELECT g, 'n' || g FROM generate_series(1, {ROWS}) g;
                CREATE TABLE two (a text, b date, c numeric(8, 2), PRIMARY KEY (c, a, b));
                INSERT INTO two SELECT 'ü' || g % 7, date '2024-02-28' + g % 5, g / 10.0
                FROM generate_series(1, {ROWS}) g;
                CREATE TABLE nothing (id int PRIMARY KEY)"""
            )
            await connection.close()

        async def run():
            async with trio_asyncio.open_loop():
                await trio_asyncio.aio_as_trio(fill)()

        trio.run(run)
        yield running


@pytest.mark.integration
class TestPostgreSQL(SourceConformance):
    rules = None

    @pytest.fixture
    def subject(self, postgres, tunnel_to):
        through = tunnel_to(postgres.port)

        def source(password):
            return Postgres(
                PostgresConfig(
                    host="127.0.0.1", port=through.port, username="admin", password=password, database="postgres",
                    schema="public", retry_count=1,
                )
            )  # fmt: skip

        return Subject(
            lambda: source(postgres.password),
            refused=lambda: source(WRONG),
            secrets=(postgres.password, WRONG),
            cut=through.cut,
            rules=self.rules,
        )


class TestPostgreSQLUnderRules(TestPostgreSQL):
    rules = [{"tables": ["one"], "query": "SELECT * FROM one ORDER BY id"}]  # noqa: RUF012


@pytest.fixture(scope="module")
def mariadb(server_missing):
    program = servers.mariadb_program()
    if program is None:
        server_missing("MariaDB", "sudo apt-get install mariadb-server")
    with servers.mariadb(program) as running:
        connection = pymysql.connect(host="127.0.0.1", port=running.port, user="admin", password=running.password)
        with connection, connection.cursor() as cursor:
            for statement in (
                "CREATE DATABASE shop CHARACTER SET utf8mb4",
                "USE shop",
                "CREATE TABLE one (id bigint PRIMARY KEY, name text)",
                f"INSERT INTO one SELECT seq, CONCAT('n', seq) FROM seq_1_to_{ROWS}",
                "CREATE TABLE two (a varchar(20), b date, c decimal(8, 2), PRIMARY KEY (c, a, b))",
                f"""INSERT INTO two SELECT CONCAT('ü', seq % 7), DATE '2024-02-28' + INTERVAL seq % 5 DAY, seq / 10
                FROM seq_1_to_{ROWS}""",
                "CREATE TABLE nothing (id int PRIMARY KEY)",
                "CREATE TABLE sized (size ENUM('small', 'medium', 'large', 'huge'), n int, PRIMARY KEY (size, n))",
                f"INSERT INTO sized SELECT 1 + seq % 4, seq FROM seq_1_to_{ROWS}",
            ):
                cursor.execute(statement)
            connection.commit()
        yield running


@pytest.mark.integration
class TestMySQL(SourceConformance):
    rules = None

    @pytest.fixture
    def subject(self, mariadb, tunnel_to):
        through = tunnel_to(mariadb.port)

        def source(password):
            return MySQL(
                MySQLConfig(
                    host="127.0.0.1", port=through.port, user="admin", password=password, database="shop",
                    fetch_size=500, retry_count=1,
                )
            )  # fmt: skip

        return Subject(
            lambda: source(mariadb.password),
            refused=lambda: source(WRONG),
            secrets=(mariadb.password, WRONG),
            cut=through.cut,
            rules=self.rules,
        )

    async def test_every_row_is_listed_whatever_the_type_of_the_key(self, subject):
        source = subject.open()
        found = {}
        async with source.session():
            async for partition in source.partitions(subject.rules):
                async for page in source.documents(partition):
                    if isinstance(page, list):
                        found[partition.title] = found.get(partition.title, 0) + len(page)
        assert set(found.values()) == {ROWS}, found


class TestMySQLUnderRules(TestMySQL):
    rules = [{"tables": ["one"], "query": "SELECT * FROM one ORDER BY id"}]  # noqa: RUF012
