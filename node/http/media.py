"""Media types: JSON, NDJSON, and Elasticsearch's own with `compatible-with`. Pure."""

from __future__ import annotations

import re

from ..errors import ApiError

MAJOR_VERSIONS = (8, 9)
_TYPE = re.compile(r"\s*([\w.*+-]+/[\w.*+-]+)\s*((?:;[^;,]*)*)")
_PLAIN = {"application/json", "application/x-ndjson"}
_VENDOR = {"application/vnd.elasticsearch+json", "application/vnd.elasticsearch+x-ndjson"}
_LACKING = re.compile(r"application/(?:vnd\.elasticsearch\+)?(yaml|smile|cbor)")


def check_content_type(value: str | None, accept: str | None) -> None:
    """Raise 406 for a body that is no JSON, 400 for a version that is not spoken, or not the one of the answer."""
    if value is None or not value.strip():
        raise ApiError(406, "media_type_header_exception", "Content-Type header is missing")
    name, version = _read(value, "Content-Type")
    wanted = _version_of(accept)
    if wanted is not None and wanted != version:
        raise ApiError(
            400,
            "media_type_header_exception",
            "A compatible version is required on both Content-Type and Accept headers if either one has requested a compatible "
            f"version. Accept={accept}, Content-Type={value}",
        )
    if name not in _PLAIN | _VENDOR:
        if _LACKING.fullmatch(name):
            raise ApiError(
                406,
                "media_type_header_exception",
                f"Content-Type [{name}] is not built into the Callboard node; send JSON",
            )
        raise ApiError(406, "media_type_header_exception", f"Content-Type header [{value}] is not supported")
    _check_version(name, version, value, "Content-Type")


def answer_type(accept: str | None) -> str:
    """Return the media type to answer with. Raises 400 for a version that is not spoken, 406 for a type that is not."""
    if accept is None or not accept.strip():
        return "application/json"
    for part in accept.split(","):
        name, version = _read(part, "Accept")
        if name in _VENDOR:
            _check_version(name, version, part.strip(), "Accept")
            return f"application/vnd.elasticsearch+json;compatible-with={version}"
        if name in _PLAIN or name in ("*/*", "application/*"):
            return "application/json"
    if accept.strip().startswith("text/"):
        return "application/json"
    raise ApiError(
        406,
        "media_type_header_exception",
        f"Invalid media-type value on headers [Accept]: [{accept}]; ask for application/json",
    )


def _version_of(accept: str | None) -> str | None:
    found = re.search(r"application/vnd\.elasticsearch\+[^,]*compatible-with\s*=\s*\"?(\d+)", accept or "")
    return found[1] if found else None


def _read(value: str, header: str) -> tuple[str, str | None]:
    found = _TYPE.match(value)
    if found is None:
        raise ApiError(400, "media_type_header_exception", f"Invalid media-type value on headers [{header}]: [{value}]")
    version = re.search(r"compatible-with\s*=\s*\"?(\d+)", found[2])
    return found[1].lower(), version[1] if version else None


def _check_version(name: str, version: str | None, value: str, header: str) -> None:
    if name in _VENDOR and (version is None or int(version) not in MAJOR_VERSIONS):
        raise ApiError(
            400,
            "media_type_header_exception",
            f"Invalid media-type value on headers [{header}]",
            cause=ApiError(
                400,
                "status_exception",
                f"{header} version must be either version {MAJOR_VERSIONS[1]} or {MAJOR_VERSIONS[0]}, but found {version}. {header}={value}",
            ),
        )
