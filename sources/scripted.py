"""A source that lives in memory and fails as a script says: for tests of connectors' users, of the engine, and of simulations.

Write down a corpus and a script, and hand the source to a sync:

    corpus = {"public.orders": [Document("1", {"total": 7}, timestamp="2026-01-01T00:00:00Z")]}
    script = Script(parts={"public.orders": PartScript(page_documents=10, fails_at_page=2)})
    report = await sync(ScriptedSource(corpus, script), target, index="orders")

It lists by keyset, as a good connector does: documents in the order of their ids, each page being what follows the last id that
was listed, and that id as the checkpoint. So a listing goes on from its checkpoint even if the corpus has changed meanwhile, and
a document that is there from the first page to the last is always listed. The corpus may be changed at any time: by a `Change`
in the script, or by `on_page`, which is called before each page is read.

Two things a script can say no source may ever do: to end a listing early as if it were complete (`ends_after`,
`naming_ends_after`, `FileScript.ends_after_bytes`). They are there to prove what protects an index from such a source.

Nothing here draws lots. Who wants chance draws it first and writes what came out into the script, so that a failing test can be
read and repeated.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeAlias

import attrs
import trio

from ..protocol.configuration import setting
from .errors import NotFound, Transient
from .source import (
    JSON,
    Checkpoint,
    ContentRef,
    Document,
    Failure,
    Features,
    Identity,
    Item,
    Partition,
    Source,
    SourceContext,
)

CHUNK_SIZE_BYTES = 4096

Corpus: TypeAlias = MutableMapping[str, list[Document]]
"""Partition key -> its documents, in any order."""


@attrs.frozen(kw_only=True)
class PartScript:
    """How one partition is listed, and what goes wrong with it. Pages count from 1, anew in every listing."""

    page_documents: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    page_delay_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    """How long the system takes for each page."""
    fails_at_page: int | None = None
    """Raise instead of giving this page: the listing is cut short, and says so."""
    error: Callable[[], Exception] = attrs.field(default=lambda: Transient("the system closed the connection"))
    """Makes the error that is raised."""
    hangs_at_page: int | None = None
    """Never give this page: the listing waits until somebody cancels it."""
    ends_after: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0)))
    """A lie: end after so many documents as if that were all. 0: an empty listing."""
    empty_pages: Collection[int] = ()
    """These pages come empty, although more follow."""
    repeated: Collection[str] = ()
    """Ids that are named twice: in their page and again at the end of it."""
    repeated_at_end: Collection[str] = ()
    """Ids that are named once more on a page behind the last one, as systems do that list by time."""
    padding_bytes: Mapping[str, int] = attrs.field(factory=dict)
    """Id -> size of one more field, `padding`, that is made while listing: a huge document that takes no memory here."""
    failures: Sequence[Failure] = ()
    """Yielded with the first page. An item that names a document stands in its place: the document itself is not listed."""
    checkpoints: bool = True
    one_by_one: bool = False
    """Yield single documents instead of pages."""


@attrs.frozen(kw_only=True)
class FileScript:
    """How the bytes of one file arrive."""

    delay_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    """Before the first byte."""
    chunk_delay_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    fails_after_bytes: int | None = None
    """The connection breaks after about so many bytes; 0: before the first."""
    fails_times: int | None = None
    """How often it breaks before it works; None: for ever."""
    error: Callable[[], Exception] = attrs.field(default=lambda: Transient("the download broke off"))
    repeats: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """The bytes come so many times: a huge file that takes no memory here."""
    hangs_after_bytes: int | None = None
    """After about so many bytes nothing comes any more, until somebody cancels."""
    ends_after_bytes: int | None = None
    """A lie: the file ends after about so many bytes as if that were all."""


@attrs.frozen(kw_only=True)
class Change:
    """The corpus changes while it is listed: once, just before a page of a partition is read for the first time."""

    part: str
    page: int = attrs.field(validator=attrs.validators.ge(1))
    put: Sequence[Document] = ()
    """Documents that appear, or take the place of those with their ids."""
    remove: Collection[str] = ()
    into: str | None = None
    """The partition that changes; the one that is listed if None."""


@attrs.frozen(kw_only=True)
class Script:
    """What the source does beside listing its corpus. The default does nothing else."""

    parts: Mapping[str, PartScript] = attrs.field(factory=dict)
    files: Mapping[str, FileScript] = attrs.field(factory=dict)
    """By the name of the content."""
    changes: Sequence[Change] = ()
    other_parts: PartScript = PartScript()
    other_files: FileScript = FileScript()
    ping_error: Callable[[], Exception] | None = None
    naming_fails_after: int | None = None
    """Raise after so many partitions were named."""
    naming_error: Callable[[], Exception] = attrs.field(default=lambda: Transient("the system closed the connection"))
    naming_ends_after: int | None = None
    """A lie: name so many partitions as if there were no more."""
    identities_error: Callable[[], Exception] | None = None
    """Raise after the people were listed."""


@attrs.frozen
class ScriptedConfig:
    """A scripted source has nothing to configure."""

    name: str = setting(label="Name", default="scripted")


@attrs.define
class Happened:
    """What the source was asked and what went wrong, for a test to look at."""

    pages: int = 0
    started_from: dict[str, JSON] = attrs.field(factory=dict)
    """Partition -> checkpoint of its last listing."""
    listed: list[str] = attrs.field(factory=list)
    fetched: list[str] = attrs.field(factory=list)
    listings_broken: int = 0
    downloads_broken: int = 0
    repeated: int = 0
    failures: int = 0
    changes: int = 0
    cut_short: int = 0
    """Listings, namings and downloads that ended early and said nothing."""
    empty_pages: int = 0


class ScriptedSource(Source[ScriptedConfig]):
    """Lists a corpus in memory under a script. One corpus may serve many sources; `happened` is this source's own."""

    service_type: ClassVar[str] = "scripted"
    name: ClassVar[str] = "Scripted"
    Config: ClassVar[type[Any]] = ScriptedConfig
    features: ClassVar[Features] = Features(resumable=True, incremental="skip_unchanged", document_level_security=True)

    def __init__(
        self,
        corpus: Corpus,
        script: Script | None = None,
        *,
        files: Mapping[str, bytes] | None = None,
        people: Sequence[Identity] = (),
        on_page: Callable[[str, int], None] | None = None,
        context: SourceContext | None = None,
    ) -> None:
        super().__init__(ScriptedConfig(), context)
        self.corpus, self.script = corpus, script or Script()
        self.files: Mapping[str, bytes] = {} if files is None else files
        self.people, self.on_page = people, on_page
        self.happened = Happened()
        self._breaks: dict[str, int] = {}
        self._changed: set[int] = set()

    async def ping(self) -> None:
        """Raises what the script says."""
        if self.script.ping_error is not None:
            raise self.script.ping_error()

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        """Name the parts of the corpus, in their order."""
        for number, key in enumerate(list(self.corpus)):
            if number == self.script.naming_ends_after:
                self.happened.cut_short += 1
                return
            if number == self.script.naming_fails_after:
                break
            yield Partition(key)
        if self.script.naming_fails_after is not None:
            self.happened.listings_broken += 1
            raise self.script.naming_error()

    async def documents(
        self, partition: Partition, checkpoint: JSON = None
    ) -> AsyncGenerator[Item | Sequence[Item], None]:
        """List one part in the order of the ids, from behind the id that is the checkpoint."""
        script = self.script.parts.get(partition.key, self.script.other_parts)
        self.happened.started_from[partition.key] = checkpoint
        hidden = {failure.document_id for failure in script.failures if failure.scope == "item"}
        last, number, left = checkpoint, 0, script.ends_after
        if script.failures:
            self.happened.failures += len(script.failures)
            yield list(script.failures)
        while True:
            number += 1
            await self._page_begins(partition.key, number, script)
            if number in script.empty_pages:
                self.happened.empty_pages += 1
                yield []
                continue
            behind = [one for one in self.corpus.get(partition.key, ()) if last is None or one.id > last]
            page = sorted(behind, key=lambda one: one.id)[: script.page_documents]
            if left is not None:
                page = page[:left]
                left -= len(page)
                if not page and behind:
                    self.happened.cut_short += 1
            if not page:
                break
            last = page[-1].id
            again = [one for one in page if one.id in script.repeated]
            for items in self._given([*page, *again], hidden, script):
                yield items
            self.happened.repeated += len(again)
            self.happened.pages += 1
            if script.checkpoints:
                yield Checkpoint(last)
        late = [one for one in self.corpus.get(partition.key, ()) if one.id in script.repeated_at_end]
        if late:
            self.happened.repeated += len(late)
            for items in self._given(late, hidden, script):
                yield items

    async def _page_begins(self, part: str, number: int, script: PartScript) -> None:
        """What comes before a page: changes, waiting, an error. Raises what the script says."""
        if self.on_page is not None:
            self.on_page(part, number)
        for place, change in enumerate(self.script.changes):
            if (change.part, change.page) == (part, number) and place not in self._changed:
                self._changed.add(place)
                self.happened.changes += 1
                changed = part if change.into is None else change.into
                gone = {*change.remove, *(one.id for one in change.put)}
                kept = [one for one in self.corpus.get(changed, ()) if one.id not in gone]
                self.corpus[changed] = [*kept, *change.put]
        await trio.sleep(script.page_delay_s)
        if number == script.hangs_at_page:
            await trio.sleep_forever()
        if number == script.fails_at_page:
            self.happened.listings_broken += 1
            raise script.error()

    def _given(
        self, documents: Sequence[Document], hidden: Collection[str | None], script: PartScript
    ) -> Iterator[Item | Sequence[Item]]:
        """Documents as they are yielded: on one page, or one by one."""
        given: list[Item] = [
            _copy(one, script.padding_bytes.get(one.id, 0)) for one in documents if one.id not in hidden
        ]
        self.happened.listed.extend(one.id for one in documents if one.id not in hidden)
        if script.one_by_one:
            yield from given
        else:
            yield given

    async def identities(self) -> AsyncGenerator[Identity | Failure | Sequence[Identity | Failure], None]:
        """List the people the source was made with."""
        yield list(self.people)
        if self.script.identities_error is not None:
            self.happened.listings_broken += 1
            raise self.script.identities_error()

    @asynccontextmanager
    async def fetch(self, content: ContentRef) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the bytes of a file. Raises `NotFound` for one that is not there, and what the script says."""
        self.happened.fetched.append(content.name)
        data = self.files.get(content.name)
        if data is None:
            raise NotFound(f"there is no file {content.name!r}")
        script = self.script.files.get(content.name, self.script.other_files)
        await trio.sleep(script.delay_s)
        yield self._chunks(content.name, data, script)

    async def _chunks(self, name: str, data: bytes, script: FileScript) -> AsyncGenerator[bytes, None]:
        breaks = script.fails_after_bytes is not None and (
            script.fails_times is None or self._breaks.get(name, 0) < script.fails_times
        )
        given = 0
        for _ in range(script.repeats):
            for at in range(0, len(data), CHUNK_SIZE_BYTES):
                if breaks and given >= (script.fails_after_bytes or 0):
                    raise self._break(name, script)
                await trio.sleep(script.chunk_delay_s)
                if script.hangs_after_bytes is not None and given >= script.hangs_after_bytes:
                    await trio.sleep_forever()
                if script.ends_after_bytes is not None and given >= script.ends_after_bytes:
                    self.happened.cut_short += 1
                    return
                chunk = data[at : at + CHUNK_SIZE_BYTES]
                given += len(chunk)
                yield chunk
        if breaks:
            raise self._break(name, script)

    def _break(self, name: str, script: FileScript) -> Exception:
        self._breaks[name] = self._breaks.get(name, 0) + 1
        self.happened.downloads_broken += 1
        return script.error()


def _copy(document: Document, padding_bytes: int) -> Document:
    """The engine writes into what it is given; the corpus must stay what it is."""
    padding = {"padding": "x" * padding_bytes} if padding_bytes else {}
    return attrs.evolve(document, fields={**document.fields, **padding})


__all__ = [
    "Change",
    "Corpus",
    "FileScript",
    "Happened",
    "PartScript",
    "Script",
    "ScriptedConfig",
    "ScriptedSource",
]
