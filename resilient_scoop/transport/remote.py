"""The sockets between hosts: TCP with CURVE, both ends known by their keys.

The broker's end accepts only clients whose key its guard admits (ZAP, RFC 27). The guard is asked
in the broker's own loop. If it is not asked, because the loop is blocked or has ended, no client
is admitted: `ZAP_ENFORCE_DOMAIN` makes libzmq require an answer (without it, CURVE admits every key
while there is no handler). Each message comes with the key of its connection, set by the
guard's answer.

A connection that does not finish its handshake in `HANDSHAKE_MS` is closed, so that silent ones do not keep
others out. Signs of life of ZMTP close connections whose other end has vanished; what that loses, the
links send again (`core.link`). Only agents send them, with the time after which the broker closes a silent
connection: libzmq (4.3.5) aborts the process if its timer for signs of life ends on a connection that was
replaced (`ROUTER_HANDOVER`), had received more, and was then reset.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import zmq
from zmq.utils import z85

from resilient_scoop.transport.sockets import DealerSocket, Socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Guard = Callable[[str, str], str | None]
    """Takes a key (Z85) and an address; returns why it is refused, or None."""

DOMAIN: Final = b"rscoop"
HANDSHAKE_MS: Final = 1000
ROUTING_BYTES: Final = 16
"""Of an agent's routing id: too many to guess, since the connection belongs to who says it."""
_MESSAGE_BYTES_MAX: Final = 256 << 20
_BACKLOG: Final = 1024
HEARTBEAT_MS, SILENCE_MS = 1500, 3000
"""Signs of life of ZMTP. After a cut, the kernel sends again what is unacknowledged ever later (0.2 s, 0.6,
1.4, 3, 6.2 after it); a new connection is quicker from the fifth second on."""
_GREETING_MS: Final = 3000
_CONNECT_MS: Final = 1500
"""The kernel repeats a request for a connection after 1 s, then after 2 s more; a new one is quicker."""
RETRY_MS, RETRY_MS_MAX = 100, 500
_ZAP: Final = "inproc://zeromq.zap.01"
_EVICTION: Final = "inproc://evict"
_NOBLOCK: Final = int(zmq.NOBLOCK)
_ZAP_FRAMES: Final = 7


class KeyPair(NamedTuple):
    """A CURVE key pair, both halves as Z85 text."""

    public: bytes
    secret: bytes


def make_keys() -> KeyPair:
    """Return a fresh key pair."""
    return KeyPair(*zmq.curve_keypair())


def public_half(secret: bytes) -> bytes:
    """Return the public half of a secret key."""
    public: bytes = zmq.curve_public(secret)
    return public


class Parcel(NamedTuple):
    """A message from another host, with its sender and key."""

    routing: bytes
    key: str
    frames: list[bytes]


class _Wire(NamedTuple):
    """The descriptor of a connection, and the address of its other end."""

    fd: int
    peer: object


class RemoteRouter(Socket):
    """The broker's end."""

    def __init__(self, secret: bytes, guard: Guard, addresses: Sequence[str], port: int) -> None:
        """Listen on a port of some addresses; 0: on any free port, the same on all of them.

        Raises:
            OSError: the port is taken, or an address is none of this host's.
        """
        super().__init__(zmq.ROUTER)
        self._guard = guard
        self._wires: dict[bytes, _Wire] = {}  # by routing id
        self._zap = self._context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(_ZAP)
        self._poller.register(self._zap, zmq.POLLIN)
        router = self._socket
        router.setsockopt(zmq.MAXMSGSIZE, _MESSAGE_BYTES_MAX)
        router.setsockopt(zmq.BACKLOG, _BACKLOG)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        router.bind(_EVICTION)  # before the keys: connections inside of the process have none
        router.setsockopt(zmq.IPV6, 1)
        router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, secret)
        try:
            for address in addresses:
                router.bind(f"tcp://{address}:{port or '*'}")
                port = port or _port_of(router)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, error.strerror) from error
        self.port = port

    @property
    def doors(self) -> list[zmq.Socket[bytes]]:
        """Return the sockets to poll."""
        return [self._socket, self._zap]

    def receive(self, limit: int = 1000) -> Iterator[Parcel]:
        """Answer the guard's questions, and yield received messages, without waiting."""
        self._ask_guard()
        receive = self._socket.recv
        for _ in range(limit):
            try:
                frame = receive(_NOBLOCK, copy=False)
            except zmq.Again:
                return
            routing, frames = frame.bytes, []
            self._note(routing, int(frame.get(zmq.SRCFD)))
            while frame.more:
                frame = receive(_NOBLOCK, copy=False)
                frames.append(frame.bytes)
            if frames:
                yield Parcel(routing, str(frame.get("User-Id")), frames)

    def _note(self, routing: bytes, fd: int) -> None:
        """Remember the connection of a routing id, in case it must be cut."""
        if routing in self._wires and self._wires[routing].fd == fd:
            return
        # It may be closed already.
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as wire:
            self._wires[routing] = _Wire(fd, wire.getpeername())

    def _ask_guard(self) -> None:
        while True:
            try:
                request = self._zap.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            status, text, user = b"400", b"refused", b""
            if len(request) == _ZAP_FRAMES and request[2] == DOMAIN and request[5] == b"CURVE":
                key = z85.encode(request[6]).decode("ascii")
                if self._guard(key, request[3].decode("ascii", "replace")) is None:
                    status, text, user = b"200", b"OK", key.encode()
            answer = [b"1.0", request[1] if len(request) > 1 else b"", status, text, user, b""]
            self._zap.send_multipart(answer)

    def send(self, routing: bytes, frames: Sequence[bytes]) -> bool:
        """Send; return False when there is no such connection."""
        try:
            self._put(routing, frames, _NOBLOCK)
        except (zmq.Again, zmq.ZMQError) as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def cut(self, routing: bytes) -> None:
        """Close a connection at once; what it has sent and was not received yet is dropped.

        Another connection takes its name (`ROUTER_HANDOVER`) and ends, which severs it from this socket
        but leaves it open; so its descriptor is shut down, too.
        """
        other = self._context.socket(zmq.DEALER)
        other.setsockopt(zmq.LINGER, 0)
        other.setsockopt(zmq.IDENTITY, routing)
        other.connect(_EVICTION)
        other.close()
        wire = self._wires.pop(routing, None)
        if wire is None:
            return
        with suppress(OSError), socket.socket(fileno=os.dup(wire.fd)) as open_wire:
            # The number of the descriptor may be another connection's by now.
            if open_wire.getpeername() == wire.peer:
                open_wire.shutdown(socket.SHUT_RDWR)

    def forget(self, routing: bytes) -> None:
        """Forget a connection that is no longer used."""
        self._wires.pop(routing, None)

    def close(self) -> None:
        """Close; messages that are not sent within the linger time are lost."""
        self._zap.close()
        super().close()


def _port_of(router: zmq.Socket[bytes]) -> int:
    return int(_endpoint_of(router).rpartition(":")[2])


def _endpoint_of(a_socket: zmq.Socket[bytes]) -> str:
    """Return the last address that a socket was bound or connected to."""
    return str(a_socket.get_string(zmq.LAST_ENDPOINT))


class RemoteDealer(DealerSocket):
    """An agent's end."""

    def __init__(self, endpoint: str, keys: KeyPair, server: bytes, *, keeps: bool = False) -> None:
        """Connect; `keeps` messages while there is no connection, instead of dropping them."""
        self._keys, self._server, self._keeps = keys, server, keeps
        self._is_refused = False
        super().__init__(endpoint, secrets.token_bytes(ROUTING_BYTES))

    def _prepare(self) -> None:
        dealer = self._socket
        dealer.setsockopt(zmq.MAXMSGSIZE, _MESSAGE_BYTES_MAX)
        dealer.setsockopt(zmq.IPV6, 1)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, self._server)
        dealer.setsockopt(zmq.HANDSHAKE_IVL, _GREETING_MS)
        dealer.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        dealer.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        dealer.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
        dealer.setsockopt(zmq.HEARTBEAT_TTL, SILENCE_MS)
        self._monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self._monitor.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, int(not self._keeps))
        dealer.setsockopt(zmq.RECONNECT_IVL, RETRY_MS)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, RETRY_MS_MAX)

    @property
    def is_refused(self) -> bool:
        """Whether the broker has refused the key: it is not tried again."""
        with suppress(zmq.Again):
            self._monitor.recv_multipart(_NOBLOCK)
            self._is_refused = True
        return self._is_refused

    def close(self) -> None:
        """Close; messages that are not sent within the linger time are lost."""
        self._socket.disable_monitor()
        self._monitor.close()
        super().close()

    def send(self, frames: Sequence[bytes]) -> None:
        """Send; without a connection, the message is lost."""
        with suppress(zmq.Again):
            self._put(frames[0], frames[1:], _NOBLOCK)
