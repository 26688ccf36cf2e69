"""`callboard demo`: the whole way from a folder to search hits, on this machine, with nothing installed but Callboard."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from .exits import Exit
from .failures import CommandFailed
from .options import Command, format_option
from .terminal import counted, in_bytes, is_terminal, print_json

if TYPE_CHECKING:
    from ..protocol.store import Store
    from .one_shot import Ended
    from .search import Hits

SAMPLE = Path(__file__).parent / "sample"
SAMPLE_QUERY = "thunder sheet"
LOOK_AT_MAX = 1000
"""Documents that are looked at to say what was indexed, and to choose a word to search for."""


@attrs.frozen
class Kind:
    """The documents of one file type."""

    extension: str
    count: int
    size_bytes: int
    with_text: int


@click.command(cls=Command)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--query", help="What to search for; by default a word that many of the documents have.")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the node keeps its data.  [callboard/demo in your data folder]",
)
@format_option("text", "json", default="text")
def demo(folder: Path | None, query: str | None, data: Path | None, format_: str) -> int:
    """Sync a folder into the built-in node, and search it.

    Without DIR it takes the sample that comes with Callboard: the papers of an invented theatre, in seven file formats. Run it again
    and only what has changed is sent.
    """
    from .running import run_async

    chosen = checked_folder(folder) if folder else SAMPLE
    where = (data or default_data_folder()).expanduser().absolute()
    return run_async(_demo, chosen, where, query, format_ == "json")


def checked_folder(folder: Path) -> Path:
    """The folder, absolute. Raises `CommandFailed` if it cannot be one."""
    path = folder.expanduser().absolute()
    if not path.exists():
        raise CommandFailed(f"The folder {str(path)!r} does not exist.", code=Exit.NOT_FOUND)
    if not path.is_dir():
        raise CommandFailed(
            f"{str(path)!r} is a file, not a folder.", hint=f"Try its folder: {path.parent}", code=Exit.USAGE
        )
    return path


def default_data_folder() -> Path:
    """Where the demonstration keeps its data if nobody says otherwise."""
    configured = os.environ.get("XDG_DATA_HOME")
    base = Path(configured) if configured else Path.home() / ".local" / "share"
    return base / "callboard" / "demo"


def index_name_for(folder: Path) -> str:
    """The index of a folder: `demo` for the sample, `demo-notes` for `~/notes`."""
    if folder == SAMPLE:
        return "demo"
    word = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    return f"demo-{word}"[:100].rstrip("-")


async def _demo(folder: Path, data: Path, query: str | None, as_json: bool) -> int:
    from ..node import open_node
    from ..protocol.store import Target, open_store
    from .embedding import data_folder, open_attachment_reader
    from .one_shot import check_source, run_one_shot
    from .own_connector import connector_for, entered
    from .sync import exit_code, print_ended

    tell = _nothing if as_json else _say
    index_name = index_name_for(folder)
    values = {"directory": str(folder)}
    await check_source("dir", entered("dir", {}, values))
    with data_folder(data) as keep:
        async with (
            open_attachment_reader() as read_attachment,
            open_node(data, port=0, attachment_reader=read_attachment) as node,
        ):
            tell("Node", f"{node.url}, a small Elasticsearch for this machine; its data is in {_short(data)}")
            async with open_store(Target(url=node.url, role="cli")) as store:
                await store.ensure_indices()
                connector = await connector_for(store, "dir", index_name, values, f"Demo: {folder.name}")
                keep()
                tell("Source", f"the folder {_short(folder)}, as connector {connector.id}")
                ended = await run_one_shot(
                    store, connector, "full", title=f"Syncing {folder.name} into {index_name}", alone=True
                )
                if as_json:
                    print_json(await _facts(store, index_name, folder, data, query, ended))
                    return exit_code(ended)
                _say("Sync", "", end="")
                print_ended(ended, index_name, lambda command: f"callboard {command} --embedded {_short(data)}")
                if ended.report.status != "completed":
                    return exit_code(ended)
                await _show(store, index_name, folder, data, query, ended)
    return Exit.DONE


async def _facts(
    store: Store, index_name: str, folder: Path, data: Path, query: str | None, ended: Ended
) -> dict[str, Any]:
    """What the demonstration did, for a script."""
    from .search import as_json, find, request_body

    documents = await _documents(store, index_name)
    words = query or _words_for(folder, documents)
    found = await find(store, index_name, request_body(words, size=5)) if documents else None
    return {
        "folder": str(folder),
        "data": str(data),
        "index": index_name,
        "sync": {"connector_id": ended.connector_id, **ended.report.as_json()},
        "types": [attrs.asdict(kind) for kind in kinds(documents)],
        "search": as_json(index_name, words, found) if found is not None else None,
    }


def _words_for(folder: Path, documents: Iterable[dict[str, Any]]) -> str:
    return SAMPLE_QUERY if folder == SAMPLE else telling_word(_texts(documents))


async def _show(store: Store, index_name: str, folder: Path, data: Path, query: str | None, ended: Ended) -> None:
    from .search import find, print_hits, request_body

    documents = await _documents(store, index_name)
    _say("Index", f"what {index_name!r} holds now")
    _print_kinds(kinds(documents))
    if not documents:
        click.echo("\nThe folder holds no files that could be indexed.")
        return
    words = query or _words_for(folder, documents)
    click.echo()
    _say("Search", f'callboard search {index_name} "{words}" --embedded {_short(data)}')
    found: Hits = await find(store, index_name, request_body(words, size=5))
    click.echo()
    print_hits(index_name, words, found, below=folder, says_more=False)
    click.echo()
    _print_next_steps(index_name, folder, data)


async def _documents(store: Store, index_name: str) -> Sequence[dict[str, Any]]:
    answer = await store.client.search(
        index=index_name,
        query={"match_all": {}},
        size=LOOK_AT_MAX,
        source_includes=["path", "size", "body", "title"],
        track_total_hits=True,
    )
    return [hit.get("_source") or {} for hit in answer.body["hits"]["hits"]]


def _texts(documents: Iterable[dict[str, Any]]) -> list[str]:
    return [str(document.get("body") or document.get("path") or "") for document in documents]


def kinds(documents: Iterable[dict[str, Any]]) -> list[Kind]:
    """Documents counted by the extension of their file, the most frequent first."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for document in documents:
        extension = Path(str(document.get("path") or "")).suffix.lower().lstrip(".") or "other"
        counts[extension] += 1
        sizes[extension] += int(document.get("size") or 0)
        texts[extension] += bool(document.get("body"))
    return [Kind(name, count, sizes[name], texts[name]) for name, count in counts.most_common()]


def telling_word(texts: Sequence[str]) -> str:
    """A word that says something about these texts: long, in several of them and not in nearly all."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(set(re.findall(r"[^\W\d_]{5,20}", text.lower())))
    limit = max(2, len(texts) * 2 // 3)
    several = [(count * min(len(word), 9), word) for word, count in seen.items() if 2 <= count <= limit]
    if several:
        return max(several)[1]
    return max(seen, key=lambda word: (len(word), word), default="the")


def _print_kinds(found: Sequence[Kind]) -> None:
    from .terminal import print_table

    rows = [
        (kind.extension, f"{kind.count:,}", in_bytes(kind.size_bytes), f"{kind.with_text:,}") for kind in found[:12]
    ]
    if rows:
        print_table(["type", "documents", "size", "with text"], rows, right=[1, 2, 3])
    if len(found) > len(rows):
        click.echo(f"... and {counted(len(found) - len(rows), 'more type')}")


def _print_next_steps(index_name: str, folder: Path, data: Path) -> None:
    where = f"--embedded {_short(data)}"
    own = [("your own folder", "callboard demo ~/notes")] if folder == SAMPLE else []
    steps = [
        (
            "search on",
            f'callboard search {index_name} "wardrobe" {where}'
            if folder == SAMPLE
            else f"callboard search {index_name} WORDS {where}",
        ),
        *own,
        ("keep the node running", f"callboard node --data {_short(data)}"),
        (
            "a real Elasticsearch",
            f"callboard sync dir --set directory={_short(folder) if folder != SAMPLE else '$HOME/notes'} --index notes --to http://localhost:9200",
        ),
        ("everything else", "callboard --help"),
    ]
    _say("Next", "")
    width = max(len(name) for name, _ in steps)
    for name, command in steps:
        click.echo(f"  {name.ljust(width)}   {click.style(command, fg='cyan') if is_terminal() else command}")


def _say(label: str, text: str, *, end: str = "\n") -> None:
    shown = click.style(label.ljust(8), bold=True, fg="green") if is_terminal() else label.ljust(8)
    click.echo(f"{shown}{text}".rstrip() if end else shown, nl=bool(end))


def _nothing(_label: str, _text: str, *, end: str = "\n") -> None:
    """Say nothing: a script wants the facts alone."""


def _short(path: Path) -> str:
    home = Path.home()
    if path.is_relative_to(home) and path != home:
        # A quoted tilde would stay a tilde.
        return f"~/{shlex.quote(str(path.relative_to(home)))}"
    return shlex.quote(str(path))
