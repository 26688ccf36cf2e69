"""An actor runtime on Trio: supervision, bounded mailboxes, batched streams, and seams for clock, randomness and threads."""

from .seams import blocking, monotonic, new_id, now, random, simulated_seams

__all__ = ["blocking", "monotonic", "new_id", "now", "random", "simulated_seams"]
