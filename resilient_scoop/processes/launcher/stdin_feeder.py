"""The launcher's end of the script's standard input: it reads a piece on each request of the script.

`processes.origin.stdin` explains the pieces, and why the launcher reads them.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
from collections import deque
from typing import TYPE_CHECKING

from resilient_scoop.processes.stdin_messages import (
    PIECE_BYTES,
    REPLY,
    REQUEST,
    SOURCE_BYTES,
    InputPiece,
)
from resilient_scoop.runs import stdin_rest

if TYPE_CHECKING:
    from pathlib import Path


class Feeder:
    """The launcher's end: reads its standard input on request of the script."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        fd: int = 0,
        folder: Path | None = None,
        *,
        resumed: bool = False,
    ) -> None:
        self._folder = folder  # folder of the run, in which the end of the input is recorded
        self._resumed = resumed
        self._noted = -1  # after how many pieces an end was recorded
        self.source = os.urandom(SOURCE_BYTES)
        self._selector = selector
        self._fd = fd
        self._reading = (
            -1
        )  # the watched descriptor: with an open file description of our own, if possible
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)  # noqa: FBT003 - the library takes it so
        self._first = 0  # number of the first kept piece
        self._kept: deque[InputPiece] = deque()
        self._wanted: int | None = None
        selector.register(self._ours, selectors.EVENT_READ, self._hear)

    @property
    def child_fd(self) -> int:
        """Descriptor of the origin's end, inherited by the origin."""
        return self._theirs.fileno()

    def look(self) -> None:
        """Record where the input ends, if known, before the script asks (`runs.stdin_rest`)."""
        read = self._first + len(self._kept)
        if self._folder is None or self._noted == read or (self._resumed and not read):
            return
        if stdin_rest.is_at_end(self._fd):
            self._noted = read
            stdin_rest.note_ended(
                self._folder, stdin_rest.InputEnd(source=self.source, pieces=read)
            )

    def close(self) -> None:
        """Close everything but the standard input itself."""
        self.look()
        self._rest()
        self._selector.unregister(self._ours)
        self._ours.close()
        self._theirs.close()
        if self._reading not in (-1, self._fd):
            os.close(self._reading)
        self._reading = -1

    def _hear(self) -> None:
        try:
            request = self._ours.recv(REQUEST.size)
        except BlockingIOError:
            return
        wanted, unsaved = REQUEST.unpack(request)
        while self._kept and self._first < min(unsaved, wanted):
            self._kept.popleft()
            self._first += 1
        if wanted < self._first + len(self._kept):
            self._answer(wanted)
        elif self._wanted is None:
            self._wanted = wanted
            self._await()

    def _await(self) -> None:
        """Read as soon as there is something, without ever blocking."""
        if self._reading < 0:
            self._reading = _unblocking(self._fd)
        try:
            self._selector.register(self._reading, selectors.EVENT_READ, self._read)
        except (OSError, ValueError):  # a file, or closed: reading it does not block
            self._read()

    def _rest(self) -> None:
        """Stop watching the standard input: type-ahead belongs to the next reader."""
        self._wanted = None
        if self._reading >= 0 and self._reading in self._selector.get_map():
            self._selector.unregister(self._reading)

    def _read(self) -> None:
        try:
            piece = InputPiece(os.read(self._reading, PIECE_BYTES), 0)
        except BlockingIOError:
            return  # another process read it first
        except OSError as error:
            piece = InputPiece(b"", error.errno or 0)
        wanted = self._wanted
        self._rest()
        assert wanted is not None, "nothing is read without a request"
        self._kept.append(piece)
        self._answer(wanted)
        self.look()

    def _answer(self, number: int) -> None:
        piece = self._kept[number - self._first]
        try:
            self._ours.send(REPLY.pack(number, piece.error) + piece.data)
        except BlockingIOError:
            return  # messages that a dead origin left unread are in the way: they will be requested again


def _unblocking(fd: int) -> int:
    """Return a descriptor of the same pipe or terminal whose reads do not block, else `fd` itself.

    The flag must not be set on the given descriptor: the shell uses it, too.
    """
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            path = f"/proc/self/fd/{fd}"
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return (
            fd  # a terminal of another user: a read may block, if another process reads there, too
        )
    return fd
