"""How the page says what it knows: states, moments, numbers. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from ..journal.words import size as size_of
from ..journal.words import span
from .markup import Markup, element

LOOKS = {
    # What is said, and how it looks: a class of the style sheet and a sign, so that colour is never all there is.
    "ok": ("Healthy", "good", "●"),
    "failing": ("Needs attention", "bad", "▲"),
    "unconfigured": ("Not set up", "quiet", "○"),
    "syncing": ("Syncing", "busy", "◐"),
    "completed": ("Completed", "good", "●"),
    "error": ("Failed", "bad", "▲"),
    "in_progress": ("Running", "busy", "◐"),
    "pending": ("Waiting", "quiet", "○"),
    "suspended": ("Suspended", "held", "◇"),
    "canceling": ("Stopping", "held", "◇"),
    "canceled": ("Canceled", "quiet", "○"),
    "paused": ("Paused", "held", "◇"),
    "running": ("Running", "good", "●"),
    "closed": ("Read", "good", "●"),
    "broken": ("Broken", "bad", "▲"),
    "unfinished": ("Reading", "busy", "◐"),
    "starting": ("Starting", "busy", "◐"),
    "stopping": ("Stopping", "held", "◇"),
    "ended": ("Ended", "quiet", "○"),
    "waiting to restart": ("Waiting to restart", "bad", "▲"),
}
KINDS = {"full": "Full", "incremental": "Incremental", "access_control": "Access control"}


def chip(state: str) -> Markup:
    """A state as a sign and a word."""
    said, look, sign = LOOKS.get(state, (state.replace("_", " ").capitalize(), "quiet", "○"))
    return element("span", element("span", sign, aria_hidden="true"), " ", said, class_=f"chip {look}")


def moment(at: datetime | None, now: datetime, *, missing: str = "never") -> Markup:
    """A moment as people say it; the exact one is a hover away, and the browser puts it into its own time zone."""
    if at is None:
        return element("span", missing, class_="quiet")
    exact = at.astimezone(UTC)
    return element(
        "time",
        ago((exact - now).total_seconds(), exact),
        datetime=exact.isoformat(),
        title=f"{exact:%Y-%m-%d %H:%M:%S} UTC",
    )


def ago(seconds: float, at: datetime) -> str:
    """Say how far away a moment is: `5 min ago`, `in 2 h`; one that is more than a month away by its date."""
    away = abs(seconds)
    if away < 60:
        return "in under a minute" if seconds > 0 else "just now"
    if away < 3600:
        said = f"{away // 60:.0f} min"
    elif away < 48 * 3600:
        hours, minutes = divmod(away // 60, 60)
        said = f"{hours:.0f} h {minutes:.0f} min" if minutes and hours < 6 else f"{hours:.0f} h"
    elif away < 31 * 86400:
        said = f"{away // 86400:.0f} days"
    else:
        return f"{at:%Y-%m-%d}"
    return f"in {said}" if seconds > 0 else f"{said} ago"


def count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def pace(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def speed(rate: float) -> str:
    return f"{pace(rate)}/s"


def volume(size_bytes: float) -> str:
    return size_of(size_bytes)


def lasted(begin: datetime | None, end: datetime | None) -> str:
    if begin is None or end is None:
        return "–"
    seconds = (end - begin).total_seconds()
    return "under 1 s" if seconds < 1 else span(round(seconds, 1) if seconds < 10 else seconds)


def connector_path(connector_id: str, *more: str) -> str:
    return "/".join(["/connectors", quote(connector_id, safe=""), *more])


def job_path(job_id: str, *more: str) -> str:
    return "/".join(["/jobs", quote(job_id, safe=""), *more])
