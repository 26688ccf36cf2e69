"""What sources that speak HTTP are written on: a client that retries and slows down as it is told, auth flows, pagers."""

from .auth import ApiKeyAuth, BasicAuth, BearerAuth, OAuthClientCredentials, OAuthJwtBearer, OAuthRefreshToken
from .client import HttpClient, HttpSettings, Redirected, Retries, open_http
from .limits import Quota, TokenBucket, quota_of, shared_bucket
from .mapping import mapped
from .pagers import Cursor, NextLink, Offset, PageNumber, Pager, RepeatedPage, ShortListing, linked

__all__ = [
    "ApiKeyAuth",
    "BasicAuth",
    "BearerAuth",
    "Cursor",
    "HttpClient",
    "HttpSettings",
    "NextLink",
    "OAuthClientCredentials",
    "OAuthJwtBearer",
    "OAuthRefreshToken",
    "Offset",
    "PageNumber",
    "Pager",
    "Quota",
    "Redirected",
    "RepeatedPage",
    "Retries",
    "ShortListing",
    "TokenBucket",
    "linked",
    "mapped",
    "open_http",
    "quota_of",
    "shared_bucket",
]
