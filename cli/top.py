"""`callboard top`: a running service, live in the terminal."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .exits import Exit
from .failures import CommandFailed
from .options import Command, format_option, read_secret_file
from .terminal import print_json

DEFAULT_URL = "http://127.0.0.1:8089"


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

    It shows connectors, running jobs and what limits them. Press q to leave.

    The service needs `callboard.operations.enabled: true`. JSON shows the facts once, for scripts.
    """
    import httpx
    from rich.console import Console
    from rich.live import Live

    token = read_secret_file(token_file, "token") if token_file else os.environ.get("CALLBOARD_OPERATIONS_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=5.0) as client:
        seen = _look(client, url)
        if format_ == "json":
            print_json(seen)
            return Exit.DONE
        console = Console()
        if once or not sys.stdout.isatty():
            console.print(screen(seen))
            return Exit.DONE
        with _keys() as pressed, Live(screen(seen), console=console, screen=True, auto_refresh=False) as live:
            while not pressed(every_s):
                try:
                    live.update(screen(_look(client, url)), refresh=True)
                except CommandFailed as problem:
                    live.update(screen({**seen, "problem": problem.message}), refresh=True)
    return Exit.DONE


def _look(client: Any, url: str) -> dict[str, Any]:
    import httpx

    try:
        told = client.get("/api/overview")
    except httpx.HTTPError as exc:
        raise CommandFailed(
            f"No service answers at {url}: {exc}.",
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


@contextmanager
def _keys() -> Iterator[Any]:
    """Read single keys while the block runs; gives a function that waits and tells whether to leave."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds)
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([sys.stdin], [], [], left)[0] and sys.stdin.read(1) in ("q", "Q", ""):
                return True
        return False

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def screen(seen: Mapping[str, Any]) -> Any:
    """Everything on one screen, made of what `/api/overview` says."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    jobs = Table(title=f"Running jobs ({len(seen['jobs'])})", expand=True, title_justify="left")
    for name in ("Connector", "Kind", "Listed", "Indexed", "Deleted", "Failed", "Docs/s", "Limited by"):
        jobs.add_column(
            name, justify="right" if name in ("Listed", "Indexed", "Deleted", "Failed", "Docs/s") else "left"
        )
    for job in seen["jobs"]:
        at = job["progress"] or {}
        rate = at["listed"] / at["seconds"] if at.get("seconds") else 0.0
        numbers = [f"{at.get(name, 0):,}" for name in ("listed", "indexed", "deleted", "failed")]
        jobs.add_row(Text(job["connector_id"]), job["job_type"], *numbers, f"{rate:,.0f}", at.get("waiting_on", ""))
    connectors = Table(title=f"Connectors ({len(seen['connectors'])})", expand=True, title_justify="left")
    for name in ("Connector", "Source", "Health", "Last sync", "Next sync", "Why"):
        connectors.add_column(name, no_wrap=True)
    colours = {"ok": "green", "failing": "red"}
    for one in sorted(seen["connectors"], key=lambda each: (each["health"] == "ok", each["id"])):
        health = Text(one["health"], style=colours.get(one["health"], "yellow"))
        last = (one["last_synced"] or "never")[:19].replace("T", " ")
        following = (one["next_sync"] or "-")[:19].replace("T", " ")
        why = Text(str(one["why"] or ""))
        connectors.add_row(
            Text(one["name"] or one["id"]), Text(one["service_type"] or "-"), health, last, following, why
        )
    head = Text(
        f"callboard  {seen['worker']}  {seen['at'][11:19]} UTC  {len(seen['waiting'])} waiting   q: leave", style="bold"
    )
    problem = [Text(str(seen["problem"]), style="red")] if seen.get("problem") else []
    return Group(head, *problem, jobs, connectors)
