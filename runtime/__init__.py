"""An actor runtime on Trio: supervision, bounded mailboxes, batched streams, and seams for clock, randomness and threads."""

from typing import TYPE_CHECKING, Any

from .actor import Actor, ActorRef, Context
from .asyncio_host import run_in_asyncio
from .asyncio_system import AsyncioSystem, open_system_in_asyncio
from .budget import Budget, BudgetClosed, Grant, Holder
from .events import Event, Events
from .gathering import Gatherer, gathering
from .handle import TaskRef
from .lifecycle import (
    ActorDied,
    AskCycle,
    AskTimeout,
    Backoff,
    ChildSpec,
    CleanUpFailed,
    MailboxFull,
    NameTaken,
    NotHandled,
    RestartsExhausted,
    RuntimeProblem,
    StartFailed,
    StopReason,
)
from .messages import Request, handles
from .processes import WorkerCrashed, WorkerTimeout, worker_process
from .seams import blocking, monotonic, new_id, now, random, simulated_seams
from .signals import obey_signals
from .stalls import watch_for_stalls
from .stream import Batch, Batches, End, Interrupted, Stream, StreamClosed, StreamSender
from .supervisor import Supervisor, SupervisorRef
from .system import System, open_system
from .task import Task
from .telemetry import log_event
from .timers import Timer, Timers
from .tree import TreeNode

if TYPE_CHECKING:
    from .faults import FaultPlan, InjectedFault, InvalidPlan
    from .simulation import run_simulated

__all__ = [
    "Actor",
    "ActorDied",
    "ActorRef",
    "AskCycle",
    "AskTimeout",
    "AsyncioSystem",
    "Backoff",
    "Batch",
    "Batches",
    "Budget",
    "BudgetClosed",
    "ChildSpec",
    "CleanUpFailed",
    "Context",
    "End",
    "Event",
    "Events",
    "FaultPlan",
    "Gatherer",
    "Grant",
    "Holder",
    "InjectedFault",
    "Interrupted",
    "InvalidPlan",
    "MailboxFull",
    "NameTaken",
    "NotHandled",
    "Request",
    "RestartsExhausted",
    "RuntimeProblem",
    "StartFailed",
    "StopReason",
    "Stream",
    "StreamClosed",
    "StreamSender",
    "Supervisor",
    "SupervisorRef",
    "System",
    "Task",
    "TaskRef",
    "Timer",
    "Timers",
    "TreeNode",
    "WorkerCrashed",
    "WorkerTimeout",
    "blocking",
    "gathering",
    "handles",
    "log_event",
    "monotonic",
    "new_id",
    "now",
    "obey_signals",
    "open_system",
    "open_system_in_asyncio",
    "random",
    "run_in_asyncio",
    "run_simulated",
    "simulated_seams",
    "watch_for_stalls",
    "worker_process",
]


_FAULTS = ("FaultPlan", "InjectedFault", "InvalidPlan")
"""Nobody needs these in production."""


def __getattr__(name: str) -> Any:
    if name in _FAULTS:
        from . import faults

        return getattr(faults, name)
    # Brings in the testing half of Trio, which nobody needs in production.
    if name == "run_simulated":
        from .simulation import run_simulated

        return run_simulated
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
