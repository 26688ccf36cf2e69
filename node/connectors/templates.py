"""The index templates that Elasticsearch brings along for connectors."""

from __future__ import annotations

from typing import Any

from ...protocol.indices import ACL_INDEX_PATTERN, CONNECTORS_ALIAS, CONNECTORS_INDEX, JOBS_ALIAS, JOBS_INDEX
from ...protocol.mappings import CONNECTOR_MAPPINGS, INDEX_SETTINGS, JOB_MAPPINGS

_META = {"managed": True, "description": "Installed by the Callboard node"}


def _template(pattern: str, priority: int, template: dict[str, Any]) -> dict[str, Any]:
    return {"index_patterns": [pattern], "priority": priority, "composed_of": [], "_meta": _META, "template": template}


INDEX_TEMPLATES: dict[str, Any] = {
    "elastic-connectors": _template(
        CONNECTORS_INDEX,
        100,
        {"settings": INDEX_SETTINGS, "mappings": CONNECTOR_MAPPINGS, "aliases": {CONNECTORS_ALIAS: {}}},
    ),
    "elastic-connectors-sync-jobs": _template(
        JOBS_INDEX, 100, {"settings": INDEX_SETTINGS, "mappings": JOB_MAPPINGS, "aliases": {JOBS_ALIAS: {}}}
    ),
    "search-acl-filter": _template(
        ACL_INDEX_PATTERN,
        110,
        {
            "settings": {"index": {"hidden": True, "number_of_shards": 1, "number_of_replicas": 1}},
            "mappings": {"dynamic": "false", "properties": {"created_at": {"type": "date"}}},
        },
    ),
}
