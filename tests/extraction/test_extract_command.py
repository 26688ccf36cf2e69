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


def test_the_settings_of_a_service_can_be_tried(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 50)
    (tmp_path / "a.yaml").write_text("a: 1")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    config = tmp_path / "config.yml"
    config.write_text(
        "extraction_service:\n  host: http://127.0.0.1:9\ncallboard:\n  text_extraction:\n"
        "    characters: 20\n    engine: plain\n    more_extensions: ['.yaml']\n"
    )
    for before, after in ((("-c", config), ()), ((), ("-c", config))):
        done = run(*before, "extract", "a.txt", *after, folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, "x" * 20 + "\n"), done.stderr
    # What is given on the command line comes first.
    done = run("extract", "-c", config, "a.txt", "--characters", "30", folder=tmp_path)
    assert done.stdout == "x" * 30 + "\n"
    done = run("extract", "-c", config, "a.pdf", folder=tmp_path)
    assert (done.returncode, "plain" in done.stderr) == (1, True)
    done = run("extract", "-c", config, "a.pdf", "--engine", "service", folder=tmp_path)
    assert "http://127.0.0.1:9 does not answer" in done.stderr
    # A name that a sync would pass over is said to be one.
    assert "more_extensions" in run("extract", "a.yaml", folder=tmp_path).stderr
    assert "more_extensions" not in run("extract", "-c", config, "a.yaml", folder=tmp_path).stderr
    config.write_text("callboard:\n  text_extraction:\n    characters: many\n")
    done = run("extract", "-c", config, "a.txt", folder=tmp_path)
    assert (done.returncode != 0, done.stdout, "characters" in done.stderr) == (True, "", True)


def test_the_engines_are_shown_and_explained(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("extraction_service:\n  host: http://127.0.0.1:9\n")
    environment = {"XDG_DATA_HOME": str(tmp_path / "data")}
    done = run("extraction", "engines", folder=tmp_path, **environment)
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["service", "embedded", "tika", "plain"]
    assert "callboard extraction fetch-tika" in done.stdout or "needs Java" in done.stdout
    assert "no extraction service is set" in done.stderr
    said = json.loads(run("extraction", "engines", "-c", config, "--format", "json", folder=tmp_path).stdout)
    assert (said["engine"], "http://127.0.0.1:9" in said["why"]) == ("service", True)
    doctor = run("doctor", "--embedded", str(tmp_path / "node"), folder=tmp_path, **environment)
    assert "Text extraction  embedded: " in doctor.stdout, doctor.stdout
    config.write_text(
        "elasticsearch:\n  host: http://127.0.0.1:9\n  max_wait_duration: 1\n"
        "callboard:\n  text_extraction:\n    engine: tika\n    tika_jar: none.jar\n"
    )
    doctor = run("doctor", "-c", config, folder=tmp_path, **environment)
    assert doctor.returncode == 1
    assert any(
        "Text extraction" in line and "ika" in line and line.startswith("XX") for line in doctor.stdout.splitlines()
    )
    done = run("extraction", "engines", "-c", config, folder=tmp_path, **environment)
    assert (done.returncode, done.stdout) == (1, "")


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
