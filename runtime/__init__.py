"""An actor runtime on Trio: supervision, bounded mailboxes, batched streams, and seams for clock, randomness and threads."""
