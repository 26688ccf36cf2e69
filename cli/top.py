"""`callboard top`: a running service, live in the terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import click

from .exits import Exit
from .failures import CommandFailed
from .options import Command, format_option, read_secret_file
from .terminal import is_terminal, print_json

DEFAULT_URL = "http://127.0.0.1:8089"
PIPE_WIDTH = 200


@click.command(cls=Command)
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Operations address of the service.")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read its token from the first line of a file; or set CALLBOARD_OPERATIONS_TOKEN.",
)
@click.option(
    "--every", "every_s", default=1.0, show_default=True, type=click.FloatRange(0.2), help="Seconds between looks."
)
@click.option("--once", is_flag=True, help="Show it once and end.")
@format_option("text", "json", default="text")
def top(url: str, token_file: Path | None, every_s: float, once: bool, format_: str) -> int:
    """Watch a running service.

    It shows connectors, running jobs and what limits them. Arrows, PgUp and PgDn scroll; press q to leave.

    The service needs `callboard.operations.enabled: true`. JSON shows the facts once, for scripts.
    """
    import httpx
    from rich.console import Console

    from .top_screen import everything

    token = read_secret_file(token_file, "token") if token_file else os.environ.get("CALLBOARD_OPERATIONS_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=5.0) as client:
        seen = _look(client, url)
        if format_ == "json":
            print_json(seen)
            return Exit.DONE
        # A pipe has no width of its own, and what is cut off there is lost.
        console = Console(width=None if is_terminal() or "COLUMNS" in os.environ else PIPE_WIDTH)
        if once or not console.is_terminal or console.is_dumb_terminal:
            console.print(everything(seen, console.width))
            return Exit.DONE
        _watch(console, Looker(client, url, every_s, seen))
    return Exit.DONE


def _look(client: Any, url: str) -> dict[str, Any]:
    import httpx

    try:
        told = client.get("/api/overview")
    except httpx.HTTPError as exc:
        raise CommandFailed(
            f"No service answers at {url}: {str(exc).partition('] ')[2] or exc}.",
            hint="Set callboard.operations.enabled: true in its configuration, or give its address with --url.",
            code=Exit.UNREACHABLE,
        ) from None
    if told.status_code in (401, 403):
        raise CommandFailed(
            f"{url} wants another token.",
            hint="Give it with --token-file or CALLBOARD_OPERATIONS_TOKEN.",
            code=Exit.REFUSED,
        )
    seen = _facts(told)
    if seen is None:
        raise CommandFailed(
            f"{url} answered {told.status_code}; it may be no service of Callboard.", code=Exit.UNREACHABLE
        )
    return seen


def _facts(answer: Any) -> dict[str, Any] | None:
    """What a service tells of itself; None if it is something else that answers."""
    if answer.status_code != 200:
        return None
    try:
        told = answer.json()
    except ValueError:
        return None
    return told if isinstance(told, dict) and "worker" in told else None


@attrs.define
class Looker:
    """Looks at the service again and again, in a thread of its own: a service that hangs must not hang the keys."""

    client: Any
    url: str
    every_s: float
    seen: Mapping[str, Any]
    problem: str = ""
    seen_at_s: float = attrs.field(factory=time.monotonic)
    _telling: threading.Lock = attrs.field(factory=threading.Lock)

    def run(self, news: int, over: threading.Event) -> None:
        """Look until it is over, and write a byte to `news` after each look."""
        while not over.wait(self.every_s):
            try:
                self.seen, self.problem = _look(self.client, self.url), ""
                self.seen_at_s = time.monotonic()
            except CommandFailed as problem:
                self.problem = problem.message
            except RuntimeError:
                # The client was closed while it was used: it is over.
                return
            with self._telling:
                if over.is_set():
                    return
                _tell(news)

    def end(self, over: threading.Event) -> None:
        """Nobody listens any more."""
        with self._telling:
            over.set()


def _tell(news: int) -> None:
    try:
        os.write(news, b".")
    except BlockingIOError:
        # Full: whoever listens has enough to wake up for.
        return


def _watch(console: Any, looker: Looker) -> None:
    """Draw until somebody leaves."""
    from rich.live import Live

    from .top_screen import Canvas, View, wishes

    canvas, view = Canvas(console), View()
    over = threading.Event()
    with _pipe() as (hears, tells), _keys() as keyboard, _resizes(tells):
        threading.Thread(target=looker.run, args=(tells, over), daemon=True).start()
        drawn, total, room = canvas.frame(looker.seen, view)
        try:
            with Live(drawn, console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
                while True:
                    ready = select.select([hears, *keyboard], [], [], 1.0)[0]
                    if hears in ready:
                        os.read(hears, 4096)
                    for wish in wishes(os.read(keyboard[0], 1024) or b"q") if keyboard and keyboard[0] in ready else ():
                        if wish == "leave":
                            return
                        view = view.moved(wish, total, room)
                    silent_s = time.monotonic() - looker.seen_at_s
                    drawn, total, room = canvas.frame(looker.seen, view, problem=looker.problem, silent_s=silent_s)
                    view = view.within(total, room)
                    live.update(drawn, refresh=True)
        finally:
            looker.end(over)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    hears, tells = os.pipe()
    os.set_blocking(tells, False)
    try:
        yield hears, tells
    finally:
        os.close(tells)
        os.close(hears)


@contextmanager
def _resizes(news: int) -> Iterator[None]:
    """While the block runs, a terminal that changes its size is news."""

    before = signal.signal(signal.SIGWINCH, lambda *_: _tell(news))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextmanager
def _keys() -> Iterator[list[int]]:
    """While the block runs, keys come one by one from the file in the list; the list is empty if nobody can type."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield []
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield [keyboard]
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
