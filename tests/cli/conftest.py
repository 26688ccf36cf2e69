"""Runs the command as its users do: in a process of its own."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest


@attrs.frozen
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    def assert_failed(self, code: int, *words: str) -> None:
        """It failed with this code, said one line (and at most a hint) with all of these words, and showed no traceback."""
        assert self.code == code, (self.code, self.out, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.strip() and not line.startswith("Syncing ")]
        assert 1 <= len(lines) <= 2, self.err
        for word in words:
            assert word in self.err, f"{word!r} is missing in: {self.err}"


@attrs.define
class Callboard:
    """The command, run in a scratch folder with an environment in which no setting of the tester can be seen."""

    folder: Path
    started: list[subprocess.Popen[str]] = attrs.field(factory=list)

    def __call__(self, *arguments: str | Path, input: str = "", timeout_s: float = 60, **environment: str) -> Finished:  # noqa: A002
        return self._finish(self.command(*arguments), timeout_s, input=input, **environment)

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start a command that goes on running; it is ended with the test at the latest."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def without_privileges(self, *arguments: str | Path) -> Finished:
        """Run it without the right to ignore permissions, which root has."""
        command = self.command(*arguments)
        if os.geteuid() == 0:
            if not shutil.which("setpriv"):
                pytest.skip("root may read everything, and setpriv is not there to give that up")
            command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
        return self._finish(command)

    def on_a_small_disk(self, disk: Path, size_kb: int, *arguments: str | Path) -> Finished:
        """Run it where `disk` is a file system of this size, which nobody else sees. What is left there ends `err`."""
        return self._mounted(disk, size_kb, "true", "ls -A", *arguments)

    def on_a_full_disk(self, disk: Path, *arguments: str | Path, holding: str = "", **environment: str) -> Finished:
        """Run it where `disk` takes no byte more, but has a file `config.yml` with this text. What that holds afterwards ends `err`."""
        fill = 'printf %s "$HOLDING" > config.yml; cat /dev/zero > filler 2>/dev/null'
        return self._mounted(disk, 64, fill, "cat config.yml", *arguments, HOLDING=holding, **environment)

    def _mounted(
        self, disk: Path, size_kb: int, before: str, after: str, *arguments: str | Path, **environment: str
    ) -> Finished:
        unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
            pytest.skip("this machine does not let us mount a small file system")
        script = (
            f'mount -t tmpfs -o size={size_kb}k tmpfs "$0" && (cd "$0"; {before}); "$@"; code=$?; '
            f'cd "$0"; {after} >&2; exit $code'
        )
        command = [*unshare, "sh", "-c", script, str(disk), *self.command(*arguments)]
        return self._finish(command, timeout_s=120, **environment)

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "callboard", *map(str, arguments)]

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        home = self.folder / "home"
        return (
            kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "PYTHONUTF8": "1", "TZ": "UTC"} | extra
        )

    def _finish(self, command: list[str], timeout_s: float = 60, input: str = "", **environment: str) -> Finished:  # noqa: A002
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def callboard(tmp_path: Path) -> Iterator[Callboard]:
    """`callboard("search", "notes", "storm", CALLBOARD_URL=...)` runs the command and gives how it ended."""
    runner = Callboard(tmp_path)
    yield runner
    for process in runner.started:
        process.kill()
        process.communicate()


@contextmanager
def _answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A web server that answers everything the same way; gives its URL."""

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None: ...  # noqa: A002

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """`answering(401, b"{}", Content_Type="application/json")` starts a server that answers so, and gives its URL."""
    with ExitStack() as stack:
        yield lambda *arguments, **headers: stack.enter_context(_answering(*arguments, **headers))
