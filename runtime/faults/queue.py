"""The queue of a mailbox under a fault plan: it loses, reorders and fills up as the rules say, within what is promised."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from .plan import Drop, Fill, Reorder, Rule

if TYPE_CHECKING:
    from ..actor import ActorRef
    from .injector import Injector


class FaultyQueue(deque[Any]):
    """Takes the place of a mailbox's queue. Only `append` differs, so that nothing else knows of it."""

    def __init__(self, faults: Injector, ref: ActorRef[Any]) -> None:
        super().__init__()
        self._faults, self._ref = faults, ref
        self._senders: deque[trio.lowlevel.Task | None] = deque()
        """Who put in what stands at the same place; None for what only takes room."""

    def append(self, envelope: Any) -> None:
        """Put a message in, or not, or not at the end."""
        from ..actor import _Asked

        ref, sender = self._ref, trio.lowlevel.current_task()
        is_request = type(envelope) is _Asked
        message = envelope.message if is_request else envelope
        may_be_lost = is_request or ref._mailbox.overflow == "drop_oldest"
        here = self._places(sender)

        def may(rule: Rule) -> bool:
            if isinstance(rule.effect, Drop):
                return may_be_lost
            return not isinstance(rule.effect, Reorder) or here < len(self)

        rules = self._faults.hits("mailbox", ref.path, type(message).__name__, may)
        if any(isinstance(rule.effect, Drop) for rule in rules):
            if not is_request:
                ref._events.emit("dead_letter", ref.path, message)
            return
        place = len(self)
        for rule in rules:
            if isinstance(rule.effect, Reorder):
                place = self._faults.draw(rule, here, len(self) - 1)
        self._senders.insert(place, sender)
        self.insert(place, envelope)
        if any(isinstance(rule.effect, Fill) for rule in rules):
            for _ in range(ref._mailbox.capacity - len(self)):
                # A request that nobody wants any more is skipped unhandled.
                unwanted = _Asked(message)
                unwanted.wanted = False
                self._senders.append(None)
                super().append(unwanted)

    def popleft(self) -> Any:
        """Take the next."""
        self._senders.popleft()
        return super().popleft()

    def _places(self, sender: trio.lowlevel.Task) -> int:
        """The first place that is behind all that this sender has put in."""
        for place in range(len(self), 0, -1):
            if self._senders[place - 1] in (sender, None):
                return place
        return 0
