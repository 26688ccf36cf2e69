"""SQL Server against a double of its wire protocol, which refuses what the real one refuses."""

from __future__ import annotations

import importlib.util
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from callboard.protocol.configuration import schema_of
from callboard.sources import relational_reading
from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.mssql import SQLServer, SQLServerConfig
from callboard.sources.source import Checkpoint, Document, Failure

_spec = importlib.util.spec_from_file_location("callboard_tds_double", Path(__file__).with_name("tds_double.py"))
assert _spec is not None
assert _spec.loader is not None
tds_double: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = tds_double
_spec.loader.exec_module(tds_double)


@pytest.fixture
def server() -> Iterator[Any]:
    with tds_double.running(tds_double.Double()) as double:
        yield double


def source(double: Any, **settings: Any) -> SQLServer:
    given = {"host": "127.0.0.1", "port": double.port, "username": double.user, "password": double.password}
    where = {"database": double.database, "schema": double.schema, "tables": ["*"]}
    return SQLServer(SQLServerConfig(**{**given, **where, **settings}))


async def listed(subject: SQLServer, rules: Any = None, checkpoint: Any = None) -> list[Any]:
    found: list[Any] = []
    async with subject.session(), aclosing(subject.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(subject.documents(partition, checkpoint)) as items:
                async for item in items:
                    found += item if isinstance(item, list) else [item]
    return found


def documents(items: list[Any]) -> dict[str, Document]:
    return {item.id: item for item in items if isinstance(item, Document)}


async def test_ids_names_and_values_are_those_of_existing_indices(server: Any) -> None:
    number = uuid.uuid4()
    server.create(
        "T1",
        {
            "Zed": "int", "Abe": "nvarchar(20)", "Flag": "bit", "Price": "decimal(10,2)", "Made": "datetime2",
            "Code": "uniqueidentifier", "Raw": "varbinary(10)", "Half": "float", "None At All": "nvarchar(9)",
        },
        ("Zed", "Abe"),
        [(1, "n1", 1, Decimal("1.50"), datetime(2024, 1, 1, 1, 2, 3, 500000), number, b"ok\xff", 0.5, None)],
    )  # fmt: skip
    server.was_written("T1", datetime(2024, 5, 6, 7, 8, 9))
    server.was_written("T1", datetime(2030, 1, 1), database_id=8)
    [document] = documents(await listed(source(server))).values()
    assert document.id == "xe_dbo_T1_n1_1"
    assert document.timestamp == "2024-05-06T07:08:09"
    assert document.fields == {
        "dbo_t1_zed": 1,
        "dbo_t1_abe": "n1",
        "dbo_t1_flag": True,
        "dbo_t1_price": 1.5,
        "dbo_t1_made": "2024-01-01T01:02:03.500000",
        "dbo_t1_code": str(number),
        "dbo_t1_raw": "ok",
        "dbo_t1_half": 0.5,
        "dbo_t1_none at all": None,
        "database": "xe",
        "schema": "dbo",
        "table": "T1",
    }


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("int", [-5, 0, 1, 2, 300]),
        ("nvarchar(20)", ["", "a'b", 'b"]', "c%", "é"]),
        ("decimal(20,4)", [Decimal("-1.5"), Decimal("0.0001"), Decimal(2)]),
        ("uniqueidentifier", [uuid.UUID(int=one) for one in (1, 2, 2**100)]),
        ("varbinary(8)", [b"\x00", b"\x01\x00", b"\xff"]),
    ],
)
async def test_tables_are_paged_and_resumed_by_keys_of_every_comparable_type(
    server: Any, kind: str, keys: list[Any]
) -> None:
    server.create("K", {"k": kind, "n": "int"}, ("k",), [(key, place) for place, key in enumerate(keys)])
    items = await listed(source(server, fetch_size=1))
    ids = list(documents(items))
    assert len(ids) == len(keys)
    checkpoints = [item.value for item in items if isinstance(item, Checkpoint)]
    assert len(checkpoints) == len(keys)
    for place, checkpoint in enumerate(checkpoints, start=1):
        assert list(documents(await listed(source(server, fetch_size=1), checkpoint=checkpoint))) == ids[place:]


async def test_a_composite_key_is_paged_in_its_own_order(server: Any) -> None:
    rows = [(first, second) for first in (2, 1, 3) for second in ("b", "a")]
    server.create("C", {"one": "int", "two": "nvarchar(5)"}, ("one", "two"), rows)
    found = [document.id for document in documents(await listed(source(server, fetch_size=4))).values()]
    assert found == [f"xe_dbo_C_{first}_{second}" for first in (1, 2, 3) for second in ("a", "b")]


async def test_a_key_that_cannot_be_written_is_read_in_one_go(server: Any) -> None:
    server.create("D", {"at": "datetime2"}, ("at",), [(datetime(2024, 1, day),) for day in range(1, 8)])
    items = await listed(source(server, fetch_size=2))
    assert len(documents(items)) == 7
    assert not [item for item in items if isinstance(item, Checkpoint)]


async def test_odd_names_cannot_break_out_of_a_statement(server: Any) -> None:
    server.create("o\"dd '; DROP", {"k": "int", "c": "nvarchar(5)"}, ("k",), [(1, "x")])
    assert len(documents(await listed(source(server)))) == 1


async def test_a_table_without_a_key_is_named_and_one_that_is_missing_or_forbidden_is_an_error(
    server: Any,
) -> None:
    server.create("Keyless", {"n": "int"}, (), [(1,)])
    [failure] = await listed(source(server))
    assert isinstance(failure, Failure)
    assert failure.scope == "partition"
    assert "no primary key" in failure.cause
    with pytest.raises(NotFound):
        await listed(source(server, tables=["Absent"]))
    server.create("Closed", {"k": "int"}, ("k",), [(1,)])
    server.forbidden.add("Closed")
    with pytest.raises(PermissionDenied, match="Grant SELECT"):
        await listed(source(server, tables=["Closed"]))


async def test_usage_statistics_that_may_not_be_seen_are_not_missed(server: Any) -> None:
    server.create("T", {"k": "int"}, ("k",), [(1,)])
    server.hides_usage = True
    rules = [{"tables": ["T"], "query": 'SELECT k FROM "dbo"."T"'}]
    for given in (None, rules):
        [document] = documents(await listed(source(server), given)).values()
        assert document.timestamp is not None


async def test_rules(server: Any) -> None:
    server.create("T", {"K": "int", "V": "nvarchar(9)"}, ("K",), [(1, "a"), (2, "b%"), (3, " :c")])
    server.create("Keyless", {"n": "int"}, (), [(9,)])

    async def ids(query: str, tables: Any = ("T",), **more: Any) -> set[str]:
        rules = [{"tables": list(tables), "query": query, **more}]
        subject = source(server)
        assert not await subject.validate_rules(rules)
        return set(documents(await listed(subject, rules)))

    assert await ids('SELECT k, v FROM "dbo"."T" WHERE k > 1;') == {"xe_dbo_T_2", "xe_dbo_T_3"}
    assert await ids("SELECT k, v FROM \"dbo\".\"T\" WHERE v = ' :c' OR v LIKE 'b%'") == {"xe_dbo_T_2", "xe_dbo_T_3"}
    assert await ids('SELECT n FROM "dbo"."Keyless"', ["Keyless"], id_columns=["N"]) == {"xe_dbo_Keyless_9"}
    for query, more, said in [
        ('SELECT v FROM "dbo"."T"', {}, "no columns K"),
        ('SELECT v FROM "dbo"."T"', {"id_columns": ["wrong"]}, "no columns wrong"),
    ]:
        [failure] = await listed(source(server), [{"tables": ["T"], "query": query, **more}])
        assert said in failure.cause
    [failure] = await listed(source(server), [{"tables": ["Keyless"], "query": 'SELECT n FROM "dbo"."Keyless"'}])
    assert "id_columns" in failure.cause
    [problem] = await source(server).validate_rules([{"tables": ["Nowhere"], "query": "SELECT 1"}])
    assert "Nowhere" in problem.message


@pytest.mark.parametrize("error", [(1205, "Transaction was deadlocked."), None])
async def test_a_cut_connection_or_a_deadlock_is_gone_on_from_without_a_double(
    server: Any, error: tuple[int, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relational_reading, "random", lambda: _Prompt())
    server.create("T", {"k": "int"}, ("k",), [(number,) for number in range(50)])
    if error is None:
        server.cut_after_rows = 5
    server.fails_next = error
    items = await listed(source(server, fetch_size=10))
    ids = [item.id for item in items if isinstance(item, Document)]
    assert ids == [f"xe_dbo_T_{number}" for number in range(50)]


class _Prompt:
    def uniform(self, low: float, high: float) -> float:
        return 0.0


async def test_a_rule_that_is_cut_after_rows_were_given_is_an_error_not_a_short_listing(
    server: Any,
) -> None:
    server.create("T", {"k": "int"}, ("k",), [(number,) for number in range(3000)])
    server.cut_after_rows = 2500
    with pytest.raises(Transient):
        await listed(source(server), [{"tables": ["T"], "query": 'SELECT k FROM "dbo"."T"'}])


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"password": "wrong"}, CredentialsError, "refuses the user 'admin'"),
        ({"database": "nowhere"}, ConfigurationError, "no database 'nowhere'"),
        ({"port": 9}, Transient, "127.0.0.1:9"),
        ({"ssl_enabled": True, "ssl_ca": "no certificate"}, SourceError, ""),
    ],
)
async def test_what_refuses_us_is_told_in_words(
    server: Any, settings: dict[str, Any], kind: type[SourceError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        await source(server, **settings).ping()
    assert said in str(caught.value)
    assert server.password not in str(caught.value)


async def test_validation_names_what_is_missing(server: Any) -> None:
    with pytest.raises(ConfigurationError, match="no table that 'admin' may see"):
        await source(server).validate()
    server.create("T", {"k": "int"}, ("k",))
    await source(server).validate()
    with pytest.raises(ConfigurationError, match="no tables Other"):
        await source(server, tables=["T", "Other"]).validate()


async def test_nothing_in_sight_empties_no_index(server: Any) -> None:
    with pytest.raises(ConfigurationError, match="no table"):
        await listed(source(server))


async def test_an_answer_nobody_understands_has_its_number(server: Any) -> None:
    server.create("T", {"k": "int"}, ("k",), [(1,)])
    server.fails_next = (8134, "Divide by zero error encountered.")
    with pytest.raises(UnexpectedAnswer, match="8134"):
        await listed(source(server))


async def test_a_cancelled_statement_is_gone_at_once_here_and_there(server: Any) -> None:
    server.create("T", {"k": "int"}, ("k",), [(1,)])
    server.stalls = threading.Event()
    with trio.fail_after(2), trio.move_on_after(0.3):
        await listed(source(server))
    server.stalls.set()
    # The server saw its end: the one that listed tables, and the one that was cancelled.
    for _ in range(2):
        assert await trio.to_thread.run_sync(lambda: server.ended.acquire(timeout=5))


def test_the_schema_stands_where_existing_connectors_have_it() -> None:
    places = {name: field["order"] for name, field in schema_of(SQLServerConfig).items()}
    assert places["schema"] == 9
    assert places["validate_host"] == 12
    assert "password" not in repr(attrs.evolve(SQLServerConfig(port=1), password="x"))


class TestConformance(SourceConformance):
    @pytest.fixture
    def subject(self, server: Any) -> Subject:
        server.create("T", {"k": "int", "v": "nvarchar(20)"}, ("k",), [(number, "x") for number in range(40)])
        return Subject(
            lambda: source(server, fetch_size=7),
            refused=lambda: source(server, password="wr0ng pass"),
            secrets=("wr0ng pass", server.password),
        )
