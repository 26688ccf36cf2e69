"""What people do wrong, and what machines do to them: one clear line, an exit code, and nothing half-made left behind."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from callboard.cli.exits import Exit


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.txt").write_text("The thunder sheet is cracked.\n")
    return folder


def sync_to(callboard: Any, destination: Path | str, folder: Path | str, index: str = "notes") -> Any:
    where = ("--embedded", destination) if isinstance(destination, Path) else ("--to", destination)
    return callboard("sync", "dir", "--set", f"directory={folder}", "--index", index, *where)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_folder_that_does_not_exist(callboard: Any, tmp_path: Path) -> None:
    missing, data = tmp_path / "missing", tmp_path / "data"
    sync_to(callboard, data, missing).assert_failed(Exit.NOT_FOUND, str(missing))
    assert not data.exists()


def test_a_file_instead_of_a_folder(callboard: Any, notes: Path, tmp_path: Path) -> None:
    file, data = notes / "one.txt", tmp_path / "data"
    failed = sync_to(callboard, data, file)
    failed.assert_failed(failed.code, str(file))
    assert failed.code in {Exit.USAGE, Exit.NOT_FOUND}
    assert not data.exists()


def test_a_folder_without_permission(callboard: Any, notes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    notes.chmod(0)
    try:
        failed = callboard.without_privileges(
            "sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", data
        )
        failed.assert_failed(Exit.REFUSED, str(notes))
    finally:
        notes.chmod(0o700)
    assert not data.exists()


def test_a_data_folder_without_permission(callboard: Any, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    try:
        failed = callboard.without_privileges("node", "--port", "0", "--data", locked / "data")
        failed.assert_failed(Exit.LOCAL, str(locked / "data"))
    finally:
        locked.chmod(0o700)
    assert list(locked.iterdir()) == []


def test_a_data_folder_that_is_a_file(callboard: Any, notes: Path) -> None:
    callboard("node", "--port", "0", "--data", notes / "one.txt").assert_failed(Exit.USAGE, "one.txt", "file")


def test_a_port_in_use(callboard: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = callboard("node", "--port", str(port), "--data", data)
    failed.assert_failed(Exit.LOCAL, f"Port {port}", "in use", "--port")
    assert not data.exists()


def test_nobody_listens(callboard: Any, notes: Path) -> None:
    port = free_port()
    sync_to(callboard, f"http://127.0.0.1:{port}", notes).assert_failed(Exit.UNREACHABLE, f"127.0.0.1:{port}")


def test_a_server_that_is_not_elasticsearch(callboard: Any, answering: Any, notes: Path) -> None:
    url = answering(200, b"<html>Welcome</html>", Content_Type="text/html")
    sync_to(callboard, url, notes).assert_failed(Exit.UNREACHABLE, url.removeprefix("http://"))
    callboard("search", "notes", "x", "--to", url).assert_failed(Exit.UNREACHABLE, url.removeprefix("http://"))


def test_wrong_credentials(callboard: Any, answering: Any, notes: Path, tmp_path: Path) -> None:
    refusal = b'{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}'
    key = tmp_path / "key"
    key.write_text("dGhlIHdyb25nIGtleQ==\n")
    headers = {"Content_Type": "application/json", "X_elastic_product": "Elasticsearch"}
    url = answering(401, refusal, **headers)
    failed = callboard("search", "notes", "x", "--to", url, "--api-key-file", key)
    failed.assert_failed(Exit.REFUSED, url.removeprefix("http://"))
    assert "dGhlIHdyb25nIGtleQ" not in failed.err
    sync_to(callboard, url, notes).assert_failed(Exit.REFUSED, url.removeprefix("http://"))


@pytest.mark.parametrize("name", ["Notes", "_notes", "a b", "no*tes", "..", "", "x" * 256])
def test_an_illegal_index_name(callboard: Any, notes: Path, tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    sync_to(callboard, data, notes, index=name).assert_failed(Exit.USAGE, "index name", "search-library")
    assert not data.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sync", "dir"), ["--index"]),
        (("sync", "dri", "--index", "x"), ["dri", "dir"]),
        (("sync", "dir", "--index", "x", "--set", "directory"), ["FIELD=VALUE"]),
        (("sync", "dir", "--index", "x", "--set", "folder=/tmp"), ["folder", "directory"]),
        (("sync", "dir", "--index", "x", "--set", "directory=/tmp", "--to", "localhost:9200"), ["localhost:9200"]),
        (("search", "x", "y", "--to", "http://h", "--embedded", "d"), ["--embedded"]),
        (("search", "x", "y", "--to", "http://h", "--user", "ines"), ["CALLBOARD_PASSWORD"]),
    ],
)
def test_command_lines_that_cannot_work(callboard: Any, arguments: tuple[str, ...], words: list[str]) -> None:
    failed = callboard(*arguments)
    assert failed.code == Exit.USAGE, failed.err
    assert "Traceback" not in failed.err
    for word in words:
        assert word in failed.err


def test_searching_where_nothing_is(callboard: Any, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    callboard("search", "notes", "x", "--embedded", nowhere).assert_failed(Exit.NOT_FOUND, str(nowhere))
    assert not nowhere.exists()


def test_searching_an_index_that_is_not_there(callboard: Any, notes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert sync_to(callboard, data, notes).code == Exit.DONE
    callboard("search", "letters", "x", "--embedded", data).assert_failed(Exit.NOT_FOUND, "letters")


@pytest.mark.parametrize("size_kb", [300, 1500])
def test_a_sync_onto_a_full_disk(callboard: Any, tmp_path: Path, size_kb: int) -> None:
    notes, disk = tmp_path / "notes", tmp_path / "disk"
    notes.mkdir()
    disk.mkdir()
    for number in range(200):
        (notes / f"{number}.txt").write_text(f"note {number} " * 4000)
    failed = callboard.on_a_small_disk(
        disk, size_kb, "sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", disk / "data"
    )
    assert failed.code == Exit.LOCAL, (failed.code, failed.out, failed.err)
    assert "disk is full" in failed.err
    assert "Traceback" not in failed.err


def test_a_login_onto_a_full_disk(callboard: Any, answering: Any, tmp_path: Path) -> None:
    hello = b'{"cluster_name": "c", "version": {"number": "9.5.3", "build_flavor": "default"}, "tagline": "x"}'
    url = answering(200, hello, Content_Type="application/json", X_elastic_product="Elasticsearch")
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "password").write_text("right\n")
    login = ("login", "--host", url, "--user", "ines", "--password-file", tmp_path / "password")
    failed = callboard.on_a_full_disk(home, *login)
    failed.assert_failed(Exit.LOCAL, "default.yml", "No space left")
    assert "right" not in failed.err


def test_a_service_file_on_a_full_disk_stays_as_it_was(callboard: Any, notes: Path, tmp_path: Path) -> None:
    disk, data = tmp_path / "disk", tmp_path / "data"
    disk.mkdir()
    data.mkdir()
    create = ("connector", "create", "--service-type", "dir", "--index-name", "notes", "--name", "Notes")
    failed = callboard.on_a_full_disk(
        disk,
        *(*create, "--set", f"directory={notes}", "--embedded", data, "--format", "json"),
        *("--update-config", "--connector-service-config", disk / "config.yml"),
        holding="# mine\nconnectors: []\n",
    )
    assert failed.code == Exit.LOCAL, failed.err
    made = json.loads(failed.out)
    assert f"add it to the file by hand: {made['id']}" in failed.err
    assert failed.err.endswith("# mine\nconnectors: []\n")


def test_a_file_that_cannot_be_kept_while_it_is_read(callboard: Any, tmp_path: Path) -> None:
    file = tmp_path / "letter.pdf"
    file.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 40_000)
    # A full disk would not do: another folder is then found for what is read.
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21)); "
    command = [sys.executable, "-c", limit + "runpy.run_module('callboard', run_name='__main__')", "extract", str(file)]
    done = subprocess.run(command, env=callboard.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (Exit.LOCAL, ""), done.stderr
    assert "The disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_tika_fetched_onto_a_full_disk(callboard: Any, tmp_path: Path) -> None:
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text("#!/bin/sh\necho '[ERROR] cannot copy tika.jar: No space left on device'\nexit 1\n")
    maven.chmod(0o755)
    fetch = ("extraction", "fetch-tika", "--to", tmp_path / "tika.jar")
    callboard(*fetch, PATH=f"{maven.parent}:/usr/bin:/bin").assert_failed(Exit.LOCAL, "No space left")
    maven.write_text("#!/bin/sh\necho '[ERROR] the mirror has no such file'\nexit 1\n")
    callboard(*fetch, PATH=f"{maven.parent}:/usr/bin:/bin").assert_failed(Exit.FAILED, "no such file")
    assert not (tmp_path / "tika.jar").exists()


def test_a_node_rehearses_faults_and_says_so_loudly(callboard: Any, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yml"
    plan.write_text("rules: [{match: {path: '/nope'}, do: {status: {status: 503}}}]")
    process = callboard.start("node", "--port", "0", "--faults", plan)
    assert process.stdout is not None
    assert process.stderr is not None
    url = process.stdout.readline().split(" at ")[1].split(" ")[0]
    assert "REHEARSAL: faults are injected on purpose: 1 elasticsearch rule (seed 0)" in process.stderr.readline()
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(f"{url}/nope"):
        pass
    assert caught.value.code == 503
    caught.value.close()
    with urllib.request.urlopen(url) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [(None, 5, "does not exist"), ("rules: [{do: explode}]", 2, "unknown effect"), ("{", 2, "cannot be used")],
)
def test_a_useless_fault_plan_says_why(callboard: Any, tmp_path: Path, text: str | None, code: int, word: str) -> None:
    plan = tmp_path / "plan.yml"
    if text is not None:
        plan.write_text(text)
    callboard("node", "--port", "0", "--faults", plan).assert_failed(code, word)
