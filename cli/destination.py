"""Where a command works: an Elasticsearch, a running node, or the built-in node inside this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from .exits import Exit
from .failures import CommandFailed
from .faults import faults_before, of_embedded_node
from .options import DEFAULT_URL, read_secret_file
from .profiles import DEFAULT_PROFILE, REFERENCE_FILE, Profile, load_profile, profile_path, read_profile_file
from .prompting import ask_secret
from .terminal import note

if TYPE_CHECKING:
    from ..actors.extraction import ExtractionSettings
    from ..node.faults import FaultPlans
    from ..protocol.store import Store


@attrs.frozen
class Destination:
    """A server to talk to, a data folder to open, or a node in memory with nothing in it; exactly one of the three."""

    url: str | None
    embedded: Path | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    ca_certs: Path | None = None
    verify_certs: bool = True
    is_empty: bool = False

    @classmethod
    def chosen(
        cls,
        url: str | None,
        embedded: Path | None,
        api_key_file: Path | None,
        user: str | None,
        ca_certs: Path | None,
        insecure: bool,
        profile: str | None = None,
        password_file: Path | None = None,
    ) -> Destination:
        """What the options of `options.destination_options`, the environment and the profile mean together.

        A profile is taken whole or not at all: its credentials never go to a server that an option names. Asks for a password if a user is named and nothing else gives one. Raises `CommandFailed` for options that
        contradict each other or name files that cannot be read.
        """
        if embedded is not None:
            given_url = url if not os.environ.get("CALLBOARD_URL") else None
            if given_url or api_key_file or user:
                raise click.UsageError("--embedded works without a server: leave out --to, --api-key-file and --user.")
            return cls(url=None, embedded=embedded.expanduser().absolute())
        if password_file and not user:
            raise click.UsageError("--password-file needs --user.")
        if api_key_file and user:
            raise click.UsageError("Give an API key or a user, not both.")
        remembered = None if url else _remembered(profile)
        if remembered is not None and not (api_key_file or user):
            return remembered
        if not (url or api_key_file or user or remembered or os.environ.get("CALLBOARD_API_KEY")):
            found = _left_by_the_reference()
            if found is not None:
                return found
        api_key = read_secret_file(api_key_file, "API key") if api_key_file else None
        if api_key is None and user is None:
            api_key = os.environ.get("CALLBOARD_API_KEY") or None
        if ca_certs is not None and not ca_certs.is_file():
            raise CommandFailed(f"The certificate file {str(ca_certs)!r} does not exist.", code=Exit.NOT_FOUND)
        return cls(
            url=_checked(url or (remembered.url if remembered else None) or DEFAULT_URL),
            api_key=api_key,
            username=user,
            password=_password(user, password_file) if user else None,
            ca_certs=ca_certs,
            verify_certs=not insecure,
        )

    @classmethod
    def of_profile(cls, profile: Profile) -> Destination:
        """The server of a profile. Raises a usage error if its address cannot be one."""
        return cls(
            url=_checked(profile.host),
            api_key=profile.api_key,
            username=None if profile.api_key else profile.username,
            password=None if profile.api_key else profile.password,
            ca_certs=Path(profile.ca_certs) if profile.ca_certs else None,
            verify_certs=profile.verify_certs,
        )

    @property
    def title(self) -> str:
        return self.url or f"the built-in node on {self.embedded}"


def _password(user: str, file: Path | None) -> str:
    return (
        read_secret_file(file, "password")
        if file
        else ask_secret(f"Password of {user}", environment="CALLBOARD_PASSWORD")
    )


def root_option(name: str) -> str | None:
    """The value of an option given before the command's name, such as `callboard --profile staging ...`."""
    value: str | None = click.get_current_context().find_root().params.get(name)
    return value


def _remembered(profile: str | None) -> Destination | None:
    """The server of the configuration file or profile that applies; None if nobody ever logged in."""
    chosen_file = root_option("config")
    if chosen_file:
        return Destination.of_profile(read_profile_file(Path(chosen_file)))
    named = profile or root_option("profile")
    if named is None and not profile_path(DEFAULT_PROFILE).exists():
        return None
    return Destination.of_profile(load_profile(named or DEFAULT_PROFILE))


def _left_by_the_reference() -> Destination | None:
    """The server that the reference's command line has logged in to from this folder, if it has.

    Its file is never changed, and only taken whole: whoever names a server or credentials is not thinking of it.
    """
    if not REFERENCE_FILE.is_file():
        return None
    found = Destination.of_profile(read_profile_file(REFERENCE_FILE))
    note(f"Using {found.url} of {REFERENCE_FILE}, which others may be able to read. Better: callboard login")
    return found


def _checked(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.UsageError(f"{url!r} is not a URL of a server; write it like https://search.example.org:9200")
    if parts.username or parts.password:
        # A command line is visible to every user of the machine.
        raise click.UsageError("Leave user and password out of the URL; use --user or --api-key-file.")
    return url


@asynccontextmanager
async def open_destination(
    destination: Destination,
    *,
    create: bool = False,
    extraction: ExtractionSettings | None = None,
    faults: FaultPlans | None = None,
) -> AsyncIterator[Store]:
    """Open the store of a destination, for as long as the block runs.

    With `create`, an embedded data folder that does not exist is made; otherwise it is an error, so that reading never
    leaves an empty folder behind. `faults` go wrong between us and it. Raises `CommandFailed` or a `StoreError` that says what to do.
    """
    from ..protocol.store import RetryPolicy, Target, open_store
    from .one_shot import ALONE_PATIENCE_S

    alone = RetryPolicy(patience_s=ALONE_PATIENCE_S)
    async with AsyncExitStack() as stack:
        if destination.embedded is not None:
            if not create and not destination.embedded.is_dir():
                raise CommandFailed(
                    f"There is no data folder {str(destination.embedded)!r}.",
                    hint="Sync something into it first: callboard sync ... --embedded DIR",
                    code=Exit.NOT_FOUND,
                )
            from .embedding import open_embedded_node

            faulty = of_embedded_node(faults)
            app = await stack.enter_async_context(open_embedded_node(destination.embedded, extraction, faulty))
            target = Target(embedded=app, retries=alone)
        elif destination.is_empty:
            from ..node import open_node

            empty = await stack.enter_async_context(open_node(None, port=None))
            target = Target(embedded=empty.app, retries=alone)
        else:
            target = Target(
                url=destination.url,
                api_key=destination.api_key,
                username=destination.username,
                password=destination.password,
                ca_certs=str(destination.ca_certs) if destination.ca_certs else None,
                verify_certs=destination.verify_certs,
            )
            target = await stack.enter_async_context(faults_before(target, faults))
        yield await stack.enter_async_context(open_store(target))
