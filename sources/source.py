"""The contract between Callboard and a system that documents come from.

A source is a class with a typed configuration. It says which *partitions* it works in (tables, bucket prefixes, spaces,
sites ...), lists the documents of one partition, and turns a reference to content into bytes when somebody wants them. It
knows nothing of Elasticsearch, jobs, batches, retries or threads; those belong to the framework and the sync engine.

The partition is the unit of concurrency, checkpoint, deletion and error: a partition whose listing did not end cleanly never
causes a deletion, and one that was interrupted goes on from its own checkpoint. A *failure* is a value in the stream, so that
one bad page or file neither ends a job nor vanishes.

Rules for `documents`, `changes` and `identities`:

- They are asynchronous generators. Whoever iterates them closes them (`contextlib.aclosing`).
- No `yield` stands inside a nursery, cancel scope or time-out (Trio forbids it).
- A listing that could not be read to its end raises. It never becomes a short listing.
- They may yield one item or a list of items (a page); lists are cheaper, and both mean the same.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import attrs
import structlog

JSON: TypeAlias = Any
"""Anything that JSON can say. Values inside documents may also be dates, UUIDs, Decimals and bytes-free scalars."""

ConfigT = TypeVar("ConfigT")


@attrs.frozen
class Partition:
    """One part of a source that is listed, checkpointed, deleted from and failed on its own."""

    key: str
    """Stable between syncs and unique in the source, e.g. `public.orders` or `space/ENG`. Scopes deletions."""
    data: Mapping[str, JSON] = attrs.field(factory=dict)
    """Plain data that the source needs to list it. Travels between processes as JSON."""
    title: str = ""
    """What a person calls it; the key if empty."""


@attrs.define(slots=True)
class ContentRef:
    """Where the bytes of a document are, as plain data: they can be skipped, budgeted, fetched again, or looked at."""

    name: str
    """File name with extension; decides how the bytes are read."""
    data: Mapping[str, JSON] = attrs.field(factory=dict)
    """What `Source.fetch` needs to find the bytes."""
    size_bytes: int | None = None
    """As the source announces it; None if unknown."""
    version: str | None = None
    """An etag, hash, revision or modification time that changes whenever the bytes do; None if the source has none."""
    media_type: str | None = None
    gives: Literal["bytes", "fields"] = "bytes"
    """`bytes` are read by `Source.fetch` and become text; `fields` are read by `Source.fetch_fields` and join the document."""


@attrs.define(slots=True)
class Document:
    """One document as the source sees it. Mutable and slotted: one is made for every document of every sync."""

    id: str
    fields: dict[str, JSON]
    timestamp: str | None = None
    """ISO 8601, usually the last modification; becomes `_timestamp`."""
    access: list[str] | None = None
    """Who may see it, as prefixed principals (`email:a@b`); None: the source does not restrict. An empty list means nobody."""
    content: ContentRef | None = None
    operation: Literal["index", "update", "delete"] = "index"
    """Only `changes` may yield anything but `index`."""


@attrs.frozen
class Failure:
    """Something that could not be read. The sync goes on; the failure is counted, named and kept as a dead letter."""

    scope: Literal["item", "container", "partition"]
    """An item is one document (its indexed copy is kept). A container is many unknown ones: its partition deletes nothing."""
    what: str
    """The document id or the container's name, as a person would look for it."""
    cause: str
    """One sentence, without secrets."""
    document_id: str | None = None
    """The id the item would have had, if known: its indexed copy is then kept."""


@attrs.frozen
class Checkpoint:
    """From here the listing can go on: everything yielded before it need not be yielded again."""

    value: JSON


@attrs.define(slots=True)
class Identity:
    """One person or service account, for document-level security."""

    id: str
    fields: dict[str, JSON]
    """Becomes `identity` of the identity document."""
    access: list[str]
    """Every prefixed principal this identity carries (itself, groups, roles)."""
    timestamp: str | None = None
    document: dict[str, JSON] | None = None
    """A whole identity document to be stored as it is, instead of the one made from the fields above."""


Item: TypeAlias = Document | Failure | Checkpoint
Listing: TypeAlias = AsyncGenerator[Item | Sequence[Item], None]


@attrs.frozen
class Features:
    """What a source class can do; written to the connector document as `features`."""

    basic_rules: bool = True
    advanced_rules: bool = False
    incremental: Literal["none", "delta", "skip_unchanged"] = "none"
    """`delta`: `changes` is implemented. `skip_unchanged`: an incremental sync lists everything and skips equal timestamps."""
    document_level_security: bool = False
    resumable: bool = False
    """Listings yield checkpoints and can go on from one."""


@attrs.frozen
class AdvancedRulesProblem:
    """One reason why advanced rules cannot be used."""

    message: str
    rule_ids: tuple[str, ...] = ("advanced_snippet",)


@attrs.frozen
class SourceContext:
    """What the framework hands a source besides its configuration."""

    log: structlog.stdlib.BoundLogger = attrs.field(factory=structlog.get_logger)
    content_size_bytes_max: int | None = 10_485_760
    """`service.max_file_download_size`; None means no limit. The engine enforces it; a source may use it to list less."""
    document_level_security: bool = False
    """The connector's feature is on as well as the configuration switch: only then are permissions worth fetching."""


class Source(abc.ABC, Generic[ConfigT]):
    """A system that documents come from.

    Life: constructed (no input or output), `session()` entered, any of the other methods called, possibly many partitions at
    the same time, `session()` left. Every coroutine may be cancelled at any checkpoint and must leave nothing behind.
    """

    service_type: ClassVar[str]
    name: ClassVar[str]
    Config: ClassVar[type[Any]]
    features: ClassVar[Features] = Features()
    content_concurrency: ClassVar[int] = 10
    """How many `fetch` calls the system bears at once (`concurrent_downloads` of the reference's bulk options)."""
    partition_concurrency: ClassVar[int] = 4
    shareable: ClassVar[bool] = False
    """Several processes may list its partitions side by side: no two partitions ever yield the same id, `documents` needs nothing
    but the partition, and every process sees the same. Nothing of this can be checked by the engine."""
    small_content_bytes_max: ClassVar[int] = 0
    """Content that announces no more bytes than this is asked for many at once, by `fetch_small`; 0: never."""

    def __init__(self, config: ConfigT, context: SourceContext | None = None) -> None:
        self.config = config
        self.context = context or SourceContext()
        self.log = self.context.log

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Hold the connections and tasks that the other methods use. Override it to open clients; the default holds nothing."""
        yield

    @abc.abstractmethod
    async def ping(self) -> None:
        """Return if the system answers and takes the credentials. Raises `SourceError` that says what to do."""

    async def validate(self) -> None:
        """Check the configuration against the system (does the table exist, may we read it). Raises `SourceError`."""

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        """Say what is wrong with these advanced rules; nothing if they can be used."""
        return ()

    async def changed(self) -> bool:
        """Say whether anything at all may have changed. False ends a job as completed, with nothing read."""
        return True

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        """Yield the parts this source works in. `rules` is the value of the advanced rules, or None. One part by default."""
        yield Partition(key="all")

    @abc.abstractmethod
    def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        """List one partition, from its start or from the value of a `Checkpoint` it yielded in an earlier run."""

    def changes(self, cursor: JSON, rules: JSON = None) -> Listing:
        """List what changed since `cursor` (None at the first time), ending with a `Checkpoint` that is the next cursor.

        Only sources with `incremental="delta"` have it. Raises `CursorExpired` if the system no longer knows the cursor.
        """
        raise NotImplementedError(f"{type(self).__name__} has no change feed")

    def sync_cursor(self) -> JSON:
        """Where `changes` begins after the full listing that this object has made; None if the source has no change feed.

        It must lie before the listing began, so that nothing that changed meanwhile is missed. Kept only if the job completes.
        """
        return None

    def identities(self) -> AsyncGenerator[Identity | Failure | Sequence[Identity | Failure], None]:
        """List everybody who may be granted access. Only sources with document-level security have it."""
        raise NotImplementedError(f"{type(self).__name__} has no identities")

    def fetch(self, content: ContentRef) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the bytes of a document: an async context manager that gives an async iterator of chunks.

        Raises `SourceError`; a status that is not success is an error, never content. Left or cancelled early: the connection
        is closed.
        """
        raise NotImplementedError(f"{type(self).__name__} yields no content")

    async def fetch_small(self, contents: Sequence[ContentRef]) -> Sequence[bytes | None]:
        """Read several small contents in one go, each whole or None: those are then asked for by `fetch`, which says what is wrong."""
        return [None] * len(contents)

    async def fetch_fields(self, content: ContentRef) -> dict[str, JSON]:
        """Read the fields that complete a document whose content says `gives="fields"`. Raises `SourceError`."""
        raise NotImplementedError(f"{type(self).__name__} yields no content that gives fields")
