"""Turn what the official client and the server say into `StoreError`: pure functions with one sentence for a person each."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from elastic_transport import ConnectionTimeout, SerializationError, TransportError
from elasticsearch import ApiError, UnsupportedProductError

from .errors import (
    Conflict,
    Forbidden,
    NotElasticsearch,
    NotFound,
    NotSupported,
    Refused,
    StoreError,
    TimedOut,
    TooLarge,
    TooManyRequests,
    Unauthorised,
    Unavailable,
    Unreachable,
    UntrustedCertificate,
)
from .http1 import MalformedAnswer
from .retries import Failing

REASON_LETTERS_MAX = 500
UNANSWERED = "x-callboard-unanswered-attempts"
"""Header that the transport adds to an answer, if earlier attempts of its call may have been carried out without our knowing."""

# Statuses that a proxy or load balancer before Elasticsearch gives on its own account.
_STATUSES_OF_PROXIES = frozenset({401, 403, 407, 413, 429, 500, 502, 503, 504})


def failing(error: TransportError) -> Failing:
    """Why there was no answer, as the retry policy needs to know it."""
    if isinstance(error, ConnectionTimeout):
        return Failing.TIMED_OUT
    if isinstance(error, SerializationError) or _caused_by(error, MalformedAnswer) or tls_fault(error) is not None:
        return Failing.FINAL
    if _caused_by(error, ConnectionRefusedError):
        return Failing.REFUSED
    return Failing.LOST


def error_of_failure(error: TransportError, *, where: str, request: str) -> StoreError:
    """Translate a request that got no usable answer."""
    if isinstance(error, UnsupportedProductError | SerializationError) or _caused_by(error, MalformedAnswer):
        return NotElasticsearch(f"{where} answers, but not like Elasticsearch. Look at address, port and scheme.")
    fault = tls_fault(error)
    if fault is not None:
        return UntrustedCertificate(_about_tls(fault, where))
    if isinstance(error, ConnectionTimeout):
        return TimedOut(f"{where} gave no answer to {request} in time. Is it overloaded, or behind a firewall?")
    if _caused_by(error, ConnectionRefusedError):
        return Unreachable(f"{where} refuses connections. Is Elasticsearch running there?", refused=True)
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return Unreachable(f"{where}: no host of that name is known. Look at the spelling.", refused=True)
        if isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return Unreachable(f"{where} cannot be reached over the network from here.", refused=True)
    return Unreachable(f"The connection to {where} broke during {request} ({_one_line(str(error))}).")


def error_of_answer(status: int, headers: Mapping[str, str], body: Any, *, where: str, request: str) -> StoreError:
    """Translate an answer that is a refusal. `body` is the decoded body, text, or None."""
    kind, reason = kind_and_reason(body)
    if "x-elastic-product" not in headers and status not in _STATUSES_OF_PROXIES and kind is None:
        return NotElasticsearch(
            f"{where} answers ({status} to {request}), but not like Elasticsearch. Look at address, port and scheme.",
            status=status,
        )
    said = f" It says: {reason}" if reason else ""
    told: dict[str, Any] = {"status": status, "kind": kind}
    match status:
        case 401:
            return Unauthorised(f"{where} does not accept the credentials. Look at API key, user and password.", **told)
        case 403:
            return Forbidden(f"These credentials may not do {request} at {where}.{said}", **told)
        case 404:
            return NotFound(f"{where} has nothing at {request}.{said}", **told)
        case 409:
            conflict = Conflict(f"Somebody else wrote first: {request} at {where}.{said}", **told)
            conflict.perhaps_own = UNANSWERED in headers
            return conflict
        case 413:
            return TooLarge(f"{where} does not take a request of this size: {request}. Send smaller batches.", **told)
        case 429:
            return TooManyRequests(f"{where} is overloaded and refused {request}.{said}", **told)
        case 502 | 503 | 504:
            return Unavailable(f"{where} cannot work at the moment ({status} to {request}).{said}", **told)
        case 501:
            return NotSupported(f"{where} does not have {request}.{said}", **told)
        case 400 | 405 if reason and ("no handler found" in reason or "Incorrect HTTP method" in reason):
            return NotSupported(f"{where} does not have {request}.", **told)
        case _:
            return Refused(f"{where} refused {request} ({status}).{said}", **told)


def error_of_api_error(error: ApiError, *, where: str, request: str) -> StoreError:
    """Translate the official client's own exception."""
    return error_of_answer(error.meta.status, error.meta.headers, error.body, where=where, request=request)


def kind_and_reason(body: Any) -> tuple[str | None, str | None]:
    """The server's error type and reason in one line, from whichever shape its error body has."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        return None, _one_line(body) or None
    if not isinstance(body, Mapping):
        return None, None
    error = body.get("error")
    if isinstance(error, str):
        return None, _one_line(error)
    if not isinstance(error, Mapping):
        return None, None
    kind = error.get("type")
    reason = error.get("reason")
    caused_by = error.get("caused_by")
    text = str(reason) if reason else str(kind or "")
    if isinstance(caused_by, Mapping) and caused_by.get("reason") and str(caused_by["reason"]) not in text:
        text = f"{text}: {caused_by['reason']}"
    return (kind if isinstance(kind, str) else None), _one_line(text) or None


def without_secrets(message: str, secrets: tuple[str, ...]) -> str:
    """Blank out every secret, in case a server or library quoted one."""
    for secret in secrets:
        message = message.replace(secret, "********")
    return message


def tls_fault(error: BaseException) -> ssl.SSLError | None:
    """The disagreement about TLS behind an error. A connection that merely broke off is none, and may work next time."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return cause
    return None


def _about_tls(fault: ssl.SSLError, where: str) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {where} is not trusted ({fault.verify_message}). "
            "Give the file of its authority as ca_certs."
        )
    if fault.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return f"{where} does not speak TLS on this port. Is it http:// there?"
    return f"TLS with {where} failed ({_one_line(str(fault))})."


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_LETTERS_MAX else line[: REASON_LETTERS_MAX - 3] + "..."


def _caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Everything that led to this error: chained, collected by the client, or grouped."""
    todo: list[BaseException] = [error]
    seen: set[int] = set()
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [cause for cause in (current.__cause__, current.__context__) if cause is not None]
        todo += getattr(current, "errors", ())
        if isinstance(current, BaseExceptionGroup):
            todo += current.exceptions
