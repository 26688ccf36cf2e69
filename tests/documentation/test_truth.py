"""What the pages say is true: their commands, keys, metrics and quoted errors exist in the product, and every page can be found."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import yaml

from callboard.actors.configuration import Settings, read_mapping
from callboard.actors.configuration.settings import options
from callboard.actors.journal import KINDS
from callboard.actors.operations import METRICS
from callboard.cli.main import callboard as root
from callboard.protocol.versions import PROTOCOL_VERSION, compare

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PRODUCT = ("runtime", "protocol", "sources", "actors", "node", "cli")
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "SECURITY.md", ROOT / "README.md"])
TROUBLE = sorted((DOCS / "troubleshooting").glob("*.md"))
KEY_BEFORE = re.compile(r"^[a-z_]+(\.[a-z_]+)+: ")
"""Complaints about a configuration begin with the key."""
SKIPPED = re.compile(r"<!-- not run: [^>]+ -->\n")
FIELDS = {"callboard.paused"}
"""What pages name that looks like a key and is a field of documents."""
LITERAL_LETTERS_MIN = 12
LITERAL_SHARE_MIN = 0.2
"""A quoted line is found if a text of the product matches it whole, and is not mostly made of what is filled in."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language, without those that say why they are not run."""
    text = re.sub(SKIPPED.pattern + r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


# Every page can be found


def test_every_page_can_be_reached_from_the_index() -> None:
    found, todo = {DOCS / "index.md"}, [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            if linked not in found and linked.exists():
                found.add(linked)
                todo.append(linked)
    every = {page for page in DOCS.rglob("*.md") if "notes" not in page.parts}
    assert {name_of(page) for page in every - found} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_places_in_a_page_lead_there(page: Path) -> None:
    for target, place in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = ((page.parent / target) if target else page).read_text(encoding="utf-8")
        headings = [
            re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-")
            for one in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        ]
        assert place in headings, f"{target}#{place}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_the_checkout_that_a_page_names_exists(page: Path) -> None:
    tops = "actors|bench|cli|deploy|docs|node|protocol|runtime|sources|tests"
    named = re.findall(rf"`((?:{tops})/[\w./-]+)`", prose(page))
    made = ("deploy/secrets",)
    assert [one for one in named if not one.startswith(made) and not (ROOT / one).exists()] == []


# Commands


def judge(words: list[str]) -> str | None:
    """What is wrong with a command line, if anything."""
    command: click.Command = root
    context = click.Context(root, info_name="callboard")
    while isinstance(command, click.Group):
        while words and words[0] in ("-c", "--config", "--profile"):
            words = words[2:]
        if not words or words[0].startswith("-"):
            return None
        found = command.get_command(context, words[0])
        if found is None:
            return f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    named = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [
        word
        for word in words
        if re.match(r"-{1,2}[a-z]", word) and word.partition("=")[0] not in named | {"--help", "-h"}
    ]
    return f"has no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"`(callboard [a-z-]+[^`\n]*)`", text)
    found += re.findall(r"^(?: {4,}|\$ )?((?:docker compose .* )?callboard [a-z-]+ .*)$", text, re.MULTILINE)
    for line in found:
        words = re.sub(r'"[^"]*"|\'[^\']*\'', "words", line.partition(" #")[0]).split()
        # In a container the name comes twice: that of the service, and that of the command.
        words = (
            words[len(words) - words[::-1].index("callboard") :] if words[:2] == ["docker", "compose"] else words[1:]
        )
        for mark in (";", "|", "||", "&&", ">", "..."):
            words = words[: words.index(mark)] if mark in words else words
        words = [word.rstrip(";,") for word in words]
        if words and re.fullmatch(r"[a-z-]+", words[0]) and "[OPTIONS]" not in words:
            assert judge(words) is None, f"{line}: {judge(words)}"


def product_texts() -> Iterator[tuple[Path, str, re.Pattern[str], int]]:
    """Every text of the product: where, its fixed letters, a pattern in which anything may be filled in, how many are fixed."""
    for folder in PRODUCT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                parts: list[str | None]
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    parts = [node.value]
                elif isinstance(node, ast.JoinedStr):
                    parts = [one.value if isinstance(one, ast.Constant) else None for one in node.values]  # type: ignore[misc]
                else:
                    continue
                fixed = "".join(part for part in parts if part is not None)
                if len(re.sub(r"\W", "", fixed)) < LITERAL_LETTERS_MIN:
                    continue
                pattern = "".join(".*" if part is None else re.escape(part.strip("\n")) for part in parts)
                yield path, fixed, re.compile(pattern), len(fixed)


@cache
def patterns() -> tuple[tuple[re.Pattern[str], int], ...]:
    return tuple((pattern, count) for _, _, pattern, count in product_texts())


def is_said(line: str) -> bool:
    return any(count >= LITERAL_SHARE_MIN * len(line) and pattern.fullmatch(line) for pattern, count in patterns())


def test_every_page_that_the_product_points_to_exists() -> None:
    pointed = {found for _, fixed, _, _ in product_texts() for found in re.findall(r"\bdocs/[a-z/._-]+\.md", fixed)}
    assert "docs/configuration.md" in pointed
    assert {one for one in pointed if not (ROOT / one).exists()} == set()


def test_every_command_that_the_product_suggests_exists() -> None:
    wrong = []
    for path, fixed, _, _ in product_texts():
        for line in re.findall(r"`callboard ([a-z-]+(?: [a-z-]+)*)", fixed):
            words = line.split()
            problem = judge(words[:2])
            if problem is not None:
                wrong.append(f"{path.name}: callboard {line}: {problem}")
    assert wrong == []


# Keys, metrics, events


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_key_and_metric_of_a_page_exists(page: Path) -> None:
    keys = {name for name, _, _ in options()}
    keys |= {name.rpartition(".")[0] for name in keys} | {"connectors[].connector_id"}
    text = page.read_text(encoding="utf-8")
    for key in set(
        re.findall(
            r"`((?:callboard|elasticsearch|service|extraction_service)\.[a-z_.]+[a-z_])(?:\.\*)?(?:: [^`]*)?`", text
        )
    ):
        assert key in keys or key in FIELDS or is_module(key), f"`{key}`"
    served = {metric.name for metric in METRICS}
    families = "|".join(sorted({name.split("_")[1] for name in served}))
    for name in set(re.findall(rf"\bcallboard_(?:{families})_[a-z_]+", text)):
        assert re.sub(r"_(bucket|sum|count)$", "", name) in served, name


def is_module(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        try:
            if importlib.util.find_spec(".".join(parts[:length])) is not None:
                return True
        except ModuleNotFoundError:
            continue
    return hasattr(sys.modules["callboard"], parts[1])


ABOUT_FAULTS = ("fault-injection.md", "simulation.md", "testing-connectors.md")
"""Their YAML is about faults, and tests of their own read it."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "yaml") and page.name not in ABOUT_FAULTS], ids=name_of
)
def test_configurations_of_a_page_can_be_used(page: Path) -> None:
    for block in blocks(page, "yaml"):
        names = dict.fromkeys(re.findall(r"\$\{(\w+)", block), "filled in, and long enough")
        content = yaml.safe_load(block)
        content.setdefault("connectors", [{"connector_id": "one"}])
        result = read_mapping(content, names)
        assert result.warnings == ()
        assert isinstance(result.settings, Settings)


# Error lines


@pytest.mark.parametrize("page", TROUBLE, ids=name_of)
def test_every_line_that_a_page_quotes_is_said_by_the_product(page: Path) -> None:
    for block in blocks(page, "text"):
        for line in block.splitlines():
            said = line.strip().removeprefix("Error: ")
            assert not said or is_said(said) or is_said(KEY_BEFORE.sub("", said)), (
                f"nothing in the product says: {said}"
            )


def test_a_line_that_nobody_says_is_found_out() -> None:
    assert is_said("http://localhost:9200 refuses connections. Is Elasticsearch running there?")
    assert not is_said("http://localhost:9200 declines connections. Is Elasticsearch running there?")


def test_every_trouble_page_says_how_it_is_seen_and_what_to_do() -> None:
    pages = [page for page in TROUBLE if page.name != "index.md"]
    assert len(pages) >= 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "## What you see" in text, page.name
        assert "## What to do" in text, page.name
        assert blocks(page, "text"), page.name


def test_every_event_that_pages_name_exists() -> None:
    kinds = {event.kind for event in KINDS.values()}
    for page in TROUBLE:
        for kind in re.findall(r"the event `([a-z_]+)`", page.read_text(encoding="utf-8")):
            assert kind in kinds, f"{page.name}: {kind}"


def test_the_version_table_is_what_the_service_does() -> None:
    page = (DOCS / "upgrading.md").read_text(encoding="utf-8")
    assert f"Connector Protocol of {PROTOCOL_VERSION}." in page
    rows = dict(re.findall(r"^\| (\S+\.\S+(?: \S+ \S+)?) \| (\w+)", page, re.MULTILINE))
    asked = {"8.x": "8.19.0", "9.0 to 9.4": "9.4.9", "9.5": "9.5.3", "9.6 and later": "9.6.0", "10.x": "10.0.0"}
    assert rows.keys() == asked.keys()
    for row, version in asked.items():
        assert rows[row] == ("refused" if compare(PROTOCOL_VERSION, version).is_refusal else "works"), row


def test_alerts_count_events_that_are_told() -> None:
    kinds = {event.kind for event in KINDS.values()}
    named = re.findall(r'kind="(\w+)"', (DOCS / "production.md").read_text(encoding="utf-8"))
    assert named
    assert set(named) <= kinds


def test_the_role_that_pages_name_is_the_one_that_is_needed() -> None:
    page = re.sub(r"\s+", " ", (DOCS / "production.md").read_text(encoding="utf-8"))
    role = json.loads((ROOT / "deploy" / "callboard-role.json").read_text(encoding="utf-8"))
    for name in (*role["cluster"], *(one for index in role["indices"] for one in index["privileges"])):
        assert f"`{name}`" in page, name


# Shell blocks


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "shell")], ids=name_of)
def test_the_shell_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """In order, in an empty folder that is also the home, with nothing but Callboard on the path."""
    bash = shutil.which("bash")
    assert bash is not None
    script = "\n".join(blocks(page, "shell"))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }
    done = subprocess.run(
        [bash, "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"^<!-- prints: (.*) -->$", text, re.MULTILINE):
        assert line in done.stdout + done.stderr, f"{line!r} is not in\n{done.stdout}{done.stderr}"
