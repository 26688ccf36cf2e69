"""MongoDB: the documents of one collection (or what one advanced rule finds).

The driver is pymongo's asynchronous client on an asyncio loop inside Trio, so that a cancelled call closes its cursor. A batch
crosses over as the bytes the server sent and is decoded here, so that a bad document is a failure of its own and the others go on.

Without a rule, a collection is read in the order of `_id`. A cursor that the server has forgotten, a new primary, or a later run
goes on behind the last `_id` that was handed out; values of another type that sort behind it are not forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from hashlib import md5
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import bson
import orjson
import pymongo.errors as refused
import trio
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient

from ..protocol.configuration import setting
from ..runtime import random
from .asyncio_loop import asyncio_loop
from .errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from .mongodb_values import DateOutOfRange, extended, values_reader
from .source import JSON, AdvancedRulesProblem, Checkpoint, Document, Failure, Features, Listing, Partition, Source
from .tls import pem
from .waiting import tell_wait

ATTEMPTS: Final = 3
BATCH_S: Final = 3600.0
"""A cursor that gives nothing for so long is taken for dead; a heavy aggregation may well need many minutes."""
CLOSE_S: Final = 2.0
PAGE_DOCUMENTS: Final = 1000
PAGE_BYTES: Final = 4_194_304

_TYPES_IN_ORDER: Final = (
    ("minKey",),
    ("null",),
    ("int", "long", "double", "decimal"),
    ("string",),
    ("object",),
    ("binData",),
    ("objectId",),
    ("bool",),
    ("date",),
    ("timestamp",),
    ("maxKey",),
)
"""How the server sorts values of different types. A comparison sees only values of its own type."""

_FIND_KEYS: Final = {
    "filter": dict,
    "projection": (dict, list),
    "skip": int,
    "limit": int,
    "batch_size": int,
    "max_time_ms": int,
    "no_cursor_timeout": bool,
    "allow_partial_results": bool,
    "return_key": bool,
    "show_record_id": bool,
    "allow_disk_use": bool,
}
_AGGREGATE_KEYS: Final = {"pipeline": list, "allowDiskUse": bool, "maxTimeMS": int, "batchSize": int, "let": dict}
_KINDS: Final = {dict: "an object", list: "a list", int: "a whole number", bool: "true or false"}
_WRITING_STAGES: Final = frozenset({"$out", "$merge"})


@attrs.frozen
class MongoDBConfig:
    """Which collection of which database."""

    host: str = setting(
        "Server hostname", default="", tooltip="The whole address: mongodb://host:27017 or mongodb+srv://cluster.host"
    )
    user: str = setting("Username", required=False, default="")
    password: str = setting("Password", required=False, default="", sensitive=True)
    database: str = setting("Database", default="")
    collection: str = setting("Collection", default="")
    direct_connection: bool = setting(
        "Direct connection",
        default=False,
        tooltip="Speak to this one server, whatever else belongs to its replica set.",
    )
    ssl_enabled: bool = setting(
        "SSL/TLS Connection", default=False, tooltip="Must be on for Atlas and mongodb+srv:// addresses."
    )
    ssl_ca: str = setting("Certificate Authority (.pem)", required=False, default="", depends_on={"ssl_enabled": True})
    tls_insecure: bool = setting(
        "Skip certificate verification", default=False, depends_on={"ssl_enabled": True}, advanced=True
    )
    datetime_conversion: str = setting(
        "Out-of-range date handling",
        default="DATETIME",
        required=False,
        display="dropdown",
        advanced=True,
        options={
            "DATETIME": "Leave the document out and say so",
            "DATETIME_CLAMP": "Take the nearest date there is",
            "DATETIME_AUTO": "Milliseconds for those dates",
            "DATETIME_MS": "Milliseconds for all dates",
        },
        tooltip="What becomes of dates before the year 1 or after 9999.",
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is no address, contradicts the TLS switch, or is none of the ways to convert dates."""
        address = urlsplit(self.host)
        if address.scheme not in ("mongodb", "mongodb+srv"):
            yield "host", "must begin with mongodb:// or mongodb+srv://"
        if self.datetime_conversion not in DatetimeConversion.__members__:
            names = ", ".join(DatetimeConversion.__members__)
            yield "datetime_conversion", f"is {self.datetime_conversion!r}, but must be one of {names}"
        for name, value in parse_qsl(address.query, keep_blank_values=True):
            if name.lower() in ("ssl", "tls"):
                if value not in ("true", "false"):
                    yield "host", f"has {name}={value}, but only true and false are known"
                elif (value == "true") != self.ssl_enabled:
                    yield "host", f"has {name}={value}, but the setting SSL/TLS Connection says otherwise"

    @property
    def where(self) -> str:
        """The servers, without what else the address holds."""
        return urlsplit(self.host).netloc.rpartition("@")[2]


class MongoDB(Source[MongoDBConfig]):
    """MongoDB: the documents of one collection."""

    service_type: ClassVar[str] = "mongodb"
    name: ClassVar[str] = "MongoDB"
    Config = MongoDBConfig
    features = Features(advanced_rules=True, resumable=True)

    def __init__(self, config: MongoDBConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self._loop: Any = None
        self._client: Any = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with asyncio_loop() as loop:
            self._loop = loop
            try:
                yield
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                    if self._client is not None:
                        await loop.run_aio_coroutine(self._client.close())
                self._client = self._loop = None

    async def ping(self) -> None:
        await self._run(lambda client: client.admin.command("ping"))

    async def validate(self) -> None:
        """Make sure that the collection is there and may be read."""
        config = self.config
        names: list[str] = await self._run(
            lambda client: client[config.database].list_collection_names(authorizedCollections=True, nameOnly=True)
        )
        if config.collection not in names:
            raise ConfigurationError(await self._what_there_is(names))
        await self._run(lambda client: client[config.database][config.collection].find_one({}, {"_id": 1}))

    async def _what_there_is(self, collections: Sequence[str]) -> str:
        config = self.config
        if collections:
            there = ", ".join(sorted(collections))
            return (
                f"The database {config.database!r} at {config.where} has no collection {config.collection!r} that may be "
                f"seen. It has: {there}."
            )
        try:
            databases = ", ".join(sorted(await self._run(lambda client: client.list_database_names())))
        except PermissionDenied:
            databases = ""
        there = f" There are: {databases}." if databases else ""
        return (
            f"MongoDB at {config.where} has no database {config.database!r} with a collection that "
            f"{config.user or 'this user'!r} may read.{there}"
        )

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        return [AdvancedRulesProblem(text) for text in _rule_problems(rules)]

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        name = f"{self.config.database}.{self.config.collection}"
        if not rules:
            yield Partition(name, title=self.config.collection)
            return
        digest = md5(orjson.dumps(rules, option=orjson.OPT_SORT_KEYS), usedforsecurity=False).hexdigest()[:12]
        yield Partition(f"{name}/rule/{digest}", {"rule": rules}, title=f"rule over {self.config.collection}")

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        rule = partition.data.get("rule")
        after: Any = None if checkpoint is None else _key_of(checkpoint)
        has_yielded, attempt = False, 0
        while True:
            try:
                batches = self._batches(rule, after)
                async with aclosing(batches):
                    async for batch in batches:
                        attempt = 0
                        page, last = self._page(batch, may_lack_ids=rule is not None)
                        has_yielded = has_yielded or bool(page)
                        yield page
                        if rule is None and last is not _UNORDERED:
                            after = last
                            yield Checkpoint(_written(after))
                return
            except Transient as error:
                attempt += 1
                # What was handed out must not come again, and only the order of `_id` says what was.
                if attempt >= ATTEMPTS or (has_yielded and after is None):
                    raise
                self.log.info("source.retry", partition=partition.key, attempt=attempt, why=str(error))
                pause_s = random().uniform(0.5, 1.0) * 2.0**attempt
                tell_wait(self.name, error, wait_s=pause_s, attempt=attempt, name=partition.key)
                await trio.sleep(pause_s)

    def _page(self, batch: Sequence[bytes], may_lack_ids: bool) -> tuple[list[Document | Failure], Any]:
        page: list[Document | Failure] = []
        values = values_reader(allow_far_dates=self.config.datetime_conversion != "DATETIME")
        last: Any = _UNORDERED
        for raw in batch:
            found = bson.decode(raw, codec_options=self._codec_options)
            if "_id" not in found:
                why = "The document has no _id. Let the rule's projection or pipeline keep it."
                page.append(Failure("item", f"a document of {self.config.collection}", why))
                continue
            last = found.pop("_id")
            identity = _text(values.plain(last))
            try:
                if identity:
                    page.append(Document(identity, {name: values.plain(value) for name, value in found.items()}))
                else:
                    page.append(Failure("item", "the document whose _id is an empty text", "No index can hold it."))
            except DateOutOfRange as error:
                why = f"It has a date outside of the years 1 to 9999 ({error}). The setting datetime_conversion can keep it."
                page.append(Failure("item", identity, why, document_id=identity))
        if values.strangers:
            self.log.warning("source.unknown_types", types=values.strangers)
        return page, last

    @property
    def _codec_options(self) -> CodecOptions[dict[str, Any]]:
        way = self.config.datetime_conversion
        # A date that is refused is met as a number, so that it costs its own document only.
        conversion = DatetimeConversion["DATETIME_AUTO" if way == "DATETIME" else way]
        return CodecOptions(
            dict,
            uuid_representation=self._client.codec_options.uuid_representation,
            datetime_conversion=conversion,
            unicode_decode_error_handler="replace",
        )

    async def _batches(self, rule: JSON, after: Any) -> AsyncGenerator[list[bytes], None]:
        client = await self._connected()
        raw = client.codec_options.with_options(document_class=RawBSONDocument)
        collection = client[self.config.database].get_collection(self.config.collection, codec_options=raw)
        if rule and "aggregate" in rule:
            options = _whole_numbers(extended(rule["aggregate"]))
            pipeline = options.pop("pipeline", [])
            cursor = await self._run(lambda _: collection.aggregate(pipeline, **options))
        elif rule and "find" in rule:
            cursor = collection.find(**_whole_numbers(extended(rule["find"])))
        else:
            cursor = collection.find(_behind(after), sort=[("_id", 1)], batch_size=PAGE_DOCUMENTS)
        try:
            is_over = False
            while not is_over:
                batch, is_over = await self._run(lambda _: _gathered(cursor))
                if batch:
                    yield batch
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await self._loop.run_aio_coroutine(_closed(cursor))

    async def _run(self, call: Callable[[Any], Any]) -> Any:
        """Await asyncio's side of a call. Cancelled: the call's connection is closed."""
        client = await self._connected()
        try:
            with trio.fail_after(BATCH_S):
                return await self._loop.run_aio_coroutine(_awaited(call, client))
        except (refused.PyMongoError, OSError, ValueError) as error:
            raise _translated(error, self.config) from error
        except trio.TooSlowError as error:
            raise Transient(f"MongoDB at {self.config.where} gave nothing for {BATCH_S:.0f} s.") from error

    async def _connected(self) -> Any:
        if self._client is None:
            try:
                self._client = await self._loop.run_aio_coroutine(_made(self.config))
            except (refused.PyMongoError, OSError, ValueError) as error:
                raise _translated(error, self.config) from error
        return self._client


_UNORDERED: Final = object()


async def _made(config: MongoDBConfig) -> Any:
    options: dict[str, Any] = {"tls": config.ssl_enabled, "appname": "callboard"}
    if config.user or config.password:
        options |= {"username": config.user, "password": config.password}
    if config.direct_connection:
        options["directConnection"] = True
    if not config.ssl_enabled:
        return AsyncMongoClient(config.host, **options)
    options["tlsInsecure"] = config.tls_insecure
    with NamedTemporaryFile("w", suffix=".pem") as file:
        if config.ssl_ca.strip():
            # The driver reads only files, and only while it is made.
            file.write(pem(config.ssl_ca))
            file.flush()
            options["tlsCAFile"] = file.name
        return AsyncMongoClient(config.host, **options)


async def _awaited(call: Callable[[Any], Any], client: Any) -> Any:
    return await call(client)


async def _gathered(cursor: Any) -> tuple[list[bytes], bool]:
    """Take what the server has sent, up to a page: the loops are crossed once for all of it."""
    page: list[bytes] = []
    size_bytes = 0
    async for found in cursor:
        page.append(found.raw)
        size_bytes += len(found.raw)
        if len(page) >= PAGE_DOCUMENTS or size_bytes >= PAGE_BYTES:
            return page, False
    return page, True


async def _closed(cursor: Any) -> None:
    try:
        await cursor.close()
    except (refused.PyMongoError, OSError):
        # Then the server forgets it by itself.
        return


def _text(identity: JSON) -> str:
    return identity if isinstance(identity, str) else str(identity)


def _behind(after: Any) -> dict[str, Any]:
    """Write the filter for what sorts behind an `_id`: of its own type what is greater, and all of the types that follow."""
    if after is None:
        return {}
    kind = next(place for place, kinds in enumerate(_TYPES_IN_ORDER) if _bson_type(after) in kinds)
    later = [name for kinds in _TYPES_IN_ORDER[kind + 1 :] for name in kinds]
    return {"$or": [{"_id": {"$gt": after}}, *({"_id": {"$type": name}} for name in later)]}


def _bson_type(value: Any) -> str:
    number = bson.encode({"_": value})[4]
    return _TYPE_NAMES[number]


_TYPE_NAMES: Final = {
    0x01: "double",
    0x02: "string",
    0x03: "object",
    0x05: "binData",
    0x07: "objectId",
    0x08: "bool",
    0x09: "date",
    0x0A: "null",
    0x10: "int",
    0x11: "timestamp",
    0x12: "long",
    0x13: "decimal",
    0x7F: "maxKey",
    0xFF: "minKey",
}


def _written(key: Any) -> JSON:
    return orjson.loads(json_util.dumps(key, json_options=json_util.CANONICAL_JSON_OPTIONS))


def _key_of(checkpoint: JSON) -> Any:
    return json_util.loads(orjson.dumps(checkpoint), json_options=json_util.CANONICAL_JSON_OPTIONS)


def _rule_problems(rules: JSON) -> Iterator[str]:
    if rules is None or rules == {}:
        return
    if not isinstance(rules, dict):
        yield "The rule is an object with either find or aggregate."
        return
    if strangers := sorted(set(rules) - {"find", "aggregate"}):
        yield f"The rule has {', '.join(map(repr, strangers))}, but may have only find or aggregate."
    if "find" in rules and "aggregate" in rules:
        yield "The rule has both find and aggregate; one collection is read in one way."
    for name, known in (("find", _FIND_KEYS), ("aggregate", _AGGREGATE_KEYS)):
        if name in rules:
            yield from _part_problems(name, rules[name], known)


def _part_problems(name: str, part: JSON, known: Any) -> Iterator[str]:
    if not isinstance(part, dict):
        yield f"{name} is not an object."
        return
    if strangers := sorted(set(part) - set(known)):
        yield f"{name} has {', '.join(map(repr, strangers))}, but may have only {', '.join(known)}."
    for key, kinds in known.items():
        if key not in part:
            continue
        value = part[key]
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        fits = any(_is_whole(value) if kind is int else isinstance(value, kind) for kind in wanted)
        if not fits:
            yield f"{name}: {key} must be {' or '.join(_KINDS[kind] for kind in wanted)}."
        elif key in ("projection", "pipeline") and not value:
            yield f"{name}: {key} must not be empty."
        elif key == "pipeline":
            writing = {stage for one in value if isinstance(one, dict) for stage in one} & _WRITING_STAGES
            if writing:
                yield f"aggregate: {', '.join(sorted(writing))} would write to the database, which a sync never does."
            if not all(isinstance(one, dict) for one in value):
                yield "aggregate: each stage of the pipeline must be an object."
    try:
        extended(part)
    except ValueError as error:
        yield f"{name}: {error}."


def _is_whole(value: JSON) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and value == int(value)


def _whole_numbers(options: dict[str, Any]) -> dict[str, Any]:
    return {name: int(value) if isinstance(value, float) else value for name, value in options.items()}


def _translated(error: Exception, config: MongoDBConfig) -> SourceError:
    where = f"MongoDB at {config.where}"
    text = str(error).partition(", full error:")[0].partition(", Timeout:")[0].rstrip(".")
    match error:
        case refused.OperationFailure(code=18 | 8000):
            return CredentialsError(f"{where} refuses the user {config.user!r}: {text}.")
        case refused.OperationFailure(code=13):
            return PermissionDenied(f"{where}: {text}. Grant {config.user!r} the role read on {config.database!r}.")
        case refused.OperationFailure(code=26):
            return NotFound(f"{where}: {text}.")
        case refused.OperationFailure(code=50):
            return UnexpectedAnswer(f"{where} stopped the rule's query at its time limit: {text}. Raise max_time_ms.")
        case refused.CursorNotFound():
            return Transient(f"{where} has closed the cursor: {text}.")
        case refused.ConfigurationError() | refused.InvalidURI() | ValueError():
            return ConfigurationError(f"The settings for {where} cannot be used: {text}.")
        case refused.ConnectionFailure() if "CERTIFICATE_VERIFY_FAILED" in text:
            return ConfigurationError(
                f"The certificate of {config.where} is not trusted: {text}. Enter its authority in ssl_ca, or switch on "
                "tls_insecure to trust any."
            )
        case refused.OperationFailure() if (
            not error.has_error_label("RetryableWriteError") and error.code not in _PASSING
        ):
            return UnexpectedAnswer(f"{where}: {text} (code {error.code}).")
    return Transient(f"{where}: {text}.")


_PASSING: Final = frozenset(
    {6, 7, 43, 89, 91, 112, 136, 175, 189, 237, 262, 317, 358, 9001, 10107, 11600, 11602, 13435, 13436}
)
"""Codes of unreachable hosts, new primaries, shutdowns, killed and forgotten cursors."""
