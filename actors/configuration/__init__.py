"""What an operator writes in `config.yml`: the settings, how the file is read, and what can be said about it."""

from .reading import Complaint, ConfigurationProblem, ReadResult, read_file, read_mapping
from .settings import (
    BulkSettings,
    CallboardSettings,
    ConnectorSettings,
    DeletionGuardSettings,
    ElasticsearchSettings,
    ErrorMonitorSettings,
    ExtractionServiceSettings,
    JournalSettings,
    OperationsSettings,
    ServiceSettings,
    Settings,
    SyncSettings,
    masked,
    options,
    reloaded,
)

__all__ = [
    "BulkSettings",
    "CallboardSettings",
    "Complaint",
    "ConfigurationProblem",
    "ConnectorSettings",
    "DeletionGuardSettings",
    "ElasticsearchSettings",
    "ErrorMonitorSettings",
    "ExtractionServiceSettings",
    "JournalSettings",
    "OperationsSettings",
    "ReadResult",
    "ServiceSettings",
    "Settings",
    "SyncSettings",
    "masked",
    "options",
    "read_file",
    "read_mapping",
    "reloaded",
]
