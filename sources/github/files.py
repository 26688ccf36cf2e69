"""Text files of one repository: the entries of a branch or a folder, and when each was last committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from ..errors import UnexpectedAnswer
from . import queries
from .client import GitHubClient
from .mapping import is_text_file

DATED_AT_ONCE: Final = 20
FOLDER_ENTRIES_MAX: Final = 1000
"""A folder's listing ends here without a word."""


class Files:
    """Reads what is in one repository. Any number may be used at once."""

    def __init__(self, github: GitHubClient, through: str, full_name: str) -> None:
        self._github = github
        self._through = through
        self._owner, _, self._name = full_name.partition("/")

    async def tree(self, branch: str) -> list[dict[str, Any]]:
        """The text files of a branch. Trees that GitHub truncates are read folder by folder."""
        found: list[dict[str, Any]] = []
        waiting = [("", branch)]
        while waiting:
            folder, tree = waiting.pop()
            answer = await self._tree(tree, recursive=True)
            if answer.get("truncated"):
                answer = await self._tree(tree, recursive=False)
                if answer.get("truncated"):
                    raise UnexpectedAnswer(
                        f"GitHub does not list the folder {folder or '/'} of {self._owner}/{self._name} whole: "
                        "it has too many entries."
                    )
                waiting += [(f"{folder}{one['path']}/", one["sha"]) for one in answer["tree"] if one["type"] == "tree"]
            found += [
                {**one, "path": folder + one["path"]}
                for one in answer["tree"]
                if one["type"] == "blob" and is_text_file(one["path"])
            ]
        return found

    async def folder(self, path: str, branch: str) -> list[dict[str, Any]]:
        """The text files directly in a folder, or the one file of that name."""
        parts = PurePosixPath(path).parts
        steps = [part for part in parts if part not in ("/", ".")]
        listed = await self._github.rest(self._through, "repos", self._owner, self._name, "contents", *steps)
        entries = listed if isinstance(listed, list) else [listed]
        if len(entries) >= FOLDER_ENTRIES_MAX:
            answer = await self._tree(f"{branch}:{'/'.join(steps)}", recursive=False)
            if answer.get("truncated"):
                raise UnexpectedAnswer(f"GitHub does not list the folder {path} whole: it has too many entries.")
            entries = [
                {"type": "file", "path": "/".join([*steps, one["path"]]), "size": one.get("size"), "sha": one["sha"]}
                for one in answer["tree"]
                if one["type"] == "blob"
            ]
        return [one for one in entries if one["type"] == "file" and is_text_file(one["path"])]

    async def _tree(self, tree: str, *, recursive: bool) -> dict[str, Any]:
        answer = await self._github.rest(
            self._through,
            *("repos", self._owner, self._name, "git", "trees", tree),
            params={"recursive": "1"} if recursive else None,
        )
        if not isinstance(answer, dict) or not isinstance(answer.get("tree"), list):
            raise UnexpectedAnswer(f"GitHub answered for the files of {self._owner}/{self._name} without a tree.")
        return answer

    def batches(self, entries: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
        """Split entries into as many as are dated by one call."""
        for at in range(0, len(entries), DATED_AT_ONCE):
            yield entries[at : at + DATED_AT_ONCE]

    async def last_commits(self, branch: str, paths: Sequence[str]) -> dict[str, str | None]:
        """When each path was last committed on the branch; None where GitHub knows no commit."""
        variables = {"owner": self._owner, "name": self._name, "branch": branch}
        variables |= {f"path{at}": path for at, path in enumerate(paths)}
        answer = await self._github.query(self._through, queries.last_commits(len(paths)), variables)
        commit = (answer.get("repository") or {}).get("object") or {}
        dates: dict[str, str | None] = {}
        for at, path in enumerate(paths):
            nodes = (commit.get(f"file{at}") or {}).get("nodes") or []
            dates[path] = nodes[0]["committedDate"] if nodes else None
        return dates
