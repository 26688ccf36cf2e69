"""What several sources are tested with: a wire that can be cut, and servers of other people."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location(
    "callboard_test_foreign_servers", Path(__file__).with_name("foreign_servers.py")
)
assert _spec is not None
assert _spec.loader is not None
foreign_servers = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = foreign_servers
_spec.loader.exec_module(foreign_servers)


class Tunnel:
    """Passes bytes on to a server on loopback, in threads of its own, until it is cut."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def cut(self) -> None:
        """End every connection and take no other. Returns when all is gone."""
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        for end in self._ends:
            end.close()

    def _start(self, function: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=function, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._ends += [client, server]
                self._start(self._pump, client, server)
                self._start(self._pump, server, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tunnel_to() -> Iterator[Callable[[int], Tunnel]]:
    opened: list[Tunnel] = []

    def tunnel(port: int) -> Tunnel:
        opened.append(Tunnel(port))
        return opened[-1]

    yield tunnel
    for one in opened:
        one.cut()


@pytest.fixture(scope="session")
def azurite_port() -> Iterator[int]:
    """The emulator of Azure Storage."""
    with foreign_servers.azurite(foreign_servers.azurite_program()) as port:
        yield port


@pytest.fixture(scope="session")
def fake_gcs_port() -> Iterator[int]:
    """The emulator of Google Cloud Storage."""
    with foreign_servers.fake_gcs(foreign_servers.fake_gcs_program()) as port:
        yield port


@pytest.fixture(scope="session")
def backlot() -> Iterator[Any]:
    """Backlot, with its port and the keys of its people."""
    with foreign_servers.backlot(foreign_servers.backlot_program()) as running:
        yield running
