"""The Connector Protocol as pure data and pure functions. Only `protocol.store` does input and output.

    documents        connectors, sync jobs and their parts; read and written without loss (`wire`)
    jobs             what may happen to a sync job
    connectors       what may happen to a connector
    configuration    a source's settings: schema, reading, upkeep, masking
    filtering        basic sync rules; `drafts`: how rules come into force
    cron             when a schedule fires; `scheduling`: whether to make a job now
    access           document-level security
    versions         which Elasticsearch we can work with
    ids, indices     names of things

Functions whose names only make sense with their module (`jobs.claim`, `connectors.sync_ends`) are used through it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import access as access
    from . import configuration as configuration
    from . import connectors as connectors
    from . import cron as cron
    from . import documents as documents
    from . import drafts as drafts
    from . import filtering as filtering
    from . import ids as ids
    from . import indices as indices
    from . import jobs as jobs
    from . import pausing as pausing
    from . import scheduling as scheduling
    from . import versions as versions
    from . import wire as wire
    from .access import ALLOW_ACCESS_CONTROL as ALLOW_ACCESS_CONTROL
    from .access import NOBODY as NOBODY
    from .access import access_list as access_list
    from .access import identity_document as identity_document
    from .configuration import InvalidConfiguration as InvalidConfiguration
    from .configuration import masked as masked
    from .configuration import read_configuration as read_configuration
    from .configuration import schema_of as schema_of
    from .configuration import setting as setting
    from .configuration import upkeep as upkeep
    from .cron import Cron as Cron
    from .cron import InvalidCron as InvalidCron
    from .documents import Connector as Connector
    from .documents import ConnectorStatus as ConnectorStatus
    from .documents import Features as Features
    from .documents import Filtering as Filtering
    from .documents import JobStatus as JobStatus
    from .documents import JobType as JobType
    from .documents import Pipeline as Pipeline
    from .documents import Rule as Rule
    from .documents import Rules as Rules
    from .documents import Schedule as Schedule
    from .documents import Scheduling as Scheduling
    from .documents import SyncJob as SyncJob
    from .documents import TriggerMethod as TriggerMethod
    from .documents import Validation as Validation
    from .documents import ValidationState as ValidationState
    from .documents import read_connector as read_connector
    from .documents import read_job as read_job
    from .documents import write_connector as write_connector
    from .documents import write_job as write_job
    from .filtering import CompiledRules as CompiledRules
    from .filtering import InvalidRules as InvalidRules
    from .filtering import compile_rules as compile_rules
    from .filtering import validate_rules as validate_rules
    from .ids import ConnectorId as ConnectorId
    from .ids import DocumentId as DocumentId
    from .ids import InvalidDocumentId as InvalidDocumentId
    from .ids import JobId as JobId
    from .ids import document_id as document_id
    from .indices import InvalidIndexName as InvalidIndexName
    from .indices import acl_index as acl_index
    from .indices import check_index_name as check_index_name
    from .jobs import Counts as Counts
    from .jobs import TransitionRefused as TransitionRefused
    from .versions import PROTOCOL_VERSION as PROTOCOL_VERSION
    from .versions import compare as compare
    from .wire import Changes as Changes
    from .wire import InvalidDocument as InvalidDocument
    from .wire import changes as changes

# Loaded when first used: whoever needs the name of an index should not wait for the converter of documents.
_MODULES = (
    "access",
    "configuration",
    "connectors",
    "cron",
    "documents",
    "drafts",
    "filtering",
    "ids",
    "indices",
    "jobs",
    "scheduling",
    "versions",
    "wire",
)
_NAMES = {
    "ALLOW_ACCESS_CONTROL": "access",
    "NOBODY": "access",
    "access_list": "access",
    "identity_document": "access",
    "InvalidConfiguration": "configuration",
    "masked": "configuration",
    "read_configuration": "configuration",
    "schema_of": "configuration",
    "setting": "configuration",
    "upkeep": "configuration",
    "Cron": "cron",
    "InvalidCron": "cron",
    "Connector": "documents",
    "ConnectorStatus": "documents",
    "Features": "documents",
    "Filtering": "documents",
    "JobStatus": "documents",
    "JobType": "documents",
    "Pipeline": "documents",
    "Rule": "documents",
    "Rules": "documents",
    "Schedule": "documents",
    "Scheduling": "documents",
    "SyncJob": "documents",
    "TriggerMethod": "documents",
    "Validation": "documents",
    "ValidationState": "documents",
    "read_connector": "documents",
    "read_job": "documents",
    "write_connector": "documents",
    "write_job": "documents",
    "CompiledRules": "filtering",
    "InvalidRules": "filtering",
    "compile_rules": "filtering",
    "validate_rules": "filtering",
    "ConnectorId": "ids",
    "DocumentId": "ids",
    "InvalidDocumentId": "ids",
    "JobId": "ids",
    "document_id": "ids",
    "InvalidIndexName": "indices",
    "acl_index": "indices",
    "check_index_name": "indices",
    "Counts": "jobs",
    "TransitionRefused": "jobs",
    "PROTOCOL_VERSION": "versions",
    "compare": "versions",
    "Changes": "wire",
    "InvalidDocument": "wire",
    "changes": "wire",
}

__all__ = [*_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
