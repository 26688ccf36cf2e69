"""A service that is rehearsing says so, again and again, in its log."""

from __future__ import annotations

import structlog
import trio

from ..runtime import Context, Task

EVERY_S = 600.0

log = structlog.get_logger("callboard.service")


def rehearsal_notes(rehearsal: str) -> tuple[str, ...]:
    """What a job's document says if it ran in a rehearsal."""
    return (f"This job ran in a REHEARSAL, with faults injected on purpose: {rehearsal}.",) if rehearsal else ()


class RehearsalReminder(Task):
    """Says at the start, and every ten minutes, that faults are injected."""

    def __init__(self, rehearsal: str) -> None:
        self._rehearsal = rehearsal

    async def run(self, context: Context) -> None:
        """Remind until cancelled."""
        while True:
            # The highest level, so that no setting hides it.
            log.critical(
                "REHEARSAL", text=f"Faults are injected on purpose: {self._rehearsal}. Do not trust this service."
            )
            await trio.sleep(EVERY_S)
