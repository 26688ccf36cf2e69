"""The `callboard` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit the process with its code."""
    raise SystemExit("callboard: no commands yet")
