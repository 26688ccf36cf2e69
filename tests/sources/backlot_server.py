"""Backlot over documents of our own, as a process with telemetry off."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START_S = 60.0


@contextmanager
def backlot_over(program: Path, folder: Path, records: Sequence[dict[str, Any]], token: str) -> Iterator[str]:
    """Run Backlot over these records; gives its address."""
    corpus = folder / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps(one) for one in records), encoding="utf-8")
    environment = {
        **os.environ,
        "BACKLOT_TELEMETRY": "0",
        "DO_NOT_TRACK": "1",
        "BACKLOT_DATA_DIR": str(folder / "data"),
        "BACKLOT_ADMIN_TOKEN": token,
    }
    load = [str(program), "import", str(corpus)]
    loaded = subprocess.run(load, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
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
