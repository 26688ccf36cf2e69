"""Questions to a person. Without a terminal nothing is asked: the answer has an option or an environment variable instead."""

from __future__ import annotations

import os
import sys
from typing import Any

import click


def can_ask() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def ask(question: str, *, default: str | None = None, option: str = "", type_: Any = None) -> str:
    """Ask for a value, with the default at hand. Raises `UsageError` naming the option if nobody is there."""
    if not can_ask():
        if default is not None:
            return default
        how = option or f"--{question.lower().split()[-1]}"
        raise click.UsageError(f"{question} is missing: give it with {how}.")
    answer: str = click.prompt(question, default=default, type=type_, err=True)
    return answer


def ask_secret(question: str, *, environment: str) -> str:
    """Ask for a value that must not be seen, or take it from an environment variable."""
    value = os.environ.get(environment)
    if value:
        return value
    if not can_ask():
        raise click.UsageError(f"{question} is missing: set {environment}, or run this in a terminal to be asked.")
    answer: str = click.prompt(question, hide_input=True, err=True)
    return answer


def confirm(question: str, *, yes: bool) -> bool:
    """Ask before something that cannot be undone. `--yes` answers it; without either, the answer is a usage error."""
    if yes:
        return True
    if not can_ask():
        raise click.UsageError(f"{question} Nobody is there to ask; say --yes.")
    return click.confirm(question, err=True)
