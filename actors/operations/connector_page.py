"""The page of one connector: what it does, how it is set up, how its syncs went, and what failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from ...protocol import Connector, JobType, SyncJob
from ...protocol.configuration import masked
from ...protocol.documents import Rules
from ...protocol.pausing import pause_of
from ..journal import Line
from .layout import Parts, Rendered, button, empty, panel, trouble
from .markup import Child, Markup, element, foreign, joined
from .overview_page import state_of
from .throughput import sparkline
from .words import KINDS, chip, connector_path, count, job_path, lasted, moment, speed

LETTERS_SHOWN = 50
VALUE_LENGTH_MAX = 400


@attrs.frozen(kw_only=True)
class ConnectorFacts:
    """Everything the page shows. A sentence in place of a fact says why it could not be had."""

    connector: Connector
    seen: Mapping[str, Any] | None
    """What `view.connector_view` sees, if this service looks after it."""
    rates: Sequence[float] = ()
    history: Sequence[SyncJob] | str = ()
    errors: Sequence[Line] | str = ()
    letters: Sequence[Mapping[str, Any]] | str = ()
    letters_total: int = 0


def connector_page(facts: ConnectorFacts, now: datetime) -> Rendered:
    """Render one connector."""
    parts = Parts()
    connector = facts.connector
    name = connector.name or connector.id
    state = state_of(facts.seen) if facts.seen is not None else "unconfigured"
    where = " · ".join(one for one in (connector.service_type or "no source yet", connector.index_name) if one)
    running = list((facts.seen or {}).get("running", ()))
    head = element(
        "section",
        element("p", element("a", "Connectors", href="/"), class_="crumbs"),
        element("h1", foreign(name)),
        element("p", foreign(where), class_="quiet"),
        element("p", foreign(connector.description), class_="quiet") if connector.description else None,
        parts.live("state", _state(facts, state, now), tag="p", class_="facts"),
        parts.live("buttons", _buttons(connector, running), class_="row", mark=_mark(connector, running)),
        class_="lead",
    )
    why = (facts.seen or {}).get("why") or connector.error
    body = joined(
        head,
        parts.live("pause", _pause(connector)),
        parts.live(
            "trouble",
            _trouble(connector, why) if why else None,
        ),
        parts.live("history", _history(facts.history, now)),
        parts.live("letters", _letters(facts, now), mark=str([facts.letters_total, facts.letters])),
        parts.live("errors", _errors(facts.errors, now)),
        parts.live("schedule", _schedule(facts, now), mark=repr(connector.scheduling)),
        _configuration(connector),
        _rules(connector),
    )
    return Rendered(name, body, parts, "connector")


def _mark(connector: Connector, running: Sequence[str]) -> str:
    return (
        f"{sorted(running)} {connector.scheduling!r} {connector.status} {connector.features!r} {connector.callboard!r}"
    )


def _trouble(connector: Connector, why: str) -> Markup:
    return panel(
        "What is wrong",
        element("p", foreign(why), class_="error"),
        element(
            "p",
            "It is asked again by itself. Change its settings with ",
            element("code", f"callboard connector edit {connector.id}"),
            ", or ask at once with ",
            element("code", f"callboard connector check {connector.id}"),
            ".",
            class_="quiet",
        ),
        id_="trouble",
    )


def _pause(connector: Connector) -> Markup | None:
    pause = pause_of(connector)
    if pause is None:
        return None
    return panel(
        "Paused",
        element("p", foreign(f"It is {pause}.")),
        element(
            "p",
            "No service syncs it until somebody resumes it: schedules make no jobs, and jobs that are asked for wait.",
            class_="quiet",
        ),
        id_="paused",
        class_="urgent",
    )


def _state(facts: ConnectorFacts, state: str, now: datetime) -> list[Child]:
    said: list[Child] = [chip(state)]
    if facts.seen is None:
        said += [" ", element("span", "This service does not look after it.", class_="quiet")]
    rate = sum(facts.rates[-5:]) / max(1, len(facts.rates[-5:]))
    if any(facts.rates):
        said += [" ", element("span", sparkline(facts.rates), element("strong", speed(rate)), class_="speed")]
    said += [" · last sync ", moment(facts.connector.last_synced, now)]
    if pause_of(connector := facts.connector) is not None and connector.is_schedulable:
        return [*said, " · next once resumed"]
    following = (facts.seen or {}).get("next_sync")
    said += [" · next ", moment(datetime.fromisoformat(following) if following else None, now, missing="not scheduled")]
    return said


def possible(connector: Connector, job_type: JobType) -> bool:
    """Whether the source can do such a sync, as far as its features are known."""
    features = connector.features
    if features is None or job_type is JobType.FULL:
        return job_type is JobType.FULL
    if job_type is JobType.INCREMENTAL:
        return features.incremental_sync_enabled
    return features.document_level_security_enabled


def _buttons(connector: Connector, running: Sequence[str]) -> list[Child]:
    made: list[Child] = [
        element("a", "See it run", href=job_path(job_id), class_="button first") for job_id in running[:3]
    ]
    if connector.is_schedulable and connector.index_name:
        for job_type in (one for one in JobType if possible(connector, one)):
            look = "first" if job_type is JobType.FULL and not running and pause_of(connector) is None else ""
            said = f"Start {'a full sync' if job_type is JobType.FULL else f'{KINDS[job_type.value].lower()} sync'}"
            made.append(button(connector_path(connector.id, "start"), said, look=look, type=job_type.value))
    if pause_of(connector) is not None:
        made.insert(0, button(connector_path(connector.id, "resume"), "Resume", look="first"))
    elif made:
        made.append(button(connector_path(connector.id, "pause"), "Pause"))
    if not made:
        made.append(
            element(
                "p",
                "It has to be configured before it can sync: ",
                element("code", f"callboard connector edit {connector.id}"),
                class_="quiet",
            )
        )
    return made


def _history(history: Sequence[SyncJob] | str, now: datetime) -> Markup:
    if isinstance(history, str):
        return panel("History", trouble(history), id_="history")
    if not history:
        return panel("History", empty("It has never been synced."), id_="history")
    names = ("Job", "Result", "Began", "Took", "Indexed", "Deleted")
    rows = [
        element(
            "tr",
            element(
                "th",
                element("a", KINDS.get(job.job_type.value, job.job_type.value), href=job_path(job.id)),
                scope="row",
            ),
            element(
                "td",
                chip(job.status.value),
                element("span", foreign(job.error), class_="sub why") if job.error else None,
                data_label="Result",
            ),
            element("td", moment(job.started_at or job.created_at, now), data_label="Began"),
            element("td", lasted(job.started_at, job.completed_at or job.canceled_at), data_label="Took"),
            element("td", count(job.indexed_document_count), data_label="Indexed", class_="number"),
            element("td", count(job.deleted_document_count), data_label="Deleted", class_="number"),
        )
        for job in history
    ]
    head = element("tr", [element("th", name, scope="col") for name in names])
    caption = element("caption", "The latest jobs, newest first", class_="unseen")
    return panel("History", element("table", caption, element("thead", head), element("tbody", rows)), id_="history")


def _letters(facts: ConnectorFacts, now: datetime) -> Markup:
    title, id_ = "Dead letters", "dead-letters"
    if isinstance(facts.letters, str):
        return panel(title, trouble(facts.letters), id_=id_)
    if not facts.letters:
        return panel(title, empty("No document has failed."), id_=id_)
    names = ("Document", "Failed in", "Why", "Last seen", "Times")
    rows = [
        element(
            "tr",
            element(
                "th",
                foreign(one.get("what") or one.get("document_id") or ""),
                element("span", "will be tried again", class_="sub") if one.get("replay") else None,
                scope="row",
            ),
            element("td", foreign(one.get("where") or ""), data_label="Failed in"),
            element("td", foreign(one.get("why") or ""), data_label="Why", class_="why"),
            element("td", moment(_read(one.get("last_seen")), now), data_label="Last seen"),
            element("td", str(one.get("times") or 1), data_label="Times", class_="number"),
        )
        for one in facts.letters
    ]
    more = facts.letters_total - len(facts.letters)
    head = element("tr", [element("th", name, scope="col") for name in names])
    caption = element("caption", "Documents that could not be read, extracted or indexed", class_="unseen")
    return panel(
        f"{title} ({facts.letters_total:,})",
        element("table", caption, element("thead", head), element("tbody", rows)),
        element(
            "p",
            f"and {more:,} more: ",
            element("code", f"callboard dead-letters list --index {facts.connector.index_name}"),
            class_="quiet",
        )
        if more > 0
        else None,
        aside=button(connector_path(facts.connector.id, "replay"), "Try all again"),
        id_=id_,
    )


def _errors(errors: Sequence[Line] | str, now: datetime) -> Markup:
    if isinstance(errors, str):
        return panel("Warnings and errors", trouble(errors), id_="errors")
    if not errors:
        return panel("Warnings and errors", empty("None are known. The journal keeps them for a while."), id_="errors")
    lines = [
        element("li", moment(line.at, now), element("span", foreign(line.text)), class_=line.level)
        for line in reversed(errors)
    ]
    return panel("Warnings and errors", element("ol", lines, class_="story"), id_="errors")


def _schedule(facts: ConnectorFacts, now: datetime) -> Markup:
    connector = facts.connector
    rows = []
    for job_type in JobType:
        schedule = connector.scheduling.of(job_type)
        kind = KINDS[job_type.value]
        said, wanted = ("Switch off", "off") if schedule.enabled else ("Switch on", "on")
        change = (
            button(
                connector_path(connector.id, "schedule"),
                said,
                label=f"{said} the {kind.lower()} schedule",
                type=job_type.value,
                turn=wanted,
            )
            if schedule.enabled or possible(connector, job_type)
            else element("span", "The source cannot do this.", class_="quiet")
        )
        rows.append(
            element(
                "tr",
                element("th", kind, scope="row"),
                element("td", "On" if schedule.enabled else "Off", data_label="State"),
                element("td", element("code", foreign(schedule.interval)), data_label="Cron"),
                element("td", change, data_label=""),
            )
        )
    head = element("tr", [element("th", name, scope="col") for name in ("Kind", "State", "Cron", "Change")])
    why = None if pause_of(connector) is not None else (facts.seen or {}).get("why_not_scheduled")
    caption = element("caption", "Schedules of the kinds of sync", class_="unseen")
    return panel(
        "Schedule",
        trouble(foreign(why)) if why else None,
        element("table", caption, element("thead", head), element("tbody", rows)),
        id_="schedule",
    )


def _configuration(connector: Connector) -> Markup:
    shown = masked(connector.configuration)
    if not shown:
        return panel("Configuration", empty("No settings yet."), id_="configuration")
    rows = []
    for name, entry in shown.items():
        label = entry.get("label") if isinstance(entry, Mapping) else None
        value = entry.get("value") if isinstance(entry, Mapping) else entry
        rows.append(element("div", element("dt", foreign(label or name)), element("dd", _value(value))))
    return panel(
        "Configuration",
        element("dl", rows, class_="details"),
        element(
            "p",
            "Change it with ",
            element("code", f"callboard connector edit {connector.id}"),
            ". Secrets are never shown.",
            class_="quiet",
        ),
        id_="configuration",
    )


def _value(value: Any) -> Markup:
    if value is None or value in ("", [], {}):
        return element("span", "empty", class_="quiet")
    if isinstance(value, bool):
        return element("span", "yes" if value else "no")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = text if len(text) <= VALUE_LENGTH_MAX else f"{text[:VALUE_LENGTH_MAX]} …"
    return element("code", foreign(cut))


def _rules(connector: Connector) -> Markup:
    rules = connector.rules
    draft: Child = None
    if (
        rules.draft.rules != rules.active.rules
        or rules.draft.advanced_snippet.value != rules.active.advanced_snippet.value
    ):
        messages = [message for error in rules.draft.validation.errors for message in error.messages]
        draft = [
            element("h3", f"Draft ({rules.draft.validation.state.value})"),
            element("ul", [element("li", foreign(one)) for one in messages], class_="trouble") if messages else None,
            _rule_set(rules.draft),
        ]
    return panel("Sync rules", _rule_set(rules.active), draft, id_="rules")


def _rule_set(rules: Rules) -> Markup:
    own = [rule for rule in rules.rules if not rule.is_default]
    made: list[Child] = []
    if own:
        lines = [
            element(
                "li",
                element("strong", foreign(rule.policy)),
                " where ",
                element("code", foreign(rule.field)),
                " ",
                foreign(rule.rule),
                " ",
                element("code", foreign(rule.value)),
            )
            for rule in own
        ]
        made.append(element("ol", lines, class_="rules"))
    if rules.has_advanced:
        made += [
            element("h3", "For the source"),
            element("pre", json.dumps(rules.advanced_snippet.value, indent=2, ensure_ascii=False)),
        ]
    return joined(made) if made else empty("Everything is taken; no rule leaves anything out.")


def _read(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
