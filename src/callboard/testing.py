"""Everything for tests of own connectors and actors, under one name: scripted sources, faults, simulation, a node in memory.

    from callboard.testing import Document, PartScript, Script, ScriptedSource, open_node, run_simulated

Nothing is imported before it is used. `simulate` needs pytest; the fixtures of the plugin need no import at all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard.node import open_node as open_node
    from callboard.node.faults import FaultyApp as FaultyApp
    from callboard.node.faults import ServerFaultPlan as ServerFaultPlan
    from callboard.node.pytest_plugin import simulate as simulate
    from callboard.protocol.store import Target as Target
    from callboard.protocol.store import open_store as open_store
    from callboard.runtime import FaultPlan as FaultPlan
    from callboard.runtime import open_system as open_system
    from callboard.runtime import run_simulated as run_simulated
    from callboard.sources.conformance import SourceConformance as SourceConformance
    from callboard.sources.scripted import Change as Change
    from callboard.sources.scripted import Corpus as Corpus
    from callboard.sources.scripted import FileScript as FileScript
    from callboard.sources.scripted import Happened as Happened
    from callboard.sources.scripted import PartScript as PartScript
    from callboard.sources.scripted import Script as Script
    from callboard.sources.scripted import ScriptedSource as ScriptedSource
    from callboard.sources.source import ContentRef as ContentRef
    from callboard.sources.source import Document as Document
    from callboard.sources.source import Failure as Failure
    from callboard.sources.source import Identity as Identity

_LAZY: dict[str, str] = {
    "Change": "callboard.sources.scripted",
    "ContentRef": "callboard.sources.source",
    "Corpus": "callboard.sources.scripted",
    "Document": "callboard.sources.source",
    "Failure": "callboard.sources.source",
    "FaultPlan": "callboard.runtime",
    "FaultyApp": "callboard.node.faults",
    "FileScript": "callboard.sources.scripted",
    "Happened": "callboard.sources.scripted",
    "Identity": "callboard.sources.source",
    "PartScript": "callboard.sources.scripted",
    "Script": "callboard.sources.scripted",
    "ScriptedSource": "callboard.sources.scripted",
    "ServerFaultPlan": "callboard.node.faults",
    "SourceConformance": "callboard.sources.conformance",
    "Target": "callboard.protocol.store",
    "open_node": "callboard.node",
    "open_store": "callboard.protocol.store",
    "open_system": "callboard.runtime",
    "run_simulated": "callboard.runtime",
    "simulate": "callboard.node.pytest_plugin",
}
"""Public name -> module that defines it."""

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
