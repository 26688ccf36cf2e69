"""Whether the service can do its work now: probes ask often and carry no token, so they cost little and are told nothing private."""

from __future__ import annotations

import trio

from ...protocol.store import Forbidden, StoreError, Unauthorised, Unreachable
from ...runtime import monotonic
from ..service_state import ServiceState

ASKED_EVERY_S = 2.0
ANSWERS_WITHIN_S = 2.0


class Readiness:
    """Asks Elasticsearch, at most every other second however many probes there are."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._asked: tuple[float, str] | None = None
        self._asking = trio.Lock()

    async def reasons(self) -> list[str]:
        """Say why the service is not ready; nothing if it is."""
        if self._state.stopping.is_set():
            return ["The service is stopping."]
        reasons = [] if self._state.has_looked else ["The service has not seen its connectors yet."]
        async with self._asking:
            if self._asked is None or monotonic() - self._asked[0] >= ASKED_EVERY_S:
                self._asked = (monotonic(), await self._ask())
        return [*reasons, self._asked[1]] if self._asked[1] else reasons

    async def _ask(self) -> str:
        """What is wrong with Elasticsearch; empty if it answers. Its own words may name hosts, so they are not told here."""
        client = self._state.store.client.options(max_retries=0, request_timeout=ANSWERS_WITHIN_S)
        try:
            with trio.fail_after(ANSWERS_WITHIN_S):
                await client.info()
        except (trio.TooSlowError, Unreachable):
            return "Elasticsearch does not answer."
        except Unauthorised:
            return "Elasticsearch does not accept the credentials."
        except Forbidden:
            return ""
        except StoreError as exc:
            status = f" ({exc.status})" if exc.status else ""
            return f"Elasticsearch answers with an error{status}."
        return ""
