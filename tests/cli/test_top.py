"""`callboard top` in a real terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

SEEN = {"at": "2026-01-01T10:00:00", "worker": "here", "connectors": [], "jobs": [], "waiting": []}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(SEEN).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *told: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "callboard", "top", *arguments]


def test_it_draws_and_leaves_with_q(url: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command("--url", url), stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        told, until = b"", time.monotonic() + 20
        while b"Running jobs" not in told and time.monotonic() < until:
            if select.select([ours], [], [], 1)[0]:
                told += os.read(ours, 65536)
        assert b"Running jobs" in told
        os.write(ours, b"q")
        assert running.wait(10) == 0
    os.close(ours)


def test_scripts_get_json_and_a_missing_service_is_one_line(url: str) -> None:
    told = subprocess.run(command("--url", url, "--format", "json"), capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == SEEN
    failed = subprocess.run(
        command("--url", "http://127.0.0.1:9", "--once"), capture_output=True, text=True, check=False
    )
    assert failed.returncode != 0
    assert "No service answers at http://127.0.0.1:9" in failed.stderr
