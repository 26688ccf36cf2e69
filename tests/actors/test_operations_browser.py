"""The operations page in a real browser: what people do, what they see while things happen, and what happens when the line is cut."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx
import pytest
import trio

from callboard.actors.service import Service, open_service
from callboard.actors.sync.dead_letters import DeadLetters
from callboard.actors.sync.report import FailedDocument
from callboard.node import open_node
from callboard.protocol import JobType, Pipeline
from callboard.protocol import connectors as transitions
from callboard.protocol.configuration import setting
from callboard.protocol.store import Store, Target, open_store
from callboard.sources.errors import SourceError
from callboard.sources.source import Document, Features, Listing, Partition, Source

CHROMEDRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

if (CHROMEDRIVER is None or CHROMIUM is None) and os.environ.get("CI") != "true":
    pytestmark = pytest.mark.skip(reason="chromium and chromium-driver are not installed")


# The browser


@attrs.frozen
class Browser:
    """A few commands of the WebDriver protocol."""

    client: httpx.AsyncClient
    session: str

    async def command(self, method: str, path: str, **body: Any) -> Any:
        sent = None if method == "GET" else body
        told = (await self.client.request(method, f"/session/{self.session}{path}", json=sent)).json()["value"]
        if isinstance(told, dict) and "error" in told:
            raise AssertionError(f"{path}: {told['message']}")
        return told

    async def go(self, url: str) -> None:
        await self.command("POST", "/url", url=url)

    async def run(self, script: str, *arguments: Any) -> Any:
        return await self.command("POST", "/execute/sync", script=script, args=list(arguments))

    async def text(self, selector: str = "main") -> str:
        found = await self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return str(found)

    async def click(self, selector: str) -> None:
        found = await self.command("POST", "/element", using="css selector", value=selector)
        await self.command("POST", f"/element/{found[ELEMENT]}/click")

    async def press(self, said: str) -> None:
        """Click what says this."""
        wanted = f"//*[self::a or self::button][contains(normalize-space(.), {json.dumps(said, ensure_ascii=False)})]"
        found = await self.command("POST", "/element", using="xpath", value=wanted)
        await self.command("POST", f"/element/{found[ELEMENT]}/click")

    async def type(self, selector: str, keys: str) -> None:
        found = await self.command("POST", "/element", using="css selector", value=selector)
        await self.command("POST", f"/element/{found[ELEMENT]}/value", text=keys)

    async def keys(self, keys: str) -> None:
        """Type into whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        await self.command("POST", "/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    async def devtools(self, command: str, **parameters: Any) -> Any:
        return await self.command("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    async def until(self, wanted: str, selector: str = "main", seconds: float = 15.0) -> str:
        """Wait until a part of the page says this."""
        said = ""
        with trio.move_on_after(seconds):
            while wanted not in (said := await self.text(selector)):  # noqa: ASYNC110 - browsers tell nobody
                await trio.sleep(0.1)
            return said
        raise AssertionError(f"{wanted!r} did not come; the page says: {said[:2000]}")

    async def complaints(self) -> list[str]:
        """What the browser itself found wrong: broken rules of the content policy, errors of scripts."""
        told = await self.command("POST", "/se/log", type="browser")
        return [one["message"] for one in told if one["level"] == "SEVERE"]


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start the driver and a headless browser, and end both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(CHROMEDRIVER), f"--port={port}", "--log-level=OFF"]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        process = await nursery.start(start, command)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
            with trio.fail_after(30):
                while True:
                    try:
                        if (await client.get("/status")).json()["value"]["ready"]:
                            break
                    except httpx.HTTPError:
                        await trio.sleep(0.1)
            wanted = {
                "goog:chromeOptions": {
                    "binary": CHROMIUM,
                    "args": [
                        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                        "--window-size=1280,900", "--no-first-run", "--disable-background-networking",
                    ],
                },
                "goog:loggingPrefs": {"browser": "ALL"},
            }  # fmt: skip
            made = (await client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})).json()["value"]
            browser = Browser(client, made["sessionId"])
            try:
                yield browser
            finally:
                with trio.move_on_after(10, shield=True):
                    await browser.command("DELETE", "")
                process.terminate()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as opened:
        yield opened


# What it looks at


@attrs.frozen
class StageConfig:
    count: int = setting("Count", default=3)
    password: str = setting("Password", default="curtain", sensitive=True)
    scene: str = setting("Scene", default="quick")


class Stage(Source[StageConfig]):
    """Lists at once; or slowly, in parts; or cannot be used."""

    service_type = "stage"
    name = "Stage"
    Config = StageConfig
    features = Features(resumable=True)
    shown = 200

    async def ping(self) -> None:
        if self.config.scene == "broken":
            raise SourceError("The stage door is locked. <script>document.title='broken'</script>")

    async def partitions(self, rules: Any = None) -> AsyncIterator[Partition]:
        keys = ["balcony", "stalls", "<b>boxes</b>"] if self.config.scene == "slow" else ["house"]
        for key in keys:
            yield Partition(key)

    async def documents(self, partition: Partition, checkpoint: Any = None) -> Listing:
        count = 100_000 if self.config.scene == "slow" else self.config.count
        if self.config.scene == "shrinking":
            count = type(self).shown
        for number in range(count):
            yield Document(f"{partition.key}-{number}", {"number": number})
            if self.config.scene == "slow":
                await trio.sleep(0.003 if partition.key == "stalls" else 0.01)


@attrs.frozen
class World:
    store: Store
    service: Service

    @property
    def url(self) -> str:
        return str(self.service.operations_url)

    async def until(self, decide: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
        with trio.fail_after(seconds):
            while not await decide():  # noqa: ASYNC110 - stores tell nobody
                await trio.sleep(0.05)

    async def begin(self, connector_id: str) -> str:
        """Ask for a sync."""
        connector = await self.store.connectors.get(connector_id)
        job = await self.store.jobs.create(connector, JobType.FULL)
        self.service.look_now()
        return str(job.id)

    async def sync(self, connector_id: str) -> str:
        """Run one job to its end."""
        job_id = await self.begin(connector_id)

        async def is_over() -> bool:
            return (await self.store.jobs.get(job_id)).status.is_terminal

        await self.until(is_over)
        return job_id


async def make(store: Store, connector_id: str, name: str, scene: str, **values: Any) -> None:
    await store.connectors.create(
        connector_id, index_name=f"stage-{connector_id}".lower(), name=name, service_type="stage"
    )
    entered = {"scene": scene, **values}
    stored = {
        key: {"value": value, "label": key.capitalize(), "sensitive": key == "password"}
        for key, value in entered.items()
    }
    await store.connectors.update(
        connector_id,
        lambda present: attrs.evolve(
            transitions.configured(present, stored), pipeline=Pipeline(), configuration=stored
        ),
    )


@asynccontextmanager
async def open_world(token: str | None = None, *, many: int = 0, **settings: Any) -> AsyncIterator[World]:
    """A service with a few connectors, and its page."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(port=None))
        store = await stack.enter_async_context(open_store(Target(embedded=node.app)))
        await store.ensure_indices()
        await make(store, "quick", "Prompt book", "quick", count=40, password="hush")
        await make(store, "slow", "The long run", "slow")
        await make(store, "broken", "Stage <i>door</i>", "broken")
        await make(store, "shrinking", "Shrinking cast", "shrinking")
        for number in range(many):
            await make(store, f"many-{number}", f"Company {number:03}", "quick", count=1)
        wanted: dict[str, Any] = {
            "connectors": [],
            "service.worker_mode": True,
            "service.service_types": ["stage"],
            "service.idling": 1.0,
            "callboard.text_extraction.engine": "plain",
            "callboard.operations.enabled": True,
            "callboard.operations.port": 0,
            **({"callboard.operations.token": token} if token else {}),
            **settings,
        }
        service = await stack.enter_async_context(open_service(wanted, embedded=node.app, sources={"stage": Stage}))
        world = World(store, service)

        async def is_up() -> bool:
            return service.operations_url is not None and "broken" in service.failing()

        await world.until(is_up, 60.0)
        yield world


@attrs.define(eq=False)
class Line:
    """A line to the service that can be cut, or fall silent."""

    port: int
    mode: str = "open"
    _scopes: set[trio.CancelScope] = attrs.field(factory=set)

    def cut(self) -> None:
        self.mode = "cut"
        for scope in list(self._scopes):
            scope.cancel()

    async def carry(self, near: trio.SocketStream) -> None:
        if self.mode == "cut":
            await near.aclose()
            return
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                far = await trio.open_tcp_stream("127.0.0.1", self.port)
                async with near, far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass, near, far)
                    await self._pass(far, near)
                    nursery.cancel_scope.cancel()
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                pass
            except BaseExceptionGroup as group:
                if group.split((trio.BrokenResourceError, trio.ClosedResourceError, OSError))[1] is not None:
                    raise
            finally:
                self._scopes.discard(scope)

    async def _pass(self, one: trio.SocketStream, other: trio.SocketStream) -> None:
        while data := await one.receive_some(65536):
            if self.mode == "silent":
                continue
            await other.send_all(data)


@asynccontextmanager
async def open_line(url: str) -> AsyncIterator[tuple[Line, str]]:
    line = Line(int(url.rpartition(":")[2]))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, line.carry, 0)
        yield line, f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


# What people do


async def test_people_find_what_needs_them_start_a_sync_watch_it_pause_it_and_end_it(browser: Browser) -> None:
    async with open_world() as world:
        await browser.go(world.url)
        await browser.until("1 connector needs attention", "h1")
        assert await browser.run("return document.title") == "Connectors · Callboard"
        said = await browser.text("tbody tr:first-child")
        assert "Stage <i>door</i>" in said
        assert "The stage door is locked. <script>" in said
        await browser.press("The long run")
        await browser.press("Start a full sync")
        await browser.until("The sync is asked for", ".notice")
        await browser.until("sets the pace")
        said = await browser.until("<b>boxes</b>")
        assert "balcony" in said
        before = await read_count(browser)
        await browser.until("Began to read", "#content")

        async def has_moved() -> bool:
            return await read_count(browser) > before

        await world.until(has_moved)
        assert await browser.run("return document.querySelectorAll('svg.spark polyline').length") >= 1
        job_url = await browser.run("return location.pathname")
        await browser.press("Pause")
        await browser.until("The job is paused", ".notice")
        await browser.until("Paused", ".facts")
        assert not world.service._state.running
        await browser.press("Resume")
        await browser.until("Running", ".facts")
        await browser.press("Cancel …")
        await browser.until("Cancel the sync of The long run?", "h1")
        await browser.press("Cancel the sync")
        await browser.until("Canceled", ".facts", 30)
        story = await browser.until("Somebody asked for the end of the job")
        assert "Somebody paused the job" in story
        assert await browser.run("return location.pathname") == job_url
        assert await browser.complaints() == []


async def read_count(browser: Browser) -> int:
    found = await browser.run("return document.querySelector('.numbers dd')?.textContent ?? '0'")
    return int(str(found).replace(",", ""))


async def test_held_back_deletions_are_looked_at_and_confirmed_and_dead_letters_tried_again(browser: Browser) -> None:
    Stage.shown = 200
    async with open_world() as world:
        await world.sync("shrinking")
        Stage.shown = 20
        job_id = await world.sync("shrinking")
        letters = DeadLetters(world.store, "stage-quick", "quick", "job")
        letters.add(
            FailedDocument("<img src=x onerror=alert(1)>", "extraction", "It is no picture.", document_id="one")
        )
        await letters.flush()
        await world.store.content.refresh("stage-shrinking")
        assert await world.store.content.count("stage-shrinking") == 200
        await browser.go(f"{world.url}/jobs/{job_id}")
        await browser.until("180 deletions wait for you")
        await browser.press("Look and confirm")
        await browser.until("Delete 180 documents?", "h1")
        await browser.press("Delete 180 documents")
        await browser.until("The deletions are carried out", ".notice")
        assert await world.store.content.count("stage-shrinking", refresh=True) == 20
        assert "deletions wait" not in await browser.text()
        await browser.go(f"{world.url}/connectors/quick")
        await browser.until("<img src=x onerror=alert(1)>")
        await browser.press("Try all again")
        await browser.until("tries these documents again", ".notice")
        await browser.until("will be tried again")
        said = await browser.text()
        assert "hush" not in said
        assert "Password" in said
        await browser.press("Switch on")
        await browser.until("The schedule is on", ".notice")
        assert (await world.store.connectors.get("quick")).scheduling.full.enabled
        assert await browser.complaints() == []


async def test_a_connector_is_paused_and_resumed(browser: Browser) -> None:
    async with open_world() as world:
        await world.begin("slow")
        await browser.go(f"{world.url}/connectors/slow")
        await browser.until("See it run")
        await browser.press("Pause")
        await browser.until("The connector is paused, for all services", ".notice")
        await browser.until("next once resumed", ".facts")
        assert "by the operations page" in await browser.text("[aria-labelledby=paused]")

        async def is_idle() -> bool:
            return not world.service._state.running

        await world.until(is_idle)
        await browser.go(world.url)
        await browser.until("Paused", "tbody")
        await browser.click("tbody a[href='/connectors/slow']")
        await browser.press("Resume")
        await browser.until("The connector syncs again", ".notice")
        await browser.until("See it run")
        assert await browser.complaints() == []


async def test_empty_and_broken_states_say_what_to_do(browser: Browser) -> None:
    async with open_node(port=None) as node:
        is_away = False

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if not is_away:
                await node.app(scope, receive, send)
                return
            headers = [(b"content-type", b"application/json"), (b"x-elastic-product", b"Elasticsearch")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error":{"type":"x","reason":"gone fishing"}}'})

        settings = {
            "service.worker_mode": True, "service.service_types": ["stage"], "callboard.text_extraction.engine": "plain",
            "callboard.operations.enabled": True, "callboard.operations.port": 0, "service.idling": 1.0,
        }  # fmt: skip
        async with (
            open_store(Target(embedded=app)) as store,
            open_service(settings, embedded=app, sources={"stage": Stage}) as service,
        ):
            world = World(store, service)

            async def is_up() -> bool:
                return service.operations_url is not None

            await world.until(is_up)
            await browser.go(world.url)
            await browser.until("The stage is empty", "h1")
            await browser.until("callboard connector create")
            await browser.until("Live", ".link-state")
            await make(store, "quick", "Prompt book", "quick")
            await browser.until("Prompt book")
            await browser.press("Prompt book")
            await browser.until("It has never been synced")
            await browser.until("No document has failed")
            await browser.until("Live", ".link-state")
            is_away = True
            await browser.until("does not answer", ".link-state", 30)
            await trio.sleep(6)
            assert "does not answer" in await browser.text(".link-state"), "no sign of life passes for all being well"
            is_away = False
            await browser.until("Live", ".link-state", 30)


async def test_a_token_is_asked_for_once(browser: Browser) -> None:
    async with open_world("open sesame") as world:
        await browser.go(f"{world.url}/actors")
        await browser.type("#token", "sesame\ue007")
        await browser.until("That is not the token")
        await browser.type("#token", "open sesame\ue007")
        await browser.until("Who looks after whom")
        assert await browser.run("return location.pathname") == "/actors"
        assert "scheduler" in await browser.text()
        assert await browser.run("return document.cookie") == ""
        await browser.press("Sign out")
        await browser.go(world.url)
        await browser.until("This service shows itself to those who know its token")


async def test_a_cut_line_is_shown_and_mended(browser: Browser) -> None:
    async with open_world() as world, open_line(world.url) as (line, url):
        await browser.go(url)
        await browser.until("Live", ".link-state")
        line.cut()
        await browser.until("Reconnecting", ".link-state")
        await world.store.connectors.update("quick", lambda present: attrs.evolve(present, name="Understudy"))
        line.mode = "open"
        await browser.until("Live", ".link-state")
        await browser.until("Understudy")
        # A line that only falls silent is noticed as well.
        line.mode = "silent"
        await browser.until("Reconnecting", ".link-state", 20)
        line.cut()
        line.mode = "open"
        await browser.until("Live", ".link-state", 20)


async def test_five_hundred_connectors_are_found_by_name_and_state_and_by_keyboard(browser: Browser) -> None:
    async with open_world(many=500, **{"service.idling": 30.0}) as world:
        await browser.go(world.url)
        await browser.until("Company 499", seconds=60)
        assert await browser.run("return document.querySelectorAll('tr[data-search]').length") == 504
        await browser.keys("/")
        assert await browser.run("return document.activeElement.id") == "filter"
        await browser.keys("company 04")
        shown = "return [...document.querySelectorAll('tr[data-search]')].filter((one) => !one.hidden).length"
        assert await browser.run(shown) == 10
        assert await browser.text("[data-told]") == "10 of 504 connectors shown"
        took_ms = await browser.run(
            "const input = document.querySelector('#filter'); const from = performance.now();"
            "input.value = 'company'; input.dispatchEvent(new Event('input', {bubbles: true})); document.body.offsetHeight;"
            "return performance.now() - from"
        )
        assert took_ms < 2000
        await browser.run("document.querySelector('#filter').value = 'nobody'")
        await browser.type("#filter", "!")
        assert "No connector fits" in await browser.text("[data-none]")
        await browser.press("Show all")
        await browser.click(".choice:nth-of-type(2)")
        assert await browser.run(shown) == 1
        await browser.keys("\ue007")
        assert await browser.run("return location.search") == "?state=failing"


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_everything_can_be_read_and_reached_on_a_phone(browser: Browser, theme: str) -> None:
    async with open_world() as world:
        job_id = await world.sync("quick")
        long_id = await world.begin("slow")
        await browser.devtools(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
        )
        await browser.devtools(
            "Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=2, mobile=True
        )
        for path in (
            "/",
            "/connectors/broken",
            "/connectors/quick",
            f"/jobs/{job_id}",
            f"/jobs/{long_id}",
            "/actors",
            "/nowhere",
        ):
            await browser.go(world.url + path)
            if path.endswith(long_id):
                await browser.until("balcony")
                await trio.sleep(3)
            wide = await browser.run(
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, path
            if path == "/nowhere":
                continue
            nameless = await browser.run(NAMELESS)
            assert nameless == [], path
            faint = await browser.run(FAINT)
            assert faint == [], path


async def test_who_listens_or_has_no_mouse_finds_the_way_and_is_not_talked_at(browser: Browser) -> None:
    async with open_world() as world:
        job_id = await world.sync("quick")
        long_id = await world.begin("slow")
        running = f"/jobs/{long_id}"
        paths = (
            "/",
            "/connectors/broken",
            "/connectors/quick",
            f"/jobs/{job_id}",
            running,
            f"{running}/cancel",
            "/actors",
            "/jobs/none",
        )
        for path in paths:
            await browser.go(world.url + path)
            assert await browser.run(LANDMARKS) == [1, 1, 1, 1, 1, "en"], path
            levels = await browser.run(
                "return [...document.querySelectorAll('h1,h2,h3')].map((one) => +one.tagName[1])"
            )
            assert all(after - before <= 1 for before, after in zip([0, *levels], levels, strict=False)), (path, levels)
            assert await browser.run(REPEATED) == [], path
            # The first key leads past the head of the page, and everything that can be used comes in the order of the page.
            await browser.keys("\ue004")
            assert await browser.run("return document.activeElement.className") == "skip", path
            assert (
                await browser.run(
                    'return document.querySelectorAll(\'[tabindex]:not([tabindex="0"], [tabindex="-1"])\').length'
                )
                == 0
            )
            ring = await browser.run("return getComputedStyle(document.activeElement).outlineStyle")
            assert ring == "solid", path
        await browser.go(world.url + running)
        await browser.until("Live", ".link-state")
        await browser.until("sets the pace")
        assert await browser.run(CHATTER) == []
        said = await browser.run(LIVE)
        await browser.run("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Pause').focus()")
        before = await read_count(browser)

        async def has_moved() -> bool:
            return await read_count(browser) > before + 500

        await world.until(has_moved)
        assert await browser.run(LIVE) == said, "numbers that change are not read aloud"
        assert await browser.run("return document.activeElement.textContent") == "Pause", "the focus stays where it was"
        await browser.keys("\ue007")
        await browser.until("The job is paused", ".notice[role=status]")


LANDMARKS = """
const count = (selector) => document.querySelectorAll(selector).length;
return [count('body > header'), count('nav[aria-label]'), count('main#content'), count('body > footer'), count('h1'), document.documentElement.lang];
"""
REPEATED = """
const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
return ids.filter((id, at) => ids.indexOf(id) !== at);
"""
CHATTER = """
return [...document.querySelectorAll('[data-live]')].filter((one) => one.closest('[aria-live], [role=status], [role=alert], [role=log]'))
  .map((one) => one.dataset.live);
"""
"""Parts that change by themselves and would be read aloud each time."""

LIVE = """
return [...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map((one) => one.textContent);
"""

NAMELESS = """
return [...document.querySelectorAll('a, button, input:not([type=hidden]), svg, meter')].filter((one) => {
  if (one.getAttribute('aria-hidden') === 'true' || !one.checkVisibility()) return false;
  const label = one.id ? document.querySelector(`label[for="${one.id}"]`) : one.closest('label');
  return !(one.getAttribute('aria-label') || one.textContent.trim() || label?.textContent.trim());
}).map((one) => one.outerHTML.slice(0, 200));
"""
"""Whatever can be used and has no name for those who listen."""

FAINT = """
const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
function paint(colours) {
  canvas.clearRect(0, 0, 1, 1);
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function light(rgb) {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const faint = [];
for (const one of document.querySelectorAll('main *, header *, footer *')) {
  if (!one.checkVisibility() || one.closest('.unseen, [data-link=quiet], svg')) continue;
  if (![...one.childNodes].some((each) => each.nodeType === 3 && each.data.trim())) continue;
  const grounds = [];
  for (let at = one; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
  const under = paint(['white', ...grounds]);
  const ink = paint([`rgb(${under})`, getComputedStyle(one).color]);
  const [dark, bright] = [light(under), light(ink)].sort((a, b) => a - b);
  const contrast = (bright + 0.05) / (dark + 0.05);
  if (contrast < 4.5) faint.push(`${one.tagName}.${one.className}: ${contrast.toFixed(2)} ${one.textContent.trim().slice(0, 40)}`);
}
return [...new Set(faint)];
"""
"""Text that stands out too little from what is under it (less than 4.5 to 1)."""
