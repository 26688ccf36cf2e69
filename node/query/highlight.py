"""Highlights: the passages of a field in which the words of the query stand, with those words marked. Pure."""

from __future__ import annotations

import html
import re
from typing import Any

import attrs

from ..errors import not_built, parsing
from ..mapping.mapping import Mapping
from ..storage.names import matches
from .analysis import token_spans, tokens
from .plan import literal_prefix
from .query_string import field_and_boost
from .tree import Best, Bool, Constant, Match, MultiMatch, Pattern, PatternMulti, Query, Terms

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_KNOWN = {
    "pre_tags",
    "post_tags",
    "fragment_size",
    "number_of_fragments",
    "require_field_match",
    "type",
    "order",
    "encoder",
}
_KNOWN |= {
    "no_match_size",
    "fields",
    "fragmenter",
    "boundary_scanner",
    "boundary_max_scan",
    "boundary_chars",
    "phrase_limit",
}
_KNOWN |= {"max_analyzed_offset", "boundary_scanner_locale", "matched_fields"}
FRAGMENTS_MAX = 1000


@attrs.frozen
class FieldHighlight:
    """How one field, or the fields of a pattern, are highlighted."""

    pattern: str
    before: str = "<em>"
    after: str = "</em>"
    fragment_size: int = 100
    """In characters; a passage is made of whole sentences and may be longer."""
    fragments: int = 5
    """0: the whole field."""
    only_its_own: bool = True
    """Only words that the query looks for in this very field."""
    by_score: bool = False
    no_match_size: int = 0
    encode: bool = False


@attrs.frozen
class Wanted:
    """A word the query looks for, in the fields that match a pattern."""

    field: str
    word: str
    is_prefix: bool = False

    def fits(self, word: str) -> bool:
        """Say whether this is the word."""
        return word.startswith(self.word) if self.is_prefix else word == self.word


def read_highlight(body: Any) -> tuple[FieldHighlight, ...]:
    """Read the `highlight` member of a body. Raises 400 or 501."""
    if body is None:
        return ()
    if not isinstance(body, dict):
        raise parsing("[highlight] must be an object")
    if "highlight_query" in body:
        raise not_built("[highlight_query]")
    fields = body.get("fields")
    entries: list[tuple[str, Any]] = []
    for group in fields if isinstance(fields, list) else [fields]:
        if not isinstance(group, dict):
            raise parsing("[highlight] needs [fields]")
        entries += list(group.items())
    return tuple(_field(pattern, {**body, **_checked(how)}) for pattern, how in entries)


def _checked(how: Any) -> dict[str, Any]:
    if not isinstance(how, dict):
        raise parsing("[highlight] fields must be objects")
    if "highlight_query" in how:
        raise not_built("[highlight_query]")
    return how


def _field(pattern: str, how: dict[str, Any]) -> FieldHighlight:
    unknown = how.keys() - _KNOWN
    if unknown:
        raise parsing(f"[highlight] unknown field [{min(unknown)}]")

    def whole(name: str, default: int) -> int:
        value = how.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise parsing(f"[highlight] [{name}] must be a number that is not negative")
        return value

    def tag(name: str, default: str) -> str:
        value = how.get(name, default)
        first = value[0] if isinstance(value, list) and value else value
        if not isinstance(first, str):
            raise parsing(f"[highlight] [{name}] must be a list of texts")
        return first

    return FieldHighlight(
        pattern=pattern,
        before=tag("pre_tags", "<em>"),
        after=tag("post_tags", "</em>"),
        fragment_size=whole("fragment_size", 100),
        fragments=min(whole("number_of_fragments", 5), FRAGMENTS_MAX),
        only_its_own=how.get("require_field_match", True) not in (False, "false"),
        by_score=how.get("order") == "score",
        no_match_size=whole("no_match_size", 0),
        encode=how.get("encoder", "default") == "html",
    )


def wanted_words(query: Query) -> list[Wanted]:
    """Return the words a query looks for."""
    match query:
        case Match():
            return _of_text(query.field, str(query.text), "prefix" in query.kind)
        case MultiMatch():
            fields = [field_and_boost(field)[0] for field in query.fields or ("*",)]
            return [one for field in fields for one in _of_text(field, str(query.text), "prefix" in query.kind)]
        case Terms():
            return [one for value in query.values for one in _of_text(query.field, str(value), False)]
        case Pattern():
            return _of_pattern(query.field, query.pattern)
        case PatternMulti():
            return [one for field in query.fields for one in _of_pattern(field_and_boost(field)[0], query.pattern)]
        case Bool():
            return [one for inner in (*query.must, *query.filter, *query.should) for one in wanted_words(inner)]
        case Best():
            return [one for inner in query.queries for one in wanted_words(inner)]
        case Constant():
            return wanted_words(query.inner)
    return []


def _of_text(field: str, text: str, last_is_prefix: bool) -> list[Wanted]:
    words = tokens(text)
    return [Wanted(field, word, last_is_prefix and at == len(words) - 1) for at, word in enumerate(words)]


def _of_pattern(field: str, pattern: str) -> list[Wanted]:
    prefix, _ = literal_prefix(pattern)
    return [Wanted(field, prefix.lower(), True)] if prefix else []


def highlight(
    source: dict[str, Any], mapping: Mapping, asked: tuple[FieldHighlight, ...], wanted: list[Wanted]
) -> dict[str, list[str]]:
    """Return the marked passages by field; fields without any are absent."""
    found: dict[str, list[str]] = {}
    for one in asked:
        for path, field in mapping.fields.items():
            if path in found or not matches(one.pattern, path) or field.type not in ("text", "keyword"):
                continue
            words = [word for word in wanted if not one.only_its_own or matches(word.field, path) or word.field == path]
            values = [value for value in values_at(source, field.source_path) if isinstance(value, str)]
            passages = _passages(values, one, words, whole=field.type == "keyword")
            if passages:
                found[path] = passages
    return found


def values_at(source: Any, path: str) -> list[Any]:
    """Return all values at a path, through lists and names with dots."""
    if isinstance(source, list):
        return [value for inner in source for value in values_at(inner, path)]
    if not path:
        return [source]
    if not isinstance(source, dict):
        return []
    found: list[Any] = []
    for name, inner in source.items():
        if name == path:
            found += values_at(inner, "")
        elif path.startswith(name + "."):
            found += values_at(inner, path[len(name) + 1 :])
    return found


def _passages(values: list[str], how: FieldHighlight, words: list[Wanted], *, whole: bool) -> list[str]:
    scored: list[tuple[int, str]] = []
    for value in values:
        if whole:
            text_words = tokens(value)
            wanted = {word.word for word in words}
            if text_words and (
                set(text_words) <= wanted or any(word.is_prefix and word.fits(value.lower()) for word in words)
            ):
                scored.append((len(text_words), f"{how.before}{_encoded(value, how)}{how.after}"))
            continue
        spans = [(start, end, word) for start, end, word in token_spans(value) if any(one.fits(word) for one in words)]
        if not spans:
            continue
        bounds = [(0, len(value))] if how.fragments == 0 else _cut(value, how.fragment_size)
        for start, end in bounds:
            inside = [span for span in spans if start <= span[0] and span[1] <= end]
            if inside:
                scored.append((len({word for _, _, word in inside}), _marked(value, start, end, inside, how)))
    if not scored and how.no_match_size and values:
        return [_encoded(values[0][: how.no_match_size], how)]
    limit = how.fragments or len(scored)
    best = sorted(range(len(scored)), key=lambda at: (-scored[at][0], at))[:limit]
    return [scored[at][1] for at in (best if how.by_score else sorted(best))]


def _cut(text: str, size: int) -> list[tuple[int, int]]:
    """Cut into passages of whole sentences, each at least `size` long where there is enough, and none much longer."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for gap in _SENTENCE.finditer(text):
        if gap.start() - start >= size:
            bounds += _split(text, start, gap.start(), size)
            start = gap.end()
    if start < len(text):
        bounds += _split(text, start, len(text), size)
    return bounds


def _split(text: str, start: int, end: int, size: int) -> list[tuple[int, int]]:
    found = []
    limit = max(2 * size, 40)
    while end - start > limit:
        cut = text.rfind(" ", start + 1, start + limit)
        cut = cut if cut > start else start + limit
        found.append((start, cut))
        start = cut + 1 if text[cut : cut + 1] == " " else cut
    found.append((start, end))
    return found


def _marked(text: str, start: int, end: int, spans: list[tuple[int, int, str]], how: FieldHighlight) -> str:
    parts = []
    at = start
    for from_, to, _ in spans:
        parts += [_encoded(text[at:from_], how), how.before, _encoded(text[from_:to], how), how.after]
        at = to
    parts.append(_encoded(text[at:end], how))
    return "".join(parts)


def _encoded(text: str, how: FieldHighlight) -> str:
    return html.escape(text) if how.encode else text
