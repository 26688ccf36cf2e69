"""Which sources there are, by service type. A source and its driver are imported when somebody asks for its class."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import attrs

from .errors import ConfigurationError, MissingDriver
from .source import Source


@attrs.frozen
class SourceInfo:
    """One source, as far as it is known without importing it."""

    service_type: str
    name: str
    where: str
    """`module:ClassName` inside this package."""


_SOURCES: Mapping[str, SourceInfo] = {
    info.service_type: info
    for info in (
        SourceInfo("azure_blob_storage", "Azure Blob Storage", "azure_blob_storage:AzureBlobStorage"),
        SourceInfo("confluence", "Confluence", "confluence:Confluence"),
        SourceInfo("dir", "System Directory", "dir:Directory"),
        SourceInfo("github", "GitHub", "github:GitHub"),
        SourceInfo("google_cloud_storage", "Google Cloud Storage", "google_cloud_storage:GoogleCloudStorage"),
        SourceInfo("mongodb", "MongoDB", "mongodb:MongoDB"),
        SourceInfo("redis", "Redis", "redis:Redis"),
        SourceInfo("sandfly", "Sandfly Security", "sandfly:Sandfly"),
        SourceInfo("s3", "Amazon S3", "s3:S3"),
        SourceInfo("mssql", "Microsoft SQL Server", "mssql:SQLServer"),
        SourceInfo("mysql", "MySQL", "mysql:MySQL"),
        SourceInfo("network_drive", "Network Drive", "network_drive:NetworkDrive"),
        SourceInfo("oracle", "Oracle Database", "oracle:Oracle"),
        SourceInfo("postgresql", "PostgreSQL", "postgresql:Postgres"),
    )
}

_NOT_BUILT = frozenset(
    {
        "azure_blob_storage",
        "box",
        "confluence",
        "dropbox",
        "github",
        "gitlab",
        "gmail",
        "google_cloud_storage",
        "google_drive",
        "graphql",
        "jira",
        "microsoft_teams",
        "mongodb",
        "mssql",
        "network_drive",
        "notion",
        "onedrive",
        "oracle",
        "outlook",
        "redis",
        "s3",
        "salesforce",
        "sandfly",
        "servicenow",
        "sharepoint_online",
        "sharepoint_server",
        "slack",
        "zoom",
    }
)
"""Service types that connector documents may have and this version has no source for, less those in `_SOURCES`."""


class UnknownServiceType(ConfigurationError):
    """There is no source of this service type."""


def service_types() -> list[SourceInfo]:
    """List the sources that come with Callboard, by service type."""
    return [_SOURCES[service_type] for service_type in sorted(_SOURCES)]


def source_class(service_type: str, own: Mapping[str, str] | None = None) -> type[Source[Any]]:
    """Return the class of a source. `own` maps service types to `package.module:ClassName` and goes before what is built in.

    Raises `UnknownServiceType` that names the nearest one, `MissingDriver` that names the extra to install, and
    `ConfigurationError` for an own source that cannot be used.
    """
    if own and service_type in own:
        from .sdk_adapter import adapt

        return adapt(service_type, own[service_type])
    info = _SOURCES.get(service_type)
    if info is None:
        raise UnknownServiceType(_unknown(service_type, own or {}))
    module, _, class_name = info.where.partition(":")
    try:
        found: type[Source[Any]] = getattr(import_module(f".{module}", __package__), class_name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == (__package__ or "").partition(".")[0]:
            raise
        raise MissingDriver(service_type, error.name) from error
    return found


def _unknown(service_type: str, own: Mapping[str, str]) -> str:
    known = sorted({*_SOURCES, *own})
    if service_type in _NOT_BUILT:
        return f"This version of Callboard has no source {service_type!r} yet. It has: {', '.join(known)}."
    close = difflib.get_close_matches(service_type, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no source {service_type!r}.{meant} There are: {', '.join(known)}."
