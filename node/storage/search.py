"""Running a planned search over one or several indices, and counting."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import orjson

from ..errors import ApiError, illegal_argument
from ..mapping.mapping import Mapping
from ..query.plan import Planner, joined
from ..query.request import SearchRequest
from ..query.sorting import INDEX_SHIFT, Column, SortKey, column, read_after, shown
from ..query.tree import Bool, Query

_BATCH = 500


@attrs.frozen
class Target:
    """One index as a search sees it. `clock` is a snapshot's, None for what is live now; `filter` comes from aliases."""

    name: str
    number: int
    mapping: Mapping
    clock: int | None = None
    filter: Query | None = None
    place: int = 0
    """Its place among the indices of the search, for `_shard_doc`."""

    def visible(self) -> str:
        """Return the condition for the document versions that are seen."""
        if self.clock is None:
            return "d.died IS NULL"
        return f"d.doc < {self.clock} AND (d.died IS NULL OR d.died >= {self.clock})"


@attrs.frozen
class Found:
    """One hit before its document is fetched."""

    target: Target
    doc: int
    score: float | None
    sort: tuple[Any, ...]


@attrs.frozen
class Document:
    """A fetched hit."""

    doc_id: str
    seq_no: int
    version: int
    source: bytes


@attrs.frozen
class Page:
    """What a search found: one page of hits, and how many there are."""

    hits: list[Found]
    documents: list[Document]
    total: int | None
    is_exact: bool
    max_score: float | None


def _narrowed(query: Query, target: Target, more: Query | None = None) -> Query:
    filters = tuple(one for one in (target.filter, more) if one is not None)
    return Bool(must=(query,), filter=filters) if filters else query


def _explain(error: ApiError, index: str) -> ApiError:
    """Give an error of the planning stage the shape in which a failed search comes back."""
    if error.status == 501:
        return error
    failure = {
        "shard": 0,
        "index": index,
        "node": "callboard",
        "reason": {**error.cause_object(), "index": index, "index_uuid": "_na_"},
    }
    wrapped = ApiError(
        error.status,
        "search_phase_execution_exception",
        "all shards failed",
        phase="query",
        grouped=True,
        failed_shards=[failure],
    )
    wrapped.root = error.cause_object() | {"index": index}
    return wrapped


def search(
    connection: sqlite3.Connection, targets: Sequence[Target], request: SearchRequest, now: datetime, *, tie_break: bool
) -> Page:
    """Return one page of hits. `tie_break`: `_shard_doc` is the last criterion and shown, as in a point in time."""
    keys = request.sort or (SortKey("_score", descending=True),)
    if tie_break and not any(key.field == "_shard_doc" for key in keys):
        keys = (*keys, SortKey("_shard_doc"))
    if request.after is not None and len(request.after) not in (len(keys), len(keys) - (tie_break and len(keys) > 1)):
        raise illegal_argument(f"search_after has {len(request.after)} value(s) but sort has {len(request.sort) or 1}.")
    if request.after is not None and not request.sort and not tie_break:
        raise illegal_argument("Sort must contain at least one field.")
    wanted = request.start + request.size
    found: list[Found] = []
    total: int | None = 0 if request.total_limit != 0 else None
    exact = True
    best: float | None = None
    for target in targets:
        try:
            run = _Run(connection, target, request, keys, now)
            if wanted:
                found += run.hits(wanted)
            best = max((score for score in (best, run.max_score()) if score is not None), default=None)
            if total is not None:
                total += run.count(request.total_limit)
        except ApiError as error:
            raise _explain(error, target.name) from error
    if total is not None and request.total_limit is not None and total > request.total_limit:
        total, exact = request.total_limit, False
    if len(targets) > 1:
        found.sort(key=_comparing(keys))
    page = found[request.start : wanted]
    explicit = bool(request.sort) or tie_break
    if not explicit:
        page = [attrs.evolve(hit, sort=()) for hit in page]
    return Page(page, fetch(connection, page), total, exact, best)


class _Run:
    """The statements of one search on one index."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        target: Target,
        request: SearchRequest,
        keys: tuple[SortKey, ...],
        now: datetime,
    ) -> None:
        self._connection = connection
        self._target = target
        self._request = request
        self._keys = keys
        self._now = now
        self._scored = (
            any(key.field == "_score" for key in keys) or request.track_scores or request.min_score is not None
        )
        self._best: float | None = None

    def hits(self, wanted: int) -> list[Found]:
        """Return the first hits after `search_after`, in order."""
        request, target = self._request, self._target
        planner = Planner(target.mapping, target.number, self._now)
        node = planner.compile(_narrowed(request.query, target, request.post_filter), scored=self._scored)
        score = node.score or "0.0"
        columns = [column(key, planner, score, target.place) for key in self._keys]
        where = [target.visible(), node.condition]
        if request.min_score is not None:
            where.append(f"{score} >= {planner.parameter(request.min_score)}")
        if request.after is not None:
            after = read_after(self._keys, request.after, target.mapping)
            where.append(_after(planner, columns, after, self._keys, target))
        shown_score = score if self._scored else "NULL"
        # A constant score orders nothing, and sorting by it would keep SQLite from walking in document order.
        # The score is written once and referred to by its place.
        order = [
            ("2 DESC" if key.descending else "2") if key.field == "_score" else one.order()
            for one, key in zip(columns, self._keys, strict=True)
            if not (key.field == "_score" and score in ("1.0", "0.0"))
        ]
        if not any(key.field in ("_doc", "_shard_doc") for key in self._keys):
            order.append("d.doc")
        shown_columns = [
            "NULL" if key.field == "_score" else one.expression for one, key in zip(columns, self._keys, strict=True)
        ]
        sql = (
            f"SELECT d.doc, {shown_score}, {', '.join(shown_columns)} "
            f"FROM docs_{target.number} d{_joins(planner)} WHERE {' AND '.join(where)} ORDER BY {', '.join(order)} LIMIT {wanted}"
        )
        rows = self._run(planner, sql)
        if self._scored and rows:
            self._best = max(row[1] for row in rows)
        places = [1 if key.field == "_score" else at + 2 for at, key in enumerate(self._keys)]
        return [Found(target, row[0], row[1], tuple(row[at] for at in places)) for row in rows]

    def max_score(self) -> float | None:
        """Return the best score, where hits come by score."""
        return self._best if self._keys[0].field == "_score" or self._request.track_scores else None

    def count(self, limit: int | None) -> int:
        """Count hits, up to one more than `limit`."""
        request, target = self._request, self._target
        planner = Planner(target.mapping, target.number, self._now)
        scored = request.min_score is not None
        node = planner.compile(_narrowed(request.query, target, request.post_filter), scored=scored)
        where = [target.visible(), node.condition]
        if request.min_score is not None:
            where.append(f"{node.score or '0.0'} >= {planner.parameter(request.min_score)}")
        bound = "" if limit is None else f" LIMIT {limit + 1}"
        sql = (
            f"SELECT count(*) FROM (SELECT 1 FROM docs_{target.number} d{_joins(planner)} "
            f"WHERE {' AND '.join(where)}{bound})"
        )
        return int(self._run(planner, sql)[0][0])

    def _run(self, planner: Planner, sql: str) -> list[tuple[Any, ...]]:
        return execute(self._connection, planner, sql)


def execute(connection: sqlite3.Connection, planner: Planner, sql: str) -> list[tuple[Any, ...]]:
    """Run a planned statement. Raises 400 for a query that is too large for SQLite."""
    try:
        for statement in planner.setup:
            connection.execute(statement)
        for name, select in planner.tables:
            connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name}(doc INTEGER PRIMARY KEY, score REAL)")
            connection.execute(f"DELETE FROM temp.{name}")
            connection.execute(f"INSERT INTO temp.{name} {select}", planner.parameters)
        rows = connection.execute(sql, planner.parameters).fetchall()
        for name, _ in planner.tables:
            connection.execute(f"DELETE FROM temp.{name}")
    except sqlite3.OperationalError as error:
        text = str(error)
        if (
            "too many" in text
            or "too large" in text
            or "parser stack" in text
            or "LIKE or GLOB pattern too complex" in text
        ):
            raise ApiError(400, "too_many_clauses", f"the query is too large for the node: {text}") from error
        raise
    return rows


def _joins(planner: Planner) -> str:
    return "".join(f" LEFT JOIN {name} ON {name}.doc = d.doc" for name, _ in planner.tables)


def _after(
    planner: Planner, columns: list[Column], values: list[Any], keys: tuple[SortKey, ...], target: Target
) -> str:
    if len(columns) == 1 and keys[0].field in ("_doc", "_shard_doc") and not columns[0].descending:
        # Put so that SQLite starts at the document instead of testing each.
        return f"d.doc > {planner.parameter(int(values[0]) - (target.place << INDEX_SHIFT))}"
    parts: list[str] = []
    equal: list[str] = []
    for one, value in zip(columns, values, strict=False):
        later, same = one.after(planner, value)
        parts.append(joined(" AND ", [*equal, later]))
        equal.append(same)
    return joined(" OR ", parts)


def _comparing(keys: tuple[SortKey, ...]) -> Any:
    def compare(one: Found, other: Found) -> int:
        for key, left, right in zip(keys, one.sort, other.sort, strict=True):
            if left == right:
                continue
            if left is None or right is None:
                first = key.missing == "_first"
                return -1 if (left is None) == first else 1
            try:
                before = left < right
            except TypeError:
                before = str(left) < str(right)
            return -1 if before != key.descending else 1
        return (one.target.place > other.target.place) - (one.target.place < other.target.place)

    return functools.cmp_to_key(compare)


def order(
    connection: sqlite3.Connection, targets: Sequence[Target], request: SearchRequest, now: datetime
) -> tuple[list[Found], float | None]:
    """Return all hits in order, without their documents, and the best score."""
    keys = request.sort or (SortKey("_score", descending=True),)
    found: list[Found] = []
    best: float | None = None
    for target in targets:
        try:
            run = _Run(connection, target, request, keys, now)
            found += run.hits(request.size)
            best = max((score for score in (best, run.max_score()) if score is not None), default=None)
        except ApiError as error:
            raise _explain(error, target.name) from error
    if len(targets) > 1:
        found.sort(key=_comparing(keys))
    return found, best


def fetch(connection: sqlite3.Connection, hits: Sequence[Found]) -> list[Document]:
    """Return the documents of these hits, in their order."""
    by_number: dict[int, list[int]] = {}
    for hit in hits:
        by_number.setdefault(hit.target.number, []).append(hit.doc)
    read: dict[tuple[int, int], Document] = {}
    for number, docs in by_number.items():
        for at in range(0, len(docs), _BATCH):
            listed = orjson.dumps(docs[at : at + _BATCH]).decode()
            for doc, *rest in connection.execute(
                f"SELECT doc, id, seq_no, version, source FROM docs_{number} WHERE doc IN (SELECT value FROM json_each(?))",
                (listed,),
            ):
                read[number, doc] = Document(*rest)
    return [read[hit.target.number, hit.doc] for hit in hits]


def count(connection: sqlite3.Connection, targets: Sequence[Target], query: Query, now: datetime) -> int:
    """Count what a query finds."""
    request = SearchRequest(query=query, size=0, total_limit=None)
    total = 0
    for target in targets:
        try:
            total += _Run(connection, target, request, (SortKey("_doc"),), now).count(None)
        except ApiError as error:
            raise _explain(error, target.name) from error
    return total


def matching(
    connection: sqlite3.Connection, target: Target, query: Query, now: datetime, limit: int | None = None
) -> list[tuple[int, str, int]]:
    """Return (document, id, sequence number) of everything a query finds, in document order."""
    try:
        planner = Planner(target.mapping, target.number, now)
        node = planner.compile(_narrowed(query, target), scored=False)
        bound = "" if limit is None else f" LIMIT {limit}"
        sql = (
            f"SELECT d.doc, d.id, d.seq_no FROM docs_{target.number} d WHERE {target.visible()} AND {node.condition} "
            f"ORDER BY d.doc{bound}"
        )
        return [(row[0], row[1], row[2]) for row in execute(connection, planner, sql)]
    except ApiError as error:
        raise _explain(error, target.name) from error


def shown_sort(hit: Found) -> list[Any]:
    """Return the sort values of a hit as JSON can hold them."""
    return [shown(value) for value in hit.sort]
