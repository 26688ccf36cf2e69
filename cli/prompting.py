"""Questions to a person. Without a terminal nothing is asked: the answer has an option or an environment variable instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from .failures import explain, one_line


def can_ask() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def ask(
    question: str, *, default: str | None = None, option: str = "", check: Callable[[str], object] | None = None
) -> str:
    """Ask for a value, with the default at hand. Raises `UsageError` naming the option if nobody is there.

    An answer that `check` raises for is told why, and asked for again.
    """
    if not can_ask():
        if default is not None:
            return default
        how = option or f"--{question.lower().split()[-1]}"
        raise click.UsageError(f"{question} is missing: give it with {how}.")
    while True:
        answer: str = click.prompt(question, default=default, err=True)
        complaint = complaint_of(check, answer) if check else ""
        if not complaint:
            return answer
        click.echo(complaint, err=True)


def complaint_of(check: Callable[[str], object], answer: str) -> str:
    """What a check says against an answer, in one line; nothing if it has nothing to say. A defect is raised."""
    try:
        check(answer)
    except click.ClickException as problem:
        return one_line(problem.format_message())
    except Exception as problem:
        explanation = explain(problem)
        if explanation.is_defect:
            raise
        return explanation.message
    return ""


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
