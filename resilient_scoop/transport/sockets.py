"""The local sockets of a run: one ROUTER at the broker, one DEALER at every other process of its host.

The options follow measurements of libzmq: ROUTER_MANDATORY, so that a message without a receiver is
an error; ROUTER_HANDOVER, so that a peer that reconnects is received; no high-water mark, because
the links limit their messages and a dropped message would only be sent again; LINGER bounded, so
that nothing hangs at exit. The links handle losses at a reconnect.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Final

import zmq

from resilient_scoop.ids import PeerId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LINGER_MS: Final = 300
_RETRY_MS_MAX: Final = 100
"""A new broker is ready 0.4 s after the old one died; a later retry would keep it waiting."""
_MESSAGE_BYTES_MAX: Final = 1 << 31
# Plain numbers instead of pyzmq's enums: `|` on enums takes as long as sending a message.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE)
_THREADS: Final = 4
"""libzmq starts two threads, we one or two more."""
_UNIX_PATH_MAX: Final = 100
_THROUGH_FOLDER: Final = re.compile("/proc/self/fd/([0-9]+)/")


def local_endpoint(folder: str) -> str:
    """Return the address of the run's socket in a folder of mode 0700."""
    return f"ipc://{socket_path(folder, 'broker')}"


def socket_path(folder: str, name: str) -> str:
    """Return the path of a Unix socket.

    One that is too long, or that is not UTF-8, is reached through an open descriptor of its folder, which
    this process keeps until `release`.
    """
    path = os.path.join(folder, name)  # noqa: PTH118 - a string is what the socket takes
    if len(os.fsencode(path)) > _UNIX_PATH_MAX or not path.isprintable():
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{fd}/{name}"
    return path


def release(path: str) -> None:
    """Close the descriptor that `socket_path` has opened for a path or an endpoint, if it has."""
    found = _THROUGH_FOLDER.search(path)
    if found is not None:
        os.close(int(found[1]))


def _try_threads() -> None:
    """Raise RuntimeError if the system refuses threads: libzmq would end the process without a message."""
    gate = threading.Event()
    threads = [threading.Thread(target=gate.wait, daemon=True) for _ in range(_THREADS)]
    begun = 0
    try:
        for thread in threads:
            thread.start()
            begun += 1
    finally:
        gate.set()
        for thread in threads[:begun]:
            thread.join()


class Socket:
    """The common part of both ends."""

    _endpoint = ""

    def __init__(self, kind: int) -> None:
        _try_threads()
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MESSAGE_BYTES_MAX)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    @property
    def fd(self) -> int:
        """The descriptor that becomes readable, once, when something has happened to the socket."""
        return int(self._socket.getsockopt(zmq.FD))

    @property
    def doors(self) -> list[zmq.Socket[bytes]]:
        """Return the sockets to poll."""
        return [self._socket]

    def watch(self, fd: int) -> None:
        """Make `wait` return when a descriptor is readable."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Remove a descriptor."""
        self._poller.unregister(fd)

    def join(self, *others: Socket) -> None:
        """Make `wait` also return when other sockets have a message."""
        for other in others:
            for door in other.doors:
                self._poller.register(door, zmq.POLLIN)

    def part(self, other: Socket) -> None:
        """Stop waiting for another socket, before it is closed."""
        for door in other.doors:
            self._poller.unregister(door)

    def wait(self, timeout_s: float) -> set[int]:
        """Wait for a message or a watched descriptor; return the descriptors that are readable."""
        ready = self._poller.poll(max(0, round(timeout_s * 1000)))
        return {what for what, _ in ready if isinstance(what, int)}

    def _take(self) -> list[bytes]:
        """Return the frames of a message; zmq.Again if there is none."""
        receive = self._socket.recv
        frame = receive(_NOBLOCK, copy=False)
        frames = [frame.bytes]
        while frame.more:
            frame = receive(_NOBLOCK, copy=False)
            frames.append(frame.bytes)
        return frames

    def _put(self, first: bytes, rest: Sequence[bytes], flags: int = 0) -> None:
        """Send the frames of a message; it is sent with the last frame."""
        send = self._socket.send
        left = len(rest)
        send(first, flags | _MORE if left else flags)
        for frame in rest:
            left -= 1
            send(frame, flags | _MORE if left else flags)

    def close(self) -> None:
        """Close; messages that are not sent within the linger time are lost."""
        self._socket.close()
        self._context.term()
        release(self._endpoint)


class RouterSocket(Socket):
    """The broker's end."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._endpoint = endpoint
        self._socket.bind(endpoint)

    def receive(self, limit: int = 1000) -> Iterator[tuple[PeerId, list[bytes]]]:
        """Yield received messages, without waiting."""
        for _ in range(limit):
            try:
                who, *frames = self._take()
            except zmq.Again:
                return
            yield PeerId(who), frames

    def send(self, to: PeerId, frames: Sequence[bytes]) -> bool:
        """Send; return False when the peer has no connection."""
        try:
            self._put(to, frames, _NOBLOCK)
        except (zmq.Again, zmq.ZMQError) as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True


class DealerSocket(Socket):
    """The end of a worker, the origin or an agent."""

    def __init__(self, endpoint: str, identity: bytes) -> None:
        super().__init__(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, identity)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RETRY_MS_MAX)
        self._prepare()
        self._endpoint = endpoint
        self._socket.connect(endpoint)

    def _prepare(self) -> None:
        """Set what a kind of socket needs before it connects."""

    def receive(self) -> list[bytes] | None:
        """Return the frames of a received message, or None."""
        try:
            return self._take()
        except zmq.Again:
            return None

    def send(self, frames: Sequence[bytes]) -> None:
        """Send, or queue until there is a connection."""
        self._put(frames[0], frames[1:])
