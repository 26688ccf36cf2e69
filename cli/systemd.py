"""Telling systemd that the service is ready, reloads, stops and lives: datagrams to the socket it names."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(message: str) -> bool:
    """Send a message to systemd; returns whether there is one that listens. Never raises: a service must not end of this."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending:
            sending.sendto(message.encode(), address)
    except OSError:
        return False
    return True


def watchdog_pause_s(environment: Mapping[str, str]) -> float | None:
    """How often to send WATCHDOG=1: half of what systemd allows. None if it does not watch this process."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    return int(usec) / 2_000_000
