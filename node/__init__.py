"""The built-in node: a small Elasticsearch-compatible server on SQLite, for development, demos and tests."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .security.guard import User
    from .security.privileges import Role
    from .server import ExposedNode, Node, open_node

_HOMES = {
    "ExposedNode": "server",
    "Node": "server",
    "Role": "security.privileges",
    "User": "security.guard",
    "open_node": "server",
}
__all__ = ["ExposedNode", "Node", "Role", "User", "open_node"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
