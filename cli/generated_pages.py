"""The pages of `docs/` that are made from the code: every setting of the service, and one page for each source.

A source's page is its module's own words, the settings of its configuration class and its features; what only the vendor's side
needs (rights, keys) is written by hand in `docs/sources/notes/SERVICE_TYPE.md` and put in. `python -m callboard.cli.generated_pages
FOLDER` writes them; a test checks that they are fresh.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

NOTE = "<!-- Made by `make docs` from the code itself; a test checks that it is fresh. -->"

_CONFIGURATION = """# The configuration of the service

{note}

`callboard service -c config.yml` reads YAML. Keys may be nested or dotted and the two may be mixed. `${{NAME}}`, `$NAME`, `${{NAME|default}}` and
`$NAME|default` stand for environment variables, `$$` for a dollar sign. An environment variable whose name is a dotted key, such as
`elasticsearch.password`, fills that key if the file does not. `callboard config check` says what is wrong with a file, `callboard config show`
prints what holds, with secrets masked. Keys marked with R can be changed while the service runs (SIGHUP).

{tables}"""


def pages(notes: Path) -> Iterator[tuple[str, str]]:
    """Yield each page as its path below `docs/` and its text. `notes` is the folder of the parts written by hand."""
    yield "configuration.md", configuration_page()
    from ..actors.journal.keeping import journal_page
    from ..actors.operations.metrics import metrics_page

    yield "journal.md", journal_page()
    yield "metrics.md", metrics_page()
    from ..sources.registry import service_types, source_class
    from .source import abilities

    found = []
    for info in service_types():
        source = source_class(info.service_type)
        found.append((info.service_type, info.name, abilities(source)))
        note = notes / f"{info.service_type}.md"
        yield (
            f"sources/{info.service_type}.md",
            source_page(source, note.read_text(encoding="utf-8") if note.exists() else ""),
        )
    yield "sources/index.md", sources_index(found)


def configuration_page() -> str:
    """Every key of `config.yml`, from the classes that read it."""
    from ..actors.configuration import ConnectorSettings, options

    sections: dict[str, list[str]] = {}
    listed = [*options(), *options(ConnectorSettings, "connectors[].")]
    for key, attribute, option in listed:
        section = key.rpartition(".")[0] or "top level"
        unit = f" {option.unit}" if option.unit else ""
        meaning = option.meaning + (f" Has no effect here: {option.obsolete}." if option.obsolete else "")
        mark = " R" if option.reloadable else ""
        row = f"| `{key}`{mark} | {_kind(attribute.type)} | {_default(attribute)}{unit if _has_default(attribute) else ''} | {meaning} |"
        sections.setdefault(section, []).append(row)
    head = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n"
    tables = "\n".join(f"## {name}\n\n{head}" + "\n".join(rows) + "\n" for name, rows in sections.items())
    return _CONFIGURATION.format(note=NOTE, tables=tables).rstrip() + "\n"


def source_page(source: type[Any], note: str) -> str:
    """The page of one source."""
    from ..protocol.configuration import schema_of
    from .source import abilities, example

    schema = schema_of(source.Config)
    words = (sys.modules[source.__module__].__doc__ or "").strip()
    parts = [
        f"# {source.name}",
        NOTE,
        f"Service type `{source.service_type}`.",
        words,
        "## Settings",
        _settings(schema),
    ]
    rows = "\n".join(f"| {name} | {answer} |" for name, answer in abilities(source).items())
    parts += [
        "## What it can do",
        f"| Ability | |\n|---|---|\n{rows}",
        "## Example",
        f"    {example(source.service_type, schema)}",
    ]
    if note.strip():
        parts.append(note.strip())
    return "\n\n".join(parts) + "\n"


_INDEX = """# Sources

{note}

Each page has every setting, what the source can do, what has to be done on the side of its system, and how it was tested.

{table}

What the columns mean: [sync rules](../sync-rules.md), [incremental syncs](../sync-engine.md#three-kinds),
[document-level security](../document-level-security.md), [going on](../sync-engine.md#when-a-job-is-interrupted). A system that is not here:
[write a connector](../write-a-connector.md). A source here that does not quite fit: [customise it](../building-connectors.md).
"""


def sources_index(found: Sequence[tuple[str, str, Mapping[str, str]]]) -> str:
    """The list of all sources, and what each can do."""
    columns = list(found[0][2])
    head = " | ".join(["Source", "Service type", *columns])
    rows = [
        " | ".join([f"[{name}]({service_type}.md)", f"`{service_type}`", *(can[column] for column in columns)])
        for service_type, name, can in found
    ]
    ruler = "|---" * (len(columns) + 2) + "|"
    table = "\n".join([f"| {head} |", ruler, *(f"| {row} |" for row in rows)])
    return _INDEX.format(note=NOTE, table=table)


def _settings(schema: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, entry in sorted(schema.items(), key=lambda item: item[1]["order"]):
        value = entry["value"] if entry["value"] not in (None, "") else entry["default_value"]
        first = "" if value in (None, "", []) else f"`{str(value).replace('|', chr(92) + '|')}`"
        needed = " and ".join(f"`{one['field']}` is `{one['value']}`" for one in entry["depends_on"])
        meaning = " ".join(
            part for part in (entry["label"] + ".", entry["tooltip"], f"Only if {needed}." if needed else "") if part
        )
        marks = ", ".join(
            mark for mark, holds in (("required", entry["required"]), ("secret", entry["sensitive"])) if holds
        )
        rows.append(f"| `{name}` | {entry['type']} | {first} | {marks} | {meaning} |")
    return "| Setting | Type | First value | | Meaning |\n|---|---|---|---|---|\n" + "\n".join(rows)


def _kind(kind: Any) -> str:
    text = getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)
    text = (
        text.replace("typing.", "")
        .replace("collections.abc.", "")
        .replace("pathlib._local.", "")
        .replace("pathlib.", "")
    )
    return f"`{text}`".replace("|", "\\|")


def _has_default(attribute: attrs.Attribute[Any]) -> bool:
    made_later = type(attribute.default).__name__ == "Factory"
    return not (attribute.default is attrs.NOTHING or attribute.default is None or made_later)


def _default(attribute: attrs.Attribute[Any]) -> str:
    if attribute.default is attrs.NOTHING:
        return "(must be given)"
    if not _has_default(attribute) or attribute.default == ():
        return ""
    value = attribute.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def write(folder: Path) -> None:
    """Write all pages below `folder`, which is `docs/`."""
    for name, text in pages(folder / "sources" / "notes"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
