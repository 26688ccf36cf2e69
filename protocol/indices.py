"""Names of indices, and which names a content index may have."""

from __future__ import annotations

CONNECTORS_INDEX = ".elastic-connectors-v1"
CONNECTORS_ALIAS = ".elastic-connectors"
JOBS_INDEX = ".elastic-connectors-sync-jobs-v1"
JOBS_ALIAS = ".elastic-connectors-sync-jobs"
SECRETS_INDEX = ".connector-secrets-1"
SECRETS_ALIAS = ".connector-secrets"
ACL_INDEX_PREFIX = ".search-acl-filter-"
ACL_INDEX_PATTERN = f"{ACL_INDEX_PREFIX}*"
DEFAULT_PIPELINE = "search-default-ingestion"
NATIVE_PREFIX = "content-"
"""What the content index of an Elastic-managed connector starts with."""

ORIGIN_HEADER = "X-elastic-product-origin"
ORIGIN = "connectors"

NAME_SIZE_BYTES_MAX = 255
_FORBIDDEN = '\\/*?"<>| ,#:'


class InvalidIndexName(ValueError):
    """A content index cannot be called so."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        super().__init__(f"The index name {name!r} {why}. Choose a name such as 'search-library'.")


def acl_index(index_name: str) -> str:
    """Name the access-control index that belongs to a content index. An access-control index is its own."""
    return index_name if index_name.startswith(ACL_INDEX_PREFIX) else ACL_INDEX_PREFIX + index_name


def content_index(index_name: str) -> str:
    """Name the content index that an access-control index belongs to. A content index is its own."""
    return index_name.removeprefix(ACL_INDEX_PREFIX)


def check_index_name(name: str, *, is_native: bool = False) -> str:
    """Return the name if a content index may have it. Raises `InvalidIndexName` that says what is wrong with it."""
    if not name:
        raise InvalidIndexName(name, "is empty")
    if name in (".", ".."):
        raise InvalidIndexName(name, "is a path, not a name")
    if name[0] in "_-+":
        raise InvalidIndexName(name, f"starts with {name[0]!r}")
    if name != name.lower():
        raise InvalidIndexName(name, "has capital letters")
    found = [character for character in name if character in _FORBIDDEN or character.isspace() or ord(character) < 32]
    if found:
        raise InvalidIndexName(name, f"contains {found[0]!r}")
    if len(name.encode("utf-8", "surrogatepass")) > NAME_SIZE_BYTES_MAX:
        raise InvalidIndexName(name, f"is longer than {NAME_SIZE_BYTES_MAX} bytes")
    if is_native and not name.startswith(NATIVE_PREFIX):
        raise InvalidIndexName(name, f"must start with {NATIVE_PREFIX!r}, because the connector is Elastic-managed")
    return name
