"""`callboard top` in a real terminal of its own: what is drawn, scrolling, another size, a cut line, and no terminal at all."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import pytest

from callboard.cli.top_screen import Canvas, View, wishes

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")


def connector(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"c{number}", "name": f"Company {number:03}", "service_type": "dir", "health": "ok", "why": None, "paused": None,
        "last_synced": None, "next_sync": None, "why_not_scheduled": None, "running": [], **more,
    }  # fmt: skip


def seen(*connectors: dict[str, Any], **more: Any) -> dict[str, Any]:
    facts = {"at": "2026-01-01T10:00:00", "worker": "here", "jobs": [], "waiting": []}
    return {**facts, "connectors": list(connectors), **more}


JOB = {
    "id": "j", "connector_id": "c7", "job_type": "access_control",
    "progress": {"listed": 1200, "indexed": 7, "deleted": 0, "failed": 3, "seconds": 10.0, "waiting_on": "elasticsearch"},
}  # fmt: skip
MANY = seen(
    *(connector(number) for number in range(500)), connector(999, health="failing", why="[red]The door\nis locked.")
)


@attrs.define
class Service:
    """Answers as a service does; slow or with something else if told so."""

    facts: dict[str, Any]
    delay_s: float = 0.0
    status: int = 200

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(service.delay_s)
                body = json.dumps(service.facts).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    return

            def log_message(self, *told: object) -> None:
                return

        ThreadingHTTPServer.allow_reuse_address = True
        with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "callboard", "top", *arguments]


@attrs.define
class Terminal:
    """The other end of a terminal in which the command runs."""

    running: subprocess.Popen[bytes]
    ours: int
    told: bytes = b""

    @property
    def screen(self) -> str:
        """The frame that was drawn last, as a person reads it."""
        frame = self.told.decode(errors="replace").rpartition("\x1b[H")[2]
        return ESCAPES.sub("", frame).replace("\r", "")

    def read(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.ours], [], [], left)[0]:
                self.told += os.read(self.ours, 65536)

    def until(self, *words: str, seconds: float = 20.0) -> str:
        until = time.monotonic() + seconds
        while not all(word in self.screen for word in words):
            assert time.monotonic() < until, f"{words} did not come: {self.screen}"
            self.read(0.1)
        return self.screen

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.running.send_signal(signal.SIGWINCH)

    def leave(self) -> int:
        self.type("q")
        return self.end()

    def end(self) -> int:
        """Wait for its end. What is drawn has to be read: nobody can end while the terminal is full."""
        while True:
            try:
                self.told += os.read(self.ours, 65536)
            except OSError:
                # A terminal that nobody has open any more.
                return self.running.wait(10)


@contextmanager
def terminal(*arguments: str, columns: int = 100, rows: int = 24, **environment: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    running = subprocess.Popen(
        command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, "TERM": "xterm", **environment}
    )
    os.close(theirs)
    try:
        yield Terminal(running, ours)
    finally:
        running.kill()
        running.wait()
        os.close(ours)


def test_it_draws_and_leaves_with_q_and_gives_the_terminal_back() -> None:
    with Service(seen(connector(1))).serving() as url, terminal("--url", url) as top:
        assert "Company 001" in top.until("No job runs now", "Connectors (1)", "q leaves")
        assert b"\x1b[?1049h" in top.told
        assert top.leave() == 0
        assert top.told.endswith(b"\x1b[?25h\x1b[?1049l")


def test_five_hundred_connectors_are_scrolled_through() -> None:
    with Service(MANY).serving() as url, terminal("--url", url, columns=120, rows=30) as top:
        first = top.until("Connectors (501)", "1-")
        assert "Company 999" in first, "who needs somebody comes first"
        assert "[red]The door is locked." in first
        assert "Company 400" not in first
        top.type("G")
        top.until("Company 499", "-508 of 508")
        top.type("g")
        top.until("Company 999")
        top.type("\x1b[6~\x1b[6~")
        page = top.until("Company 050")
        assert "Company 999" not in page
        last = max(re.findall(r"Company \d+", page))
        top.type("\x1b[B")
        following = f"Company {int(last[-3:]) + 1:03}"
        assert last in top.until(following)
        top.type("\x1b[5~" * 30)
        top.until("Company 999")
        assert top.leave() == 0


def test_another_size_is_drawn_at_once() -> None:
    with Service(MANY).serving() as url, terminal("--url", url, "--every", "60", columns=120, rows=30) as top:
        before = top.until("q leaves").splitlines()
        assert len(before) == 30
        top.resize(70, 12)
        top.until("Company 999", "1-10 of", seconds=5)
        small = top.screen.splitlines()
        assert len(small) == 12
        assert max(map(len, small)) <= 70
        top.resize(160, 50)
        top.until("1-48 of", seconds=5)
        assert len(top.screen.splitlines()) == 50
        assert top.leave() == 0


def test_a_narrow_terminal_shows_fewer_columns_and_whole_words() -> None:
    facts = seen(connector(7, health="paused", paused="paused since yesterday"), jobs=[JOB], waiting=[])
    with Service(facts).serving() as url, terminal("--url", url, columns=64) as top:
        narrow = top.until("Running jobs (1)")
        assert "Company 007" in narrow
        assert "elasticsearch" in narrow
        assert "paused since" in narrow
        assert "Next sync" not in narrow
        top.resize(140, 24)
        wide = top.until("Next sync", "Kind")
        assert "access control" in wide
        assert top.leave() == 0


def test_a_cut_line_is_told_and_mends_by_itself() -> None:
    service = Service(seen(connector(1)))
    with service.serving() as url, terminal("--url", url, "--every", "0.2") as top:
        top.until("Company 001")
        service.status = 500
        top.until("answered 500", "Company 001")
        service.status = 200
        top.until("Connectors (1)")
        service.facts = seen(connector(2))
        top.until("Company 002")
        assert top.leave() == 0


def test_a_service_that_goes_and_comes_again() -> None:
    service = Service(seen(connector(1)))
    with service.serving() as url:
        port = int(url.rpartition(":")[2])
        top_context = terminal("--url", url, "--every", "0.2")
        top = top_context.__enter__()
        top.until("Company 001")
    try:
        top.until("No service answers", "As it was ")
        service.facts = seen(connector(2))
        with service.serving(port):
            top.until("Company 002")
            assert "No service answers" not in top.screen
            assert top.leave() == 0
    finally:
        top_context.__exit__(None, None, None)


def test_keys_work_while_the_service_hangs() -> None:
    service = Service(MANY)
    with service.serving() as url, terminal("--url", url, "--every", "0.2", rows=20) as top:
        top.until("Company 999")
        service.delay_s = 4.0
        time.sleep(0.5)
        top.type("G")
        top.until("Company 499", seconds=2.0)
        began = time.monotonic()
        assert top.leave() == 0
        assert time.monotonic() - began < 3.0


def test_ctrl_c_ends_it_in_one_line() -> None:
    with Service(seen(connector(1))).serving() as url, terminal("--url", url) as top:
        top.until("Company 001")
        top.running.send_signal(signal.SIGINT)
        assert top.end() == 130
        assert b"Traceback" not in top.told


@pytest.mark.parametrize("arguments", [("--once",), ()])
def test_without_a_terminal_it_is_shown_once(arguments: tuple[str, ...]) -> None:
    with Service(MANY).serving() as url:
        told = subprocess.run(
            command("--url", url, *arguments),
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
        )
    assert "\x1b" not in told.stdout
    assert "Company 499" in told.stdout
    assert max(map(len, told.stdout.splitlines())) > 100, "a pipe is not as narrow as an old terminal"


def test_a_terminal_that_can_do_nothing_gets_plain_text() -> None:
    with Service(seen(connector(1))).serving() as url, terminal("--url", url, TERM="dumb") as top:
        assert top.end() == 0
        assert b"\x1b[?1049h" not in top.told


def test_nobody_who_types_still_sees_it() -> None:
    ours, theirs = pty.openpty()
    with Service(seen(connector(1))).serving() as url:
        running = subprocess.Popen(
            command("--url", url),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(theirs)
        top = Terminal(running, ours)
        try:
            top.until("Company 001")
            running.send_signal(signal.SIGINT)
            assert top.end() == 130
        finally:
            running.kill()
            running.wait()
            os.close(ours)


def test_scripts_get_json_and_a_missing_service_is_one_line() -> None:
    with Service(MANY).serving() as url:
        told = subprocess.run(command("--url", url, "--format", "json"), capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == MANY
    failed = subprocess.run(
        command("--url", "http://127.0.0.1:9", "--once"), capture_output=True, text=True, check=False
    )
    assert failed.returncode != 0
    assert "No service answers at http://127.0.0.1:9" in failed.stderr


# The parts


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (b"q", ["leave"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"jjkG", ["down", "down", "up", "end"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x1b[15~q", ["leave"]),
        (b"\x1b[1;5Aq", ["leave"]),
        (b"x\xff\x1b", []),
        (b"\x1b[", []),
        (b"", []),
    ],
)
def test_keys_are_read(typed: bytes, wanted: list[str]) -> None:
    assert wishes(typed) == wanted


def test_a_view_stays_within_what_there_is() -> None:
    view = View()
    assert view.moved("up", 100, 10) == View(0)
    assert view.moved("end", 100, 10) == View(90)
    assert View(90).moved("page down", 100, 10) == View(90)
    assert View(90).within(20, 10) == View(10)
    assert View(90).within(5, 10) == View(0)
    assert View(3).moved("nothing", 100, 10) == View(3)


def test_hundreds_of_connectors_are_laid_out_once_and_fast() -> None:
    from rich.console import Console

    canvas = Canvas(Console(width=120, height=40, file=io.StringIO(), force_terminal=True))
    canvas.frame(MANY, View())
    lines = canvas.lines(MANY, 120)
    began = time.process_time()
    for first in range(100):
        canvas.frame(MANY, View(first))
    assert time.process_time() - began < 2.0
    assert canvas.lines(MANY, 120) is lines
