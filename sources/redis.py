"""Keys of a Redis server.

Read with coredis, which runs natively on Trio. Each database, or each advanced rule, is a partition with connections of its own
that select the database in their handshake, so that a reconnect never lands in another one. Types and sizes of a page of keys
come in one round trip, their values in a second. What cannot be read of one key is that key's failure.

A document's `value` is the text that existing indices have: the Python form of what the server gave, with sets in order. Very
large collections are cut, and say so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from hashlib import md5
from typing import Any, ClassVar, Final

import attrs
import coredis
import coredis.exceptions as refused
import trio

from ..protocol.configuration import greater_than, setting
from .errors import ConfigurationError, CredentialsError, PermissionDenied, SourceError, Transient
from .source import JSON, AdvancedRulesProblem, Document, Failure, Features, Listing, Partition, Source
from .tls import client_context

KEYS_PER_PAGE: Final = 500
MEMBERS_MAX: Final = 10_000
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 60.0
DATABASES_PROBED: Final = 16
_RULE_KEYS: Final = frozenset({"database", "key_pattern", "type"})
_CONNECTIONS: Final = 2


@attrs.frozen
class RedisConfig:
    """Which databases of which server."""

    host: str = setting("Host", order=1)
    port: int = setting("Port", default=6379, order=2, validations=[greater_than(0)])
    username: str = setting("Username", required=False, default="", order=3)
    password: str = setting("Password", required=False, default="", sensitive=True, order=4)
    database: list[str] = setting(
        "Databases", default=["*"], display="textarea", order=5, tooltip="Numbers separated by commas, or * for all."
    )
    ssl_enabled: bool = setting("SSL/TLS Connection", default=False, order=6)
    mutual_tls_enabled: bool = setting(
        "Mutual SSL/TLS Connection", default=False, depends_on={"ssl_enabled": True}, order=7
    )
    tls_certfile: str = setting(
        "Client certificate",
        required=False,
        default="",
        depends_on={"mutual_tls_enabled": True},
        order=8,
        tooltip="The text of the file.",
    )
    tls_keyfile: str = setting(
        "Client key",
        required=False,
        default="",
        sensitive=True,
        depends_on={"mutual_tls_enabled": True},
        order=9,
        tooltip="The text of the file.",
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say which databases are no numbers."""
        if self.database != ["*"]:
            for entry in self.database:
                if not (entry.isascii() and entry.isdigit()):
                    yield "database", f"has {entry!r}, which is neither a number nor * alone"


class Redis(Source[RedisConfig]):
    """Keys of the databases of a Redis server."""

    service_type: ClassVar[str] = "redis"
    name: ClassVar[str] = "Redis"
    Config = RedisConfig
    features = Features(advanced_rules=True)

    def __init__(self, config: RedisConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self._nursery: trio.Nursery | None = None
        self._clients: dict[int, coredis.Redis[bytes]] = {}

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            finally:
                self._clients.clear()
                self._nursery.cancel_scope.cancel()

    async def _client_of(self, database: int) -> coredis.Redis[bytes]:
        """The client of a database. Its connections live in the session, since a listing is a generator and may not own tasks."""
        assert self._nursery is not None, "the session of the source is not open"
        if database not in self._clients:
            self._clients[database] = await self._nursery.start(self._keep_connected, database)
        return self._clients[database]

    async def _keep_connected(self, database: int, task_status: trio.TaskStatus[coredis.Redis[bytes]]) -> None:
        async with self._connected(database) as client:
            await client.ping()
            task_status.started(client)
            await trio.sleep_forever()

    @asynccontextmanager
    async def _connected(self, database: int) -> AsyncIterator[coredis.Redis[bytes]]:
        config = self.config
        certificate = config.tls_certfile if config.mutual_tls_enabled else ""
        key = config.tls_keyfile if config.mutual_tls_enabled else ""
        tls = client_context(certificate=certificate, key=key) if config.ssl_enabled else None
        client = coredis.Redis(
            config.host,
            config.port,
            db=database,
            username=config.username or None,
            password=config.password or None,
            ssl_context=tls,
            connect_timeout=CONNECT_TIMEOUT_S,
            stream_timeout=ANSWER_TIMEOUT_S,
            max_connections=_CONNECTIONS,
        )
        try:
            async with client:
                yield client
        except BaseExceptionGroup as group:
            # The pool lives in a nursery; what went wrong inside is what matters.
            error = _first(group)
            raise self._translated(error) from error if isinstance(error, Exception) else group
        except (refused.RedisError, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> BaseException:
        where = f"Redis at {self.config.host}:{self.config.port}"
        match error:
            case SourceError():
                return error
            case refused.AuthenticationError():
                return CredentialsError(f"{where} does not accept the user or password.")
            case refused.AuthorizationError():
                return PermissionDenied(f"{where} does not let this user do what is needed: {error}")
            case refused.ResponseError():
                return ConfigurationError(f"{where} refuses: {error}")
            case refused.RedisError() | OSError():
                return Transient(f"{where} cannot be reached, or broke off: {type(error).__name__}")
            case _:
                return error

    async def ping(self) -> None:
        async with self._connected(0) as client:
            await client.ping()

    async def validate(self) -> None:
        """Look whether the databases that are named are there."""
        await self.ping()
        if self.config.database != ["*"]:
            await self._refuse_missing(sorted({int(entry) for entry in self.config.database}))

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        problems = list(_rule_problems(rules))
        if not problems and rules:
            try:
                await self._refuse_missing(sorted({rule["database"] for rule in rules}))
            except ConfigurationError as error:
                problems.append(AdvancedRulesProblem(str(error)))
        return problems

    async def _refuse_missing(self, databases: Sequence[int]) -> None:
        missing = [number for number in databases if not await self._exists(number)]
        if missing:
            listed = ", ".join(map(str, missing))
            raise ConfigurationError(f"Redis at {self.config.host}:{self.config.port} has no database {listed}.")

    async def _exists(self, database: int) -> bool:
        try:
            async with self._connected(database) as client:
                await client.ping()
        except ConfigurationError:
            return False
        return True

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if rules:
            for rule in rules:
                pattern, kind = rule.get("key_pattern"), (rule.get("type") or "").lower() or None
                yield Partition(
                    f"{rule['database']}/{pattern or '*'}/{kind or '*'}",
                    {"database": rule["database"], "pattern": pattern, "type": kind, "shown": rule["database"]},
                )
            return
        if self.config.database == ["*"]:
            for number in range(await self._database_count()):
                yield Partition(str(number), {"database": number, "shown": number})
            return
        for entry in dict.fromkeys(self.config.database):
            # As text, which is what documents of named databases have always had.
            yield Partition(entry, {"database": int(entry), "shown": entry})

    async def _database_count(self) -> int:
        async with self._connected(0) as client:
            try:
                told = await client.config_get(["databases"])
                return int(told[b"databases"])
            except (refused.AuthorizationError, refused.UnknownCommandError, refused.ResponseError, KeyError):
                pass
        # Managed servers hide their configuration: see which numbers can be selected.
        count = 0
        while count < DATABASES_PROBED and await self._exists(count):
            count += 1
        return count

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        data = partition.data
        async with self._connected(int(data["database"])) as client:
            pages = self._pages(client, data)
            try:
                async for page in pages:
                    yield page
            finally:
                await pages.aclose()

    async def _pages(self, client: coredis.Redis[bytes], data: Any) -> AsyncGenerator[list[Document | Failure], None]:
        cursor = 0
        while True:
            cursor, keys = await client.scan(
                cursor, match=data.get("pattern"), count=KEYS_PER_PAGE, type_=data.get("type")
            )
            # One page may name a key twice; across pages the same id simply comes again.
            unique = list(dict.fromkeys(keys))
            if unique:
                yield await self._read(client, unique, int(data["database"]), data["shown"])
            if cursor == 0:
                return

    async def _read(
        self, client: coredis.Redis[bytes], keys: list[bytes], database: int, shown: JSON
    ) -> list[Document | Failure]:
        async with client.pipeline(transaction=False, raise_on_error=False) as first:
            asked = [(first.type(key), first.memory_usage(key)) for key in keys]
        kinds = [_plain(await kind) for kind, _ in asked]
        sizes = [await _or_none(size) for _, size in asked]
        async with client.pipeline(transaction=False, raise_on_error=False) as second:
            values = [_ask_value(second, str(kind), key) for key, kind in zip(keys, kinds, strict=True)]
        items: list[Document | Failure] = []
        for key, kind, size, value in zip(keys, kinds, sizes, values, strict=True):
            name = key.decode(errors="backslashreplace")
            document_id = md5(f"{database}/{name}".encode(), usedforsecurity=False).hexdigest()
            try:
                text, is_cut = _shown(str(kind), None if value is None else await value)
            except refused.RedisError as error:
                items.append(Failure("item", f"{database}/{name}", f"Redis refuses its value: {error}", document_id))
                continue
            fields: dict[str, JSON] = {
                "key": name,
                "value": text,
                "size_in_bytes": size,
                "database": shown,
                "key_type": kind,
            }
            if is_cut:
                fields["value_is_cut"] = True
            items.append(Document(document_id, fields))
        return items


def _ask_value(pipeline: Any, kind: str, key: bytes) -> Any:
    match kind:
        case "hash":
            return pipeline.hgetall(key)
        case "stream":
            return pipeline.xrange(key, count=MEMBERS_MAX + 1)
        case "list":
            return pipeline.lrange(key, 0, MEMBERS_MAX)
        case "set":
            return pipeline.smembers(key)
        case "zset":
            return pipeline.zrange(key, 0, MEMBERS_MAX, withscores=True)
        case "none":
            return None
        case "ReJSON-RL":
            return pipeline.json.get(key)
        case _:
            return pipeline.get(key)


def _shown(kind: str, value: Any) -> tuple[str, bool]:
    """The text of a value as existing indices have it, and whether something was left out."""
    match kind:
        case "hash":
            pairs = [(_plain(name), _plain(one)) for name, one in value.items()]
            return str(dict(pairs[:MEMBERS_MAX])), len(pairs) > MEMBERS_MAX
        case "list":
            return str([_plain(one) for one in value[:MEMBERS_MAX]]), len(value) > MEMBERS_MAX
        case "set":
            members = sorted(str(_plain(one)) for one in value)
            text = "{" + ", ".join(repr(one) for one in members[:MEMBERS_MAX]) + "}" if members else "set()"
            return text, len(members) > MEMBERS_MAX
        case "zset":
            return str([(_plain(one.member), one.score) for one in value[:MEMBERS_MAX]]), len(value) > MEMBERS_MAX
        case "stream":
            entries = [
                (_plain(one.identifier), {_plain(name): _plain(content) for name, content in one.field_values.items()})
                for one in value[:MEMBERS_MAX]
            ]
            return str(entries), len(value) > MEMBERS_MAX
        case _:
            return _string(value), False


def _string(value: Any) -> str:
    if not isinstance(value, bytes | str):
        return str(value)
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return ""
    try:
        return str(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


async def _or_none(answer: Any) -> int | None:
    try:
        size: int | None = await answer
    except refused.RedisError:
        # The right to ask for sizes is often missing, and the size is not worth a document.
        return None
    return size


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _rule_problems(rules: JSON) -> Iterator[AdvancedRulesProblem]:
    if rules in ({}, []):
        return
    if not isinstance(rules, list):
        yield AdvancedRulesProblem("Advanced rules are a list of objects with the keys database, key_pattern and type.")
        return
    for number, rule in enumerate(rules, start=1):
        if not isinstance(rule, dict):
            yield AdvancedRulesProblem(f"Rule {number} must be an object.")
            continue
        if strangers := sorted(set(rule) - _RULE_KEYS):
            yield AdvancedRulesProblem(f"Rule {number} has the unknown key {strangers[0]}.")
        database = rule.get("database")
        if isinstance(database, bool) or not isinstance(database, int) or database < 0:
            yield AdvancedRulesProblem(f"Rule {number} must name a database by a number from 0.")
        given = [rule[name] for name in ("key_pattern", "type") if name in rule]
        if not given or not all(isinstance(one, str) and one for one in given):
            yield AdvancedRulesProblem(f"Rule {number} must have a key_pattern or a type, as text.")
