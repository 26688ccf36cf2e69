"""What the server's licence and our own privileges allow, tolerant of servers that do not have the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from .client import Wire
from .errors import Forbidden, NotFound, NotSupported, Refused

LICENCE_ORDER = ("none", "basic", "standard", "gold", "platinum", "enterprise", "trial")
"""From least to most. An expired licence is none."""


@attrs.frozen
class Licence:
    """The server's licence."""

    kind: str
    is_active: bool

    def allows(self, wanted: str) -> bool:
        """Tell whether this licence is `wanted` or better. An unknown kind of licence allows what basic allows."""
        own = self.kind if self.is_active else "none"
        rank = LICENCE_ORDER.index(own) if own in LICENCE_ORDER else LICENCE_ORDER.index("basic")
        return rank >= LICENCE_ORDER.index(wanted)


@attrs.frozen
class Privileges:
    """What these credentials lack of what was asked for."""

    missing_cluster: tuple[str, ...]
    missing_index: Mapping[str, tuple[str, ...]]
    """Index -> missing privileges, only of those that lack some."""

    @property
    def suffices(self) -> bool:
        return not self.missing_cluster and not self.missing_index

    def __str__(self) -> str:
        lacks = [f"cluster privilege {name}" for name in self.missing_cluster]
        lacks += [f"{', '.join(names)} on {index}" for index, names in self.missing_index.items()]
        return "nothing is missing" if not lacks else "missing: " + "; ".join(lacks)


class Rights:
    """`store.rights`. Raises `StoreError` for a server that cannot be asked, None where the question does not exist."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def licence(self) -> Licence | None:
        """The licence, or None where there is none to ask for (serverless) or we may not know."""
        try:
            told = (await self._wire.client.license.get()).body
        except (NotFound, NotSupported, Forbidden):
            return None
        licence = told.get("license", {})
        return Licence(str(licence.get("type", "none")), licence.get("status") == "active")

    async def privileges(
        self, *, cluster: Sequence[str] = (), index: Mapping[str, Sequence[str]] | None = None
    ) -> Privileges | None:
        """Which of these privileges are missing, or None on a server without security."""
        wanted = {name: list(names) for name, names in (index or {}).items()}
        try:
            told = (
                await self._wire.client.security.has_privileges(
                    cluster=list(cluster),
                    index=[
                        {"names": [name], "privileges": names, "allow_restricted_indices": name.startswith(".")}
                        for name, names in wanted.items()
                    ],
                )
            ).body
        except (NotFound, NotSupported):
            return None
        except Refused as exc:
            # How a server says so whose security is switched off.
            if exc.status == 500 or "security" in str(exc).lower():
                return None
            raise
        held_cluster, held_index = told.get("cluster", {}), told.get("index", {})
        missing = {
            name: tuple(privilege for privilege in names if not held_index.get(name, {}).get(privilege, False))
            for name, names in wanted.items()
        }
        return Privileges(
            tuple(name for name in cluster if not held_cluster.get(name, False)),
            {name: lacking for name, lacking in missing.items() if lacking},
        )
