"""Make sure that the two indices of the protocol exist, whoever owns them.

Elasticsearch 9 brings both as system indices, 8.10 and later as templates, and either way creating the concrete name is all it
takes. Elsewhere (older versions, the built-in node, a bare test server) the mapping is ours to give. So: ask for the
concrete name with the mapping and alias it would have anyway, and afterwards insist that the alias is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from ..indices import CONNECTORS_ALIAS, CONNECTORS_INDEX, JOBS_ALIAS, JOBS_INDEX
from ..mappings import CONNECTOR_MAPPINGS, INDEX_SETTINGS, JOB_MAPPINGS
from .client import Wire
from .errors import Refused, StoreError

log = structlog.get_logger(__name__)


async def ensure_indices(wire: Wire) -> tuple[str, ...]:
    """Create the connector and job indices that are missing and return their names. Any number may do so at once.

    Raises `StoreError`: `Forbidden` names what these credentials lack.
    """
    created: list[str] = []
    for index, alias, mappings in (
        (CONNECTORS_INDEX, CONNECTORS_ALIAS, CONNECTOR_MAPPINGS),
        (JOBS_INDEX, JOBS_ALIAS, JOB_MAPPINGS),
    ):
        if await wire.client.indices.exists(index=alias):
            continue
        if await _create(wire, index, alias, mappings):
            created.append(index)
            log.info("store.index_created", index=index)
        if not await wire.client.indices.exists(index=alias):
            # The index was there without its alias: an earlier creation was interrupted, or somebody restored it bare.
            await wire.client.indices.put_alias(index=index, name=alias)
    return tuple(created)


async def _create(wire: Wire, index: str, alias: str, mappings: Mapping[str, Any]) -> bool:
    try:
        await wire.client.indices.create(index=index, aliases={alias: {}}, settings=INDEX_SETTINGS, mappings=mappings)
    except Refused as exc:
        if exc.kind == "resource_already_exists_exception":
            return False
        # A system index may insist on its own settings; then the bare name is what the product expects.
        try:
            await wire.client.indices.create(index=index)
        except StoreError:
            raise exc from None
    return True
