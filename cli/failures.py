"""Turns whatever ends a command early into one line for a person and an exit code for a script.

Errors carry their own sentences; this module only decides which of several errors to show, which exit code it means and
which next step to suggest. It never looks into texts to guess what an error is, except where a library offers nothing else.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from typing import Any

import attrs

from .exits import Exit

NODE_IS_FULL = "the node cannot write: its disk is full"
"""How the built-in node says that its data folder takes no more."""


class CommandFailed(Exception):
    """A command cannot go on, and knows what to tell the person who typed it."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


@attrs.frozen
class Explanation:
    """What is printed and returned for an error."""

    message: str
    hint: str
    code: Exit

    @property
    def is_defect(self) -> bool:
        return self.code is Exit.INTERNAL


def explain(error: BaseException) -> Explanation:
    """Say what happened in one line. Of a group the most telling error is taken: one we know before one we do not."""
    explanations = [_explain_one(leaf) for leaf in _leaves(error)]
    known = [explanation for explanation in explanations if not explanation.is_defect]
    return (known or explanations)[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _explain_one(error: BaseException) -> Explanation:
    match error:
        case CommandFailed():
            return Explanation(error.message, error.hint, error.code)
        case KeyboardInterrupt():
            return Explanation("Interrupted.", "", Exit.INTERRUPTED)
        case BrokenPipeError():
            return Explanation("Nobody reads the output any more.", "", Exit.LOCAL)
    for explanation in (_of_our_layers(error), _of_the_machine(error)):
        if explanation is not None:
            return explanation
    text = one_line(str(error))
    return Explanation(
        f"Unexpected {type(error).__name__}{': ' if text else ''}{text}",
        "This is a defect of Callboard. Run it again with --debug and report what it shows.",
        Exit.INTERNAL,
    )


def _defined(module: str, name: str) -> Any:
    """A class of a layer, if that layer was loaded at all; an empty tuple (which nothing is an instance of) otherwise."""
    loaded = sys.modules.get(f"callboard.{module}")
    return getattr(loaded, name, ()) if loaded else ()


def _of_our_layers(error: BaseException) -> Explanation | None:
    # Looked up instead of imported: an error of a layer can only exist when the layer is loaded, and errors of the command
    # line itself must not cost the import of an Elasticsearch client.
    def is_a(module: str, *names: str) -> bool:
        return any(isinstance(error, _defined(module, name)) for name in names)

    text = one_line(str(error))
    sources, store = "sources.errors", "protocol.store"
    if is_a(store, "TooManyRequests") and NODE_IS_FULL in text:
        # As Elasticsearch does, the node answers 429 to this and to much else, and only its sentence tells them apart.
        return Explanation(
            "The disk is full, so the node cannot write.",
            "Free some space, or choose another data folder.",
            Exit.LOCAL,
        )
    if is_a(sources, "NotFound"):
        return Explanation(text, "", Exit.NOT_FOUND)
    if is_a(sources, "CredentialsError", "PermissionDenied"):
        return Explanation(text, "", Exit.REFUSED)
    if is_a(sources, "ConfigurationError", "MissingDriver"):
        return Explanation(text, "", Exit.USAGE)
    if is_a(sources, "Transient", "Throttled"):
        return Explanation(text, "Try again in a while.", Exit.UNREACHABLE)
    if is_a(sources, "SourceError"):
        return Explanation(text, "", Exit.FAILED)
    if is_a(store, "Unreachable", "NotElasticsearch", "UntrustedCertificate", "Unavailable", "TooManyRequests"):
        return Explanation(text, "", Exit.UNREACHABLE)
    if is_a(store, "Unauthorised"):
        return Explanation(text, "Give credentials with --user or --api-key-file.", Exit.REFUSED)
    if is_a(store, "Forbidden"):
        return Explanation(text, "", Exit.REFUSED)
    if is_a(store, "InvalidTarget"):
        return Explanation(text, "", Exit.USAGE)
    if is_a(store, "NotFound"):
        return Explanation(text, "", Exit.NOT_FOUND)
    if is_a(store, "StoreError"):
        return Explanation(text, "", Exit.FAILED)
    if is_a("node.storage.database", "UnusableData"):
        return Explanation(text, "Choose another folder, or stop the node that uses this one.", Exit.LOCAL)
    if is_a("protocol.configuration", "InvalidConfiguration") or is_a("protocol.cron", "InvalidCron"):
        return Explanation(text, "", Exit.USAGE)
    if is_a("protocol.indices", "InvalidIndexName"):
        return Explanation(text, "", Exit.USAGE)
    if is_a("protocol.jobs", "TransitionRefused") or is_a("protocol.connectors", "TransitionRefused"):
        return Explanation(text, "", Exit.FAILED)
    return None


def _of_the_machine(error: BaseException) -> Explanation | None:
    sqlite3 = sys.modules.get("sqlite3")
    if sqlite3 is not None and isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error):
        return Explanation("The disk is full.", "Free some space, or choose another data folder.", Exit.LOCAL)
    if not isinstance(error, OSError):
        return None
    where = f": {error.filename!r}" if error.filename is not None else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return Explanation(
                f"The disk is full{where}.", "Free some space, or choose another data folder.", Exit.LOCAL
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Explanation(
                f"No permission{where}.", "Run as a user who has it, or choose another place.", Exit.LOCAL
            )
        case errno.EADDRINUSE:
            return Explanation("The port is in use.", "Choose another with --port; 0 takes any free one.", Exit.LOCAL)
        case errno.ENOENT:
            return Explanation(f"There is no such file or folder{where}.", "", Exit.NOT_FOUND)
        case errno.ENOTDIR:
            return Explanation(f"This is a file, not a folder{where}.", "", Exit.USAGE)
        case errno.EISDIR:
            return Explanation(f"This is a folder, not a file{where}.", "", Exit.USAGE)
        case errno.EMFILE | errno.ENFILE:
            return Explanation("Too many open files.", "Raise the limit: ulimit -n 4096", Exit.LOCAL)
    return None


def one_line(text: str) -> str:
    """Text without line breaks, so that an error stays one line however its library writes it."""
    return " ".join(text.split())
