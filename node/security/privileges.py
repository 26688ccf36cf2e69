"""Roles and privileges: which one includes which, and what each route asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..errors import illegal_argument, not_built
from ..storage.names import matches

_CLUSTER_INCLUDES: Mapping[str, frozenset[str]] = {
    "manage": frozenset(
        [
            "monitor",
            "manage_index_templates",
            "manage_ingest_pipelines",
            "manage_pipeline",
            "read_pipeline",
            "manage_connector",
            "monitor_connector",
            "manage_ilm",
            "manage_ml",
            "manage_transform",
        ]
    ),
    "manage_pipeline": frozenset({"manage_ingest_pipelines", "read_pipeline"}),
    "manage_ingest_pipelines": frozenset({"read_pipeline"}),
    "manage_connector": frozenset({"monitor_connector"}),
    "manage_security": frozenset({"manage_api_key", "manage_own_api_key"}),
    "manage_api_key": frozenset({"manage_own_api_key"}),
    "write_connector_secrets": frozenset(),
}
_INDEX_INCLUDES: Mapping[str, frozenset[str]] = {
    "manage": frozenset(
        [
            "create_index",
            "delete_index",
            "view_index_metadata",
            "monitor",
            "maintenance",
            "auto_configure",
            "manage_ilm",
        ]
    ),
    "write": frozenset({"index", "create", "create_doc", "delete"}),
    "index": frozenset({"create", "create_doc"}),
    "create": frozenset({"create_doc"}),
}

# What a route asks for, by the name of its action: any one of these privileges is enough.
CLUSTER_ACTIONS: Mapping[str, frozenset[str]] = {
    "monitor": frozenset({"monitor"}),
    "manage_cluster": frozenset({"manage"}),
    "manage_templates": frozenset({"manage_index_templates"}),
    "manage_pipelines": frozenset({"manage_ingest_pipelines"}),
    "read_pipelines": frozenset({"read_pipeline"}),
    "manage_connector": frozenset({"manage_connector"}),
    "monitor_connector": frozenset({"monitor_connector"}),
    "read_connector_secrets": frozenset({"read_connector_secrets"}),
    "write_connector_secrets": frozenset({"write_connector_secrets"}),
    "manage_own_api_key": frozenset({"manage_own_api_key"}),
}
INDEX_ACTIONS: Mapping[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"write", "index"}),
    "view": frozenset({"view_index_metadata", "read"}),
    "create_index": frozenset({"create_index"}),
    "delete_index": frozenset({"delete_index"}),
    "manage": frozenset({"manage"}),
    "maintain": frozenset({"maintenance", "write", "read"}),
    "monitor_index": frozenset({"monitor"}),
}
FREE = "authenticated"
"""The action of routes that everybody who is known may use."""


@attrs.frozen
class IndexPrivileges:
    """Privileges on the indices whose names match the patterns."""

    names: tuple[str, ...]
    privileges: frozenset[str]

    def allow(self, name: str, wanted: str) -> bool:
        """Say whether this privilege on this index, alias or pattern is among them."""
        return any(matches(pattern, name) for pattern in self.names) and includes(
            self.privileges, wanted, _INDEX_INCLUDES
        )


@attrs.frozen
class Role:
    """What somebody with this role may do."""

    cluster: frozenset[str] = frozenset()
    indices: tuple[IndexPrivileges, ...] = ()

    @classmethod
    def of(cls, cluster: Iterable[str] = (), indices: Mapping[str, Iterable[str]] | None = None) -> Role:
        """Make a role of privileges on the cluster, and of privileges by pattern of index names."""
        granted = tuple(IndexPrivileges((name,), frozenset(one)) for name, one in (indices or {}).items())
        return cls(frozenset(cluster), granted)


def includes(granted: frozenset[str], wanted: str, table: Mapping[str, frozenset[str]]) -> bool:
    """Say whether a privilege is granted, by itself or by one that includes it."""
    return "all" in granted or wanted in granted or any(wanted in table.get(one, ()) for one in granted)


BUILT_IN: Mapping[str, Role] = {
    "superuser": Role.of(("all",), {"*": ("all",)}),
    "viewer": Role.of(
        ("monitor", "monitor_connector", "read_pipeline"), {"*": ("read", "view_index_metadata", "monitor")}
    ),
}


@attrs.frozen
class Principal:
    """Somebody who is known. What an API key may do is what both its owner and its own roles allow."""

    name: str
    role_names: tuple[str, ...]
    roles: tuple[Role, ...]
    limited_to: tuple[Role, ...] | None = None
    api_key: Mapping[str, Any] | None = None

    def may(self, privilege: str) -> bool:
        """Say whether a privilege on the cluster is granted."""
        return all(
            any(includes(role.cluster, privilege, _CLUSTER_INCLUDES) for role in roles)
            for roles in (self.roles, self.limited_to)
            if roles is not None
        )

    def may_with(self, name: str, privilege: str) -> bool:
        """Say whether a privilege on an index is granted."""
        return all(
            any(one.allow(name, privilege) for role in roles for one in role.indices)
            for roles in (self.roles, self.limited_to)
            if roles is not None
        )

    def may_do(self, action: str, index: str | None) -> bool:
        """Say whether a route's action is granted."""
        if action == FREE:
            return True
        if action in CLUSTER_ACTIONS:
            return any(self.may(one) for one in CLUSTER_ACTIONS[action])
        names = (index or "*").split(",")
        return all(any(self.may_with(name.lstrip("-"), one) for one in INDEX_ACTIONS[action]) for name in names)


def read_roles(body: Any) -> dict[str, Role]:
    """Read role descriptors. Raises 400 or 501."""
    if not isinstance(body, dict):
        raise illegal_argument("[role_descriptors] must be an object")
    return {name: _read_role(name, one) for name, one in body.items()}


def _read_role(name: str, body: Any) -> Role:
    if not isinstance(body, dict):
        raise illegal_argument(f"the role descriptor [{name}] must be an object")
    unknown = body.keys() - {
        "cluster",
        "indices",
        "index",
        "applications",
        "metadata",
        "transient_metadata",
        "run_as",
        "description",
        "global",
    }
    unknown |= {"restriction", "remote_indices"} & body.keys()
    if unknown:
        raise illegal_argument(f"unexpected field [{min(unknown)}] in the role descriptor [{name}]")
    indices = []
    entries = body.get("indices", body.get("index", []))
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict):
            raise illegal_argument(f"[indices] of the role descriptor [{name}] must be objects")
        if entry.get("query") or entry.get("field_security"):
            raise not_built("Document-level and field-level security of roles")
        indices.append(
            IndexPrivileges(texts(entry.get("names"), "names"), frozenset(texts(entry.get("privileges"), "privileges")))
        )
    return Role(frozenset(texts(body.get("cluster", []), "cluster")), tuple(indices))


def texts(value: Any, what: str) -> tuple[str, ...]:
    """Return a text or list of texts as a tuple. Raises 400."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise illegal_argument(f"[{what}] must be a list of texts")
    return tuple(listed)
