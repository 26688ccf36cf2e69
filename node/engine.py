"""What handlers work with: the database, open snapshots, and what the node says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs

from .http.messages import Request
from .query.parse import parse_query
from .query.tree import Bool, Query
from .storage.catalog import Catalog, Index
from .storage.database import Database
from .storage.names import Expansion, resolve
from .storage.search import Target
from .storage.snapshots import Snapshots

AttachmentReader: TypeAlias = Callable[[bytes, str | None], Awaitable[str]]


@attrs.define
class Engine:
    """One node's parts, handed to every handler."""

    database: Database
    snapshots: Snapshots
    version: str
    node_name: str
    cluster_name: str
    cluster_uuid: str
    started_s: float
    license_type: str = "trial"
    attachment_reader: AttachmentReader | None = None
    security: Any = None

    @property
    def catalog(self) -> Catalog:
        """Return what is known at this moment."""
        return self.database.catalog

    def indices(
        self, request: Request, expression: str | None = None, *, default_states: str = "open", **defaults: bool
    ) -> list[Index]:
        """Return the indices that a request names, in order of their names. Raises 404 or 400."""
        found = self._resolved(request, expression, default_states, defaults)
        return [self.catalog.indices[name] for name in sorted(found)]

    def targets(self, request: Request, expression: str | None = None) -> list[Target]:
        """Return the indices that a search names, narrowed by the filters of the aliases it used."""
        found = self._resolved(request, expression, "open", {})
        return [target_of(self.catalog.indices[name], found[name], place) for place, name in enumerate(sorted(found))]

    def _resolved(
        self, request: Request, expression: str | None, default_states: str, defaults: dict[str, bool]
    ) -> dict[str, set[str] | None]:
        how = Expansion.read(
            request.parameters.get("expand_wildcards"),
            ignore_unavailable=request.flag("ignore_unavailable", defaults.get("ignore_unavailable", False)),
            allow_no_indices=request.flag("allow_no_indices", defaults.get("allow_no_indices", True)),
            default=default_states,
        )
        if defaults.get("closed"):
            how = attrs.evolve(how, closed=True)
        named = expression if expression is not None else request.arguments.get("index", "_all")
        return resolve(named, self.catalog.indices, how)


def target_of(index: Index, aliases: set[str] | None, place: int = 0) -> Target:
    """Return an index as a search sees it that reached it by these aliases (None: by its own name)."""
    filters: tuple[Query, ...] = ()
    if aliases:
        bodies = [index.aliases[alias].get("filter") for alias in sorted(aliases) if alias in index.aliases]
        # Reached by one alias without a filter, all of it is seen.
        if all(bodies):
            filters = tuple(parse_query(body) for body in bodies)
    narrowed = None if not filters else filters[0] if len(filters) == 1 else Bool(should=filters)
    return Target(index.name, index.number, index.mapping, filter=narrowed, place=place)
