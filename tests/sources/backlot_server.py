"""Backlot, an emulator of Atlassian's interface by others, as a process of its own with its own packages and telemetry off."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx

VERSION = "0.1.0"
START_S = 60.0


def backlot_packages(folder: Path, server_missing: Callable[[str, str], NoReturn]) -> Path:
    """Where Backlot and what it needs lie, fetched once for all runs on this machine: it does not go with the packages here."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callboard-tests" / f"backlot-{VERSION}"
    if kept.is_dir():
        return kept
    fresh = folder / "packages"
    fetch = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(fresh)]
    made = subprocess.run([*fetch, f"backlot=={VERSION}"], capture_output=True, text=True, timeout=300)
    if made.returncode:
        server_missing("Backlot (it could not be fetched)", f"pip download backlot=={VERSION}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.move(fresh, kept)
    except OSError:
        # Another process was quicker.
        assert kept.is_dir()
    return kept


@contextmanager
def backlot(packages: Path, folder: Path, records: Sequence[dict[str, Any]], token: str) -> Iterator[str]:
    """Run Backlot over these records; gives its address."""
    corpus = folder / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps(one) for one in records), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "BACKLOT_TELEMETRY": "0",
        "DO_NOT_TRACK": "1",
        "BACKLOT_DATA_DIR": str(folder / "data"),
        "BACKLOT_ADMIN_TOKEN": token,
    }
    program = [sys.executable, "-m", "backlot"]
    subprocess.run([*program, "import", str(corpus)], env=environment, check=True, capture_output=True, timeout=120)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [*program, "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(serve, env=environment, stdout=out, stderr=out) as process:
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}/atlassian"
        finally:
            process.terminate()
            process.wait(20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            httpx.get(url, timeout=1)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Backlot did not start: {log.read_text(errors='replace')[-2000:]}")
