"""The built-in node: a small Elasticsearch-compatible server on SQLite, for development, demos and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import ExposedNode, Node, open_node

__all__ = ["ExposedNode", "Node", "open_node"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import server

        return getattr(server, name)
    raise AttributeError(name)
