"""Profiles: which server to work with and as whom, remembered in the user's configuration folder.

A profile is one YAML file that only its owner may read, in the form that the `elasticsearch` part of a service's `config.yml` has, so
that either can be used in place of the other:

    elasticsearch:
      host: https://search.example.org:9200
      api_key: ...
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import attrs

from .exits import Exit
from .failures import CommandFailed
from .private_files import write_private

DEFAULT_PROFILE = "default"
REFERENCE_FILE = Path(".cli", "config.yml")
"""Where the reference's command line keeps its server and credentials, below the folder that it is run in."""


@attrs.frozen(kw_only=True)
class Profile:
    """What a person told `callboard login`."""

    host: str
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    api_key: str | None = attrs.field(default=None, repr=False)
    ca_certs: str | None = None
    verify_certs: bool = True


def profile_folder() -> Path:
    """Where profiles are kept: `callboard/profiles` in the user's configuration folder."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    base = Path(configured) if configured else Path.home() / ".config"
    return base / "callboard" / "profiles"


def profile_path(name: str) -> Path:
    """The file of a profile. Raises `CommandFailed` for a name that could leave the folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise CommandFailed(
            f"{name!r} cannot be the name of a profile; use letters, digits, dots and dashes.", code=Exit.USAGE
        )
    return profile_folder() / f"{name}.yml"


def profile_names() -> list[str]:
    """Every profile there is, by name."""
    return sorted(path.stem for path in profile_folder().glob("*.yml"))


def load_profile(name: str) -> Profile:
    """Read a profile. Raises `CommandFailed` if there is none, or its file does not hold one."""
    path = profile_path(name)
    if not path.exists():
        known = profile_names()
        have = f"There are: {', '.join(known)}." if known else "There is none yet."
        raise CommandFailed(
            f"There is no profile {name!r}. {have}",
            hint=f"Make it: callboard login --profile {name}",
            code=Exit.NOT_FOUND,
        )
    return read_profile_file(path)


def read_profile_file(path: Path) -> Profile:
    """Read the `elasticsearch` part of a YAML file. Raises `CommandFailed` that says what is wrong with it."""
    import yaml

    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandFailed(f"There is no file {str(path)!r}.", code=Exit.NOT_FOUND) from None
    except OSError as error:
        raise CommandFailed(f"{str(path)!r} cannot be read: {error.strerror}.", code=Exit.LOCAL) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The parser's text quotes the line, and the line may be a password.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CommandFailed(f"{str(path)!r} is not YAML{where}.", code=Exit.USAGE) from None
    section = document.get("elasticsearch") if isinstance(document, dict) else None
    if not isinstance(section, dict) or not isinstance(section.get("host"), str):
        raise CommandFailed(
            f"{str(path)!r} does not say elasticsearch.host.", hint="Write it with: callboard login", code=Exit.USAGE
        )
    values: dict[str, Any] = {}
    for name in ("host", "username", "password", "api_key", "ca_certs"):
        value = section.get(name)
        if value is not None:
            values[name] = str(value)
    verify = section.get("verify_certs", True)
    if not isinstance(verify, bool):
        raise CommandFailed(f"elasticsearch.verify_certs in {str(path)!r} must be true or false.", code=Exit.USAGE)
    return Profile(verify_certs=verify, **values)


def save_profile(path: Path, profile: Profile) -> None:
    """Write a profile so that only its owner can read it, whole or not at all.

    Raises `CommandFailed` if the folder does not allow it; an older file then stays as it was.
    """
    import yaml

    section = {name: value for name, value in attrs.asdict(profile).items() if value is not None}
    if profile.verify_certs:
        del section["verify_certs"]
    text = yaml.safe_dump({"elasticsearch": section}, sort_keys=False, allow_unicode=True)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, text)
    except OSError as error:
        raise CommandFailed(f"{str(path)!r} cannot be written: {error.strerror}.", code=Exit.LOCAL) from error
