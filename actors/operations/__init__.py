"""Metrics, health, and live data of a running service, served over HTTP."""

from .app import OperationsApp as OperationsApp
from .app import Request as Request
from .app import Response as Response
from .app import answer as answer
from .metrics import METRICS as METRICS
from .metrics import Metrics as Metrics
from .serving import OperationsRefused as OperationsRefused
from .serving import OperationsTask as OperationsTask
from .serving import check_address as check_address

__all__ = [
    "METRICS", "Metrics", "OperationsApp", "OperationsRefused", "OperationsTask", "Request", "Response", "answer",
    "check_address",
]  # fmt: skip
