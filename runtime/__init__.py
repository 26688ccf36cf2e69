"""An actor runtime on Trio: supervision, bounded mailboxes, batched streams, and seams for clock, randomness and threads."""

from .budget import Budget, BudgetClosed, Grant, Holder
from .seams import blocking, monotonic, new_id, now, random, simulated_seams
from .stream import Batch, End, Interrupted, Stream, StreamClosed, StreamSender

__all__ = [
    "Batch",
    "Budget",
    "BudgetClosed",
    "End",
    "Grant",
    "Holder",
    "Interrupted",
    "Stream",
    "StreamClosed",
    "StreamSender",
    "blocking",
    "monotonic",
    "new_id",
    "now",
    "random",
    "simulated_seams",
]
