"""The exit codes of every command, in one place. Scripts rely on them; a code never changes its meaning."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command tells the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_FOUND = 5
    LOCAL = 6
    INTERNAL = 70
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "Done.",
    Exit.FAILED: "It was tried and did not succeed: a sync in error, a check with findings, a question answered with no.",
    Exit.USAGE: "The command line or a setting cannot work as written; nothing was tried.",
    Exit.UNREACHABLE: "The server does not answer, or is not an Elasticsearch.",
    Exit.REFUSED: "The server or the source does not accept the credentials, or forbids this.",
    Exit.NOT_FOUND: "The connector, job, index, file or folder does not exist.",
    Exit.LOCAL: "This machine does not allow it: no permission, port in use, disk full.",
    Exit.INTERNAL: "A defect of Callboard; `--debug` shows where.",
    Exit.INTERRUPTED: "Interrupted by Ctrl-C or a signal; what was running was ended in order.",
}
assert MEANINGS.keys() == set(Exit)
