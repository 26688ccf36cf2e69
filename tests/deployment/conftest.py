"""What the tests of `deploy/` share: the folder, the keys that the product knows, and how a command line is judged."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

from callboard.actors.configuration import ReadResult, Settings, read_mapping
from callboard.actors.configuration.settings import options
from callboard.cli.main import callboard as root

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"

Parse = Callable[[Sequence[str]], None]


def keys() -> set[str]:
    """Every key of the configuration, and every section."""
    found = {name for name, _, _ in options()}
    found |= {name.rpartition(".")[0] for name in found} | {attribute.name for attribute in attrs.fields(Settings)}
    return found - {""}


@pytest.fixture(scope="session")
def known_keys() -> set[str]:
    return keys()


@pytest.fixture(scope="session")
def parses() -> Parse:
    """Take a command line apart as click would, without running it; fails if the command or an option does not exist."""

    def parse(words: Sequence[str]) -> None:
        assert words[0] == "callboard" or words[0].endswith("/callboard"), words
        command: click.Command = root
        arguments = list(words[1:])
        context = click.Context(root, info_name="callboard")
        while isinstance(command, click.Group):
            found = command.get_command(context, arguments[0])
            assert found is not None, f"there is no command {' '.join(words)}"
            command, arguments = found, arguments[1:]
        command.make_context(command.name, arguments, parent=context)

    return parse


@pytest.fixture(scope="session")
def accepted() -> Callable[[dict[str, Any]], ReadResult]:
    """Read a configuration as the service does; it must be usable, and nothing in it may be odd."""

    def read(content: dict[str, Any]) -> ReadResult:
        result = read_mapping(content, {})
        assert result.warnings == ()
        return result

    return read


SECRETLY = re.compile(r"password|token|api_?key|secret", re.IGNORECASE)
