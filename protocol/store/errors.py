"""What can go wrong between Callboard and Elasticsearch, as the caller needs to tell it apart.

StoreError
├── InvalidTarget           the address or its credentials cannot be used as given
├── Unreachable             no answer: refused, no such host, cut connection (retriable)
│   └── TimedOut            no answer in time
├── UntrustedCertificate    TLS was refused by one side
├── NotElasticsearch        something answered, but it is no Elasticsearch
├── Unauthorised            401
├── Forbidden               403
├── NotFound                404
├── Conflict                409, somebody else wrote first
├── TooLarge                413
├── TooManyRequests         429 (retriable)
├── Unavailable             502, 503, 504 (retriable)
├── NotSupported            501, or a server without the API that was asked for
├── Refused                 any other refusal: 400, 500, ...
└── Incomplete              an answer that covers only part of the index
"""

from __future__ import annotations

from typing import ClassVar


class StoreError(Exception):
    """Root of all errors of the store. `status` is the HTTP status, if there was an answer; `kind` the server's error type."""

    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, status: int | None = None, kind: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class InvalidTarget(StoreError):
    """The address, certificate file or credentials cannot be used as given."""


class Unreachable(StoreError):
    """No answer came. Whether the request was carried out is unknown, unless `refused`."""

    retriable = True

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class TimedOut(Unreachable):
    """No answer came in time. Whether the request was carried out is unknown."""


class UntrustedCertificate(StoreError):
    """TLS failed: the certificate is not trusted, or the server does not speak TLS."""


class NotElasticsearch(StoreError):
    """Something answered that does not introduce itself as Elasticsearch."""


class Unauthorised(StoreError):
    """401: the server does not know these credentials."""


class Forbidden(StoreError):
    """403: the credentials are known and lack a privilege."""


class NotFound(StoreError):
    """404: the index, document or resource does not exist."""


class Conflict(StoreError):
    """409: the document changed since it was read, or exists already.

    `perhaps_own` tells that an earlier attempt of the same call got no answer, so that it may have been the one that wrote.
    """

    perhaps_own = False


class TooLarge(StoreError):
    """413: the request is larger than the server takes."""


class TooManyRequests(StoreError):
    """429: the server is overloaded, and stayed so for as long as the retry policy waited."""

    retriable = True


class Unavailable(StoreError):
    """502, 503 or 504: the server or something before it cannot work at the moment."""

    retriable = True


class NotSupported(StoreError):
    """The server does not have this API."""


class Refused(StoreError):
    """The server refused the request and gave a reason."""


class Incomplete(StoreError):
    """An answer left something out (a shard failed, a search ran out of time). It never passes for a whole answer."""

    retriable = True
