"""What all pages share: the frame around them, their living parts, their forms, and how refusals look."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from importlib import resources
from urllib.parse import quote

import attrs

from .markup import Attribute, Child, Markup, element, joined

FORM_TOKEN_PLACE = f"form-token-{secrets.token_hex(16)}"
"""Stands in rendered pages where each visitor's own form token goes, so that visitors can share what was rendered."""
MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
NOTICES = {
    "started": "The sync is asked for. It begins as soon as there is a free slot.",
    "canceled": "The job is asked to stop.",
    "paused": "The job is paused. What it has done is kept, and it goes on from there.",
    "resumed": "The job goes on from where it was.",
    "confirmed": "The deletions are carried out.",
    "replay": "The next full sync tries these documents again.",
    "replay-none": "There is nothing to try again.",
    "schedule-on": "The schedule is on.",
    "schedule-off": "The schedule is off. A sync that runs goes on.",
    "connector-paused": "The connector is paused, for all services, until somebody resumes it. A sync that ran is suspended.",
    "connector-resumed": "The connector syncs again. What was suspended goes on from where it was.",
    "in": "Welcome.",
}


@attrs.frozen
class StaticFile:
    """A file that comes with the page, under a name that changes with its content."""

    path: str
    media_type: str
    body: bytes


def _static_files() -> dict[str, StaticFile]:
    folder = resources.files(__package__ or "") / "static"
    found = {}
    for entry in folder.iterdir():
        stem, _, kind = entry.name.rpartition(".")
        if kind in MEDIA_TYPES:
            body = entry.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:12]
            found[entry.name] = StaticFile(f"/static/{stem}.{digest}.{kind}", MEDIA_TYPES[kind], body)
    return found


STATIC = _static_files()
STATIC_BY_PATH = {one.path: one for one in STATIC.values()}


@attrs.define(eq=False)
class Parts:
    """The living parts of a page; one that lies within another comes behind it."""

    contents: dict[str, tuple[str, Markup, str | None]] = attrs.field(factory=dict)
    """Key -> what decides whether it has changed, its content, the part it lies in."""

    def live(
        self,
        key: str,
        content: Child,
        *,
        tag: str = "div",
        mark: str | None = None,
        within: str | None = None,
        **more: Attribute,
    ) -> Markup:
        """Wrap what is sent again when it changes. A part with a `mark` changes with its mark, not with the parts in it."""
        inner = joined(content)
        self.contents[key] = (inner if mark is None else mark, inner, within)
        return element(tag, inner, data_live=key, **more)

    def changed_since(self, before: Parts | None) -> dict[str, str]:
        """What to send to somebody who has seen `before`: the outermost parts that differ, or all of them."""
        sent: dict[str, str] = {}
        for key, (mark, content, within) in self.contents.items():
            if within is not None and (before is None or within in sent):
                continue
            if before is None or key not in before.contents or before.contents[key][0] != mark:
                sent[key] = content
        return sent


@attrs.frozen
class Rendered:
    """One page for all visitors: their form tokens and notices are put in when it is sent."""

    title: str
    body: Markup
    parts: Parts = attrs.field(factory=Parts)
    here: str = ""
    """Which entry of the navigation it is."""
    is_live: bool = True


@attrs.frozen
class Frame:
    """What of a page is one visitor's."""

    path: str
    form_token: str
    worker: str
    may_leave: bool
    """There is a session to leave: the visitor came in with a token."""
    notice: str = ""
    at: datetime | None = None
    rehearsal: str = ""
    """Which faults are injected on purpose."""


def document(page: Rendered, frame: Frame) -> bytes:
    """The whole page for one visitor."""
    said = NOTICES.get(frame.notice)
    entries = [("/", "Connectors", "overview"), ("/actors", "Actors", "actors")]
    navigation = element(
        "nav",
        [
            element("a", name, href=path, aria_current="page" if here == page.here else None)
            for path, name, here in entries
        ],
        aria_label="Pages",
    )
    leave = (
        element("form", _token(), element("button", "Sign out", class_="plain"), method="post", action="/logout")
        if frame.may_leave
        else None
    )
    head = element(
        "header",
        element(
            "a",
            element("img", src=STATIC["icon.svg"].path, alt="", width=28, height=28),
            element("span", "Callboard"),
            href="/",
            class_="brand",
            aria_label="Callboard, all connectors",
        ),
        navigation,
        element(
            "p",
            element("span", class_="dot", aria_hidden="true"),
            element("span", "Live" if page.is_live else "", class_="said"),
            class_="link-state",
            role="status",
            data_link="quiet" if not page.is_live else "open",
        ),
        leave,
        class_="top",
    )
    main = element(
        "main",
        element("p", said, class_="notice", role="status", data_notice=True) if said else None,
        page.body,
        id="content",
        tabindex="-1",
    )
    foot = element(
        "footer",
        element("span", "Worker ", element("bdi", frame.worker)) if frame.worker else None,
        element("a", "Metrics", href="/metrics"),
        element("a", "Ready?", href="/ready"),
        element("a", "Facts as JSON", href="/api/overview"),
    )
    stream = f"/stream?page={quote(frame.path, safe='')}" if page.is_live else None
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        _rehearsal(frame.rehearsal),
        head,
        main,
        foot,
        data_stream=stream,
    )
    return _whole(page.title, body, frame.form_token)


def _rehearsal(what: str) -> Child:
    """What nobody can overlook: that this service is not to be trusted."""
    if not what:
        return None
    said = element("strong", "Rehearsal. ")
    return element(
        "p",
        said,
        f"Faults are injected on purpose: {what}. Do not trust this service.",
        class_="rehearsal",
        role="alert",
    )


def bare_document(title: str, *content: Child, form_token: str = "") -> bytes:
    """A page without navigation: the login, and what is said to those who may not enter."""
    main = element("main", *content, id="content", class_="bare")
    return _whole(title, element("body", main), form_token)


def _whole(title: str, body: Markup, form_token: str) -> bytes:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", f"{title} · Callboard"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href=STATIC["icon.svg"].path, type="image/svg+xml"),
        element("link", rel="stylesheet", href=STATIC["page.css"].path),
        element("script", src=STATIC["page.js"].path, defer=True),
    )
    whole = f"<!doctype html>{element('html', head, body, lang='en')}".replace(FORM_TOKEN_PLACE, form_token)
    # A name may hold half a character, which no encoding can carry.
    return whole.encode("utf-8", "replace")


def _token() -> Markup:
    return element("input", type="hidden", name="form_token", value=FORM_TOKEN_PLACE)


def button(
    path: str, said: str, *, look: str = "", described_by: str | None = None, label: str | None = None, **fields: str
) -> Markup:
    """A form of one button."""
    return element(
        "form",
        _token(),
        [element("input", type="hidden", name=name, value=value) for name, value in fields.items()],
        element("button", said, class_=look or None, aria_describedby=described_by, aria_label=label),
        method="post",
        action=path,
        class_="press",
    )


def question(path: str, title: str, *content: Child, said: str, back: str) -> Markup:
    """A page that asks once more before something that cannot be undone."""
    return element(
        "section",
        element("h1", title),
        *content,
        element(
            "div",
            button(path, said, look="danger"),
            element("a", "No, go back", href=back, class_="button"),
            class_="row",
        ),
        class_="panel narrow",
    )


def panel(title: str, *content: Child, id_: str, aside: Child = None, class_: str = "") -> Markup:
    """A section with a heading, reachable as a landmark."""
    heading = element("h2", title, id=id_)
    head = element("div", heading, aside, class_="head") if aside is not None else heading
    return element("section", head, *content, class_=f"panel {class_}".strip(), aria_labelledby=id_)


def empty(said: Child, *more: Child) -> Markup:
    """What stands where nothing is yet."""
    return element("div", element("p", said), *more, class_="empty")


def trouble(said: Child) -> Markup:
    """What stands where something could not be had."""
    return element("p", element("span", "▲ ", aria_hidden="true"), said, class_="trouble")


def refusal(title: str, why: str, *, back: str = "/") -> Rendered:
    """A page that says why something was not done, or is not there."""
    body = element(
        "section",
        element("h1", title),
        element("p", why),
        element("p", element("a", "Back", href=back, class_="button")),
        class_="panel narrow",
        role="alert",
    )
    return Rendered(title, body, is_live=False)


def login_form(wanted: str, problem: str = "") -> list[Child]:
    """Asks for the token."""
    return [
        element("img", src=STATIC["icon.svg"].path, alt="", width=48, height=48),
        element("h1", "Callboard"),
        element(
            "p",
            "This service shows itself to those who know its token, ",
            element("code", "callboard.operations.token"),
            ".",
        ),
        element("p", problem, class_="trouble", role="alert", id="problem") if problem else None,
        element(
            "form",
            _token(),
            element("input", type="hidden", name="next", value=wanted),
            element("label", "Token", for_="token"),
            element(
                "input",
                type="password",
                name="token",
                id="token",
                autocomplete="current-password",
                required=True,
                autofocus=True,
                aria_invalid="true" if problem else None,
                aria_describedby="problem" if problem else None,
            ),
            element("button", "Come in", class_="first"),
            method="post",
            action="/login",
            class_="login",
        ),
    ]
