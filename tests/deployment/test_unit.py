"""The systemd unit: understood by systemd, hardened, and in step with the service."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from callboard.actors.configuration import Settings
from callboard.cli.exits import Exit

from ..conftest import ServerMissing
from .conftest import DEPLOY, Parse

UNIT = DEPLOY / "callboard.service"
EXPOSURE_MAX = 2.0
"""On systemd's scale from 0 to 10; below 2 is `OK`, a unit without hardening has 9.6."""


@pytest.fixture(scope="module")
def unit() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return dict(parser["Service"])


@pytest.fixture
def analyze(server_missing: ServerMissing) -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        server_missing("systemd-analyze", "sudo apt-get install systemd")
    return found


def test_systemd_understands_every_line(analyze: str, tmp_path: Path) -> None:
    here = tmp_path / "callboard.service"
    here.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/callboard/bin/callboard", str(shutil.which("true"))))
    done = subprocess.run([analyze, "verify", "--man=no", here], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    here.write_text(here.read_text().replace("[Install]", "WatchdogSec=soon\n[Install]"))
    done = subprocess.run([analyze, "verify", "--man=no", here], capture_output=True, text=True)
    assert "Failed to parse" in done.stderr


def test_it_is_hardened(analyze: str) -> None:
    threshold = str(int(EXPOSURE_MAX * 10))
    done = subprocess.run(
        [analyze, "security", "--offline=yes", f"--threshold={threshold}", UNIT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_it_is_in_step_with_the_service(unit: dict[str, str], parses: Parse) -> None:
    parses(shlex.split(unit["ExecStart"]))
    assert unit["Type"] == "notify"
    settings = Settings()
    assert int(unit["TimeoutStopSec"]) > settings.callboard.shutdown_seconds
    assert int(unit["TimeoutStartSec"]) > settings.elasticsearch.max_wait_duration
    assert int(unit["RestartPreventExitStatus"]) == Exit.USAGE
    assert unit["User"] not in ("", "root")
    memory = int(unit["MemoryMax"].removesuffix("G")) * 1024
    text = settings.callboard.text_extraction
    assert memory > settings.callboard.sync.memory_mib + text.workers * text.memory_mib


def test_what_callboard_looks_at_in_proc_stays_visible(unit: dict[str, str]) -> None:
    """The janitor tells dead services by /proc and the boot id; `ProcSubset=pid` would hide the latter."""
    assert "ProcSubset" not in unit
