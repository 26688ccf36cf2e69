"""Oracle against a double of its driver's connections: no server can be started by tests."""

from __future__ import annotations

import importlib.util
import sys
import threading
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import oracledb
import pytest
import trio

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources import oracle, relational_reading
from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from callboard.sources.oracle import Oracle, OracleConfig
from callboard.sources.source import Checkpoint, Document, Failure

_spec = importlib.util.spec_from_file_location("callboard_oracle_double", Path(__file__).with_name("oracle_double.py"))
assert _spec is not None
assert _spec.loader is not None
oracle_double: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = oracle_double
_spec.loader.exec_module(oracle_double)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    double = oracle_double.Double()
    monkeypatch.setattr(oracledb, "connect", double.connect)
    monkeypatch.setattr(relational_reading, "random", lambda: _Prompt())
    return double


class _Prompt:
    def uniform(self, low: float, high: float) -> float:
        return 0.0


def source(**settings: Any) -> Oracle:
    given = {"host": "db.example.org", "port": 1521, "username": "shop", "password": "p@ss/w:rd", "tables": ["*"]}
    where = {"connection_source": "service_name", "service_name": "FREE"}
    return Oracle(OracleConfig(**{**given, **where, **settings}))


async def listed(subject: Oracle, checkpoint: Any = None) -> list[Any]:
    found: list[Any] = []
    async with subject.session(), aclosing(subject.partitions()) as partitions:
        async for partition in partitions:
            async with aclosing(subject.documents(partition, checkpoint)) as items:
                async for item in items:
                    found += item if isinstance(item, list) else [item]
    return found


def documents(items: list[Any]) -> dict[str, Document]:
    return {item.id: item for item in items if isinstance(item, Document)}


async def test_ids_names_and_values_are_those_of_existing_indices(server: Any) -> None:
    columns = {"ID": "NUMBER", "Price": "NUMBER(9,2)", "MADE": "DATE", "NOTE": "VARCHAR2", "RAW_ONE": "RAW"}
    rows = [(17, Decimal("1.5"), datetime(2024, 1, 1, 1, 2, 3), None, b"ok\xff")]
    server.create("EMP", columns, ("ID",), rows)
    [document] = documents(await listed(source())).values()
    assert document.id == "FREE_EMP_17_"
    assert document.timestamp == "2024-05-06T07:08:09"
    assert document.fields == {
        "emp_id": 17,
        "emp_price": 1.5,
        "emp_made": "2024-01-01T01:02:03",
        "emp_note": None,
        "emp_raw_one": "ok",
        "Database": "FREE",
        "Table": "EMP",
    }


async def test_zeros_in_keys_are_left_out_of_ids_as_ever(server: Any) -> None:
    server.create("T", {"A": "NUMBER", "B": "NUMBER"}, ("A", "B"), [(7, 0), (0, 8)])
    assert list(documents(await listed(source()))) == ["FREE_T_8_", "FREE_T_7_"]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("NUMBER", [-5, 1, 2, 300]),
        ("VARCHAR2", ["a'b", 'b"]', "c%", "é"]),
        ("DATE", [datetime(2024, 1, day, 12) for day in (1, 2, 3)]),
        ("RAW", [b"\x00", b"\x01\x00", b"\xff"]),
    ],
)
async def test_tables_are_paged_and_resumed_by_keys_of_every_comparable_type(
    server: Any, kind: str, keys: list[Any]
) -> None:
    server.create("K", {"K": kind, "N": "NUMBER"}, ("K",), [(key, place) for place, key in enumerate(keys)])
    items = await listed(source(fetch_size=1))
    ids = list(documents(items))
    assert len(ids) == len(keys)
    checkpoints = [item.value for item in items if isinstance(item, Checkpoint)]
    assert len(checkpoints) == len(keys)
    for place, checkpoint in enumerate(checkpoints, start=1):
        assert list(documents(await listed(source(fetch_size=1), checkpoint))) == ids[place:]


async def test_a_composite_key_is_paged_in_its_own_order(server: Any) -> None:
    rows = [(first, second) for first in (2, 1, 3) for second in ("b", "a")]
    server.create("C", {"ONE": "NUMBER", "TWO": "VARCHAR2"}, ("ONE", "TWO"), rows)
    found = list(documents(await listed(source(fetch_size=4))))
    assert found == [f"FREE_C_{first}_{second}_" for first in (1, 2, 3) for second in ("a", "b")]


async def test_a_key_that_cannot_be_written_is_read_in_one_go(server: Any) -> None:
    server.create("D", {"AT": "TIMESTAMP(9)"}, ("AT",), [(datetime(2024, 1, day),) for day in range(1, 8)])
    items = await listed(source(fetch_size=2))
    assert len(documents(items)) == 7
    assert not [item for item in items if isinstance(item, Checkpoint)]


async def test_names_are_taken_as_stored_or_in_capitals_and_cannot_break_out(server: Any) -> None:
    for name in ("EMP", "Mixed case", "o\"dd '; DROP"):
        server.create(name, {"ID": "NUMBER"}, ("ID",), [(1,)])
    await source(tables=["emp", "Mixed case"]).validate()
    found = documents(await listed(source(tables=["emp", "Mixed case", "o\"dd '; DROP"])))
    assert set(found) == {"FREE_EMP_1_", "FREE_Mixed case_1_", "FREE_o\"dd '; DROP_1_"}
    with pytest.raises(ConfigurationError, match="owns no tables mixed CASE"):
        await source(tables=["mixed CASE"]).validate()


async def test_keyless_missing_and_no_tables(server: Any) -> None:
    for call in (source().validate, lambda: listed(source())):
        with pytest.raises(ConfigurationError, match="owns no tables"):
            await call()
    server.create("KEYLESS", {"N": "NUMBER"}, (), [(1,)])
    [failure] = await listed(source())
    assert isinstance(failure, Failure)
    assert failure.scope == "partition"
    with pytest.raises(NotFound):
        await listed(source(tables=["ABSENT"]))


async def test_a_time_that_the_server_forgot_is_that_of_the_sync(server: Any) -> None:
    server.create("T", {"ID": "NUMBER"}, ("ID",), [(1,)])
    server.forgets_times = True
    [document] = documents(await listed(source())).values()
    assert document.timestamp is not None
    assert document.timestamp.endswith("+00:00")


@pytest.mark.parametrize("error", [(3113, "end-of-file on communication channel"), (1555, "snapshot too old")])
async def test_a_lost_session_is_gone_on_from_without_a_double(server: Any, error: tuple[int, str]) -> None:
    server.create("T", {"ID": "NUMBER"}, ("ID",), [(number,) for number in range(1, 51)])
    server.fails_next, server.fails_after = error, 2
    ids = [item.id for item in await listed(source(fetch_size=10)) if isinstance(item, Document)]
    assert ids == [f"FREE_T_{number}_" for number in range(1, 51)]
    assert server.still_open == 0


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"password": "wr0ng"}, CredentialsError, "refuses the user 'shop'"),
        ({"service_name": "NONE"}, ConfigurationError, "knows no service 'NONE'"),
        ({"connection_source": "sid", "sid": "XE"}, ConfigurationError, "knows no SID 'XE'"),
        ({"oracle_home": "/nowhere/at/all"}, SourceError, "db.example.org"),
    ],
)
async def test_what_refuses_us_is_told_in_words(
    server: Any, settings: dict[str, Any], kind: type[SourceError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        await source(**settings).ping()
    assert said in str(caught.value)
    assert "wr0ng" not in str(caught.value)
    assert "p@ss" not in str(caught.value)


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Transient, match=r"127\.0\.0\.1:9"):
        await source(host="127.0.0.1", port=9).ping()


async def test_other_errors_keep_their_number(server: Any) -> None:
    server.create("T", {"ID": "NUMBER"}, ("ID",), [(1,)])
    server.fails_next = (904, "invalid identifier")
    with pytest.raises(UnexpectedAnswer, match="ORA-00904"):
        await listed(source())


async def test_settings_reach_the_driver(server: Any) -> None:
    await source(oracle_protocol="TCPS", wallet_configuration_path="/etc/wallet").ping()
    [given] = server.connected_with
    assert (given["protocol"], given["wallet_location"], given["service_name"]) == ("tcps", "/etc/wallet", "FREE")


async def test_a_cancelled_statement_is_broken_off_at_the_server(server: Any) -> None:
    server.create("T", {"ID": "NUMBER"}, ("ID",), [(1,)])
    server.stalls = threading.Event()
    with trio.fail_after(3), trio.move_on_after(0.3) as scope:
        await listed(source())
    assert scope.cancelled_caught
    assert server.cancelled.is_set()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"connection_source": "tns"}, "sid or service_name"),
        ({"oracle_protocol": "UDP"}, "TCP or TCPS"),
        ({"username": "SYS"}, "another user"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], said: str) -> None:
    stored = schema_of(OracleConfig)
    good = {"host": "h", "port": 1, "username": "u", "password": "p", "connection_source": "sid", "sid": "XE"}
    for name, value in {**good, **changed}.items():
        stored[name]["value"] = value
    with pytest.raises(InvalidConfiguration, match=said):
        read_configuration(OracleConfig, stored)


def test_large_objects_and_numbers_are_fetched_without_loss() -> None:
    asked: list[Any] = []

    class Cursor:
        arraysize = 7

        def var(self, kind: Any, **given: Any) -> Any:
            asked.append((kind, given))
            return kind

    class About:
        type_code = oracledb.DB_TYPE_CLOB

    assert oracle._fetched_as(Cursor(), About()) is oracledb.DB_TYPE_LONG
    About.type_code = oracledb.DB_TYPE_NUMBER
    oracle._fetched_as(Cursor(), About())
    read = asked[-1][1]["outconverter"]
    assert [read("12345678901234567890123"), read("1.5")] == [12345678901234567890123, Decimal("1.5")]
    About.type_code = oracledb.DB_TYPE_VARCHAR
    assert oracle._fetched_as(Cursor(), About()) is None


def test_intervals_are_told_as_text() -> None:
    assert oracle._months(oracledb.IntervalYM(1, 2)) == "P1Y2M"
    assert oracle._months(oracledb.IntervalYM(-1, -2)) == "-P1Y2M"


class TestConformance(SourceConformance):
    @pytest.fixture
    def subject(self, server: Any) -> Subject:
        server.create("T", {"ID": "NUMBER", "V": "VARCHAR2"}, ("ID",), [(number, "x") for number in range(1, 40)])
        return Subject(
            lambda: source(fetch_size=7), refused=lambda: source(password="wr0ng"), secrets=("wr0ng", "p@ss/w:rd")
        )
