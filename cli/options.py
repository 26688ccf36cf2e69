"""Options that several commands share, so that the same word means the same thing everywhere."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .examples import examples_of
from .exits import MEANINGS, Exit
from .failures import CommandFailed
from .terminal import QUIET

DEFAULT_URL = "http://127.0.0.1:9200"
"""Where `callboard node` listens, and Elasticsearch too, unless they are told otherwise."""

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _hush(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        context.find_root().meta[QUIET] = True


class Command(click.Command):
    """A click command that also takes `--quiet` and `--debug`, and whose help ends as a manual page does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not any("--quiet" in parameter.opts for parameter in self.params):
            self.params.append(
                click.Option(
                    ["-q", "--quiet"],
                    is_flag=True,
                    expose_value=False,
                    is_eager=True,
                    callback=_hush,
                    help="Print results and errors only.",
                )
            )
        if not any("--debug" in parameter.opts for parameter in self.params):
            self.params.append(
                click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")
            )

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(context, formatter)
        examples = examples_of(context.command_path)
        if examples:
            with formatter.section("Examples"):
                for line in examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        with formatter.section("Environment"):
            formatter.write_dl(list(environment(self).items()))
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code.value}", meaning.replace("`", "")) for code, meaning in MEANINGS.items()])


def environment(command: click.Command) -> dict[str, str]:
    """The environment variables that a command looks at, and what each says."""
    found: dict[str, str] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
            found[parameter.envvar] = f"In place of {parameter.opts[-1]}."
    if any("--api-key-file" in parameter.opts for parameter in command.params):
        found |= {
            "CALLBOARD_API_KEY": "The API key.",
            "CALLBOARD_PASSWORD": "The password of the user.",
            "CALLBOARD_PROFILE": "In place of --profile.",
            "XDG_CONFIG_HOME": "Profiles are kept in callboard/profiles below it.  [~/.config]",
        }
    if any("--token-file" in parameter.opts for parameter in command.params):
        found |= {"CALLBOARD_OPERATIONS_TOKEN": "What the service wants to be shown."}
    return found | {
        "CALLBOARD_DEBUG": "Anything but empty: as --debug.",
        "NO_COLOR": "Anything but empty: no colours.",
    }


class Format(click.Choice[str]):
    """How results are printed. `table` and `text` are words for the same thing: what a person reads."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        same = {"table": "text", "text": "table"}
        return super().convert(value if value in self.choices else same.get(value, value), parameter, context)


def format_option(*choices: str, default: str) -> Callable[[CommandT], CommandT]:
    """`--format`: how the result is printed; what goes to standard error is never affected."""
    return click.option(
        "-o",
        "--format",
        "format_",
        type=Format(choices),
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
                "--password-file",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="Read the user's password from the first line of a file.",
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


_NAMING_A_PLACE = {
    "config": "-c", "embedded": "--embedded", "url": "--to", "profile": "--profile", "user": "--user",
    "api_key_file": "--api-key-file", "password_file": "--password-file", "ca_certs": "--ca-certs",
}  # fmt: skip


def again(command: str) -> str:
    """A command to type next, with the options that said on this command line where to work; none of them is a secret."""
    context = click.get_current_context(silent=True)
    before: list[str] = []
    after: list[str] = []
    while context is not None:
        for name, value in context.params.items():
            option = _NAMING_A_PLACE.get(name)
            typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
            if option and typed and value is not None:
                (before if name == "config" else after).extend([option, shlex.quote(str(value))])
        context = context.parent
    return " ".join(["callboard", *before, command, *after])


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
