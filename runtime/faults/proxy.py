"""A proxy for bytes in front of a real server, which does on the wire what a plan says.

    async with open_fault_proxy("127.0.0.1", 9200, plan) as proxy:
        ...  # speak to proxy.host, proxy.port

It knows nothing of what is said: encrypted connections work, and only the rules that look at bytes are blind then.

Invariants: every connection is one task with two pumps, in the proxy's nursery; at most `connections_max` are open, further ones wait to be accepted, and each holds at
most two pieces of `PIECE_BYTES`; what a slow side does not take is not read from the other. A second socket holds the
port while the proxy is down, so that nobody else gets it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Final, Literal

import attrs
import trio

from .conditions import Turns
from .flow import Close, CloseAtAnswer, Flow, GoDown, Hang, Pace, Pass, Step, Wait
from .network import LoseResponse, NetworkFaultPlan, Refuse, Restart, Rule

CONNECTIONS_MAX: Final = 256
PIECE_BYTES: Final = 16 * 1024
HAPPENED_MAX: Final = 10_000
_DRIPPED_BYTES_MAX: Final = 1024
_DRIP_S: Final = 0.25
_BACKLOG: Final = 128
Direction = Literal["request", "response"]


@attrs.frozen(kw_only=True)
class InjectedOnWire:
    """One fault that was injected on a connection."""

    rule: str
    effect: str
    point: str
    connection: int
    """Number of the connection, from 0; -1 at a time."""
    direction: str
    at_s: float


@attrs.frozen
class _Armed:
    rule: Rule
    turns: Turns
    random: Random


class _Connection:
    """One client, and the connection to the server that was made for it."""

    def __init__(self, number: int, client: trio.SocketStream) -> None:
        self.number, self.client = number, client
        self.server: trio.SocketStream | None = None
        self.scope = trio.CancelScope()
        self.flows: dict[Direction, Flow] = {"request": Flow(), "response": Flow()}
        self.closes_at_answer = False
        self.speeds: dict[Direction, float] = {}

    def reset(self) -> None:
        """Close both sides at once, without a farewell."""
        self.scope.cancel()
        for stream in (self.client, self.server):
            if stream is not None:
                _reset(stream.socket)


class FaultProxy:
    """A running proxy. Made by `open_fault_proxy`."""

    def __init__(
        self,
        host: str,
        port: int,
        plan: NetworkFaultPlan,
        nursery: trio.Nursery,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._server_host, self._server_port = host, port
        self._nursery = nursery
        self._started_s = trio.current_time()
        self._connections: set[_Connection] = set()
        self._slots = trio.Semaphore(connections_max)
        self._number = 0
        self._round = trio.CancelScope()
        self._up_again_s = 0.0
        self._listener: trio.SocketListener | None = None
        self.host, self.port = "", 0
        """Where it listens."""
        self.happened: deque[InjectedOnWire] = deque(maxlen=HAPPENED_MAX)
        """The last faults that were injected."""
        self.use(plan)

    def use(self, plan: NetworkFaultPlan) -> None:
        """Go on with another plan, counting from zero; an empty one heals new connections. Open ones keep what has hit them."""
        self.plan = plan
        self._round.cancel()
        self._round = trio.CancelScope()
        self._rules = [
            _Armed(rule, Turns(rule), Random(f"{plan.seed}/{rule.name}"))  # noqa: S311 - repeatable on purpose
            for rule in plan.named()
        ]
        self._nursery.start_soon(self._watch_time, self._round)

    @property
    def fired(self) -> Mapping[str, int]:
        """Name of each rule -> how often it has hit."""
        return Counter({armed.rule.name: armed.turns.fired for armed in self._rules})

    @property
    def url(self) -> str:
        """Where it listens, for servers that speak HTTP."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    @property
    def is_down(self) -> bool:
        """Whether connections are refused now."""
        return self._listener is None

    def drop_connections(self) -> None:
        """Reset every connection that is open now. New ones may come."""
        for connection in list(self._connections):
            connection.reset()

    def restart(self, down_s: float) -> None:
        """Reset every connection, and refuse new ones for so long. While it is down already: for at least so long from now."""
        self._up_again_s = max(self._up_again_s, trio.current_time() + down_s)
        self.drop_connections()
        if self._listener is not None:
            # At once, and not through a cancellation: nobody may get in between.
            listener, self._listener = self._listener, None
            listener.socket.close()

    def cut(self, port: int) -> None:
        """Reset the connection whose end at the server's side has this local port, if there is one."""
        for connection in list(self._connections):
            if connection.server is not None and connection.server.socket.getsockname()[1] == port:
                connection.reset()
                return

    # Listening

    async def _serve(self, holder: socket.socket, task_status: trio.TaskStatus[None]) -> None:
        self.host, self.port = holder.getsockname()[:2]
        is_started = False
        while True:
            self._listener = _listening(holder)
            if not is_started:
                is_started = True
                task_status.started()
            try:
                await self._accept(self._listener)
            except trio.ClosedResourceError:
                # It may be told to stay down longer while it waits.
                while trio.current_time() < self._up_again_s:  # noqa: ASYNC110 - the time itself is waited for
                    await trio.sleep_until(self._up_again_s)
            finally:
                if self._listener is not None:
                    self._listener.socket.close()
                    self._listener = None

    async def _accept(self, listener: trio.SocketListener) -> None:
        while True:
            await self._slots.acquire()
            try:
                client = await listener.accept()
            except BaseException:
                self._slots.release()
                raise
            connection = _Connection(self._number, client)
            self._number += 1
            self._connections.add(connection)
            self._nursery.start_soon(self._hold, connection)

    async def _hold(self, connection: _Connection) -> None:
        try:
            with connection.scope:
                await self._connect(connection)
        finally:
            self._connections.discard(connection)
            self._slots.release()
            for stream in (connection.client, connection.server):
                if stream is not None:
                    stream.socket.close()

    async def _connect(self, connection: _Connection) -> None:
        for armed in self._rules:
            if armed.rule.point == "bytes":
                for direction in _directions(armed.rule):
                    come = partial(self._comes, armed, connection, direction)
                    connection.flows[direction].seek(armed.rule, armed.random, come)
            elif armed.rule.point == "connection" and self._comes(armed, connection, "both"):
                match armed.rule.effect:
                    case Refuse():
                        connection.reset()
                        return
                    case Restart(down_s=down_s):
                        self.restart(down_s)
                        return
                    case LoseResponse():
                        connection.closes_at_answer = True
                    case _:
                        for direction in _directions(armed.rule):
                            connection.flows[direction].place(armed.rule, armed.random)
        try:
            connection.server = await trio.open_tcp_stream(self._server_host, self._server_port)
        except OSError:
            # As if the client had spoken to the server itself, as far as a proxy can.
            connection.reset()
            return
        async with trio.open_nursery() as nursery:
            client, server = connection.client, connection.server
            nursery.start_soon(self._pump, connection, "request", client, server)
            nursery.start_soon(self._pump, connection, "response", server, client)

    async def _pump(
        self, connection: _Connection, direction: Direction, source: trio.SocketStream, sink: trio.SocketStream
    ) -> None:
        flow = connection.flows[direction]
        try:
            while data := await source.receive_some(PIECE_BYTES):
                if direction == "response" and connection.closes_at_answer:
                    break
                for step in flow.feed(bytes(data)):
                    if not await self._do(step, connection, direction, source, sink):
                        connection.scope.cancel()
                        return
            else:
                await sink.send_eof()
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        connection.scope.cancel()

    async def _do(
        self,
        step: Step,
        connection: _Connection,
        direction: Direction,
        source: trio.SocketStream,
        sink: trio.SocketStream,
    ) -> bool:
        """Do one step; say whether the connection goes on."""
        match step:
            case Pass(data=data):
                speed = connection.speeds.get(direction)
                if speed is None:
                    await sink.send_all(data)
                else:
                    await _drip(data, speed, sink)
            case Wait(seconds=seconds):
                await trio.sleep(seconds)
            case Pace(bytes_per_second=speed):
                connection.speeds[direction] = speed
            case CloseAtAnswer():
                connection.closes_at_answer = True
            case Hang():
                # What comes is read and thrown away: that is how it is noticed that the sender has left.
                while await source.receive_some(PIECE_BYTES):
                    pass
                return False
            case GoDown(seconds=seconds):
                self.restart(seconds)
                return False
            case Close():
                return False
        return True

    # Rules

    def _comes(self, armed: _Armed, connection: _Connection | None, direction: str) -> bool:
        at_s = trio.current_time() - self._started_s
        # The time of a rule at a time was looked at by whoever waited for it.
        if (connection is not None and not armed.rule.holds_at(at_s)) or not armed.turns.comes(armed.random):
            return False
        self.happened.append(
            InjectedOnWire(
                rule=armed.rule.name,
                effect=armed.rule.effect_name,
                point=armed.rule.point,
                connection=-1 if connection is None else connection.number,
                direction=direction,
                at_s=at_s,
            )
        )
        return True

    async def _watch_time(self, this_round: trio.CancelScope) -> None:
        with this_round:
            async with trio.open_nursery() as nursery:
                for armed in self._rules:
                    if armed.rule.point == "time":
                        nursery.start_soon(self._at_time, armed)

    async def _at_time(self, armed: _Armed) -> None:
        begins_s = armed.rule.begins_after(-1.0)
        while begins_s is not None:
            await trio.sleep_until(self._started_s + begins_s)
            effect = armed.rule.effect
            if self._comes(armed, None, "both") and isinstance(effect, Restart):
                self.restart(effect.down_s)
            begins_s = armed.rule.begins_after(max(begins_s, trio.current_time() - self._started_s))


@asynccontextmanager
async def open_fault_proxy(
    server_host: str,
    server_port: int,
    plan: NetworkFaultPlan | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: socket.socket | None = None,
    connections_max: int = CONNECTIONS_MAX,
) -> AsyncIterator[FaultProxy]:
    """Run a proxy to a server while the block runs. `port` 0 takes any free one; only addresses of this machine are listened on.

    More connections than `connections_max` wait until others end. `listener` is a bound socket to use instead, which the proxy closes. Raises `ValueError` for an address that others
    reach, and `OSError` if the port cannot be had. Left or cancelled: all connections are closed.
    """
    if listener is None and not _is_loopback(host):
        raise ValueError(f"A fault proxy listens on this machine only, not on {host}. Use 127.0.0.1.")
    holder = _bound(host, port) if listener is None else listener
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            proxy = FaultProxy(server_host, server_port, plan or NetworkFaultPlan(), nursery, connections_max)
            await nursery.start(proxy._serve, holder)
            try:
                yield proxy
            except BaseException as error:  # noqa: BLE001 - raised again below
                # Kept aside so that what went wrong inside comes out as itself, not as a group of one.
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        holder.close()
    if failure is not None:
        raise failure


def _directions(rule: Rule) -> tuple[Direction, ...]:
    match rule.match.direction:
        case "request":
            return ("request",)
        case "response":
            return ("response",)
    return ("request", "response")


async def _drip(data: bytes, bytes_per_second: float, sink: trio.SocketStream) -> None:
    # Often, so that it is soon noticed that the other side has left.
    size_bytes = max(1, min(_DRIPPED_BYTES_MAX, int(bytes_per_second * _DRIP_S)))
    for at in range(0, len(data), size_bytes):
        piece = data[at : at + size_bytes]
        await trio.sleep(len(piece) / bytes_per_second)
        await sink.send_all(piece)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _listening(holder: socket.socket) -> trio.SocketListener:
    # The holder never listens, so that both may have the address. Its family and address are known: nothing is looked up.
    opened = _bound(*holder.getsockname()[:2])
    try:
        opened.listen(_BACKLOG)
        return trio.SocketListener(trio.socket.from_stdlib_socket(opened))
    except BaseException:
        opened.close()
        raise


def _reset(sock: trio.socket.SocketType) -> None:
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
