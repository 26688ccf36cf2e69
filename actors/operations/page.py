"""The operations page: who may enter, which page a path is, what is sent while it is open, and what a button may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

import attrs
import orjson
import structlog
import trio

from ...protocol import TransitionRefused
from ...protocol.store import NotFound, StoreError
from ...runtime import System, now
from ..service_state import ServiceState
from . import layout
from .access import Access, Session, is_own_origin, local_path, set_cookie
from .connector_page import connector_page
from .http import Request, Response, body_of
from .job_page import cancel_page, confirm_page, job_page
from .layout import FORM_TOKEN_PLACE, Frame, Parts, Rendered, bare_document, login_form, refusal
from .markup import element
from .overview_page import overview_page
from .pressing import Buttons, Refused
from .reading import connector_facts, job_facts
from .throughput import Throughput
from .tree_page import tree_page
from .view import overview

log = structlog.get_logger(__name__)

Piece: TypeAlias = Callable[[bool], Awaitable[bytes | None]]
"""Asked whether there is something new to send; told whether nothing was sent for so long that anything will do."""
BEAT = b"event: beat\ndata: {}\n\n"

SECURITY_HEADERS: tuple[tuple[str, str], ...] = (
    (
        "content-security-policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
    ("x-frame-options", "DENY"),
    # `no-referrer` would also take the origin from our own forms.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
)
FRESH_S = 1.0
"""So long visitors share what was rendered."""
DRAWN_PER_S = 250
"""Connectors that the overview draws in a second, so that watching thousands does not slow down their syncs."""
FRESH_READ_S = 2.0
"""The same for pages that Elasticsearch is asked for."""
READ_S = 5.0
"""An open page that waits longer for Elasticsearch is told so; its script takes eight silent seconds for a cut line."""
SHOW_S = 15.0
SLOW = "Elasticsearch has not answered yet."
KEPT_MAX = 64
WRONG_TOKEN_S = 0.5
"""One wrong token at a time waits so long, whoever sends it."""
WRONG_TOKENS_MAX = 16
HTML = "text/html; charset=utf-8"


@attrs.define
class _Kept:
    rendered: Rendered
    until_s: float


class Page:
    """All routes of the page. `speeds` is filled by whoever serves."""

    def __init__(self, state: ServiceState, system: System, access: Access, speeds: Throughput) -> None:
        self._state, self._system, self._access, self._speeds = state, system, access, speeds
        self._buttons = Buttons(state, system)
        self._kept: dict[str, _Kept] = {}
        self._rendering: dict[str, trio.Lock] = {}
        self._wrong = trio.CapacityLimiter(1)

    async def respond(self, request: Request) -> Response | None:
        """Answer; None if the path is none of the page's."""
        path = request.segments
        if path and path[0] == "static":
            return _static(request)
        if path == ["login"]:
            return await self._login(request)
        if request.method == "POST":
            return await self._post(request, path)
        if request.method != "GET" or not _is_page(path):
            return None
        session = self.session(request)
        if session is None or not session.is_member:
            if self._access.needs_token:
                wanted = request.path_as_sent + (f"?{request.query}" if request.query else "")
                return _redirect(f"/login?next={quote(wanted, safe='')}")
            session = self._access.begin(now().timestamp(), is_member=False)
            return await self._show(request, session, extra=(set_cookie(session, is_https=request.is_https),))
        return await self._show(request, session)

    def nothing_here(self, request: Request) -> Response:
        """Tell a person that there is no such page."""
        session = self.session(request) or self._access.begin(now().timestamp(), is_member=False)
        return self._refuse(session, 404, "That is not here", "There is no such page.", "/")

    def turned_away(self, why: str) -> Response:
        """Tell a person that the service is not known under this name."""
        content = bare_document("Not here", element("h1", "Not under this name"), element("p", why))
        return Response(content, 421, HTML, SECURITY_HEADERS)

    def session(self, request: Request) -> Session | None:
        """The visitor's session, if the cookie is one of ours."""
        return self._access.read(request.headers.get("cookie", ""), now().timestamp())

    # Pages

    async def _show(self, request: Request, session: Session, extra: tuple[tuple[str, str], ...] = ()) -> Response:
        status = 200
        try:
            with trio.fail_after(SHOW_S):
                page = await self._page(request.segments, request.fields)
        except trio.TooSlowError:
            status, page = 504, refusal("Elasticsearch does not answer", f"{SLOW} Load this page again in a while.")
        except NotFound:
            status, page = (
                404,
                refusal("That is not here", "There is no such page, or what it showed has been deleted."),
            )
        except StoreError as exc:
            status, page = (
                502,
                refusal("Elasticsearch does not answer", f"{exc} This page comes back when it does: load it again."),
            )
        frame = Frame(
            path=request.path_as_sent,
            form_token=self._access.form_token(session),
            worker=self._state.worker,
            may_leave=self._access.needs_token,
            notice=request.fields.get("told", ""),
            rehearsal=self._state.rehearsal,
        )
        return Response(layout.document(page, frame), status, HTML, (*SECURITY_HEADERS, *extra))

    async def _page(self, path: list[str], fields: Mapping[str, str]) -> Rendered:
        state, speeds = self._state, self._speeds
        match path:
            case []:
                text, wanted = fields.get("text", "")[:200], fields.get("state", "")
                if text or wanted:
                    return overview_page(overview(state), speeds, now(), text=text, state=wanted)
                return await self._shared("overview", max(FRESH_S, len(state.connectors) / DRAWN_PER_S), self._overview)
            case ["actors"]:
                return await self._shared("actors", FRESH_S, self._tree)
            case ["connectors", connector_id]:

                async def connector() -> Rendered:
                    return connector_page(await connector_facts(state, speeds, connector_id), now())

                return await self._shared(f"connector {connector_id}", FRESH_READ_S, connector)
            case ["jobs", job_id]:

                async def job() -> Rendered:
                    return job_page(await job_facts(state, speeds, job_id), now())

                return await self._shared(
                    f"job {job_id}", FRESH_READ_S if job_id not in state.running else FRESH_S, job
                )
            case ["jobs", job_id, "cancel"]:
                return cancel_page(await job_facts(state, speeds, job_id))
            case ["jobs", job_id, "confirm-deletions"]:
                facts = await job_facts(state, speeds, job_id)
                if facts.held is None or isinstance(facts.held, str):
                    return refusal(
                        "Nothing is held back",
                        facts.held or "Somebody has decided already.",
                        back=f"/jobs/{quote(job_id, safe='')}",
                    )
                return confirm_page(facts)
        raise NotFound("There is no such page.", status=404)

    async def _overview(self) -> Rendered:
        return overview_page(overview(self._state), self._speeds, now())

    async def _tree(self) -> Rendered:
        return tree_page(self._system.tree())

    async def _shared(self, key: str, fresh_s: float, render: Callable[[], Awaitable[Rendered]]) -> Rendered:
        """Render once for all who look at the same time."""
        lock = self._rendering.setdefault(key, trio.Lock())
        try:
            async with lock:
                kept = self._kept.get(key)
                if kept is None or kept.until_s <= trio.current_time():
                    rendered = await render()
                    self._kept.pop(key, None)
                    kept = self._kept[key] = _Kept(rendered, trio.current_time() + fresh_s * 0.9)
                    while len(self._kept) > KEPT_MAX:
                        del self._kept[next(iter(self._kept))]
                return kept.rendered
        finally:
            if not lock.locked():
                self._rendering.pop(key, None)

    def forget(self) -> None:
        """Render anew what is asked for next: something was pressed."""
        self._kept.clear()

    # What is sent while a page is open

    def follower(self, request: Request, session: Session) -> Piece:
        """What gives a visitor's open page the parts that have changed, or says what is wrong."""
        asked = urlsplit(request.fields.get("page", "/"))
        path = [unquote(one) for one in asked.path.split("/") if one]
        token = self._access.form_token(session)
        seen: Parts | None = None
        said = b""

        async def piece(is_silent: bool) -> bytes | None:
            nonlocal seen, said
            state, parts = BEAT, None
            try:
                with trio.fail_after(READ_S):
                    page = await self._page(path, {})
            except trio.TooSlowError:
                state = _trouble(SLOW)
            except NotFound:
                state = b"event: gone\ndata: {}\n\n"
            except StoreError as exc:
                state = _trouble(str(exc))
            else:
                parts, seen = page.parts.changed_since(seen), page.parts
            if parts:
                told = {
                    key: content.replace(FORM_TOKEN_PLACE, token).encode("utf-8", "replace").decode()
                    for key, content in parts.items()
                }
                said = BEAT
                return b"event: parts\ndata: " + orjson.dumps(told) + b"\n\n"
            # What is wrong is said again instead of a sign of life, which would read as "all is well".
            is_news, said = state != said, state
            return state if is_news or is_silent else None

        return piece

    # Entering, leaving, pressing

    async def _login(self, request: Request) -> Response:
        if not self._access.needs_token:
            return _redirect("/")
        if request.method == "POST":
            return await self._come_in(request)
        if request.method != "GET":
            return Response(b"", 405)
        return self._login_page(request, local_path(request.fields.get("next", "/")))

    def _login_page(self, request: Request, wanted: str, problem: str = "", status: int = 200) -> Response:
        session = self.session(request)
        extra: tuple[tuple[str, str], ...] = ()
        if session is None:
            session = self._access.begin(now().timestamp(), is_member=False)
            extra = (set_cookie(session, is_https=request.is_https),)
        content = bare_document("Come in", *login_form(wanted, problem), form_token=self._access.form_token(session))
        return Response(content, status, HTML, (*SECURITY_HEADERS, *extra))

    async def _come_in(self, request: Request) -> Response:
        form = await body_of(request)
        wanted = local_path(form.get("next", "/"))
        if not self._is_sent_by_us(request, form):
            return self._login_page(request, wanted, "This form was out of date. Please try again.", 403)
        if not self._access.is_token(form.get("token", "")):
            if self._wrong.statistics().tasks_waiting >= WRONG_TOKENS_MAX:
                return self._login_page(request, wanted, "Too many wrong tokens at once. Try again in a while.", 429)
            async with self._wrong:
                await trio.sleep(WRONG_TOKEN_S)
            log.warning("operations.wrong_token")
            return self._login_page(request, wanted, "That is not the token.", 401)
        session = self._access.begin(now().timestamp(), is_member=True)
        return _redirect(wanted, (set_cookie(session, is_https=request.is_https),))

    def _is_sent_by_us(self, request: Request, form: Mapping[str, str]) -> bool:
        session = self.session(request)
        headers = request.headers
        return (
            session is not None
            and is_own_origin(headers.get("origin"), headers.get("sec-fetch-site"), headers.get("host", ""))
            and self._access.is_form_token(session, form.get("form_token", ""))
        )

    async def _post(self, request: Request, path: list[str]) -> Response:
        session = self.session(request)
        if session is None or not session.is_member:
            if self._access.needs_token:
                return _redirect("/login")
            session = self._access.begin(now().timestamp(), is_member=False)
        form = await body_of(request)
        back = "/" + "/".join(quote(one, safe="") for one in path[:2]) if len(path) > 1 else "/"
        if not self._is_sent_by_us(request, form):
            return self._refuse(
                session,
                403,
                "Nothing was done",
                "This page was out of date, or the form came from elsewhere. Load it again.",
                back,
            )
        if path == ["logout"]:
            stale = self._access.begin(now().timestamp(), is_member=False)
            return _redirect("/login", (set_cookie(stale, is_https=request.is_https),))
        try:
            pressed = await self._buttons.press(path, form)
        except NotFound:
            return self._refuse(
                session, 404, "That is not here", "What this button was for is not there any more.", "/"
            )
        except (Refused, TransitionRefused) as exc:
            return self._refuse(session, 409, "That cannot be done now", str(exc), back)
        except StoreError as exc:
            return self._refuse(session, 502, "Elasticsearch did not take it", f"{exc} Nothing else was tried.", back)
        finally:
            self.forget()
        return _redirect(f"{pressed.path}?told={pressed.notice}")

    def _refuse(self, session: Session, status: int, title: str, why: str, back: str) -> Response:
        frame = Frame("/", self._access.form_token(session), self._state.worker, self._access.needs_token)
        return Response(layout.document(refusal(title, why, back=back), frame), status, HTML, SECURITY_HEADERS)


def _trouble(why: str) -> bytes:
    return b"event: trouble\ndata: " + orjson.dumps({"why": why}) + b"\n\n"


def _is_page(path: list[str]) -> bool:
    match path:
        case [] | ["actors"] | ["connectors", _] | ["jobs", _] | ["jobs", _, "cancel" | "confirm-deletions"]:
            return True
    return False


def _static(request: Request) -> Response | None:
    found = layout.STATIC_BY_PATH.get(request.path_as_sent)
    if found is None or request.method != "GET":
        return None
    kept = (("cache-control", "public, max-age=31536000, immutable"),)
    return Response(found.body, 200, found.media_type, (*SECURITY_HEADERS, *kept))


def _redirect(path: str, extra: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(b"", 303, HTML, (("location", path), *SECURITY_HEADERS, *extra))
