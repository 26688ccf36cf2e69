"""What every command prints, kept in `golden/`: one file each, for people and for scripts.

CALLBOARD_UPDATE_GOLDEN=1 writes the files anew; look at the difference before keeping it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import attrs

GOLDEN = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("CALLBOARD_UPDATE_GOLDEN"))


@attrs.define
class Compared:
    """Runs commands and compares what they print with the golden files; ids, times and places are replaced by words."""

    callboard: Any
    words: dict[str, str] = attrs.field(factory=dict)
    different: list[str] = attrs.field(factory=list)
    used: set[str] = attrs.field(factory=set)

    def __call__(self, name: str, *arguments: str | Path, code: int = 0) -> str:
        done = self.callboard(*arguments)
        typed = " ".join(map(str, arguments))
        text = f"$ callboard {typed}\n{done.out}--- standard error\n{done.err}--- exit code {done.code}\n"
        assert done.code == code, text
        shown, path = self.plain(text), GOLDEN / f"{name}.txt"
        self.used.add(path.name)
        if UPDATE:
            path.write_text(shown, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != shown:
            kept = path.read_text(encoding="utf-8") if path.exists() else "(no golden file)\n"
            self.different.append(f"{path.name}\nexpected:\n{kept}\nprinted:\n{shown}")
        out: str = done.out
        return out

    def plain(self, text: str) -> str:
        for value, word in sorted(self.words.items(), key=lambda item: -len(item[0])):
            text = text.replace(value, word)
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00| UTC)?", "TIME", text)
        text = re.sub(r'"seconds": [\d.]+', '"seconds": N', text)
        text = re.sub(r"\b[\d.]+ k?B in [\d.]+ s\b", "SIZE in SECONDS", text)
        text = re.sub(r'"bytes": \d+', '"bytes": N', text)
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
