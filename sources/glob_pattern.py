"""Glob patterns relative to a folder, as `pathlib` understands them, compiled for paths that are already known.

`*`, `?` and `[...]` match inside one name, `**` as a whole name matches any number of folders. Names that begin with a dot are
ordinary names.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence


class InvalidPattern(ValueError):
    """A pattern that cannot be used; says why."""


def compile_pattern(pattern: str) -> Callable[[Sequence[str]], bool]:
    """Return a function that tells whether a path, given as its names below the folder, matches.

    Raises `InvalidPattern` for a pattern that is empty, absolute, leads out of the folder, or has `**` inside a name.
    """
    if not pattern.strip():
        raise InvalidPattern("the pattern is empty; **/* takes all files")
    if pattern.startswith(("/", "~")) or "\0" in pattern:
        raise InvalidPattern(f"the pattern {pattern!r} is absolute; write it relative to the folder, such as **/*.md")
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    if ".." in names:
        raise InvalidPattern(f"the pattern {pattern!r} leads out of the folder with '..'")
    for name in names:
        if "**" in name and name != "**":
            raise InvalidPattern(f"in the pattern {pattern!r}, ** must stand alone between slashes")
    if not names or names[-1] == "**":
        raise InvalidPattern(f"the pattern {pattern!r} matches only folders; end it with a file name such as *")
    matchers = [None if name == "**" else re.compile(fnmatch.translate(name)).match for name in names]
    return lambda path: _matches(matchers, path)


def _matches(matchers: Sequence[Callable[[str], object] | None], path: Sequence[str]) -> bool:
    # `reached` holds how many names of the pattern may have been used up; None in the pattern stands for `**`.
    reached = _through(matchers, {0})
    for name in path:
        step: set[int] = set()
        for at in reached:
            matcher = matchers[at] if at < len(matchers) else _nothing
            if matcher is None:
                step.add(at)
            elif matcher(name):
                step.add(at + 1)
        reached = _through(matchers, step)
    return len(matchers) in reached


def _through(matchers: Sequence[Callable[[str], object] | None], reached: set[int]) -> set[int]:
    """Add the places that are reached by letting `**` stand for no folder at all."""
    for at in list(reached):
        while at < len(matchers) and matchers[at] is None:
            at += 1
            reached.add(at)
    return reached


def _nothing(_name: str) -> object:
    return None
