"""How the two indices of the protocol are mapped where Elasticsearch does not do it itself. Unmapped fields are kept, unsearchable."""

from __future__ import annotations

from typing import Any, Final

MAPPINGS_VERSION: Final = 3

INDEX_SETTINGS: Final[dict[str, Any]] = {
    "index": {"hidden": True, "number_of_shards": 1, "auto_expand_replicas": "0-1"}
}

_KEYWORD: Final = {"type": "keyword"}
_DATE: Final = {"type": "date"}
_BOOLEAN: Final = {"type": "boolean"}
_TEXT: Final = {"type": "text"}
_LONG: Final = {"type": "long"}
_INTEGER: Final = {"type": "integer"}
_OBJECT: Final = {"type": "object"}
_FLAG: Final = {"properties": {"enabled": _BOOLEAN}}

_RULES: Final[dict[str, Any]] = {
    "properties": {
        "advanced_snippet": {"properties": {"created_at": _DATE, "updated_at": _DATE, "value": _OBJECT}},
        "rules": {
            "properties": {
                "created_at": _DATE,
                "field": _KEYWORD,
                "id": _KEYWORD,
                "order": {"type": "short"},
                "policy": _KEYWORD,
                "rule": _KEYWORD,
                "updated_at": _DATE,
                "value": _KEYWORD,
            }
        },
        "validation": {
            "properties": {
                "errors": {"properties": {"ids": _KEYWORD, "messages": _TEXT}},
                "state": _KEYWORD,
            }
        },
    }
}
_PIPELINE: Final[dict[str, Any]] = {
    "properties": {
        "extract_binary_content": _BOOLEAN,
        "name": _KEYWORD,
        "reduce_whitespace": _BOOLEAN,
        "run_ml_inference": _BOOLEAN,
    }
}
_SCHEDULE: Final[dict[str, Any]] = {"properties": {"enabled": _BOOLEAN, "interval": _TEXT}}


def _mappings(properties: dict[str, Any]) -> dict[str, Any]:
    return {"dynamic": "false", "_meta": {"version": MAPPINGS_VERSION}, "properties": properties}


CONNECTOR_MAPPINGS: Final[dict[str, Any]] = _mappings(
    {
        "api_key_id": _KEYWORD,
        "api_key_secret_id": _KEYWORD,
        "configuration": _OBJECT,
        "custom_scheduling": _OBJECT,
        "deleted": _BOOLEAN,
        "description": _TEXT,
        "error": _KEYWORD,
        "features": {
            "properties": {
                "document_level_security": _FLAG,
                "filtering_advanced_config": _BOOLEAN,
                "filtering_rules": _BOOLEAN,
                "incremental_sync": _FLAG,
                "native_connector_api_keys": _FLAG,
                "sync_rules": {"properties": {"advanced": _FLAG, "basic": _FLAG}},
            }
        },
        "filtering": {"properties": {"active": _RULES, "domain": _KEYWORD, "draft": _RULES}},
        "index_name": _KEYWORD,
        "is_native": _BOOLEAN,
        "language": _KEYWORD,
        "last_access_control_sync_error": _KEYWORD,
        "last_access_control_sync_scheduled_at": _DATE,
        "last_access_control_sync_status": _KEYWORD,
        "last_deleted_document_count": _LONG,
        "last_incremental_sync_scheduled_at": _DATE,
        "last_indexed_document_count": _LONG,
        "last_seen": _DATE,
        "last_sync_error": _KEYWORD,
        "last_sync_scheduled_at": _DATE,
        "last_sync_status": _KEYWORD,
        "last_synced": _DATE,
        "name": _KEYWORD,
        "pipeline": _PIPELINE,
        "scheduling": {"properties": {"access_control": _SCHEDULE, "full": _SCHEDULE, "incremental": _SCHEDULE}},
        "service_type": _KEYWORD,
        "status": _KEYWORD,
        "sync_cursor": _OBJECT,
        "sync_now": _BOOLEAN,
    }
)

JOB_MAPPINGS: Final[dict[str, Any]] = _mappings(
    {
        "cancelation_requested_at": _DATE,
        "canceled_at": _DATE,
        "completed_at": _DATE,
        "connector": {
            "properties": {
                "configuration": _OBJECT,
                "filtering": _RULES,
                "id": _KEYWORD,
                "index_name": _KEYWORD,
                "language": _KEYWORD,
                "pipeline": _PIPELINE,
                "service_type": _KEYWORD,
                "sync_cursor": _OBJECT,
            }
        },
        "created_at": _DATE,
        "deleted_document_count": _INTEGER,
        "error": _KEYWORD,
        "indexed_document_count": _INTEGER,
        "indexed_document_volume": _INTEGER,
        "job_type": _KEYWORD,
        "last_seen": _DATE,
        "metadata": _OBJECT,
        "started_at": _DATE,
        "status": _KEYWORD,
        "total_document_count": _INTEGER,
        "trigger_method": _KEYWORD,
        "worker_hostname": _KEYWORD,
    }
)
