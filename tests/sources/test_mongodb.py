"""MongoDB against an independent in-memory server that keeps all types, started by the tests."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pymongo
import pymongo.errors
import pytest
import trio
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.configuration import InvalidConfiguration, read_configuration, schema_of
from callboard.sources import mongodb as module
from callboard.sources.conformance import SourceConformance, Subject
from callboard.sources.errors import ConfigurationError, SourceError, Transient
from callboard.sources.mongodb import MongoDB, MongoDBConfig
from callboard.sources.mongodb_values import extended
from callboard.sources.source import Checkpoint, Document, Failure

SERVER = Path(__file__).parent / "mongo_server"
SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory, server_missing: Callable[[str, str], NoReturn]) -> Path:
    if shutil.which("mvn") is None or shutil.which("java") is None:
        server_missing("a MongoDB double (Java and Maven)", "sudo apt-get install maven default-jre-headless")
    kept = Path.home() / ".cache" / "callboard-tests" / "mongo-java-server-1.47.0"
    if not kept.is_dir():
        fresh = tmp_path_factory.mktemp("maven") / "lib"
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(SERVER / "pom.xml"),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={fresh}",
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(fresh, kept, dirs_exist_ok=True)
    return kept


@pytest.fixture(autouse=True)
def leftovers_of_the_driver() -> Iterator[None]:
    """The driver forgets the socket of a connection that is cancelled while it is opened; the collector closes it, here and quietly."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Server:
    """The double as a process, and a plain client beside it."""

    def __init__(self, libraries: Path) -> None:
        self._libraries = libraries
        self.start()

    def start(self) -> None:
        classpath = f"{self._libraries}/*"
        command = ["java", "-Xmx128m", "-cp", classpath, str(SERVER / "MongoTestServer.java")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.client: Any = pymongo.MongoClient("127.0.0.1", self.port)

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()

    def config(self, collection: str, **settings: Any) -> MongoDBConfig:
        given = {"host": f"mongodb://127.0.0.1:{self.port}", "database": "shop", "collection": collection}
        return MongoDBConfig(**{**given, "direct_connection": True, **settings})


@pytest.fixture(scope="module")
def server(libraries: Path) -> Iterator[Server]:
    running = Server(libraries)
    yield running
    running.stop()


@pytest.fixture
def collection(server: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    name = re.sub(r"\W", "_", request.node.name)
    yield server.client["shop"][name]
    server.client["shop"].drop_collection(name)


async def listed(source: MongoDB, rules: Any = None, checkpoint: Any = None) -> list[Any]:
    found: list[Any] = []
    async with source.session(), aclosing(source.partitions(rules)) as partitions:
        async for partition in partitions:
            async with aclosing(source.documents(partition, checkpoint)) as items:
                async for item in items:
                    found += item if isinstance(item, list) else [item]
    return found


def fields_of(items: list[Any]) -> dict[str, Any]:
    return {item.id: item.fields for item in items if isinstance(item, Document)}


async def test_every_type_becomes_what_an_index_takes(server: Server, collection: Any) -> None:
    number, known = ObjectId(), uuid.UUID("12345678-1234-5678-1234-567812345678")
    collection.insert_one(
        {
            "_id": number,
            "id": "taken",
            "nested": {"when": datetime(2024, 1, 1, 1, 2, 3, 456000, UTC), "ids": [number, None]},
            "decimal": Decimal128("12.5"),
            "not_a_number": float("nan"),
            "endless": Decimal128("Infinity"),
            "binary": b"\x00\xff",
            "uuid": Binary.from_uuid(known),
            "pattern": Regex("^a", "i"),
            "stamp": Timestamp(1704070923, 7),
            "least": MinKey(),
            "greatest": MaxKey(),
            "code": Code("return 1"),
            "long": Int64(2**40),
            "reference": DBRef("others", number, "db"),
            "flag": True,
            "a.b": "dot",
        }
    )
    [fields] = fields_of(await listed(MongoDB(server.config(collection.name)))).values()
    assert fields == {
        "id": "taken",
        "nested": {"when": "2024-01-01T01:02:03.456000", "ids": [str(number), None]},
        "decimal": 12.5,
        "not_a_number": None,
        "endless": None,
        "binary": "AP8=",
        "uuid": str(known),
        "pattern": "/^a/i",
        "stamp": "2024-01-01T01:02:03#7",
        "least": "MinKey",
        "greatest": "MaxKey",
        "code": "return 1",
        "long": 2**40,
        "reference": {"$ref": "others", "$id": str(number), "$db": "db"},
        "flag": True,
        "a.b": "dot",
    }


@pytest.mark.parametrize(
    ("way", "far", "near"),
    [
        ("DATETIME", None, "2024-01-01T00:00:00"),
        ("DATETIME_CLAMP", "9999-12-31T23:59:59.999000", "2024-01-01T00:00:00"),
        ("DATETIME_AUTO", 2**53, "2024-01-01T00:00:00"),
        ("DATETIME_MS", 2**53, 1704067200000),
    ],
)
async def test_dates_beyond_the_calendar(server: Server, collection: Any, way: str, far: Any, near: Any) -> None:
    collection.insert_many(
        [{"_id": "far", "when": DatetimeMS(2**53)}, {"_id": "near", "when": datetime(2024, 1, 1, tzinfo=UTC)}]
    )
    items = await listed(MongoDB(server.config(collection.name, datetime_conversion=way)))
    found = fields_of(items)
    assert found["near"]["when"] == near
    if far is None:
        [failure] = [item for item in items if isinstance(item, Failure)]
        assert failure.document_id == "far"
        assert "datetime_conversion" in failure.cause
    else:
        assert found["far"]["when"] == far


async def test_falsy_ids_are_kept_and_an_empty_one_is_named(server: Server, collection: Any) -> None:
    collection.insert_many([{"_id": 0}, {"_id": False}, {"_id": ""}, {"_id": {"a": 1}}, {"_id": 7.5}])
    items = await listed(MongoDB(server.config(collection.name)))
    assert set(fields_of(items)) == {"0", "False", "{'a': 1}", "7.5"}
    assert [item.what for item in items if isinstance(item, Failure)] == ["the document whose _id is an empty text"]


async def test_a_listing_goes_on_behind_any_checkpoint_also_across_types(server: Server, collection: Any) -> None:
    keys = [1, 2.5, Int64(3), "a", "b", b"\x01", ObjectId(), ObjectId(), True, datetime(2024, 1, 1, tzinfo=UTC)]
    collection.insert_many([{"_id": key} for key in keys])
    source = MongoDB(server.config(collection.name))
    ids = list(fields_of(await listed(source)))
    assert len(ids) == len(keys)
    for place, key in enumerate(sorted(keys, key=lambda key: ids.index(_shown(key)))):
        rest = await listed(source, checkpoint=module._written(key))
        assert list(fields_of(rest)) == ids[place + 1 :], key


def _shown(key: Any) -> str:
    return "AQ==" if key == b"\x01" else key.replace(tzinfo=None).isoformat() if isinstance(key, datetime) else str(key)


async def test_checkpoints_follow_pages_and_big_collections_come_whole(server: Server, collection: Any) -> None:
    collection.insert_many([{"_id": number, "text": "x" * 200} for number in range(5000)])
    items = await listed(MongoDB(server.config(collection.name)))
    assert len(fields_of(items)) == 5000
    checkpoints = [item for item in items if isinstance(item, Checkpoint)]
    assert len(checkpoints) >= 2
    assert isinstance(items[-1], Checkpoint)


async def test_find_and_aggregate_rules(server: Server, collection: Any) -> None:
    first = ObjectId()
    collection.insert_many(
        [
            {"_id": first, "kind": "a", "n": 1, "when": datetime(2024, 1, 1, tzinfo=UTC)},
            {"_id": ObjectId(), "kind": "b", "n": 2, "when": datetime(2024, 6, 1, tzinfo=UTC)},
            {"_id": ObjectId(), "kind": "b", "n": 3, "when": datetime(2024, 7, 1, tzinfo=UTC)},
        ]
    )
    source = MongoDB(server.config(collection.name))

    async def numbers(rules: Any) -> list[int]:
        assert not await source.validate_rules(rules)
        return sorted(fields.get("n", 0) for fields in fields_of(await listed(source, rules)).values())

    assert await numbers({"find": {"filter": {"kind": "b"}, "projection": {"n": 1}, "batch_size": 1.0}}) == [2, 3]
    assert await numbers({"find": {"filter": {"_id": {"$oid": str(first)}}}}) == [1]
    assert await numbers({"find": {"filter": {"when": {"$gt": {"$date": "2024-06-15T00:00:00Z"}}}}}) == [3]
    assert await numbers({"find": {"skip": 1, "limit": 1}}) in ([1], [2], [3])
    assert await numbers({"aggregate": {"pipeline": [{"$match": {"n": {"$gte": 2}}}], "batchSize": 1}}) == [2, 3]
    without = await listed(source, {"find": {"projection": {"_id": 0, "n": 1}}})
    assert {type(item) for item in without} == {Failure}
    assert "has no _id" in without[0].cause


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([], "is an object"),
        ({"find": {}, "aggregate": {}}, "both"),
        ({"query": {}}, "'query'"),
        ({"find": []}, "not an object"),
        ({"find": {"sort": {"a": 1}}}, "'sort'"),
        ({"find": {"skip": 1.5}}, "a whole number"),
        ({"find": {"skip": True}}, "a whole number"),
        ({"find": {"allow_disk_use": 1}}, "true or false"),
        ({"find": {"projection": {}}}, "must not be empty"),
        ({"aggregate": {"pipeline": []}}, "must not be empty"),
        ({"aggregate": {"pipeline": [{"$match": {}}, {"$out": "other"}]}}, "would write"),
        ({"aggregate": {"pipeline": [{"$merge": {"into": "other"}}]}}, "would write"),
        ({"aggregate": {"pipeline": ["$match"]}}, "must be an object"),
        ({"find": {"filter": {"_id": {"$oid": "short"}}}}, "$oid"),
    ],
)
async def test_rules_that_cannot_be_used_are_explained(rules: Any, said: str) -> None:
    problems = await MongoDB(_unreachable()).validate_rules(rules)
    assert any(said in problem.message for problem in problems), problems


@pytest.mark.parametrize("rules", [None, {}, {"find": {}}, {"aggregate": {"pipeline": [{"$match": {}}]}}])
async def test_rules_that_can_be_used(rules: Any) -> None:
    assert not await MongoDB(_unreachable()).validate_rules(rules)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_ordinary_json_is_read_as_it_stands(value: Any) -> None:
    assert extended(value) == value


async def test_what_is_missing_is_named_with_what_there_is(server: Server, collection: Any) -> None:
    collection.insert_one({"_id": 1})
    good = MongoDB(server.config(collection.name))
    async with good.session():
        await good.ping()
        await good.validate()
    other = MongoDB(server.config("nowhere"))
    async with other.session():
        with pytest.raises(ConfigurationError, match=rf"no collection 'nowhere'.*{collection.name}"):
            await other.validate()
    strange = MongoDB(server.config(collection.name, database="void"))
    async with strange.session():
        with pytest.raises(ConfigurationError, match=r"no database 'void'.*shop"):
            await strange.validate()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"host": "127.0.0.1:27017"}, "must begin with mongodb://"),
        ({"host": "mongodb://h/?tls=yes"}, "only true and false"),
        ({"host": "mongodb://h/?ssl=true"}, "says otherwise"),
        ({"datetime_conversion": "NEVER"}, "must be one of"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], said: str) -> None:
    stored = schema_of(MongoDBConfig)
    for name, value in {"host": "mongodb://h", "database": "d", "collection": "c", **changed}.items():
        stored[name]["value"] = value
    with pytest.raises(InvalidConfiguration, match=said):
        read_configuration(MongoDBConfig, stored)


def test_documents_of_older_connectors_have_no_way_to_convert_dates() -> None:
    stored = schema_of(MongoDBConfig)
    for name, value in {"host": "mongodb://h", "database": "d", "collection": "c"}.items():
        stored[name]["value"] = value
    del stored["datetime_conversion"]
    assert read_configuration(MongoDBConfig, stored).datetime_conversion == "DATETIME"


def _unreachable(**settings: Any) -> MongoDBConfig:
    host = f"mongodb://someone:{SECRET.replace(' ', '%20')}@127.0.0.1:9/?serverSelectionTimeoutMS=200"
    return MongoDBConfig(**{"host": host, "database": "d", "collection": "c", **settings})


async def test_an_unreachable_server_is_named_without_secrets() -> None:
    source = MongoDB(_unreachable(password=SECRET, user="someone"))
    async with source.session():
        with pytest.raises(Transient, match=r"127\.0\.0\.1:9") as caught:
            await source.ping()
    assert SECRET not in repr(caught.value)
    assert "%20" not in str(caught.value)


@pytest.mark.parametrize("ca", ["", "no certificate"])
async def test_tls_against_a_server_without_it_and_bad_certificates_end_in_words(ca: str, server: Server) -> None:
    config = server.config(
        "x", ssl_enabled=True, ssl_ca=ca, host=f"mongodb://127.0.0.1:{server.port}/?serverSelectionTimeoutMS=300"
    )
    source = MongoDB(config)
    async with source.session():
        with pytest.raises(SourceError):
            await source.ping()


async def test_a_cursor_that_the_server_forgot_is_gone_on_from(
    server: Server, collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.insert_many([{"_id": number, "text": "x" * 100} for number in range(500)])
    monkeypatch.setattr(module, "random", lambda: _Prompt())
    monkeypatch.setattr(module, "PAGE_DOCUMENTS", 100)
    real, calls = module._gathered, 0

    async def flaky(cursor: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise pymongo.errors.CursorNotFound("cursor id 7 not found", 43)
        return await real(cursor)

    monkeypatch.setattr(module, "_gathered", flaky)
    found = await listed(MongoDB(server.config(collection.name)))
    ids = [item.id for item in found if isinstance(item, Document)]
    assert sorted(ids, key=int) == [str(number) for number in range(500)]
    assert calls >= 7


class _Prompt:
    def uniform(self, low: float, high: float) -> float:
        return 0.0


async def test_a_server_that_dies_ends_the_listing_with_an_error_and_a_cancelled_one_is_gone_at_once(
    libraries: Path,
) -> None:
    own = Server(libraries)
    try:
        own.client["shop"]["many"].insert_many([{"_id": number, "text": "x" * 1000} for number in range(3000)])
        host = f"mongodb://127.0.0.1:{own.port}/?serverSelectionTimeoutMS=300"
        source = MongoDB(own.config("many", host=host))
        async with source.session():
            with trio.move_on_after(5) as scope:
                async with aclosing(source.documents(await _only_partition(source))) as items:
                    async for _ in items:
                        scope.cancel()
            assert scope.cancelled_caught
            async with aclosing(source.documents(await _only_partition(source))) as items:
                await anext(items)
                own.process.kill()
                with pytest.raises(Transient):
                    await _drained(items)
    finally:
        own.stop()


async def _drained(items: Any) -> None:
    async for _ in items:
        pass


async def _only_partition(source: MongoDB) -> Any:
    async with aclosing(source.partitions()) as partitions:
        return await anext(partitions)


class TestConformance(SourceConformance):
    @pytest.fixture
    def subject(self, server: Server, collection: Any) -> Subject:
        collection.insert_many([{"_id": ObjectId(), "n": number, "text": "x" * 50} for number in range(300)])
        return Subject(
            lambda: MongoDB(server.config(collection.name, password="")),
            refused=lambda: MongoDB(_unreachable(password=SECRET, user="someone")),
            secrets=(SECRET,),
        )
