"""Callboard moves documents from the systems where people keep them into Elasticsearch, and keeps them in step."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY: dict[str, str] = {
    "Actor": "callboard.runtime",
    "ActorRef": "callboard.runtime",
    "Backoff": "callboard.runtime",
    "Budget": "callboard.runtime",
    "ChildSpec": "callboard.runtime",
    "FaultPlan": "callboard.runtime",
    "Request": "callboard.runtime",
    "Stream": "callboard.runtime",
    "Supervisor": "callboard.runtime",
    "System": "callboard.runtime",
    "Task": "callboard.runtime",
    "handles": "callboard.runtime",
    "obey_signals": "callboard.runtime",
    "open_system": "callboard.runtime",
    "run_in_asyncio": "callboard.runtime",
    "run_simulated": "callboard.runtime",
    "Service": "callboard.actors.service",
    "ServiceEvent": "callboard.actors.service",
    "SyncReport": "callboard.actors.sync",
    "SyncSettings": "callboard.actors.sync",
    "open_service": "callboard.actors.service",
    "sync": "callboard.actors.sync",
}
"""Public name -> module that defines it. `import callboard` itself must not import httpx or elasticsearch."""

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
