"""A process that runs for a year should not carry what it never uses: optional packages that libraries load merely because they can."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

NEVER_USED = ("rich", "requests", "pygments", "greenlet")
"""What structlog would show tracebacks with, what Elasticsearch's client could speak through, what httpx would colour its command
line with, what structlog would keep apart in programs that use it: together 9 MB."""


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Make these packages look as if they were not installed, while the block runs. Those that are loaded already stay."""
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        # What Python itself has for this: None stands for a module that cannot be imported.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def load_lean() -> None:
    """Import what the service needs of such libraries. Before any other thread is there."""
    with without(*NEVER_USED):
        import_module("structlog")
        import_module("elasticsearch")
