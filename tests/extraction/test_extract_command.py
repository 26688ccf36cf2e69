"""`callboard extract`, `extraction` and `extraction-service` as their users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "callboard"]


def run(*arguments: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_text_goes_to_standard_output_and_the_rest_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("très bien".encode("latin-1"))
    done = run("extract", "a.txt", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "très bien\n")
    assert done.stderr.startswith("a.txt: text (9 B, plain, ")


def test_json_holds_everything(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 50)
    done = run("extract", "a.txt", "--format", "json", "--characters", "20", folder=tmp_path)
    said = json.loads(done.stdout)
    assert (said["status"], said["text"], said["size_bytes"]) == ("truncated", "x" * 20, 50)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("extract", "none.txt"), 5, "no such file"),
        (("extract", "."), 2, "is a folder"),
        (("extract", "broken.pdf"), 1, "corrupt"),
        (("extract", "broken.pdf", "--engine", "service"), 2, "extraction_service.host"),
        (("extract", "broken.pdf", "--engine", "tika", "--tika-jar", "none.jar"), 2, "fetch-tika"),
        (("extraction-service", "--shared-folder", "none"), 5, "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_a_code(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\nrubbish")
    done = run(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_maven_fetching_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    done = run("extraction", "fetch-tika", folder=tmp_path, PATH="/none", XDG_DATA_HOME=str(tmp_path / "data"))
    assert done.returncode == 1
    assert "Install Maven" in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_service_answers_and_ends_in_order(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "extraction-service", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Callboard extraction service is ready at http://127.0.0.1:")
        url = line.split(" at ")[1].split()[0]
        with urllib.request.urlopen(f"{url}/ping/") as ping:
            assert ping.read() == b"Running!"
        request = urllib.request.Request(f"{url}/extract_text/", data=b"hello", method="PUT")
        with urllib.request.urlopen(request) as answered:
            assert json.load(answered)["extracted_text"] == "hello"
        taken = run("extraction-service", "--port", url.rpartition(":")[2], folder=tmp_path)
        assert taken.returncode == 6
        assert "in use" in taken.stderr
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.communicate()
