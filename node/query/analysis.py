"""The words of a text, as the full-text tables see them. Pure."""

from __future__ import annotations

import re

_WORD = re.compile(
    r"[\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|(?:(?![\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])[\w\u0300-\u036f])+"
)


def tokens(text: str) -> list[str]:
    """Return the words, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def token_spans(text: str) -> list[tuple[int, int, str]]:
    """Return each word with where it starts and ends."""
    return [(found.start(), found.end(), found[0].lower()) for found in _WORD.finditer(text)]


def quoted(token: str) -> str:
    """Return a word as a full-text expression that means just this word."""
    return '"' + token.replace('"', '""') + '"'
