"""The name under which this process claims jobs, and whether the process behind another name is dead.

    stage-1/4711-3039-9f2c81aa      host / process id - when it started - the process space it lives in

Only a process of the same process space (machine, boot and container) can be looked for; of all others only their silence tells.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import attrs

_PATTERN = re.compile(r"(?P<host>.*)/(?P<pid>\d+)-(?P<started>\d+)-(?P<space>[0-9a-f]{8})")


@attrs.frozen
class WorkerName:
    """Who works on a job."""

    host: str
    pid: int
    started: int
    """In the kernel's ticks since the boot: a process id alone is used again."""
    space: str

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}-{self.started}-{self.space}"

    @classmethod
    def parse(cls, text: str | None) -> WorkerName | None:
        """Take a name apart; None for a name that another program has given itself."""
        found = _PATTERN.fullmatch(text or "")
        if found is None:
            return None
        return cls(found["host"], int(found["pid"]), int(found["started"]), found["space"])

    def is_dead(self, own: WorkerName, started_of: Callable[[int], int | None]) -> bool:
        """Tell whether this process is known to have ended. `started_of` says when a process began, None if there is none."""
        if self.space != own.space or self == own:
            return False
        return started_of(self.pid) != self.started


def own_name(host: str | None = None) -> WorkerName:
    """The name of this process. Blocking, a few small reads."""
    pid = os.getpid()
    return WorkerName(host or socket.gethostname(), pid, started_of(pid) or 0, _space())


def started_of(pid: int) -> int | None:
    """When a process of this machine began, or None if there is none. Blocking, one small read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name of the program, in parentheses, may hold blanks and parentheses. 'Z' has ended and waits for its parent.
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        # Nobody can be looked for then: a space of its own for every process.
        return os.urandom(4).hex()
    return sha256(f"{boot}|{processes}".encode()).hexdigest()[:8]
