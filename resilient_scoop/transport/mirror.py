"""A worker's way to the files of a run that lives on another host: it asks its agent (`wire.local_files`).

Waits need no time limit: an agent that ends closes the connection, and a broker that is away comes
back, or its agents end.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from resilient_scoop.transport.sockets import socket_path
from resilient_scoop.wire import local_files as wire

if TYPE_CHECKING:
    from collections.abc import Sequence


class HostFiles:
    """The files of the run folder, for a process on another host."""

    def __init__(self, folder: str) -> None:
        """`folder`: that of the local sockets."""
        self._path = socket_path(folder, wire.SOCKET)
        self._lock = threading.Lock()
        self._calls: socket.socket | None = None
        self._notes: socket.socket | None = None
        self._pid = os.getpid()

    def fetch(self, name: str) -> None:
        """Fetch a file; raises OSError if the run's host does not have it."""
        self._call(wire.Wanted(wire.FETCH, [name]))

    def push(self, name: str, *, durable: bool) -> None:
        """Send a file of this host to the run's folder; raises OSError of the disk there."""
        self._call(wire.Wanted(wire.PUSH, [name], durable))

    def sync(self, names: Sequence[str]) -> None:
        """Make files durable in the run's folder."""
        for name in names:
            self._call(wire.Wanted(wire.SYNC, [name]))

    def remove(self, name: str) -> None:
        """Remove a file from the run's folder, without waiting for it."""
        self._leave_to_parent()
        if self._notes is None:
            self._notes = self._connect()
        self._notes.send(wire.encode(wire.Wanted(wire.REMOVE, [name])))

    def _call(self, wanted: wire.Wanted) -> None:
        with self._lock:
            self._leave_to_parent()
            connection = self._calls = self._calls or self._connect()
            answer = b""
            try:
                connection.send(wire.encode(wanted))
                answer = connection.recv(wire.MESSAGE_BYTES_MAX)
            finally:
                if not answer:  # the next call would get the answer of an interrupted one
                    self._calls = None
                    connection.close()
        if not answer:
            raise ConnectionResetError("the agent of this host has ended")
        had = wire.decode_had(answer)
        if had.errno:
            raise OSError(had.errno, had.text)

    def _leave_to_parent(self) -> None:
        """Drop the connection of the process from which this one was forked."""
        if self._pid != os.getpid():
            self._calls = self._notes = None
            self._pid = os.getpid()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(self._path)
        return connection
