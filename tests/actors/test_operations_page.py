"""The operations page over HTTP: who may enter, what forms need, that nothing foreign becomes HTML, and what buttons do."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import attrs
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.operations.access import Access, is_own_origin, local_path
from callboard.actors.operations.layout import Parts
from callboard.actors.operations.markup import Markup, element, foreign, joined
from callboard.actors.operations.overview_page import overview_page
from callboard.actors.operations.throughput import SAMPLES, Throughput, sparkline
from callboard.actors.operations.tree_page import tree_page
from callboard.actors.operations.words import ago, chip, connector_path, moment
from callboard.actors.service import Service, open_service
from callboard.node import open_node
from callboard.protocol import JobStatus, Pipeline
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.store import Store, Target, open_store
from callboard.runtime import TreeNode, now
from callboard.sources.source import Document, Features, Listing, Partition, Source

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&amp;\u202e\x00{{7*7}}"


class Tags(HTMLParser):
    """Everything in a page that could do something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(page: str) -> None:
    """Nothing in it runs but our own script, nothing is styled inline, and nothing leads or loads from elsewhere."""
    tags = Tags()
    tags.feed(page)
    for tag, written in tags.found:
        assert tag not in ("style", "iframe", "object", "embed", "base", "b", "i"), (tag, written)
        assert not any(name.startswith("on") or name in ("style", "srcdoc") for name in written), (tag, written)
        for name in ("href", "src", "action", "formaction"):
            assert (written.get(name) or "/").startswith(("/", "#", "?")), (tag, written)
            assert not (written.get(name) or "").startswith("//"), (tag, written)
        if tag in ("script", "img"):
            assert (written["src"] or "").startswith("/static/"), (tag, written)
    assert sum(tag == "script" for tag, _ in tags.found) == 1


@attrs.frozen
class RoleConfig:
    password: str = setting("Password", default="", sensitive=True, required=False)


class Role(Source[RoleConfig]):
    service_type = "role"
    name = "Role"
    Config = RoleConfig
    features = Features(incremental="skip_unchanged")
    held = trio.Event()

    async def ping(self) -> None:
        return None

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        yield Document("one", {"text": "one"})
        await type(self).held.wait()


@attrs.frozen
class World:
    store: Store
    service: Service
    client: httpx.AsyncClient

    async def form_token(self, path: str = "/") -> str:
        page = (await self.client.get(path)).text
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
        assert found is not None, page
        return found[1]

    async def press(self, path: str, **fields: str) -> httpx.Response:
        token = fields.pop("form_token", "") or await self.form_token(path.rpartition("/")[0])
        return await self.client.post(path, data={"form_token": token, **fields})


@asynccontextmanager
async def open_world(token: str | None = None, **more: Any) -> AsyncIterator[World]:
    Role.held = trio.Event()
    async with open_node(port=None) as node, open_store(Target(embedded=node.app)) as store:
        await store.ensure_indices()
        await store.connectors.create(
            "a/b %?#", index_name="role-one", name=HOSTILE, service_type="role", description=HOSTILE
        )
        stored = {"password": {"value": "hush hush", "label": HOSTILE, "sensitive": True}}
        await store.connectors.update(
            "a/b %?#", lambda present: attrs.evolve(transitions.configured(present, stored), pipeline=Pipeline())
        )
        settings = {
            "connectors": [{"connector_id": "a/b %?#"}],
            "service.idling": 0.3,
            "callboard.text_extraction.engine": "plain",
            "callboard.operations.enabled": True,
            "callboard.operations.port": 0,
            **({"callboard.operations.token": token} if token else {}),
            **more,
        }
        async with open_service(settings, embedded=node.app, sources={"role": Role}) as service:
            with trio.fail_after(20):
                while service.operations_url is None or not service._state.connectors:  # noqa: ASYNC110
                    await trio.sleep(0.02)
            async with httpx.AsyncClient(base_url=service.operations_url or "") as client:
                yield World(store, service, client)
            Role.held.set()


ONE = connector_path("a/b %?#")


async def test_every_answer_forbids_what_the_page_does_not_need() -> None:
    async with open_world() as world:
        script = re.search(r'<script src="([^"]+)"', (await world.client.get("/")).text)
        assert script is not None
        for path in ("/", ONE, "/actors", "/jobs/none", "/nowhere", script[1]):
            told = await world.client.get(path, headers={"accept": "text/html"})
            policy = told.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert told.headers["x-content-type-options"] == "nosniff"
            assert told.headers["x-frame-options"] == "DENY"
            assert told.headers["referrer-policy"] == "same-origin"
            if path != script[1]:
                assert told.headers["cache-control"] == "no-store"
                assert_harmless(told.text)
        assert "immutable" in told.headers["cache-control"]


async def test_names_that_others_chose_stay_text_on_every_page() -> None:
    async with open_world() as world:
        token = await world.form_token(ONE)
        started = await world.press(f"{ONE}/start", form_token=token, type="full")
        job = started.headers["location"].partition("?")[0]
        for path in ("/", ONE, job, f"{job}/cancel", "/actors", f"/?text={quote(HOSTILE)}"):
            page = (await world.client.get(path)).text
            assert_harmless(page)
            if path in ("/", ONE, job, f"{job}/cancel"):
                assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "hush hush" not in (await world.client.get(ONE)).text


async def test_a_form_without_its_token_or_from_elsewhere_does_nothing() -> None:
    async with open_world() as world:
        token = await world.form_token(ONE)
        url = f"{ONE}/start"

        async def status(fields: dict[str, str], **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await world.client.post(url, data={"type": "full", **fields}, headers=sent)).status_code

        assert await status({}) == 403
        assert await status({"form_token": "0" * 64}) == 403
        assert await status({"form_token": "ä"}) == 403
        assert await status({"form_token": token}, origin="http://evil.example") == 403
        assert await status({"form_token": token}, origin="null") == 403
        assert await status({"form_token": token}, sec_fetch_site="cross-site") == 403
        assert await status({"form_token": token, "padding": "x" * 70_000}) == 403
        async with httpx.AsyncClient(base_url=world.client.base_url) as stranger:
            assert (await stranger.post(url, data={"form_token": token, "type": "full"})).status_code == 403
            await stranger.get("/")
            assert (await stranger.post(url, data={"form_token": token, "type": "full"})).status_code == 403
        json = await world.client.post(url, json={"form_token": token, "type": "full"})
        assert json.status_code == 403
        assert [job async for job in world.store.jobs.list()] == []
        origin = str(world.client.base_url).rstrip("/")
        assert await status({"form_token": token}, origin=origin, sec_fetch_site="same-origin") == 303
        assert len([job async for job in world.store.jobs.list()]) == 1


async def test_a_token_is_needed_for_everything_and_kept_in_a_cookie_that_scripts_cannot_read() -> None:
    async with open_world("open sesame ✓") as world:
        for path in ("/", ONE, "/actors"):
            told = await world.client.get(path)
            assert (told.status_code, told.headers["location"].partition("?")[0]) == (303, "/login")
        for path in ("/stream", "/events", "/api/overview", "/tree", "/metrics", "/nowhere"):
            assert (await world.client.get(path)).status_code == 401
        assert (await world.client.post(f"{ONE}/start")).headers["location"] == "/login"
        assert (await world.client.get("/health")).status_code == 200
        login = await world.client.get(f"/login?next={ONE}")
        assert "HttpOnly; SameSite=Lax" in login.headers["set-cookie"]
        form = re.search(r'name="form_token" value="(\w+)"', login.text)
        assert form is not None
        assert (await world.client.post("/login", data={"token": "open sesame ✓"})).status_code == 403
        wrong = await world.client.post("/login", data={"token": "no", "form_token": form[1]})
        assert (wrong.status_code, "That is not the token" in wrong.text) == (401, True)
        assert (await world.client.get("/")).status_code == 303
        right = await world.client.post(
            "/login", data={"token": "open sesame ✓", "form_token": form[1], "next": "//evil.example"}
        )
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert "open sesame" not in right.headers["set-cookie"]
        assert (await world.client.get("/")).status_code == 200
        assert (await world.client.get("/api/overview")).status_code == 200
        assert "Secure" not in right.headers["set-cookie"]
        away = await world.client.post("/logout", data={"form_token": await world.form_token()})
        assert away.headers["location"] == "/login"
        assert (await world.client.get("/")).status_code == 303


async def test_a_name_that_points_here_from_elsewhere_is_refused() -> None:
    async with open_world(**{"callboard.operations.names": ["board.example"]}) as world:
        for path in ("/", "/api/overview", "/stream", "/events", "/metrics"):
            told = await world.client.get(path, headers={"host": "evil.example:8089"})
            assert told.status_code == 421, path
        assert (await world.client.get("/", headers={"host": "board.example"})).status_code == 200
        assert (await world.client.get("/", headers={"host": "localhost:1"})).status_code == 200
        assert (await world.client.get("/health", headers={"host": "evil.example"})).status_code == 200


async def test_buttons_start_pause_resume_cancel_and_switch_and_say_why_not() -> None:
    async with open_world() as world:
        store, state = world.store, world.service._state

        async def become(job_id: str, status: JobStatus) -> None:
            with trio.fail_after(20):
                while (await store.jobs.get(job_id)).status is not status:  # noqa: ASYNC110
                    await trio.sleep(0.02)

        token = await world.form_token(ONE)
        no = await world.press(f"{ONE}/start", form_token=token, type="access_control")
        assert (no.status_code, "has no access control sync" in no.text) == (409, True)
        assert (await world.press(f"{ONE}/start", form_token=token, type="<b>")).status_code == 409
        assert (await world.press("/connectors/none/start", form_token=token, type="full")).status_code == 404
        assert (await world.press(f"{ONE}/explode", form_token=token)).status_code == 404
        started = await world.press(f"{ONE}/start", form_token=token, type="full")
        assert started.headers["location"].endswith("?told=started")
        path = started.headers["location"].partition("?")[0]
        job_id = path.rpartition("/")[2]
        await become(job_id, JobStatus.IN_PROGRESS)
        assert (await world.press(f"{path}/pause", form_token=token)).status_code == 303
        await become(job_id, JobStatus.SUSPENDED)
        # Paused: the scheduler looks again and again, and lets it wait.
        world.service.look_now()
        await trio.sleep(1.0)
        assert (await store.jobs.get(job_id)).status is JobStatus.SUSPENDED
        assert "Paused" in (await world.client.get(path)).text
        assert (await world.press(f"{path}/resume", form_token=token)).status_code == 303
        await become(job_id, JobStatus.IN_PROGRESS)
        assert (await world.press(f"{path}/resume", form_token=token)).status_code == 409
        assert (await world.press(f"{path}/confirm-deletions", form_token=token)).status_code == 409
        assert (await world.press(f"{path}/cancel", form_token=token)).status_code == 303
        await become(job_id, JobStatus.CANCELED)
        assert (await world.press(f"{path}/cancel", form_token=token)).status_code == 409
        assert not state.held
        switched = await world.press(f"{ONE}/schedule", form_token=token, type="full", turn="on")
        assert switched.headers["location"].endswith("?told=schedule-on")
        assert (await store.connectors.get("a/b %?#")).scheduling.full.enabled
        paused = await world.press(f"{ONE}/pause", form_token=token)
        assert paused.headers["location"].endswith("?told=connector-paused")
        assert (await world.press(f"{ONE}/pause", form_token=token)).status_code == 409
        page = (await world.client.get(ONE)).text
        assert "by the operations page" in page
        assert f'action="{ONE}/resume"' in page
        assert "once resumed" in (await world.client.get("/")).text
        assert (await store.connectors.get("a/b %?#")).scheduling.full.enabled
        assert (await world.press(f"{ONE}/resume", form_token=token)).status_code == 303
        assert (await world.press(f"{ONE}/resume", form_token=token)).status_code == 409
        assert (await world.press(f"{ONE}/replay", form_token=token)).headers["location"].endswith("?told=replay-none")


@asynccontextmanager
async def open_stream(world: World, page: str) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Open what a page listens to; gives a function that reads until something has come, and returns all that has."""
    url = world.client.base_url
    cookies = "; ".join(f"{name}={value}" for name, value in world.client.cookies.items())
    query = str(httpx.QueryParams({"page": page}))
    head = f"GET /stream?{query} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nCookie: {cookies}\r\n\r\n"
    told = b""

    async def read(wanted: bytes) -> bytes:
        nonlocal told
        with trio.fail_after(15):
            while wanted not in told:
                told += await raw.receive_some()
        return told

    async with await trio.open_tcp_stream(url.host, url.port or 0) as raw:
        await raw.send_all(head.encode())
        yield read


async def test_an_open_page_is_sent_what_changes_and_nothing_else() -> None:
    async with open_world() as world:
        await world.client.get("/")
        async with open_stream(world, "/") as read:
            begun = await read(b"event: beat")
            assert b"text/event-stream" in begun
            assert b"event: parts" in begun
            assert b"headline" in begun
            assert b"&lt;script&gt;" in begun
            assert b"<script" not in begun
            await world.store.connectors.update("a/b %?#", lambda one: attrs.evolve(one, last_synced=now()))
            later = (await read(b"just now"))[len(begun) :]
            assert b"headline" not in later
            assert b"tr id" not in later


async def test_a_page_of_what_is_gone_says_so() -> None:
    async with open_world() as world:
        told = await world.client.get("/connectors/none")
        assert (told.status_code, "That is not here" in told.text) == (404, True)
        assert (await world.client.get("/nowhere")).json() == {"error": "There is nothing at /nowhere."}
        await world.client.get("/")
        async with open_stream(world, "/connectors/none") as read:
            await read(b"event: gone")


# Parts on their own


@given(st.text(), st.text())
def test_text_never_becomes_html(text: str, value: str) -> None:
    made = element("p", text, foreign(text), title=value)
    assert made.count("<") == 4
    assert made.count('"') == 2
    inner = re.fullmatch(r'<p title="(.*)">(.*)<bdi>(.*)</bdi></p>', made, re.DOTALL)
    assert inner is not None
    assert html.unescape(inner[2]) == html.unescape(html.escape(text.replace("\x00", "\ufffd")))


@pytest.mark.parametrize("target", ["javascript:alert(1)", "https://evil.example", "data:text/html,x", ""])
def test_links_lead_nowhere_else(target: str) -> None:
    with pytest.raises(ValueError, match="does not link"):
        element("a", "x", href=target)


def test_children_may_be_missing_or_many() -> None:
    assert joined(None, ["a", [Markup("<b>"), 3]], "<") == "a<b>3&lt;"
    assert element("input", type="text", required=True, hidden=False, value=None) == '<input type="text" required>'


@pytest.mark.parametrize(
    ("wanted", "goes"),
    [
        ("/jobs/1?x=2", "/jobs/1?x=2"),
        ("//evil", "/"),
        ("https://evil", "/"),
        ("/\\evil", "/"),
        ("/a\nb", "/"),
        ("", "/"),
    ],
)
def test_a_login_leads_only_to_this_page(wanted: str, goes: str) -> None:
    assert local_path(wanted) == goes


def test_sessions_end_and_cannot_be_made_by_others() -> None:
    access = Access("secret")
    session = access.begin(1000.0, is_member=True)
    cookie = f"callboard_session={session.value}"
    assert access.read(cookie, 1001.0) == session
    assert Access("secret").read(cookie, 1001.0) == session
    assert Access("other").read(cookie, 1001.0) is None
    assert access.read(cookie, 1000.0 + 13 * 3600) is None
    visitor = access.begin(1000.0, is_member=False)
    assert not visitor.is_member
    forged = "m" + visitor.value[1:]
    for broken in (forged, "x", "", "..", f"{session.value}0", session.value[:-1], "ä"):
        assert access.read(f"callboard_session={broken}", 1001.0) is None
    assert access.is_form_token(session, access.form_token(session))
    assert not access.is_form_token(session, access.form_token(visitor))
    assert not access.is_bearer("Bearer ")
    assert not Access(None).is_token("")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8089", True), ("[::1]:8089", True), ("localhost", True), ("LOCALHOST:1", True), ("board", True),
        ("evil.example", False), ("127.0.0.1.evil.example", False), ("localhost.evil", False), ("", False), ("[", False),
    ],
)  # fmt: skip
def test_only_addresses_and_names_of_ours_are_known(host: str, known: bool) -> None:
    assert Access(None, ["Board"]).knows_host(host) is known


def test_browsers_say_where_a_form_came_from() -> None:
    assert is_own_origin(None, None, "a:1")
    assert is_own_origin("http://a:1", "same-origin", "A:1")
    assert not is_own_origin("http://a:2", None, "a:1")
    assert not is_own_origin(None, "same-site", "a:1")


def test_only_parts_that_differ_are_sent_and_none_twice() -> None:
    def page(order: str, cell: str) -> Parts:
        parts = Parts()
        parts.live("rows", f"[{cell}]", mark=order)
        parts.live("cell", cell, within="rows")
        return parts

    first = page("a", "1")
    assert first.changed_since(None) == {"rows": "[1]"}
    assert page("a", "1").changed_since(first) == {}
    assert page("a", "2").changed_since(first) == {"cell": "2"}
    assert page("b", "2").changed_since(first) == {"rows": "[2]"}


def test_throughput_is_sampled_drawn_and_forgotten() -> None:
    class Run:
        listed = 1000

        def progress(self) -> Any:
            return self

    speeds, run = Throughput(), Run()
    speeds.sample({"job": "c"}, {"job": run}, 1.0)
    run.listed += 500
    speeds.sample({"job": "c"}, {"job": run}, 2.0)
    assert list(speeds.of("c")) == [0.0, 250.0]
    drawn = sparkline(speeds.of("c"))
    assert "now 250, at most 250" in drawn
    for _ in range(SAMPLES + 1):
        speeds.sample({}, {}, 1.0)
    assert speeds.of("c") == ()
    assert sparkline(()) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"),
        (30, "in under a minute"),
        (-300, "5 min ago"),
        (5400, "in 1 h 30 min"),
        (-86400 * 3, "3 days ago"),
    ],
)
def test_moments_are_told_as_people_do(seconds: float, said: str) -> None:
    assert ago(seconds, now()) == said


def test_what_nobody_expects_can_be_shown() -> None:
    assert "Never heard of" in chip("never_heard_of")
    assert "never" in moment(None, now())
    leaf = TreeNode(
        name=HOSTILE, kind="Actor", state="waiting to restart", since_s=1.0, restarts=3, waiting=2, last_error=HOSTILE
    )
    deep = leaf
    for _ in range(30):
        deep = TreeNode(name="x", kind="Supervisor", state="running", since_s=1.0, children=(deep,))
    page = tree_page(deep).body
    assert "<script>" not in page
    assert "Waiting to restart" in page
    empty = overview_page({"connectors": [], "jobs": [], "waiting": []}, Throughput(), now())
    assert "Nothing on the board yet" in empty.body
