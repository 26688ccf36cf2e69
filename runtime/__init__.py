"""An actor runtime on Trio: supervision, bounded mailboxes, batched streams, and seams for clock, randomness and threads."""

from .actor import Actor, ActorRef, Context
from .budget import Budget, BudgetClosed, Grant, Holder
from .events import Event, Events
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
from .seams import blocking, monotonic, new_id, now, random, simulated_seams
from .stream import Batch, End, Interrupted, Stream, StreamClosed, StreamSender
from .supervisor import Supervisor, SupervisorRef
from .system import System, open_system
from .task import Task
from .tree import TreeNode

__all__ = [
    "Actor",
    "ActorDied",
    "ActorRef",
    "AskCycle",
    "AskTimeout",
    "Backoff",
    "Batch",
    "Budget",
    "BudgetClosed",
    "ChildSpec",
    "CleanUpFailed",
    "Context",
    "End",
    "Event",
    "Events",
    "Grant",
    "Holder",
    "Interrupted",
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
    "TreeNode",
    "blocking",
    "handles",
    "monotonic",
    "new_id",
    "now",
    "open_system",
    "random",
    "simulated_seams",
]
