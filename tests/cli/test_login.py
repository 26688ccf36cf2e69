"""Logging in: only what works is remembered, and nobody else can read it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import yaml

from callboard.cli.exits import Exit

HEADERS = {"Content_Type": "application/json", "X_elastic_product": "Elasticsearch"}
HELLO = json.dumps({"cluster_name": "c", "version": {"number": "9.5.3", "build_flavor": "default"}, "tagline": "x"})
REFUSED = b'{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}'


def profile(home: Path, name: str = "default") -> Path:
    return home / "home" / ".config" / "callboard" / "profiles" / f"{name}.yml"


def test_a_login_that_works_is_remembered_for_its_owner_only(callboard: Any, answering: Any, tmp_path: Path) -> None:
    url = answering(200, HELLO.encode(), **HEADERS)
    done = callboard("login", "--host", url, "--user", "ines", CALLBOARD_PASSWORD="hunter22")
    assert done.code == Exit.DONE, done.err
    assert "9.5.3" in done.out
    assert "hunter22" not in done.out + done.err
    written = yaml.safe_load(profile(tmp_path).read_text())
    assert written == {"elasticsearch": {"host": url, "username": "ines", "password": "hunter22"}}
    assert stat.S_IMODE(profile(tmp_path).stat().st_mode) == 0o600


def test_a_login_that_fails_remembers_nothing(callboard: Any, answering: Any, tmp_path: Path) -> None:
    url = answering(401, REFUSED, **HEADERS)
    failed = callboard("login", "--host", url, "--method", "apikey", CALLBOARD_API_KEY="d3Jvbmcga2V5")
    failed.assert_failed(Exit.REFUSED, url.removeprefix("http://"))
    assert "d3Jvbmcga2V5" not in failed.err
    assert not profile(tmp_path).exists()


def test_an_existing_profile_is_replaced_only_when_said(callboard: Any, answering: Any, tmp_path: Path) -> None:
    url = answering(200, HELLO.encode(), **HEADERS)
    key = tmp_path / "key"
    key.write_text("Zmlyc3Q=\n")
    login = ("login", "--host", url, "--api-key-file", key, "--profile", "staging")
    assert callboard(*login).code == Exit.DONE
    key.write_text("c2Vjb25k\n")
    callboard(*login).assert_failed(Exit.USAGE, "--yes")
    assert "Zmlyc3Q=" in profile(tmp_path, "staging").read_text()
    assert callboard(*login, "--yes").code == Exit.DONE
    assert "c2Vjb25k" in profile(tmp_path, "staging").read_text()


def test_without_a_terminal_nothing_is_asked(callboard: Any, answering: Any) -> None:
    url = answering(200, HELLO.encode(), **HEADERS)
    callboard("login", "--host", url).assert_failed(Exit.USAGE, "Username")
    callboard("login", "--host", url, "--user", "ines").assert_failed(Exit.USAGE, "CALLBOARD_PASSWORD")


def test_scripts_are_told_what_was_remembered_and_where(callboard: Any, answering: Any, tmp_path: Path) -> None:
    url = answering(200, HELLO.encode(), **HEADERS)
    done = callboard("login", "--host", url, "--user", "ines", "-o", "json", CALLBOARD_PASSWORD="hunter22")
    assert json.loads(done.out) == {"host": url, "version": "9.5.3", "remembered_in": str(profile(tmp_path))}
    assert done.err == ""
