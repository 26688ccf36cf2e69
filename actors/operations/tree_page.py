"""The page of all actors: who runs, how much waits for them, and who was started again."""

from __future__ import annotations

from collections.abc import Iterator

from ...runtime import TreeNode
from ..journal.words import span
from .layout import Parts, Rendered, panel
from .markup import Markup, element, foreign, joined
from .words import chip, count

ROWS_MAX = 2_000
DEPTH_SHOWN = 8


def tree_page(tree: TreeNode) -> Rendered:
    """Render the live tree."""
    parts = Parts()
    nodes = list(_walk(tree, 0))
    restarts = sum(node.restarts for node, _ in nodes)
    waiting = sum(node.waiting for node, _ in nodes)
    facts = f"{len(nodes):,} actors · {waiting:,} messages waiting · {restarts:,} restart{'s' if restarts != 1 else ''}"
    head = element(
        "section", element("h1", "Actors"), parts.live("facts", facts, tag="p", class_="facts"), class_="lead"
    )
    names = ("Actor", "State", "Mailbox", "Handled", "Busy", "Restarts")
    rows = parts.live("rows", [_row(node, depth) for node, depth in nodes[:ROWS_MAX]], tag="tbody")
    table = element(
        "table",
        element("caption", "All actors, each below the one that looks after it", class_="unseen"),
        element("thead", element("tr", [element("th", name, scope="col") for name in names])),
        rows,
        class_="tree",
    )
    more = len(nodes) - ROWS_MAX
    return Rendered(
        "Actors",
        joined(
            head,
            panel(
                "Who looks after whom",
                element("div", table, class_="wide", tabindex="0", role="region", aria_label="Table of actors"),
                element("p", f"{more:,} more are in ", element("a", "the facts as JSON", href="/tree"), ".")
                if more > 0
                else None,
                id_="tree",
            ),
        ),
        parts,
        "actors",
    )


def _walk(node: TreeNode, depth: int) -> Iterator[tuple[TreeNode, int]]:
    for child in node.children:
        yield child, depth
        yield from _walk(child, depth + 1)


def _row(node: TreeNode, depth: int) -> Markup:
    mailbox = (
        f"{count(node.waiting)} now, {count(node.waiting_peak)} at most" if node.waiting_peak or node.waiting else "–"
    )
    restarted = element("span", count(node.restarts), class_="bad" if node.restarts else "quiet")
    return element(
        "tr",
        element(
            "th",
            foreign(node.name),
            element("span", node.kind.lstrip("_"), class_="kind"),
            element("span", foreign(node.last_error), class_="sub why") if node.last_error else None,
            scope="row",
            class_=f"d{min(depth, DEPTH_SHOWN)}",
            aria_label=f"{node.name}, level {depth + 1}",
        ),
        element("td", chip(node.state), data_label="State"),
        element("td", mailbox, data_label="Mailbox", data_empty=mailbox == "–"),
        element(
            "td", count(node.processed) if node.processed else "–", data_label="Handled", data_empty=not node.processed
        ),
        element(
            "td",
            span(round(node.busy_s, 1)) if node.busy_s >= 0.05 else "–",
            data_label="Busy",
            data_empty=node.busy_s < 0.05,
        ),
        element("td", restarted, data_label="Restarts", data_empty=not node.restarts),
    )
