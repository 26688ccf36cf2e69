"""From a query and a mapping to SQL. Pure: nothing is asked of the database here.

A query becomes a condition on `d.doc` and an expression for its score. Full-text clauses whose score counts are computed once into
temporary tables and joined by document number; all others are `d.doc IN (...)`, which SQLite answers from an index. (As common table
expressions they would be joined by scanning whenever SQLite underestimates how many documents there are.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import attrs
import orjson

from ..errors import ApiError, illegal_argument
from ..mapping.dates import InvalidDate, read_date_math
from ..mapping.fields import INTEGERS, Field, index_value, query_shard_error, query_value
from ..mapping.mapping import Mapping
from ..storage.names import matches
from ..storage.schema import TEXT_COLUMNS
from .analysis import quoted, tokens
from .query_string import field_and_boost
from .tree import (
    All,
    Best,
    Bool,
    Constant,
    Exists,
    Ids,
    Match,
    MultiMatch,
    Nothing,
    Pattern,
    PatternMulti,
    Query,
    Range,
    Terms,
)

SCORED_MAX = 56
"""SQLite joins at most 64 tables."""
PARTS_MAX = 20_000
_NEVER = "0"


@attrs.define
class Node:
    """One query as SQL. `score` holds only where `condition` does; None where it counts as nothing."""

    condition: str
    score: str | None


class Planner:
    """Collects the parameters and table expressions of one statement on one index."""

    def __init__(self, mapping: Mapping, number: int, now: datetime) -> None:
        self.mapping = mapping
        self.number = number
        self.now = now
        self.parameters: dict[str, Any] = {}
        self.tables: list[tuple[str, str]] = []
        """Name and SELECT of each full-text clause whose score counts."""
        self.setup: list[str] = []
        """Statements to run before."""
        self._parts = 0

    def parameter(self, value: Any) -> str:
        """Note a value and return its placeholder."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"

    def compile(self, query: Query, *, scored: bool) -> Node:
        """Return the query as SQL. Raises 400 for values that do not suit their fields."""
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise ApiError(400, "too_many_clauses", f"maxClauseCount is set to {PARTS_MAX}")
        node = self._compile(query, scored)
        if not scored:
            return Node(node.condition, None)
        if query.boost != 1.0 and node.score is not None:
            return Node(node.condition, f"({node.score} * {query.boost!r})")
        return node

    def _compile(self, query: Query, scored: bool) -> Node:
        match query:
            case All():
                return Node("1", "1.0")
            case Nothing():
                return Node(_NEVER, None)
            case Terms():
                return self._terms(query, scored)
            case Range():
                return self._range(query)
            case Exists():
                return self._exists(query)
            case Ids():
                values = self.parameter(orjson.dumps(list(dict.fromkeys(query.values))).decode())
                return Node(
                    f"d.doc IN (SELECT doc FROM docs_{self.number} WHERE id IN (SELECT value FROM json_each({values})))",
                    "1.0",
                )
            case Pattern():
                return self._pattern(query.field, query.pattern, query.ignore_case)
            case PatternMulti():
                return self._pattern_multi(query)
            case Match():
                return self._match(query, scored)
            case MultiMatch():
                return self._multi_match(query, scored)
            case Bool():
                return self._bool(query, scored)
            case Constant():
                return Node(self.compile(query.inner, scored=False).condition, "1.0")
            case Best():
                return self._best([self.compile(one, scored=scored) for one in query.queries], query.tie_breaker)

    # Exact values

    def _in_terms(self, where: str) -> str:
        return f"d.doc IN (SELECT doc FROM terms_{self.number} WHERE {where})"

    def _terms(self, query: Terms, scored: bool) -> Node:
        if query.field == "_index":
            return Node(_NEVER, None)
        field = self.mapping.fields.get(query.field)
        if field is None or not query.values or not field.searched:
            return Node(_NEVER, None)
        if field.type == "text":
            words = [str(value) for value in query.values]
            if query.ignore_case:
                words = [word.lower() for word in words]
            # A term is compared with the words as they were indexed: in lower case, one by one.
            fitting = [word for word in words if tokens(word) == [word]]
            return (
                self._text([field], " OR ".join(quoted(word) for word in fitting), scored)
                if fitting
                else Node(_NEVER, None)
            )
        values = [query_value(field, value) for value in query.values]
        if query.ignore_case and field.type == "keyword":
            lowered = orjson.dumps([value.lower() for value in values]).decode()
            return Node(
                self._in_terms(
                    f"field = {field.number} AND lower(value) IN (SELECT value FROM json_each({self.parameter(lowered)}))"
                ),
                "1.0",
            )
        if len(values) == 1:
            return Node(self._in_terms(f"field = {field.number} AND value = {self.parameter(values[0])}"), "1.0")
        listed = self.parameter(orjson.dumps(values).decode())
        return Node(
            self._in_terms(f"field = {field.number} AND value IN (SELECT value FROM json_each({listed}))"), "1.0"
        )

    def _range(self, query: Range) -> Node:
        if query.field == "_id":
            raise illegal_argument("Field [_id] of type [_id] does not support range queries")
        field = self.mapping.fields.get(query.field)
        if field is None or not field.searched:
            return Node(_NEVER, None)
        if field.type == "text":
            raise query_shard_error(
                f"a range over the words of the text field [{field.path}] is not offered; use a keyword field"
            )
        where = [f"field = {field.number}"]
        for bound, operator in (("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<=")):
            value = getattr(query, bound)
            if value is not None:
                where.append(f"value {operator} {self.parameter(self._bound(field, value, bound in ('gt', 'lte')))}")
        return Node(self._in_terms(" AND ".join(where)), "1.0")

    def _bound(self, field: Field, value: Any, round_up: bool) -> Any:
        try:
            if field.type == "date":
                return read_date_math(value, self.now, round_up=round_up)
            if field.type in INTEGERS and not isinstance(value, bool):
                # A fraction or a number out of range still bounds.
                number = float(value)
                return int(value) if isinstance(value, int) and abs(value) < 1 << 63 else number
            return index_value(field, value)
        except (InvalidDate, ValueError, TypeError, OverflowError) as error:
            raise query_shard_error(f"failed to create query: {error}") from error

    def _exists(self, query: Exists) -> Node:
        if query.field in ("_id", "_index", "_source", "_seq_no", "_version"):
            return Node("1", "1.0")
        numbers = [
            field.number
            for path, field in self.mapping.fields.items()
            if matches(query.field, path) or path.startswith(query.field + ".")
        ]
        if not numbers:
            return Node(_NEVER, None)
        return Node(self._in_terms(f"field IN ({', '.join(map(str, numbers))})"), "1.0")

    # Patterns

    def _pattern(self, name: str, pattern: str, ignore_case: bool) -> Node:
        field = self.mapping.fields.get(name)
        if name == "_id":
            raise illegal_argument("patterns on [_id] are not offered; search a field")
        if field is None or not field.searched:
            return Node(_NEVER, None)
        if field.type == "text":
            return self._text_pattern(field, pattern.lower() if ignore_case else pattern)
        if field.type != "keyword":
            raise query_shard_error(
                f"Can only use wildcard or prefix queries on keyword and text fields - not on [{name}] which is of type [{field.type}]"
            )
        if ignore_case:
            return Node(
                self._in_terms(
                    f"field = {field.number} AND lower(value) GLOB {self.parameter(_glob(pattern.lower()))}"
                ),
                "1.0",
            )
        prefix, rest = literal_prefix(pattern)
        where = [f"field = {field.number}"]
        if prefix:
            where.append(f"value >= {self.parameter(prefix)} AND value < {self.parameter(prefix + chr(0x10FFFF))}")
        if rest != "*":
            where.append(f"value GLOB {self.parameter(_glob(pattern))}")
        return Node(self._in_terms(" AND ".join(where)), "1.0")

    def _text_pattern(self, field: Field, pattern: str) -> Node:
        assert field.text_slot is not None
        table, column = divmod(field.text_slot, TEXT_COLUMNS)
        prefix, rest = literal_prefix(pattern)
        if rest == "*" and tokens(prefix) == [prefix]:
            return Node(self._text([field], quoted(prefix) + "*", scored=False).condition, "1.0")
        vocabulary = f"words_{self.number}_{table}"
        self.setup.append(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.{vocabulary} USING fts5vocab('main', 'texts_{self.number}_{table}', 'col')"
        )
        words = (
            f"(SELECT '{{c{column}}} : (' || group_concat('\"' || replace(term, '\"', '\"\"') || '\"', ' OR ') || ')' "
            f"FROM temp.{vocabulary} WHERE col = 'c{column}' AND term GLOB {self.parameter(_glob(pattern))})"
        )
        name = f"texts_{self.number}_{table}"
        return Node(f"d.doc IN (SELECT rowid FROM {name} WHERE {name} MATCH coalesce({words}, '\"\"'))", "1.0")

    def _pattern_multi(self, query: PatternMulti) -> Node:
        nodes = []
        for path, weight in self._expand(query.fields):
            field = self.mapping.fields[path]
            if field.type in ("text", "keyword"):
                node = self._pattern(path, query.pattern, False)
                nodes.append(node if weight == 1.0 else Node(node.condition, f"({weight!r})"))
        return self._best(nodes, 0.0)

    # Words

    def _text(self, fields: list[Field], expression: str, scored: bool) -> Node:
        """All of `fields` stand in one full-text table."""
        slots = [field.text_slot for field in fields if field.text_slot is not None]
        table = slots[0] // TEXT_COLUMNS
        columns = " ".join(f"c{slot % TEXT_COLUMNS}" for slot in slots)
        found = self.parameter(f"{{{columns}}} : ({expression})")
        name = f"texts_{self.number}_{table}"
        if not scored:
            return Node(f"d.doc IN (SELECT rowid FROM {name} WHERE {name} MATCH {found})", None)
        if len(self.tables) >= SCORED_MAX:
            raise ApiError(400, "too_many_clauses", f"more than {SCORED_MAX} scored text clauses in one query")
        alias = f"m{len(self.tables)}"
        self.tables.append(
            (alias, f"SELECT rowid AS doc, -bm25({name}) AS score FROM {name} WHERE {name} MATCH {found}")
        )
        return Node(f"d.doc IN (SELECT doc FROM {alias})", f"coalesce({alias}.score, 0.0)")

    def _match(self, query: Match, scored: bool) -> Node:
        if query.field == "_id":
            return self.compile(Ids(values=(str(query.text),)), scored=scored)
        field = self.mapping.fields.get(query.field)
        if field is None or not field.searched:
            return Node(_NEVER, None)
        if field.type != "text":
            return self._match_value(field, query, scored)
        expressions = _expressions(str(query.text), query.kind)
        if not expressions:
            return Node(_NEVER, None)
        if query.should_match is not None and len(expressions) > 1 and not query.every:
            nodes = [self._text([field], one, scored) for one in expressions]
            return self._some(nodes, required_count(query.should_match, len(nodes)))
        return self._text([field], (" AND " if query.every else " OR ").join(expressions), scored)

    def _match_value(self, field: Field, query: Match, scored: bool) -> Node:
        if query.kind in ("phrase_prefix", "words_prefix") and field.type == "keyword":
            return self._pattern(field.path, re.sub(r"([\\*?])", r"\\\1", str(query.text)) + "*", False)
        try:
            return self._terms(Terms(field=field.path, values=(query.text,)), scored)
        except ApiError:
            if query.lenient:
                return Node(_NEVER, None)
            raise

    def _multi_match(self, query: MultiMatch, scored: bool) -> Node:
        named = query.fields or ("*",)
        lenient = query.lenient or named == ("*",)
        targets = self._expand(named)
        expressions = _expressions(str(query.text), query.kind)
        if query.any_field and query.every and len(expressions) > 1:
            parts = tuple(attrs.evolve(query, text=word, every=False, boost=1.0) for word in tokens(str(query.text)))
            return self._bool(Bool(must=parts), scored)
        nodes: list[Node] = []
        together = len(expressions) == 1 or (not query.every and query.should_match is None and query.kind == "words")
        texts: dict[tuple[int, float], list[Field]] = {}
        for path, weight in targets:
            field = self.mapping.fields[path]
            if field.type == "text" and field.searched and together and expressions:
                assert field.text_slot is not None
                texts.setdefault((field.text_slot // TEXT_COLUMNS, weight), []).append(field)
                continue
            one = Match(
                field=path,
                text=query.text,
                kind=query.kind,
                every=query.every,
                should_match=query.should_match,
                lenient=lenient,
                boost=weight,
            )
            nodes.append(self.compile(one, scored=scored))
        for (_, weight), fields in texts.items():
            node = self._text(fields, " OR ".join(expressions), scored)
            nodes.append(
                node if weight == 1.0 or node.score is None else Node(node.condition, f"({node.score} * {weight!r})")
            )
        return self._best(nodes, query.tie_breaker)

    def _expand(self, fields: Iterable[str]) -> list[tuple[str, float]]:
        """Turn patterns and boosts into fields that exist, each once."""
        found: dict[str, float] = {}
        for text in fields:
            name, weight = field_and_boost(text)
            if "*" in name:
                for path, field in self.mapping.fields.items():
                    if matches(name, path) and field.type != "binary" and field.searched:
                        found.setdefault(path, weight)
            elif name in self.mapping.fields:
                found[name] = weight
        return list(found.items())

    # Combinations

    def _best(self, nodes: list[Node], tie_breaker: float) -> Node:
        nodes = [node for node in nodes if node.condition != _NEVER]
        if not nodes:
            return Node(_NEVER, None)
        if len(nodes) == 1:
            return nodes[0]
        condition = joined(" OR ", [node.condition for node in nodes])
        scores = [_where_true(node) for node in nodes if node.score is not None]
        if not scores:
            return Node(condition, None)
        if len(scores) == 1:
            return Node(condition, scores[0])
        best = f"max({', '.join(scores)})" if len(scores) <= 100 else joined(" + ", scores)
        if tie_breaker:
            best = f"({best} * {1 - tie_breaker!r} + {tie_breaker!r} * {joined(' + ', scores)})"
        return Node(condition, best)

    def _bool(self, query: Bool, scored: bool) -> Node:
        must = [self.compile(one, scored=scored) for one in query.must]
        needed = [*must, *(self.compile(one, scored=False) for one in query.filter)]
        should = [self.compile(one, scored=scored) for one in query.should]
        refused = [self.compile(one, scored=False) for one in query.must_not]
        default = 0 if needed else 1
        least = default if query.should_match is None else required_count(query.should_match, len(should))
        conditions = [node.condition for node in needed]
        if should and least == 1:
            conditions.append(joined(" OR ", [node.condition for node in should]))
        elif should and least > 1:
            conditions.append(self._some(should, least).condition)
        elif not should and query.should_match is not None and least > 0:
            conditions.append(_NEVER)
        conditions += [f"NOT ({node.condition})" for node in refused]
        scores = [node.score for node in must if node.score is not None]
        scores += [_where_true(node) for node in should if node.score is not None]
        if not conditions:
            # An empty bool finds everything.
            return Node("1", joined(" + ", scores) if scores else "1.0")
        return Node(joined(" AND ", conditions), joined(" + ", scores) if scores else None)

    def _some(self, nodes: list[Node], least: int) -> Node:
        if least > len(nodes):
            return Node(_NEVER, None)
        counted = joined(" + ", [f"(CASE WHEN {node.condition} THEN 1 ELSE 0 END)" for node in nodes])
        scores = [_where_true(node) for node in nodes if node.score is not None]
        return Node(f"({counted} >= {least})", joined(" + ", scores) if scores else None)


def _where_true(node: Node) -> str:
    assert node.score is not None
    if node.score.startswith("coalesce(m"):
        return node.score
    return f"(CASE WHEN {node.condition} THEN {node.score} ELSE 0.0 END)"


def joined(operator: str, parts: list[str]) -> str:
    """Join as a balanced tree: SQLite limits the depth of an expression, not its width."""
    if len(parts) <= 2:
        return "(" + operator.join(parts) + ")" if len(parts) == 2 else parts[0]
    half = len(parts) // 2
    return f"({joined(operator, parts[:half])}{operator}{joined(operator, parts[half:])})"


def _expressions(text: str, kind: str) -> list[str]:
    words = tokens(text)
    if not words:
        return []
    if kind == "phrase":
        return [" + ".join(quoted(word) for word in words)]
    if kind == "phrase_prefix":
        return [" + ".join(quoted(word) for word in words) + "*"]
    unique = list(dict.fromkeys(words))
    found = [quoted(word) for word in unique]
    if kind == "words_prefix":
        found = [quoted(word) for word in dict.fromkeys(words[:-1])] + [quoted(words[-1]) + "*"]
    return found


def required_count(text: str, clauses: int) -> int:
    """Return how many of so many clauses `minimum_should_match` asks for. Raises 400."""
    text = text.strip()
    if "<" in text:
        result = clauses
        for part in sorted(text.split(), key=lambda one: _whole(one.split("<")[0])):
            bound, _, rule = part.partition("<")
            if clauses <= _whole(bound):
                return result
            result = required_count(rule, clauses)
        return result
    if text.endswith("%"):
        percent = _whole(text[:-1])
        share = abs(percent) * clauses // 100
        count = clauses - share if percent < 0 else share
    else:
        count = _whole(text)
        count = clauses + count if count < 0 else count
    return max(0, count)


def _whole(text: str) -> int:
    try:
        return int(text.strip())
    except ValueError:
        raise illegal_argument(f"minimum_should_match cannot be read: [{text}]") from None


def literal_prefix(pattern: str) -> tuple[str, str]:
    """Split a pattern before its first wildcard, unescaping what comes before."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\" and at + 1 < len(pattern):
            found.append(pattern[at + 1])
            at += 2
            continue
        if letter in "*?":
            break
        found.append(letter)
        at += 1
    return "".join(found), pattern[at:]


def _glob(pattern: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\" and at + 1 < len(pattern):
            escaped = pattern[at + 1]
            out.append(f"[{escaped}]" if escaped in "*?[" else escaped)
            at += 2
            continue
        out.append("[[]" if letter == "[" else letter)
        at += 1
    return "".join(out)
