"""The page about the node names every request it answers, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard.node.connectors import connector_api, job_api, secret_api
from callboard.node.handlers import (
    aliases,
    bulk,
    by_query,
    cluster,
    documents,
    indices,
    ingest,
    searching,
    security,
    templates,
)
from callboard.node.query import parse

PAGE = Path(__file__).parents[2] / "docs" / "node.md"
FAMILIES = {
    "The node itself": cluster,
    "Indices": indices,
    "Aliases": aliases,
    "Templates": templates,
    "Documents": documents,
    "Bulk": bulk,
    "Search": searching,
    "By query": by_query,
    "Pipelines": ingest,
    "Security": security,
    "Connectors": connector_api,
    "Sync jobs": job_api,
    "Secrets": secret_api,
}


def table() -> str:
    lines = ["| Family | Request | Methods |", "|---|---|---|"]
    for family, module in FAMILIES.items():
        methods: dict[str, list[str]] = {}
        for route in module.ROUTES:
            methods.setdefault(route.template, []).append(route.method)
        lines += [f"| {family} | `{path}` | {', '.join(sorted(found))} |" for path, found in methods.items()]
    return "\n".join(lines)


def test_the_table_of_requests_is_fresh():
    expected = table()
    if expected not in PAGE.read_text():
        pytest.fail(
            f"docs/node.md does not hold this table; put it under `## Requests`:\n\n{expected}\n", pytrace=False
        )


def test_every_query_is_named():
    page = PAGE.read_text()
    assert [name for name in parse._READERS if f"`{name}`" not in page] == []
