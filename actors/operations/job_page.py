"""The page of one job: where it stands, what limits it, what happened, and what waits for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from ...protocol import SyncJob
from ..journal import Line
from .layout import Parts, Rendered, button, empty, panel, question, trouble
from .markup import Child, Markup, element, foreign, joined
from .throughput import sparkline
from .words import KINDS, chip, connector_path, count, job_path, lasted, moment, pace, volume

STORY_SHOWN = 400
STAGES = (("source", "Source"), ("downloads", "Downloads"), ("elasticsearch", "Elasticsearch"))
LIMITS = {
    "source": "The source sets the pace: documents come more slowly than they could be written.",
    "downloads": "Downloads set the pace: files are fetched and read more slowly than the source lists them.",
    "elasticsearch": "Elasticsearch sets the pace: documents wait to be written.",
}


@attrs.frozen(kw_only=True)
class Held:
    """Deletions that wait for a person."""

    count: int
    examples: Sequence[str] = ()


@attrs.frozen(kw_only=True)
class JobFacts:
    """Everything the page shows. A sentence in place of a fact says why it could not be had."""

    job: SyncJob
    name: str
    """The connector's."""
    live: Mapping[str, Any] | None
    """What `view.job_view` sees, while the job runs in this process."""
    rates: Sequence[float] = ()
    story: Sequence[Line] | str = ()
    held: Held | str | None = None
    letters: int | str = 0
    waits: str | None = None
    is_paused: bool = False
    worker: str = ""


def job_page(facts: JobFacts, now: datetime) -> Rendered:
    """Render one job."""
    parts = Parts()
    job = facts.job
    state = "paused" if facts.is_paused and not job.status.is_terminal else job.status.value
    head = element(
        "section",
        element(
            "p",
            element("a", "Connectors", href="/"),
            " / ",
            element("a", foreign(facts.name), href=connector_path(job.connector.id)),
            class_="crumbs",
        ),
        element("h1", f"{KINDS.get(job.job_type.value, job.job_type.value)} sync of ", foreign(facts.name)),
        parts.live("state", [chip(state), " ", _when(job, now)], tag="p", class_="facts"),
        parts.live("buttons", _buttons(facts), class_="row", mark=f"{state} {facts.live is not None}"),
        class_="lead",
    )
    body = joined(
        head,
        parts.live("held", _held(facts)),
        parts.live(
            "trouble",
            panel("What went wrong", element("p", foreign(job.error), class_="error"), id_="error")
            if job.error
            else None,
        ),
        parts.live("waits", _waits(facts)),
        parts.live("progress", _progress(facts)),
        parts.live("partitions", _partitions(facts)),
        parts.live("letters", _letters(facts)),
        parts.live("story", _story(facts)),
        _details(job, now),
    )
    return Rendered(f"Sync of {facts.name}", body, parts, "job", is_live=True)


def _when(job: SyncJob, now: datetime) -> Markup:
    ended = job.completed_at or job.canceled_at
    if job.status.is_terminal:
        return joined("ended ", moment(ended, now), f" after {lasted(job.started_at, ended)}" if job.started_at else "")
    if job.started_at is None:
        return joined("asked for ", moment(job.created_at, now))
    return joined("began ", moment(job.started_at, now))


def _buttons(facts: JobFacts) -> list[Child]:
    job = facts.job
    if job.status.is_terminal or job.status.value == "canceling":
        return [
            element(
                "a", "All jobs of this connector", href=connector_path(job.connector.id) + "#history", class_="button"
            )
        ]
    made: list[Child] = []
    if facts.is_paused:
        made.append(button(job_path(job.id, "resume"), "Resume", look="first"))
    elif facts.live is not None or job.status.may_be_claimed:
        made.append(button(job_path(job.id, "pause"), "Pause"))
    made.append(element("a", "Cancel …", href=job_path(job.id, "cancel"), class_="button danger"))
    return made


def _held(facts: JobFacts) -> Markup | None:
    if isinstance(facts.held, str):
        return trouble(f"Whether deletions are held back cannot be told: {facts.held}")
    if facts.held is None:
        return None
    return panel(
        f"{count(facts.held.count)} deletions wait for you",
        element(
            "p",
            "So many documents were gone from the source that they were kept. Look at the source first, then decide.",
        ),
        _examples(facts.held),
        element("a", "Look and confirm …", href=job_path(facts.job.id, "confirm-deletions"), class_="button first"),
        id_="held-back",
        class_="urgent",
    )


def _examples(held: Held) -> Markup | None:
    if not held.examples:
        return None
    more = held.count - len(held.examples)
    listed = [element("li", element("code", foreign(one))) for one in held.examples]
    return element(
        "ul", listed, element("li", f"and {more:,} more", class_="quiet") if more > 0 else None, class_="ids"
    )


def confirm_page(facts: JobFacts) -> Rendered:
    """Asks before held-back deletions are carried out."""
    held = facts.held if isinstance(facts.held, Held) else Held(count=0)
    body = question(
        job_path(facts.job.id, "confirm-deletions"),
        f"Delete {held.count:,} documents?",
        element(
            "p",
            "They leave the index ",
            element("code", foreign(facts.job.connector.index_name or "")),
            ". Those that were written again since are kept.",
        ),
        _examples(held),
        said=f"Delete {held.count:,} documents",
        back=job_path(facts.job.id),
    )
    return Rendered("Delete what was held back?", body, is_live=False)


def cancel_page(facts: JobFacts) -> Rendered:
    """Asks before a job is canceled."""
    body = question(
        job_path(facts.job.id, "cancel"),
        f"Cancel the sync of {facts.name}?",
        element(
            "p", "What is indexed already stays. The next sync begins anew; to go on later from here, pause it instead."
        ),
        said="Cancel the sync",
        back=job_path(facts.job.id),
    )
    return Rendered("Cancel?", body, is_live=False)


def _progress(facts: JobFacts) -> Markup:
    at = (facts.live or {}).get("progress")
    job = facts.job
    if at is None:
        numbers = [
            ("Indexed", count(job.indexed_document_count)), ("Deleted", count(job.deleted_document_count)),
            ("Volume", f"{job.indexed_document_volume:,} MiB"), ("In the index", count(job.total_document_count)),
        ]  # fmt: skip
        if job.started_at is None and not job.status.is_terminal:
            # Nothing has been done yet; why is told above.
            return Markup("")
        return panel("Counts", _numbers(numbers), _elsewhere(facts), id_="progress")
    numbers = [
        ("Read", count(at["listed"])), ("Indexed", count(at["indexed"])), ("Unchanged", count(at["unchanged"])),
        ("Deleted", count(at["deleted"])), ("Failed", count(at["failed"])), ("Volume", volume(at["size_bytes"])),
        ("Queued", count(at["queued"])), ("Requests at once", count(at["concurrency"])),
    ]  # fmt: skip
    rate = sum(facts.rates[-5:]) / max(1, len(facts.rates[-5:]))
    limit = str(at["waiting_on"])
    stages = [
        element("li", name, class_="limit" if key == limit else None, aria_current="step" if key == limit else None)
        for key, name in STAGES
    ]
    said = LIMITS.get(limit, f"Now: {limit}." if limit else "")
    speeds = element("p", sparkline(facts.rates), element("strong", pace(rate)), "documents/s", class_="speed large")
    return panel(
        "Progress",
        speeds,
        _numbers(numbers),
        element("ol", stages, class_="stages", aria_label="Stages; the current one limits"),
        element("p", said, class_="quiet"),
        id_="progress",
    )


def _waits(facts: JobFacts) -> Markup | None:
    if facts.waits is None or facts.job.status.is_terminal or facts.live is not None:
        return None
    return panel(
        "Why it waits",
        element("p", foreign(facts.waits)),
        element("p", element("a", "To its connector", href=connector_path(facts.job.connector.id))),
        id_="waits",
    )


def _elsewhere(facts: JobFacts) -> Markup | None:
    job = facts.job
    if job.status.is_running and job.worker_hostname and job.worker_hostname != facts.worker:
        return element(
            "p", "It runs in ", foreign(job.worker_hostname), ", whose own page shows it live.", class_="quiet"
        )
    return None


def _numbers(numbers: Sequence[tuple[str, str]]) -> Markup:
    return element(
        "dl", [element("div", element("dt", name), element("dd", value)) for name, value in numbers], class_="numbers"
    )


def _partitions(facts: JobFacts) -> Markup | None:
    listed = (facts.live or {}).get("partitions") or []
    if not listed:
        return None
    most = max(one["listed"] for one in listed) or 1
    rows = [
        element(
            "tr",
            element(
                "th",
                foreign(one["key"] or "the whole source"),
                element("span", foreign(one["why"]), class_="sub why") if one["why"] else None,
                scope="row",
            ),
            element("td", chip(one["state"]), data_label="State"),
            element(
                "td",
                element("meter", value=one["listed"], max=most, min=0, aria_hidden="true"),
                element("span", count(one["listed"]), class_="number"),
                data_label="Documents read",
            ),
        )
        for one in listed
    ]
    head = element(
        "tr", [element("th", name, scope="col") for name in ("Part of the source", "State", "Documents read")]
    )
    return panel(
        "Parts of the source",
        element(
            "table",
            element("caption", "Parts of the source and how far they are read", class_="unseen"),
            element("thead", head),
            element("tbody", rows),
        ),
        id_="parts",
    )


def _letters(facts: JobFacts) -> Markup | None:
    if isinstance(facts.letters, str):
        return trouble(f"Dead letters cannot be shown: {facts.letters}")
    if not facts.letters:
        return None
    where = connector_path(facts.job.connector.id) + "#dead-letters"
    return panel(
        f"{count(facts.letters)} documents failed",
        element("p", element("a", "See which, and why", href=where)),
        button(job_path(facts.job.id, "replay"), "Try them again with the next sync"),
        id_="failed",
    )


def _story(facts: JobFacts) -> Markup:
    if isinstance(facts.story, str):
        return panel("Story", trouble(facts.story), id_="story")
    if not facts.story:
        return panel("Story", empty("Nothing has been told of this job yet."), id_="story")
    shown = facts.story[-STORY_SHOWN:]
    earlier = len(facts.story) - len(shown)
    lines = []
    day = None
    for line in shown:
        if line.at.date() != day:
            day = line.at.date()
            lines.append(element("li", f"{day:%-d %B %Y}", class_="day"))
        clock = element(
            "time",
            f"{line.at:%H:%M}",
            datetime=line.at.isoformat(),
            title=f"{line.at:%Y-%m-%d %H:%M:%S} UTC",
            data_clock=True,
        )
        lines.append(element("li", clock, element("span", foreign(line.text)), class_=line.level))
    return panel(
        "Story",
        element(
            "p", f"{earlier:,} earlier lines: ", element("code", f"callboard job log {facts.job.id}"), class_="quiet"
        )
        if earlier
        else None,
        element("ol", lines, class_="story"),
        id_="story",
    )


def _details(job: SyncJob, now: datetime) -> Markup:
    facts: list[tuple[str, Child]] = [
        ("Job", element("code", foreign(job.id))), ("Index", element("code", foreign(job.connector.index_name or "–"))),
        ("Asked for", moment(job.created_at, now)), ("Started by", job.trigger_method.value.replace("_", " ")),
        ("Worker", foreign(job.worker_hostname or "–")),
    ]  # fmt: skip
    rows = [element("div", element("dt", name), element("dd", value)) for name, value in facts]
    return panel("Details", element("dl", rows, class_="details"), id_="details")
