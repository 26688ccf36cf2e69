"""What can go wrong at a source. A class exists for every kind that somebody treats differently.

    SourceError
    ├── ConfigurationError    the settings cannot work; a person must change them
    ├── CredentialsError      the system does not accept who we are
    ├── PermissionDenied      the system knows us and refuses this
    ├── NotFound              the thing is not there (any more)
    ├── Throttled             too many requests; wait `retry_after_s`
    ├── Transient             may work when tried again
    ├── CursorExpired         the change feed no longer knows our cursor: a full listing is needed
    ├── MissingDriver         an optional package is not installed
    └── UnexpectedAnswer      the system answered in a way we do not understand: a bug, ours or theirs

Messages say what happened with names and values, and what to do; they never hold secrets. Foreign exceptions are translated
once, where a source talks to its driver, with `from`.
"""

from __future__ import annotations

from typing import ClassVar


class SourceError(Exception):
    """A source could not do what was asked."""

    retriable: ClassVar[bool] = False


class ConfigurationError(SourceError):
    """The settings cannot work as they are."""


class CredentialsError(SourceError):
    """The system does not accept the credentials."""


class PermissionDenied(SourceError):
    """The system knows us and refuses this."""


class NotFound(SourceError):
    """The thing is not there, or not there any more."""


class Throttled(SourceError):
    """The system asks us to slow down."""

    retriable = True

    def __init__(self, message: str, retry_after_s: float | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """As long as it told us to stay away; None if it did not say."""
        self.status = status
        """How it said so, if it speaks HTTP."""


class Transient(SourceError):
    """May work when tried again: a cut connection, a time-out, a server error."""

    retriable = True


class CursorExpired(SourceError):
    """The change feed no longer knows our cursor; a full listing is needed."""


class MissingDriver(SourceError):
    """An optional package that this source needs is not installed."""

    def __init__(self, service_type: str, package: str) -> None:
        super().__init__(
            f"The source {service_type!r} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'callboard[{service_type}]'"
        )
        self.service_type, self.package = service_type, package


class UnexpectedAnswer(SourceError):
    """The system answered in a way that we do not understand."""
