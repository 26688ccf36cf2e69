"""The one-line query language of `query_string` and of `?q=`: `title:(prompt AND book) -draft "stage left" size:[1 TO 9]`. Pure."""

from __future__ import annotations

import re
from typing import Any

import attrs

from ..errors import ApiError, illegal_argument, not_built
from .tree import All, Bool, Exists, MultiMatch, PatternMulti, Query, Range

DEPTH_MAX = 30
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<operator>AND\b|OR\b|NOT\b|&&|\|\|)
    | (?P<sign>[+\-!])
    | (?P<open>\()
    | (?P<close>\))
    | (?P<field>(?:[^\s:\\()\[\]{}"^~<>=!+/-]|\\.)(?:[^\s:\\()\[\]{}"^~]|\\.)*):
    | (?P<phrase>"(?:[^"\\]|\\.)*")
    | (?P<range>[\[{]\s*(?:"(?:[^"\\]|\\.)*"|[^\s\]}]+)\s+TO\s+(?:"(?:[^"\\]|\\.)*"|[^\s\]}]+)\s*[\]}])
    | (?P<bound>[<>]=?(?:"[^"]*"|[^\s()]+))
    | (?P<regex>/(?:[^/\\]|\\.)*/)
    | (?P<boost>\^\d+(?:\.\d+)?)
    | (?P<fuzzy>~\d*)
    | (?P<word>(?:[^\s:\\()\[\]{}"^~]|\\.)+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_RANGE = re.compile(
    r"""([\[{])\s*("(?:[^"\\]|\\.)*"|[^\s\]}]+)\s+TO\s+("(?:[^"\\]|\\.)*"|[^\s\]}]+)\s*([\]}])""", re.DOTALL
)
_WILD = re.compile(r"(?<!\\)(?:\\\\)*[*?]")


def field_and_boost(text: str) -> tuple[str, float]:
    """Split `title^3`. Raises 400 for a boost that is no number."""
    name, caret, weight = text.partition("^")
    if not caret:
        return name, 1.0
    try:
        boost = float(weight)
    except ValueError:
        raise illegal_argument(f"the boost of field [{text}] must be a number") from None
    if not 0 <= boost < 1e30:
        raise illegal_argument(f"the boost of field [{text}] must be a number that is not negative")
    return name, boost


def escaped_pattern(text: str) -> str:
    """Return a wildcard pattern that means exactly this text."""
    return re.sub(r"([\\*?])", r"\\\1", text)


def parse_query_string(
    text: str,
    *,
    fields: tuple[str, ...],
    every: bool = False,
    lenient: bool = False,
    tie_breaker: float = 0.0,
    leading_wildcard: bool = True,
    should_match: str | None = None,
) -> Query:
    """Read one line. Raises 400 if it cannot be read, and 501 for fuzzy terms and regular expressions."""
    return _Parser(text, fields, every, lenient, tie_breaker, leading_wildcard, should_match).parse()


@attrs.define
class _Clause:
    query: Query
    occur: str
    """`must`, `should`, `must_not`; `` if nothing was said."""


class _Parser:
    def __init__(
        self,
        text: str,
        fields: tuple[str, ...],
        every: bool,
        lenient: bool,
        tie_breaker: float,
        leading_wildcard: bool,
        should_match: str | None,
    ) -> None:
        self.text = text
        self.every = every
        self.lenient = lenient
        self.tie_breaker = tie_breaker
        self.leading_wildcard = leading_wildcard
        self.should_match = should_match
        self.default_fields = fields
        self.tokens = self._tokens()
        self.at = 0

    def _tokens(self) -> list[tuple[str, str]]:
        found, at = [], 0
        end = len(self.text.rstrip())
        while at < end:
            token = _TOKEN.match(self.text, at)
            if token is None or token.end() == at:
                raise self._failed(f"at [{self.text[at : at + 20]}]")
            kind = token.lastgroup
            assert kind is not None
            found.append((kind, token[kind]))
            at = token.end()
        return found

    def _failed(self, why: str) -> ApiError:
        return ApiError(400, "query_shard_exception", f"Failed to parse query [{self.text[:500]}] {why}")

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self.at += 1
        return token

    def parse(self) -> Query:
        query = self._clauses(self.default_fields, 0, self.should_match)
        if self._peek()[0] != "end":
            raise self._failed("a bracket was closed that nobody opened")
        return query

    def _clauses(self, fields: tuple[str, ...], depth: int, should_match: str | None = None) -> Query:
        if depth > DEPTH_MAX:
            raise self._failed(f"it is nested more than {DEPTH_MAX} levels deep")
        clauses: list[_Clause] = []
        while self._peek()[0] not in ("end", "close"):
            conjunction = ""
            if self._peek()[0] == "operator" and self._peek()[1] != "NOT":
                if not clauses:
                    raise self._failed(f"nothing stands before [{self._peek()[1]}]")
                conjunction = self._next()[1]
            occur = ""
            while self._peek()[0] == "sign" or self._peek() == ("operator", "NOT"):
                occur = {"+": "must"}.get(self._next()[1], "must_not")
            if self._peek()[0] in ("end", "close", "operator"):
                raise self._failed("something is missing at its end")
            query = None if conjunction or occur else self._words_in_a_row(fields)
            if query is None:
                query = self._clause(fields, depth)
            # Lucene's classic rule: AND makes both sides required, OR (when AND is the default) both optional.
            if conjunction in ("AND", "&&"):
                if clauses[-1].occur in ("", "should"):
                    clauses[-1].occur = "must"
                occur = occur or "must"
            elif conjunction in ("OR", "||"):
                if self.every and clauses[-1].occur == "":
                    clauses[-1].occur = "should"
                occur = occur or "should"
            clauses.append(_Clause(query, occur))
        if not clauses:
            raise self._failed("it is empty")
        default = "must" if self.every else "should"
        if len(clauses) == 1 and (clauses[0].occur or default) != "must_not":
            return clauses[0].query
        by_occur: dict[str, list[Query]] = {"must": [], "should": [], "must_not": []}
        for clause in clauses:
            by_occur[clause.occur or default].append(clause.query)
        return Bool(
            must=tuple(by_occur["must"]),
            should=tuple(by_occur["should"]),
            must_not=tuple(by_occur["must_not"]),
            should_match=should_match,
        )

    def _words_in_a_row(self, fields: tuple[str, ...]) -> Query | None:
        """Plain words with nothing between them are one text, to be found in one field; a single one is not."""
        end = self.at
        while self._is_plain(end) and (end == self.at or self._kind(end + 1) not in ("boost", "fuzzy", "operator")):
            end += 1
        if end - self.at < 2:
            return None
        words = [_unescaped(token) for _, token in self.tokens[self.at : end]]
        self.at = end
        return self._words(" ".join(words), fields, phrase=False)

    def _kind(self, at: int) -> str:
        return self.tokens[at][0] if at < len(self.tokens) else "end"

    def _is_plain(self, at: int) -> bool:
        return self._kind(at) == "word" and not _WILD.search(self.tokens[at][1])

    def _clause(self, fields: tuple[str, ...], depth: int) -> Query:
        kind, token = self._next()
        if kind == "field":
            name = _unescaped(token)
            if name == "_exists_":
                kind, token = self._next()
                if kind not in ("word", "phrase"):
                    raise self._failed("after [_exists_:] stands the name of a field")
                return Exists(field=_unescaped(token.strip('"')))
            if name == "*" and self._peek() == ("word", "*"):
                self._next()
                return All()
            if self._peek()[0] in ("end", "close"):
                raise self._failed(f"nothing stands after [{name}:]")
            return self._clause((name,), depth)
        if kind == "open":
            query = self._clauses(fields, depth + 1)
            if self._next()[0] != "close":
                raise self._failed("a bracket is not closed")
            return self._boosted(query)
        return self._boosted(self._value(kind, token, fields))

    def _value(self, kind: str, token: str, fields: tuple[str, ...]) -> Query:
        match kind:
            case "phrase":
                return self._words(_unescaped(token[1:-1]), fields, phrase=True)
            case "range" | "bound":
                bounds = self._bounds(token) if kind == "range" else self._bound(token)
                ranges = tuple(Range(field=field_and_boost(field)[0], **bounds) for field in fields)
                return ranges[0] if len(ranges) == 1 else Bool(should=ranges)
            case "regex":
                raise not_built("A regular expression in a query string")
            case "word" | "sign":
                if token == "*":  # noqa: S105 - a word of a query
                    return Bool(should=tuple(Exists(field=field) for field in fields)) if "*" not in fields else All()
                if _WILD.search(token):
                    if token[0] in "*?" and not self.leading_wildcard:
                        raise self._failed("'*' or '?' not allowed as first character in WildcardQuery")
                    return PatternMulti(fields=fields, pattern=token.lower())
                return self._words(_unescaped(token), fields, phrase=False)
        raise self._failed(f"unexpected [{token}]")

    def _words(self, text: str, fields: tuple[str, ...], *, phrase: bool) -> Query:
        return MultiMatch(
            fields=fields,
            text=text,
            kind="phrase" if phrase else "words",
            every=self.every,
            lenient=self.lenient,
            tie_breaker=self.tie_breaker,
        )

    def _bounds(self, token: str) -> dict[str, Any]:
        found = _RANGE.fullmatch(token)
        assert found is not None
        opening, low, high, closing = found.groups()
        bounds: dict[str, Any] = {}
        if low != "*":
            bounds["gte" if opening == "[" else "gt"] = _unescaped(low.strip('"'))
        if high != "*":
            bounds["lte" if closing == "]" else "lt"] = _unescaped(high.strip('"'))
        return bounds

    def _bound(self, token: str) -> dict[str, Any]:
        operator = token[:2] if token[1:2] == "=" else token[:1]
        value = _unescaped(token[len(operator) :].strip('"'))
        if not value:
            raise self._failed(f"nothing stands after [{operator}]")
        return {{">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}[operator]: value}

    def _boosted(self, query: Query) -> Query:
        while self._peek()[0] in ("boost", "fuzzy"):
            kind, token = self._next()
            if kind == "fuzzy":
                raise not_built("A fuzzy term or phrase slop (~) in a query string")
            query = attrs.evolve(query, boost=query.boost * float(token[1:]))
        return query


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
