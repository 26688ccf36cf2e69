"""The `callboard` command: the tree of commands, and the one place where whatever goes wrong becomes a line and an exit code.

`callboard --help` must be cheap, so commands are named here with their one-line help and imported when they are run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from .exits import MEANINGS, Exit
from .failures import explain, one_line
from .groups import Entry, LazyGroup, Section
from .terminal import QUIET

_EPILOG = "\n".join(
    [
        "\b",
        "Start here:",
        "  callboard demo                     see it work, on this machine, with nothing installed",
        "  callboard demo ~/notes             the same with a folder of yours",
        "",
        "\b",
        "Exit codes:",
        *(f"  {code.value:>3}  {meaning.replace('`', '')}" for code, meaning in MEANINGS.items()),
    ]
)

SECTIONS = (
    Section(
        "Try it",
        {
            "demo": Entry("demo:demo", "Sync a folder into the built-in node, and search it."),
            "node": Entry("node:node", "Run the built-in node, a small Elasticsearch for this machine."),
        },
    ),
    Section(
        "Move and find documents",
        {
            "sync": Entry("sync:sync", "Make an index equal to a source, once."),
            "search": Entry("search:search", "Search an index and show where the words stand."),
            "extract": Entry("extract:extract", "Show the text that a sync would find in FILE."),
            "diff": Entry("diff:diff", "Compare the index LEFT with the index RIGHT, document by document."),
        },
    ),
    Section(
        "Connectors and their jobs",
        {
            "connector": Entry("connector:connector", "Create, look at and change connectors."),
            "job": Entry("job:job", "Start, watch and cancel sync jobs."),
            "dead-letters": Entry(
                "dead_letters:dead_letters", "See which documents failed, and have them tried again."
            ),
            "source": Entry("source:source", "Look at sources, and make one of your own."),
            "rules": Entry("rules:rules", "Try sync rules before they decide what is indexed."),
        },
    ),
    Section(
        "Servers",
        {
            "service": Entry("service:service", "Run the service: look after connectors, run their jobs."),
            "top": Entry("top:top", "Watch a running service."),
            "fault-proxy": Entry(
                "fault_proxy:fault_proxy", "Stand in front of a real server and misbehave, for rehearsals."
            ),
            "config": Entry("config:config", "Look at the configuration of a service without running it."),
            "login": Entry("login:login", "Check credentials and remember them."),
            "extraction": Entry(
                "extraction:extraction", "See which engines text extraction has on this machine, and fetch one."
            ),
            "extraction-service": Entry("extraction_service:extraction_service", "Serve text extraction over HTTP."),
            "index": Entry("index:index", "List, empty and delete indices."),
            "doctor": Entry(
                "doctor:doctor", "Look whether everything is there that Callboard needs, here and at the server."
            ),
            "completion": Entry("completion:completion", "Print what makes your shell complete commands and options."),
        },
    ),
)


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(version_line())
        context.exit(Exit.DONE)


def version_line() -> str:
    """Our version, and the version of the Connector Protocol that we speak."""
    from .. import __version__
    from ..protocol.versions import PROTOCOL_VERSION

    return f"callboard {__version__} (Connector Protocol {PROTOCOL_VERSION})"


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    package=__package__,
    epilog=_EPILOG,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.option(
    "-v",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version and the protocol's version.",
)
@click.option("-c", "--config", metavar="FILE", help="Take server and credentials from this YAML file.")
@click.option("--profile", metavar="NAME", envvar="CALLBOARD_PROFILE", help="Take them from what `login` remembered.")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
@click.option("--debug", is_flag=True, help="Show the traceback when something goes wrong.")
@click.pass_context
def callboard(context: click.Context, config: str | None, profile: str | None, quiet: bool, debug: bool) -> None:
    """Move documents from where people keep them into Elasticsearch, and keep them there in step.

    A source is a system that documents come from (a folder, a database, a wiki ...); a sync makes an index equal to it.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False
    if quiet:
        context.meta[QUIET] = True
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is printed to standard error."""
    debug = "--debug" in arguments or bool(os.environ.get("CALLBOARD_DEBUG"))
    try:
        code: Any = callboard.main(list(arguments), prog_name="callboard", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.DONE
    except click.Abort as problem:
        if isinstance(problem.__cause__, KeyboardInterrupt):
            # Not at a question but at work: click makes one of both.
            return _failed("Interrupted.", "", Exit.INTERRUPTED)
        # On a terminal the question, and what was typed of the answer, still stand in this line.
        click.echo(("\n" if sys.stderr.isatty() else "") + "Stopped; nothing was done.", err=True)
        return Exit.FAILED
    except click.ClickException as problem:
        return _failed(*_usage(problem))
    except BrokenPipeError:
        # The reader went away (`callboard search ... | head`): not an error, and nothing can be said to it.
        _let_go_of_output()
        return Exit.DONE
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as problem:  # noqa: BLE001  here a command ends, and says why
        if debug:
            import traceback

            traceback.print_exception(problem)
        explanation = explain(problem)
        _let_go_of_output()
        return _failed(explanation.message, explanation.hint, explanation.code)


def _let_go_of_output() -> None:
    """If standard output takes no more (its reader is gone, its disk is full), let the rest go nowhere: the interpreter would
    try again at its exit, complain, and return a code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(problem: click.ClickException) -> tuple[str, str, int]:
    """What is wrong with a command line, and where its help is."""
    context = getattr(problem, "ctx", None)
    hint = f"See: {context.command_path} --help" if context is not None else ""
    return one_line(problem.format_message()), hint, problem.exit_code


def _failed(message: str, hint: str, code: int) -> int:
    """Print one line, and at most a hint below it, and return the exit code."""
    shown = f"Error: {message}"
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    click.echo(click.style(shown, fg="red") if coloured else shown, err=True)
    if hint:
        click.echo(f"       {hint}", err=True)
    return code


def main() -> NoReturn:
    """Run the command line and exit the process with its code."""
    sys.exit(run(sys.argv[1:]))
