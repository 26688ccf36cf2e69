"""Fetching the Tika server, when somebody asks for it in so many words, through Maven, and only if its bytes are the known ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import trio

from ...runtime import blocking
from .choice import ExtractionUnavailable
from .tika import COORDINATES, JAR_SHA256, data_folder

# The last plugin that fetches a single artifact without first reading the descriptors of its parents, which a mirror may lack.
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:2.10:get"
_FETCH_S = 900.0
_SAID_LINES_MAX = 3


async def fetch_tika(target: Path) -> Path:
    """Fetch the Tika server (76 MB) to `target` and return it; nothing is fetched if the right file is there.

    Raises `ExtractionUnavailable` if there is no `mvn`, if Maven fails, or if what it brings is not the pinned file.
    Cancelled: Maven is ended, and nothing is left at `target`.
    """
    if await blocking(sha256_of, target) == JAR_SHA256:
        return target
    program = shutil.which("mvn")
    if program is None:
        raise ExtractionUnavailable(
            f"Tika is fetched through Maven, and there is no `mvn` here. Install Maven, or put {COORDINATES.split(':')[1]} at {target}"
        )
    await blocking(lambda: target.parent.mkdir(parents=True, exist_ok=True))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-") as scratch:
        fetched = Path(scratch) / target.name
        await _run_maven(program, fetched)
        digest = await blocking(sha256_of, fetched)
        if digest != JAR_SHA256:
            raise ExtractionUnavailable(
                f"Maven brought a file whose SHA-256 is {digest} instead of {JAR_SHA256}; it was thrown away. Ask whoever runs your mirror."
            )
        await blocking(os.replace, fetched, target)
    return target


async def _run_maven(program: str, fetched: Path) -> None:
    command = [program, "-q", "-B", _PLUGIN, f"-Dartifact={COORDINATES}", "-Dtransitive=false", f"-Ddest={fetched}"]
    with trio.move_on_after(_FETCH_S) as scope:
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode != 0 or not await blocking(fetched.is_file):
            said = [
                line for line in (done.stdout + done.stderr).decode("utf-8", "replace").splitlines() if "ERROR" in line
            ]
            raise ExtractionUnavailable(
                f"Maven could not fetch {COORDINATES}: {' '.join(said[:_SAID_LINES_MAX]) or 'it gave no reason'}"
            )
    if scope.cancelled_caught:
        raise ExtractionUnavailable(f"Maven took longer than {_FETCH_S:g} s to fetch {COORDINATES}. Try again.")


def default_target() -> Path:
    """Where the Tika server is kept unless somebody says otherwise."""
    from .tika import JAR_NAME

    return data_folder() / JAR_NAME


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file, in hexadecimal; None if there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
