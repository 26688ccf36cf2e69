"""How fast rows come out of PostgreSQL and MariaDB, beside the bare driver that reads the same table with one cursor.

    python bench/databases.py [ROWS] [ROUNDS]

Starts servers of its own (Debian: postgresql, mariadb-server), as the tests do. Prints the best of the rounds, in rows per
second, and the peak memory of a listing. Documents are made and dropped; nothing is written to Elasticsearch.
"""

from __future__ import annotations

import asyncio
import importlib.util
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import asyncpg
import pymysql
import trio
from pymysql.cursors import SSCursor

from callboard.sources.mysql import MySQL, MySQLConfig
from callboard.sources.postgresql import Postgres, PostgresConfig
from callboard.sources.source import Checkpoint, Partition

_spec = importlib.util.spec_from_file_location(
    "callboard_test_servers", Path(__file__).parents[1] / "tests" / "sources" / "servers.py"
)
assert _spec is not None
assert _spec.loader is not None
servers = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = servers
_spec.loader.exec_module(servers)

COLUMNS = "id bigint PRIMARY KEY, name varchar(80), amount numeric(12, 2), at timestamp, note text"


async def read(source: Any, partition: Partition) -> int:
    """List the table and drop what comes."""
    count = 0
    async with source.session(), aclosing(source.documents(partition)) as listing:
        async for page in listing:
            count += 0 if isinstance(page, Checkpoint) else len(page)
    return count


def postgres_source(port: int, password: str) -> Any:
    return Postgres(
        PostgresConfig(
            host="127.0.0.1", port=port, username="admin", password=password, database="postgres", schema="public"
        )
    )


def mysql_source(port: int, password: str) -> Any:
    return MySQL(MySQLConfig(host="127.0.0.1", port=port, user="admin", password=password, database="bench"))


def bare_postgres(server: Any) -> int:
    async def run() -> int:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="admin", password=server.password, database="postgres"
        )
        count = 0
        async with connection.transaction():
            cursor = await connection.cursor("SELECT * FROM rows_ ORDER BY id")
            while rows := await cursor.fetch(1000):
                count += len(rows)
        await connection.close()
        return count

    return asyncio.run(run())


def bare_mysql(server: Any) -> int:
    count = 0
    connection = pymysql.connect(
        host="127.0.0.1", port=server.port, user="admin", password=server.password, database="bench"
    )
    with connection, connection.cursor(SSCursor) as cursor:
        cursor.execute("SELECT * FROM rows_ ORDER BY id")
        while rows := cursor.fetchmany(5000):
            count += len(rows)
    return count


def fill_postgres(server: Any, rows: int) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="admin", password=server.password, database="postgres"
        )
        await connection.execute(f"CREATE TABLE rows_ ({COLUMNS})")
        await connection.execute(
            "INSERT INTO rows_ SELECT n, 'name ' || n, n / 7.0, timestamp '2024-01-01' + n * interval '1 s', repeat('x', 200) "
            f"FROM generate_series(1, {rows}) n"
        )
        await connection.close()

    asyncio.run(run())


def fill_mysql(server: Any, rows: int) -> None:
    connection = pymysql.connect(
        host="127.0.0.1", port=server.port, user="admin", password=server.password, autocommit=True
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE bench")
        cursor.execute("USE bench")
        cursor.execute(f"CREATE TABLE rows_ ({COLUMNS})")
        cursor.execute(
            "INSERT INTO rows_ SELECT seq, CONCAT('name ', seq), seq / 7, '2024-01-01' + INTERVAL seq SECOND, "
            f"REPEAT('x', 200) FROM seq_1_to_{rows}"
        )


def best(rounds: int, rows: int, run: Callable[[], int]) -> float:
    """Return rows per second of the fastest round."""
    fastest = 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        count = run()
        assert count == rows, f"{count} of {rows} rows"
        fastest = max(fastest, rows / (time.perf_counter() - started))
    return fastest


def memory(name: str, server: Any) -> float:
    """Return the peak memory of a listing in a process of its own, in MB."""
    ask = [sys.executable, __file__, "--read", name, str(server.port)]
    return float(subprocess.run(ask, input=server.password, text=True, check=True, capture_output=True).stdout)


def read_alone(name: str, port: int) -> None:
    source = {"postgresql": postgres_source, "mysql": mysql_source}[name](port, sys.stdin.read())
    trio.run(read, source, Partition("rows_", {"table": "rows_"}))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(name: str, server: Any, rows: int, rounds: int) -> None:
    fill, bare, make = {
        "postgresql": (fill_postgres, bare_postgres, postgres_source),
        "mysql": (fill_mysql, bare_mysql, mysql_source),
    }[name]
    fill(server, rows)
    partition = Partition("rows_", {"table": "rows_"})
    floor = best(rounds, rows, lambda: bare(server))
    ours = best(rounds, rows, lambda: trio.run(read, make(server.port, server.password), partition))
    print(
        f"{name}: {ours:,.0f} rows/s, bare driver {floor:,.0f} rows/s: {ours / floor:.0%}; {memory(name, server):.0f} MB"
    )


def main() -> None:
    if sys.argv[1:2] == ["--read"]:
        read_alone(sys.argv[2], int(sys.argv[3]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    if (programs := servers.postgresql_programs()) is not None:
        with servers.postgresql(programs, "track_commit_timestamp=off") as server:
            measure("postgresql", server, rows, rounds)
    if (program := servers.mariadb_program()) is not None:
        with servers.mariadb(program) as server:
            measure("mysql", server, rows, rounds)


if __name__ == "__main__":
    main()
