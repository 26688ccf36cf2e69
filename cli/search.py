"""`callboard search`: a few words in, hits with the places where the words stand out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from .exits import Exit
from .failures import CommandFailed
from .options import Command, again, destination_options, format_option
from .terminal import counted, is_terminal, note, print_json

if TYPE_CHECKING:
    from ..protocol.store import Store
    from .destination import Destination

# Characters of the private use area: no text contains them, so a highlight cannot be mistaken for markup of the document.
_BEGIN, _END = "\ue000", "\ue001"
_NAME_FIELDS = ("title", "name", "path", "subject", "url")
FRAGMENT_SIZE = 150
"""Characters of text asked for around a match."""
LINE_LENGTH_MAX = 170
"""Characters of it that are shown on a line."""


@attrs.frozen
class Hit:
    """One document that matches."""

    id: str
    score: float | None
    title: str
    fragments: tuple[str, ...]
    """Pieces of text with `_BEGIN` and `_END` around what matched."""
    document: Mapping[str, Any]


@attrs.frozen
class Hits:
    """The best matches, and how many there are in all."""

    total: int
    total_is_exact: bool
    hits: tuple[Hit, ...]


@click.command(cls=Command)
@click.argument("index")
@click.argument("query")
@destination_options
@click.option(
    "-n", "--size", default=10, show_default=True, type=click.IntRange(1, 1000), help="Show at most this many hits."
)
@click.option("--lucene", is_flag=True, help='QUERY is in Lucene\'s syntax: body:"wind machine" AND NOT extension:pdf')
@format_option("text", "json", default="text")
def search(index: str, query: str, size: int, lucene: bool, format_: str, **where: Any) -> None:
    """Search an index and show where the words stand.

    \b
    callboard search notes "wind machine"
    callboard search notes storm --to https://search.example.org:9200 --user ines
    callboard search notes storm --embedded ~/callboard-data --format json
    """
    from .destination import Destination
    from .running import run_async

    found = run_async(_search, Destination.chosen(**where), index, request_body(query, size=size, lucene=lucene))
    if format_ == "json":
        print_json(as_json(index, query, found))
    else:
        print_hits(index, query, found)


async def _search(destination: Destination, index: str, body: dict[str, Any]) -> Hits:
    from .destination import open_destination

    async with open_destination(destination) as store:
        return await find(store, index, body)


async def find(store: Store, index: str, body: dict[str, Any]) -> Hits:
    """Ask the store. Raises `StoreError`, and `CommandFailed` for an index that is not there or a query that is not one."""
    from ..protocol.store import NotFound, Refused

    try:
        answer = await store.client.search(index=index, **body)
    except NotFound:
        raise CommandFailed(
            f"There is no index {index!r} at {store.target.shown}.",
            hint=f"See those there are: {again('index list')}",
            code=Exit.NOT_FOUND,
        ) from None
    except Refused as refusal:
        if "query_string" in body["query"] and refusal.status == 400:
            raise CommandFailed(
                "The server cannot read the query as Lucene's syntax.",
                hint="Look at its quotes and brackets, or leave out --lucene to search for plain words.",
                code=Exit.USAGE,
            ) from refusal
        raise
    return read_answer(answer.body)


def request_body(query: str, *, size: int, lucene: bool = False) -> dict[str, Any]:
    """The search request for some words: in any field, the best field counting most."""
    wanted: dict[str, Any]
    if lucene:
        wanted = {"query_string": {"query": query, "fields": ["*"], "lenient": True, "default_operator": "and"}}
    else:
        # Lenient: dates and numbers cannot match most words, and that is no error.
        wanted = {"multi_match": {"query": query, "fields": ["*"], "lenient": True, "operator": "and"}}
    return {
        "query": wanted,
        "size": size,
        "track_total_hits": 10_000,
        "source_excludes": ["_attachment"],
        "highlight": {
            "fields": {"*": {}},
            "require_field_match": False,
            "pre_tags": [_BEGIN],
            "post_tags": [_END],
            "fragment_size": FRAGMENT_SIZE,
            "number_of_fragments": 2,
        },
    }


def read_answer(answer: Mapping[str, Any]) -> Hits:
    """What a search answer says, in our terms."""
    total = answer["hits"]["total"]
    return Hits(
        total=total["value"],
        total_is_exact=total["relation"] == "eq",
        hits=tuple(_read_hit(hit) for hit in answer["hits"]["hits"]),
    )


def _read_hit(hit: Mapping[str, Any]) -> Hit:
    document = hit.get("_source") or {}
    highlights: Mapping[str, Sequence[str]] = hit.get("highlight") or {}
    # The text of a document says more than its name, which is shown anyway; sub-fields repeat their field.
    fields = sorted((name for name in highlights if "." not in name), key=lambda name: (name in _NAME_FIELDS, name))
    return Hit(
        id=hit["_id"],
        score=hit.get("_score"),
        title=str(next((document[name] for name in _NAME_FIELDS if document.get(name)), hit["_id"])),
        fragments=tuple(fragment for name in fields[:2] for fragment in highlights[name]),
        document=document,
    )


def as_json(index: str, query: str, found: Hits) -> dict[str, Any]:
    """The result for scripts; matches stand between `<em>` and `</em>`."""
    return {
        "index": index,
        "query": query,
        "total": found.total,
        "total_is_exact": found.total_is_exact,
        "hits": [
            {
                "id": hit.id,
                "score": hit.score,
                "title": hit.title,
                "highlights": [_marked(fragment, "<em>", "</em>") for fragment in hit.fragments],
                "document": hit.document,
            }
            for hit in found.hits
        ],
    }


def print_hits(index: str, query: str, found: Hits, *, below: Path | None = None, says_more: bool = True) -> None:
    """Print hits for a person. Titles that are paths below `below` are shown relative to it."""
    if not found.hits:
        note(f"Nothing in {index!r} matches {query!r}.")
        return
    more = "" if found.total_is_exact else "more than "
    click.echo(f"{more}{counted(found.total, 'document matches', 'documents match')} {query!r}:\n")
    width = len(str(len(found.hits)))
    for number, hit in enumerate(found.hits, start=1):
        click.echo(f"{number:>{width}}  {_styled(shorten_title(hit.title, below), bold=True)}")
        for fragment in hit.fragments[:2]:
            click.echo(f"{' ' * width}    {show_fragment(fragment)}")
    if says_more and found.total > len(found.hits):
        note(f"\nThese are the first {len(found.hits)}; --size shows more.")


def shorten_title(title: str, below: Path | None) -> str:
    """A title as it is shown: paths relative to `below` if they lie there."""
    if below is not None and title.startswith(f"{below}/"):
        return title.removeprefix(f"{below}/")
    return title


def show_fragment(fragment: str) -> str:
    """One line of text, its matches coloured on terminals and between brackets elsewhere."""
    line = _around_match(re.sub(r"\s+", " ", fragment).strip())
    if is_terminal():
        pieces = re.split(f"{_BEGIN}(.*?){_END}", line)
        return "".join(_styled(piece, fg="yellow", bold=True) if odd % 2 else piece for odd, piece in enumerate(pieces))
    return _marked(line, "[", "]")


def _around_match(line: str) -> str:
    """A line short enough to be read at a glance, cut at words around its first match. Servers cut at sentences only."""
    length_max = LINE_LENGTH_MAX
    if is_terminal():
        length_max = max(40, min(length_max, shutil.get_terminal_size().columns - 12))
    if len(line) <= length_max:
        return line
    start = max(0, line.find(_BEGIN) - length_max // 3)
    start = line.find(" ", start) + 1 if start else 0
    end = line.rfind(" ", start, start + length_max)
    piece = line[start : end if end > start else start + length_max]
    if piece.count(_BEGIN) > piece.count(_END):
        piece = piece[: piece.rfind(_BEGIN)].rstrip()
    return f"{'... ' if start else ''}{piece}{' ...' if start + len(piece) < len(line) else ''}"


def _styled(text: str, **style: Any) -> str:
    return click.style(text, **style) if is_terminal() else text


def _marked(text: str, begin: str, end: str) -> str:
    return text.replace(_BEGIN, begin).replace(_END, end)
