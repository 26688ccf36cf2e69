"""At a server with users: logging in, profiles, the keys of new connectors, and what each of them may do."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.cli.exits import Exit

NODE = textwrap.dedent(
    """
    import trio
    from callboard.node import User, open_node

    async def main():
        users = [User("ines", "right", ("superuser",)), User("otto", "right", ("viewer",))]
        async with open_node(port=0, users=users) as node:
            print(node.url, flush=True)
            await trio.sleep_forever()

    trio.run(main)
    """
)


@pytest.fixture
def url(callboard: Any) -> Iterator[str]:
    """A node that only lets in two people: one who may do everything, and one who may only look."""
    process = subprocess.Popen(
        [sys.executable, "-c", NODE],
        env=callboard.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("http://")
        yield line
        process.kill()


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("right\n")
    return file


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.txt").write_text("The thunder sheet is cracked.\n")
    return folder


def logged_in(callboard: Any, url: str, password: Path, user: str = "ines", profile: str = "default") -> None:
    done = callboard("login", "--host", url, "--user", user, "--password-file", password, "--profile", profile)
    assert done.code == Exit.DONE, done.err


def created(callboard: Any, notes: Path, index: str, *more: str) -> dict[str, Any]:
    done = callboard(
        *("connector", "create", "--service-type", "dir", "--index-name", index, "--name", "Notes"),
        *("--set", f"directory={notes}", "--format", "json", *more),
    )
    assert done.code == Exit.DONE, done.err
    made: dict[str, Any] = json.loads(done.out)
    return made


def test_only_the_right_password_is_let_in_and_remembered(
    callboard: Any, url: str, password: Path, tmp_path: Path
) -> None:
    callboard("connector", "list", "--to", url).assert_failed(Exit.REFUSED, "--user")
    password.write_text("wrong\n")
    login = ("login", "--host", url, "--user", "ines", "--password-file", password)
    callboard(*login).assert_failed(Exit.REFUSED)
    assert not (tmp_path / "home/.config/callboard").exists()
    password.write_text("right\n")
    done = callboard(*login, "--format", "json")
    told = json.loads(done.out)
    kept = Path(told["remembered_in"])
    assert (told["host"], done.code) == (url, Exit.DONE)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert '"right"' not in done.out + done.err
    assert callboard("connector", "list").code == Exit.DONE
    unchecked = callboard("index", "list", "--to", url, "--user", "ines", CALLBOARD_PASSWORD="right")
    assert unchecked.code == Exit.DONE


def test_each_profile_may_do_what_its_user_may(callboard: Any, url: str, password: Path, notes: Path) -> None:
    logged_in(callboard, url, password)
    logged_in(callboard, url, password, "otto", "looking")
    made = created(callboard, notes, "notes")
    looking = ("--profile", "looking")
    assert made["id"] in callboard("connector", "list", *looking).out
    callboard("index", "delete", "notes", "--yes", *looking).assert_failed(Exit.REFUSED)
    callboard("connector", "delete", made["id"], "--yes", *looking).assert_failed(Exit.REFUSED)
    callboard("job", "start", "-i", made["id"], "-t", "full", *looking).assert_failed(Exit.REFUSED)
    again = callboard("--profile", "looking", "connector", "show", made["id"], "--format", "json")
    assert json.loads(again.out)["index_name"] == "notes"
    by_environment = callboard("connector", "show", made["id"], "--format", "json", CALLBOARD_PROFILE="looking")
    assert by_environment.out == again.out


@pytest.mark.parametrize("kind", ["own", "native"])
def test_the_key_of_a_new_connector_is_enough_for_its_work_and_for_no_more(
    callboard: Any, url: str, password: Path, notes: Path, tmp_path: Path, kind: str
) -> None:
    logged_in(callboard, url, password)
    native = ("--native",) if kind == "native" else ()
    made = created(callboard, notes, f"content-{kind}", *native)
    shown = json.loads(callboard("connector", "show", made["id"], "--format", "json").out)
    assert shown["is_native"] is bool(native)
    assert shown["api_key_id"]
    assert bool(shown.get("api_key_secret_id")) is bool(native)
    assert made["api_key"] not in json.dumps(shown)
    created(callboard, notes, "content-other")
    key = tmp_path / "key"
    key.write_text(made["api_key"])
    with_key = ("--to", url, "--api-key-file", key)
    job = callboard("job", "start", "-i", made["id"], "-t", "full", "-o", "json", *with_key)
    assert job.code == Exit.DONE, job.err
    assert callboard("job", "cancel", json.loads(job.out)["id"], "--yes", *with_key).code == Exit.DONE
    assert callboard("index", "clean", f"content-{kind}", "--yes", *with_key).code == Exit.DONE
    callboard("index", "clean", "content-other", "--yes", *with_key).assert_failed(Exit.REFUSED)
    logged = callboard("login", "--host", url, "--method", "apikey", "--api-key-file", key, "--profile", "key")
    assert logged.code == Exit.DONE, logged.err
    assert callboard("job", "list", made["id"], "--profile", "key").code == Exit.DONE


def test_a_native_index_has_the_prefix_of_one(callboard: Any, url: str, password: Path, notes: Path) -> None:
    logged_in(callboard, url, password)
    refused = callboard(
        *("connector", "create", "--native", "--service-type", "dir", "--index-name", "notes", "--name", "Notes"),
        *("--set", f"directory={notes}"),
    )
    refused.assert_failed(Exit.USAGE, "content-")
    assert json.loads(callboard("connector", "list", "-o", "json").out) == []


def test_a_key_of_one_connector_makes_no_other(
    callboard: Any, url: str, password: Path, notes: Path, tmp_path: Path
) -> None:
    logged_in(callboard, url, password)
    key = tmp_path / "key"
    key.write_text(created(callboard, notes, "first")["api_key"])
    refused = callboard(
        *("connector", "create", "--service-type", "dir", "--index-name", "second", "--name", "Notes"),
        *("--set", f"directory={notes}", "--to", url, "--api-key-file", key),
    )
    refused.assert_failed(Exit.REFUSED)
    listed = json.loads(callboard("connector", "list", "-o", "json").out)
    assert [each["index_name"] for each in listed] == ["first"]


def test_what_the_reference_remembers_is_used_and_left_alone(
    callboard: Any, url: str, password: Path, tmp_path: Path
) -> None:
    file = tmp_path / ".cli" / "config.yml"
    file.parent.mkdir()
    file.write_text(f"elasticsearch:\n  host: {url}\n  username: ines\n  password: right\n")
    file.chmod(0o444)
    before = file.read_bytes()
    done = callboard("connector", "list", "-o", "json")
    assert (done.code, done.out) == (Exit.DONE, "[]\n")
    assert "callboard login" in done.err
    assert ".cli/config.yml" in done.err
    assert callboard("-q", "connector", "list", "-o", "json").err == ""
    # What it says of credentials never goes to a server that is named otherwise, and other credentials never to its server.
    callboard("connector", "list", "--to", url).assert_failed(Exit.REFUSED)
    key = tmp_path / "key"
    key.write_text("c2VjcmV0\n")
    assert ".cli" not in callboard("connector", "list", "--api-key-file", key).err
    logged_in(callboard, url, password, "otto")
    assert ".cli" not in callboard("connector", "list").err, "what Callboard remembers itself comes first"
    assert file.read_bytes() == before
