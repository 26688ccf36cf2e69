"""Queries as values: what a search body means, before anything is known of the index. Pure."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import attrs


@attrs.frozen(kw_only=True)
class _Boosted:
    boost: float = 1.0


@attrs.frozen(kw_only=True)
class All(_Boosted):
    """Every document."""


@attrs.frozen(kw_only=True)
class Nothing(_Boosted):
    """No document."""


@attrs.frozen(kw_only=True)
class Terms(_Boosted):
    """Documents with one of these exact values."""

    field: str
    values: tuple[Any, ...]
    ignore_case: bool = False


@attrs.frozen(kw_only=True)
class Range(_Boosted):
    """Documents with a value between bounds; each bound as given, None where there is none."""

    field: str
    gt: Any = None
    gte: Any = None
    lt: Any = None
    lte: Any = None


@attrs.frozen(kw_only=True)
class Exists(_Boosted):
    """Documents with any value in a field, or in any field below it."""

    field: str


@attrs.frozen(kw_only=True)
class Ids(_Boosted):
    """Documents by `_id`."""

    values: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Pattern(_Boosted):
    """Documents with a value that fits `*` and `?`; a prefix is a pattern with a `*` at its end."""

    field: str
    pattern: str
    ignore_case: bool = False


@attrs.frozen(kw_only=True)
class Match(_Boosted):
    """Documents in which a field has the words of a text (analysed fields) or the value itself (all others)."""

    field: str
    text: Any
    kind: Literal["words", "phrase", "phrase_prefix", "words_prefix"] = "words"
    every: bool = False
    """All words are needed, not just one."""
    should_match: str | None = None
    lenient: bool = False


@attrs.frozen(kw_only=True)
class MultiMatch(_Boosted):
    """The same over several fields; `fields` may hold patterns and boosts such as `title^3`."""

    fields: tuple[str, ...]
    text: Any
    kind: Literal["words", "phrase", "phrase_prefix", "words_prefix"] = "words"
    every: bool = False
    should_match: str | None = None
    lenient: bool = False
    tie_breaker: float = 0.0
    any_field: bool = False
    """Each word may stand in another field (`cross_fields`, and how query strings work)."""


@attrs.frozen(kw_only=True)
class Bool(_Boosted):
    """All of `must` and `filter`, none of `must_not`, and so many of `should`."""

    must: tuple[Query, ...] = ()
    filter: tuple[Query, ...] = ()
    should: tuple[Query, ...] = ()
    must_not: tuple[Query, ...] = ()
    should_match: str | None = None


@attrs.frozen(kw_only=True)
class Constant(_Boosted):
    """What the inner query finds, all with the same score."""

    inner: Query


@attrs.frozen(kw_only=True)
class Best(_Boosted):
    """What any query finds; the score is the best one's plus a share of the others'."""

    queries: tuple[Query, ...]
    tie_breaker: float = 0.0


@attrs.frozen(kw_only=True)
class PatternMulti(_Boosted):
    """A pattern over several fields."""

    fields: tuple[str, ...]
    pattern: str


Query: TypeAlias = (
    All | Nothing | Terms | Range | Exists | Ids | Pattern | Match | MultiMatch | Bool | Constant | Best | PatternMulti
)
