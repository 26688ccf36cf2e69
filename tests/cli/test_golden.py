"""What every command prints, kept in `golden/`: one file each, for people and for scripts.

CALLBOARD_UPDATE_GOLDEN=1 writes the files anew; look at the difference before keeping it.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import trio

from callboard.actors.journal import Entry, write_entries
from callboard.actors.journal.events import JobClaimed, JobCompleted, PartitionBroken
from callboard.actors.sync.dead_letters import DeadLetters
from callboard.actors.sync.report import FailedDocument
from callboard.node import open_node
from callboard.protocol.store import Target, open_store

GOLDEN = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("CALLBOARD_UPDATE_GOLDEN"))


@attrs.define
class Compared:
    """Runs commands and compares what they print with the golden files; ids, times and places are replaced by words."""

    callboard: Any
    words: dict[str, str] = attrs.field(factory=dict)
    different: list[str] = attrs.field(factory=list)
    used: set[str] = attrs.field(factory=set)
    folder: Path = GOLDEN

    def __call__(self, name: str, *arguments: str | Path, code: int = 0, lines_max: int | None = None) -> str:
        """Run and compare. With `lines_max` only so many lines are kept of what grows with every setting there is."""
        done = self.callboard(*arguments)
        typed = " ".join(map(str, arguments))
        out = done.out
        if lines_max is not None:
            out = "".join(f"{line}\n" for line in [*out.splitlines()[:lines_max], "..."])
        text = f"$ callboard {typed}\n{out}--- standard error\n{done.err}--- exit code {done.code}\n"
        assert done.code == code, text
        shown, path = self.plain(text), self.folder / f"{name}.txt"
        self.used.add(path.name)
        if UPDATE:
            self.folder.mkdir(exist_ok=True)
            path.write_text(shown, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != shown:
            kept = path.read_text(encoding="utf-8") if path.exists() else "(no golden file)\n"
            self.different.append(f"{path.name}\nexpected:\n{kept}\nprinted:\n{shown}")
        printed: str = done.out
        return printed

    def plain(self, text: str) -> str:
        for value, word in sorted(self.words.items(), key=lambda item: -len(item[0])):
            text = text.replace(value, word)
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00| UTC)?", "TIME", text)
        text = re.sub(r'"seconds": [\d.]+', '"seconds": N', text)
        text = re.sub(r"\b[\d.]+ k?B in [\d.]+ s\b", "SIZE in SECONDS", text)
        text = re.sub(r'"bytes": \d+', '"bytes": N', text)
        text = re.sub(r"http://127\.0\.0\.1:\d{2,5}", "NODE", text)
        text = re.sub(r'"score": [\d.e-]+', '"score": N', text)
        text = re.sub(
            r'"(inode_number|inode_protection_mode|device_inode_reside|uid|gid|ctime)": [\d.]+', r'"\1": N', text
        )
        text = re.sub(r"(?m)^(ok  (Callboard|Python|Text extraction) +)\S.*$", r"\1VERSION", text)
        text = re.sub(
            r'("subject": "(Callboard|Python|Text extraction)",\n +"verdict": "ok",\n +"text": ").*"',
            r'\1VERSION"',
            text,
        )
        text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text)
        text = re.sub(r"(?m)^(Worker +)\S+$", r"\1WORKER", text)
        # Widths of columns follow from what has been replaced.
        text = re.sub(r"-{3,}(?= |\n|$)(?! standard| exit)", "---", text)
        return re.sub(r"(?<=\S) {2,}", "  ", text)

    def finish(self) -> None:
        assert not self.different, "\n".join(self.different)


def test_what_commands_print_is_what_is_kept(callboard: Any, tmp_path: Path) -> None:
    notes, data = tmp_path / "notes", tmp_path / "data"
    notes.mkdir()
    (notes / "one.txt").write_text("The thunder sheet is cracked.\n")
    compare = Compared(callboard, {str(tmp_path): "FOLDER"})
    where = ("--embedded", data)
    json_ = ("--format", "json")
    sync = ("sync", "dir", "--set", f"directory={notes}", "--index", "notes", *where)
    compare("sync-dry-run", *sync, "--dry-run")
    compare("sync-dry-run-json", *sync, "--dry-run", *json_)
    assert callboard(*sync, "-q").code == 0
    made = json.loads(callboard("connector", "list", *where, *json_).out)[0]["id"]
    job = json.loads(callboard("job", "list", *where, *json_).out)[0]["job_id"]
    compare.words |= {made: "CONNECTOR", job: "JOB"}
    compare("sync", *sync)
    for each in json.loads(callboard("job", "list", *where, *json_).out):
        compare.words.setdefault(each["job_id"], "JOB-2")
    compare("connector-list", "connector", "list", *where)
    compare("connector-list-json", "connector", "list", *where, *json_)
    compare("connector-show", "connector", "show", made, *where)
    compare("connector-check", "connector", "check", made, *where)
    compare("connector-check-json", "connector", "check", made, *where, *json_)
    compare("connector-edit", "connector", "edit", made, "--name", "Letters", *where)
    compare("connector-edit-json", "connector", "edit", made, "--name", "Notes", *where, *json_)
    compare("connector-schedule", "connector", "schedule", made, "0 0 2 * * ?", *where)
    compare("connector-schedule-json", "connector", "schedule", made, "0 0 2 * * ?", *where, *json_)
    compare("connector-disable", "connector", "disable", made, *where)
    compare("connector-disable-json", "connector", "disable", made, *where, *json_)
    compare("connector-enable", "connector", "enable", made, *where)
    compare("connector-enable-json", "connector", "enable", made, *where, *json_)
    exported = compare("connector-export", "connector", "export", made, *where)
    compare("connector-export-json", "connector", "export", made, *where, *json_)
    file = tmp_path / "deployment.yml"
    file.write_text(exported.replace("name: Notes", "name: Letters"))
    compare("connector-apply-dry-run", "connector", "apply", "-f", file, "--dry-run", *where)
    compare("connector-apply-json", "connector", "apply", "-f", file, "--yes", *where, *json_)
    compare("connector-import", "connector", "import", file, *where)
    compare("job-list", "job", "list", made, *where)
    compare("job-list-all-json", "job", "list", *where, *json_)
    compare("job-view", "job", "view", job, *where)
    compare("job-view-json", "job", "view", job, *where, *json_)
    compare("job-follow", "job", "follow", job, *where)
    waiting = json.loads(callboard("job", "start", "-i", made, "-t", "full", *where, *json_).out)["id"]
    compare.words[waiting] = "JOB-3"
    compare("job-cancel", "job", "cancel", waiting, "--yes", *where)
    compare("job-cancel-again", "job", "cancel", waiting, "--yes", *where, code=1)
    compare("job-unknown", "job", "view", "no-such-job", *where, code=5)
    compare("connector-unknown", "connector", "show", "no-such-connector", *where, code=5)
    compare("search", "search", "notes", "thunder", *where)
    compare("rules-test", "rules", "test", made, "--rule", "exclude path ends_with .txt", *where)
    compare("rules-test-json", "rules", "test", made, "--rule", "exclude path ends_with .txt", *where, *json_)
    compare("dead-letters-list", "dead-letters", "list", *where)
    compare("index-list", "index", "list", *where)
    compare("index-list-json", "index", "list", *where, *json_)
    compare("index-clean", "index", "clean", "notes", "--yes", *where)
    compare("index-clean-json", "index", "clean", "notes", "--yes", *where, *json_)
    compare("connector-delete-json", "connector", "delete", made, "--yes", *where, *json_)
    compare("index-delete", "index", "delete", "notes", "--yes", *where)
    compare("index-delete-refused", "index", "delete", "notes", *where, code=2)
    compare("source-check", "source", "check", "dir", "--set", f"directory={notes}")
    compare("source-new", "source", "new", "tide_tables")
    compare("extract", "extract", notes / "one.txt")
    compare("usage-mistyped", "serch", "notes", code=2)
    kept = {path.name for path in GOLDEN.glob("*.txt")}
    assert kept == compare.used, f"golden files that nothing writes: {sorted(kept - compare.used)}"
    compare.finish()


def test_what_the_other_commands_print_is_what_is_kept(callboard: Any, answering: Any, tmp_path: Path) -> None:
    notes, data = tmp_path / "notes", tmp_path / "data"
    notes.mkdir()
    (notes / "one.txt").write_text("The thunder sheet is cracked.\n")
    os.utime(notes / "one.txt", (1_700_000_000, 1_700_000_000))
    compare = Compared(callboard, {str(tmp_path): "FOLDER"}, folder=GOLDEN / "others")
    where = ("--embedded", data)
    json_ = ("--format", "json")

    hello = b'{"cluster_name": "c", "version": {"number": "9.5.3", "build_flavor": "default"}, "tagline": "x"}'
    url = answering(200, hello, Content_Type="application/json", X_elastic_product="Elasticsearch")
    compare.words[url] = "SERVER"
    (tmp_path / "password").write_text("right\n")
    login = ("login", "--host", url, "--user", "ines", "--password-file", tmp_path / "password")
    compare("login", *login)
    compare("login-again", *login, code=2)
    compare("login-json", *login, "--yes", *json_)

    compare("demo", "demo", notes, "--data", data, "--query", "thunder")
    compare("demo-json", "demo", notes, "--data", data, "--query", "thunder", *json_)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "two.txt").write_text("The wind machine is mended.\n")
    other = ("sync", "dir", "--set", f"directory={tmp_path / 'letters'}", "--index", "letters", *where)
    assert callboard(*other, "-q").code == 0
    made = {each["index_name"]: each["id"] for each in json.loads(callboard("connector", "list", *where, *json_).out)}
    compare.words |= {made["demo-notes"]: "CONNECTOR", made["letters"]: "CONNECTOR-2"}
    jobs = [each["job_id"] for each in json.loads(callboard("job", "list", *where, *json_).out)]
    compare.words |= {each: f"JOB-{number}" for number, each in enumerate(jobs, start=1)}

    compare("search-json", "search", "demo-notes", "thunder", *where, *json_)
    compare("search-nothing", "search", "demo-notes", "lightning", *where)
    compare("diff-same", "diff", "demo-notes", "demo-notes", *where)
    compare("diff", "diff", "demo-notes", "letters", *where, code=1)
    compare("diff-json", "diff", "demo-notes", "letters", *where, *json_, code=1)
    compare("diff-unknown", "diff", "demo-notes", "nothing", *where, code=5)
    compare("job-follow-json", "job", "follow", jobs[0], *where, *json_)
    write_history(data, jobs[0])
    compare("job-log", "job", "log", jobs[0], *where)
    compare("job-log-json", "job", "log", jobs[0], *where, *json_)
    compare("job-log-follow", "job", "log", jobs[0], "--follow", *where)
    compare("job-log-empty", "job", "log", jobs[1], *where)
    compare("dead-letters-list", "dead-letters", "list", *where)
    compare("dead-letters-list-json", "dead-letters", "list", "--job", jobs[0], *where, *json_)
    compare("dead-letters-replay", "dead-letters", "replay", "--index", "demo-notes", "--yes", *where)
    compare("dead-letters-replay-unclear", "dead-letters", "replay", "--yes", *where, code=2)
    compare("doctor", "doctor", *where)
    compare("doctor-json", "doctor", *where, *json_)

    file = tmp_path / "config.yml"
    file.write_text(
        "elasticsearch:\n  host: http://search:9200\n  password: right\nservice.idling: 5\nservice.color: red\n"
    )
    compare("config-check", "config", "check", "-c", file)
    compare("config-check-strict", "config", "check", "-c", file, "--strict", code=1)
    compare("config-show", "config", "show", "-c", file, lines_max=8)
    compare("config-show-json", "config", "show", "-c", file, *json_, lines_max=8)
    file.write_text("service.idling: often\n")
    compare("config-check-wrong", "config", "check", "-c", file, code=2)
    compare("service-help", "service", "--help")
    compare("source-describe", "source", "describe", "dir")
    compare("source-describe-json", "source", "describe", "dir", *json_)
    kept = {path.name for path in compare.folder.glob("*.txt")}
    assert kept == compare.used, f"golden files that nothing writes: {sorted(kept - compare.used)}"
    compare.finish()


def write_history(data: Path, job_id: str) -> None:
    """Put a story and a dead letter of a job into a data folder, as a service and its engine would."""
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    happened = [
        JobClaimed(job_type="full", index="demo-notes", goes_on=False),
        PartitionBroken(partition="attic", why="the ladder is gone", listed=3),
        JobCompleted(indexed=1, deleted=0, unchanged=0, failed=1, size_bytes=2048, seconds=2.5),
    ]

    async def main() -> None:
        async with open_node(data, port=None) as node, open_store(Target(embedded=node.app)) as store:
            entries = [
                Entry(at=at + timedelta(seconds=n), happening=one, job_id=job_id, worker="here", number=n)
                for n, one in enumerate(happened)
            ]
            await write_entries(store, entries)
            letters = DeadLetters(store, "demo-notes", job_id=job_id)
            letters.add(FailedDocument("attic/three.txt", "download", "the file is odd", "attic", "attic/three.txt"))
            await letters.flush()

    trio.run(main)
