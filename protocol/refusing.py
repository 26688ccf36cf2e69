"""The refusal of a transition, on its own so that all modules of transitions can raise it."""

from __future__ import annotations


class TransitionRefused(Exception):
    """The document is not in a state in which this may happen. `why` is a sentence for people."""

    def __init__(self, why: str, *, status: str | None = None, wanted: str | None = None) -> None:
        self.why, self.status, self.wanted = why, status, wanted
        super().__init__(why)
