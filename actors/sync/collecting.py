"""Keeping Python's garbage collector from walking over everything while documents stream by.

A sync makes and drops some thousand containers at a time, none of them in cycles, and reference counting frees those at once. The
collector counts them all the same and walks over whatever is alive, again and again: a third of the time of a sync of unchanged
documents. While at least one sync runs, it therefore starts later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS_MAX = 10_000
"""Containers more than were there at the last look. What a connection leaves in cycles can be a whole page of an index: more of them
would take tens of megabytes and save nothing."""

_before: list[tuple[int, int, int]] = []
"""What to go back to; one entry for every sync that runs."""


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Let the collector start seldom for the length of the block; the last of several blocks restores what was before the first.

    A host program that has chosen larger numbers, or switched the collector off, keeps its choice.
    """
    thresholds = gc.get_threshold()
    _before.append(_before[0] if _before else thresholds)
    if 0 < thresholds[0] < YOUNG_OBJECTS_MAX:
        gc.set_threshold(YOUNG_OBJECTS_MAX, *thresholds[1:])
    try:
        yield
    finally:
        original = _before.pop()
        if not _before:
            gc.set_threshold(*original)
