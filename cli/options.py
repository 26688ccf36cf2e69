"""Options that several commands share, so that the same word means the same thing everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .exits import Exit
from .failures import CommandFailed

DEFAULT_URL = "http://127.0.0.1:9200"
"""Where `callboard node` listens, and Elasticsearch too, unless they are told otherwise."""

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Command(click.Command):
    """A click command that also takes `--debug` after its own name, where people type it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not any("--debug" in parameter.opts for parameter in self.params):
            self.params.append(
                click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")
            )


def format_option(*choices: str, default: str) -> Callable[[CommandT], CommandT]:
    """`--format`: how the result is printed; what goes to standard error is never affected."""
    return click.option(
        "-o",
        "--format",
        "format_",
        type=click.Choice(choices),
        default=default,
        show_default=True,
        help="How the result is printed.",
    )


def destination_options(command: CommandT) -> CommandT:
    """Where a command works, given to it as the keyword arguments that `destination.Destination.chosen` takes."""
    for option in reversed(
        [
            click.option(
                "--to",
                "url",
                metavar="URL",
                envvar="CALLBOARD_URL",
                help=f"Elasticsearch or node.  [the profile's, or {DEFAULT_URL}]",
            ),
            click.option(
                "--embedded",
                metavar="DIR",
                type=click.Path(path_type=Path),
                help="Work on the data folder of the built-in node, without a server.",
            ),
            click.option(
                "--api-key-file",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="Read the API key from the first line of a file; or set CALLBOARD_API_KEY.",
            ),
            click.option(
                "--user",
                metavar="U",
                envvar="CALLBOARD_USERNAME",
                help="User name; the password is asked for, or read from CALLBOARD_PASSWORD.",
            ),
            click.option(
                "--ca-certs",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="Certificates of the authority that signed the server's.",
            ),
            click.option(
                "--profile", metavar="NAME", help="Use what was remembered by `callboard login --profile NAME`."
            ),
            click.option("--insecure", is_flag=True, help="Do not check the server's certificate."),
        ]
    ):
        command = option(command)
    return command


def yes_option(command: CommandT) -> CommandT:
    """`--yes`: do not ask before something that cannot be undone."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def read_secret_file(path: Path, what: str) -> str:
    """The first line of a file. Raises `CommandFailed` if it cannot be read or is empty."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise CommandFailed(f"The {what} file {str(path)!r} does not exist.", code=Exit.NOT_FOUND) from None
    except UnicodeDecodeError:
        raise CommandFailed(f"The {what} file {str(path)!r} is not text.", code=Exit.USAGE) from None
    except IsADirectoryError:
        raise CommandFailed(f"{str(path)!r} is a folder, not a file with the {what}.", code=Exit.USAGE) from None
    except OSError as error:
        raise CommandFailed(
            f"The {what} file {str(path)!r} cannot be read: {error.strerror}.", code=Exit.LOCAL
        ) from None
    if not text:
        raise CommandFailed(f"The {what} file {str(path)!r} is empty.", code=Exit.USAGE)
    return text.splitlines()[0].strip()
