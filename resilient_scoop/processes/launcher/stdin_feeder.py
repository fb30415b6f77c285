"""The launcher's end of the script's standard input: it reads a piece when the script asks for one.

What the pieces are, and why the launcher reads them, is told in `processes.origin.stdin`.
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
    Piece,
)
from resilient_scoop.runs import stdin_rest

if TYPE_CHECKING:
    from pathlib import Path


class Feeder:
    """The launcher's end: reads its standard input when the script asks for it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        fd: int = 0,
        folder: Path | None = None,
        *,
        resumed: bool = False,
    ) -> None:
        self._folder = folder  # of the run, where the end of the input is noted
        self._resumed = resumed
        self._noted = -1  # after how many pieces an end was noted
        self.source = os.urandom(SOURCE_BYTES)
        self._selector = selector
        self._fd = fd
        self._reading = -1  # what is watched: a description of our own, where that can be had
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)  # noqa: FBT003 - the library takes it so
        self._first = 0  # number of the first piece that is kept
        self._kept: deque[Piece] = deque()
        self._wanted: int | None = None
        selector.register(self._ours, selectors.EVENT_READ, self._hear)

    @property
    def child_fd(self) -> int:
        """Descriptor of the origin's end, to be inherited."""
        return self._theirs.fileno()

    def look(self) -> None:
        """Note where the input is known to end, before the script asks (`runs.stdin_rest`)."""
        read = self._first + len(self._kept)
        if self._folder is None or self._noted == read or (self._resumed and not read):
            return
        if stdin_rest.is_at_end(self._fd):
            self._noted = read
            stdin_rest.note_ended(self._folder, stdin_rest.Ended(source=self.source, pieces=read))

    def close(self) -> None:
        """Let go of everything but the standard input itself."""
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
        except (OSError, ValueError):  # a file, or closed: reading it waits for nobody
            self._read()

    def _rest(self) -> None:
        """Watch the standard input no more: type-ahead is for whoever reads next."""
        self._wanted = None
        if self._reading >= 0 and self._reading in self._selector.get_map():
            self._selector.unregister(self._reading)

    def _read(self) -> None:
        try:
            piece = Piece(os.read(self._reading, PIECE_BYTES), 0)
        except BlockingIOError:
            return  # another process was quicker
        except OSError as error:
            piece = Piece(b"", error.errno or 0)
        wanted = self._wanted
        self._rest()
        assert wanted is not None, "nothing is read that nobody asked for"
        self._kept.append(piece)
        self._answer(wanted)
        self.look()

    def _answer(self, number: int) -> None:
        piece = self._kept[number - self._first]
        try:
            self._ours.send(REPLY.pack(number, piece.error) + piece.data)
        except BlockingIOError:
            return  # what a dead origin left unread is in the way: it is asked for again


def _unblocking(fd: int) -> int:
    """Return a description of the same pipe or terminal whose reads don't block, else `fd` itself.

    The flag must not be set on the one that we were given: the shell has it, too.
    """
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            path = f"/proc/self/fd/{fd}"
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return fd  # another user's terminal: a read may wait, if someone else reads there, too
    return fd
