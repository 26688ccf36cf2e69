"""`callboard login`: check credentials once, and remember them for the commands that follow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import click

from .destination import Destination, open_destination, root_option
from .exits import Exit
from .failures import CommandFailed
from .options import DEFAULT_URL, Command, format_option, read_secret_file
from .profiles import DEFAULT_PROFILE, Profile, profile_path, save_profile
from .prompting import ask, ask_secret, confirm
from .running import run_async
from .terminal import print_json, say


@click.command(cls=Command)
@click.option("--host", metavar="URL", help="URL of the Elasticsearch; asked for if left out.")
@click.option(
    "--method",
    type=click.Choice(["basic", "apikey"], case_sensitive=False),
    default="basic",
    show_default=True,
    help="User name and password, or an API key.",
)
@click.option("--user", metavar="U", envvar="CALLBOARD_USERNAME", help="User name; asked for if left out.")
@click.option(
    "--api-key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read the API key from the first line of a file, instead of asking for it.",
)
@click.option(
    "--password-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read the password from the first line of a file, instead of asking for it.",
)
@click.option("--profile", metavar="NAME", help="Remember it under this name.  [default]")
@click.option("--ca-certs", metavar="FILE", type=click.Path(path_type=Path), help="Certificates to trust.")
@click.option("--insecure", is_flag=True, help="Do not check the server's certificate.")
@click.option("-y", "--yes", is_flag=True, help="Replace an existing profile without asking.")
@format_option("text", "json", default="text")
def login(
    host: str | None,
    method: str,
    user: str | None,
    api_key_file: Path | None,
    password_file: Path | None,
    profile: str | None,
    ca_certs: Path | None,
    insecure: bool,
    yes: bool,
    format_: str,
) -> None:
    """Check credentials and remember them.

    They are kept in your configuration folder, in a file that only you can read, and never appear in a command line. Without a
    terminal the password comes from CALLBOARD_PASSWORD or --password-file, the API key from CALLBOARD_API_KEY or --api-key-file.
    """
    chosen_file = root_option("config")
    path = Path(chosen_file) if chosen_file else profile_path(profile or root_option("profile") or DEFAULT_PROFILE)
    host = host or ask("Elastic host", default=DEFAULT_URL)
    if api_key_file is not None or method.lower() == "apikey":
        key = read_secret_file(api_key_file, "API key") if api_key_file else None
        made = Profile(host=host, api_key=key or ask_secret("API key", environment="CALLBOARD_API_KEY"))
    else:
        name = user or ask("Username")
        secret = read_secret_file(password_file, "password") if password_file else None
        made = Profile(
            host=host, username=name, password=secret or ask_secret("Password", environment="CALLBOARD_PASSWORD")
        )
    made = attrs.evolve(
        made, ca_certs=str(ca_certs.expanduser().absolute()) if ca_certs else None, verify_certs=not insecure
    )
    if path.exists() and not confirm(f"{path} exists. Replace it?", yes=yes):
        raise CommandFailed("Nothing was changed.", code=Exit.FAILED)
    destination = Destination.of_profile(made)
    version = run_async(_check, destination)
    save_profile(path, made)
    if format_ == "json":
        print_json({"host": made.host, "version": version, "remembered_in": str(path)})
        return
    greeting = f"Logged in to {destination.title} (Elasticsearch {version}); remembered in {path}."
    say(click.style(greeting, fg="green" if os.isatty(1) else None))


async def _check(destination: Destination) -> str:
    """The version of the server, if it takes the credentials."""
    async with open_destination(destination) as store:
        info: Any = (await store.client.info()).body
    return str(info["version"]["number"])
