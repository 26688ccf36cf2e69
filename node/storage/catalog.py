"""Everything the node knows besides documents: indices with their mappings and aliases, templates, pipelines, keys.

It is held in memory as values that are never changed in place, and written to one table in the same transaction as the documents it
belongs to. A request works on a draft; the draft becomes the catalog when its transaction has been committed, so that a full disk or
a crash never leaves the two apart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping as MappingOf
from typing import Any

import attrs
import orjson

from ..errors import index_not_found
from ..mapping.mapping import Mapping
from . import schema

KINDS = ("index_template", "component_template", "template", "pipeline", "api_key", "secret", "cluster")


@attrs.frozen(eq=False)
class Index:
    """One index. `settings` are flat, without the prefix `index.`."""

    name: str
    number: int
    """Names its tables; never given twice."""
    uuid: str
    created_ms: int
    settings: dict[str, Any]
    mapping: Mapping
    aliases: dict[str, dict[str, Any]]
    closed: bool = False
    text_tables: int = 0
    seq_no: int = 0
    """The next sequence number."""
    clock: int = 1
    """The next document number, which is also the time by which snapshots tell what they see."""

    @property
    def hidden(self) -> bool:
        """Whether wildcards pass it over."""
        return str(self.settings.get("hidden", "false")).lower() == "true"

    def stored(self) -> bytes:
        """Return what the catalog table holds (counters have a table of their own)."""
        return orjson.dumps(
            {
                "number": self.number,
                "uuid": self.uuid,
                "created_ms": self.created_ms,
                "settings": self.settings,
                "mapping": self.mapping.tree,
                "numbers": self.mapping.numbers,
                "text_slots": self.mapping.text_slots,
                "aliases": self.aliases,
                "closed": self.closed,
                "text_tables": self.text_tables,
            }
        )

    @classmethod
    def read(cls, name: str, body: bytes, seq_no: int, clock: int) -> Index:
        """Read what `stored` wrote."""
        held = orjson.loads(body)
        mapping = Mapping.stored(held.pop("mapping"), held.pop("numbers"), held.pop("text_slots"))
        return cls(name=name, mapping=mapping, seq_no=seq_no, clock=clock, **held)


@attrs.frozen(eq=False)
class Catalog:
    """All of it at one moment."""

    indices: MappingOf[str, Index]
    things: MappingOf[str, MappingOf[str, Any]]
    """By kind (see `KINDS`) and name."""
    next_number: int

    def index(self, name: str) -> Index:
        """Return an index by its own name. Raises 404."""
        found = self.indices.get(name)
        if found is None:
            raise index_not_found(name)
        return found

    def indices_of_alias(self, alias: str) -> list[Index]:
        """Return the indices that have this alias."""
        return [index for index in self.indices.values() if alias in index.aliases]

    def names(self, kind: str) -> MappingOf[str, Any]:
        """Return everything of a kind."""
        return self.things[kind]


class Transaction:
    """A draft of the catalog and the connection on which its documents are written. Used in one thread, once."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, snapshot_clocks: MappingOf[int, int]) -> None:
        self.connection = connection
        self.indices: dict[str, Index] = dict(catalog.indices)
        self.things: dict[str, dict[str, Any]] = {kind: dict(names) for kind, names in catalog.things.items()}
        self.next_number = catalog.next_number
        self.snapshot_clocks = snapshot_clocks
        """Index number to how many snapshots are open on it."""

    def catalog(self) -> Catalog:
        """Return the draft as the next catalog."""
        return Catalog(self.indices, self.things, self.next_number)

    def index(self, name: str) -> Index:
        """Return an index by its own name. Raises 404."""
        found = self.indices.get(name)
        if found is None:
            raise index_not_found(name)
        return found

    def add_index(self, index: Index) -> None:
        """Make the tables of a new index and note it."""
        for statement in schema.index_tables(index.number):
            self.connection.execute(statement)
        self.next_number = index.number + 1
        self.put_index(index)
        self.connection.execute(
            "INSERT INTO counters(number, seq_no, clock) VALUES (?, ?, ?)", (index.number, index.seq_no, index.clock)
        )

    def put_index(self, index: Index) -> None:
        """Note a changed index, with text tables for all its text fields."""
        wanted = schema.text_tables_for(len(index.mapping.text_slots))
        for table in range(index.text_tables, wanted):
            self.connection.execute(schema.text_table(index.number, table))
        if wanted > index.text_tables:
            index = attrs.evolve(index, text_tables=wanted)
        self.indices[index.name] = index
        self._store("index", index.name, index.stored())

    def remove_index(self, name: str) -> None:
        """Drop an index and all its documents."""
        index = self.indices.pop(name)
        for statement in schema.drop_tables(index.number, index.text_tables):
            self.connection.execute(statement)
        self.connection.execute("DELETE FROM counters WHERE number = ?", (index.number,))
        self._remove("index", name)

    def count(self, index: Index, seq_no: int, clock: int) -> None:
        """Note how far an index has counted."""
        self.connection.execute(
            "UPDATE counters SET seq_no = ?, clock = ? WHERE number = ?", (seq_no, clock, index.number)
        )
        self.indices[index.name] = attrs.evolve(self.indices[index.name], seq_no=seq_no, clock=clock)

    def put(self, kind: str, name: str, body: Any) -> None:
        """Note a template, pipeline, key or the like."""
        self.things[kind][name] = body
        self._store(kind, name, orjson.dumps(body))

    def remove(self, kind: str, name: str) -> None:
        """Forget one."""
        del self.things[kind][name]
        self._remove(kind, name)

    def _store(self, kind: str, name: str, body: bytes) -> None:
        self.connection.execute(
            "INSERT INTO catalog(kind, name, body) VALUES (?, ?, ?) ON CONFLICT(kind, name) DO UPDATE SET body = excluded.body",
            (kind, name, body),
        )

    def _remove(self, kind: str, name: str) -> None:
        self.connection.execute("DELETE FROM catalog WHERE kind = ? AND name = ?", (kind, name))


def load(connection: sqlite3.Connection) -> Catalog:
    """Read the catalog when the node starts."""
    counters = {
        number: (seq_no, clock)
        for number, seq_no, clock in connection.execute("SELECT number, seq_no, clock FROM counters")
    }
    indices: dict[str, Index] = {}
    things: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind, name, body in connection.execute("SELECT kind, name, body FROM catalog ORDER BY name"):
        if kind == "index":
            number = orjson.loads(body)["number"]
            indices[name] = Index.read(name, body, *counters[number])
        else:
            things[kind][name] = orjson.loads(body)
    next_number = max((index.number for index in indices.values()), default=0) + 1
    return Catalog(indices, things, next_number)
