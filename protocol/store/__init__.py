"""The typed client of Elasticsearch's indices and APIs; the one part of the protocol that does input and output."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import ServerInfo as ServerInfo
    from .client import StoreClient as StoreClient
    from .connectors import Connectors as Connectors
    from .content import BulkAnswer as BulkAnswer
    from .content import ContentIndices as ContentIndices
    from .content import ExistingPage as ExistingPage
    from .errors import Conflict as Conflict
    from .errors import Forbidden as Forbidden
    from .errors import Incomplete as Incomplete
    from .errors import InvalidTarget as InvalidTarget
    from .errors import NotElasticsearch as NotElasticsearch
    from .errors import NotFound as NotFound
    from .errors import NotSupported as NotSupported
    from .errors import Refused as Refused
    from .errors import StoreError as StoreError
    from .errors import TimedOut as TimedOut
    from .errors import TooLarge as TooLarge
    from .errors import TooManyRequests as TooManyRequests
    from .errors import Unauthorised as Unauthorised
    from .errors import Unavailable as Unavailable
    from .errors import Unreachable as Unreachable
    from .errors import UntrustedCertificate as UntrustedCertificate
    from .guarded import Unreadable as Unreadable
    from .jobs import Jobs as Jobs
    from .jobs import is_same_claim as is_same_claim
    from .retries import RetryPolicy as RetryPolicy
    from .rights import Licence as Licence
    from .rights import Privileges as Privileges
    from .rights import Rights as Rights
    from .store import Store as Store
    from .store import open_store as open_store
    from .target import Target as Target
    from .transport import Retrying as Retrying

_HOME = {
    "BulkAnswer": "content",
    "Conflict": "errors",
    "Connectors": "connectors",
    "ContentIndices": "content",
    "ExistingPage": "content",
    "Forbidden": "errors",
    "Incomplete": "errors",
    "InvalidTarget": "errors",
    "Jobs": "jobs",
    "Licence": "rights",
    "NotElasticsearch": "errors",
    "NotFound": "errors",
    "NotSupported": "errors",
    "Privileges": "rights",
    "Refused": "errors",
    "RetryPolicy": "retries",
    "Retrying": "transport",
    "Rights": "rights",
    "ServerInfo": "client",
    "Store": "store",
    "StoreClient": "client",
    "StoreError": "errors",
    "Target": "target",
    "TimedOut": "errors",
    "TooLarge": "errors",
    "TooManyRequests": "errors",
    "Unauthorised": "errors",
    "Unavailable": "errors",
    "Unreachable": "errors",
    "Unreadable": "guarded",
    "UntrustedCertificate": "errors",
    "is_same_claim": "jobs",
    "open_store": "store",
}
"""Public name -> module. Loaded on first use: the official client takes most of a second to import."""

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
