"""Metrics, health, live data and the page of a running service, served over HTTP."""

from .app import OperationsApp as OperationsApp
from .http import Request as Request
from .http import Response as Response
from .http import answer as answer
from .metrics import METRICS as METRICS
from .metrics import Metrics as Metrics
from .serving import OperationsRefused as OperationsRefused
from .serving import OperationsTask as OperationsTask
from .serving import check_address as check_address

__all__ = [
    "METRICS", "Metrics", "OperationsApp", "OperationsRefused", "OperationsTask", "Request", "Response", "answer",
    "check_address",
]  # fmt: skip
