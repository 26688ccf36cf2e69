"""How every command behaves: quiet, dry, sparing with secrets, clear about full disks, and completed by shells."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from callboard.cli.examples import EXAMPLES
from callboard.cli.exits import MEANINGS, Exit
from callboard.cli.main import callboard as root
from callboard.cli.main import run


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        deeper = (*path, name)
        found += leaves(command, deeper) if isinstance(command, click.Group) else [(deeper, command)]
    return found


LEAVES = leaves(root)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.txt").write_text("The thunder sheet is cracked.\n")
    (folder / "two.txt").write_text("The wardrobe is locked.\n")
    return folder


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=[" ".join(path) for path, _ in LEAVES])
def test_help_ends_as_a_manual_page_does(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == Exit.DONE
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert "Environment:" in shown
    assert "NO_COLOR" in shown
    assert "-q, --quiet" in shown
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning.replace('`', '')}" in words


def test_examples_are_of_commands_and_options_that_exist() -> None:
    commands = {" ".join(path): command for path, command in LEAVES}
    for name, lines in EXAMPLES.items():
        assert name in commands, name
        for line in lines:
            assert f"callboard {name}" in line, line
            for word in line.split():
                if word.startswith("--"):
                    known = [option for parameter in commands[name].params for option in parameter.opts] + ["--help"]
                    assert word in known, (word, line)


def test_quiet_leaves_results_and_errors_only(callboard: Any, notes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    sync = ("sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", data)
    done = callboard(*sync, "--quiet")
    assert (done.code, done.err) == (Exit.DONE, "")
    listed = callboard("-q", "connector", "list", "--embedded", data)
    assert listed.err == ""
    assert "dir" in listed.out
    cleaned = callboard("index", "clean", "notes", "--yes", "-q", "--embedded", data)
    assert (cleaned.code, cleaned.out, cleaned.err) == (Exit.DONE, "", "")
    callboard("job", "view", "nothing", "-q", "--embedded", data).assert_failed(Exit.NOT_FOUND, "nothing")


def test_a_dry_run_says_what_a_sync_then_does_and_writes_nothing(callboard: Any, notes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    sync = ("sync", "dir", "--set", f"directory={notes}", "--index", "notes", "--embedded", data, "--format", "json")
    first = json.loads(callboard(*sync, "--dry-run").out)
    assert (first["new"], first["changed"], first["deleted"], first["unchanged"]) == (2, 0, 0, 0)
    assert sorted(Path(one).name for one in first["new_samples"]) == ["one.txt", "two.txt"]
    assert not data.exists()
    done = json.loads(callboard(*sync).out)
    assert done["indexed"] == 2
    (notes / "one.txt").write_text("The thunder sheet was mended, and is as good as new.\n")
    (notes / "two.txt").unlink()
    (notes / "three.txt").write_text("A new one.\n")
    jobs = callboard("job", "list", "--embedded", data, "--format", "json").out
    second = json.loads(callboard(*sync, "--dry-run").out)
    assert (second["new"], second["changed"], second["deleted"], second["unchanged"]) == (1, 1, 1, 0)
    assert callboard("job", "list", "--embedded", data, "--format", "json").out == jobs
    hits = callboard("search", "notes", "wardrobe", "--embedded", data)
    assert "two.txt" in hits.out, "the dry run has deleted something"
    after = json.loads(callboard(*sync).out)
    assert (after["indexed"], after["deleted"]) == (2, 1)


def test_a_dry_run_reaches_the_source_and_refuses_what_it_cannot_do(
    callboard: Any, notes: Path, tmp_path: Path
) -> None:
    sync = ("sync", "dir", "--index", "notes", "--embedded", tmp_path / "data", "--dry-run")
    missing = callboard(*sync, "--set", f"directory={tmp_path / 'missing'}")
    missing.assert_failed(Exit.NOT_FOUND, "missing")
    for kind, words in (("incremental", "no incremental sync"), ("access_control", "no document-level security")):
        callboard(*sync, "--set", f"directory={notes}", "--type", kind).assert_failed(Exit.FAILED, words)
    assert not (tmp_path / "data").exists()


def test_a_sync_names_its_connector_so_that_its_jobs_can_be_listed(callboard: Any, notes: Path, tmp_path: Path) -> None:
    where = ("--embedded", tmp_path / "data")
    done = callboard("sync", "dir", "--set", f"directory={notes}", "--index", "notes", *where)
    typed = done.err.split("its jobs: callboard ")[1].splitlines()[0]
    assert callboard(*shlex.split(typed)).code == Exit.DONE, "what is suggested works as it stands there"
    named = typed.split("job list ")[1].split()[0]
    jobs = json.loads(callboard("job", "list", named, *where, "-o", "json").out)
    assert [each["connector_id"] for each in jobs] == [named]
    assert json.loads(callboard("job", "list", *where, "-o", "json").out) == jobs


@pytest.mark.parametrize("command", [("--help",), ("--version",), ("source", "list"), ("completion", "bash")])
def test_output_to_a_full_disk(callboard: Any, command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            callboard.command(*command), env=callboard.environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == Exit.LOCAL, done.stderr
    assert "Error: The disk is full." in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_full_disk_leaves_no_half_of_a_new_source(callboard: Any, tmp_path: Path) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = subprocess.run(
        callboard.command("source", "new", "tide_tables"),
        cwd=tmp_path,
        env=callboard.environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        preexec_fn=small_files,
    )
    assert done.returncode == Exit.LOCAL, done.stderr
    assert "The disk is full" in done.stderr
    assert not (tmp_path / "tide_tables").exists()


def test_a_source_that_works_passes_every_check(callboard: Any, notes: Path) -> None:
    done = callboard("source", "check", "dir", "--set", f"directory={notes}", "--conformance", "--format", "json")
    assert done.code == Exit.DONE, done.out + done.err
    told = json.loads(done.out)
    assert len(told["checks"]) > 12
    assert len(told["documents"]) == 2


def test_a_check_says_which_part_of_a_source_does_not_pass_and_why(callboard: Any, tmp_path: Path) -> None:
    done = callboard("source", "check", "dir", "--set", f"directory={tmp_path / 'none'}", "--format", "json")
    assert done.code == Exit.FAILED
    failed = [each for each in json.loads(done.out)["checks"] if not each["passed"]]
    assert [each["check"] for each in failed] == ["answers and takes the credentials"]
    assert "none" in failed[0]["why"]
    wrong = callboard("source", "check", "dir", "--set", "folder=/tmp")
    assert wrong.code == Exit.FAILED
    assert "no field 'folder'" in wrong.out


def test_a_source_of_ones_own_is_checked_from_its_folder(callboard: Any, tmp_path: Path) -> None:
    assert callboard("source", "new", "tides").code == Exit.DONE
    module = tmp_path / "tides" / "tides.py"
    shutil.copy(module, tmp_path / "tides_here.py")
    done = callboard("source", "check", "tides_here:Tides")
    assert done.code == Exit.FAILED
    assert "settings" in done.out
    callboard("source", "check", "nowhere:Tides").assert_failed(Exit.USAGE, "nowhere")


def test_the_scaffold_of_a_source_passes_the_conformance_kit(callboard: Any, tmp_path: Path) -> None:
    assert callboard("source", "new", "tides").code == Exit.DONE
    feed = tmp_path / "feed.json"
    items = [{"id": f"tide-{n}", "height": n, "changed": "2026-01-01T00:00:00Z"} for n in range(5)]
    feed.write_text(json.dumps(items))
    callboard.folder = tmp_path / "tides"
    done = callboard(
        *("source", "check", "tides:Tides", "--set", f"feed={feed}", "--set", "page_size=2"),
        *("--conformance", "--format", "json"),
    )
    told = json.loads(done.out)
    assert [each for each in told["checks"] if not each["passed"]] == []
    assert done.code == Exit.DONE, done.err
    assert len(told["checks"]) > 12
    assert [each["id"] for each in told["documents"]] == [f"tide-{n}" for n in range(5)]


def test_text_and_table_are_the_same_word(callboard: Any) -> None:
    assert callboard("source", "list", "--format", "text").out == callboard("source", "list", "--format", "table").out


def test_the_reference_accepts_a_double_dash(callboard: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert callboard("connector", "list", "--embedded", data, "--").code == Exit.DONE


def test_a_password_comes_from_a_file_and_never_from_the_command_line(
    callboard: Any, answering: Any, tmp_path: Path
) -> None:
    hello = json.dumps({"cluster_name": "c", "version": {"number": "9.5.3", "build_flavor": "default"}, "tagline": "x"})
    url = answering(200, hello.encode(), Content_Type="application/json", X_elastic_product="Elasticsearch")
    secret = tmp_path / "secret"
    secret.write_text("hunter22\n")
    done = callboard("login", "--host", url, "--user", "ines", "--password-file", secret)
    assert done.code == Exit.DONE, done.err
    assert "hunter22" in (tmp_path / "home/.config/callboard/profiles/default.yml").read_text()
    for _, command in LEAVES:
        names = [option for parameter in command.params for option in parameter.opts]
        assert not {"--password", "--api-key", "--token"} & set(names), command.name


def test_a_half_written_profile_is_one_line(callboard: Any, tmp_path: Path) -> None:
    profile = tmp_path / "home/.config/callboard/profiles/default.yml"
    profile.parent.mkdir(parents=True)
    profile.write_text("elasticsearch:\n  host: http://h:9200\n  password: 'hunter")
    failed = callboard("connector", "list")
    failed.assert_failed(Exit.USAGE, "not YAML")
    assert "hunter" not in failed.err
    profile.write_text("elasticsearch:\n")
    callboard("connector", "list").assert_failed(Exit.USAGE, "elasticsearch.host")


@pytest.mark.parametrize("text", ['{"directory": "/tmp', "[1]", '{"nonsense": 1}', '{"directory": ""}'])
def test_a_half_written_file_of_settings_is_one_line(callboard: Any, tmp_path: Path, text: str) -> None:
    file, data = tmp_path / "settings.json", tmp_path / "data"
    file.write_text(text)
    data.mkdir()
    create = ("connector", "create", "--service-type", "dir", "--index-name", "notes", "--name", "Notes")
    failed = callboard(*create, "--from-file", file, "--embedded", data)
    failed.assert_failed(Exit.USAGE)
    assert json.loads(callboard("connector", "list", "--embedded", data, "-o", "json").out) == []


def test_the_service_file_keeps_its_comments(callboard: Any, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "config.yml"
    file.write_text("# mine\nelasticsearch:\n  host: http://h:9200  # the old one\n")
    create = ("connector", "create", "--service-type", "dir", "--index-name", "notes", "--name", "Notes")
    done = callboard(
        *create, "--set", f"directory={notes}", "--update-config", "-o", "json", "--embedded", tmp_path / "data"
    )
    assert done.code == Exit.DONE, done.err
    text = file.read_text()
    assert text.startswith("# mine\n")
    assert "# the old one" in text
    assert json.loads(done.out)["id"] in text


SHELLS = {
    "bash": 'source "$1"; COMP_WORDS=(callboard conn); COMP_CWORD=1; _callboard_completion callboard; printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": 'source "$argv[1]"; complete --do-complete "callboard conn"',
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(callboard: Any, tmp_path: Path, shell: str, server_missing: Any) -> None:
    if not shutil.which(shell):
        server_missing(shell, f"sudo apt-get install {shell}")
    script = tmp_path / "completion"
    script.write_text(callboard("completion", shell).out)
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "callboard"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m callboard "$@"\n')
    command.chmod(0o755)
    environment = callboard.environment(PATH=f"{folder}:{os.environ['PATH']}")
    done = subprocess.run(
        [shell, "-c", SHELLS[shell], *([shell] if shell != "fish" else []), str(script)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "connector" in done.stdout


def test_the_benchmark_of_the_start_explains_itself() -> None:
    bench = Path(__file__).parents[2] / "bench" / "command_line_start.py"
    done = subprocess.run([sys.executable, str(bench), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "ROUNDS" in done.stdout


def test_suggested_commands_name_the_place_and_never_a_secret(callboard: Any, notes: Path, tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    create = ("connector", "create", "--service-type", "dir", "--index-name", "notes", "--name", "Notes")
    made = callboard(*create, "--set", f"directory={notes}", "--embedded", data)
    assert made.code == Exit.DONE, made.err
    for words in ("Next: callboard ", "Watch it: callboard "):
        typed = made.err.split(words)[1].splitlines()[0]
        assert f"--embedded '{data}'" in typed
        if "follow" not in typed:
            made = callboard(*shlex.split(typed))
            assert made.code == Exit.DONE, made.err
    again = callboard(*create, "--set", f"directory={notes}", "--embedded", data)
    assert f"--embedded '{data}'" in again.err
