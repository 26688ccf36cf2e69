"""The guard in front of every route."""

from __future__ import annotations

from typing import Any


class OpenGuard:
    """Lets everybody do everything: the node has no users."""

    enabled = False

    async def authenticate(self, engine: Any, headers: dict[str, str]) -> Any:
        """Return nobody in particular."""

    def authorise(self, principal: Any, action: str, arguments: dict[str, str], request: Any) -> None:
        """Allow."""
