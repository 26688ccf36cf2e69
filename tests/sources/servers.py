"""Real servers for tests: started on loopback as an ordinary user, in a temporary folder, on a free port, and stopped again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

START_S = 60.0


@attrs.frozen
class Server:
    """A server that runs."""

    port: int
    user: str
    password: str


def postgresql_programs() -> Path | None:
    """Where PostgreSQL's programs are; None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    anywhere = shutil.which("initdb")
    return Path(anywhere).parent if anywhere else None


@contextmanager
def postgresql(programs: Path, *options: str) -> Iterator[Server]:
    """Run a PostgreSQL with commit times; `options` are settings such as `log_statement=all`."""
    with _folder("postgres") as (folder, as_user):
        secret = folder / "secret"
        secret.write_text("it's 100% @secret/", encoding="utf-8")
        secret.chmod(0o644)
        data = folder / "data"
        initdb = [programs / "initdb", "-D", data, "-U", "admin", "-A", "scram-sha-256", "--pwfile", secret]
        subprocess.run([*as_user, *initdb, "-E", "UTF8", "--locale=C.UTF-8", "-N"], check=True, capture_output=True)
        port = _free_port()
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
        arguments = [word for one in [*settings, "track_commit_timestamp=on", *options] for word in ("-c", one)]
        command = [*as_user, programs / "postgres", "-D", data, "-p", str(port), *arguments]
        # Interrupted, it ends its sessions; terminated, it would wait for them.
        with _running(command, port, folder / "log", stop=signal.SIGINT):
            _wait_until_ready(programs, port, folder / "log")
            yield Server(port, "admin", secret.read_text(encoding="utf-8"))


def mariadb_program() -> str | None:
    """Where MariaDB's server is; None if it is not installed."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def mariadb(program: str, *options: str) -> Iterator[Server]:
    """Run a MariaDB; `options` are added to its command line."""
    with _folder("mysql") as (folder, as_user):
        data, secret = folder / "data", "it's 100% @secret/"
        start = folder / "start.sql"
        start.write_text(
            "CREATE USER 'admin'@'127.0.0.1' IDENTIFIED BY 'it''s 100% @secret/';"
            "\nGRANT ALL ON *.* TO 'admin'@'127.0.0.1' WITH GRANT OPTION;\n",
            encoding="utf-8",
        )
        start.chmod(0o644)
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ]
        subprocess.run([*as_user, *install], check=True, capture_output=True)
        port = _free_port()
        own = [
            f"--datadir={data}",
            f"--port={port}",
            f"--socket={folder}/s",
            f"--init-file={start}",
            f"--pid-file={folder}/p",
        ]
        command: list[str | Path] = [
            *as_user,
            program,
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            *own,
            *options,
        ]
        with _running(command, port, folder / "log"):
            yield Server(port, "admin", secret)


@contextmanager
def readable_copy(folder: Path, user: str) -> Iterator[Path]:
    """Copy files to where a server that runs as `user`, and nobody else, can read them."""
    with _folder(user) as (copy, as_user):
        for path in folder.iterdir():
            to = copy / path.name
            shutil.copyfile(path, to)
            to.chmod(0o600)
            if as_user:
                shutil.chown(to, user)
        yield copy


@contextmanager
def _folder(user: str) -> Iterator[tuple[Path, list[str]]]:
    """Make a folder that `user` owns, and say how to run a program as that user. Root may be nobody else's server."""
    with tempfile.TemporaryDirectory(prefix="callboard-") as name:
        folder = Path(name)
        if os.geteuid() != 0:
            yield folder, []
            return
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder, ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


@contextmanager
def _running(command: list[str | Path], port: int, log: Path, stop: int = signal.SIGTERM) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent) as process:
        try:
            _wait_for(port, process, log)
            yield
        finally:
            process.send_signal(stop)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended at once:\n{log.read_text(errors='replace')[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"The server does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def _wait_until_ready(programs: Path, port: int, log: Path) -> None:
    # It listens before it lets anybody in.
    ask = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    deadline = time.monotonic() + START_S
    while subprocess.run(ask, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"The server lets nobody in:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
