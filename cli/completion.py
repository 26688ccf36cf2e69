"""`callboard completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click

from .options import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes your shell complete commands and options.

    \b
    bash:  eval "$(callboard completion bash)"     in ~/.bashrc
    zsh:   eval "$(callboard completion zsh)"      in ~/.zshrc
    fish:  callboard completion fish | source      in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from .main import callboard

    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(callboard, {}, "callboard", "_CALLBOARD_COMPLETE").source())
