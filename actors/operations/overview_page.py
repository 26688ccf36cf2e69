"""The page of all connectors: what needs somebody, what runs, and everything else, to be filtered."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .layout import Parts, Rendered, empty, panel
from .markup import Markup, element, foreign, joined
from .throughput import Throughput, sparkline
from .words import KINDS, chip, connector_path, count, job_path, moment, pace, speed

SHOWN_MAX = 1_000
JOBS_SHOWN = 12
ORDER = {"failing": 0, "syncing": 1, "paused": 3, "unconfigured": 4}
FILTERS = (
    ("", "All"),
    ("failing", "Needs attention"),
    ("syncing", "Syncing"),
    ("ok", "Healthy"),
    ("paused", "Paused"),
    ("unconfigured", "Not set up"),
)


def overview_page(
    seen: Mapping[str, Any], speeds: Throughput, now: datetime, *, text: str = "", state: str = ""
) -> Rendered:
    """Render what `view.overview` saw. `text` and `state` filter, for browsers without scripts and for links."""
    parts = Parts()
    connectors = sorted(
        seen["connectors"], key=lambda one: (ORDER.get(state_of(one), 2), (one["name"] or one["id"]).lower())
    )
    states = Counter(state_of(one) for one in connectors)
    wanted = [one for one in connectors if _fits(one, text, state)]
    running = sum(speeds.lately(one["id"]) for one in connectors)
    head = element(
        "section",
        parts.live("headline", _headline(len(connectors), states), tag="h1"),
        parts.live("facts", _facts(seen, len(connectors), running), tag="p", class_="facts"),
        class_="lead",
    )
    jobs = parts.live("jobs", _jobs(seen["jobs"], seen["waiting"], speeds, connectors))
    if not connectors:
        board = empty(
            "Nothing on the board yet.",
            element(
                "p",
                "Make a connector, and name it under ",
                element("code", "connectors"),
                " in the service's configuration:",
            ),
            element("pre", "callboard connector create"),
        )
        return Rendered("Connectors", joined(head, jobs, board, _shape(parts, "empty")), parts, "overview")
    rows = [_row(parts, one, speeds, now) for one in wanted[:SHOWN_MAX]]
    order = " ".join(f"{_key(one)}:{state_of(one)}" for one in wanted[:SHOWN_MAX])
    table = element(
        "table",
        element("caption", "All connectors of this service", class_="unseen"),
        element(
            "thead",
            element(
                "tr",
                [
                    element("th", name, scope="col")
                    for name in ("Connector", "Health", "Last sync", "Next sync", "Documents")
                ],
            ),
        ),
        parts.live("rows", rows, tag="tbody", mark=order),
        class_="board",
    )
    shape = _shape(parts, "board")
    # Parts in rows were made before the part that holds them: they come behind it, and lie within it.
    parts.contents = {
        **{key: one for key, one in parts.contents.items() if one[2] is None},
        **{key: one for key, one in parts.contents.items() if one[2] is not None},
    }
    more = len(wanted) - SHOWN_MAX
    board = panel(
        "Connectors",
        _filters(states, len(connectors), text, state),
        table,
        element(
            "div",
            element("p", "No connector fits."),
            element("p", element("a", "Show all", href="/", data_clear=True, class_="button")),
            class_="empty",
            hidden=bool(wanted),
            data_none=True,
        ),
        element("p", f"{more:,} more connectors fit. Filter to see them.", class_="quiet") if more > 0 else None,
        id_="connectors",
    )
    return Rendered("Connectors", joined(head, jobs, board, shape), parts, "overview")


def _shape(parts: Parts, name: str) -> Markup:
    """Tells an open page to load itself again once it would be made of other parts."""
    return parts.live("shape", name, tag="span", hidden=True, data_shape=True)


def state_of(one: Mapping[str, Any]) -> str:
    """What of a connector matters most."""
    is_quiet = one["health"] in ("failing", "paused")
    return "syncing" if one["running"] and not is_quiet else str(one["health"])


def _fits(one: Mapping[str, Any], text: str, state: str) -> bool:
    return (not state or state_of(one) == state) and text.lower() in _searched(one)


def _searched(one: Mapping[str, Any]) -> str:
    return " ".join(str(one[name] or "") for name in ("name", "id", "service_type", "index")).lower()


def _key(one: Mapping[str, Any]) -> str:
    return hashlib.blake2b(str(one["id"]).encode("utf-8", "replace"), digest_size=6).hexdigest()


def _headline(total: int, states: Mapping[str, int]) -> str:
    failing, syncing = states.get("failing", 0), states.get("syncing", 0)
    if not total:
        return "The stage is empty"
    if failing:
        return f"{failing:,} connector{'s need' if failing != 1 else ' needs'} attention"
    return "All is well" if not syncing else f"All is well, {syncing:,} at work"


def _facts(seen: Mapping[str, Any], total: int, rate: float) -> str:
    jobs, waiting = len(seen["jobs"]), len(seen["waiting"])
    said = [f"{total:,} connector{'s' if total != 1 else ''}", f"{jobs:,} job{'s' if jobs != 1 else ''} running"]
    if jobs:
        said.append(f"{pace(rate)} documents/s")
    if waiting:
        said.append(f"{waiting:,} waiting")
    return " · ".join(said)


def _jobs(jobs: Sequence[Any], waiting: Sequence[Any], speeds: Throughput, connectors: Sequence[Any]) -> Markup | None:
    if not jobs and not waiting:
        return None
    names = {one["id"]: one["name"] or one["id"] for one in connectors}
    cards = [_card(job, names, speeds) for job in jobs[:JOBS_SHOWN]]
    more = len(jobs) - JOBS_SHOWN
    waits = [
        element(
            "li",
            element("a", foreign(names.get(one["connector_id"], one["connector_id"])), href=job_path(one["id"])),
            " ",
            element("span", one["why"], class_="quiet"),
        )
        for one in waiting[:JOBS_SHOWN]
    ]
    return panel(
        "Now",
        element("ul", cards, class_="cards") if cards else None,
        element("p", f"and {more:,} more", class_="quiet") if more > 0 else None,
        element("h3", "Waiting") if waits else None,
        element("ul", waits, class_="waits") if waits else None,
        id_="now",
    )


def _card(job: Mapping[str, Any], names: Mapping[str, str], speeds: Throughput) -> Markup:
    at = job["progress"] or {}
    facts = [f"{count(at.get('listed', 0))} read", f"{count(at.get('indexed', 0))} indexed"]
    if at.get("failed"):
        facts.append(f"{count(at['failed'])} failed")
    connector_id = job["connector_id"]
    return element(
        "li",
        element("a", foreign(names.get(connector_id, connector_id)), href=job_path(job["id"])),
        element("span", KINDS.get(job["job_type"], job["job_type"]), class_="kind"),
        element("span", " · ".join(facts), class_="numbers"),
        element(
            "span",
            sparkline(speeds.of(connector_id)),
            element("span", speed(speeds.lately(connector_id))),
            class_="speed",
        ),
        class_="card",
    )


def _row(parts: Parts, one: Mapping[str, Any], speeds: Throughput, now: datetime) -> Markup:
    key, state = _key(one), state_of(one)
    where = [str(one["service_type"] or "no source yet"), *([str(one["index"])] if one["index"] else [])]
    name = element(
        "th",
        element("a", foreign(one["name"] or one["id"]), href=connector_path(one["id"])),
        element("span", foreign(" · ".join(where)), class_="sub"),
        scope="row",
    )
    why = element("span", foreign(one["why"]), class_="sub why") if one["why"] and state == "failing" else None
    if one["paused"]:
        why = element("span", foreign(str(one["paused"]).removeprefix("paused ")), class_="sub")
    last = [moment(_read(one["last_synced"]), now), _last(one["last_sync_status"])]
    following = _next(one, now)
    rates = speeds.of(one["id"])
    busy = (
        [sparkline(rates), element("span", speed(speeds.lately(one["id"])))]
        if any(rates)
        else element("span", "–", class_="quiet")
    )
    return element(
        "tr",
        name,
        parts.live(f"{key}-h", [chip(state), why], tag="td", within="rows", data_label="Health"),
        parts.live(f"{key}-l", last, tag="td", within="rows", data_label="Last sync"),
        parts.live(f"{key}-n", following, tag="td", within="rows", data_label="Next sync"),
        parts.live(f"{key}-s", busy, tag="td", within="rows", data_label="Documents", class_="speed"),
        data_search=_searched(one),
        data_state=state,
        id=f"c-{key}",
    )


def _last(status: str | None) -> Markup | None:
    if status is None or status in ("completed", "in_progress"):
        return None
    return element("span", " ", chip(status), class_="sub")


def _next(one: Mapping[str, Any], now: datetime) -> Markup:
    if one["paused"]:
        return element("span", "once resumed", class_="quiet")
    if one["why_not_scheduled"]:
        return element("span", foreign(one["why_not_scheduled"]), class_="sub why")
    return moment(_read(one["next_sync"]), now, missing="not scheduled")


def _read(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _filters(states: Mapping[str, int], total: int, text: str, state: str) -> Markup:
    counts = {"": total, **states}
    chosen = [
        element(
            "label",
            element("input", type="radio", name="state", value=value, checked=value == state),
            element(
                "span",
                name,
                " ",
                element("span", count(counts.get(value, 0)), class_="count", data_count=value or "all"),
            ),
            class_="choice",
        )
        for value, name in FILTERS
    ]
    return element(
        "form",
        element("label", "Filter by name, source or index", for_="filter", class_="unseen"),
        element(
            "input",
            type="search",
            name="text",
            id="filter",
            value=text,
            placeholder="Filter by name, source or index",
            autocomplete="off",
        ),
        element("fieldset", element("legend", "Health", class_="unseen"), chosen, class_="choices"),
        element("noscript", element("button", "Filter")),
        element("p", class_="unseen", aria_live="polite", data_told=True),
        method="get",
        action="/",
        role="search",
        class_="filters",
        data_filter=True,
    )
